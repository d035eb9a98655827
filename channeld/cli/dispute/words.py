"""Disputes in words and numbers, for somebody who has slept three hours.

Rules: times are shown in the machine's own zone with the zone's name, and how far they are by the chain's clock;
amounts as decimal strings in the collateral; sizes as the bundle's party holds them.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from channeld.chain.contracts import Phase
from channeld.core.crypto import checksum_address
from channeld.core.describe import margin_data
from channeld.core.dispute import JudgeCall, ProveFixes, Refute, Release, Settle, ShowLast, Unknown, Wait
from channeld.core.errors import ChanneldError
from channeld.core.instruments import instrument_name
from channeld.core.margin import both
from channeld.core.settlement import entitlement, fix_time, fixes_needed
from channeld.core.terms import ZERO_FEED, feed_symbol
from channeld.core.transition import is_expired
from channeld.core.valuation import profit, to_units
from channeld.core.wad import WAD, format_decimal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from channeld.core.bundle import Bundle
    from channeld.core.dispute import NextStep
    from channeld.core.state import Position
    from channeld.daemon.emergency.case import Facts

CHALLENGER_OTHER = 2


def local(second: int) -> str:
    """A time (Unix seconds) in this machine's zone."""
    return dt.datetime.fromtimestamp(second, dt.UTC).astimezone().strftime("%a %d %b %Y %H:%M:%S %Z")


def span(seconds: int) -> str:
    """A time span in words: the two largest units."""
    rest, parts = abs(seconds), []
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts[:2]) or "0 s"


def when(second: int, now: int) -> str:
    """A time, and how far it is."""
    return f"{local(second)} ({'in ' + span(second - now) if second > now else span(now - second) + ' ago'})"


def step_words(step: NextStep) -> tuple[str, str]:
    """What to do next, in words, and the command that does it (empty where there is none)."""
    match step:
        case Refute():
            return "The version on record is older than yours: refute it before the deadline.", "refute"
        case Wait(until, why):
            return f"Wait until {local(until)} for {why}.", ""
        case ProveFixes(fixes):
            names = ", ".join(f"{feed_symbol(feed)} at {t}" for feed, t in fixes)
            return f"Prove the oracle's fixes: {names}.", "prove-fix"
        case JudgeCall(index):
            return f"Have margin call {index} tested.", "test"
        case Settle():
            return "Settle: both are paid now.", "settle"
        case ShowLast():
            return "Nobody shows the body on record: show yours.", "settle-last"
        case Release():
            return "Nobody has shown any body for half a year: have the deposits released.", "release"
        case Unknown():
            return (
                "The body on record is not in this bundle: find one that has it, or wait until yours may be shown.",
                "",
            )
    return "", ""  # pragma: no cover - every step is above


