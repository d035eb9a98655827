"""The three days: coop (all goes well), vanish (a daemon is killed), cheat (an old state is taken to the chain).

Rules: each gives what was paid to the payout addresses on chain, and beside it what must have been paid, from a source
that does not know the former: the journals of both desks, or the core's arithmetic on the last co-signed body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from channeld.cli.demo import expected
from channeld.cli.demo.timeline import grouped
from channeld.cli.demo.trading import VOL, Day
from channeld.cli.demo.world import DECIMALS, DEPOSIT, SYMBOL, units
from channeld.cli.errors import ServiceError
from channeld.cli.trading import clock
from channeld.core.wad import format_decimal

if TYPE_CHECKING:
    from channeld.cli.demo.timeline import Timeline
    from channeld.cli.demo.world import Desk, World
    from channeld.core.state import Body

Payouts = dict[str, dict[str, str]]
LATER = 5
"""Seconds after a tick, so that its packages are there."""


def paid(world: World, expected_units: tuple[int, int]) -> Payouts:
    """What the payout addresses hold on chain, beside what they must hold; decimal strings."""
    from channeld.cli import devtools  # noqa: PLC0415 - heavy

    held = devtools.balances(world.devnet.url, world.token, [world.maker.payout, world.taker.payout])
    return {
        side: {"paid": format_decimal(have, DECIMALS), "expected": format_decimal(must, DECIMALS)}
        for side, have, must in zip("ab", held, expected_units, strict=True)
    }


def coop(world: World, timeline: Timeline) -> Payouts:
    """A desk's days from opening to a cooperative close."""
    day = Day(world, timeline)
    day.begin()
    day.open_positions()
    day.pay(world.taker, "1250", "research, December")
    for hours in (6, 12, 18):
        day.mark(world.hour(hours))
    spot = day.fair("BTC-PERP", "0")
    perpetual = {"instrument": "BTC-PERP", "price": spot}
    day.refused(world.taker, [{**perpetual, "size": "60"}], f"tries to buy 60 BTC-PERP at {grouped(spot)}")
    day.trade(
        world.taker, [{**perpetual, "size": "-2"}], f"sells 2 BTC-PERP at {grouped(spot)}: less risk", kind="reduced"
    )
    for hours in (24, 36):
        day.mark(world.hour(hours))
    day.mark(world.day(2))
    day.mark(world.hour(43))
    day.close_out()
    day.audit()
    with timeline.waiting("closing"):
        world.maker.call("private/close", channel=world.channel, timeout=120)
        for desk in world.desks:
            world.wait(lambda desk=desk: world.see(desk)["status"] == "closed", "the close on chain")  # type: ignore[misc]
    day.tell(world.maker, "both sign the close; the contract pays both payout addresses", kind="closed")
    told = day.audit()
    return paid(world, (units(told[0]), units(told[1])))


