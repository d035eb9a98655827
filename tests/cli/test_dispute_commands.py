"""`channeld dispute` by a bundle and an RPC URL alone: every command on a real chain, to the unit."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest
from aiohttp import web
from dispute_world import ETH, PAYOUT_KEYS, START, UNITS, DevnetThread, World, book, keystore, role_key
from eth_account import Account as EthAccount

from channeld.chain.abi import decode
from channeld.chain.contracts import load_artifact
from channeld.core.bundle import HalfSigned
from channeld.core.crypto import address_of, checksum_address, sign_digest
from channeld.core.eip712 import Resume, body_hash, oracle_hash, resume_digest, state_digest
from channeld.core.settlement import (
    MarginCall,
    call_time,
    entitlement,
    fix_time,
    judge,
    settle_amounts,
    settle_with_calls,
)
from channeld.core.state import State
from channeld.core.wad import WAD, format_decimal


@pytest.fixture(scope="module")
def chain():
    with DevnetThread("embedded", start_time=START, heartbeat_s=None) as url:
        yield World(url)


@pytest.fixture
def dispute(cli, chain):
    """Run `channeld dispute ...` against the chain; its JSON."""

    def run(*arguments, fails=None):
        at = () if arguments[0] == "fetch-fix" else ("--rpc", chain.url)
        done = cli("dispute", *arguments, "--json", *at)
        if fails is not None:
            assert done.exit_code != 0, done.stdout
            error = json.loads(done.stderr)["error"]
            assert error["code"] == fails, error
            return error
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def keys(tmp_path):
    return keystore(tmp_path, role_key("maker"), "maker")


def test_from_a_challenge_to_the_payment_step_by_step(chain, dispute, keys, tmp_path):
    case = chain.open()
    body = book(chain.now())
    older, newer = case.bundle(3, body), case.bundle(7, book(chain.now(), balance=UNITS - 500))
    path = case.write(tmp_path / "mine.json", newer)
    told = dispute("status", path)
    assert (told["phase"], told["next_command"]) == ("open", "challenge")
    # the counterparty is first, with an older state
    chain.send(role_key("taker"), lambda a: a.challenge(case.channel, 3, body_hash(body), older.sigs))
    told = dispute("status", path)
    assert (told["phase"], told["on_record"], told["next_command"]) == ("disputed", 3, "refute")
    assert [row["event"] for row in told["history"]][-1] == "Challenged"
    assert "b's signer" in told["history"][-1]["words"]
    dispute("challenge", path, *keys, fails=1410)
    dispute("settle", path, *keys, fails=1410)
    told = dispute("refute", path, *keys)
    assert told["on_record"] == case.dispute().version == 7
    dispute("refute", path, *keys, fails=1410)
    deadline = case.dispute().deadline
    at = fix_time(case.terms, deadline)
    dispute("prove-fix", path, *keys, fails=1410)
    chain.advance_to(at)
    assert dispute("status", path)["next"].startswith("Wait until")
    dispute("prove-fix", path, *keys, fails=1410)
    folder = case.packages(tmp_path / "packages", at, 2_900)
    told = dispute("status", path, "--packages", folder)
    assert told["next_command"] == "prove-fix"
    assert dispute("fetch-fix", path, "ETH", at, "--packages", folder)["weight"] == 6
    dispute("prove-fix", path, *keys, "--packages", folder)
    assert chain.fix(oracle_hash(case.terms.oracle), at) == (2_900 * WAD, 6)
    expected = settle_amounts(case.terms, newer.state.body, {(ETH, at): 2_900 * WAD}, at, *case.totals())
    assert dispute("status", path)["settlement_now"] == {
        side: format_decimal(units, 6) for side, units in zip("ab", expected, strict=True)
    }
    dispute("settle", path, *keys)
    assert case.paid() == expected
    assert dispute("status", path)["phase"] == "ended"
    dispute("settle", path, *keys, fails=1410)


def test_watch_does_it_all_and_can_be_interrupted(chain, dispute, keys, tmp_path):
    case = chain.open()
    body = book(chain.now())
    path = case.write(tmp_path / "mine.json", case.bundle(4, body))
    dispute("challenge", path, *keys)
    at = fix_time(case.terms, case.dispute().deadline)
    told = dispute("watch", path, *keys, "--interval", "0.05", "--patience", "0.3")
    assert (told["phase"], told["done"]) == ("disputed", [])
    chain.advance_to(at + 1)
    folder = case.packages(tmp_path / "packages", at, 3_100)
    told = dispute("watch", path, *keys, "--interval", "0.05", "--packages", folder, "--patience", "30")
    expected = settle_amounts(case.terms, body, {(ETH, at): 3_100 * WAD}, at, *case.totals()[:2], 0, 0)
    assert told["phase"] == "ended"
    assert case.paid() == expected
    assert [words.split()[0] for words in told["done"]] == ["prove", "settle"]


def test_a_margin_call_is_made_tested_and_its_penalty_paid(chain, dispute, keys, tmp_path):
    case = chain.open()
    body = book(chain.now(), size=-20)
    path = case.write(tmp_path / "mine.json", case.bundle(5, body, side=1))
    taker = keystore(tmp_path, role_key("taker"), "taker")
    dispute("call-margin", path, *taker)
    record = case.dispute()
    called = call_time(case.terms, record.deadline - case.terms.challenge_period)
    at = fix_time(case.terms, record.deadline)
    assert dispute("status", path)["calls"] == [
        {"by": "b", "time": called, "tested": False, "below": "", "penalty": "0"}
    ]
    dispute("test", path, "1", *keys, fails=1410)
    chain.advance_to(at)
    folder = case.packages(tmp_path / "packages", called, 3_480)
    dispute("prove-fix", path, "ETH", called, *keys, "--packages", folder)
    dispute("test", path, *keys)
    told = dispute("status", path)["calls"][0]
    assert (told["tested"], told["below"]) == (True, "a")
    verdict = judge(case.terms, body, {(ETH, called): (3_480 * WAD, 6)}, called, *case.totals())
    expected = settle_with_calls(
        case.terms, body, {(ETH, called): 3_480 * WAD}, record.deadline, [MarginCall(called, verdict)], *case.totals()
    )
    dispute("settle", path, *keys)
    assert case.paid() == expected


def test_hot_key_lost_the_payout_wallet_goes_all_the_way(chain, dispute, tmp_path):
    case = chain.open()
    body = book(chain.now(), size=0, balance=UNITS - 77)
    path = case.write(tmp_path / "mine.json", case.bundle(6, body))
    cold = keystore(tmp_path, PAYOUT_KEYS[0], "cold")
    stranger = keystore(tmp_path, role_key("deployer of the drills"), "stranger")
    assert "NotAParty" in dispute("challenge", path, *stranger, fails=5004)["message"]
    dispute("challenge", path, *cold)
    chain.advance_to(fix_time(case.terms, case.dispute().deadline))
    before = chain.balance(address_of(PAYOUT_KEYS[0]))
    dispute("watch", path, *cold, "--interval", "0.05", "--patience", "20")
    assert chain.balance(address_of(PAYOUT_KEYS[0])) - before == UNITS - 77


def test_unsigned_transactions_are_signed_elsewhere_and_do_what_they_say(chain, dispute, tmp_path):
    case = chain.open()
    body = book(chain.now())
    path = case.write(tmp_path / "mine.json", case.bundle(9, body))
    (row,) = dispute("challenge", path, "--unsigned", "--from", "signer")["transactions"]
    assert row["from"] == checksum_address(case.terms.a.signer)
    uri = row["eip681"]
    assert uri.startswith(f"ethereum:{row['to']}@31337/challenge?bytes32=0x{case.channel.hex()}&uint64=9&bytes32=0x")
    assert dispute("challenge", path, "--unsigned")["transactions"][0]["from"] == checksum_address(case.terms.a.payout)
    assert dispute("challenge", path, "--dry-run")["sent"] == []
    assert case.dispute().number == 0
    fields = {name: row[name] for name in ("chainId", "to", "value", "data", "nonce", "gas", "type")}
    fees = {name: row[name] for name in ("maxFeePerGas", "maxPriorityFeePerGas")}
    raw = bytes(EthAccount.sign_transaction({**fields, **fees}, role_key("maker")).raw_transaction)
    chain.run(lambda rpc: rpc.send_raw(raw))
    assert case.dispute().version == 9
    # what holds structs is no EIP-681
    chain.advance_to(fix_time(case.terms, case.dispute().deadline) + case.terms.oracle.grace)
    (row,) = dispute("settle", path, "--unsigned")["transactions"]
    assert row["eip681"] is None
    inputs = load_artifact("Adjudicator").abi.functions["settle"].inputs
    assert len(decode(inputs, bytes.fromhex(row["data"][10:]))) == 2


class FakeWeb3Signer:
    """eth_signTransaction as Web3Signer answers it, with a key; `spoil` changes what it signs."""

    def __init__(self, key):
        self.key, self.spoil, self.asked = key, {}, []

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        ready = threading.Event()

        async def serve():
            application = web.Application()
            application.router.add_post("/", self._post)
            self.runner = web.AppRunner(application, access_log=None)
            await self.runner.setup()
            await web.TCPSite(self.runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"
            ready.set()

        def work():
            self.loop.run_until_complete(serve())
            self.loop.run_forever()
            self.loop.run_until_complete(self.runner.cleanup())
            self.loop.close()

        self.thread = threading.Thread(target=work, daemon=True)
        self.thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    async def _post(self, request):
        told = await request.json()
        (asked,) = told["params"]
        self.asked.append(asked)
        answer = {"jsonrpc": "2.0", "id": told["id"]}
        if asked["from"] != "0x" + address_of(self.key).hex():
            return web.json_response({**answer, "error": {"code": -32000, "message": "no such key"}})
        fields = {name: value for name, value in asked.items() if name != "from"} | self.spoil
        fields["to"] = checksum_address(bytes.fromhex(fields["to"][2:]))
        raw = EthAccount.sign_transaction(fields, self.key).raw_transaction
        return web.json_response({**answer, "result": "0x" + bytes(raw).hex()})


def test_a_remote_signer_signs_and_is_not_believed_blindly(chain, dispute, tmp_path):
    case = chain.open()
    path = case.write(tmp_path / "mine.json", case.bundle(9, book(chain.now())))
    with FakeWeb3Signer(role_key("maker")) as signer:
        by = ("--signer", signer.url)
        assert "no such key" in dispute("challenge", path, *by, "--from", "payout", fails=5202)["message"]
        for spoil in ({"to": "0x" + "66" * 20}, {"value": "0x1"}, {"data": "0x"}, {"maxFeePerGas": "0xffffffffffff"}):
            signer.spoil = spoil
            dispute("challenge", path, *by, fails=5202)
        assert case.dispute().number == 0
        signer.spoil = {}
        dispute("challenge", path, *by)
        assert case.dispute().version == 9
        assert signer.asked[-1]["from"] == "0x" + case.terms.a.signer.hex()


def test_gas_is_bounded(chain, dispute, keys, tmp_path):
    case = chain.open()
    path = case.write(tmp_path / "mine.json", case.bundle(9, book(chain.now())))
    told = dispute("challenge", path, *keys, "--max-fee", "0.000000000000000001", fails=1420)
    assert "more than 0.000000000000000001" in told["message"]
    (row,) = dispute("challenge", path, "--dry-run", "--max-fee", "0.01")["transactions"]
    assert int(row["gas"], 16) * int(row["maxFeePerGas"], 16) <= 10**16
    dispute("challenge", path, fails=1421)
    dispute("challenge", path, *keys, "--max-fee", "much", fails=1001)


def test_settle_last_and_release_where_nobody_shows_the_body(chain, dispute, keys, tmp_path):
    case, hidden = chain.open(), book(chain.now(), size=3)
    body = book(chain.now(), size=0, balance=UNITS + 9)
    path = case.write(tmp_path / "mine.json", case.bundle(4, body))
    theirs = case.bundle(8, hidden)
    chain.send(role_key("taker"), lambda a: a.challenge(case.channel, 8, body_hash(hidden), theirs.sigs))
    told = dispute("status", path)
    assert (told["body_at_hand"], told["stale_bundle"]) == (False, True)
    dispute("refute", path, *keys, fails=1411)
    at = fix_time(case.terms, case.dispute().deadline)
    chain.advance_to(at)
    dispute("settle", path, *keys, fails=1410)
    dispute("settle-last", path, *keys, fails=1410)
    chain.advance_to(at + 2 * case.terms.oracle.grace)
    assert dispute("status", path)["next_command"] == "settle-last"
    dispute("settle-last", path, *keys)
    assert case.dispute().shown_version == 4
    chain.advance_to(case.dispute().window_end)
    # the half-signed state that was theirs, found in another bundle, would have shown the body
    half = HalfSigned(State(case.channel, 8, hidden), signature_a=theirs.signature_a)
    other = case.write(tmp_path / "other.json", case.bundle(4, body, halves=(half,)))
    assert dispute("status", other)["body_at_hand"]
    dispute("settle-last", path, *keys)
    assert case.paid() == (UNITS + 9, UNITS - 9)

    lost = chain.open()
    bundle = lost.bundle(2, body)
    path = lost.write(tmp_path / "lost.json", bundle)
    dispute("challenge", path, *keys)
    assert "ReleaseNotReached" in dispute("release", path, *keys, fails=5004)["message"]
    chain.advance_to(fix_time(lost.terms, lost.dispute().deadline) + 181 * 86_400)
    dispute("release", path, *keys)
    assert lost.paid() == (UNITS, UNITS)


def test_resume_with_two_signatures_at_hand(chain, dispute, keys, tmp_path):
    case = chain.open()
    path = case.write(tmp_path / "mine.json", case.bundle(4, book(chain.now())))
    dispute("challenge", path, *keys)
    until = chain.now() + 500
    digest = resume_digest(chain.deployment.domain, Resume(case.channel, 1, until))
    signatures = ["0x" + sign_digest(role_key(role), digest).hex() for role in ("maker", "taker")]
    what = ("--dispute", "1", "--valid-until", until)
    swapped = ("--signature-a", signatures[1], "--signature-b", signatures[0])
    assert "InvalidSignatureA" in dispute("resume", path, *what, *swapped, *keys, fails=5004)["message"]
    dispute("resume", path, *what, "--signature-a", "0x12", "--signature-b", signatures[1], *keys, fails=1430)
    dispute("resume", path, *what, "--signature-a", signatures[0], "--signature-b", signatures[1], *keys)
    assert (case.record().phase.name, case.record().floor_version) == ("OPEN", 4)


def test_inspect_says_what_the_bundle_is_worth(chain, dispute, cli, tmp_path):
    case = chain.open()
    body = book(chain.now(), balance=UNITS - 1_000_000)
    path = case.write(tmp_path / "mine.json", case.bundle(4, body, side=1))
    told = dispute("inspect", path, "--price", "ETH=2950")
    now = chain.now()
    expected = settle_amounts(case.terms, body, {(ETH, now): 2_950 * WAD}, now, *case.totals())
    assert told["closed_out_now"] == {
        "gain": "1000",
        "due": format_decimal(expected[1], 6),
        "due_peer": format_decimal(expected[0], 6),
    }
    stand = entitlement(body.a, 0, deposited_a=UNITS, deposited_b=UNITS, paid_a=0, paid_b=0)
    assert told["as_they_stand"] == format_decimal(stand[1], 6)
    assert told["positions"][0]["size"] == "-20"
    assert told["margin"]["a"]["equity_in_collateral"] == format_decimal(expected[0], 6)
    shown = cli("dispute", "inspect", path)
    assert shown.exit_code == 0
    assert "No price of ETH is at hand" in shown.stdout
    shown = cli("dispute", "inspect", path, "--price", "ETH=2950", "--rpc", chain.url)
    assert "Closed out now at ETH 2950, you would gain 1000 and be due 11001" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("status", "{missing}.json"), 1302),
        (("inspect", "{junk}"), 1400),
        (("settle", "{good}", "--rpc", "http://127.0.0.1:1"), 5001),
        (("settle", "{good}"), 1300),
        (("challenge", "{good}", "--rpc", "{url}", "--from", "me"), 1012),
        (("prove-fix", "{good}", "ETH", "--rpc", "{url}"), 1300),
        (("inspect", "{good}", "--price", "ETH"), 1300),
        (("claim", "{good}", "--rpc", "{url}", "--unsigned"), 1410),
        (("fetch-fix", "{good}", "ETH", "1900000000"), 4009),
    ],
)
def test_what_cannot_be_done_is_one_clear_error(chain, cli, clear, tmp_path, arguments, code):
    case = chain.open()
    good = case.write(tmp_path / "good.json", case.bundle(4, book(chain.now())))
    junk = tmp_path / "junk.json"
    junk.write_text("{}", encoding="utf-8")
    names = {"good": good, "junk": junk, "missing": tmp_path / "missing", "url": chain.url}
    done = cli("dispute", *(one.format(**names) for one in arguments))
    clear(done, 3 if code == 1301 else 10 + code // 1000)
    done = cli("dispute", *(one.format(**names) for one in arguments), "--json")
    assert json.loads(done.stderr)["error"]["code"] == code


def test_another_chain_or_other_code_is_refused(chain, dispute, keys, tmp_path):
    from dataclasses import replace  # noqa: PLC0415 - one use

    from channeld.core.eip712 import Domain, channel_id  # noqa: PLC0415 - one use
    from channeld.core.state import genesis  # noqa: PLC0415 - one use

    case = chain.open()
    for domain, code in (
        (Domain(1, chain.deployment.adjudicator), 5002),
        (Domain(31_337, b"\x77" * 20), 5020),
        (Domain(31_337, chain.deployment.fix_book), 5021),
    ):
        start = genesis(channel_id(domain, case.terms))
        bundle = replace(
            case.bundle(4, book(chain.now())), domain=domain, state=start, signature_a=b"", signature_b=b""
        )
        path = case.write(tmp_path / f"{code}.json", bundle)
        dispute("challenge", path, *keys, fails=code)


def test_a_version_0_bundle_gives_a_depositor_its_money_back(chain, dispute, keys, tmp_path):
    from channeld.core.bundle import Bundle  # noqa: PLC0415 - one use
    from channeld.core.state import genesis  # noqa: PLC0415 - one use

    case = chain.open()
    bundle = Bundle(chain.deployment.domain, case.terms, 0, genesis(case.channel))
    path = case.write(tmp_path / "zero.json", bundle)
    dispute("challenge", path, *keys)
    chain.advance_to(fix_time(case.terms, case.dispute().deadline))
    dispute("settle", path, *keys)
    assert case.paid() == (UNITS, UNITS)


def test_a_challenge_below_the_floor_starts_at_the_floor(chain, dispute, keys, tmp_path):
    case = chain.open()
    body = book(chain.now())
    floor = case.bundle(6, body)
    digest = state_digest(chain.deployment.domain, case.channel, 6, body_hash(body))
    sigs = sign_digest(role_key("maker"), digest) + sign_digest(role_key("taker"), digest)
    from channeld.chain.contracts import Anchor  # noqa: PLC0415 - one use

    chain.send(role_key("taker"), lambda a: a.anchor(Anchor(case.channel, 6, body_hash(body), sigs)))
    old = case.write(tmp_path / "old.json", case.bundle(3, book(chain.now(), size=1)))
    assert dispute("status", old)["stale_bundle"]
    dispute("challenge", old, *keys)
    assert case.dispute().version == floor.version == 6
