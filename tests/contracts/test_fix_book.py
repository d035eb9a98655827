"""`prove_fix`: quorum, medians, samples, weight; every bad package by its own error; the twin of core/packages.py."""

from types import MappingProxyType

import pytest
from contracts_harness import (
    BTC,
    ETH,
    NOW,
    ORACLE_KEYS,
    ROOT,
    Channel,
    Kind,
    World,
    key,
    make_oracle,
    make_terms,
    option,
    perpetual,
    refused,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from channeld.core import crypto, eip712
from channeld.core.packages import (
    DataPoint,
    DuplicatePackageError,
    MalformedPackageError,
    MissingFeedError,
    NoQuorumError,
    Package,
    PackageSignatureError,
    RepeatedFeedError,
    StalePackageError,
    UnknownSignerError,
    ZeroValueError,
    encode_package,
    fix_price,
    recover_signer,
    sign_package,
    split_packages,
    split_payload,
)
from channeld.core.settlement import settle_amounts
from channeld.core.state import Account
from channeld.core.wad import WAD

T = NOW - 100
ORACLE = make_oracle()
FIELDS = ("signers", "quorum", "tick", "samples", "sample_gap", "max_age", "grace")
PRICE = 3000 * 10**8


def package(signer: int, value: int = PRICE, *, t_ms: int = T * 1000, feed: bytes = ETH, size: int = 32) -> bytes:
    return sign_package(ORACLE_KEYS[signer], t_ms, [DataPoint(feed, value)], value_size=size)


def raw_package(signer: int, points: bytes, count: int, *, size: int = 32, t_ms: int = T * 1000) -> bytes:
    """A signed package that its encoder would refuse."""
    body = points + t_ms.to_bytes(6, "big") + size.to_bytes(4, "big") + count.to_bytes(3, "big")
    return body + crypto.sign_digest(ORACLE_KEYS[signer], crypto.keccak256(body))


def prove(world, packages, oracle=ORACLE, t=T, feed=ETH):
    return world.book.prove_fix(oracle, feed, t, b"".join(packages))


def on_record(world, oracle=ORACLE, t=T, feed=ETH):
    return world.book.fix(eip712.oracle_hash(oracle), feed, t)


def test_a_fix_is_recorded_under_oracle_feed_and_time(world):
    assert on_record(world) == (0, 0)
    assert prove(world, [package(2, PRICE + 9), package(0, PRICE), package(1, PRICE + 2)]) == (
        (PRICE + 2) * 10**10,
        3,
    )
    event = world.book.event("FixProven")
    assert (event.oracle_hash, event.feed, event.t) == (eip712.oracle_hash(ORACLE), ETH, T)
    assert (event.value, event.weight) == on_record(world) == ((PRICE + 2) * 10**10, 3)
    assert on_record(world, t=T + 10) == on_record(world, feed=BTC) == (0, 0)
    assert on_record(world, make_oracle(quorum=3)) == (0, 0)


def test_greater_weight_alone_replaces(world):
    assert prove(world, [package(0, 100), package(1, 103)]) == (101 * 10**10 + 5 * 10**9, 2)
    # as heavy, another pair of signers: what stands, stands, and nobody's transaction fails
    assert prove(world, [package(1, 103), package(2, 500)]) == (101 * 10**10 + 5 * 10**9, 2)
    assert world.book.events == []
    assert prove(world, [package(0, 100), package(1, 103), package(2, 500)]) == (103 * 10**10, 3)
    assert prove(world, [package(0, 100), package(1, 103)]) == (103 * 10**10, 3)
    assert on_record(world) == (103 * 10**10, 3)


def test_time_must_have_come(world):
    world.chain.set_time(T - 1)
    with refused("TimeNotReached"):
        prove(world, [package(0), package(1)])
    world.chain.set_time(T)
    prove(world, [package(0), package(1)])


def point(feed, value, size=32):
    return feed + value.to_bytes(size, "big")


def malleable(raw):
    s = crypto.CURVE_ORDER - int.from_bytes(raw[-33:-1], "big")
    return raw[:-33] + s.to_bytes(32, "big") + bytes([55 - raw[-1]])


BAD = MappingProxyType(
    {
        "stale": ("OtherTime", StalePackageError, package(2, t_ms=T * 1000 - 10_000)),
        "later": ("OtherTime", StalePackageError, package(2, t_ms=T * 1000 + 10_000)),
        "between seconds": ("OtherTime", StalePackageError, package(2, t_ms=T * 1000 + 1)),
        "just before": ("OtherTime", StalePackageError, package(2, t_ms=T * 1000 - 1)),
        "a signer twice": ("DuplicatedSigner", DuplicatePackageError, package(1, PRICE + 1)),
        "the same bytes twice": ("DuplicatedSigner", DuplicatePackageError, package(1)),
        "unknown signer": (
            "UnknownSigner",
            UnknownSignerError,
            sign_package(key(9), T * 1000, [DataPoint(ETH, PRICE)]),
        ),
        "altered": ("UnknownSigner", UnknownSignerError, package(2)[:40] + b"\1" + package(2)[41:]),
        "another feed": ("FeedMissing", MissingFeedError, package(2, feed=BTC)),
        "zero": ("ZeroValue", ZeroValueError, raw_package(2, point(ETH, 0), 1)),
        "zero elsewhere": ("ZeroValue", ZeroValueError, raw_package(2, point(BTC, 0) + point(ETH, 5), 2)),
        "feed twice": ("RepeatedFeed", RepeatedFeedError, raw_package(2, point(ETH, 5) + point(ETH, 5), 2)),
        "another feed twice": (
            "RepeatedFeed",
            RepeatedFeedError,
            raw_package(2, point(BTC, 5) + point(ETH, 5) + point(BTC, 6), 3),
        ),
        "high s": ("InvalidSignature", PackageSignatureError, malleable(package(2))),
        "v 0 or 1": ("InvalidSignature", PackageSignatureError, package(2)[:-1] + bytes([package(2)[-1] - 27])),
        "zero signature": ("InvalidSignature", PackageSignatureError, package(2)[:-65] + bytes(65)),
        "no points": ("MalformedPackage", MalformedPackageError, raw_package(2, b"", 0)),
        "more points than bytes": ("MalformedPackage", MalformedPackageError, raw_package(2, point(ETH, 5), 60)),
        "too many points": ("MalformedPackage", MalformedPackageError, raw_package(2, point(ETH, 5), 65)),
        "value size zero": ("MalformedPackage", MalformedPackageError, raw_package(2, ETH, 1, size=0)),
        "value size 33": ("MalformedPackage", MalformedPackageError, raw_package(2, point(ETH, 5, 33), 1, size=33)),
    }
)


@pytest.mark.parametrize("case", BAD)
def test_bad_packages_are_refused_each_by_its_own_error_here_and_in_core(world, case):
    error, twin, bad = BAD[case]
    # the bad one comes last here, so that nothing good is left before it that could be read otherwise
    packages = [package(0), package(1), bad]
    with refused(f"{error}"):
        prove(world, packages)
    with pytest.raises(twin):
        fix_price(ORACLE, ETH, T, packages)
    assert on_record(world) == (0, 0)


@pytest.mark.parametrize("cut", [1, 13, 100, 141])
def test_left_over_bytes_are_refused(world, cut):
    with refused("MalformedPackage"):
        prove(world, [package(2)[cut:], package(0), package(1)])


def test_quorum(world):
    for packages in ([], [package(0)]):
        with refused("QuorumMissing"):
            prove(world, packages)
        with pytest.raises(NoQuorumError):
            fix_price(ORACLE, ETH, T, packages)


@pytest.mark.parametrize("changes", [{"quorum": 0}, {"signers": ()}, {"samples": 16, "sample_gap": 10}])
def test_an_oracle_that_no_channel_could_open_with_is_refused(world, changes):
    flat = [getattr(ORACLE, n) for n in FIELDS]
    for name, value in changes.items():
        flat[FIELDS.index(name)] = value
    with refused("InvalidOracle"):
        prove(world, [package(0), package(1)], oracle=tuple(flat))


def test_values_are_clamped_before_the_median(world):
    ceiling = 2**96 - 1
    huge = 2**256 - 1
    assert prove(world, [package(0, PRICE), package(1, huge)])[0] == (PRICE * 10**10 + ceiling) // 2
    for i, value in enumerate([ceiling // 10**10, ceiling // 10**10 + 1, 2**250]):
        t = T - 10 * (i + 1)
        packages = [package(s, value, t_ms=t * 1000) for s in range(3)]
        assert prove(world, packages, t=t) == (min(value * 10**10, ceiling), 3)
        assert fix_price(ORACLE, ETH, t, packages).value == min(value * 10**10, ceiling)


@pytest.mark.parametrize("size", [6, 8, 31, 32])
def test_value_sizes_and_packages_of_many_feeds(world, size):
    points = [DataPoint(bytes([i]) * 32, 10**10 + i) for i in range(1, 64)] + [DataPoint(ETH, PRICE)]
    descending = tuple(sorted(points, key=lambda p: p.feed, reverse=True))
    unsigned = encode_package(Package(descending, T * 1000, size))
    odd = unsigned + crypto.sign_digest(ORACLE_KEYS[1], crypto.keccak256(unsigned))
    packages = [sign_package(ORACLE_KEYS[0], T * 1000, points, value_size=size), odd]
    assert prove(world, packages) == (PRICE * 10**10, 2)
    assert fix_price(ORACLE, ETH, T, packages).value == PRICE * 10**10


def sampled(oracle, keys, per_sample):
    """Packages by sample: a list of (signer, value) each."""
    return [
        sign_package(keys[s], (T - i * oracle.sample_gap) * 1000, [DataPoint(ETH, v)], value_size=8)
        for i, sample in enumerate(per_sample)
        for s, v in sample
    ]


def test_at_least_half_of_the_samples_must_have_a_quorum(world):
    oracle = make_oracle(samples=4, sample_gap=10)
    full, thin = [(0, 100), (1, 102)], [(2, 10**6)]
    with refused("QuorumMissing"):
        prove(world, sampled(oracle, ORACLE_KEYS, [full, thin, thin, thin]), oracle)
    # thin samples are left out and add no weight
    assert prove(world, sampled(oracle, ORACLE_KEYS, [thin, full, [], full]), oracle) == (101 * 10**10, 4)


def test_the_limits_of_an_oracle_fit_in_one_transaction(world):
    keys = sorted((key(200 + i) for i in range(9)), key=crypto.address_of)
    oracle = make_oracle(signers=tuple(map(crypto.address_of, keys)), quorum=5, samples=5, sample_gap=20)
    values = [[(s, 10**11 + 7 * s + 1000 * i) for s in range(9)] for i in range(5)]
    packages = sampled(oracle, keys, values)
    assert prove(world, packages, oracle) == ((10**11 + 7 * 4 + 2000) * 10**10, 45)
    assert world.chain.gas_used < 12_000_000
    assert fix_price(oracle, ETH, T, packages).complete


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_chain_and_core_make_the_same_fix(data):
    """Random oracles, samples, values and orders: same value and weight, or both refuse."""
    number = data.draw(st.integers(1, 9))
    keys = sorted((key(300 + i) for i in range(number)), key=crypto.address_of)
    samples = data.draw(st.integers(1, 45 // number))
    quorum = data.draw(st.integers(number // 2 + 1, number))
    oracle = make_oracle(
        signers=tuple(map(crypto.address_of, keys)), quorum=quorum, samples=samples, sample_gap=10 if samples > 1 else 0
    )
    value = st.one_of(st.integers(1, 2**64 - 1), st.integers(10**11, 10**11 + 5))
    per_sample = [
        [(s, data.draw(value)) for s in range(number) if data.draw(st.integers(0, 9))] for _ in range(samples)
    ]
    packages = data.draw(st.permutations(sampled(oracle, keys, per_sample)))
    try:
        expected = fix_price(oracle, ETH, T, packages)
    except NoQuorumError:
        with refused("QuorumMissing"):
            prove(SHARED, packages, oracle)
        return
    with SHARED.chain.anchored():
        assert prove(SHARED, packages, oracle) == (expected.value, expected.weight)


SHARED = World.make()


def real_packages():
    path = ROOT.parent / "shared" / "data" / "redstone_3sig_ETH_BTC.hex"
    if not path.is_file():
        pytest.skip(f"{path} is absent: the real oracle packages are not checked")
    return split_payload(bytes.fromhex(path.read_text().strip())).packages


def test_real_packages_settle_a_channel_that_names_their_signers():
    """RedStone's own production packages, on a chain that stands at their time."""
    packages = real_packages()
    t = 1_721_130_810
    signers = tuple(sorted({recover_signer(p) for p in packages}))
    oracle = make_oracle(signers=signers)
    world = World.make(timestamp=t - 86_400)
    channel = Channel(world, make_terms(world.token.address, oracle=oracle)).open()
    world.fund(channel.id, 0, 10**9)
    world.fund(channel.id, 1, 10**9)
    account = Account(10**9, 10**9, 0)
    body = channel.body(
        account,
        account,
        (
            perpetual(ETH, 10**17, 3400 * WAD),
            option(Kind.CALL, BTC, t + 30 * 86_400, 64_000 * WAD, 10**16, 3000 * WAD),
        ),
        as_of=t - 86_400,
    )
    assert channel.challenge(1, body).deadline == t
    world.chain.set_time(t)
    with refused("FeedMissing"):
        prove(world, packages, oracle, t)
    fixes = {}
    for feed, part, price in ((ETH, packages[:3], 341_899_770_128), (BTC, packages[3:], 6_371_750_000_000)):
        assert b"".join(split_packages(b"".join(part))) == b"".join(part)
        assert prove(world, part, oracle, t, feed) == (price * 10**10, 3)
        fixes[feed, t] = price * 10**10
    settled = channel.settle(body)
    assert settled.complete
    assert (settled.to_a, settled.to_b) == settle_amounts(channel.terms, body, fixes, t, 10**9, 10**9, 0, 0)
