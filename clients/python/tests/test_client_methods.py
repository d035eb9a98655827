"""The client against a running daemon: typed results, exact amounts, errors, what is repeated and what never is."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import socket
from decimal import Decimal
from pathlib import Path

import channeld_client.results as results_module
import msgspec
import pytest
from channeld_client import (
    AnswerLostError,
    BadRequestError,
    ClientError,
    DaemonFailedError,
    Desk,
    Fault,
    InvalidRequestError,
    MarginError,
    NoDaemonError,
    NotAllowedError,
    SyncDesk,
    TooOftenError,
    UnreadableAnswerError,
)
from channeld_client._methods import AsyncMethods
from channeld_client._methods_sync import SyncMethods
from channeld_client._repeatable import REPEATABLE
from channeld_client.errors import daemon_error
from channeld_client.requests import Pauses, plain
from client_support import OWNER, Wire, client_of, served
from desk_world import only_actor, two_desks
from hypothesis import given
from hypothesis import strategies as st

from channeld.core.errors import REGISTRY
from channeld.daemon.scopes import READ, SCOPES

ROOT = Path(__file__).resolve().parents[3]
LEG = {"instrument": "ETH-PERP", "size": Decimal(1), "price": "3000"}


def typed(kind, value):
    """The value, which must hold every field that the client promises, of the type that it promises."""
    promise = eval(kind, {**vars(results_module), "Any": object}) if isinstance(kind, str) else kind  # noqa: S307 - ours
    msgspec.convert(value, promise, strict=True)
    return value


def promised(name):
    """The type that a method of the client promises."""
    return inspect.signature(getattr(AsyncMethods, name)).return_annotation


def test_the_made_files_are_what_the_schema_makes():
    spec = importlib.util.spec_from_file_location("make_client", ROOT / "scripts" / "make_client.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main(["--check"]) == 0, "run: python scripts/make_client.py"


def test_both_clients_have_the_same_methods():
    for name, method in vars(AsyncMethods).items():
        if inspect.isfunction(method):
            assert inspect.signature(method) == inspect.signature(getattr(SyncMethods, name)), name


def test_what_is_repeated_by_itself_only_reads_or_is_named_as_safe():
    for scope, methods in SCOPES.items():
        for method in methods:
            if scope == READ and method != "private/subscribe":
                assert method in REPEATABLE, method
    dangerous = {"trade", "transfer", "deposit", "withdraw", "close", "challenge", "call_margin", "quote_take", "rfq"}
    assert not {f"private/{name}" for name in dangerous} & REPEATABLE


async def test_every_result_is_of_the_type_that_is_promised(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        async with client_of(world.taker) as taker, client_of(world.maker) as maker:
            typed(promised("policy_set"), await taker.policy_set(peer="maker", auto_accept=True))
            done = typed(promised("trade"), await maker.trade(channel="taker", legs=[LEG], fee=Decimal("0.5")))
            assert done["status"] == "done"
            option = {"instrument": "ETH-27DEC30-3000-C", "size": "2", "price": "1200", "vol": "0.65"}
            typed(promised("trade"), await maker.trade(channel="taker", legs=[option]))
            typed(promised("transfer"), await maker.transfer(channel="taker", amount=5, memo="fee"))
            order = await maker.order(instrument="ETH-PERP", side="buy", size="1", limit="2900", label="x")
            typed(promised("order"), order)
            again = await maker.order(instrument="ETH-PERP", side="buy", size="1", limit="2900", label="x")
            assert again["id"] == order["id"]
            typed(promised("order_cancel"), await maker.order_cancel(label="x"))
            typed(promised("rfq"), await maker.rfq(instrument="ETH-PERP", size="1", wait_s=0))
            typed(promised("rfqs"), await taker.rfqs())
            typed(promised("vols_set"), await maker.vols_set(vols=[{"instrument": "ETH-27DEC30-3000-C", "vol": "0.6"}]))
            row = "channel"
            for name in (
                "audit",
                "audit_page",
                "bundle",
                "calls",
                "channel",
                "dispute",
                "expiries",
                "greeks",
                "journal",
            ):
                typed(promised(name), await getattr(maker, name)(**{row: "taker"}))
            for name in ("limits", "margin", "positions", "profit", "surface"):
                typed(promised(name), await getattr(maker, name)(**{row: "taker"}))
            for name in ("channels", "channel_proposals", "peers", "status", "tokens", "towers", "offers", "orders"):
                typed(promised(name), await getattr(maker, name)())
            for name in ("time", "schema", "doctor", "book", "quotes_broken", "events_page"):
                typed(promised(name), await getattr(maker, name)())
            typed(promised("what_if"), await maker.what_if(channel="taker", legs=[LEG]))
            typed(promised("scenario"), await maker.scenario(spot_moves=["0.1", "-0.1"], days=1))
            typed(promised("token_create"), await maker.token_create(name="risk", scopes=["read"]))
            typed(promised("token_revoke"), await maker.token_revoke(token="risk"))
            await world.advance(60)
            typed(promised("mark"), await maker.mark(channel="taker"))
            await maker.order_cancel_all()
            typed(promised("withdraw"), await maker.withdraw(channel="taker", amount="10"))


async def test_errors_have_code_fault_and_advice(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open("1000")
        async with client_of(world.maker) as maker:
            with pytest.raises(InvalidRequestError) as caught:
                await maker.channel(channel="nobody")
            assert (caught.value.code, caught.value.fault, caught.value.name) == (
                1204,
                Fault.USER,
                "UnknownChannelError",
            )
            assert caught.value.advice
            with pytest.raises(MarginError) as caught:
                await maker.trade(channel="taker", legs=[{**LEG, "size": "1000"}])
            assert {"party", "equity", "initial_margin"} <= set(caught.value.details)
            for wrong in (0.1, float("nan"), Decimal("NaN"), object()):
                with pytest.raises(BadRequestError):
                    await maker.transfer(channel="taker", amount=wrong)
            with pytest.raises(InvalidRequestError):
                await maker.call("private/nothing")
        async with served(world.maker) as url, Desk(url, "x" * 40) as stranger:
            with pytest.raises(NotAllowedError):
                await stranger.status()
            assert (await stranger.time())["block"] >= 0


@given(st.integers(-40_000, 10_000), st.text(max_size=20))
def test_every_code_of_the_daemon_has_a_class(code, message):
    error = daemon_error({"code": code, "message": message, "data": {"fault": "peer", "advice": "wait"}})
    assert isinstance(error, ClientError)
    assert error.code == code
    assert error.fault is Fault.PEER
    family = {1: InvalidRequestError}.get(code // 1000)
    assert family is None or isinstance(error, family)


def test_the_client_s_own_codes_are_no_codes_of_the_daemon():
    own = {cls.code for cls in (NoDaemonError, AnswerLostError, UnreadableAnswerError, BadRequestError)} | {1293}
    assert len(own) == 5
    assert not own & set(REGISTRY)
    assert daemon_error({}).code == 0
    assert isinstance(daemon_error({"code": -32700, "message": "x"}), DaemonFailedError)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=18, min_value=-(10**20), max_value=10**20))
def test_decimals_travel_exactly_and_in_plain_digits(value):
    sent = plain("amount", value)
    assert Decimal(sent) == value
    assert "E" not in sent.upper()


def test_pauses_double_up_to_their_cap():
    pauses = Pauses(lambda: 1.0, base=0.5, cap=3.0)
    assert [pauses.next() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    pauses.reset()
    assert pauses.next() == 0.5


async def test_a_request_whose_answer_is_lost_is_repeated_only_where_that_changes_nothing(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        async with served(world.maker) as url, Wire(int(url.rpartition(":")[2])) as wire:
            async with Desk(wire.url, OWNER, random_of=lambda: 0.0, patience_s=120) as client:
                wire.eat_answers = True
                before = only_actor(world.maker).state.version
                with pytest.raises(AnswerLostError) as caught:
                    await client.transfer(channel="taker", amount="7")
                assert caught.value.fault is Fault.NETWORK
                await world.maker.until(lambda: only_actor(world.maker).state.version > before, "the payment")
                asked = asyncio.ensure_future(client.order(instrument="ETH-PERP", side="buy", size="1", limit="2000"))
                await world.maker.until(lambda: wire.cut >= 3, "an answer that is asked for again")
                wire.eat_answers = False
                order = await asyncio.wait_for(asked, 120)
                assert order["label"].startswith("py-")
                assert [row["id"] for row in await client.orders()] == [order["id"]]
            # the payment was made once
            assert only_actor(world.maker).state.version == before + 1


async def test_what_does_not_answer_is_told_after_some_patience():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with Desk(url, OWNER, patience_s=0.2) as client:
            for ask in (client.status, lambda: client.transfer(channel="x", amount="1")):
                with pytest.raises(NoDaemonError):
                    await ask()


async def test_what_is_no_daemon_is_told(tmp_path):
    async def hello(_, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(hello, "127.0.0.1", 0)
    async with server, Desk(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", OWNER) as client:
        with pytest.raises(UnreadableAnswerError):
            await client.status()
    with pytest.raises(NoDaemonError):
        Desk.of(tmp_path)


async def test_a_limit_is_waited_out(tmp_path):
    async with two_desks(tmp_path, api__rate=20) as world, client_of(world.maker, patience_s=120) as client:
        told = await asyncio.gather(*(client.time() for _ in range(60)))
        assert len(told) == 60
        assert issubclass(TooOftenError, InvalidRequestError)


async def test_the_blocking_client_does_the_same(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        async with served(world.maker) as url:

            def session():
                with SyncDesk(url, OWNER) as desk:
                    (row,) = desk.channels()
                    with desk.events() as events:
                        desk.transfer(channel="taker", amount=Decimal("1.25"))
                        kinds = {next(iter(events)).kind for _ in range(2)}
                        assert events.next(timeout_s=0.0) is None or events.last
                    with pytest.raises(InvalidRequestError):
                        desk.channel(channel="nobody")
                    return row, kinds, desk.channels()[0]

            before, kinds, after = await asyncio.to_thread(session)
            assert kinds & {"transfer_done", "state_signed", "operator"}
            assert Decimal(before["balance"]) - Decimal(after["balance"]) == Decimal("1.25")
