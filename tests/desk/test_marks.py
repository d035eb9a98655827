"""MARKs with real signed packages: what is built the transition takes, and what shows less than we hold is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from strategies import (
    BTC,
    ETH,
    EXPIRY,
    GRACE,
    ORACLE_KEYS,
    T0,
    USDC,
    Desk,
    call,
    dollars,
    fix_packages,
    future,
    leg,
    make_terms,
    packages,
    perpetual,
    put,
)

from channeld.core.operations import Mark, Trade
from channeld.core.packages import DataPoint, sign_package
from channeld.core.transition import mark_needs
from channeld.core.wad import WAD
from channeld.desk.bands import Bands, pack_bands, unpack_bands
from channeld.desk.marks import MarkBlockedError, MarkRefusedError, Material, Surface, bands_of, build_mark, check_mark
from channeld.desk.smiles import ByStrike

T1 = T0 + 60
PRICE = {ETH: dollars(3100), BTC: dollars(61_000), USDC: dollars(1)}
NONE = Material({}, {})
BANDS = (Bands(),)


def material(desk: Desk, t: int, *, signers: int = 3, without: tuple[bytes, ...] = ()) -> Material:
    """All that the oracle has at t."""
    needs = mark_needs(desk.terms, desk.body, t)
    return Material(
        {f: packages(f, t, PRICE[f], signers=signers) for f in needs.prints if f not in without},
        {(f, e): fix_packages(desk.terms, f, e, PRICE[f], signers=signers) for f, e in needs.fixes if f not in without},
    )


def built(desk: Desk, t: int, given: Material, surface: Surface | None = None) -> Mark:
    return build_mark(desk.terms, desk.body, t, given, surface or Surface(), 0)


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    legs = (
        leg(perpetual(), 2, 3000),
        leg(perpetual(BTC), 1, 60_000),
        leg(call(), 1, 150),
        leg(put(2700), -1, 60),
        leg(future(BTC), 1, 60_100),
    )
    made.do(Trade(0, legs), at=T0)
    return made


def test_a_mark_of_the_book_is_taken_by_the_transition(desk):
    given = material(desk, T1)
    mark = built(desk, T1, given)
    assert mark.feeds == tuple(sorted((ETH, BTC)))
    assert set(mark.packages) == {p for f in (ETH, BTC) for p in given.prints[f]}
    check_mark(desk.terms, desk.body, mark, given, BANDS)
    desk.do(mark, at=T1)
    assert desk.body.as_of == T1
    assert desk.body.position(perpetual().key).mark == 3100 * WAD


def test_the_desks_own_surface_is_used_and_else_what_is_agreed(desk):
    surface = Surface(
        vols={(ETH, EXPIRY, 3000 * WAD): 65 * WAD // 100}, carries={(ETH, 0): WAD // 10, (BTC, EXPIRY): WAD // 20}
    )
    desk.do(built(desk, T1, material(desk, T1), surface), at=T1)
    assert desk.body.position(call().key).vol == 65 * WAD // 100
    assert desk.body.position(put(2700).key).vol == 6 * WAD // 10
    assert desk.body.position(perpetual().key).carry == WAD // 10
    assert desk.body.position(future(BTC).key).carry == WAD // 20


def test_a_feed_without_a_print_is_left_out(desk):
    mark = built(desk, T1, material(desk, T1, without=(BTC,)))
    assert mark.feeds == (ETH,)
    desk.do(mark, at=T1)
    assert desk.body.position(perpetual(BTC).key).mark == 60_000 * WAD


def test_packages_below_quorum_are_no_print(desk):
    with pytest.raises(MarkBlockedError, match="no feed of the book has a print"):
        built(desk, T1, material(desk, T1, signers=1))
    with pytest.raises(MarkBlockedError, match="no feed of the book has a print"):
        built(desk, T1, NONE)


def test_what_expired_is_settled_by_its_fix(desk):
    later = EXPIRY + 20
    desk.do(built(desk, later, material(desk, later)), at=later)
    assert [p.instrument for p in desk.body.positions] == [perpetual(BTC), perpetual()]


def test_an_expiry_at_the_marks_own_time_shares_its_packages(desk):
    """The newest sample of the fix is the print: its packages travel once."""
    mark = built(desk, EXPIRY, material(desk, EXPIRY))
    assert len(set(mark.packages)) == len(mark.packages) == 2 * 3 * 3
    desk.do(mark, at=EXPIRY)
    assert not any(p.instrument.expiry for p in desk.body.positions)


def test_without_its_fix_no_mark_passes_an_expiry_until_the_grace_is_over(desk):
    early = EXPIRY + GRACE - 10
    given = material(desk, early)
    lacking = replace(given, fixes={(BTC, EXPIRY): given.fixes[BTC, EXPIRY]})
    with pytest.raises(MarkBlockedError, match=r"fix of ETH at \d+ has no quorum"):
        built(desk, early, lacking)
    late = EXPIRY + GRACE
    given = material(desk, late)
    lacking = replace(
        given, fixes={(BTC, EXPIRY): given.fixes[BTC, EXPIRY], (ETH, EXPIRY): given.fixes[ETH, EXPIRY][:2]}
    )
    mark = built(desk, late, lacking)
    assert mark.flagged == ((ETH, EXPIRY),)
    applied = desk.do(mark, at=late)
    assert {(s.instrument.feed, s.flagged) for s in applied.settled} == {(ETH, True), (BTC, False)}


def test_the_collaterals_print_is_needed_where_it_has_a_feed():
    desk = Desk(make_terms(collateral_feed=USDC, haircut=WAD // 100))
    with pytest.raises(MarkBlockedError, match="collateral's feed USDC"):
        built(desk, T1, NONE)
    desk.do(built(desk, T1, material(desk, T1)), at=T1)
    assert desk.body.collateral_mark == WAD


def both_feeds(t: int, signer: int, eth: int = PRICE[ETH]) -> bytes:
    points = sorted([DataPoint(ETH, eth), DataPoint(BTC, PRICE[BTC])], key=lambda p: p.feed)
    return sign_package(ORACLE_KEYS[signer], t * 1000, points)


def test_a_signer_may_appear_in_two_packages_of_one_feed_and_time(desk):
    """One signer's package for BTC carries ETH too, beside its package for ETH alone: joined, they must not clash."""
    wide = tuple(both_feeds(T1, n) for n in range(3))
    given = Material({ETH: packages(ETH, T1, PRICE[ETH]), BTC: wide}, {})
    mark = built(desk, T1, given)
    desk.do(mark, at=T1)
    assert desk.body.position(perpetual().key).mark == 3100 * WAD


