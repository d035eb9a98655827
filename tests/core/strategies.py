"""Shared builders and Hypothesis strategies: terms, bodies, operations, batches, and signed oracle packages.

`make_terms` and `Desk` give plain, readable examples; the strategies give anything the protocol allows. Keys are fixed,
so that every failure repeats.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from channeld.core.crypto import address_of, keccak256
from channeld.core.eip712 import Domain, channel_id
from channeld.core.operations import (
    Batch,
    CloseChannel,
    Deposit,
    Leg,
    Mark,
    Trade,
    Transfer,
    Withdraw,
    encode_batch,
)
from channeld.core.packages import DataPoint, sample_times, sign_package
from channeld.core.state import MAX_CARRY, MAX_VOL, MIN_VOL, Account, Body, Instrument, Kind, Position, State, genesis
from channeld.core.terms import ZERO_FEED, Market, Oracle, Party, Terms, feed_id
from channeld.core.transition import apply, mark_needs, positions_carried
from channeld.core.wad import DAY, WAD

ETH, BTC, USDC = feed_id("ETH"), feed_id("BTC"), feed_id("USDC")
T0 = 1_750_000_000
"""A tick; the start of the examples."""
TICK = 10
EXPIRY = T0 + 10 * DAY
GRACE = 2 * 3600


def key(name: str) -> bytes:
    """A fixed private key for a role."""
    return keccak256(b"channeld test key " + name.encode())


MAKER, TAKER = key("maker"), key("taker")
ORACLE_KEYS = tuple(sorted((key(f"oracle {n}") for n in range(3)), key=address_of))
DOMAIN = Domain(31337, bytes.fromhex("5FbDB2315678afecb367f032d93F642f64180aa3"))
SALT = b"\x5a" * 16


def make_oracle(**changes) -> Oracle:
    """Three signers, two needed; a print every ten seconds; fixes of three samples."""
    oracle = Oracle(tuple(address_of(k) for k in ORACLE_KEYS), 2, TICK, 3, 10, 60, GRACE)
    return replace(oracle, **changes)


def make_terms(**changes) -> Terms:
    """Terms of two desks with markets on BTC and ETH, collateral of 6 decimals without a feed."""
    markets = tuple(
        Market(feed, 11 * WAD // 100, 6 * WAD // 10, 35 * WAD // 100, 2 * WAD // 100, WAD // 200) for feed in (BTC, ETH)
    )
    terms = Terms(
        a=Party(address_of(MAKER), b"\xa1" * 20),
        b=Party(address_of(TAKER), b"\xb2" * 20),
        collateral=b"\xcc" * 20,
        decimals=6,
        collateral_feed=ZERO_FEED,
        haircut=0,
        oracle=make_oracle(),
        markets=markets,
        initial_factor=13 * WAD // 10,
        closeout_penalty=3 * WAD // 100,
        challenge_period=DAY,
        cure_period=3600,
        sequencer=0,
        salt=b"\x01" * 32,
    )
    return replace(terms, **changes)


def perpetual(feed: bytes = ETH) -> Instrument:
    return Instrument(Kind.PERPETUAL, feed, 0, 0)


def future(feed: bytes = ETH, expiry: int = EXPIRY) -> Instrument:
    return Instrument(Kind.FUTURE, feed, expiry, 0)


def call(strike: int = 3000, feed: bytes = ETH, expiry: int = EXPIRY) -> Instrument:
    return Instrument(Kind.CALL, feed, expiry, strike * WAD)


def put(strike: int = 3000, feed: bytes = ETH, expiry: int = EXPIRY) -> Instrument:
    return Instrument(Kind.PUT, feed, expiry, strike * WAD)


def leg(instrument: Instrument, size: int, price: int, carry: int = 0, vol: int | None = None) -> Leg:
    """A leg; size and price in whole wads; an option's vol is 60% where none is given."""
    agreed = vol if vol is not None else (6 * WAD // 10 if instrument.is_option else 0)
    return Leg(instrument, size * WAD, price * WAD, carry, agreed)


def packages(feed: bytes, t: int, price: int, *, signers: int = 3) -> tuple[bytes, ...]:
    """Signed packages of the first `signers` oracle keys: feed at t, price in whole units of 1e-8."""
    return tuple(sign_package(k, t * 1000, [DataPoint(feed, price)]) for k in ORACLE_KEYS[:signers])


def dollars(price: float) -> int:
    """A price with the 8 decimals of oracle packages."""
    return round(price * 10**8)


def fix_packages(terms: Terms, feed: bytes, expiry: int, price: int, *, signers: int = 3) -> tuple[bytes, ...]:
    """Signed packages of every sample of the fix of a feed at an expiry, all at one price."""
    return tuple(p for t in sample_times(terms.oracle, expiry) for p in packages(feed, t, price, signers=signers))


def make_mark(
    terms: Terms,
    body: Body,
    t: int,
    prices: dict[bytes, int],
    *,
    carries: dict[tuple[bytes, int], int] | None = None,
    vols: dict[tuple[bytes, int, int], int] | None = None,
    origin: int = 0,
) -> Mark:
    """A MARK of the feeds in `prices` (8 decimals) that settles what has expired at the same prices."""
    feeds = tuple(sorted(prices))
    found = [p for feed in feeds for p in packages(feed, t, prices[feed])]
    for feed, expiry in mark_needs(terms, body, t).fixes:
        found += [p for p in fix_packages(terms, feed, expiry, prices[feed]) if p not in found]
    carried = positions_carried(body, feeds, t)
    carries, vols = carries or {}, vols or {}
    return Mark(
        origin,
        t,
        feeds,
        tuple(found),
        tuple(carries.get((p.instrument.feed, p.instrument.expiry), p.carry) for p in carried),
        tuple(vols.get((p.instrument.feed, p.instrument.expiry, p.instrument.strike), p.vol) for p in carried),
    )


class Desk:
    """A channel under test: applies operations and remembers everything that was agreed."""

    def __init__(self, terms: Terms | None = None, *, funded: int = 1_000_000 * 10**6) -> None:
        self.terms = terms or make_terms()
        self.state: State = genesis(channel_id(DOMAIN, self.terms))
        self.journal: list[tuple[int, bytes]] = []
        if funded:
            self.do(Deposit(0, funded, funded), at=T0)

    @property
    def body(self) -> Body:
        return self.state.body

    def raw(self, *operations, at: float, salt: bytes = SALT) -> bytes:
        return encode_batch(Batch(int(at * 1000), salt, tuple(operations)))

    def try_raw(self, raw: bytes):
        return apply(self.terms, self.state, raw)

    def do(self, *operations, at: float):
        """Apply and keep."""
        raw = self.raw(*operations, at=at)
        applied = apply(self.terms, self.state, raw)
        self.state = applied.state
        self.journal.append((applied.state.version, raw))
        return applied

    def mark(self, t: int, prices: dict[bytes, int], **how):
        """Mark at t and keep."""
        return self.do(make_mark(self.terms, self.body, t, prices, **how), at=t)


# ---- strategies ----------------------------------------------------------------------------------------------------

addresses = st.binary(min_size=20, max_size=20).filter(any)
words = st.binary(min_size=32, max_size=32)
salts = st.binary(min_size=16, max_size=16)
symbols = st.sampled_from(["ETH", "BTC", "SOL", "stETH", "USDC", "XAU", "AVAX", "LINK", "0xBTC", "A-B"])
feeds = symbols.map(feed_id) | words.filter(any)
wads = st.integers(0, 3 * WAD) | st.integers(0, (1 << 64) - 1)
carries = st.integers(-MAX_CARRY, MAX_CARRY) | st.sampled_from([0, -MAX_CARRY, MAX_CARRY])
option_vols = st.integers(MIN_VOL, MAX_VOL) | st.sampled_from([MIN_VOL, MAX_VOL])
sizes = st.one_of(
    st.integers(-100 * WAD, 100 * WAD), st.integers(1 - (1 << 95), (1 << 95) - 1), st.sampled_from([1, -1])
).filter(bool)
prices = st.integers(0, 10_000 * WAD) | st.integers(0, (1 << 96) - 1)
marks = st.integers(0, 10_000 * WAD) | st.integers(0, (1 << 100) - 1)
strikes = st.integers(1, 10_000).map(lambda n: n * WAD) | st.integers(1, (1 << 96) - 1)
expiries = st.integers(1, 1000).map(lambda n: n * TICK) | st.integers(1, (1 << 64) - 1)


@st.composite
def oracles(draw) -> Oracle:
    signers = tuple(sorted(draw(st.sets(addresses, min_size=1, max_size=9))))
    quorum = draw(st.integers(len(signers) // 2 + 1, len(signers)))
    samples = draw(st.integers(1, 45 // len(signers)))
    tick = draw(st.integers(1, 60))
    gap = tick * draw(st.integers(1, 4))
    return Oracle(signers, quorum, tick, samples, gap, draw(st.integers(0, (1 << 32) - 1)), 1_000_000)


@st.composite
def terms_strategy(draw) -> Terms:
    """Any terms that the protocol allows."""
    oracle = draw(oracles())
    market_feeds = sorted(draw(st.sets(feeds, min_size=1, max_size=8)))
    markets = tuple(
        Market(feed, draw(wads), draw(wads), draw(st.integers(0, WAD)), draw(wads), draw(wads)) for feed in market_feeds
    )
    collateral_feed = draw(st.just(ZERO_FEED) | st.just(USDC) | st.sampled_from(market_feeds))
    scan = next((m.price_scan for m in markets if m.feed == collateral_feed), 0)
    if scan > WAD:
        collateral_feed, scan = ZERO_FEED, 0
    signers = draw(st.lists(addresses, min_size=2, max_size=2, unique=True))
    cure = draw(st.integers(oracle.samples * oracle.sample_gap, 900_000))
    return Terms(
        a=Party(signers[0], draw(addresses)),
        b=Party(signers[1], draw(addresses)),
        collateral=draw(addresses),
        decimals=draw(st.integers(6, 18)),
        collateral_feed=collateral_feed,
        haircut=draw(st.integers(scan, WAD)),
        oracle=oracle,
        markets=markets,
        initial_factor=draw(st.integers(WAD, (1 << 64) - 1)),
        closeout_penalty=draw(wads),
        challenge_period=draw(st.integers(cure, (1 << 32) - 1)),
        cure_period=cure,
        sequencer=draw(st.integers(0, 1)),
        salt=draw(words),
    )


@st.composite
def instruments(draw, feeds=feeds, expiries=expiries) -> Instrument:
    kind = Kind(draw(st.integers(0, 3)))
    expiry = 0 if kind == Kind.PERPETUAL else draw(expiries)
    return Instrument(kind, draw(feeds), expiry, draw(strikes) if kind >= Kind.CALL else 0)


@st.composite
def bodies(draw, max_positions: int = 12) -> Body:
    """Any body that the protocol allows."""
    chosen = draw(
        st.lists(instruments(feeds=st.sampled_from([ETH, BTC])), unique_by=lambda i: i.key, max_size=max_positions)
    )
    agreed_carry = {(i.feed, i.expiry): draw(carries) for i in chosen}
    agreed_vol = {(i.feed, i.expiry, i.strike): draw(option_vols) for i in chosen if i.is_option}
    positions = tuple(
        Position(
            i,
            draw(sizes),
            draw(marks),
            agreed_carry[i.feed, i.expiry],
            agreed_vol[i.feed, i.expiry, i.strike] if i.is_option else 0,
        )
        for i in sorted(chosen, key=lambda i: i.key)
    )
    units = st.integers(0, 10**15) | st.integers(0, (1 << 126) - 1)
    balances, withdrawn = (draw(units), draw(units)), (draw(units), draw(units))
    total = sum(balances) + sum(withdrawn)
    deposited_a = draw(st.integers(max(0, total - (1 << 128) + 1), min(total, (1 << 128) - 1)))
    return Body(
        draw(st.integers(0, (1 << 64) - 1)),
        draw(st.integers(1, (1 << 96) - 1)),
        draw(words),
        Account(balances[0], deposited_a, withdrawn[0]),
        Account(balances[1], total - deposited_a, withdrawn[1]),
        positions,
    )


@st.composite
def legs(draw, instrument_strategy=None) -> Leg:
    i = draw(instrument_strategy or instruments())
    size = draw(sizes)
    return Leg(i, size, draw(prices), draw(carries), draw(option_vols) if i.is_option else 0)


wide_units = st.integers(1, 10**12) | st.integers(1, (1 << 127) - 1)
notes = st.binary(max_size=64)
origins = st.integers(0, 1)


@st.composite
def operations(draw):
    """Any well-formed operation, whether or not a state allows it."""
    origin = draw(origins)
    code = draw(st.integers(1, 6))
    if code == 1:
        fee = draw(st.integers(-(10**9), 10**9) | st.integers(-(1 << 127), (1 << 127) - 1))
        return Trade(origin, tuple(draw(st.lists(legs(), min_size=1, max_size=4))), fee, draw(notes))
    if code == 2:
        count = draw(st.integers(0, 4))
        pairs = st.sets(st.tuples(words, st.integers(1, (1 << 64) - 1)), max_size=3)
        return Mark(
            origin,
            draw(st.integers(0, (1 << 64) - 1)),
            tuple(sorted(draw(st.sets(feeds, max_size=3)))),
            tuple(draw(st.lists(st.binary(max_size=200), max_size=4))),
            tuple(draw(carries) for _ in range(count)),
            tuple(draw(st.just(0) | option_vols) for _ in range(count)),
            tuple(sorted(draw(pairs))),
        )
    if code == 3:
        return Transfer(origin, draw(wide_units), draw(notes))
    if code == 4:
        return Deposit(origin, draw(wide_units), draw(wide_units))
    return Withdraw(origin, draw(wide_units)) if code == 5 else CloseChannel(origin)


@st.composite
def batches(draw) -> Batch:
    """Any well-formed batch."""
    return Batch(draw(st.integers(0, (1 << 64) - 1)), draw(salts), tuple(draw(st.lists(operations(), max_size=5))))
