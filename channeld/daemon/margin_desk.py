"""Margin at work in each channel: who stands where, calls issued, answered and followed, and what follows of a default.

Rules: desk/margin_calls.py has the machine; here are its inputs, the records and the acts. A call's new state is
durable before it is told or acted on. Figures are this desk's own, at its own newest prints, with every deposit that is
on chain; without a print of every feed of the book, no older than the terms' maxAge, nothing is judged. What ends a
channel or moves collateral by itself does so within [margin] of the configuration, and by default not at all.
A peer below maintenance margin has its call first; nothing is waited for where it owes more than it has.
"""

from __future__ import annotations

import datetime as dt
import json
import secrets
from typing import TYPE_CHECKING

import structlog

from channeld.chain.contracts import Phase, Token
from channeld.core import records, wire
from channeld.core.channel import waiting_for
from channeld.core.errors import ChanneldError, OracleError
from channeld.core.margin import MissingPriceError
from channeld.core.operations import Withdraw
from channeld.core.wad import DAY, WAD, format_decimal, parse_decimal
from channeld.desk.margin_calls import (
    Call,
    CallState,
    CallTerms,
    UnknownCallError,
    answer,
    check_received,
    delivery_amount,
    excess,
    from_data,
    issue,
    observe,
    return_amount,
    shortfall,
    standings,
    to_data,
    undelivered,
)

if TYPE_CHECKING:
    from channeld.core.acceptance import Prices
    from channeld.core.state import Body
    from channeld.daemon.actor import Actor
    from channeld.daemon.margin_settings import Margin
    from channeld.daemon.node import Node
    from channeld.desk.margin_calls import Standing

log = structlog.get_logger(__name__)

CALL, TOP_UP = "margin_call", "top_up"
MOST_KEPT = 200
LOOK_MS = 2_000
TOP_UP_SETTLES_MS = 600_000
SWEEP_MS = 3_600_000
MOST_OPEN_OF_PEER = 4
INSOLVENT = "default"

Pair = tuple["Standing", "Standing"]