def vanish(world: World, timeline: Timeline) -> Payouts:
    """The taker's daemon is killed; the maker goes to the chain by itself, and is paid."""
    day = Day(world, timeline)
    day.begin(**{"channel.auto_dispute": "challenge", "channel.dispute_after": 60})
    day.open_positions()
    day.mark(world.hour(6))
    day.mark(world.hour(12))
    since = int(world.maker.call("private/events")["next"])
    assert world.taker.child is not None  # noqa: S101 - it runs
    world.killed = world.taker.child
    world.taker.child.kill()
    timeline.event("taker", "its daemon is killed with SIGKILL", kind="killed")
    with timeline.waiting("maker notices"):
        lost = happened(world, world.maker, ("peer_lost",), since)
    day.tell(world.maker, "notices: the session with taker is gone", kind="lost", event=lost)
    body, _ = last_signed(world, world.maker)
    with timeline.waiting("taker stays silent"):
        world.advance_to(world.now_ms() // 1000 + 91, (world.maker,))
        raised = happened(world, world.maker, ("dispute_raised",), since)
    alert = happened(world, world.maker, ("alert",), since, cause="unreachable peer")
    day.tell(world.maker, f"alert: {alert['message']}", kind="alert", event=alert)
    day.tell(
        world.maker,
        f"challenges on chain with version {raised.get('version')}; taker has 24 hours",
        kind="challenged",
        event=raised,
    )
    return settle(day, (world.maker,), body)


def cheat(world: World, timeline: Timeline) -> Payouts:
    """The maker takes an old state to the chain; the taker's daemon refutes it by itself."""
    day = Day(world, timeline)
    day.begin()
    day.open_positions()
    old = int(world.see()["version"])
    day.mark(world.hour(6))
    day.mark(world.hour(24))
    spot = day.fair(day.call, VOL)
    day.trade(
        world.taker,
        [{"instrument": day.call, "size": "-40", "price": spot, "vol": VOL}],
        f"takes profit: sells 40 {day.call} at {grouped(spot)}",
        kind="reduced",
    )
    body, newest = last_signed(world, world.taker)
    since = int(world.taker.call("private/events")["next"])
    with timeline.waiting("maker cheats"):
        world.maker.call("private/challenge", channel=world.channel, version=old, timeout=120)
    timeline.event(
        "maker",
        f"cheats: challenges with version {old}, signed before its losses",
        kind="cheat",
        version=old,
        newest=newest,
    )
    with timeline.waiting("taker's daemon looks at the chain"):
        refuted = happened(world, world.taker, ("dispute_refuted",), since)
    if str(refuted.get("by", "")).lower() not in ("", world.taker.address.lower()):
        message = f"the refutation was sent by {refuted.get('by')}, not by the taker"
        raise ServiceError(message)
    day.tell(
        world.taker,
        f"its daemon refutes by itself with version {refuted.get('version')}",
        kind="refuted",
        event=refuted,
    )
    if int(refuted.get("version", -1)) < newest:
        message = f"version {refuted.get('version')} is on record, and {newest} is the newest"
        raise ServiceError(message)
    return settle(day, world.desks, body)


def last_signed(world: World, desk: Desk) -> tuple[Body, int]:
    """The last body that both signed, as a desk holds it, and its version."""
    from channeld.core.files import body_from_json  # noqa: PLC0415 - heavy

    shown = world.see(desk)
    return body_from_json(shown["body"]), int(shown["version"])


def happened(
    world: World, desk: Desk, kinds: tuple[str, ...], since: int, *, cause: str | None = None
) -> dict[str, Any]:
    """Wait for the first event of these kinds at a desk, after `since`; of this cause, where one is named."""

    def found() -> dict[str, Any] | None:
        told = desk.call("private/events", since=since)
        fitting = (one for one in told["events"] if one["kind"] in kinds)
        return next((one for one in fitting if cause is None or one.get("cause") == cause), None)

    result: dict[str, Any] = world.wait(found, f"{' or '.join(kinds)} at {desk.name}")
    return result


def settle(day: Day, alive: tuple[Desk, ...], body: Body) -> Payouts:
    """Wait out the challenge period, let the daemons prove the fixes and settle; what was paid and must have been."""
    from channeld.core.settlement import fix_time  # noqa: PLC0415 - heavy

    world, timeline = day.world, day.timeline
    assert world.terms is not None  # noqa: S101 - a channel is open
    desk = alive[-1]
    told = desk.call("private/dispute", channel=world.channel)
    deadline = int(told["deadline"])
    at = fix_time(world.terms, deadline)
    since = 0
    with timeline.waiting("the challenge period passes"):
        world.advance_to(deadline + LATER, alive)
    timeline.event("chain", "the challenge period is over: the version on record stands", kind="deadline", at=deadline)
    with timeline.waiting("the fix time comes"):
        world.advance_to(at + LATER, alive)
        settled = happened(world, desk, ("settled",), since)
    fixes, amounts = expected.settlement(world.oracle, world.terms, body, at, (units(DEPOSIT), units(DEPOSIT)))
    timeline.event(
        desk.name,
        "has captured the oracle's packages, and proves the fixes",
        kind="fixed",
        more=tuple(
            f"{feed} at {clock(t * 1000)} UTC: {grouped(format_decimal(value), 4)}"
            for (feed, t), value in fixes.items()
        ),
        fixes=[{"feed": feed, "time": t, "value": format_decimal(value)} for (feed, t), value in fixes.items()],
    )
    timeline.event(
        desk.name,
        f"settles: {len(body.positions)} positions valued on chain at the fixes",
        kind="settled",
        event=settled,
    )
    for one in alive:
        world.wait(lambda one=one: world.see(one)["status"] == "closed", "the settlement")  # type: ignore[misc]
    timeline.event("chain", f"pays both payout addresses in {SYMBOL}", kind="paid")
    return paid(world, amounts)
