"""A desk that cheats its light peer: refused with a code, nothing changed, and the wallet's owner is not even asked."""

from __future__ import annotations

import secrets
from dataclasses import replace

from desk_world import BTC, ETH
from light_support import light_world

from channeld.core import wire
from channeld.core.channel import WINDOW, ProposeBatch
from channeld.core.crypto import sign_digest
from channeld.core.instruments import parse_instrument
from channeld.core.operations import Batch, Deposit, Leg, Mark, Trade, Transfer, Withdraw, encode_batch
from channeld.core.wad import WAD
from channeld.desk.marks import Material, Surface, build_mark
from channeld.desk.offers import Status, make_offer

PERP = parse_instrument("ETH-PERP")
TOKENS = 10**6


def batch(light, *operations):
    now = max(light.maker.node.clock.now_ms(), light.desk_actor.last_time_ms)
    return encode_batch(Batch(now, secrets.token_bytes(16), tuple(operations)))


async def propose(light, raw):
    """The desk signs and proposes a batch without any check of its own."""
    actor = light.desk_actor
    before = actor.state.version
    await actor.feed(ProposeBatch(raw))
    await light.maker.until(lambda: actor.state.version > before, "an answer")
    return actor.state.version - before


async def refused(light, peer, raw, code):
    """The proposal is rejected with this code, and the wallet is shown no state but the rejection's."""
    await light.level(peer)
    before, shown = peer.actor().state.body, len(light.owner.shown)
    assert await propose(light, raw) == WINDOW + 1
    told = [data["code"] for kind, data in peer.news if kind == "batch_refused"]
    assert told[-1] == code
    after = peer.actor().state.body
    assert (after.a, after.b, after.positions) == (before.a, before.b, before.positions)
    assert [one.kind for one in light.owner.shown[shown:]] == ["rejection"]


async def test_what_it_makes_up_is_refused(tmp_path):
    async with light_world(tmp_path) as light, light.peer() as peer:
        await light.opened(peer)
        cheats = {
            2215: Trade(0, (Leg(PERP, WAD, 3000 * WAD, 0, 0),), 0, b""),
            2214: Transfer(1, 5, b""),
            2216: Deposit(0, 250_001 * TOKENS, 250_000 * TOKENS),
        }
        for code, operation in cheats.items():
            await refused(light, peer, batch(light, operation), code)
        await refused(light, peer, batch(light, Withdraw(1, 5)), 2214)
        await peer.pay("1")


async def test_a_trade_beyond_margin_is_refused_even_where_the_owner_agreed(tmp_path):
    async with light_world(tmp_path) as light, light.peer() as peer:
        await light.opened(peer, "1000")
        trade = Trade(0, (Leg(PERP, 100 * WAD, 3000 * WAD, 0, 0),), 0, b"\1" * 16)
        offer = make_offer(trade, b"\2" * 16, peer.clock.now_ms() + 30_000)
        # as somebody would who looks at the price alone
        await peer.actor().offers.keep(type(offer)(offer.raw, ours=False, status=Status.AGREED))
        await refused(light, peer, batch(light, offer.operation), 2210)


async def test_a_mark_with_old_few_or_no_packages_is_refused(tmp_path):
    async with light_world(tmp_path) as light, light.peer() as peer:
        await light.opened(peer)
        for name, price in (("ETH-PERP", "3000"), ("BTC-PERP", "60000")):
            await peer.trade([{"instrument": name, "size": "1", "price": price}])
        await light.advance(20, peer)
        actor = light.desk_actor
        terms, body = actor.channel.terms, actor.state.body
        t = actor.book.latest_tick(light.maker.node.clock.now_ms())
        material = await actor.book.material(terms, body, t)

        def forged(prints):
            return build_mark(terms, body, t, Material(prints, {}), Surface(), 0)

        honest = forged(material.prints)
        await refused(light, peer, batch(light, forged({ETH: material.prints[ETH], BTC: ()})), 2212)
        await refused(light, peer, batch(light, forged({f: p[:2] for f, p in material.prints.items()})), 2212)
        await light.advance(120, peer)
        # the same MARK two minutes later: its packages are older than the terms' maxAge
        await refused(light, peer, batch(light, honest), 2213)
        assert isinstance(honest, Mark)
        await peer.pay("1")


async def test_a_bad_signature_ends_the_session_and_nothing_else(tmp_path):
    async with light_world(tmp_path) as light, light.peer() as peer:
        await light.opened(peer)
        for how in ("wrong key", "other state", "skipped version"):
            peer.news.clear()
            await bad_signature(light, peer, how)


async def bad_signature(light, peer, how):
    """A proposal whose signature, or version, cannot be."""
    actor, before = light.desk_actor, peer.actor().state
    key = secrets.token_bytes(32) if how == "wrong key" else light.maker.key
    raw = batch(light, Transfer(0, 5, b""))
    version = before.version + (200 if how == "skipped version" else 1)
    message = wire.Propose(actor.id, version, raw, sign_digest(key, secrets.token_bytes(32)))
    shown = len(light.owner.shown)
    await light.maker.node.send(light.wallet.address, message)
    await peer.until(lambda: any(kind == "peer_lost" for kind, _ in peer.news))
    await peer.until(lambda: not peer.status()["waits_for"])
    assert replace(peer.actor().state) == before
    assert {one.kind for one in light.owner.shown[shown:]} <= {"link"}
    await peer.pay("1")
    await light.level(peer)
