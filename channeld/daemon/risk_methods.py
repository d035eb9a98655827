"""The API's methods about risk: greeks, scenarios, profit explained, what a trade would do, limits and their use.

Rules: all of it is read; nothing is signed or changed. Greeks and scenarios are advisory floats, shown as plain
decimals; margin, what-if and limits are the integers that decide. Work that takes long runs in a thread, since the
peers' heartbeats must not wait for it.
"""

from __future__ import annotations

import asyncio
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from channeld.core.acceptance import valuation_time
from channeld.core.describe import leg_data
from channeld.core.errors import ChanneldError
from channeld.core.instruments import instrument_name
from channeld.core.operations import Trade
from channeld.core.state import MAX_FEED_EXPIRIES, MAX_POSITIONS
from channeld.core.terms import feed_symbol
from channeld.core.wad import WAD, format_decimal, parse_decimal
from channeld.daemon.parameters import BadParameterError, Json, Params, objects, take
from channeld.daemon.policy_settings import policy_data
from channeld.daemon.trading_methods import TradingMethods
from channeld.desk.compression import compression, gross
from channeld.desk.exposure import Explained, Exposure, Held, Moment, by_expiry, by_feed, exposures
from channeld.desk.profit import profit_report
from channeld.desk.what_if import what_if

if TYPE_CHECKING:
    from channeld.core.acceptance import Prices
    from channeld.core.margin import MarginReport
    from channeld.daemon.actor import Actor

MOST_INTERVALS = 10_000


def plain(number: float) -> str:
    """A float as a plain decimal of at most 12 places."""
    text = f"{number:.12f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def _floats(row: Exposure | Explained) -> dict[str, str]:
    return {f.name: plain(getattr(row, f.name)) for f in fields(row)}


