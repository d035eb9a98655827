"""Who did what is written down so that no entry can be altered unseen; what needs two people is done by two."""

from __future__ import annotations

import asyncio
import contextlib
import json
from types import SimpleNamespace

import pytest
from desk_world import only_actor, two_desks
from hypothesis import given, settings
from hypothesis import strategies as st
from test_api_tokens import OWNER, ask, served, token_for

from channeld.cli import operators as commands
from channeld.cli.output import OUT
from channeld.core import records
from channeld.core.errors import RuleError, StoreError
from channeld.daemon.operator_settings import ApprovalSettings
from channeld.daemon.operators import (
    ENTRY,
    MOST_REQUESTS,
    ZERO,
    AlteredLogError,
    ApprovalNeededError,
    Approvals,
    OperatorLog,
    OwnApprovalError,
    TooManyRequestsError,
    UnknownApprovalError,
    check_entries,
    entry_hash,
)
from channeld.daemon.tokens import Caller
from channeld.store.errors import DiskFullError
from channeld.store.memory import MemoryStore

PERSON = Caller("treasurer", frozenset({"treasury"}), "0a0b0c0d")
OTHER = Caller("second", frozenset({"approve"}), "01020304")
DEPOSIT = "private/deposit"


def a_log(store=None):
    return OperatorLog(store or MemoryStore(), lambda: 1_700_000_000_000)


async def filled(count, store=None):
    log = a_log(store)
    for number in range(count):
        await log.write(token="t", token_id="", method="m", params={"n": number}, outcome="asked")
    return log


async def test_a_log_goes_on_after_a_restart_and_its_pages_join():
    store = MemoryStore()
    await filled(150, store)
    log = a_log(store)
    await log.load()
    assert log.number == 150
    await asyncio.gather(*(log.write(token="t", token_id="", method="m", outcome=str(n)) for n in range(60)))
    found, last, before = [], 0, ZERO
    while page := await log.page(last, 7):
        last, before = check_entries(page, last, before)
        found += page
    assert [entry["number"] for entry in found] == list(range(1, 211))
    assert (last, before) == (log.number, log.head)
    assert await log.page(log.number, 10) == []


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_altered_entry_is_named(data):
    entries = asyncio.run(_page(12))
    assert check_entries(entries, 0, ZERO)[0] == 12
    place = data.draw(st.integers(0, 11))
    entry = entries[place]
    how = data.draw(st.sampled_from(["field", "field and hash", "gone", "twice"]))
    if how.startswith("field"):
        name = data.draw(st.sampled_from(sorted(set(entry) - {"hash"})))
        entry[name] = data.draw(st.sampled_from(["x", 99, None]))
        if how.endswith("hash"):
            # whoever has the database can make the entry whole again, but not the one after it
            entry["hash"] = entry_hash(entry)
            if place == 11 and name not in {"number", "before"}:
                return
    elif how == "gone" and place < 11:
        del entries[place]
    else:
        entries.insert(place, dict(entry))
    with pytest.raises(AlteredLogError, match=r"entry \d+ of the operators' log"):
        check_entries(entries, 0, ZERO)


async def _page(count):
    return await (await filled(count)).page(0, count)


async def test_what_is_done_is_written_before_and_after_and_a_failing_disk_stops_no_defence():
    store = MemoryStore()
    log = a_log(store)
    async with log.around(PERSON, DEPOSIT, {"amount": "1"}):
        assert [e["outcome"] for e in await log.page(0, 9)] == ["asked"]
    with pytest.raises(RuleError):
        async with log.around(PERSON, DEPOSIT, {"amount": "2"}):
            raise RuleError("no")
    with pytest.raises(ZeroDivisionError):
        async with log.around(PERSON, DEPOSIT, {"amount": "x" * 9_999}):
            raise ZeroDivisionError
    rows = await log.page(0, 9)
    assert [e["outcome"] for e in rows] == ["asked", "done", "asked", str(RuleError("no").code), "asked", "failed"]
    assert [e.get("asked") for e in rows] == [None, 1, None, 3, None, 5]
    assert rows[0]["params"] == {"amount": "1"}
    assert set(rows[4]["params"]) == {"sha256"}
    store.fail_with = DiskFullError("no room")
    done = False
    async with log.around(PERSON, "private/challenge", {}):
        done = True
    assert done
    assert log.number == 6


class Times:
    ms = 1_000_000

    def now_ms(self):
        return self.ms


async def some_approvals(store=None, *, good=True, **settings_):
    times = Times()
    tokens = SimpleNamespace(good=lambda _: good)
    made = Approvals(ApprovalSettings(treasury=True, **settings_), store or MemoryStore(), tokens, times.now_ms)
    await made.load()
    return made, times


async def asked(approvals, caller=PERSON, amount="1"):
    with pytest.raises(ApprovalNeededError) as caught:
        await approvals.ask(caller, DEPOSIT, {"amount": amount})
    return caught.value.details["id"]


