"""The next step in a dispute, through all of its phases; times and weights by example."""

from __future__ import annotations

from dataclasses import replace

import pytest
from strategies import BTC, ETH, EXPIRY, T0, Desk, call, leg, make_terms, perpetual

from channeld.core.dispute import (
    RELEASE_AFTER,
    DisputeView,
    JudgeCall,
    ProveFixes,
    Refute,
    Release,
    Settle,
    ShowLast,
    Unknown,
    Wait,
    next_step,
)
from channeld.core.operations import Trade
from channeld.core.settlement import MarginCall, Verdict, fix_time, fixes_needed
from channeld.core.terms import ZERO_FEED
from channeld.core.wad import DAY, WAD

TERMS = make_terms()
DEADLINE = T0 + 3 * DAY + 3
FIX = DEADLINE + 30 + 7  # three samples of ten seconds, then up to a tick
FULL = 9
GRACE = TERMS.oracle.grace


@pytest.fixture(scope="module")
def book():
    """A perpetual on both feeds and a call."""
    desk = Desk()
    legs = (leg(perpetual(), 1, 3000), leg(perpetual(BTC), 1, 60_000), leg(call(), 1, 100))
    desk.do(Trade(0, legs), at=T0)
    return desk.body


def view(body, now: int, *, version: int = 5, ours: int = 5, known=None, held=None) -> DisputeView:
    return DisputeView(now, version, DEADLINE, ours, body, known or {}, held or {})


def test_the_fix_time_is_a_tick():
    assert fix_time(TERMS, DEADLINE) == FIX
    assert FIX % TERMS.oracle.tick == 0


@pytest.mark.parametrize(
    ("now", "version", "ours", "expected"),
    [
        (T0, 4, 5, Refute()),
        (DEADLINE - 1, 4, 5, Refute()),
        (T0, 5, 5, Wait(DEADLINE, "the challenge period to end")),
        (T0, 6, 5, Wait(DEADLINE, "the challenge period to end")),
        # strictly before the deadline: at it nothing can be refuted any more
        (DEADLINE, 4, 5, Wait(FIX, "the fix time")),
        (DEADLINE, 5, 5, Wait(FIX, "the fix time")),
        (FIX - 1, 5, 5, Wait(FIX, "the fix time")),
    ],
)
def test_before_the_fix_time(book, now, version, ours, expected):
    assert next_step(TERMS, view(book, now, version=version, ours=ours)) == expected


@pytest.mark.parametrize("now", [DEADLINE, FIX, FIX + GRACE, FIX + 2 * GRACE - 1])
def test_a_body_that_is_not_ours_cannot_be_shown(now):
    assert next_step(TERMS, view(None, now, version=9, ours=5)) == Unknown()


LAST = FIX + 2 * GRACE
END = LAST + GRACE


@pytest.mark.parametrize(
    ("now", "shown", "window_end", "expected"),
    [
        (LAST, 0, 0, ShowLast()),
        (LAST + 5, 4, END, ShowLast()),
        (LAST + 5, 5, END, Wait(END, "higher bodies to be shown")),
        (LAST + 5, 6, END, Wait(END, "higher bodies to be shown")),
        (END, 5, END, ShowLast()),
        # whoever showed more must have itself paid by it; ours came too late
        (END, 6, END, Unknown()),
        (END, 4, END, Unknown()),
    ],
)
def test_where_nobody_shows_the_body_on_record_our_highest_is_shown(now, shown, window_end, expected):
    hidden = replace(view(None, now, version=9, ours=5), shown=shown, window_end=window_end)
    assert next_step(TERMS, hidden) == expected


@pytest.mark.parametrize(
    ("now", "window_end", "expected"),
    [
        (LAST, 0, Unknown()),
        (FIX + RELEASE_AFTER - 1, 0, Unknown()),
        (FIX + RELEASE_AFTER, 0, Release()),
        (FIX + RELEASE_AFTER, END, Unknown()),
    ],
)
def test_a_desk_that_holds_nothing_above_the_floor_waits_for_release(now, window_end, expected):
    hidden = replace(view(None, now, version=9, ours=5), floor=6, window_end=window_end)
    assert next_step(TERMS, hidden) == expected


def called(book, now, verdict, known, held=None):
    return replace(view(book, now, known=known, held=held), calls=(MarginCall(CALL, verdict),))


CALL = DEADLINE + 7  # a tick


def weights(book, *times, each=FULL):
    return {key: each for t in times for key in fixes_needed(TERMS, book, t)}


def test_a_margin_call_is_tested_by_the_heaviest_fixes_once_its_time_is_past(book):
    full = weights(book, CALL)
    assert next_step(TERMS, called(book, CALL, None, full)) == Wait(FIX, "the fix time")
    proven = next_step(TERMS, called(book, CALL + 1, None, weights(book, CALL, each=6), full))
    assert proven == ProveFixes(fixes_needed(TERMS, book, CALL))
    assert next_step(TERMS, called(book, CALL + 1, None, full)) == JudgeCall(0)
    light = Verdict(False, False, False, sum(full.values()) - 1)
    assert next_step(TERMS, called(book, CALL + 1, light, full)) == JudgeCall(0)
    heavy = replace(light, weight=sum(full.values()), complete=True)
    assert next_step(TERMS, called(book, CALL + 1, heavy, full)) == Wait(FIX, "the fix time")
    assert next_step(TERMS, called(book, FIX, heavy, weights(book, CALL, FIX))) == Settle()


