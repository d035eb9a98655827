"""RedStone packages: real ones, round trips, every refusal, and medians against the statistics module."""

from __future__ import annotations

import contextlib
import statistics
from dataclasses import replace
from fractions import Fraction
from math import floor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channeld.core import packages as p
from channeld.core.crypto import CURVE_ORDER, address_of, checksum_address, keccak256, sign_digest
from channeld.core.errors import OracleError
from channeld.core.package_codec import recovered
from channeld.core.terms import Oracle, feed_id

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "redstone_3sig_ETH_BTC.hex"
REAL_TIME = 1_721_130_810
REAL_SIGNERS = tuple(
    sorted(
        bytes.fromhex(text)
        for text in (
            "1ea62d73edf8ac05dfcea1a34b9796e937a29eff",
            "12470f7aba85c8b81d63137dd5925d6ee114952b",
            "109b4a318a4f5ddcbca6349b45f881b4137deafb",
        )
    )
)
ETH, BTC = feed_id("ETH"), feed_id("BTC")
KEYS = sorted((keccak256(b"signer %d" % i) for i in range(9)), key=address_of)
T = 1_700_000_000
PRICE = 3_000 * 10**8


def oracle_of(signers: int = 3, quorum: int = 2, samples: int = 1, gap: int = 60) -> Oracle:
    return Oracle(
        signers=tuple(address_of(key) for key in KEYS[:signers]),
        quorum=quorum,
        tick=10,
        samples=samples,
        sample_gap=gap if samples > 1 else 0,
        max_age=60,
        grace=4_000,
    )


def package(signer: int, value: int = PRICE, t: int = T, feed: bytes = ETH) -> bytes:
    return p.sign_package(KEYS[signer], t * 1000, [p.DataPoint(feed, value)])


def resigned(signer: int, body: bytes) -> bytes:
    return body + sign_digest(KEYS[signer], keccak256(body))


@pytest.fixture
def real() -> bytes:
    if not REAL.exists():
        pytest.skip(f"{REAL} is absent")
    return bytes.fromhex(REAL.read_text(encoding="ascii").strip())


# --- the real packages ----------------------------------------------------------------------------------------------


def test_real_payload_has_its_prices_and_signers(real):
    payload = p.split_payload(real)
    assert len(payload.packages) == 6
    assert {p.recover_signer(raw) for raw in payload.packages} == set(REAL_SIGNERS)
    oracle = replace(oracle_of(), signers=REAL_SIGNERS)
    travelling = p.PackageSet.of(payload.packages)
    assert travelling.print_price(oracle, ETH, REAL_TIME) == p.Print(341899770128 * 10**10, 3, REAL_SIGNERS)
    assert len(travelling.unused()) == 3
    assert travelling.fix_price(oracle, BTC, REAL_TIME) == p.Fix(637175 * 10**17, 3, complete=True, used_samples=1)
    assert travelling.unused() == ()
    assert [raw.timestamp_ms for raw in p.decode_payload(real)] == [REAL_TIME * 1000] * 6


def test_real_payload_is_encoded_again_byte_for_byte(real):
    payload = p.split_payload(real)
    assert p.encode_payload(payload.packages, payload.metadata) == real
    for raw in payload.packages:
        assert p.encode_package(p.decode_package(raw)) == raw


def test_real_payload_is_described(real):
    forms = [
        real,
        real.hex().encode(),
        b"0x" + real.hex().encode() + b"\n",
        b"".join(p.split_payload(real).packages),
        b"".join(p.split_payload(real).packages).hex().encode(),
    ]
    for raw in forms:
        told = p.describe_payload(raw)
        assert told["errors"] == []
        assert [(m["feed"], m["median"]) for m in told["medians"]] == [("BTC", "63717.5"), ("ETH", "3418.99770128")]
        assert {m["timestamp_ms"] for m in told["medians"]} == {REAL_TIME * 1000}
        assert told["medians"][0]["signers"] == [checksum_address(signer) for signer in REAL_SIGNERS]
        assert all(not shown["errors"] for shown in told["packages"])


# --- round trips ----------------------------------------------------------------------------------------------------

VALUE_SIZES = st.integers(1, 32)


