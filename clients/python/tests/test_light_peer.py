"""The light peer against a running desk: opens, trades, withdraws, ends, shows what it signs, comes back."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from decimal import Decimal

import pytest
from channeld_client.light import FileLog, LightPeer, MemoryLog, WrongWalletError
from desk_world import TOKENS, events_of
from eth_account import Account
from eth_account.messages import encode_typed_data
from light_support import CALL, CastWallet, light_world

from channeld.core.bundle import bundle_from_json
from channeld.core.crypto import SignatureError, verify
from channeld.core.eip712 import link_digest, link_typed_data, state_digest

WALLETS = [
    "eth-account",
    pytest.param(
        "cast", marks=[pytest.mark.cast, pytest.mark.skipif(shutil.which("cast") is None, reason="cast is missing")]
    ),
]


def test_the_typed_data_of_a_link_is_what_others_hash():
    facts = ("initiator", b"\7" * 32, b"\10" * 32, b"\11" * 20)
    message = encode_typed_data(full_message=link_typed_data(*facts))
    key = b"\1" * 32
    signature = bytes(Account.sign_message(message, key).signature)
    signer = bytes.fromhex(Account.from_key(key).address[2:])
    verify(link_digest(*facts), signature, signer)
    with pytest.raises(SignatureError):
        verify(link_digest("responder", *facts[1:]), signature, signer)


@pytest.mark.parametrize("tool", WALLETS)
async def test_a_wallet_s_whole_life_with_a_desk(tmp_path, tool):
    async with light_world(tmp_path, channel__proposal_timeout=60) as light:
        if tool == "cast":
            light.wallet = CastWallet(light.key, tmp_path)
        maker = light.maker
        async with light.peer() as peer:
            await light.opened(peer)
            version = await peer.trade([CALL], reference="first")
            assert peer.status()["positions"][0]["size"] == "10"
            await light.level(peer)
            assert light.desk_actor.state.version == version
            offered = asyncio.ensure_future(maker.call("trade", channel="taker", legs=[{**CALL, "size": "4"}]))
            await peer.until(peer.offers)
            (offer,) = peer.offers()
            assert offer["sentence"] == "you sell 4 ETH-27DEC30-3000-C at 1200"
            await peer.accept_offer(offer["id"])
            assert (await offered)["status"] == "done"
            await light.advance(60, peer)
            marked = await maker.call("mark", channel="taker")
            await peer.until(lambda: peer.status()["version"] == marked["version"])
            await peer.pay("1.5", memo="thanks")
            await peer.trade([{**CALL, "size": "-6"}])
            assert peer.status()["positions"] == []
            await light.send(await peer.withdraw("1000"))
            assert (await light.world.paid())["b"] == 1000 * TOKENS
            assert await peer.audit() == peer.status()["version"]
            owed = Decimal(peer.status()["balance"])
            await light.send(await peer.end())
            assert (await light.world.paid())["b"] == int((owed + 1000) * TOKENS)
            assert sum((await light.world.paid()).values()) == 500_000 * TOKENS
        kinds = {shown.kind for shown in light.owner.shown}
        assert kinds == {"link", "state", "withdrawal", "close"}
        words = [shown.sentence for shown in light.owner.shown]
        assert any("you buy 10 ETH-27DEC30-3000-C at 1200" in text for text in words)
        assert any("the book is marked at ETH" in text for text in words)
        assert any(text.startswith("The channel ends: ") for text in words)
        for shown in light.owner.shown:
            json.dumps(shown.typed_data)


async def test_its_bundle_is_all_that_a_dispute_needs(tmp_path):
    async with light_world(tmp_path) as light, light.peer() as peer:
        await light.opened(peer)
        await peer.trade([CALL])
        await light.level(peer)
        document = await peer.bundle()
        bundle = bundle_from_json(document)
        digest = state_digest(bundle.domain, bundle.channel, bundle.version, light.desk_actor.channel.latest.body_hash)
        verify(digest, bundle.signature_b, light.wallet.address)
        path = tmp_path / "wallet.bundle.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        command = (sys.executable, "-m", "channeld.cli.main", "dispute", "inspect", str(path))
        child = await asyncio.create_subprocess_exec(
            *command, "--price", "ETH=3000", "--json", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await child.communicate()
        assert child.returncode == 0, err.decode()
        told = json.loads(out)
        assert told["version"] == bundle.version
        # and the contract takes the wallet's signature: the state that both signed stands on record
        adjudicator = light.maker.node.chain.adjudicator
        call = adjudicator.challenge(
            bundle.channel, bundle.version, light.desk_actor.channel.latest.body_hash, bundle.sigs
        )
        await light.transactions.transact(call)
        assert (await adjudicator.dispute_record(bundle.channel)).version == bundle.version
        await peer.until(lambda: peer.actor().channel.frozen)


async def test_it_comes_back_from_its_log_and_trades_on(tmp_path):
    async with light_world(tmp_path) as light:
        path = tmp_path / "wallet.log"
        light.log = FileLog(path)
        async with light.peer() as peer:
            await light.opened(peer)
            await peer.trade([CALL])
            before = peer.status()
        light.log = FileLog(path)
        async with light.peer() as peer:
            assert peer.status()["version"] == before["version"]
            assert peer.status()["positions"] == before["positions"]
            await peer.until(lambda: not peer.status()["waits_for"])
            await peer.trade([{**CALL, "size": "-10"}])
            await light.level(peer)
            assert await peer.audit() == light.desk_actor.state.version
            await light.maker.until(lambda: events_of(light.maker, "trade_done"), "the trades")
        assert path.stat().st_mode & 0o077 == 0


async def test_what_the_owner_refuses_is_not_signed_and_the_channel_goes_on(tmp_path):
    async with light_world(tmp_path) as light, light.peer() as peer:
        await light.opened(peer)
        balance = peer.status()["balance"]
        light.owner.refuses = lambda shown: any(one["operation"] == "TRANSFER" for one in shown.operations)
        with pytest.raises(Exception, match="refuse"):
            await light.maker.call("transfer", channel="taker", amount="5")
        assert peer.status()["balance"] == balance
        assert light.owner.shown[-1].kind == "rejection"
        light.owner.refuses = lambda _: False
        await peer.until(lambda: not peer.status()["waits_for"])
        await peer.trade([CALL])


async def test_a_wallet_that_signs_something_else_freezes_its_channel(tmp_path):
    async with light_world(tmp_path) as light, light.peer() as peer:
        await light.opened(peer)
        honest = light.wallet.sign_typed_data

        async def other(data):
            if data["primaryType"] != "State":
                return await honest(data)
            return await honest({**data, "message": {**data["message"], "version": 7_777}})

        light.wallet.sign_typed_data = other
        version = light.desk_actor.state.version
        with pytest.raises(Exception, match=r"frozen|signature"):
            await peer.pay("1", wait_s=60)
        assert "frozen" in peer.status()["waits_for"]
        assert light.desk_actor.state.version == version
        assert WrongWalletError.code == 1296


@pytest.mark.parametrize("what", ["payout", "sequencer", "stranger"])
async def test_terms_that_are_not_its_own_are_refused(tmp_path, what):
    async with light_world(tmp_path, **({"sequencer": 1} if what == "sequencer" else {})) as light:
        changes = {"payout": {"payout": b"\5" * 20}}.get(what, {})
        async with light.peer(**changes) as peer:
            if what == "stranger":
                peer.desk, kept = b"\6" * 20, peer.desk
                with pytest.raises(Exception, match="signers"):
                    peer._check_terms(light.world.terms, room=True)
                peer.desk = kept
                return
            await light.proposed(peer)
            await peer.until(lambda: any(kind == "channel_proposal_refused" for kind, _ in peer.news))
            assert not peer.terms_offered
            assert peer.actors == {}


def test_a_peer_needs_no_node():
    assert "Node" not in vars(sys.modules[LightPeer.__module__])
    assert MemoryLog().records == []
