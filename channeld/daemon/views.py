"""What the daemon shows: channels, positions, events of a co-signed state, all from this desk's own side.

Rules: decimal strings for amounts, prices and sizes; milliseconds for times; nothing here changes anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from channeld.core.acceptance import valuation_time
from channeld.core.channel import waiting_for
from channeld.core.describe import legs_data, margin_data, operation_data
from channeld.core.files import body_to_json, terms_to_json
from channeld.core.instruments import instrument_name
from channeld.core.operations import Mark, Trade, Transfer, decode_batch
from channeld.core.state import Kind
from channeld.core.terms import feed_symbol
from channeld.core.transition import is_expired
from channeld.core.valuation import funding, position_profit, to_units, value_position
from channeld.core.wad import format_decimal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from channeld.core import records
    from channeld.core.acceptance import Prices
    from channeld.core.channel import Channel
    from channeld.core.margin import MarginReport
    from channeld.core.state import Body, Position
    from channeld.core.transition import Applied, SettledPosition
    from channeld.daemon.actor import Actor
    from channeld.daemon.chain_desk import ChainDesk


def describe_agreed(channel: Channel, before: Body, applied: Applied) -> Iterator[tuple[str, dict[str, Any]]]:
    """The events of a co-signed state: (kind, data) each."""
    side, terms = channel.side, channel.terms
    after = applied.state.body
    cash = after.account(side).balance - before.account(side).balance
    shared = {"version": applied.state.version, "cash": format_decimal(cash, terms.decimals)}
    for operation in applied.batch.operations:
        data = operation_data(operation, side, terms.decimals)
        match operation:
            case Trade():
                yield "trade_done", {**shared, **data}
            case Mark():
                prices = {p.instrument.feed: p.mark for p in after.positions if p.instrument.kind == Kind.PERPETUAL}
                yield (
                    "mark_done",
                    {
                        **shared,
                        "as_of": operation.time,
                        "perpetual_marks": {feed_symbol(f): format_decimal(m) for f, m in prices.items()},
                        "funding": _funding(channel, before, operation.time, after.collateral_mark),
                    },
                )
                for settled in applied.settled:
                    yield "expired_settled", {"version": applied.state.version, **settled_data(settled, side)}
            case Transfer():
                yield "transfer_done", {**shared, **data}
            case _:
                yield f"{data['operation'].lower()}_done", {**shared, **data}


def describe_signed(applied: Applied) -> tuple[str, dict[str, Any]]:
    """The event that a state is co-signed."""
    operations, as_of = len(applied.batch.operations), applied.state.body.as_of
    return "state_signed", {"version": applied.state.version, "operations": operations, "as_of": as_of}


def describe_many(channel: Channel, before: Body, many: Sequence[Applied]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The one event of many states that became durable together: which, and what they came to. The journal has each."""
    if not many:
        return
    first, last = many[0].state.version, many[-1].state.version
    side, after = channel.side, many[-1].state.body
    cash = after.account(side).balance - before.account(side).balance
    operations = [op for applied in many for op in applied.batch.operations]
    trades = sum(1 for op in operations if isinstance(op, Trade))
    yield (
        "states_signed",
        {
            "first": first,
            "version": last,
            "states": len(many),
            "operations": len(operations),
            "trades": trades,
            "cash": format_decimal(cash, channel.terms.decimals),
            "as_of": after.as_of,
        },
    )


def _funding(channel: Channel, before: Body, time: int, collateral_mark: int) -> str:
    """What this side received in funding at a MARK, whole collateral; negative where it paid."""
    elapsed = max(0, time - before.as_of)
    paid_by_a = sum(
        funding(p.size, p.mark, p.carry, elapsed) for p in before.positions if p.instrument.kind == Kind.PERPETUAL
    )
    units = to_units(paid_by_a, channel.terms, collateral_mark)
    return format_decimal(units if channel.side else -units, channel.terms.decimals)


def settled_data(settled: SettledPosition, side: int) -> dict[str, Any]:
    """An expired position as this side sees it."""
    sign = -1 if side else 1
    return {
        "instrument": instrument_name(settled.instrument),
        "size": format_decimal(sign * settled.size),
        "mark": format_decimal(settled.mark),
        "fix": format_decimal(settled.fix) if settled.fix is not None else None,
        "settled_gain": format_decimal(sign * settled.payoff, places=6),
        "flagged": settled.flagged,
    }


