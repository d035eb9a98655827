"""A desk and its watchtowers: cheating while it is away, towers that fall silent or forget, how long it is safe."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import shutil

import pytest
from desk_world import ETH, TOKENS, alerted, events_of, only_actor, two_desks

from channeld.chain.clock import DevnetClock
from channeld.chain.deployment import read_deployment
from channeld.cli.processes import free_port
from channeld.core.crypto import address_of
from channeld.core.settlement import fix_time, settle_amounts
from channeld.core.wad import WAD
from channeld.tower.errors import TowerBrokeItsWordError
from channeld.tower.ledger import Owners
from channeld.tower.protocol import parse_tower, receipt_from_json, verify_receipt
from channeld.tower.service import Settings, Tower

DEPOSIT = 250_000 * TOKENS
CALL = {"instrument": "ETH-27DEC30-3000-C", "size": "10", "price": "1200"}


class Place:
    """Where a tower is, before it is there: its key and its port."""

    def __init__(self):
        self.key = secrets.token_bytes(32)
        self.port = free_port()

    @property
    def name(self):
        return f"0x{address_of(self.key).hex()}@http://127.0.0.1:{self.port}"

    def tower(self, world, folder, clock):
        settings = Settings(
            world.devnet.url,
            folder,
            port=self.port,
            confirmations=0,
            poll_s=0.02,
            blocks_keep_time=False,
            poor_wei=0,
        )
        owners = Owners({desk.address: 5 for desk in (world.maker, world.taker)})
        folder.mkdir(exist_ok=True)
        return Tower(settings, self.key, read_deployment(world.maker.folder / "deployment.json"), owners, clock)


@contextlib.asynccontextmanager
async def desks_with_a_tower(folder, **flags):
    """(world, the tower's place, a function that runs the tower)."""
    place = Place()
    async with two_desks(folder, tower__towers=place.name, tower__check_interval=0.2, **flags) as world:
        await world.rpc.faucet(address_of(place.key))
        async with DevnetClock(world.devnet.url) as clock:
            yield world, lambda name="tower": place.tower(world, folder / name, clock)


async def current(desk):
    actor = only_actor(desk)
    await desk.until(lambda: desk.node.towers.refuting(actor), "a tower that is current")


async def without_tower(desk):
    """This desk brings nothing to any tower any more."""
    await desk.node.towers.stop()
    desk.node.towers.links.clear()


async def with_book(world):
    await world.open()
    await world.taker.call("policy_set", peer="maker", auto_accept=True)
    done = await world.maker.call("trade", channel="taker", legs=[CALL])
    assert done["status"] == "done", done


async def test_the_peer_cheats_while_we_are_away_and_the_tower_saves_us(tmp_path):
    async with desks_with_a_tower(tmp_path) as (world, tower_of):
        maker, taker = world.maker, world.taker
        async with tower_of() as tower:
            await with_book(world)
            old = only_actor(maker).state.version
            # what the taker will want undone
            await taker.call("transfer", channel="maker", amount="40000")
            await maker.until(lambda: only_actor(maker).state.version == old + 1, "the payment")
            await current(maker)
            body = only_actor(maker).state.body
            await maker.node.stop()
            await without_tower(taker)
            await taker.call("challenge", channel="maker", version=old)
            await taker.until(lambda: world.status(taker, "disputed"), "the dispute")
            await taker.until(lambda: tower.health()["refuted"] == 1, "the refutation")
            assert tower.health()["slowest_blocks"] <= 3
            # the maker is back for its money only after the challenge period
            await world.rpc.advance(86_400 + 400)
        await maker.start()
        for desk in (maker, taker):
            await desk.until(lambda d=desk: world.status(d, "closed"), "the payment")
        await maker.until(lambda: events_of(maker, "settled"), "the event")
        (settled,) = await events_of(maker, "settled")
        at = settled["fix_time"]
        expected = settle_amounts(world.terms, body, {(ETH, at): 3000 * WAD}, at, DEPOSIT, DEPOSIT, 0, 0)
        money = await world.paid()
        assert (money["a"], money["b"]) == expected
        assert settled["version"] == old + 1


async def test_how_long_a_desk_may_be_away(tmp_path):
    async with desks_with_a_tower(tmp_path) as (world, tower_of):
        await world.open()
        maker, terms = world.maker, world.terms

        async def away():
            row = (await maker.call("channels"))[0]
            return row["safe_offline_until_ms"] // 1000 - world.clock.now_ms() // 1000, row["tower"]

        alone, covered = await away()
        assert (abs(alone - terms.challenge_period) <= 2, covered) == (True, False)
        async with tower_of():
            await current(maker)
            seconds, covered = await away()
            last = terms.challenge_period + terms.oracle.samples * terms.oracle.sample_gap + 3 * terms.oracle.grace
            assert covered
            assert last - 2 <= seconds <= last + terms.oracle.tick + 2
            # a book that leaves little room: a margin call would have to be cured
            await world.taker.call("policy_set", peer="maker", auto_accept=True)
            big = {"instrument": "ETH-PERP", "size": "900", "price": "3000"}
            assert (await maker.call("trade", channel="taker", legs=[big]))["status"] == "done"
            await current(maker)
            seconds, covered = await away()
            assert (abs(seconds - terms.cure_period) <= 2, covered) == (True, True)


async def test_a_tower_that_is_gone_is_an_alert_and_its_return_an_event(tmp_path):
    async with desks_with_a_tower(tmp_path, tower__stale_after=0.5) as (world, tower_of):
        maker = world.maker
        async with tower_of():
            await world.open()
            await current(maker)
            assert not await alerted(maker, "watchtower")
        await maker.until(lambda: alerted(maker, "has not answered"), "the alert")
        assert not maker.node.towers.refuting(only_actor(maker))
        await maker.call("transfer", channel="taker", amount="5")
        async with tower_of():
            await current(maker)
            await maker.until(lambda: events_of(maker, "tower_recovered"), "the event")
            (told,) = await maker.call("towers")
            assert told["channels"][0]["version"] == only_actor(maker).state.version


async def test_a_tower_that_has_lost_its_records_is_convicted_and_given_the_state_again(tmp_path):
    async with desks_with_a_tower(tmp_path) as (world, tower_of):
        maker = world.maker
        async with tower_of():
            await world.open()
            await current(maker)
        await world.taker.node.stop()
        # the same key, and nothing of what it gave receipts for
        async with tower_of("empty"):
            await maker.until(lambda: alerted(maker, "gave a receipt for version"), "the alert")
            ((_, raw),) = await maker.node.store.documents("tower_evidence")
            evidence = json.loads(raw)
            assert evidence["code"] == TowerBrokeItsWordError.code
            for which in ("earlier", "later"):
                receipt = receipt_from_json(evidence["details"][which])
                name = parse_tower(evidence["tower"])
                verify_receipt(only_actor(maker).channel.domain, receipt, name.address)
            await current(maker)


async def test_an_old_copy_of_the_records_is_found_out_by_the_tower_before_the_peer_is_asked(tmp_path):
    async with desks_with_a_tower(tmp_path) as (world, tower_of):
        maker, taker = world.maker, world.taker
        async with tower_of():
            await world.open()
            await maker.node.stop()
            shutil.copy(maker.folder / "channeld.db", tmp_path / "old.db")
            await maker.start()
            await maker.until(lambda: only_actor(maker).channel.synced, "the exchange")
            await maker.call("transfer", channel="taker", amount="7")
            await current(maker)
            newest = only_actor(maker).state.version
            await maker.node.stop()
            await taker.node.stop()
            # as if the whole directory were a copy: the mark beside the database is as old
            for name in ("channeld.db-wal", "channeld.db-shm", "high-water.json"):
                (maker.folder / name).unlink(missing_ok=True)
            shutil.copy(tmp_path / "old.db", maker.folder / "channeld.db")
            await maker.start()
            await maker.until(lambda: only_actor(maker).channel.lost, "the loss")
            await maker.until(lambda: alerted(maker, f"a watchtower shows version {newest}"), "the alert")
            assert maker.node.towers.shown == {only_actor(maker).id: newest}
            # held in the records' place: enough to refute with
            assert await maker.node.store.document("tower_shown", only_actor(maker).id.hex()) is not None
            # the peer is back, shows the body, and both go on above all that may have been signed
            world.taker.flags["peers.listen"] = f"127.0.0.1:{world.port}"
            await taker.start()
            await maker.until(lambda: only_actor(maker).state.version == newest, "what the peer shows")
            await world.advance(700)
            await maker.until(lambda: not only_actor(maker).channel.lost, "the recovery")
            assert only_actor(maker).state.version > newest + 2**32
            assert (await maker.call("transfer", channel="taker", amount="7"))["version"]
            await current(maker)


async def test_the_newest_state_is_brought_even_at_a_stop(tmp_path):
    async with desks_with_a_tower(tmp_path) as (world, tower_of):
        maker = world.maker
        async with tower_of() as tower:
            await world.open()
            await current(maker)
            await asyncio.gather(*(maker.call("transfer", channel="taker", amount="1") for _ in range(20)))
            version = only_actor(maker).state.version
            await without_tower(world.taker)
            await maker.node.stop()
            assert tower.ledger.channels[only_actor(maker).id].durable.version == version
            # what piled up was sent together
            assert tower.door.served < 60


@pytest.mark.parametrize("deadline", [0, 1])
async def test_the_fix_time_that_a_tower_covers_is_the_contracts(tmp_path, deadline):
    async with desks_with_a_tower(tmp_path) as (world, tower_of):
        maker = world.maker
        async with tower_of():
            await world.open()
            await current(maker)
            if deadline:
                await world.taker.call("challenge", channel="maker")
                await maker.until(lambda: world.status(maker, "disputed"), "the dispute")
                told = await maker.call("dispute", channel="taker")
                row = (await maker.call("channels"))[0]
                last = fix_time(world.terms, told["deadline"]) + 3 * world.terms.oracle.grace
                assert row["safe_offline_until_ms"] == last * 1000