class RiskMethods(TradingMethods):
    """What a risk manager asks."""

    def _open(self) -> list[Actor]:
        return [actor for actor in self.node.actors.values() if actor.record.status != "closed"]

    async def greeks(self, params: Params) -> Json:
        """Greeks per position, expiry, channel and desk, at the newest prints."""
        positions, expiries, channels = [], [], []
        everything: list[tuple[Held, Exposure]] = []
        for actor in [self._actor(params)] if params.get("channel") is not None else self._open():
            prices = await self._prices(actor)
            held = [Held.of(p, actor.channel.side) for p in actor.state.body.positions]
            rows = exposures(held, prices.spots, valuation_time(actor.channel.terms, prices.time))
            everything += rows
            name = "0x" + actor.id.hex()
            positions += [
                {
                    "channel": name,
                    "instrument": instrument_name(h.instrument),
                    "size": format_decimal(h.size),
                    **_floats(e),
                }
                for h, e in rows
            ]
            expiries += [
                {"channel": name, "feed": feed_symbol(feed), "expiry_ms": expiry * 1000 or None, **_floats(e)}
                for (feed, expiry), e in by_expiry(rows).items()
            ]
            channels += [{"channel": name, "feed": feed_symbol(f), **_floats(e)} for f, e in by_feed(rows).items()]
        return {
            "positions": positions,
            "expiries": expiries,
            "channels": channels,
            "desk": [{"feed": feed_symbol(feed), **_floats(e)} for feed, e in by_feed(everything).items()],
        }

    async def scenario(self, params: Params) -> Json:
        """What the desk gains in every pair of relative spot and vol moves, some days from now."""
        spot_moves = _moves(take(params, "spot_moves", list), "spot_moves")
        vol_moves = _moves(take(params, "vol_moves", list, ["0"]), "vol_moves")
        days = _fraction(take(params, "days", str, "0"), "days")
        books = []
        for actor in [self._actor(params)] if params.get("channel") is not None else self._open():
            prices = await self._prices(actor)
            t = valuation_time(actor.channel.terms, prices.time)
            live = [p for p in actor.state.body.positions if not p.instrument.expiry or p.instrument.expiry > t]
            books.append((live, prices.spots, t, actor.channel.side))
        from channeld.desk.scenarios import scenario_table  # noqa: PLC0415 - it loads numpy

        return await asyncio.to_thread(scenario_table, books, spot_moves, vol_moves, days)

    async def profit(self, params: Params) -> Json:
        """Where the profit of the last MARK intervals came from, up to now."""
        actor = self._actor(params)
        intervals = take(params, "intervals", int, 1)
        if not 1 <= intervals <= MOST_INTERVALS:
            raise BadParameterError(f"'intervals' must be 1 to {MOST_INTERVALS}")
        prices = await self._prices(actor)
        terms, side = actor.channel.terms, actor.channel.side
        records = await self.node.store.batches(actor.id, 0, actor.state.version)
        batches = [(record.version, record.raw) for record in records]
        now = Moment(valuation_time(terms, prices.time), prices.spots, prices.fixes)
        report = await asyncio.to_thread(profit_report, terms, actor.id, side, batches, now, intervals)
        return {
            "from": report.start,
            "to": report.end,
            "intervals": report.intervals,
            "rows": [{"instrument": instrument_name(i), **_floats(row)} for i, row in report.rows.items()],
            "total": _floats(report.total),
        }

    async def what_if(self, params: Params) -> Json:
        """What a trade would do, at our own prices: both sides' figures, the last unit's cost, the largest size."""
        actor = self._actor(params)
        side = actor.channel.side
        fee = parse_decimal(take(params, "fee", str, "0"), actor.channel.terms.decimals)
        given = objects(take(params, "legs", list), "legs")
        legs = await self._legs(actor, given)
        return await self._would(actor, Trade(side, legs, -fee if side else fee))

    async def _would(self, actor: Actor, trade: Trade) -> dict[str, Json]:
        terms, side, legs = actor.channel.terms, actor.channel.side, trade.legs
        now = max(self.node.clock.now_ms(), actor.last_time_ms)
        prices = await actor.book.prices(terms, actor.channel.tip.body, now)
        found = await asyncio.to_thread(what_if, terms, actor.channel.tip, trade, prices, now, actor.own.surface)
        refusal = found.outcome.refusal
        return {
            "us": "ab"[side],
            "legs": [leg_data(leg, side) for leg in legs],
            "refused": None if refusal is None else {"code": refusal.code, "reason": str(refusal)},
            "before": _both(found.before),
            "after": None if found.outcome.reports is None else _both(found.outcome.reports),
            "last_unit": None
            if found.last_unit is None
            else {
                name: dict(
                    zip(("equity", "initial_margin", "maintenance_margin"), map(format_decimal, one), strict=True)
                )
                for name, one in zip("ab", found.last_unit, strict=True)
            },
            "largest": [leg_data(leg, side) for leg in found.largest],
        }

    async def compression(self, params: Params) -> Json:
        """What can be closed at our own values without changing what either party stands to gain or lose."""
        actor = self._actor(params)
        body, side = actor.channel.tip.body, actor.channel.side
        legs = compression(body, await self._prices(actor))
        sizes = {leg.instrument: leg.size_delta for leg in legs}
        after = sum(abs(p.size + sizes.get(p.instrument, 0)) for p in body.positions)
        told = {"gross_now": format_decimal(gross(body.positions)), "gross_after": format_decimal(after)}
        if not legs:
            return {"us": "ab"[side], "legs": [], **told, "refused": None, "before": None, "after": None}
        would = await self._would(actor, Trade(side, legs))
        return {**{key: would[key] for key in ("us", "legs", "refused", "before", "after")}, **told}

    async def limits(self, params: Params) -> Json:
        """Policy limits and how much of each is used; margin, oracle and protocol limits beside them."""
        rows = []
        for actor in [self._actor(params)] if params.get("channel") is not None else self._open():
            prices = await self._prices(actor)
            rows.append(self._limits_row(actor, prices))
        return rows

    def _limits_row(self, actor: Actor, prices: Prices) -> dict[str, Any]:
        terms, side, body = actor.channel.terms, actor.channel.side, actor.state.body
        report = self._reports(actor, prices)[side]
        held = [Held.of(p, side) for p in body.positions]
        known = [h for h in held if h.instrument.feed in prices.spots]
        greeks = [e for _, e in exposures(known, prices.spots, valuation_time(terms, prices.time))]
        notional = sum(abs(h.size) * prices.spots[h.instrument.feed] // WAD for h in known)
        balance = body.account(side).balance
        return {
            "channel": "0x" + actor.id.hex(),
            "peer": self.node.name(actor.peer),
            "policy": policy_data(actor.policy),
            "use": {
                "notional": format_decimal(notional),
                "vega": plain(sum(e.vega for e in greeks)),
                "positions": len(body.positions),
                "most_positions": MAX_POSITIONS,
                "expiries": len({(h.instrument.feed, h.instrument.expiry) for h in held}),
                "most_expiries": MAX_FEED_EXPIRIES,
            },
            "margin": {**_side(report), "used": _ratio(report.initial, report.equity)},
            "unsettled": {
                "profit": format_decimal(report.profit),
                "of_balance": _ratio(abs(report.profit_units), balance),
            },
            "oracle": [
                {
                    "feed": feed_symbol(feed),
                    "age_s": prices.time - prices.printed[feed] if feed in prices.printed else None,
                    "max_age_s": terms.oracle.max_age,
                }
                for feed in terms.feeds
            ],
        }


def _ratio(used: int, of: int) -> str | None:
    """A share as a decimal to four places, rounded up; None of nothing."""
    return None if of <= 0 else format_decimal(-(-used * 10_000 // of), 4)


def _side(report: MarginReport) -> dict[str, str]:
    return {
        "equity": format_decimal(report.equity),
        "initial_margin": format_decimal(report.initial),
        "maintenance_margin": format_decimal(report.maintenance),
        "free": format_decimal(report.free),
    }


def _both(reports: tuple[MarginReport, MarginReport]) -> dict[str, Json]:
    return {
        name: {
            **_side(report),
            "worst": [
                {
                    "market": feed_symbol(market.feed),
                    "scenario": market.scenarios[market.worst].scenario.label,
                    "loss": format_decimal(market.scan_risk),
                }
                for market in report.markets
            ],
        }
        for name, report in zip("ab", reports, strict=True)
    }


def _fraction(text: Json, name: str) -> float:
    if not isinstance(text, str):
        raise BadParameterError(f"{name!r} must hold decimal texts such as -0.1")
    try:
        return parse_decimal(text) / WAD
    except ChanneldError as error:
        raise BadParameterError(f"{name!r} must hold decimal texts such as -0.1: {error}") from error


def _moves(given: list[Json], name: str) -> list[float]:
    if not given:
        raise BadParameterError(f"{name!r} must not be empty")
    return [_fraction(one, name) for one in given]