def status_data(bundle: Bundle, facts: Facts, step: NextStep | None, payout: tuple[int, int] | None) -> dict[str, Any]:
    """Where the channel stands on chain, who did what, by when, and what to do next."""
    terms, record, dispute = bundle.terms, facts.record, facts.dispute
    decimals = terms.decimals
    told: dict[str, Any] = {
        "channel": "0x" + bundle.channel.hex(),
        "we_are": "ab"[bundle.side],
        "phase": facts.phase.name.lower(),
        "block": facts.block,
        "chain_time": facts.time,
        "bundle_version": bundle.version,
        "floor_version": record.floor_version,
        "deposited": {
            "a": format_decimal(record.deposited_a, decimals),
            "b": format_decimal(record.deposited_b, decimals),
        },
        "paid": {"a": format_decimal(record.paid_a, decimals), "b": format_decimal(record.paid_b, decimals)},
    }
    words, command = "", ""
    if facts.phase is Phase.DISPUTED:
        at = fix_time(terms, dispute.deadline)
        grace = terms.oracle.grace
        told |= {
            "dispute": dispute.number,
            "on_record": dispute.version,
            "body_at_hand": facts.body is not None,
            "deadline": dispute.deadline,
            "deadline_local": local(dispute.deadline),
            "fix_time": at,
            "settles_without_all_fixes_from": at + grace,
            "other_bodies_from": at + 2 * grace,
            "calls": [
                {
                    "by": "ab"[call.party],
                    "time": call.time,
                    "tested": call.tested,
                    "below": "".join(
                        s for s, low in zip("ab", (call.below_a, call.below_b), strict=True) if low and call.tested
                    ),
                    "penalty": format_decimal(call.penalty, decimals),
                }
                for call in facts.calls
            ],
            "settlement_now": None
            if payout is None
            else {side: format_decimal(units, decimals) for side, units in zip("ab", payout, strict=True)},
        }
        words, command = step_words(step) if step is not None else ("", "")
        if dispute.version > bundle.version:
            told["stale_bundle"] = True
    elif facts.phase is Phase.OPEN:
        words = "No dispute runs. If the counterparty is gone, challenge; it then has the challenge period to answer."
        command = "challenge"
        if record.floor_version > bundle.version:
            told["stale_bundle"] = True
            words = (
                f"The chain's floor is version {record.floor_version}, above this bundle's: find a newer one. " + words
            )
    elif facts.phase is Phase.ENDED:
        words = "The channel has ended and both were paid; what could not be sent waits for `channeld dispute claim`."
    else:
        words = "The channel was never opened on this chain, or a reorganisation took it away."
    return {**told, "next": words, "next_command": command}


def position_data(position: Position, side: int) -> dict[str, Any]:
    """A position as the party holds it."""
    sign, i = -1 if side else 1, position.instrument
    return {
        "instrument": instrument_name(i),
        "size": format_decimal(sign * position.size),
        "mark": format_decimal(position.mark),
        "carry": format_decimal(position.carry),
        "vol": format_decimal(position.vol) if i.is_option else None,
    }


def inspect_data(
    bundle: Bundle,
    facts: Facts | None,
    prices: Mapping[bytes, int],
    fixes: Mapping[tuple[bytes, int], int],
    now: int,
    stand: tuple[int, int],
) -> dict[str, Any]:
    """What a bundle holds and what it entitles its party to at prices (wads) now (Unix seconds).

    fixes: values (wads) of the fixes of expired positions, as far as they are known.
    """
    terms, side, body = bundle.terms, bundle.side, bundle.state.body
    decimals, party = terms.decimals, terms.party(side)
    other = terms.party(1 - side)
    told: dict[str, Any] = {
        "channel": "0x" + bundle.channel.hex(),
        "chain_id": bundle.domain.chain_id,
        "adjudicator": checksum_address(bundle.domain.adjudicator),
        "we_are": "ab"[side],
        "signer": checksum_address(party.signer),
        "payout": checksum_address(party.payout),
        "counterparty": checksum_address(other.signer),
        "version": bundle.version,
        "as_of": body.as_of,
        "made_ms": bundle.made_ms,
        "signatures": "both hold" if bundle.version else "version 0 needs none",
        "half_signed": [half.state.version for half in bundle.halves],
        "packages": len(bundle.packages),
        "balance": format_decimal(body.account(side).balance, decimals),
        "peer_balance": format_decimal(body.account(1 - side).balance, decimals),
        "positions": [position_data(position, side) for position in body.positions],
        "as_they_stand": format_decimal(stand[side], decimals),
        "as_they_stand_peer": format_decimal(stand[1 - side], decimals),
        "challenge_period_s": terms.challenge_period,
        "prices": {feed_symbol(feed): format_decimal(price) for feed, price in prices.items()},
    }
    missing = sorted({p.instrument.feed for p in body.positions if not is_expired(p.instrument, now)} - prices.keys())
    told["missing_prices"] = [feed_symbol(feed) for feed in missing]
    told["closed_out_now"] = told["margin"] = None
    collateral = prices.get(terms.collateral_feed, body.collateral_mark) if terms.collateral_feed != ZERO_FEED else WAD
    if not missing:
        spots = [
            fixes.get((p.instrument.feed, p.instrument.expiry))
            if is_expired(p.instrument, now)
            else prices[p.instrument.feed]
            for p in body.positions
        ]
        gain = to_units(profit(body, spots, now), terms, collateral)
        r = facts.record if facts is not None and facts.phase is not Phase.NONE else None
        totals = {
            "deposited_a": r.deposited_a if r else body.a.deposited,
            "deposited_b": r.deposited_b if r else body.b.deposited,
            "paid_a": r.paid_a if r else body.a.withdrawn,
            "paid_b": r.paid_b if r else body.b.withdrawn,
        }
        due = entitlement(body.a, gain, **totals)
        ours = -gain if side else gain
        told["closed_out_now"] = {
            "gain": format_decimal(ours, decimals),
            "due": format_decimal(due[side], decimals),
            "due_peer": format_decimal(due[1 - side], decimals),
        }
        if body.positions and all(m.feed in prices for m in terms.markets if _in_book(bundle, m.feed)):
            try:
                reports = both(terms, body, prices, now, collateral, fixes=fixes)
                told["margin"] = {s: margin_data(report, decimals) for s, report in zip("ab", reports, strict=True)}
            except ChanneldError as error:
                told["margin_unknown"] = str(error)
    return {**told, "words": _sentences(bundle, told, now)}