def _utc(second: int) -> str:
    return dt.datetime.fromtimestamp(second, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


class MarginDesk:
    """The margin of all channels of one node."""

    def __init__(self, node: Node) -> None:
        """Nothing is known before `load`."""
        self._node = node
        self.calls: dict[bytes, dict[bytes, Call]] = {}
        self._spent: dict[tuple[bytes, int], int] = {}
        self._looked_ms: dict[bytes, int] = {}
        self._expected: dict[bytes, tuple[int, int]] = {}
        self._judged: dict[bytes, tuple[object, ...]] = {}
        self._swept_ms: dict[bytes, int] = {}
        self._told: set[tuple[bytes, str]] = set()

    @property
    def settings(self) -> Margin:
        """[margin] of the configuration."""
        return self._node.config.margin

    def calling(self, actor: Actor) -> CallTerms:
        """The desk's terms of calling, in units of the channel's collateral."""
        terms, settings = actor.channel.terms, self.settings
        threshold, minimum, rounding = (
            parse_decimal(text, terms.decimals)
            for text in (settings.threshold, settings.minimum_transfer, settings.rounding)
        )
        return CallTerms(threshold, minimum, max(1, rounding), int(settings.call_window))

    async def load(self) -> None:
        """Read the calls and what was deposited by itself."""
        store = self._node.store
        for key, raw in await store.documents(CALL):
            channel, call_id = (bytes.fromhex(part) for part in key.split("/"))
            self.calls.setdefault(channel, {})[call_id] = from_data(json.loads(raw))
        for key, raw in await store.documents(TOP_UP):
            channel_text, day = key.split("/")
            spent, expected, since_ms = (int(number) for number in raw.split())
            identifier = bytes.fromhex(channel_text)
            self._spent[identifier, int(day)] = spent
            # one that may still be waiting to be mined is not sent a second time
            if since_ms > self._expected.get(identifier, (0, 0))[1]:
                self._expected[identifier] = expected, since_ms

    # ------------------------------------------------------------------------------------------------- figures

    def on_chain(self, actor: Actor, body: Body) -> tuple[tuple[int, int], tuple[int, int]]:
        """Deposits and payments of a and b on chain, units; what the body says where the chain is not read yet."""
        known = self._node.chain.known.get(actor.id)
        record = known.record if known else None
        if record is None:
            return (body.a.deposited, body.b.deposited), (body.a.withdrawn, body.b.withdrawn)
        deposited = max(record.deposited_a, body.a.deposited), max(record.deposited_b, body.b.deposited)
        return deposited, (record.paid_a, record.paid_b)

    async def prices(self, actor: Actor, body: Body, now_ms: int) -> Prices | None:
        """Our own prices where every feed of the book has a print no older than maxAge; else None."""
        terms = actor.channel.terms
        prices = await actor.book.prices(terms, body, now_ms)
        feeds = {p.instrument.feed for p in body.positions}
        oldest = now_ms // 1000 - terms.oracle.max_age
        if any(prices.printed.get(feed, 0) < oldest for feed in feeds):
            return None
        return prices

    def pair(self, actor: Actor, body: Body, prices: Prices) -> Pair:
        """Where both parties stand. Raises MissingPriceError."""
        deposited, paid = self.on_chain(actor, body)
        return standings(actor.channel.terms, body, prices, deposited, paid)

    # ------------------------------------------------------------------------------------------------- looking

    async def look(self, actor: Actor, now_ms: int) -> None:
        """One look at a channel: at most one in two seconds of the desk's clock."""
        last = self._looked_ms.get(actor.id, 0)
        if last <= now_ms < last + LOOK_MS:
            return
        known = self._node.chain.known.get(actor.id)
        if known is None or known.record is None:
            return
        self._looked_ms[actor.id] = now_ms
        if known.phase is Phase.OPEN:
            await self._open(actor, now_ms)
        elif known.phase is Phase.DISPUTED:
            await self._node.defence.look(actor, now_ms)

    async def _open(self, actor: Actor, now_ms: int) -> None:
        body, side = actor.state.body, actor.channel.side
        if not body.positions and not self.open_calls(actor):
            return
        prices = await self.prices(actor, body, now_ms)
        if prices is None:
            return
        deposited, _ = self.on_chain(actor, body)
        # eighteen scenarios cost milliseconds: once for each state, print and deposit, and while a call is open
        judged = (actor.state.version, tuple(sorted(prices.printed.items())), deposited)
        if judged == self._judged.get(actor.id) and not self.open_calls(actor):
            return
        try:
            pair = self.pair(actor, body, prices)
        except MissingPriceError:
            return
        self._judged[actor.id] = judged
        await self._warn(actor, pair)
        for call in self.open_calls(actor):
            after = observe(call, pair[call.side], deposited[call.side], now_ms // 1000)
            await self._move(actor, call, after)
        await self._call(actor, pair[1 - side], prices, deposited[1 - side], now_ms)
        for call in self.open_calls(actor):
            if not call.ours:
                await self._meet(actor, call, now_ms)
        await self._sweep(actor, pair[side], prices, now_ms)

    async def _warn(self, actor: Actor, pair: Pair) -> None:
        """Alerts when a party's margin grows thin, and when it is lacking."""
        ours, peer = pair[actor.channel.side], pair[1 - actor.channel.side]
        name = self._node.name(actor.peer)
        for who, standing in (("our", ours), (f"{name}'s", peer)):
            figures = (
                f"{who} equity {format_decimal(standing.equity, places=2)} is below {{}} margin {{}}; "
                f"maintenance {format_decimal(standing.maintenance, places=2)}, "
                f"initial {format_decimal(standing.initial, places=2)}"
            )
            initial, maintenance = (format_decimal(x, places=2) for x in (standing.initial, standing.maintenance))
            await self._once(
                actor, f"thin {standing.side}", holds=standing.thin, message=figures.format("initial", initial)
            )
            await self._once(
                actor,
                f"below {standing.side}",
                holds=standing.below,
                severity="critical",
                message=figures.format("maintenance", maintenance),
            )

    async def once(self, actor: Actor, what: str, *, message: str) -> None:
        """A critical alert, once for each `what`."""
        await self._once(actor, what, holds=True, severity="critical", message=message)

    async def _once(
        self, actor: Actor, what: str, *, holds: bool, message: str, severity: str = "warning", kind: str = ""
    ) -> None:
        key = (actor.id, what)
        if not holds:
            self._told.discard(key)
        elif key not in self._told:
            self._told.add(key)
            kind = kind or ("margin_warning" if severity == "warning" else "margin_lacking")
            await self._node.emit(kind, actor.id, message=message)
            await self._node.emit("alert", actor.id, severity=severity, cause=what, message=message)

    # ------------------------------------------------------------------------------------------------- calls

    def open_calls(self, actor: Actor) -> list[Call]:
        """The calls of a channel that are not over."""
        return [call for call in self.calls.get(actor.id, {}).values() if call.open]

    def find(self, call_id: str) -> tuple[bytes, Call]:
        """The channel and the call of an id (hexadecimal).

        Raises:
            UnknownCallError: there is none.
        """
        for channel, calls in self.calls.items():
            for call in calls.values():
                if call.id.hex() == call_id:
                    return channel, call
        raise UnknownCallError(f"there is no margin call {call_id[:32]!r}")

    async def _keep(self, actor: Actor, call: Call) -> None:
        kept = self.calls.setdefault(actor.id, {})
        writes: list[records.Write] = [
            records.PutDocument(CALL, f"{actor.id.hex()}/{call.id.hex()}", json.dumps(to_data(call)).encode())
        ]
        over = sorted((c for c in kept.values() if not c.open and c.id != call.id), key=lambda c: c.issued)
        for old in over[: max(0, len(kept) - MOST_KEPT)]:
            writes.append(records.DropDocument(CALL, f"{actor.id.hex()}/{old.id.hex()}"))
            del kept[old.id]
        await self._node.store.commit(writes)
        kept[call.id] = call

    async def _move(self, actor: Actor, before: Call, after: Call) -> None:
        """Keep a call's new state, and tell it."""
        if after == before:
            return
        await self._keep(actor, after)
        if after.state is not before.state:
            await self.tell(actor, after)

    async def tell(self, actor: Actor, call: Call) -> None:
        """The event of a call's new state; an alert where somebody must act."""
        decimals = actor.channel.terms.decimals
        name = self._node.name(actor.peer)
        amount = format_decimal(call.amount, decimals)
        who = f"{name} is called" if call.ours else f"{name} calls us"
        shown = {**to_data(call), "amount": amount, "party": "peer" if call.ours else "us"}
        shown["agreed"] = format_decimal(call.agreed, decimals)
        shown["delivered"] = format_decimal(call.delivered, decimals)
        for figure in ("equity", "maintenance", "initial"):
            shown[figure] = format_decimal(getattr(call, figure), places=2)
        shown.pop("baseline")
        await self._node.emit("margin_call", actor.id, **shown)
        if call.state is CallState.ISSUED or call.state is CallState.EXPIRED:
            message = f"{who} for {amount} until {_utc(call.deadline)}: {call.state}. {call.reason}".strip()
            await self._node.emit("alert", actor.id, severity="critical", cause="margin call", message=message)

    async def _call(self, actor: Actor, peer: Standing, prices: Prices, deposited: int, now_ms: int) -> None:
        """Call the peer's margin, or go on where a call was not met."""
        if peer.insolvent:
            await self.default(actor, INSOLVENT, "it owes more than its whole balance at the newest prices")
            return
        self._told.discard((actor.id, INSOLVENT))
        if not peer.below:
            return
        now = now_ms // 1000
        mine = [c for c in self.calls.get(actor.id, {}).values() if c.ours]
        if any(call.open for call in mine):
            await self._propose_halfway(actor, next(call for call in mine if call.open), now)
            return
        last = max(mine, key=lambda c: c.issued, default=None)
        if last is not None and last.state is CallState.EXPIRED:
            why = f"the margin call of {_utc(last.issued)} was not met by {_utc(last.deadline)}"
            await self.default(actor, f"default {last.id.hex()}", why)
            if self.settings.auto_call == "call" or now < last.deadline + int(self.settings.call_window):
                return
        call = issue(
            actor.channel.terms,
            peer,
            prices,
            self.calling(actor),
            call_id=secrets.token_bytes(16),
            version=actor.state.version,
            baseline=deposited,
        )
        if call is None:
            return
        await self._keep(actor, call)
        await self.tell(actor, call)
        await self._send(actor, call)

    async def _send(self, actor: Actor, call: Call) -> None:
        figures = wire.pack_figures(call.amount, call.equity, call.maintenance, call.initial)
        notice = wire.MarginNotice(actor.id, call.id, call.version, call.as_of, call.deadline, figures)
        await self._node.send(actor.peer, notice)

    async def resend(self, actor: Actor) -> None:
        """At a new session: calls of ours that have no answer. Whoever has them already answers once more."""
        for call in self.open_calls(actor):
            if call.ours and call.state is CallState.ISSUED:
                await self._send(actor, call)

    async def _propose_halfway(self, actor: Actor, call: Call, now: int) -> None:
        """A partial close-out by agreement comes first: proposed once, when half of the call's time has passed."""
        if self.settings.reductions == "off" or call.delivered or now < (call.issued + call.deadline) // 2:
            return
        await self._node.reductions.propose(actor, call)

    # ------------------------------------------------------------------------------------------------- the peer's

    async def received(self, actor: Actor, message: wire.MarginNotice | wire.MarginAnswer) -> None:
        """A call of the peer's, or its answer to one of ours. One that makes no sense is told so, and changes nothing.

        Raises:
            StoreError: it could not be kept.
        """
        if isinstance(message, wire.MarginAnswer):
            await self._answered(actor, message)
            return
        known = self.calls.get(actor.id, {}).get(message.call)
        if known is not None:
            if not known.ours:
                await self._reply(actor, known)
            return
        try:
            await self._called(actor, message)
        except OracleError:
            raise
        except ChanneldError as error:
            await self._node.send(actor.peer, wire.Failure(actor.id, error.code, str(error)[: wire.MAX_TEXT]))

    async def _called(self, actor: Actor, message: wire.MarginNotice) -> None:
        now_ms, side = self._node.clock.now_ms(), actor.channel.side
        amount, equity, maintenance, initial = wire.unpack_figures(message.figures)
        body = actor.state.body
        deposited, _ = self.on_chain(actor, body)
        call = Call(
            message.call,
            ours=False,
            side=side,
            version=message.version,
            as_of=message.as_of,
            issued=now_ms // 1000,
            deadline=message.deadline,
            amount=amount,
            equity=equity,
            maintenance=maintenance,
            initial=initial,
            baseline=deposited[side],
        )
        check_received(call, now_ms // 1000)
        if sum(not c.ours for c in self.open_calls(actor)) >= MOST_OPEN_OF_PEER:
            return
        await self._keep(actor, call)
        await self.tell(actor, call)
        await self._respond(actor, call, now_ms)

    async def _respond(self, actor: Actor, call: Call, now_ms: int) -> Call:
        """Answer a call by our own figures, as soon as we have any."""
        prices = await self.prices(actor, actor.state.body, now_ms)
        if prices is None or not call.open:
            return call
        own = shortfall(actor.channel.terms, self.pair(actor, actor.state.body, prices)[call.side], prices.collateral)
        # rounded as a call is, so that a difference of rounding alone is no dispute
        rounded = delivery_amount(own, CallTerms(rounding=self.calling(actor).rounding))
        answered = answer(call, rounded)
        await self._move(actor, call, answered)
        await self._reply(actor, answered)
        return answered

    async def _reply(self, actor: Actor, call: Call) -> None:
        if call.state is CallState.ISSUED:
            return
        prices = await self.prices(actor, actor.state.body, self._node.clock.now_ms())
        figures = (0, 0, 0)
        if prices is not None:
            own = self.pair(actor, actor.state.body, prices)[call.side]
            figures = (own.equity, own.maintenance, own.initial)
        await self._node.send(
            actor.peer, wire.MarginAnswer(actor.id, call.id, wire.pack_figures(call.agreed, *figures))
        )

    async def _answered(self, actor: Actor, message: wire.MarginAnswer) -> None:
        call = self.calls.get(actor.id, {}).get(message.call)
        if call is None or not call.ours or call.state is not CallState.ISSUED:
            return
        agreed, *_ = wire.unpack_figures(message.figures)
        await self._move(actor, call, answer(call, agreed))

    # ------------------------------------------------------------------------------------------------- meeting a call

    async def _meet(self, actor: Actor, call: Call, now_ms: int) -> None:
        """Answer what is not answered, then deliver the undisputed amount, or propose to reduce the book."""
        if call.state is CallState.ISSUED:
            call = await self._respond(actor, call, now_ms)
        wanted = undelivered(call)
        if wanted and not await self.top_up(actor, wanted, now_ms) and self.settings.reductions != "off":
            await self._node.reductions.propose(actor, call)

    async def top_up(self, actor: Actor, units: int, now_ms: int) -> bool:
        """Deposit `units` from the hot key, within the day's limit; whether it is done or on its way.

        All or nothing: part of what is lacking would follow the rest into a default.
        """
        terms, chain = actor.channel.terms, self._node.chain
        deposited = self.on_chain(actor, actor.state.body)[0][actor.channel.side]
        expected, since_ms = self._expected.get(actor.id, (0, 0))
        if deposited < expected and now_ms < since_ms + TOP_UP_SETTLES_MS:
            return True
        limit = parse_decimal(self.settings.top_up_limit, terms.decimals)
        day = now_ms // 1000 // DAY
        spent = self._spent.get((actor.id, day), 0)
        shown = format_decimal(units, terms.decimals)
        left = limit - spent
        refused = ""
        if units > left:
            refused = f"of today's limit {format_decimal(max(left, 0), terms.decimals)} is left"
        elif await Token(self._node.rpc, terms.collateral).balance_of(chain.transactions.address) < units:
            refused = "the hot key holds less"
        await self._once(
            actor,
            "no top-up",
            holds=bool(refused),
            severity="critical",
            kind="top_up_refused",
            message=f"{shown} of collateral are needed and not deposited by itself: {refused}",
        )
        if refused:
            return False
        self._spent[actor.id, day] = spent + units
        self._expected[actor.id] = (deposited + units, now_ms)
        # durable before it is sent: after a crash it counts as spent and as on its way
        kept = f"{spent + units} {deposited + units} {now_ms}".encode()
        await self._node.store.commit([records.PutDocument(TOP_UP, f"{actor.id.hex()}/{day}", kept)])
        await self._node.emit("top_up", actor.id, amount=shown)
        chain.start(actor.id, "top-up", self._deposit(actor, units, day))
        return True

    async def _deposit(self, actor: Actor, units: int, day: int) -> None:
        try:
            await self._node.chain.deposit(actor, units)
        except ChanneldError:
            # nothing went: it is tried again at the next look
            self._spent[actor.id, day] -= units
            self._expected.pop(actor.id, None)
            raise

    # ------------------------------------------------------------------------------------------------- sweeping

    async def _sweep(self, actor: Actor, ours: Standing, prices: Prices, now_ms: int) -> None:
        """Withdraw what exceeds the configured multiple of initial margin to the payout address."""
        terms, side = actor.channel.terms, actor.channel.side
        multiple = parse_decimal(self.settings.sweep_above)
        if not multiple or now_ms < self._swept_ms.get(actor.id, 0) + SWEEP_MS or self.open_calls(actor):
            return
        if waiting_for(actor.channel) or not actor.channel.synced:
            return
        keep = parse_decimal(self.settings.sweep_keep, terms.decimals)
        balance = actor.state.body.account(side).balance
        over = excess(terms, ours, prices.collateral, keep=max(multiple, WAD))
        units = return_amount(min(over, balance - keep), self.calling(actor))
        if units <= 0:
            return
        self._swept_ms[actor.id] = now_ms
        shown = format_decimal(units, terms.decimals)
        await self._node.emit("swept", actor.id, amount=shown)
        try:
            await self._node.operate(actor, Withdraw(side, units))
        except ChanneldError as error:
            log.warning("not swept", channel=actor.id.hex()[:8], amount=shown, code=error.code, why=str(error))

    # ------------------------------------------------------------------------------------------------- default

    async def mark_negative(self, actor: Actor) -> None:
        """A MARK would make a balance negative: whoever it is by our own figures is in default."""
        now_ms = self._node.clock.now_ms()
        prices = await self.prices(actor, actor.state.body, now_ms)
        if prices is not None and self.pair(actor, actor.state.body, prices)[1 - actor.channel.side].below:
            await self.default(actor, INSOLVENT, "a MARK would make its balance negative")

    async def default(self, actor: Actor, cause: str, why: str) -> None:
        """The peer is in default: call margin on chain by itself where that is configured, else tell a person."""
        by_itself = self.settings.auto_call == "call"
        name = self._node.name(actor.peer)
        doing = "margin is called on chain" if by_itself else "call margin on chain with `channeld calls enforce`"
        await self._once(
            actor,
            cause,
            holds=True,
            severity="critical",
            kind="default",
            message=f"{name} is in default: {why}; {doing}",
        )
        if by_itself and not self._node.chain.stale(actor.id):
            chain = self._node.chain
            chain.start(actor.id, "margin call", chain.disputes.call_margin(actor))
