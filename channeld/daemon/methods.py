"""The API's methods: what a desk can ask of its daemon. Named parameters, decimal strings, milliseconds.

Rules: a method checks its parameters by type and says which one is wrong; what it changes goes through the actor, the
store or the chain desk, which have the rules. `public/` methods need no token; `private/` ones do. The table is here,
with what concerns the desk and its records; channel_methods.py and trading_methods.py hold the rest.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from channeld import __version__
from channeld.core.crypto import checksum_address
from channeld.core.eip712 import body_hash
from channeld.core.errors import InputError
from channeld.core.files import address_from_text
from channeld.core.journal import replay
from channeld.core.state import genesis
from channeld.core.transition import apply
from channeld.core.wad import format_decimal
from channeld.daemon import views
from channeld.daemon.audit_pages import MOST_AUDITED, audit_page
from channeld.daemon.channel_methods import ChannelMethods
from channeld.daemon.doctor import examine, worst
from channeld.daemon.expiries import ExpiryMethods
from channeld.daemon.loading import journal_of
from channeld.daemon.margin_methods import MarginMethods
from channeld.daemon.operator_methods import OperatorMethods
from channeld.daemon.order_methods import OrderMethods
from channeld.daemon.parameters import BadParameterError, Json, Params, seconds, take
from channeld.daemon.quote_methods import QuoteMethods
from channeld.daemon.risk_methods import RiskMethods
from channeld.daemon.token_methods import TokenMethods, event_row
from channeld.transport.handshake import PROTOCOL_VERSION

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from channeld.core.records import BatchRecord
    from channeld.core.terms import Terms
    from channeld.daemon.node import Node

MAX_NAME = 64
MOST_EVENTS = 1_000


class UnknownMethodError(InputError):
    """There is no such method."""

    code = 1202
    advice = "The methods are listed in docs/api.md."


class Methods(
    TokenMethods,
    ChannelMethods,
    RiskMethods,
    MarginMethods,
    QuoteMethods,
    OrderMethods,
    ExpiryMethods,
    OperatorMethods,
):
    """All methods, by name."""

    def __init__(self, node: Node) -> None:
        """Bind to the node."""
        super().__init__(node)
        self.table: dict[str, Callable[[Params], Awaitable[Json]]] = {
            "public/time": self.time,
            "public/schema": self.schema,
            "private/status": self.status,
            "private/peer_add": self.peer_add,
            "private/peers": self.peers,
            "private/channel_propose": self.channel_propose,
            "private/channel_proposals": self.channel_proposals,
            "private/channel_accept": self.channel_accept,
            "private/channels": self.channels,
            "private/channel": self.channel,
            "private/deposit": self.deposit,
            "private/withdraw": self.withdraw,
            "private/close": self.close,
            "private/trade": self.trade,
            "private/offers": self.offers,
            "private/offer_accept": self.offer_accept,
            "private/offer_reject": self.offer_reject,
            "private/policy": self.policy,
            "private/policy_set": self.policy_set,
            "private/transfer": self.transfer,
            "private/mark": self.mark,
            "private/vols_set": self.vols_set,
            "private/surface_set": self.surface_set,
            "private/surface": self.surface,
            "private/positions": self.positions,
            "private/margin": self.margin,
            "private/what_if": self.what_if,
            "private/compression": self.compression,
            "private/greeks": self.greeks,
            "private/scenario": self.scenario,
            "private/profit": self.profit,
            "private/limits": self.limits,
            "private/journal": self.journal,
            "private/audit": self.audit,
            "private/audit_page": self.audit_page,
            "private/events": self.events,
            "private/towers": self.towers,
            "private/doctor": self.doctor,
            "private/challenge": self.challenge,
            "private/dispute": self.dispute,
            "private/calls": self.margin_calls,
            "private/expiries": self.expiries,
            "private/call_margin": self.call_margin,
            "private/resume": self.resume,
            "private/bundle": self.bundle,
            "private/subscribe": self.subscribe,
            "private/tokens": self.tokens,
            "private/token_create": self.token_create,
            "private/token_revoke": self.token_revoke,
            "private/shutdown": self.shutdown,
            **self.quote_table(),
            **self.order_table(),
            **self.operator_table(),
        }

    async def call(self, method: str, params: Params) -> Json:
        """The result of a method.

        Raises:
            ChanneldError: what is wrong, with its code.
        """
        function = self.table.get(method)
        if function is None:
            raise UnknownMethodError(f"there is no method {method[:MAX_NAME]!r}")
        return await function(params)

    # ------------------------------------------------------------------------------------------------- the desk

    async def time(self, _: Params) -> Json:
        """The desk's time and the chain's."""
        view = self.node.chain.view
        return {"time_ms": self.node.clock.now_ms(), "chain_time": view["time"], "block": view["block"]}

    async def status(self, _: Params) -> Json:
        """The desk at a glance."""
        node, view = self.node, self.node.chain.view
        deployed = node.chain.ready
        return {
            "name": node.config.desk.name,
            "address": checksum_address(node.signer.address),
            "payout": node.config.desk.payout,
            "version": __version__,
            "protocol": PROTOCOL_VERSION,
            "time_ms": node.clock.now_ms(),
            "chain": {
                "url": node.config.chain.urls[0],
                "chain_id": node.chain.deployment.chain_id if deployed else None,
                "adjudicator": checksum_address(node.chain.deployment.adjudicator) if deployed else None,
                "block": view["block"],
                "time": view["time"],
                "lag_s": max(0, node.clock.now_ms() // 1000 - view["time"]) if view["time"] else None,
                "trouble": node.chain_trouble or (node.chain.stale() if deployed else "no contracts yet"),
            },
            "peers": await self.peers({}),
            "channels": await self.channels({}),
            "alerts": list(node.alerts),
            "towers": node.towers.data(),
        }

    async def peer_add(self, params: Params) -> Json:
        """Allow a peer and connect to it."""
        name = take(params, "name", str)
        if not 1 <= len(name) <= MAX_NAME or name.startswith("0x") or name.strip() != name:
            raise BadParameterError(f"a peer's name has 1 to {MAX_NAME} characters, and does not begin with 0x")
        address = address_from_text(take(params, "address", str))
        if address == self.node.signer.address:
            raise BadParameterError("this is our own address; a peer has another")
        if any(p["name"] == name and a != address for a, p in self.node.peers.items()):
            raise BadParameterError(f"another peer is called {name!r} already")
        await self.node.add_peer(name, address, take(params, "url", str, ""))
        return {"name": name, "address": checksum_address(address), "connected": self.node.hub.connected(address)}

    async def peers(self, _: Params) -> Json:
        """All peers."""
        rows = []
        for address, peer in self.node.peers.items():
            error = self.node.hub.last_error(address)
            connected = self.node.hub.connected(address)
            row = {
                "name": peer["name"],
                "address": checksum_address(address),
                "url": peer["url"],
                "connected": connected,
            }
            rows.append({**row, "last_error": str(error) if error and not connected else ""})
        return rows

    async def towers(self, params: Params) -> Json:
        """The watchtowers: whether each is alive, and current for each channel."""
        if take(params, "check", bool, False):
            await self.node.towers.check()
        return self.node.towers.data()

    async def doctor(self, _: Params) -> Json:
        """What would hurt this desk on a bad day."""
        findings = await examine(self.node)
        return {"worst": worst(findings), "findings": [finding.as_data() for finding in findings]}

    async def shutdown(self, _: Params) -> Json:
        """Stop the daemon."""
        self.node.stopping.set()
        return {"status": "stopping"}

    # ------------------------------------------------------------------------------------------------- records

    async def journal(self, params: Params) -> Json:
        """Every batch, decoded, with the balances after it."""
        actor = self._actor(params)
        batches = await self.node.store.batches(actor.id)
        # in a thread: a long journal takes its time, and the peers' heartbeats must not wait for it
        return await asyncio.to_thread(_journal, actor.channel.terms, actor.id, actor.channel.side, batches)

    async def audit(self, params: Params) -> Json:
        """Replay every batch from version 0 and compare with what is co-signed."""
        actor = self._actor(params)
        async with actor.lock:
            # between inputs, so that what is co-signed in memory is durable too
            latest = actor.channel.latest
            start, batches = await journal_of(self.node.store, actor.id, latest.state.version)
        state = await asyncio.to_thread(replay, actor.channel.terms, actor.id, batches, start)
        hashed, decimals = body_hash(state.body), actor.channel.terms.decimals
        return {
            "replayed": hashed == latest.body_hash and state.version == latest.state.version,
            "versions": len(batches),
            "version": state.version,
            "replayed_from": start.version,
            "body_hash": "0x" + hashed.hex(),
            "expected": {
                "a": format_decimal(state.body.a.balance, decimals),
                "b": format_decimal(state.body.b.balance, decimals),
            },
        }

    async def audit_page(self, params: Params) -> Json:
        """A page of what an audit file is made of: the head, and for each version the batch and what both signed."""
        actor = self._actor(params)
        after, limit = take(params, "after", int, 0), take(params, "limit", int, MOST_AUDITED)
        until = take(params, "until", int, 0)
        async with actor.lock:
            # between inputs, so that what is co-signed in memory is durable too
            latest = actor.channel.latest
        last = min(until or latest.state.version, latest.state.version)
        return await audit_page(self.node.store, actor.channel, after, last, min(limit, MOST_AUDITED))

    async def events(self, params: Params) -> Json:
        """Events after a sequence number; waits for news where asked to."""
        since = take(params, "since", int, 0)
        wait_s = seconds(take(params, "wait_s", (int, float, str), 0.0))
        channel = self._actor(params).id if params.get("channel") is not None else None
        end = asyncio.get_running_loop().time() + wait_s
        while True:
            found = await self.node.store.events(since, MOST_EVENTS, channel)
            left = end - asyncio.get_running_loop().time()
            if found or left <= 0 or self.node.stopping.is_set():
                break
            # news of another channel, or none: it may have come while we read, so look often
            await self.node.news(min(left, 1.0))
        return {"next": found[-1].sequence if found else since, "events": [event_row(e) for e in found]}


def _journal(terms: Terms, channel: bytes, side: int, batches: tuple[BatchRecord, ...]) -> list[dict[str, Json]]:
    state, rows = genesis(channel), []
    for batch in batches:
        state = apply(terms, state, batch.raw, batch.version).state
        balances = (state.body.a.balance, state.body.b.balance)
        rows.append(views.journal_row(batch, side, terms.decimals, balances))
    return rows
