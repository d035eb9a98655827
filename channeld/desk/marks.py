"""MARKs: building one as the sequencer, judging one as the follower (docs/protocol.md, sections 8, 9 and 12).

Rules: a MARK carries every feed that has a print at its time, and settles all that has expired; where a fix is missing
before its grace has passed, no MARK can pass that expiry. Vols and carries come from the desk's own surface, else stay;
they are kept within the follower's bands (bands.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from channeld.core.errors import OracleError, RuleError
from channeld.core.operations import Mark
from channeld.core.packages import NoQuorumError, PackageSet, fix_price, print_price
from channeld.core.state import MAX_CARRY, MAX_VOL, MIN_VOL
from channeld.core.terms import ZERO_FEED, feed_symbol
from channeld.core.transition import mark_needs, positions_carried
from channeld.core.wad import format_decimal
from channeld.desk.bands import Bands
from channeld.desk.smiles import smile_vol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from channeld.core.state import Body, Instrument
    from channeld.core.terms import Terms
    from channeld.desk.smiles import Smile


class MarkBlockedError(OracleError):
    """No MARK can be made now: a print or a fix that it needs is missing."""

    code = 4050
    advice = "Check the oracle's signers; a position whose fix stays missing is settled at its mark after the grace."


class MarkRefusedError(RuleError):
    """A MARK that this desk does not sign: it leaves out a print, shows fewer signers, or moves a vol too far."""

    code = 2212
    advice = "Both desks must see the same oracle; `channeld vols` shows own vols and bands."


@dataclass(frozen=True, slots=True)
class Surface:
    """A desk's own vols and carries, wads: by (feed, expiry, strike) and by (feed, expiry); smiles by (feed, expiry).

    A vol that is named by its strike counts before the smile of its expiry.
    """

    vols: Mapping[tuple[bytes, int, int], int] = field(default_factory=dict)
    carries: Mapping[tuple[bytes, int], int] = field(default_factory=dict)
    smiles: Mapping[tuple[bytes, int], Smile] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether the desk has no view of its own on vols."""
        return not self.vols and not self.smiles

    def vol(self, instrument: Instrument, spot: int | None, carry: int, t: int) -> int | None:
        """The desk's own vol (wad) of an option at a spot (wad) and time (Unix seconds); None where it has none."""
        if not instrument.is_option:
            return None
        named = self.vols.get((instrument.feed, instrument.expiry, instrument.strike))
        if named is not None:
            return named
        smile = self.smiles.get((instrument.feed, instrument.expiry))
        if smile is None or not spot:
            return None
        return smile_vol(smile, spot, instrument.strike, carry, instrument.expiry - t)

    def carry(self, instrument: Instrument) -> int | None:
        """The desk's own carry (wad) of an instrument; None where it has none."""
        return self.carries.get((instrument.feed, instrument.expiry))


@dataclass(frozen=True, slots=True)
class Material:
    """Verified packages at hand: of print(feed, t) by feed, and of fix(feed, expiry) by both. Empty where none."""

    prints: Mapping[bytes, tuple[bytes, ...]]
    fixes: Mapping[tuple[bytes, int], tuple[bytes, ...]]


def _usable_print(terms: Terms, feed: bytes, t: int, packages: tuple[bytes, ...]) -> bool:
    try:
        print_price(terms.oracle, feed, t, packages)
    except OracleError:
        return False
    return True


def _usable_fix(terms: Terms, feed: bytes, expiry: int, packages: tuple[bytes, ...]) -> bool:
    try:
        fix_price(terms.oracle, feed, expiry, packages)
    except OracleError:
        return False
    return True


def _has_fix(terms: Terms, packages: PackageSet, feed: bytes, expiry: int) -> bool:
    """Whether all that travels makes the fix: packages of several feeds may serve more than they were fetched for."""
    try:
        packages.fix_price(terms.oracle, feed, expiry)
    except NoQuorumError:
        return False
    return True


def bands_of(
    body: Body, surface: Surface, spots: Mapping[bytes, int], t: int, *, vol_band: int, carry_band: int
) -> Bands:
    """A follower's bands: around its own vols and carries where it has any, else around what is agreed."""
    vols: dict[tuple[bytes, int, int], tuple[int, int]] = {}
    carries: dict[tuple[bytes, int], tuple[int, int]] = {}
    for p in body.positions:
        i = p.instrument
        own = surface.vol(i, spots.get(i.feed), p.carry, t)
        if own is not None:
            vols[i.feed, i.expiry, i.strike] = max(own - vol_band, MIN_VOL), min(own + vol_band, MAX_VOL)
        carry = surface.carry(i)
        if carry is not None:
            carries[i.feed, i.expiry] = max(carry - carry_band, -MAX_CARRY), min(carry + carry_band, MAX_CARRY)
    return Bands(vols, carries, min(vol_band, MAX_VOL), min(carry_band, 2 * MAX_CARRY))