def _in_book(bundle: Bundle, feed: bytes) -> bool:
    return any(p.instrument.feed == feed for p in bundle.state.body.positions)


def _sentences(bundle: Bundle, told: dict[str, Any], now: int) -> list[str]:
    terms, body = bundle.terms, bundle.state.body
    count = len(body.positions)
    marked = f"marked {local(body.as_of)}" if body.as_of else "never marked"
    held = f"version {bundle.version}, {marked}, with {count or 'no'} position{'' if count == 1 else 's'}"
    words = [f"You are {told['we_are']} of channel {told['channel'][:10]}. The bundle holds {held}."]
    words.append(f"Its signatures: {told['signatures']}.")
    words.append(
        f"By the balances alone, positions at their marks, you are due {told['as_they_stand']} and the counterparty "
        f"{told['as_they_stand_peer']}."
    )
    now_out = told["closed_out_now"]
    if now_out is not None and count:
        at = ", ".join(f"{feed} {price}" for feed, price in told["prices"].items())
        words.append(
            f"Closed out now at {at or 'the marks'}, you would gain {now_out['gain']} and be due {now_out['due']}, "
            f"the counterparty {now_out['due_peer']}."
        )
    elif told["missing_prices"]:
        words.append(f"No price of {', '.join(told['missing_prices'])} is at hand: give --price, or --oracle URL.")
    margin = told["margin"]
    if margin is not None:
        low = [side for side in "ab" if margin[side]["equity"].startswith("-") or _below(margin[side])]
        if low:
            words.append(
                f"Below maintenance margin now: {' and '.join(low)}; a margin call would be judged at its time."
            )
    fixed = fix_time(terms, now + terms.challenge_period)
    words.append(
        f"A challenge now gives the counterparty {span(terms.challenge_period)} to answer; the fix is then of "
        f"{local(fixed)}, and payment follows at once where every signer's package is proven, else by "
        f"{local(fixed + terms.oracle.grace)}."
    )
    needed = fixes_needed(terms, body, fixed)
    if needed:
        words.append(f"It takes {len(needed)} fixes: keep an oracle, or its packages, at hand for that time.")
    return words


def _below(report: dict[str, Any]) -> bool:
    from channeld.core.wad import parse_decimal  # noqa: PLC0415 - next to its one use

    return parse_decimal(report["equity"]) < parse_decimal(report["maintenance_margin"])