@st.composite
def unsigned_packages(draw):
    size = draw(VALUE_SIZES)
    feeds = draw(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=6, unique=True))
    values = st.integers(1, (1 << (8 * size)) - 1)
    return p.Package(tuple(p.DataPoint(f, draw(values)) for f in feeds), draw(st.integers(0, (1 << 48) - 1)), size)


@given(unsigned_packages(), st.integers(0, 8))
@settings(max_examples=60, deadline=None)
def test_a_signed_package_decodes_to_itself(unsigned, signer):
    raw = resigned(signer, p.encode_package(unsigned))
    decoded = p.decode_package(raw)
    assert replace(decoded, signature=b"") == unsigned
    assert p.encode_package(decoded) == raw
    assert p.recover_signer(raw) == address_of(KEYS[signer])
    again = p.sign_package(KEYS[signer], unsigned.timestamp_ms, unsigned.points, value_size=unsigned.value_size)
    assert p.decode_package(again).points == tuple(sorted(unsigned.points, key=lambda point: point.feed))


@given(st.lists(unsigned_packages(), max_size=5), st.binary(max_size=40))
@settings(max_examples=40, deadline=None)
def test_payloads_and_concatenations_split_as_they_were_joined(unsigned, metadata):
    packages = tuple(resigned(0, p.encode_package(one)) for one in unsigned)
    assert p.split_packages(b"".join(packages)) == packages
    raw = p.encode_payload(packages, metadata)
    assert p.split_payload(raw) == p.Payload(packages, metadata)
    assert p.decode_payload(raw) == [p.decode_package(one) for one in packages]


# --- refusals -------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_random_bytes_give_typed_errors_alone(raw):
    oracle = oracle_of()
    for read in (p.decode_package, p.recover_signer, p.split_packages, p.decode_payload, p.split_payload):
        with contextlib.suppress(OracleError):
            read(raw)
    with pytest.raises(OracleError):
        p.print_price(oracle, ETH, T, [raw])
    assert p.select(oracle, ETH, T, [raw]) == ()
    p.describe_payload(raw)
    p.describe_payload(raw + p.MARKER)


def test_every_truncation_is_refused():
    raw = package(0)
    for size in range(len(raw)):
        with pytest.raises(p.MalformedPackageError):
            p.decode_package(raw[:size])
        if size:
            with pytest.raises(p.MalformedPackageError):
                p.decode_package(raw[-size:])
    payload = p.encode_payload([raw, package(1)])
    for size in range(len(payload)):
        with pytest.raises(OracleError):
            p.decode_payload(payload[:size])


def test_every_changed_byte_is_refused():
    raw, oracle = package(0), oracle_of()
    for i in range(len(raw)):
        with pytest.raises(OracleError):
            p.print_price(oracle, ETH, T, [raw[:i] + bytes([raw[i] ^ 1]) + raw[i + 1 :], package(1)])


def test_malformed_bodies_are_refused():
    body = package(0)[: -p.SIGNATURE_SIZE]
    points, trailer = body[:-13], body[-13:]

    def with_trailer(size: int, count: int) -> bytes:
        return resigned(0, points + trailer[:6] + size.to_bytes(4, "big") + count.to_bytes(3, "big"))

    for size, count in ((0, 1), (33, 1), (32, 0), (32, 2), (32, p.MAX_POINTS + 1), (2**32 - 1, 2**24 - 1)):
        with pytest.raises(p.MalformedPackageError):
            p.decode_package(with_trailer(size, count))
    with pytest.raises(p.MalformedPackageError, match="stand before"):
        p.decode_package(b"\0" + package(0))
    for wrong in (None, "0x00", 5):
        with pytest.raises(p.MalformedPackageError):
            p.decode_package(wrong)


def test_the_largest_package_is_accepted_and_one_point_more_refused():
    points = [p.DataPoint(i.to_bytes(32, "big"), i + 1) for i in range(p.MAX_POINTS + 1)]
    assert len(p.decode_package(p.sign_package(KEYS[0], T * 1000, points[:-1])).points) == p.MAX_POINTS
    with pytest.raises(p.MalformedPackageError):
        p.sign_package(KEYS[0], T * 1000, points)


