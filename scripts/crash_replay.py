"""Two desks live through a crash: when margin is called, whether collateral sufficed, how a liquidation ends.

    python scripts/crash_replay.py [--data ../shared/data/market] [--out DIR] [--write] [--json]

Rules: every state is made by the project's own transition from signed packages, every call by its own machine, and what
is paid at the end by the contract's twin (core/settlement.py). Prices and vols are the market's: minute bars of May
2021, sixteen snapshots of the whole ETH option chain of February 2026. What the files lack is said in docs/replay.md:
between snapshots spot and vols are interpolated; the vols of 2021 are realised ones. --out writes plots; --write puts
the tables into docs/replay.md.
"""  # noqa: INP001 - a script, no package

from __future__ import annotations

import argparse
import bisect
import csv
import datetime as dt
import json
import math
import sys
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from channeld.cli.terms_file import TEMPLATES
from channeld.core.acceptance import Prices
from channeld.core.crypto import address_of, keccak256
from channeld.core.eip712 import Domain, channel_id
from channeld.core.errors import InternalError
from channeld.core.operations import Batch, Deposit, Leg, Mark, Operation, Trade, encode_batch
from channeld.core.packages import DataPoint, sign_package
from channeld.core.settlement import (
    MarginCall,
    call_time,
    close_out,
    deciding,
    fix_time,
    fixes_needed,
    judge,
    settle_with_calls,
)
from channeld.core.state import Instrument, Kind, genesis
from channeld.core.terms import ZERO_FEED, Market, Oracle, Party, Terms, feed_id
from channeld.core.transition import apply
from channeld.core.wad import WAD, parse_decimal
from channeld.desk.bands import Bands
from channeld.desk.margin_calls import CallState, CallTerms, answer, issue, observe, standings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from channeld.core.state import State
    from channeld.desk.margin_calls import Call, Standing

ETH = feed_id("ETH")
KEYS = tuple(sorted((keccak256(b"replay oracle %d" % n) for n in range(3)), key=address_of))
UNIT = 10**6
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "replay.md"
DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "market"
CALLING = CallTerms(threshold=0, minimum=100 * UNIT, rounding=UNIT, lifetime_s=600)
TOP_UP_AFTER_S = 300


@dataclass(frozen=True)
class History:
    """What a history gives: seconds from begin to end, a step, spot by second, and vol by instrument and second."""

    name: str
    begin: int
    end: int
    step: int
    spot: Callable[[int], float]
    vol: Callable[[Instrument, int], float]
    book: tuple[tuple[Instrument, int], ...]


@dataclass
class Result:
    """What happened in one run."""

    market: str
    template: str
    conduct: str
    deposit: int
    rows: list[dict[str, float]] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    topped_up: int = 0
    marks: int = 0
    on_chain: dict[str, Any] = field(default_factory=dict)
    paid: tuple[int, int] = (0, 0)
    short: int = 0
    ended: str = ""


# --- histories ----------------------------------------------------------------------------------------------------


def may_2021(folder: Path) -> History:
    """19 May 2021, every minute. Vols: realised over the day before, between 60% and 300%."""
    begin = int(dt.datetime(2021, 5, 19, tzinfo=dt.UTC).timestamp())
    end = begin + 86_400
    closes: dict[int, float] = {}
    with (folder / "binance_um_ETHUSDT_1m_202105.csv").open(encoding="ascii") as file:
        for row in csv.DictReader(file):
            second = int(row["open_time"]) // 1000 + 60
            if begin - 2 * 86_400 <= second <= end + 2 * 86_400:
                closes[second] = float(row["close"])
    times = sorted(closes)

    def spot(second: int) -> float:
        return closes[times[max(0, bisect.bisect_right(times, second) - 1)]]

    def vol(_: Instrument, second: int) -> float:
        prices = [spot(second - 600 * n) for n in range(145)]
        moves = [math.log(a / b) for a, b in pairwise(prices)]
        return min(max(math.sqrt(sum(m * m for m in moves) * 365), 0.6), 3.0)

    expiry = int(dt.datetime(2021, 6, 25, 8, tzinfo=dt.UTC).timestamp())
    book = (
        (Instrument(Kind.PERPETUAL, ETH, 0, 0), 400),
        (Instrument(Kind.PUT, ETH, expiry, 3000 * WAD), -300),
        (Instrument(Kind.CALL, ETH, expiry, 3600 * WAD), 200),
    )
    return History("19 May 2021, minute bars", begin, end, 60, spot, vol, book)