def test_a_package_that_counts_nowhere_is_left_out(desk):
    """ETH's package of a signer is a wide one; BTC's a narrow one, which is preferred for BTC: all are used or gone."""
    wide = tuple(both_feeds(T1, n) for n in range(3))
    narrow_btc, narrow_eth = packages(BTC, T1, PRICE[BTC]), packages(ETH, T1, PRICE[ETH])
    for eth, btc in ((wide, narrow_btc), (narrow_eth, wide), (wide, wide), ((*narrow_eth[:2], wide[2]), narrow_btc)):
        mark = built(desk, T1, Material({ETH: eth, BTC: btc}, {}))
        assert len(mark.packages) <= 6
        fresh = Desk()
        fresh.state = desk.state
        fresh.do(mark, at=T1)


def test_packages_of_several_feeds_serve_a_fix_they_were_not_fetched_for(desk):
    """A fix that the packages at hand make is used, not flagged, which the transition would refuse."""
    late = EXPIRY + GRACE
    given = material(desk, late)
    times = [EXPIRY - 10 * n for n in range(3)]
    wide = tuple(both_feeds(t, n) for t in times for n in range(3))
    mark = built(desk, late, replace(given, fixes={(BTC, EXPIRY): wide}))
    assert mark.flagged == ()
    desk.do(mark, at=late)


# ---- the follower's judgement ----------------------------------------------------------------------------------------


def test_who_holds_nothing_takes_what_is_shown(desk):
    check_mark(desk.terms, desk.body, built(desk, T1, material(desk, T1, signers=2)), NONE, BANDS)


def test_a_mark_that_leaves_out_a_print_we_hold_is_refused(desk):
    mark = built(desk, T1, material(desk, T1, without=(BTC,)))
    with pytest.raises(MarkRefusedError, match="leaves out BTC"):
        check_mark(desk.terms, desk.body, mark, material(desk, T1), BANDS)
    check_mark(desk.terms, desk.body, mark, material(desk, T1, without=(BTC,)), BANDS)


def test_a_print_of_fewer_signers_than_we_hold_is_refused(desk):
    mark = built(desk, T1, material(desk, T1, signers=2))
    with pytest.raises(MarkRefusedError, match="fewer signers than the 3"):
        check_mark(desk.terms, desk.body, mark, material(desk, T1), BANDS)
    check_mark(desk.terms, desk.body, mark, material(desk, T1, signers=2), BANDS)