def test_a_margin_call_whose_fixes_are_missing_is_void_after_the_grace(book):
    known = weights(book, FIX)
    waits = Wait(FIX + GRACE, "the oracle signers that are missing, or the grace period to end")
    assert next_step(TERMS, called(book, FIX, None, known)) == waits
    assert next_step(TERMS, called(book, FIX + GRACE, None, known)) == Settle()


def test_a_body_that_is_not_ours_is_refuted_before_the_deadline_all_the_same():
    assert next_step(TERMS, view(None, T0, version=4, ours=5)) == Refute()
    assert next_step(TERMS, view(None, T0, version=6, ours=5)) == Wait(DEADLINE, "the challenge period to end")


ETH_FIX, BTC_FIX = (ETH, FIX), (BTC, FIX)


@pytest.mark.parametrize(
    ("now", "known", "held", "expected"),
    [
        # nothing is known and nothing held: wait for the oracle, then settle at the marks
        (FIX, {}, {}, Wait(FIX + GRACE, "the oracle signers that are missing, or the grace period to end")),
        (FIX + GRACE - 1, {}, {}, Wait(FIX + GRACE, "the oracle signers that are missing, or the grace period to end")),
        (FIX + GRACE, {}, {}, Settle()),
        # what we hold is proven, and nothing twice
        (FIX, {}, {ETH_FIX: FULL}, ProveFixes((ETH_FIX,))),
        (FIX, {}, {ETH_FIX: FULL, BTC_FIX: 6}, ProveFixes((BTC_FIX, ETH_FIX))),
        (FIX, {ETH_FIX: FULL}, {ETH_FIX: FULL, BTC_FIX: 6}, ProveFixes((BTC_FIX,))),
        (FIX, {ETH_FIX: 6}, {ETH_FIX: 7, BTC_FIX: 0}, ProveFixes((ETH_FIX,))),
        # somebody else has proven all of it
        (FIX, {ETH_FIX: FULL, BTC_FIX: FULL}, {}, Settle()),
        (FIX, {ETH_FIX: FULL, BTC_FIX: FULL}, {ETH_FIX: FULL}, Settle()),
        # incomplete, and we hold no more: patience, then settle with what is there
        (
            FIX,
            {ETH_FIX: FULL, BTC_FIX: 6},
            {ETH_FIX: FULL, BTC_FIX: 6},
            Wait(FIX + GRACE, "the oracle signers that are missing, or the grace period to end"),
        ),
        (FIX + GRACE, {ETH_FIX: FULL, BTC_FIX: 6}, {ETH_FIX: FULL, BTC_FIX: 6}, Settle()),
        # even after the grace, first what is better
        (FIX + GRACE, {}, {BTC_FIX: 6}, ProveFixes((BTC_FIX,))),
        # fixes of other times are none of this book's
        (FIX + GRACE, {}, {(ETH, FIX - 10): FULL}, Settle()),
    ],
)
def test_from_the_fix_time_on(book, now, known, held, expected):
    assert next_step(TERMS, view(book, now, known=known, held=held)) == expected


def test_what_expired_on_the_way_needs_its_own_fix(book):
    late = replace(view(book, 0), deadline=EXPIRY + 5)
    at = fix_time(TERMS, late.deadline)
    held = {(ETH, at): FULL, (BTC, at): FULL, (ETH, EXPIRY): FULL}
    step = next_step(TERMS, replace(late, now=at, held=held))
    assert isinstance(step, ProveFixes)
    assert set(step.fixes) == set(held)
    known = {(ETH, at): FULL, (BTC, at): FULL}
    assert isinstance(next_step(TERMS, replace(late, now=at, known=known)), Wait)
    assert next_step(TERMS, replace(late, now=at, known={**known, (ETH, EXPIRY): FULL})) == Settle()


def test_the_collaterals_fix_is_needed_where_it_has_a_feed(book):
    terms = make_terms(collateral_feed=ETH, haircut=WAD // 5)
    assert terms.collateral_feed != ZERO_FEED
    known = {BTC_FIX: FULL}
    assert isinstance(next_step(terms, view(book, FIX, known=known)), Wait)
    assert next_step(terms, view(book, FIX, known={**known, ETH_FIX: FULL})) == Settle()


def test_an_empty_book_needs_no_fix():
    empty = Desk().body
    assert next_step(TERMS, view(empty, FIX - 1)) == Wait(FIX, "the fix time")
    assert next_step(TERMS, view(empty, FIX)) == Settle()


def test_a_restart_asks_the_same_and_gets_the_same(book):
    """Nothing about the plan is stored: each phase follows from what is known."""
    known: dict = {}
    held = {ETH_FIX: FULL, BTC_FIX: FULL}
    seen = []
    for now in (T0, DEADLINE, FIX, FIX + 12):
        step = next_step(TERMS, view(book, now, version=4 if now == T0 else 5, known=known, held=held))
        seen.append(type(step))
        if isinstance(step, ProveFixes):
            known = dict.fromkeys(step.fixes, FULL)
    assert seen == [Refute, Wait, ProveFixes, Settle]