def february_2026(folder: Path, *, jumps: bool) -> History:
    """4 to 7 February 2026, sixteen snapshots of the chain. jumps: each snapshot holds until the next one."""
    spots: dict[int, float] = {}
    vols: dict[tuple[str, int], float] = {}
    with (folder / "deribit_eth_chain_crash_20260204-07.csv").open(encoding="ascii") as file:
        for row in csv.DictReader(file):
            second = int(dt.datetime.fromisoformat(row["timestamp"]).timestamp())
            spots.setdefault(second, float(row["index_price"]))
            vols[row["instrument_name"], second] = float(row["mark_iv"])
    times = sorted(spots)

    def between(series: Callable[[int], float], second: int) -> float:
        at = min(max(bisect.bisect_right(times, second) - 1, 0), len(times) - 1)
        if jumps or at + 1 == len(times) or second <= times[0]:
            return series(times[at])
        share = (second - times[at]) / (times[at + 1] - times[at])
        return series(times[at]) * (1 - share) + series(times[at + 1]) * share

    expiry = int(dt.datetime(2026, 2, 27, 8, tzinfo=dt.UTC).timestamp())

    def vol(i: Instrument, second: int) -> float:
        name = f"ETH-27FEB26-{i.strike // WAD}-{'C' if i.kind == Kind.CALL else 'P'}"
        return between(lambda t: vols[name, t], second)

    book = (
        (Instrument(Kind.PERPETUAL, ETH, 0, 0), 200),
        (Instrument(Kind.PUT, ETH, expiry, 2200 * WAD), -400),
        (Instrument(Kind.PUT, ETH, expiry, 1800 * WAD), 200),
        (Instrument(Kind.CALL, ETH, expiry, 2500 * WAD), 300),
    )
    how = "every snapshot a jump" if jumps else "interpolated"
    begin = -(-times[0] // 300) * 300
    return History(
        f"4 to 7 February 2026, {how}", begin, times[-1], 300, lambda t: between(spots.__getitem__, t), vol, book
    )


# --- two desks ----------------------------------------------------------------------------------------------------


def terms_of(template: str) -> Terms:
    """Terms of the templates' table on ETH; a tick is a minute, since the files have no finer prices."""
    chosen = TEMPLATES[template]
    market = Market(
        ETH,
        *(
            parse_decimal(text)
            for text in (
                *(chosen.price_scan["ETH"], chosen.vol_up, chosen.vol_down),
                *(chosen.wing_cover, chosen.spread_charge),
            )
        ),
    )
    oracle = Oracle(tuple(address_of(key) for key in KEYS), 2, 60, chosen.samples, 60, 120, chosen.grace)
    return Terms(
        a=Party(b"\xa1" * 20, b"\xa2" * 20),
        b=Party(b"\xb1" * 20, b"\xb2" * 20),
        collateral=b"\xcc" * 20,
        decimals=6,
        collateral_feed=ZERO_FEED,
        haircut=0,
        oracle=oracle,
        markets=(market,),
        initial_factor=parse_decimal(chosen.initial_factor),
        closeout_penalty=parse_decimal(chosen.closeout_penalty),
        challenge_period=chosen.challenge_period,
        cure_period=chosen.cure_period,
        sequencer=0,
        salt=b"\x01" * 32,
    )


def _demand(holds: bool, what: str) -> None:  # noqa: FBT001 - an assertion that python -O keeps
    if not holds:
        raise InternalError(what)


class Run:
    """One run: a is long what falls; b is the other side, and calls."""

    def __init__(self, market: History, template: str, conduct: str) -> None:
        """Trade the book at the market, each side with initial margin and a tenth more."""
        self.market, self.conduct = market, conduct
        self.terms = terms_of(template)
        self.state: State = genesis(channel_id(Domain(1, b"\x05" * 20), self.terms))
        self.deposited = [0, 0]
        legs = []
        for i, size in market.book:
            vol = self._vol(i, market.begin)
            legs.append(Leg(i, size * WAD, self._worth(i, vol, market.begin), 0, vol))
        trade = Trade(0, tuple(legs))
        probe = self._applied((Deposit(0, 10**14, 10**14), trade), market.begin)
        self.state = probe
        pair = self._pair(market.begin)
        deposit = max(one.initial for one in pair) * 11 // 10 // 10**12
        self.state = genesis(self.state.channel)
        self._deposit(0, deposit)
        self._deposit(1, deposit)
        self._do((Deposit(0, *self.deposited), trade), market.begin)
        self.result = Result(market.name, template, conduct, deposit)
        self._coming: list[tuple[int, int]] = []

    def _vol(self, i: Instrument, second: int) -> int:
        return round(self.market.vol(i, second) * 10**6) * 10**12 if i.is_option else 0

    def _worth(self, i: Instrument, vol: int, second: int) -> int:
        from channeld.core.valuation import value  # noqa: PLC0415 - its one use

        return value(i.kind, self._price(second) * 10**10, i.strike, 0, vol, max(0, i.expiry - second))

    def _price(self, second: int) -> int:
        """With the 8 decimals of packages."""
        return round(self.market.spot(second) * 10**8)

    def _deposit(self, side: int, units: int) -> None:
        self.deposited[side] += units

    def _applied(self, operations: tuple[Operation, ...], second: int) -> State:
        raw = encode_batch(Batch(second * 1000, b"\x07" * 16, operations))
        return apply(self.terms, self.state, raw, self.state.version + 1).state

    def _do(self, operations: tuple[Operation, ...], second: int) -> None:
        self.state = self._applied(operations, second)
        body = self.state.body
        _demand(body.a.balance + body.b.balance == body.a.deposited + body.b.deposited, "money comes from nothing")

    def _prices(self, second: int) -> Prices:
        return Prices(second, {ETH: self._price(second) * 10**10}, {ETH: second}, WAD)

    def _pair(self, second: int) -> tuple[Standing, Standing]:
        body = self.state.body
        deposited = tuple(max(d, body.account(side).deposited) for side, d in enumerate(self.deposited))
        return standings(self.terms, body, self._prices(second), (deposited[0], deposited[1]), (0, 0))

    def _mark(self, second: int) -> None:
        packages = tuple(sign_package(key, second * 1000, [DataPoint(ETH, self._price(second))]) for key in KEYS)
        body = self.state.body
        vols = tuple(
            Bands().vol(p, self._vol(p.instrument, second)) if p.instrument.is_option else 0 for p in body.positions
        )
        self._do((Mark(0, second, (ETH,), packages, tuple(p.carry for p in body.positions), vols),), second)
        self.result.marks += 1

    # ------------------------------------------------------------------------------------------------- the day

    def live(self) -> Result:
        """The whole history, or until a party is closed out."""
        market, result = self.market, self.result
        second = market.begin
        call: Call | None = None
        while second < market.end:
            second += market.step
            for due, units in [one for one in self._coming if one[0] <= second]:
                self._deposit(0, units)
                result.topped_up += units
                self._coming.remove((due, units))
            pair = self._pair(second)
            if pair[0].insolvent or pair[1].insolvent:
                # a MARK would make a balance negative: to the chain at once
                return self._to_chain(second, "owes more than it has")
            self._mark(second)
            if self.deposited[0] > self.state.body.a.deposited:
                self._do((Deposit(0, *self.deposited),), second)
            pair = self._pair(second)
            self._keep(second, pair)
            if call is not None and call.open:
                call = observe(call, pair[0], self.deposited[0], second)
                result.calls[-1] = call
                if call.state is CallState.EXPIRED:
                    return self._to_chain(second, "did not meet its call")
            if (call is None or not call.open) and pair[0].below:
                call = self._call(pair[0], second)
        result.ended = "the book is still open"
        return result

    def _call(self, standing: Standing, second: int) -> Call | None:
        made = issue(
            self.terms,
            standing,
            self._prices(second),
            CALLING,
            call_id=second.to_bytes(16, "big"),
            version=self.state.version,
            baseline=self.deposited[0],
        )
        if made is None:
            return None
        call = answer(made, made.amount)
        self.result.calls.append(call)
        if self.conduct == "meets its calls":
            self._coming.append((second + TOP_UP_AFTER_S, call.amount))
        return call

    def _keep(self, second: int, pair: Sequence[Standing]) -> None:
        row = {"time": float(second), "spot": self.market.spot(second)}
        for name, one in zip("ab", pair, strict=True):
            row |= {f"equity_{name}": one.equity / WAD, f"mm_{name}": one.maintenance / WAD}
            row |= {f"im_{name}": one.initial / WAD}
        self.result.rows.append(row)

    def _to_chain(self, second: int, why: str) -> Result:
        """Margin is called on chain: the book on record is judged at L, and paid after the challenge period."""
        body, terms = self.state.body, self.terms
        at = call_time(terms, second)
        deadline = second + terms.challenge_period
        full = len(KEYS) * terms.oracle.samples

        def fixes(t: int) -> dict[tuple[bytes, int], tuple[int, int]]:
            return {(feed, when): (self._fix(when), full) for feed, when in fixes_needed(terms, body, t)}

        totals = (self.deposited[0], self.deposited[1], 0, 0)
        verdict = judge(terms, body, fixes(at), at, *totals)
        values: dict[tuple[bytes, int], int | None] = {key: value for key, (value, _) in fixes(at).items()}
        end = fix_time(terms, deadline)
        values |= {key: value for key, (value, _) in fixes(end).items()}
        call = MarginCall(at, verdict)
        paid = settle_with_calls(terms, body, values, deadline, [call], *totals)
        # what the loser would owe beyond all that it has: nobody can collect it
        _, penalty = deciding(body, [call])
        decided = at if verdict.below_a or verdict.below_b else end
        gain = close_out(terms, body, values, decided) + penalty
        due = [body.a.balance + gain, body.b.balance - gain]
        due = [d + self.deposited[n] - body.account(n).deposited for n, d in enumerate(due)]
        _demand(paid[0] + paid[1] == sum(self.deposited), "somebody is paid from nothing")
        _demand(min(paid) >= 0, "somebody is paid less than nothing")
        result = self.result
        result.paid, result.short = paid, max(0, -min(due))
        result.on_chain = {
            "called": second,
            "time": at,
            "spot_when_called": self.market.spot(second),
            "spot_at_call_time": self._fix(at) / WAD,
            "below": [name for name, below in (("a", verdict.below_a), ("b", verdict.below_b)) if below],
            "penalty": verdict.penalty / UNIT,
            "equity_at_call_time": verdict.equity_a / WAD,
            "margin_at_call_time": verdict.margin_a / WAD,
        }
        result.ended = f"a {why}: closed out on chain"
        return result

    def _fix(self, t: int) -> int:
        """The mean of the samples' prints, a wad."""
        oracle = self.terms.oracle
        return sum(self._price(t - n * oracle.sample_gap) * 10**10 for n in range(oracle.samples)) // oracle.samples


def runs(folder: Path, *, short: bool = False) -> list[Result]:
    """Every history, template and conduct. short: minute bars alone, of the crash's own hours."""
    may = may_2021(folder)
    if short:
        hours = replace(may, begin=may.begin + 12 * 3600, end=may.begin + 14 * 3600)
        return [Run(hours, "tight", conduct).live() for conduct in ("meets its calls", "does nothing")]
    histories = (may, february_2026(folder, jumps=False), february_2026(folder, jumps=True))
    return [
        Run(history, template, conduct).live()
        for history in histories
        for template in ("tight", "standard", "conservative")
        for conduct in ("meets its calls", "does nothing")
    ]


# --- the report ---------------------------------------------------------------------------------------------------


def _clock(second: float) -> str:
    return dt.datetime.fromtimestamp(second, dt.UTC).strftime("%-d %b %H:%M")


COLUMNS = (
    *("template", "a", "deposit each", "calls", "first at", "topped up", "judged at L, spot then", "penalty"),
    *("paid to a", "paid to b", "not covered"),
)


def table(results: Sequence[Result]) -> str:
    """The results as Markdown."""
    lines = []
    for market in dict.fromkeys(one.market for one in results):
        lines += [
            f"### {market}",
            "",
            f"| {' | '.join(COLUMNS)} |",
            "| --- | --- | ---: | ---: | --- | ---: | --- | ---: | ---: | ---: | ---: |",
        ]
        for one in (r for r in results if r.market == market):
            chain = one.on_chain
            first = _clock(one.calls[0].issued) if one.calls else "none"
            judged = f"{_clock(chain['time'])}, {chain['spot_at_call_time']:,.0f}" if chain else "-"
            penalty = f"{chain['penalty']:,.0f}" if chain else "-"
            paid = [f"{units / UNIT:,.0f}" if chain else "-" for units in one.paid]
            cells = [one.template, one.conduct, f"{one.deposit / UNIT:,.0f}", str(len(one.calls)), first]
            cells += [f"{one.topped_up / UNIT:,.0f}", judged, penalty, *paid, f"{one.short / UNIT:,.0f}"]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def plot(results: Sequence[Result], folder: Path) -> list[Path]:
    """A PNG for each run: spot, equity and margins of a, the calls, and L."""
    import matplotlib as mpl  # noqa: PLC0415 - heavy, and only for plots

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415 - heavy, and only for plots

    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for n, one in enumerate(results):
        figure, (top, below) = plt.subplots(2, 1, figsize=(10, 6), sharex=True, height_ratios=(1, 2))
        hours = [(row["time"] - one.rows[0]["time"]) / 3600 for row in one.rows]
        top.plot(hours, [row["spot"] for row in one.rows], color="black", lw=0.8)
        top.set_ylabel("ETH spot")
        for name, label, style in (
            ("equity_a", "equity of a", "-"),
            ("mm_a", "maintenance", "--"),
            ("im_a", "initial", ":"),
        ):
            below.plot(hours, [row[name] / 1000 for row in one.rows], style, label=label, lw=1)
        for call in one.calls:
            below.axvline((call.issued - one.rows[0]["time"]) / 3600, color="orange", lw=0.6)
        if one.on_chain:
            below.axvline((one.on_chain["time"] - one.rows[0]["time"]) / 3600, color="red", lw=1, label="L")
        below.axhline(0, color="grey", lw=0.5)
        below.set_ylabel("thousand USDC")
        below.set_xlabel("hours")
        below.legend(loc="best", fontsize=8)
        figure.suptitle(f"{one.market}; {one.template}; a {one.conduct}: {one.ended}", fontsize=9)
        figure.tight_layout()
        path = folder / f"{n:02d}-{one.template}-{one.conduct.replace(' ', '-')}.png"
        figure.savefig(path, dpi=90)
        plt.close(figure)
        made.append(path)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything; 0, or 1 where the data are not there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    if not given.data.exists():
        sys.stderr.write(f"{given.data} is not there: market data are not part of the project\n")
        return 1
    results = runs(given.data)
    if given.out:
        plot(results, given.out)
    if given.json:
        summary = [
            {k: v for k, v in vars(one).items() if k not in {"rows", "calls"}} | {"calls": len(one.calls)}
            for one in results
        ]
        sys.stdout.write(json.dumps(summary, indent=2) + "\n")
    else:
        sys.stdout.write(table(results) + "\n")
    if given.write:
        text = PAGE.read_text(encoding="utf-8")
        head, rest = text.split(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n\n{table(results)}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
