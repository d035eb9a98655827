"""Bands: what vols and carries a follower signs, told to the sequencer, who keeps its MARKs within them.

Rules (docs/protocol.md, 9.12 and 12): a band's middle is the follower's own vol, else the agreed one. What lies outside
a band is set to its nearest edge, but moved by no more than STEP in one MARK, which the follower takes as well: so
disagreement never stops settlement to market, and nobody's money moves by more than a step of vol without time to act.
Bands are a follower's word about itself: a sequencer that heard none keeps to the default around what is agreed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from channeld.core.codec import CodecError, decode, encode
from channeld.core.errors import PeerError
from channeld.core.state import MAX_CARRY, MAX_POSITIONS, MAX_VOL, MIN_VOL
from channeld.core.wad import WAD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from channeld.core.state import Position

VOL_STEP = WAD // 10
CARRY_STEP = WAD // 2
MAX_BYTES = 16_384
Range = tuple[int, int]


class BadBandsError(PeerError):
    """A peer's bands that make no sense."""

    code = 2407


@dataclass(frozen=True, slots=True)
class Bands:
    """Ranges of vols by (feed, expiry, strike) and of carries by (feed, expiry), wads, both ends included.

    What is not named has a range of `vol_band` and `carry_band` (wads) around what is agreed.
    """

    vols: Mapping[tuple[bytes, int, int], Range] = field(default_factory=dict)
    carries: Mapping[tuple[bytes, int], Range] = field(default_factory=dict)
    vol_band: int = VOL_STEP
    carry_band: int = CARRY_STEP

    def vol_range(self, position: Position) -> Range:
        """The range of a position's vol."""
        i = position.instrument
        around = (position.vol - self.vol_band, position.vol + self.vol_band)
        return self.vols.get((i.feed, i.expiry, i.strike), around)

    def carry_range(self, position: Position) -> Range:
        """The range of a position's carry."""
        i = position.instrument
        around = (position.carry - self.carry_band, position.carry + self.carry_band)
        return self.carries.get((i.feed, i.expiry), around)

    def vol(self, position: Position, wanted: int) -> int:
        """The vol that a MARK sets where `wanted` is the sequencer's own: within the band, at most a step away."""
        inside = _clamp(wanted, self.vol_range(position))
        return _clamp(_clamp(inside, (position.vol - VOL_STEP, position.vol + VOL_STEP)), (MIN_VOL, MAX_VOL))

    def carry(self, position: Position, wanted: int) -> int:
        """The carry that a MARK sets, in the same manner."""
        inside = _clamp(wanted, self.carry_range(position))
        stepped = _clamp(inside, (position.carry - CARRY_STEP, position.carry + CARRY_STEP))
        return _clamp(stepped, (-MAX_CARRY, MAX_CARRY))

    def allow(self, position: Position, carry: int, vol: int) -> bool:
        """Whether a follower with these bands signs a MARK that sets a position's carry and vol so."""
        vol_fits = not position.instrument.is_option or _fits(vol, position.vol, self.vol_range(position), VOL_STEP)
        return vol_fits and _fits(carry, position.carry, self.carry_range(position), CARRY_STEP)


def _clamp(value: int, ends: Range) -> int:
    return min(max(value, ends[0]), ends[1])


def _fits(value: int, agreed: int, ends: Range, step: int) -> bool:
    """Within the range, or a whole step from what is agreed towards it."""
    low, high = ends
    if low <= value <= high:
        return True
    return (agreed + step <= value < low) or (high < value <= agreed - step)


def pack_bands(bands: Bands) -> bytes:
    """For the wire: MessagePack of both lists, and the bands of what they do not name."""
    vols = [
        [feed, expiry, strike.to_bytes(16, "big"), low, high]
        for (feed, expiry, strike), (low, high) in sorted(bands.vols.items())
    ]
    carries = [[feed, expiry, low, high] for (feed, expiry), (low, high) in sorted(bands.carries.items())]
    return encode([vols, carries, bands.vol_band, bands.carry_band])


def unpack_bands(raw: bytes) -> Bands:
    """A peer's bands.

    Raises:
        BadBandsError: they are not the bytes of any, or a range is upside down or out of bounds.
    """
    try:
        vols, carries, vol_band, carry_band = decode(raw, MAX_BYTES)
        if len(vols) > MAX_POSITIONS or len(carries) > MAX_POSITIONS:
            raise BadBandsError("more bands than a book has positions")
        found = Bands(
            {(_bytes(f, 32), _int(e), _strike(k)): _range(low, high, MIN_VOL, MAX_VOL) for f, e, k, low, high in vols},
            {(_bytes(f, 32), _int(e)): _range(low, high, -MAX_CARRY, MAX_CARRY) for f, e, low, high in carries},
            _range(0, vol_band, 0, MAX_VOL)[1],
            _range(0, carry_band, 0, 2 * MAX_CARRY)[1],
        )
    except (CodecError, TypeError, ValueError) as error:
        raise BadBandsError(f"the peer's bands are none: {error}") from error
    return found


def _bytes(value: object, size: int) -> bytes:
    if not isinstance(value, bytes) or len(value) != size:
        raise BadBandsError(f"a feed or strike of the bands is not {size} bytes")
    return value


def _strike(value: object) -> int:
    return int.from_bytes(_bytes(value, 16), "big")


def _int(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadBandsError("an expiry of the bands is no time")
    return value


def _range(low: object, high: object, least: int, most: int) -> Range:
    if isinstance(low, bool) or isinstance(high, bool) or not isinstance(low, int) or not isinstance(high, int):
        raise BadBandsError("a band's ends must be integers")
    if not least <= low <= high <= most:
        raise BadBandsError("a band is upside down, or out of the protocol's bounds")
    return low, high
