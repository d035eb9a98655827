"""The signing service over real HTTP, and the client that trusts nothing of it."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

import aiohttp
import pytest
from aiohttp import web

from channeld.core.crypto import address_of, checksum_address
from channeld.core.packages import DataPoint, Fix, encode_payload, fix_price, print_price, sign_package
from channeld.core.terms import Oracle, feed_id
from channeld.oracle.client import (
    ArchivedPackages,
    ArchiveError,
    FolderArchive,
    FolderPackages,
    HttpPackages,
    PackagesNotYetError,
    PackagesUnavailableError,
    fix_packages,
    print_packages,
)
from channeld.oracle.service import (
    Misbehaviour,
    OracleService,
    Serving,
    SignerKeysError,
    devnet_signer_keys,
    signer_keys,
)
from channeld.oracle.sources import ManualSource, PathSource

ETH, BTC = feed_id("ETH"), feed_id("BTC")
T = 1_700_000_000
KEYS = sorted(devnet_signer_keys(3), key=address_of)
START = {ETH: 3_000 * 10**8, BTC: 60_000 * 10**8}


@dataclass
class Hand:
    """A clock moved by hand."""

    ms: int = T * 1000

    def now_ms(self) -> int:
        return self.ms


def oracle_of(samples: int = 1, keys=KEYS) -> Oracle:
    signers = tuple(sorted(address_of(key) for key in keys))
    return Oracle(signers, 2, 10, samples, 60 if samples > 1 else 0, 60, 4_000)


def service_of(clock=None, **options) -> OracleService:
    return OracleService(KEYS, ManualSource(START), clock or Hand(), devnet=True, **options)


async def fetch(url: str, **options):
    async with aiohttp.ClientSession() as session, session.request("GET", url, **options) as response:
        return response.status, await response.json()


async def post(url: str, body: bytes):
    async with aiohttp.ClientSession() as session, session.post(url, data=body) as response:
        return response.status, await response.json()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# --- the service ----------------------------------------------------------------------------------------------------


async def test_packages_over_http_make_a_print():
    async with Serving(service_of()) as serving:
        status, answer = await fetch(f"{serving.url}/packages?feed=ETH&feed=BTC&timestamp_ms={T}000")
        assert status == 200
        raw = [bytes.fromhex(text[2:]) for text in answer["packages"]]
        assert print_price(oracle_of(), ETH, T, raw[:3]).value == 3_000 * 10**18
        assert print_price(oracle_of(), BTC, T, raw[3:]).signers == oracle_of().signers
        assert await fetch(f"{serving.url}/latest?feed=ETH") == (
            200,
            {"timestamp_ms": T * 1000, "packages": answer["packages"][:3]},
        )
        status, named = await fetch(f"{serving.url}/signers")
        assert named == {
            "signers": [checksum_address(s) for s in oracle_of().signers],
            "tick": 10,
            "feeds": ["BTC", "ETH"],
        }
        assert (await fetch(f"{serving.url}/healthz"))[1]["status"] == "ok"


@pytest.mark.parametrize(
    ("query", "status", "name"),
    [
        (f"feed=ETH&timestamp_ms={T + 10}000", 404, "TimeNotReachedError"),
        (f"feed=ETH&timestamp_ms={T}001", 400, "NotATickError"),
        (f"feed=ETH&timestamp_ms={T - 1}000", 400, "NotATickError"),
        (f"feed=SOL&timestamp_ms={T}000", 404, "UnknownFeedError"),
        ("feed=ETH", 400, "MalformedRequestError"),
        ("feed=ETH&timestamp_ms=-10000", 400, "MalformedRequestError"),
        ("feed=ETH&timestamp_ms=" + "9" * 5000, 400, "MalformedRequestError"),
        (f"timestamp_ms={T}000", 400, "MalformedRequestError"),
        (f"feed=ETH&feed=ETH&timestamp_ms={T}000", 400, "MalformedRequestError"),
        (f"feed={'X' * 33}&timestamp_ms={T}000", 400, "MalformedRequestError"),
        ("&".join(f"feed=F{i}" for i in range(17)) + f"&timestamp_ms={T}000", 400, "MalformedRequestError"),
    ],
)
async def test_bad_requests_get_json_errors(query, status, name):
    async with Serving(service_of()) as serving:
        got, answer = await fetch(f"{serving.url}/packages?{query}")
    assert (got, answer["error"]["name"]) == (status, name)


async def test_unknown_paths_and_methods_get_json_errors():
    async with Serving(service_of()) as serving:
        assert (await fetch(f"{serving.url}/nothing"))[0] == 404
        status, answer = await post(f"{serving.url}/packages", b"")
        assert (status, answer["error"]["name"]) == (405, "MalformedRequestError")


async def test_before_the_source_begins_is_not_found():
    service = OracleService(KEYS, PathSource({ETH: [(T, 5)]}), Hand())
    async with Serving(service) as serving:
        status, answer = await fetch(f"{serving.url}/packages?feed=ETH&timestamp_ms={T - 10}000")
    assert (status, answer["error"]["name"]) == (404, "PriceUnavailableError")


async def test_a_price_set_by_hand_counts_from_the_next_tick():
    clock = Hand()
    async with Serving(service_of(clock)) as serving:
        before = await fetch(f"{serving.url}/latest?feed=ETH")
        assert await post(f"{serving.url}/price", b'{"feed": "ETH", "price": 2500.5}') == (
            200,
            {"feed": "ETH", "price": "2500.5", "time": T + 1},
        )
        assert await fetch(f"{serving.url}/latest?feed=ETH") == before
        clock.ms += 10_000
        _, answer = await fetch(f"{serving.url}/latest?feed=ETH")
        raw = [bytes.fromhex(text[2:]) for text in answer["packages"]]
        assert print_price(oracle_of(), ETH, T + 10, raw).value == 25005 * 10**17
        assert await fetch(f"{serving.url}/packages?feed=ETH&timestamp_ms={T}000") == before


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"feed": "ETH"}',
        b'{"feed": "ETH", "price": "0"}',
        b'{"feed": "ETH", "price": "x"}',
        b'{"feed": "ETH", "price": true}',
        b'{"feed": 7, "price": 1}',
        b'{"feed": "ETH", "price": 1, "time": 5}',
        b'{"feed": "ETH", "price": 1, "time": "soon"}',
        b'{"feed": "ETH", "price": 1, "now": 5}',
        b"[" * 4000,
        b"x" * 5000,
    ],
)
async def test_bad_prices_get_json_errors(body):
    service = service_of()
    async with Serving(service) as serving:
        status, answer = await post(f"{serving.url}/price", body)
        assert status in (400, 413)
        assert answer["error"]["code"] >= 4000
        assert print_price(oracle_of(), ETH, T, service.packages(ETH, T * 1000)).value == 3_000 * 10**18


async def test_prices_are_set_on_a_devnet_alone():
    for service in (
        OracleService(KEYS, ManualSource(START), Hand()),
        OracleService(KEYS, PathSource({ETH: [(0, 5)]}), Hand(), devnet=True),
    ):
        async with Serving(service) as serving:
            status, answer = await post(f"{serving.url}/price", b'{"feed": "ETH", "price": 1}')
            assert (status, answer["error"]["name"]) == (400, "MalformedRequestError")


def test_misbehaviour_is_silence_and_skew():
    service = service_of(misbehaviour=Misbehaviour(silent=frozenset({0})))
    assert print_price(oracle_of(), ETH, T, service.packages(ETH, T * 1000)).signers == oracle_of().signers[1:]
    service.misbehaviour = Misbehaviour(skew={2: -100})
    found = service.packages(ETH, T * 1000)
    assert print_price(oracle_of(), ETH, T, found).value == 3_000 * 10**18
    assert print_price(oracle_of(), ETH, T, found[1:]).value == 2_985 * 10**18


def test_signing_is_deterministic_and_remembered():
    service = service_of()
    first = service.packages(ETH, T * 1000)
    assert all(x is y for x, y in zip(first, service.packages(ETH, T * 1000), strict=True))
    assert first == service_of().packages(ETH, T * 1000)


def test_keys_are_derived_only_on_a_devnet(tmp_path):
    assert signer_keys(devnet=True, count=2) == devnet_signer_keys(2)
    for wrong in (
        {"devnet": False},
        {"devnet": True, "count": 0},
        {"devnet": True, "count": 10},
        {"devnet": True, "directory": tmp_path},
        {"devnet": False, "directory": tmp_path, "open_keystore": lambda _: KEYS[0]},
    ):
        with pytest.raises(SignerKeysError):
            signer_keys(**wrong)
    for i in range(3):
        (tmp_path / f"{i}.json").write_text(KEYS[i].hex(), encoding="ascii")
    opened = signer_keys(devnet=False, directory=tmp_path, open_keystore=lambda f: bytes.fromhex(f.read_text()))
    assert opened == KEYS
    for keys in ([], [KEYS[0], KEYS[0]], devnet_signer_keys(10)):
        with pytest.raises(SignerKeysError):
            OracleService(keys, ManualSource(START), Hand())


# --- the client -----------------------------------------------------------------------------------------------------


async def serve_answer(handler) -> tuple[web.AppRunner, str]:
    app = web.Application()
    app.router.add_get("/packages", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


async def test_the_client_fails_over_and_merges():
    dead = f"http://127.0.0.1:{free_port()}"
    first, second = (service_of(misbehaviour=Misbehaviour(silent=frozenset(quiet))) for quiet in ({0, 1}, {1, 2}))
    async with Serving(first) as one, Serving(second) as two:
        async with HttpPackages(oracle_of(), [dead, one.url + "/", two.url]) as client:
            found = await client.packages(ETH, T)
            assert print_price(oracle_of(), ETH, T, found).signers == (oracle_of().signers[0], oracle_of().signers[2])
            with pytest.raises(PackagesUnavailableError):
                await client.packages(feed_id("SOL"), T)
        async with HttpPackages(oracle_of(), [one.url, two.url]) as client:
            with pytest.raises(PackagesNotYetError):
                await client.packages(ETH, T + 10)


async def test_the_client_refuses_bad_answers():
    stranger = sign_package(b"\7" * 32, T * 1000, [DataPoint(ETH, 5)])
    stale = sign_package(KEYS[0], T * 1000 - 10_000, [DataPoint(ETH, 5)])
    other = sign_package(KEYS[0], T * 1000, [DataPoint(BTC, 5)])
    answers = [
        web.json_response({"packages": ["0x" + raw.hex() for raw in (stranger, stale, other, b"junk")]}),
        web.json_response({"packages": ["zz"]}),
        web.json_response({"packages": [5]}),
        web.json_response({"packages": "0x"}),
        web.json_response([]),
        web.Response(text="not json"),
        web.Response(body=b"\xff" * 300_000),
        web.Response(status=302, headers={"Location": "/packages"}),
        web.Response(text="[" * 50_000),
        web.json_response({"error": {"code": 4051, "message": "no such feed"}}, status=404),
    ]
    pending = iter(answers)

    async def handler(_):
        return next(pending)

    runner, url = await serve_answer(handler)
    try:
        async with HttpPackages(oracle_of(), [url]) as client:
            for _ in answers:
                with pytest.raises(PackagesUnavailableError):
                    await client.packages(ETH, T)
    finally:
        await runner.cleanup()


async def test_the_client_does_not_wait_for_ever():
    released = asyncio.Event()

    async def handler(_):
        await released.wait()
        return web.json_response({"packages": []})

    runner, url = await serve_answer(handler)
    try:
        async with HttpPackages(oracle_of(), [url], timeout_s=0.05) as client:
            with pytest.raises(PackagesUnavailableError, match="Timeout"):
                await client.packages(ETH, T)
    finally:
        released.set()
        await runner.cleanup()


async def test_an_archive_keeps_what_was_given(tmp_path):
    archive = FolderArchive(tmp_path)
    given = service_of().packages(ETH, T * 1000)
    assert await archive.get(ETH, T) == []
    await asyncio.gather(*(archive.put(ETH, T, [raw]) for raw in given), archive.put(BTC, T, []))
    await archive.put(ETH, T, given)
    assert sorted(await archive.get(ETH, T)) == sorted(given)
    assert [path.name for path in archive.path(ETH, T).parent.iterdir()] == [f"{T}.hex"]
    awkward = feed_id("../X")
    await archive.put(awkward, T, given)
    assert archive.path(awkward, T).parent.parent == tmp_path
    archive.path(ETH, T).write_text("0xzz", encoding="ascii")
    for attempt in (archive.get(ETH, T), archive.put(ETH, T, given)):
        with pytest.raises(ArchiveError):
            await attempt
    blocked = FolderArchive(tmp_path / "file")
    (tmp_path / "file").write_text("", encoding="ascii")
    with pytest.raises(ArchiveError):
        await blocked.put(ETH, T, given)


async def test_a_folder_of_payloads_is_a_source(tmp_path):
    service = service_of()
    given = [raw for feed in (ETH, BTC) for raw in service.packages(feed, T * 1000)]
    (tmp_path / "payload.hex").write_text(encode_payload(given[:5]).hex(), encoding="ascii")
    (tmp_path / "bad.hex").write_text("hello", encoding="ascii")
    source = FolderPackages(oracle_of(), tmp_path)
    assert await source.packages(ETH, T) == given[:3]
    await FolderArchive(tmp_path).put(BTC, T, given[5:])
    assert await source.packages(BTC, T) == given[3:]
    with pytest.raises(PackagesUnavailableError, match="cannot be read"):
        await source.packages(ETH, T + 10)


class Counting:
    """A source that counts what it is asked."""

    def __init__(self, service: OracleService) -> None:
        self.service, self.asked = service, 0

    async def packages(self, feed: bytes, t: int) -> list[bytes]:
        self.asked += 1
        found = self.service.packages(feed, t * 1000)
        if not found:
            raise PackagesUnavailableError("all silent")
        return [b"junk", *found]


async def test_archived_packages_are_asked_for_once(tmp_path):
    service = service_of(misbehaviour=Misbehaviour(silent=frozenset({1})))
    source, archive = Counting(service), FolderArchive(tmp_path)
    archived = ArchivedPackages(oracle_of(), [source], archive)
    assert len(await archived.packages(ETH, T)) == 2
    service.misbehaviour = Misbehaviour()
    assert len(await archived.packages(ETH, T)) == 3
    service.misbehaviour = Misbehaviour(silent=frozenset({0, 1, 2}))
    assert len(await archived.packages(ETH, T)) == 3
    assert source.asked == 2
    assert len(await archive.get(ETH, T)) == 3
    with pytest.raises(PackagesUnavailableError, match="all silent"):
        await archived.packages(BTC, T)


async def test_prints_and_fixes_are_collected_over_http(tmp_path):
    clock = Hand()
    oracle = oracle_of(samples=3)
    service = service_of(clock)
    async with Serving(service) as serving, HttpPackages(oracle, [serving.url]) as client:
        source = ArchivedPackages(oracle, [client], FolderArchive(tmp_path))
        assert print_price(oracle, ETH, T, await print_packages(source, oracle, ETH, T)).weight == 3
        complete = await fix_packages(source, oracle, ETH, T)
        assert fix_price(oracle, ETH, T, complete) == Fix(3_000 * 10**18, 9, complete=True, used_samples=3)
        with pytest.raises(PackagesNotYetError):
            await fix_packages(source, oracle, ETH, T + 60)
        clock.ms += 60_000
        service.misbehaviour = Misbehaviour(silent=frozenset({0, 1}))
        later = fix_price(oracle, ETH, T + 60, await fix_packages(source, oracle, ETH, T + 60))
        assert (later.weight, later.complete, later.used_samples) == (6, False, 2)
    again = await fix_packages(FolderPackages(oracle, tmp_path), oracle, ETH, T)
    assert again == complete