def channel_row(actor: Actor, chain: ChainDesk, peer_name: str) -> dict[str, Any]:
    """A line of the list of channels."""
    channel = actor.channel
    body, decimals = actor.state.body, channel.terms.decimals
    known = chain.known.get(actor.id)
    record = known.record if known else None
    return {
        "channel": "0x" + actor.id.hex(),
        "peer": peer_name,
        "side": "ab"[channel.side],
        "status": "closing" if channel.closing and actor.record.status == "open" else actor.record.status,
        "version": actor.state.version,
        "balance": format_decimal(body.account(channel.side).balance, decimals),
        "peer_balance": format_decimal(body.account(1 - channel.side).balance, decimals),
        "sequencer": "us" if channel.sequencer else "peer",
        "positions": len(body.positions),
        "deposited_on_chain": format_decimal(
            (record.deposited_b if channel.side else record.deposited_a) if record else 0, decimals
        ),
        "waits_for": waiting_for(channel),
    }


def channel_data(actor: Actor, chain: ChainDesk, peer_name: str) -> dict[str, Any]:
    """Everything about a channel."""
    channel, latest = actor.channel, actor.channel.latest
    known = chain.known.get(actor.id)
    record, dispute = (known.record, known.dispute) if known else (None, None)
    return {
        **channel_row(actor, chain, peer_name),
        "terms": terms_to_json(channel.terms),
        "chain_id": channel.domain.chain_id,
        "adjudicator": "0x" + channel.domain.adjudicator.hex(),
        "body": body_to_json(latest.state.body),
        "body_hash": "0x" + latest.body_hash.hex(),
        "signature_a": "0x" + latest.signature_a.hex(),
        "signature_b": "0x" + latest.signature_b.hex(),
        "pending": [half.version for half in channel.proposals],
        "frozen": channel.frozen,
        "chain": None
        if record is None
        else {
            "phase": record.phase.name.lower(),
            "deposited_a": str(record.deposited_a),
            "deposited_b": str(record.deposited_b),
            "paid_a": str(record.paid_a),
            "paid_b": str(record.paid_b),
            "floor_version": record.floor_version,
        },
        "dispute": None
        if dispute is None or dispute.number == 0
        else {"number": dispute.number, "version": dispute.version, "deadline": dispute.deadline},
    }


def position_data(actor: Actor, position: Position, prices: Prices) -> dict[str, Any]:
    """A position as this side holds it, with its value and profit since the mark at the newest prints."""
    sign = -1 if actor.channel.side else 1
    i, body = position.instrument, actor.state.body
    spot = prices.fixes.get((i.feed, i.expiry)) if is_expired(i, prices.time) else prices.spots.get(i.feed)
    value = value_position(position, spot, prices.time) if spot is not None else None
    gain = position_profit(position, spot, body.as_of, prices.time)
    return {
        "channel": "0x" + actor.id.hex(),
        "instrument": instrument_name(i),
        "size": format_decimal(sign * position.size),
        "mark": format_decimal(position.mark, places=4),
        "value_now": format_decimal(value, places=4) if value is not None else None,
        "profit_now": format_decimal(sign * gain, places=4),
        "vol": format_decimal(position.vol) if i.is_option else None,
        "carry": format_decimal(position.carry),
        "expiry_ms": i.expiry * 1000 or None,
    }


def margins_data(reports: tuple[MarginReport, MarginReport], actor: Actor, prices: Prices) -> dict[str, Any]:
    """Both parties' margin, leg by leg."""
    terms, body = actor.channel.terms, actor.state.body
    t = valuation_time(terms, prices.time)
    return {
        "time": prices.time,
        "us": "ab"[actor.channel.side],
        "prices": {feed_symbol(feed): format_decimal(price) for feed, price in prices.spots.items()},
        **{
            name: margin_data(report, terms.decimals, legs_data(terms, body, report, t))
            for name, report in zip("ab", reports, strict=True)
        },
    }


def journal_row(batch: records.BatchRecord, side: int, decimals: int, balances: tuple[int, int]) -> dict[str, Any]:
    """A batch of the journal, decoded."""
    decoded = decode_batch(batch.raw)
    return {
        "version": batch.version,
        "batch": "0x" + batch.raw.hex(),
        "time_ms": decoded.time_ms,
        "operations": [operation_data(op, side, decimals) for op in decoded.operations],
        "balances": {name: format_decimal(b, decimals) for name, b in zip("ab", balances, strict=True)},
    }