def build_mark(
    terms: Terms,
    body: Body,
    t: int,
    material: Material,
    surface: Surface,
    origin: int,
    bands: Bands | None = None,
) -> Mark:
    """The MARK of all that can be marked at t (Unix seconds, a tick). bands: the follower's, the default where None.

    Raises:
        MarkBlockedError: nothing can be marked, or an expired position lacks its fix before the grace has passed.
    """
    needs = mark_needs(terms, body, t)
    feeds = tuple(feed for feed in needs.prints if _usable_print(terms, feed, t, material.prints.get(feed, ())))
    if terms.collateral_feed != ZERO_FEED and terms.collateral_feed not in feeds:
        raise MarkBlockedError(f"the collateral's feed {feed_symbol(terms.collateral_feed)} has no print at {t}")
    if not feeds and not needs.fixes:
        raise MarkBlockedError(f"no feed of the book has a print at {t}")
    found = [material.prints[feed] for feed in feeds]
    found += [
        packages
        for (feed, expiry), packages in sorted(material.fixes.items())
        if (feed, expiry) in needs.fixes and _usable_fix(terms, feed, expiry, packages)
    ]
    joined = PackageSet.of(dict.fromkeys(raw for packages in found for raw in packages))
    spots = {feed: joined.print_price(terms.oracle, feed, t).value for feed in feeds}
    flagged = tuple(key for key in needs.fixes if not _has_fix(terms, joined, *key))
    for feed, expiry in flagged:
        if t < expiry + terms.oracle.grace:
            raise MarkBlockedError(f"the fix of {feed_symbol(feed)} at {expiry} has no quorum yet")
    carried = positions_carried(body, feeds, t)
    within = bands or Bands()
    carries, vols = [], []
    for p in carried:
        own_carry = surface.carry(p.instrument)
        carries.append(within.carry(p, p.carry if own_carry is None else own_carry))
        own = surface.vol(p.instrument, spots.get(p.instrument.feed), p.carry, t)
        vols.append(within.vol(p, p.vol if own is None else own) if p.instrument.is_option else 0)
    # what counts nowhere (the second package of a signer for one feed and time) would be refused
    return Mark(origin, t, feeds, joined.used(), tuple(carries), tuple(vols), flagged)


def check_mark(terms: Terms, body: Body, mark: Mark, ours: Material, bands: Sequence[Bands]) -> None:
    """Refuse a MARK that shows less than we hold, or moves a vol or carry beyond all of our bands.

    bands: those that the sequencer may have heard last, and the present ones.

    Raises:
        MarkRefusedError: naming what is missing or too far.
    """
    needs = mark_needs(terms, body, mark.time)
    shown = PackageSet.of(mark.packages)
    for feed in needs.prints:
        held = ours.prints.get(feed, ())
        if not held:
            continue
        if feed not in mark.feeds:
            raise MarkRefusedError(f"the MARK leaves out {feed_symbol(feed)}, which has a print at {mark.time}")
        weight = print_price(terms.oracle, feed, mark.time, held).weight
        if shown.print_price(terms.oracle, feed, mark.time).weight < weight:
            raise MarkRefusedError(
                f"the MARK's print of {feed_symbol(feed)} has fewer signers than the {weight} we hold"
            )
    for feed, expiry in needs.fixes:
        held = ours.fixes.get((feed, expiry), ())
        if not held or not _usable_fix(terms, feed, expiry, held):
            continue
        weight = fix_price(terms.oracle, feed, expiry, held).weight
        if (feed, expiry) in mark.flagged or shown.fix_price(terms.oracle, feed, expiry).weight < weight:
            raise MarkRefusedError(
                f"the MARK's fix of {feed_symbol(feed)} at {expiry} weighs less than the one we hold"
            )
    carried = positions_carried(body, mark.feeds, mark.time)
    if len(carried) != len(mark.carries):
        raise MarkRefusedError(f"the MARK lists {len(mark.carries)} positions; its feeds carry {len(carried)}")
    for position, carry, vol in zip(carried, mark.carries, mark.vols, strict=True):
        if not any(one.allow(position, carry, vol) for one in bands):
            raise MarkRefusedError(
                f"the MARK moves a vol to {format_decimal(vol)} from {format_decimal(position.vol)}, or a carry to "
                f"{format_decimal(carry)} from {format_decimal(position.carry)}: beyond our bands"
            )
