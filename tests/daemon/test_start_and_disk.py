"""Starting where one must not, and disks that fail: refused or frozen, told, and nothing sent."""

from __future__ import annotations

import json
import secrets

import pytest
from desk_world import alerted, events_of, only_actor, two_desks

from channeld.chain.errors import ChainUnreachableError, CodeMismatchError, WrongChainIdError
from channeld.chain.keystore import create_keystore, load_keystore
from channeld.core.errors import ChanneldError, StoreError
from channeld.daemon.chain_desk import OtherContractsError
from channeld.daemon.config import load
from channeld.daemon.loading import OtherKeyError
from channeld.daemon.node import Node
from channeld.store.errors import DiskFullError, StoreLockedError


def node_of(desk, key=None, **flags):
    settings = {**desk.flags, **{name.replace("__", "."): value for name, value in flags.items()}}
    return Node(load(None, flags=settings, environment={}), key or desk.key)


async def test_a_second_daemon_on_the_same_directory_is_refused_and_the_first_unharmed(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        with pytest.raises(StoreLockedError, match="holds"):
            await node_of(world.maker).start()
        assert (await world.maker.call("transfer", channel="taker", amount="1"))["version"]


async def test_another_key_than_the_channels_is_refused(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        await world.maker.node.stop()
        with pytest.raises(OtherKeyError, match="is signed for by"):
            await node_of(world.maker, secrets.token_bytes(32)).start()
        await world.maker.start()
        await world.maker.until(lambda: only_actor(world.maker).channel.synced, "the exchange")
        assert (await world.maker.call("transfer", channel="taker", amount="1"))["version"]


def test_a_wrong_password_opens_no_keystore(tmp_path):
    path = tmp_path / "keystore.json"
    create_keystore(path, "right", private_key=secrets.token_bytes(32))
    with pytest.raises(ChanneldError) as refused:
        load_keystore(path, "wrong")
    assert 7100 <= refused.value.code < 7200


async def test_a_chain_that_does_not_answer_at_the_start_is_a_typed_error_on_a_devnet(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.maker.node.stop()
        with pytest.raises(ChainUnreachableError):
            await node_of(world.maker, chain__urls="http://127.0.0.1:1").start()


async def test_a_chain_that_does_not_answer_at_the_start_is_one_alert_elsewhere(tmp_path):
    async with two_desks(tmp_path) as world:
        desk = world.maker
        await desk.node.stop()
        desk.flags |= {"chain.urls": "http://127.0.0.1:1", "chain.clock": "system", "chain.kind": "live"}
        desk.flags["chain.confirmations"] = 3
        await desk.start()
        await desk.until(lambda: alerted(desk, "chain:"), "the alert")
        assert not desk.node.chain.ready
        assert (await desk.call("status"))["chain"]["trouble"]
        with pytest.raises(ChanneldError) as refused:
            _ = desk.node.chain.deployment
        assert refused.value.code == 5020


@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        ({"chain_id": 5}, WrongChainIdError, "chain 5"),
        ({"adjudicator": "risk_engine"}, CodeMismatchError, "Adjudicator"),
    ],
)
async def test_a_deployment_that_is_not_what_it_says_is_named_and_not_trusted(tmp_path, change, error, word):
    async with two_desks(tmp_path) as world:
        desk = world.maker
        await desk.node.stop()
        path = desk.folder / "deployment.json"
        document = json.loads(path.read_text())
        for name, value in change.items():
            document[name] = document[value] if isinstance(value, str) else value
        path.write_text(json.dumps(document))
        await desk.start()
        await desk.until(lambda: alerted(desk, word), "the alert")
        assert [a["code"] for a in desk.node.alerts] == [error.code]
        assert not desk.node.chain.ready


async def test_code_that_changes_under_a_desk_stops_its_deposit(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        real = world.maker.node.rpc.code

        async def other(address, block="latest"):
            return (await real(address, block)) + b"\0"

        world.maker.node.rpc.code = other
        with pytest.raises(CodeMismatchError):
            await world.maker.call("deposit", channel="taker", amount="5")
        world.maker.node.rpc.code = real
        assert (await world.maker.call("channel", channel="taker"))["deposited_on_chain"] == "250000"


async def test_channels_of_other_contracts_are_not_looked_for_in_new_ones(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        desk = world.maker
        await desk.node.stop()
        path = desk.folder / "deployment.json"
        document = json.loads(path.read_text())
        path.write_text(json.dumps({**document, "adjudicator": "0x" + "11" * 20}))
        await desk.start()
        await desk.until(lambda: alerted(desk, "is of the Adjudicator"), "the alert")
        assert [a["code"] for a in desk.node.alerts] == [OtherContractsError.code]


def poison(desk, error):
    """From now on the desk's disk takes nothing."""

    async def fail(writes):
        del writes
        raise error

    desk.node.store.commit = fail


async def test_a_disk_that_fails_freezes_the_channel_and_nothing_leaves(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        desk, other = world.maker, world.taker
        actor = only_actor(desk)
        before = actor.channel.latest
        theirs = only_actor(other).state.version
        poison(desk, DiskFullError("no space left"))
        with pytest.raises(StoreError):
            await desk.call("transfer", channel=other.name, amount="5")
        assert actor.channel.latest == before
        assert only_actor(other).state.version == theirs
        assert actor.channel.frozen.startswith("the store failed")
        assert not actor.channel.proposals
        assert await alerted(desk, "no space left")
        # not even at a new session is anything shown that the disk may not hold
        await actor.session(up=True)
        assert not actor.channel.connected


async def test_a_follower_whose_disk_fails_while_it_signs_sends_no_signature(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        maker, taker = world.maker, world.taker
        actor = only_actor(taker)
        before = actor.channel.latest
        poison(taker, DiskFullError("no space left"))
        future = only_actor(maker).enqueue(_payment())
        await only_actor(maker).pump()
        await taker.until(lambda: actor.broken is not None, "the failure")
        assert actor.channel.latest == before
        assert not future.done()
        assert only_actor(maker).channel.proposals
        assert await alerted(taker, "no space left")
        # what is on disk goes on after a restart, and the payment with it
        taker.flags["peers.listen"] = f"127.0.0.1:{world.port}"
        await taker.node.stop()
        await taker.start()
        await maker.until(future.done, "the payment")
        await taker.until(lambda: only_actor(taker).state.version > before.state.version, "the payment")
        assert await events_of(taker, "state_signed")


def _payment():
    from channeld.core.operations import Transfer  # noqa: PLC0415 - one use

    return Transfer(0, 5, b"")
