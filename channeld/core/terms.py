"""Terms: everything two desks agree on once, at opening; hashed into the channel id, never changed.

Rules: the classes are the EIP-712 structs of docs/protocol.md, field for field, in order. Construction refuses what the
Adjudicator's `open` would refuse, as far as it can be seen without a chain (code at the collateral's address, and its
decimals, are checked by the chain room).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from channeld.core.errors import InvalidTermsError
from channeld.core.wad import WAD

ZERO_ADDRESS = b"\0" * 20
ZERO_FEED = b"\0" * 32
MAX_MARKETS = 8
MAX_SIGNERS = 9
MAX_PACKAGES = 45
MIN_DECIMALS, MAX_DECIMALS = 6, 18


def feed_id(symbol: str) -> bytes:
    """The oracle feed id of an ASCII symbol: the symbol padded with zeros on the right to 32 bytes."""
    raw = symbol.encode("ascii", errors="replace")
    if not 1 <= len(raw) <= 32 or b"?" in raw or b"\0" in raw:
        message = f"{symbol!r} is not a feed symbol of 1 to 32 ASCII characters"
        raise InvalidTermsError(message)
    return raw.ljust(32, b"\0")


def feed_symbol(feed: bytes) -> str:
    """The symbol of a feed id, for people; hexadecimal where it is not printable ASCII."""
    raw = feed.rstrip(b"\0")
    return raw.decode("ascii") if raw.isascii() and raw.decode("ascii").isprintable() else "0x" + feed.hex()


def _check(condition: bool, rule: str) -> None:  # noqa: FBT001 - an assertion with a typed error
    if not condition:
        raise InvalidTermsError(rule)


def _uint(value: int, bits: int, name: str) -> None:
    _check(
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << bits,
        f"{name} must be a uint{bits}",
    )


def _bytes(value: bytes, size: int, name: str) -> None:
    _check(isinstance(value, bytes) and len(value) == size, f"{name} must be {size} bytes")


@dataclass(frozen=True, slots=True)
class Party:
    """One side. signer: the hot key that co-signs (20 bytes). payout: the cold address that receives every token."""

    signer: bytes
    payout: bytes

    def __post_init__(self) -> None:
        """Refuse addresses that are not 20 non-zero bytes."""
        for name in ("signer", "payout"):
            _bytes(getattr(self, name), 20, name)
            _check(getattr(self, name) != ZERO_ADDRESS, f"{name} must not be the zero address")


@dataclass(frozen=True, slots=True)
class Oracle:
    """The oracle of a channel. Times in seconds; signers ascending, 20 bytes each."""

    signers: tuple[bytes, ...]
    quorum: int
    tick: int
    samples: int
    sample_gap: int
    max_age: int
    grace: int

    def __post_init__(self) -> None:
        """Refuse an oracle that `open` would refuse."""
        for signer in self.signers:
            _bytes(signer, 20, "oracle.signers")
            _check(signer != ZERO_ADDRESS, "oracle.signers must not hold the zero address")
        _check(1 <= len(self.signers) <= MAX_SIGNERS, f"oracle.signers must number 1 to {MAX_SIGNERS}")
        _check(
            all(x < y for x, y in zip(self.signers, self.signers[1:], strict=False)),
            "oracle.signers must ascend without repeats",
        )
        _uint(self.quorum, 8, "oracle.quorum")
        _check(
            self.quorum <= len(self.signers) < 2 * self.quorum,
            "oracle.quorum must be a majority of the signers, at most all",
        )
        _uint(self.samples, 8, "oracle.samples")
        for name in ("tick", "sample_gap", "max_age", "grace"):
            _uint(getattr(self, name), 32, f"oracle.{name}")
        _check(self.tick > 0, "oracle.tick must not be zero")
        _check(self.grace > 0, "oracle.grace must not be zero")
        _check(self.samples > 0, "oracle.samples must not be zero")
        _check(
            len(self.signers) * self.samples <= MAX_PACKAGES, f"oracle signers * samples must not exceed {MAX_PACKAGES}"
        )
        _check(self.sample_gap % self.tick == 0, "oracle.sampleGap must be a multiple of the tick")
        _check(self.samples == 1 or self.sample_gap > 0, "oracle.sampleGap must not be zero with several samples")


@dataclass(frozen=True, slots=True)
class Market:
    """Risk parameters of one feed, all wads: scan range and shocks as fractions of spot or of vol."""

    feed: bytes
    price_scan: int
    vol_up: int
    vol_down: int
    wing_cover: int
    spread_charge: int

    def __post_init__(self) -> None:
        """Refuse a zero feed and a downward vol shock above one."""
        _bytes(self.feed, 32, "market.feed")
        _check(self.feed != ZERO_FEED, "market.feed must not be zero")
        for name in ("price_scan", "vol_up", "vol_down", "wing_cover", "spread_charge"):
            _uint(getattr(self, name), 64, f"market.{name}")
        _check(self.vol_down <= WAD, "market.volDown must not exceed one")


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of a channel. Factors are wads; periods are seconds; `sequencer` is 0 for a, 1 for b."""

    a: Party
    b: Party
    collateral: bytes
    decimals: int
    collateral_feed: bytes
    haircut: int
    oracle: Oracle
    markets: tuple[Market, ...]
    initial_factor: int
    closeout_penalty: int
    challenge_period: int
    cure_period: int
    sequencer: int
    salt: bytes

    def __post_init__(self) -> None:
        """Refuse what `open` would refuse (docs/protocol.md, section 11).

        Raises:
            InvalidTermsError: naming the field and the rule.

        """
        _check(self.a.signer != self.b.signer, "a.signer and b.signer must differ")
        _bytes(self.collateral, 20, "collateral")
        _check(self.collateral != ZERO_ADDRESS, "collateral must not be the zero address")
        _check(
            isinstance(self.decimals, int) and MIN_DECIMALS <= self.decimals <= MAX_DECIMALS,
            "decimals must lie in 6..18",
        )
        _bytes(self.collateral_feed, 32, "collateralFeed")
        for name, bits in (
            ("haircut", 64),
            ("initial_factor", 64),
            ("closeout_penalty", 64),
            ("challenge_period", 32),
            ("cure_period", 32),
        ):
            _uint(getattr(self, name), bits, name)
        _check(self.haircut <= WAD, "haircut must not exceed one")
        _check(1 <= len(self.markets) <= MAX_MARKETS, f"markets must number 1 to {MAX_MARKETS}")
        feeds = [market.feed for market in self.markets]
        _check(all(x < y for x, y in itertools.pairwise(feeds)), "markets must ascend by feed without repeats")
        _check(self.initial_factor >= WAD, "initialFactor must be at least one")
        _check(self.challenge_period > 0, "challengePeriod must not be zero")
        _check(0 < self.cure_period <= self.challenge_period, "curePeriod must lie between 1 and challengePeriod")
        _check(
            self.oracle.samples * self.oracle.sample_gap <= self.cure_period,
            "samples * sampleGap must not exceed curePeriod",
        )
        _check(self.oracle.grace >= self.cure_period + self.oracle.tick, "grace must be at least curePeriod + tick")
        _check(self.sequencer in (0, 1), "sequencer must be 0 (a) or 1 (b)")
        _bytes(self.salt, 32, "salt")
        if self.collateral_feed != ZERO_FEED:
            scan = next((m.price_scan for m in self.markets if m.feed == self.collateral_feed), 0)
            _check(
                self.haircut >= scan, "haircut must be at least the priceScan of the market on the collateral's feed"
            )

    @property
    def feeds(self) -> tuple[bytes, ...]:
        """The feeds of the markets, ascending."""
        return tuple(market.feed for market in self.markets)

    def market(self, feed: bytes) -> Market | None:
        """The market of a feed, or None."""
        for market in self.markets:
            if market.feed == feed:
                return market
        return None

    def party(self, side: int) -> Party:
        """Party a for 0, b for 1."""
        return self.b if side else self.a