def test_a_lighter_fix_than_we_hold_is_refused(desk):
    t = EXPIRY + 20
    full = material(desk, t)
    light = replace(full, fixes=material(desk, t, signers=2).fixes)
    with pytest.raises(MarkRefusedError, match="weighs less"):
        check_mark(desk.terms, desk.body, built(desk, t, light), full, BANDS)
    check_mark(desk.terms, desk.body, built(desk, t, full), light, BANDS)


def test_a_fix_flagged_as_missing_that_we_hold_is_refused(desk):
    late = EXPIRY + GRACE
    full = material(desk, late)
    mark = built(desk, late, replace(full, fixes={(BTC, EXPIRY): full.fixes[BTC, EXPIRY]}))
    with pytest.raises(MarkRefusedError, match="fix of ETH"):
        check_mark(desk.terms, desk.body, mark, full, BANDS)


STRIKE = (ETH, EXPIRY, 3000 * WAD)


@pytest.mark.parametrize(
    ("vol", "carry", "ok"),
    [
        (7 * WAD // 10, 0, True),
        (7 * WAD // 10 + 1, 0, False),
        (5 * WAD // 10 - 1, 0, False),
        (6 * WAD // 10, WAD // 2, True),
        (6 * WAD // 10, -WAD // 2 - 1, False),
    ],
)
def test_a_vol_or_carry_beyond_the_bands_is_refused(desk, vol, carry, ok):
    mark = built(desk, T1, material(desk, T1))
    carried = desk.body.positions
    wanted = [i for i, p in enumerate(carried) if p.instrument == call()]
    perpetuals = [i for i, p in enumerate(carried) if p.instrument == perpetual()]
    assert wanted
    assert perpetuals
    vols = tuple(vol if i in wanted else v for i, v in enumerate(mark.vols))
    carries = tuple(carry if i in perpetuals else c for i, c in enumerate(mark.carries))
    changed = replace(mark, vols=vols, carries=carries)
    if ok:
        check_mark(desk.terms, desk.body, changed, NONE, BANDS)
    else:
        with pytest.raises(MarkRefusedError, match="beyond our bands"):
            check_mark(desk.terms, desk.body, changed, NONE, BANDS)


@pytest.mark.parametrize(
    ("own", "theirs", "marked"),
    [
        # (the sequencer's vol, the follower's or None, what the MARK sets) with 60% agreed, in percent
        (None, None, 60),
        (65, None, 65),
        (95, None, 70),
        (None, 62, 60),
        (None, 75, 65),
        (65, 50, 60),
        (None, 95, 70),
        (40, 95, 70),
        (None, 20, 50),
    ],
)
def test_what_lies_outside_the_followers_band_is_set_to_its_edge_a_step_at_a_time(desk, own, theirs, marked):
    sequencer = Surface({} if own is None else {STRIKE: own * WAD // 100})
    follower = Surface({} if theirs is None else {STRIKE: theirs * WAD // 100})
    spots = {ETH: 3100 * WAD, BTC: 61_000 * WAD}
    bands = bands_of(desk.body, follower, spots, T1, vol_band=WAD // 10, carry_band=WAD // 2)
    mark = build_mark(desk.terms, desk.body, T1, material(desk, T1), sequencer, 0, unpack_bands(pack_bands(bands)))
    check_mark(desk.terms, desk.body, mark, material(desk, T1), (bands,))
    vol = dict(zip([p.instrument for p in desk.body.positions], mark.vols, strict=True))[call()]
    assert vol == marked * WAD // 100
    desk.do(mark, at=T1)


def test_a_smile_marks_every_strike_of_its_expiry(desk):
    smile = ByStrike(((2000.0, 0.68), (4000.0, 0.52)))
    mark = built(desk, T1, material(desk, T1), Surface(smiles={(ETH, EXPIRY): smile}))
    vols = dict(zip([p.instrument for p in desk.body.positions], mark.vols, strict=True))
    assert 52 * WAD // 100 < vols[call()] < 68 * WAD // 100
    assert vols[call()] != 6 * WAD // 10


def test_a_mark_of_the_wrong_shape_is_refused(desk):
    mark = built(desk, T1, material(desk, T1))
    short = replace(mark, carries=mark.carries[:-1], vols=mark.vols[:-1])
    with pytest.raises(MarkRefusedError, match="lists 4 positions"):
        check_mark(desk.terms, desk.body, short, NONE, BANDS)