async def test_a_request_is_carried_out_once_by_another_within_its_life():
    store = MemoryStore()
    approvals, times = await some_approvals(store, expires=60.0)
    assert approvals.needed(DEPOSIT)
    assert not any(approvals.needed(m) for m in ("private/challenge", "private/trade", "private/peer_add"))
    first, second, third = [await asked(approvals, amount=str(n)) for n in range(3)]
    assert [one["id"] for one in approvals.data()] == [first, second, third]
    for wrong in (first[:-1], "", "x" * 40):
        with pytest.raises(UnknownApprovalError):
            await approvals.take(OTHER, wrong)
    with pytest.raises(OwnApprovalError):
        await approvals.take(PERSON, first)
    again, _ = await some_approvals(store, expires=60.0)
    assert {one["id"] for one in again.data()} == {first, second, third}
    results = await asyncio.gather(*(again.take(OTHER, first) for _ in range(3)), return_exceptions=True)
    assert [getattr(r, "params", None) for r in results].count({"amount": "0"}) == 1
    assert sum(isinstance(r, UnknownApprovalError) for r in results) == 2
    # who asked may take it back
    assert (await again.take(PERSON, second, reject=True)).params == {"amount": "1"}
    times.ms += 60_000
    with pytest.raises(UnknownApprovalError):
        await approvals.take(OTHER, third)
    assert await store.documents("approval") == ()


async def test_the_asker_s_token_must_still_be_good_and_not_all_can_wait():
    approvals, _ = await some_approvals(good=False)
    waiting = await asked(approvals)
    with pytest.raises(OwnApprovalError, match="is over"):
        await approvals.take(OTHER, waiting)
    for _ in range(MOST_REQUESTS - 1):
        await asked(approvals)
    with pytest.raises(TooManyRequestsError):
        await approvals.ask(PERSON, DEPOSIT, {})
    approvals.store.fail_with = DiskFullError("no room")
    with pytest.raises(StoreError):
        await approvals.take(PERSON, waiting, reject=True)


async def test_two_people_move_money_and_the_log_has_all_of_it(tmp_path, monkeypatch):
    async with two_desks(tmp_path, approvals__treasury=True) as world, served(world.maker) as (session, url):
        await world.open()
        maker = world.maker
        treasurer = await token_for(session, url, "treasurer", "treasury", "approve")
        second = await token_for(session, url, "second", "approve", "read")
        before = only_actor(maker).state.body.b.balance
        what = {"channel": world.channel, "amount": "5"}
        _, answer = await ask(session, url, treasurer, "private/transfer", **what, token=treasurer)
        assert answer["error"]["code"] == ApprovalNeededError.code
        waiting = answer["error"]["data"]["details"]["id"]
        assert (await ask(session, url, treasurer, "private/approve", id=waiting))[1]["error"]["code"] == 1273
        assert only_actor(maker).state.body.b.balance == before
        _, answer = await ask(session, url, second, "private/approvals")
        assert [(one["token"], one["params"]["amount"]) for one in answer["result"]] == [("treasurer", "5")]
        _, answer = await ask(session, url, second, "private/approve", id=waiting)
        assert answer["result"]["version"] == only_actor(maker).state.version
        assert only_actor(maker).state.body.b.balance == before + 5 * 10**6
        assert (await ask(session, url, second, "private/approve", id=waiting))[1]["error"]["code"] == 1272
        # the owner too needs somebody else
        _, answer = await ask(session, url, OWNER, "private/transfer", **what)
        waiting = answer["error"]["data"]["details"]["id"]
        assert (await ask(session, url, OWNER, "private/approve", id=waiting))[1]["error"]["code"] == 1273
        assert (await ask(session, url, second, "private/approval_reject", id=waiting))[0] == 200

        status, answer = await ask(session, url, second, "private/operator_log")
        assert status == 403
        entries = (await ask(session, url, OWNER, "private/operator_log"))[1]["result"]["entries"]
        told = [(e["token"], e["method"].removeprefix("private/"), e["outcome"]) for e in entries]
        assert told[4:12] == [
            ("treasurer", "transfer", "asked"),
            ("treasurer", "transfer", "1271"),
            ("treasurer", "approve", "asked"),
            ("treasurer", "approve", "1273"),
            ("second", "approve", "asked"),
            ("second", "approve", "done"),
            ("second", "approve", "asked"),
            ("second", "approve", "1272"),
        ]
        # only what the method takes is kept: the token that was put in the wrong place is nowhere
        assert entries[4]["params"] == {"channel": world.channel, "amount": "5"}
        assert treasurer not in json.dumps(entries)

        # the command checks what it shows, and names what was altered
        client = SimpleNamespace(
            call=lambda method, **p: asyncio.run_coroutine_threadsafe(maker.call(method, **p), loop).result(60)
        )
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(commands, "connect", lambda _: client)
        told = []
        monkeypatch.setattr(OUT, "emit", lambda data, _: told.append(data))
        await asyncio.to_thread(commands.operator_log, after=0, known="", data=None)
        (shown,) = told
        assert (shown["checked"], shown["number"], shown["hash"]) == (True, len(entries), entries[-1]["hash"])
        key = f"{0:010d}/{5:02d}"
        raw = json.loads(await maker.node.store.document(ENTRY, key))
        altered = {**raw, "token": "somebody else"}
        altered["hash"] = entry_hash(altered)
        await maker.node.store.commit([records.PutDocument(ENTRY, key, json.dumps(altered).encode())])
        with pytest.raises(AlteredLogError, match="entry 6"):
            await asyncio.to_thread(commands.operator_log, after=0, known="", data=None)
        with contextlib.suppress(AlteredLogError):
            await asyncio.to_thread(commands.operator_log, after=6, known="", data=None)
        with pytest.raises(AlteredLogError, match="entry 7"):
            await asyncio.to_thread(commands.operator_log, after=6, known=ZERO, data=None)