def test_a_package_that_would_be_refused_is_not_encoded():
    good = p.Package((p.DataPoint(ETH, PRICE),), T * 1000)
    for bad in (
        replace(good, timestamp_ms=1 << 48),
        replace(good, timestamp_ms=-1),
        replace(good, value_size=0),
        replace(good, value_size=33),
        replace(good, value_size=4),
        replace(good, points=()),
        replace(good, points=(p.DataPoint(b"ETH", PRICE),)),
        replace(good, points=(p.DataPoint(ETH, -1),)),
        replace(good, signature=b"\0" * 64),
    ):
        with pytest.raises(p.MalformedPackageError):
            p.encode_package(bad)


def test_each_refusal_has_its_own_error():
    oracle = oracle_of()
    twice = p.encode_package(p.Package((p.DataPoint(ETH, PRICE), p.DataPoint(BTC, PRICE)), T * 1000))
    twice = resigned(0, twice.replace(BTC, ETH))
    zero = p.encode_package(p.Package((p.DataPoint(BTC, 1), p.DataPoint(ETH, PRICE)), T * 1000))
    zero = resigned(0, zero.replace(BTC + (1).to_bytes(32, "big"), BTC + bytes(32)))
    raw = package(0)
    r, s, v = raw[-65:-33], int.from_bytes(raw[-33:-1], "big"), raw[-1]
    high = raw[:-65] + r + (CURVE_ORDER - s).to_bytes(32, "big") + bytes([55 - v])
    cases = [
        (p.RepeatedFeedError, twice),
        (p.ZeroValueError, zero),
        (p.PackageSignatureError, raw[:-1] + bytes([v - 27])),
        (p.PackageSignatureError, raw[:-65] + bytes(64) + bytes([v])),
        (p.PackageSignatureError, high),
        (p.UnknownSignerError, package(3)),
        (p.StalePackageError, package(0, t=T - 10)),
        (p.StalePackageError, package(0, t=T + 10)),
        (p.StalePackageError, p.sign_package(KEYS[0], T * 1000 + 1, [p.DataPoint(ETH, PRICE)])),
        (p.MissingFeedError, package(0, feed=BTC)),
        (p.DuplicatePackageError, package(1)),
        (p.DuplicatePackageError, package(1, value=PRICE + 1)),
        (p.MalformedPackageError, raw[1:]),
    ]
    good = [package(1), package(2)]
    for error, bad in cases:
        for price in (p.print_price, p.fix_price):
            with pytest.raises(error):
                price(oracle, ETH, T, [*good, bad])
        assert p.select(oracle, ETH, T, [bad, *good, b"junk"]) in ((good[0], good[1]), (package(1), package(2)))
    assert len({error.code for error, _ in cases}) == len({error for error, _ in cases})
    assert all(4000 < error.code < 4050 for error, _ in cases)


def test_too_few_signers_are_refused():
    for packages in ([], [package(0)]):
        with pytest.raises(p.NoQuorumError):
            p.print_price(oracle_of(), ETH, T, packages)
        with pytest.raises(p.NoQuorumError):
            p.fix_price(oracle_of(), ETH, T, packages)


def test_strict_prices_stop_reading_after_the_limit():
    def endless():
        while True:
            yield from (package(0), package(1), package(2))

    with pytest.raises(p.DuplicatePackageError):
        p.print_price(oracle_of(), ETH, T, endless())


def test_malformed_payloads_are_refused():
    payload = p.encode_payload([package(0)], b"meta")
    end = len(payload) - 9 - 3
    assert p.split_payload(payload).metadata == b"meta"
    for bad in (
        payload[:-1],
        payload[:end] + (2**24 - 1).to_bytes(3, "big") + p.MARKER,
        payload[: -9 - 3 - 4 - 2] + (2).to_bytes(2, "big") + payload[-9 - 3 - 4 :],
        p.MARKER,
        bytes(4) + p.MARKER,
    ):
        with pytest.raises(p.MalformedPayloadError):
            p.decode_payload(bad)
    with pytest.raises(p.MalformedPayloadError):
        p.encode_payload([], b"\0" * (1 << 24))


