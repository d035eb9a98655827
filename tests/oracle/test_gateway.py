"""RedStone's gateway JSON over real HTTP, sources with failover, archives that keep everything twice."""

from __future__ import annotations

import base64
import json
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from channeld.core.crypto import address_of
from channeld.core.errors import ChanneldError
from channeld.core.package_codec import DataPoint, decode_package, sign_package, split_payload
from channeld.core.packages import fix_price, print_price
from channeld.core.terms import Oracle, feed_id, feed_symbol
from channeld.daemon.package_store import StoreArchive
from channeld.oracle.client import (
    ArchivedPackages,
    ArchiveError,
    FolderArchive,
    FolderPackages,
    HttpPackages,
    PackagesUnavailableError,
)
from channeld.oracle.gateway import GatewayPackages, package_of, packages_of, value_of
from channeld.oracle.redundant import MergedPackages, RedundantArchive
from channeld.oracle.service import devnet_signer_keys
from channeld.store.memory import MemoryStore

ETH, BTC = feed_id("ETH"), feed_id("BTC")
T = 1_700_000_000
KEYS = sorted(devnet_signer_keys(3), key=address_of)
ORACLE = Oracle(tuple(address_of(key) for key in KEYS), 2, 10, 1, 0, 60, 4_000)
REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "redstone_3sig_ETH_BTC.hex"
REAL_AT = 1_721_130_810


def row(raw: bytes) -> dict:
    """A signed package as a gateway shows it: numbers as JavaScript prints them."""
    package = decode_package(raw)
    points = [
        {"dataFeedId": feed_symbol(point.feed), "value": float(Decimal(point.value).scaleb(-8)), "metadata": {}}
        for point in package.points
    ]
    return {
        "timestampMilliseconds": package.timestamp_ms,
        "signature": base64.b64encode(package.signature).decode(),
        "dataPoints": points,
        "dataServiceId": "redstone-primary-prod",
        "isSignatureValid": True,
        "signerAddress": "0x" + "00" * 20,
    }


def answer(packages) -> dict:
    found: dict[str, list] = {}
    for raw in packages:
        for point in decode_package(raw).points:
            found.setdefault(feed_symbol(point.feed), []).append(row(raw))
    return found


def signed(feed=ETH, price=3_000 * 10**8, t=T, keys=KEYS):
    return [sign_package(key, t * 1000, [DataPoint(feed, price)]) for key in keys]


@asynccontextmanager
async def gateway(reply):
    """A gateway that answers by `reply(path)`: text or bytes, or (status, text); and what it was asked."""
    asked = []

    async def handle(request):
        asked.append(request.path)
        result = reply(request.path)
        status, body = result if isinstance(result, tuple) else (200, result)
        return web.Response(status=status, body=body if isinstance(body, bytes) else body.encode())

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", asked
    finally:
        await runner.cleanup()


# --- the form -----------------------------------------------------------------------------------------------------


@given(st.integers(1, 2**53), st.sampled_from([ETH, BTC, feed_id("stETH")]))
def test_a_package_is_built_again_byte_for_byte(value, feed):
    raw = sign_package(KEYS[0], T * 1000, [DataPoint(feed, value)])
    told = json.loads(json.dumps(row(raw)), parse_float=str)
    # a double holds what JavaScript held, so the same eight decimals come back wherever the signer's did
    if int(Decimal(float(Decimal(value).scaleb(-8))).quantize(Decimal("1e-8")).scaleb(8)) == value:
        assert package_of(told) == raw


@pytest.mark.parametrize(
    ("number", "value"),
    [("3418.99770128", 341899770128), (63717, 6371700000000), ("1e-8", 1), ("0.1", 10_000_000), ("1.005", 100_500_000)],
)
def test_values_are_rounded_as_they_were_signed(number, value):
    assert value_of(number) == value


@pytest.mark.parametrize(
    "bad",
    [None, True, "nan", "-1", "0", 0, -5, "1e400", "1e-20", 10**60, "x", [], {"value": 1}, "1_0", "\uff11"],
)
def test_what_is_no_value_is_refused(bad):
    with pytest.raises(ChanneldError):
        package_of({**row(signed()[0]), "dataPoints": [{"dataFeedId": "ETH", "value": bad}]})


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@given(st.sampled_from(["timestampMilliseconds", "signature", "dataPoints", "whole", "feed"]), anything)
def test_hostile_answers_are_typed_errors_or_nothing(place, value):
    told = answer(signed())
    match place:
        case "whole":
            told = value
        case "feed":
            told["ETH"] = value
        case _:
            told["ETH"][0][place] = value
    try:
        packages, _ = packages_of(told, ETH)
    except ChanneldError:
        return
    for raw in packages:
        assert isinstance(raw, bytes)


# --- over HTTP ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is not there: real packages are not part of the project")
async def test_real_packages_come_back_from_a_gateways_json():
    packages = list(split_payload(bytes.fromhex(REAL.read_text().strip().removeprefix("0x"))).packages)
    signers = tuple(
        bytes.fromhex(text)
        for text in sorted(
            (
                "1ea62d73edf8ac05dfcea1a34b9796e937a29eff",
                "12470f7aba85c8b81d63137dd5925d6ee114952b",
                "109b4a318a4f5ddcbca6349b45f881b4137deafb",
            )
        )
    )
    oracle = Oracle(signers, 2, 10, 1, 0, 60, 4_000)
    path = f"/v2/data-packages/historical/redstone-primary-prod/{REAL_AT * 1000}"
    async with (
        gateway(lambda asked: json.dumps(answer(packages)) if asked == path else (404, "{}")) as (url, asked),
        GatewayPackages(oracle, [url + "/v2/"]) as source,
    ):
        for feed, price in ((ETH, 341899770128 * 10**10), (BTC, 63717_50000000 * 10**10)):
            found = await source.packages(feed, REAL_AT)
            assert set(found) <= set(packages)
            assert len(found) == 3
            assert print_price(oracle, feed, REAL_AT, found).value == price
        assert asked == [path]
        with pytest.raises(PackagesUnavailableError, match="HTTP 404"):
            await source.packages(ETH, REAL_AT + 10)


