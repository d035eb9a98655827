"""How long a desk may be away: what the rule names, never in the past of it, never longer for worse circumstances."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st
from strategies import make_terms

from channeld.core.offline import is_thin, safe_offline_until
from channeld.core.settlement import fix_time

TERMS = make_terms()
NOW = 1_900_000_000
LAST = 3 * TERMS.oracle.grace


def test_the_four_cases_outside_a_dispute():
    def until(**changes):
        return safe_offline_until(TERMS, NOW, **{"thin": False, "refuting": False, **changes})

    challenge = NOW + TERMS.challenge_period
    assert until() == challenge
    assert until(refuting=True) == fix_time(TERMS, challenge) + LAST
    assert until(thin=True) == until(thin=True, refuting=True) == NOW + TERMS.cure_period


def test_in_a_dispute():
    deadline = NOW + 500

    def until(now=NOW, **changes):
        return safe_offline_until(TERMS, now, **{"thin": False, "refuting": False, "deadline": deadline, **changes})

    assert until(overtaken=True) == deadline
    # nothing higher can come: only the body must be shown
    assert until() == until(overtaken=True, refuting=True) == fix_time(TERMS, deadline) + LAST
    assert until(thin=True) == min(NOW + TERMS.cure_period, fix_time(TERMS, deadline) + LAST)
    # after the deadline nobody can call margin any more
    assert until(now=deadline, thin=True) == fix_time(TERMS, deadline) + LAST


@given(
    now=st.integers(1, 2**40),
    ahead=st.none() | st.integers(-(10**6), 10**6),
    thin=st.booleans(),
    refuting=st.booleans(),
    overtaken=st.booleans(),
)
def test_worse_circumstances_never_lengthen_it(now, ahead, thin, refuting, overtaken):
    deadline = 0 if ahead is None else max(1, now + ahead)

    def until(**changes):
        known = {"thin": thin, "refuting": refuting, "overtaken": overtaken, "deadline": deadline}
        return safe_offline_until(TERMS, now, **{**known, **changes})

    assert until(thin=True) <= until(thin=False)
    assert until(refuting=False) <= until(refuting=True)
    assert until(overtaken=True) <= until(overtaken=False)
    if not deadline:
        assert until() > now


@given(equity=st.integers(-(10**30), 10**30), maintenance=st.integers(0, 10**30))
def test_thin_is_less_than_what_one_worst_scenario_leaves_above_maintenance(equity, maintenance):
    thin = is_thin(SimpleNamespace(equity=equity, maintenance=maintenance))
    assert thin == (maintenance > 0 and equity - maintenance < maintenance)