# --- prices ---------------------------------------------------------------------------------------------------------

WAD_VALUES = st.integers(1, (1 << 96) // 10**10 - 1)


@given(st.lists(WAD_VALUES, min_size=1, max_size=9))
def test_median_is_the_floored_exact_one(values):
    assert p.median(values) == floor(statistics.median([Fraction(v) for v in values]))


def test_values_are_clamped_before_the_median():
    top = (1 << 96) - 1
    assert p.to_wad((1 << 256) - 1) == top
    assert p.to_wad(top // 10**10) == top // 10**10 * 10**10
    assert p.to_wad(top // 10**10 + 1) == top
    packages = [package(0, value=10**8), package(1, value=(1 << 256) - 1)]
    assert p.print_price(oracle_of(), ETH, T, packages).value == (10**18 + top) // 2


@given(st.data(), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_print_of_any_signers_in_any_order(data, signers):
    quorum = data.draw(st.integers(signers // 2 + 1, signers))
    oracle = oracle_of(signers, quorum)
    shown = data.draw(st.lists(st.integers(0, signers - 1), unique=True, min_size=quorum))
    values = {i: data.draw(WAD_VALUES) for i in shown}
    result = p.print_price(oracle, ETH, T, [package(i, values[i]) for i in shown])
    assert result.value == floor(statistics.median([Fraction(v * 10**10) for v in values.values()]))
    assert result.weight == len(shown)
    assert result.signers == tuple(oracle.signers[i] for i in sorted(shown))


@given(st.data(), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_fix_against_fractions(data, signers):
    samples = data.draw(st.integers(1, 45 // signers))
    quorum = data.draw(st.integers(signers // 2 + 1, signers))
    oracle = oracle_of(signers, quorum, samples)
    values: dict[tuple[int, int], int] = {}
    for sample in range(samples):
        for signer in data.draw(st.sets(st.integers(0, signers - 1))):
            values[sample, signer] = data.draw(st.integers(1, 10**13))
    pile = data.draw(st.permutations([package(i, v, T - s * oracle.sample_gap) for (s, i), v in values.items()]))
    held = [[v for (s, _), v in values.items() if s == sample] for sample in range(samples)]
    used = [group for group in held if len(group) >= quorum]
    chosen = p.select(oracle, ETH, T, [*pile, *pile, b"junk"])
    assert len(chosen) == sum(map(len, used))
    if 2 * len(used) < samples:
        for packages in (pile, chosen):
            with pytest.raises(p.NoQuorumError):
                p.fix_price(oracle, ETH, T, packages)
        return
    medians = [Fraction(floor(statistics.median([Fraction(v * 10**10) for v in group]))) for group in used]
    fix = p.fix_price(oracle, ETH, T, pile)
    assert fix == p.fix_price(oracle, ETH, T, chosen)
    assert fix.value == floor(sum(medians) / len(medians))
    assert fix.weight == sum(map(len, used))
    assert fix.complete == (fix.weight == signers * samples)
    assert fix.used_samples == len(used)
    order = [(p.decode_package(raw).timestamp_ms, oracle.signers.index(p.recover_signer(raw))) for raw in chosen]
    assert order == sorted(order, key=lambda key: (-key[0], key[1]))


def test_select_does_not_depend_on_the_piles_order():
    oracle = oracle_of()
    both = p.sign_package(KEYS[0], T * 1000, [p.DataPoint(ETH, PRICE + 5), p.DataPoint(BTC, PRICE)])
    pile = [package(0, PRICE + 1), package(0, PRICE), both, package(1), package(3), package(0, t=T - 60)]
    chosen = p.select(oracle, ETH, T, pile)
    assert chosen == p.select(oracle, ETH, T, reversed(pile))
    assert chosen == (min(pile[0], pile[1]), package(1))


def test_select_for_a_print_leaves_the_other_samples():
    oracle = oracle_of(samples=2)
    pile = [package(i, t=t) for t in (T, T - 60) for i in range(3)]
    assert p.select(oracle, ETH, T, pile, samples=1) == tuple(pile[:3])
    assert p.select(oracle, ETH, T, pile) == tuple(pile)


def test_a_package_set_serves_prints_and_fixes_and_names_what_is_left():
    oracle = oracle_of(samples=2)
    combined = [
        p.sign_package(KEYS[i], T * 1000, [p.DataPoint(ETH, PRICE), p.DataPoint(BTC, 2 * PRICE)]) for i in range(3)
    ]
    earlier = [package(i, t=T - 60) for i in range(3)]
    travelling = p.PackageSet.of([*combined, *earlier])
    assert travelling.print_price(oracle, BTC, T).value == 6_000 * 10**18
    assert travelling.unused() == tuple(earlier)
    assert travelling.fix_price(oracle, ETH, T).complete
    assert travelling.unused() == ()
    with pytest.raises(p.DuplicatePackageError):
        p.PackageSet.of([package(0), package(0)])
    with pytest.raises(p.NoQuorumError):
        travelling.print_price(oracle, ETH, T + 10)


def test_a_signer_that_signs_a_feed_twice_does_not_block_a_set():
    oracle = oracle_of()
    both = p.sign_package(KEYS[0], T * 1000, [p.DataPoint(ETH, PRICE + 2), p.DataPoint(BTC, PRICE)])
    alone, lower = package(0, PRICE + 4), package(0, PRICE + 3)
    others = [package(1, feed=BTC), package(1, PRICE + 5), package(2, PRICE + 6)]
    travelling = p.PackageSet.of([both, alone, lower, *others])
    assert travelling.print_price(oracle, BTC, T).signers == oracle.signers[:2]
    assert travelling.print_price(oracle, ETH, T).weight == 3
    chosen = min(alone, lower)
    assert travelling.unused() == (max(alone, lower),)
    assert travelling.used() == tuple(raw for raw in (both, alone, lower, *others) if raw in (both, chosen, *others))
    again = p.PackageSet.of(reversed(travelling.used()))
    for feed in (ETH, BTC):
        assert again.print_price(oracle, feed, T) == travelling.print_price(oracle, feed, T)
    assert again.unused() == ()
    with pytest.raises(p.UnknownSignerError):
        p.PackageSet.of([both, *others, package(4)]).print_price(oracle, ETH, T)


def test_a_signer_is_recovered_once_for_given_bytes():
    recovered.cache_clear()
    packages = [package(i) for i in range(3)]
    for _ in range(4):
        p.print_price(oracle_of(), ETH, T, packages)
        p.select(oracle_of(), ETH, T, packages)
    assert recovered.cache_info().misses == 3


# --- descriptions ---------------------------------------------------------------------------------------------------


def test_description_shows_what_can_be_read_and_names_the_rest():
    zero = p.encode_package(p.Package((p.DataPoint(BTC, 1),), T * 1000))
    zero = resigned(0, zero.replace((1).to_bytes(32, "big"), bytes(32)))
    unsigned = package(2)[:-65] + bytes(65)
    told = p.describe_payload(b"junk" + zero + unsigned + package(0) + package(0) + package(1, PRICE + 10**8))
    assert told["form"] == "packages"
    assert told["encoding"] == "binary"
    assert [error["name"] for error in told["errors"]] == ["MalformedPackageError"]
    names = [[error["name"] for error in shown["errors"]] for shown in told["packages"]]
    assert names == [["ZeroValueError"], ["PackageSignatureError"], [], ["DuplicatePackageError"], []]
    (median,) = told["medians"]
    assert median["median"] == "3000.5"
    assert median["signers"] == [checksum_address(address_of(key)) for key in KEYS[:2]]


@pytest.mark.parametrize("raw", [b"", b"  \n", b"0x", b"zz", b"0x123", b"hello there\n", p.MARKER, bytes(5)])
def test_description_of_nothing_readable_is_an_error(raw):
    told = p.describe_payload(raw)
    assert told["packages"] == []
    assert len(told["errors"]) == 1


def test_description_names_a_wrong_count():
    payload = p.encode_payload([package(0), package(1)])
    wrong = payload[:-14] + (3).to_bytes(2, "big") + payload[-12:]
    told = p.describe_payload(wrong.hex().encode())
    assert [error["name"] for error in told["errors"]] == ["MalformedPayloadError"]
    assert len(told["packages"]) == 2