async def test_gateways_fail_over_and_are_merged_until_every_signer_is_heard():
    packages = signed()
    dead = "http://127.0.0.1:1"
    async with (
        gateway(lambda _: (500, "out of order")) as (broken, _),
        gateway(lambda _: json.dumps(answer(packages[:2]))) as (partial, partly),
        gateway(lambda _: json.dumps(answer(packages))) as (whole, fully),
        GatewayPackages(ORACLE, [dead, broken, partial, whole]) as source,
    ):
        assert await source.packages(ETH, T) == packages
        # the one that served is asked first from now on, and again while it lacks a signer
        assert await source.packages(ETH, T) == packages
        assert len(partly) == 2
        assert len(fully) == 1


@pytest.mark.parametrize(
    "body",
    ["", "[]", "{", '{"ETH": 5}', "[" * 5000, '{"ETH": [' + "{}," * 500 + "{}]}", b"\xff\xfe", '{"ETH": [{"a": 1}]}'],
)
async def test_an_answer_that_is_none_is_passed_over(body):
    async with (
        gateway(lambda _: body) as (bad, _),
        gateway(lambda _: json.dumps(answer(signed()))) as (good, _),
        GatewayPackages(ORACLE, [bad, good]) as source,
    ):
        assert len(await source.packages(ETH, T)) == 3


async def test_an_endless_answer_and_a_slow_one_end(monkeypatch):
    monkeypatch.setattr("channeld.oracle.gateway.MAX_GATEWAY_ANSWER", 1000)
    async with (
        gateway(lambda _: b" " * 100_000) as (endless, _),
        GatewayPackages(ORACLE, [endless], timeout_s=5) as source,
    ):
        with pytest.raises(PackagesUnavailableError, match="exceeds 1000 bytes"):
            await source.packages(ETH, T)


async def test_packages_of_other_times_and_strangers_are_dropped():
    stranger = sign_package(bytes(31) + b"\x05", T * 1000, [DataPoint(ETH, 1)])
    async with (
        gateway(lambda _: json.dumps(answer([stranger, *signed(t=T + 10)]))) as (url, _),
        GatewayPackages(ORACLE, [url]) as source,
    ):
        with pytest.raises(PackagesUnavailableError):
            await source.packages(ETH, T)


async def test_sources_of_different_kinds_are_one(tmp_path):
    packages = signed()
    await FolderArchive(tmp_path).put(ETH, T, packages[:1])
    async with (
        gateway(lambda _: json.dumps(answer(packages[1:]))) as (url, _),
        GatewayPackages(ORACLE, [url]) as live,
        HttpPackages(ORACLE, ["http://127.0.0.1:1"]) as gone,
    ):
        merged = MergedPackages(ORACLE, [gone, live, FolderPackages(ORACLE, tmp_path)])
        assert await merged.packages(ETH, T) == packages
        with pytest.raises(PackagesUnavailableError):
            await merged.packages(BTC, T)


# --- archives -----------------------------------------------------------------------------------------------------


class Broken:
    """An archive on a disk that is gone."""

    async def put(self, _feed, _t, _packages):
        raise ArchiveError("the disk is gone")

    async def get(self, _feed, _t):
        raise ArchiveError("the disk is gone")


@pytest.fixture
async def store():
    opened = MemoryStore()
    yield opened
    await opened.close()


async def test_every_archive_keeps_everything_and_one_that_lost_it_is_given_it_again(tmp_path, store):
    packages = signed()
    first, second = FolderArchive(tmp_path / "one"), StoreArchive(store)
    both = RedundantArchive([first, second])
    await both.put(ETH, T, packages)
    assert await first.get(ETH, T) == await second.get(ETH, T) == packages
    first.path(ETH, T).unlink()
    assert await both.get(ETH, T) == packages
    assert await first.get(ETH, T) == packages
    await second.put(ETH, T + 10, packages[:1])
    assert await both.get(ETH, T + 10) == packages[:1]
    assert await both.get(BTC, T) == []


async def test_one_broken_archive_keeps_nothing_from_a_fix_and_all_broken_is_an_error(tmp_path):
    packages = signed()
    one = RedundantArchive([Broken(), FolderArchive(tmp_path)])
    source = ArchivedPackages(ORACLE, [FolderPackages(ORACLE, tmp_path / "live")], one)
    await FolderArchive(tmp_path / "live").put(ETH, T, packages)
    found = await source.packages(ETH, T)
    assert fix_price(ORACLE, ETH, T, found).weight == 3
    assert one.failing == 1
    assert await FolderArchive(tmp_path).get(ETH, T) == packages
    with pytest.raises(ArchiveError):
        await RedundantArchive([Broken(), Broken()]).put(ETH, T, packages)
    with pytest.raises(ArchiveError):
        await RedundantArchive([Broken(), Broken()]).get(ETH, T)
