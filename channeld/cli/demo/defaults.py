"""Two more days: default (a margin call is not met, and judged on chain), oracle-dead (the last fix never comes).

Rules: as scenarios.py. What is paid is read from the chain; what must be paid is computed here, by the core, from the
body that both signed and, where there are any, the oracle's packages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from channeld.cli.demo import expected
from channeld.cli.demo.scenarios import LATER, happened, last_signed, paid
from channeld.cli.demo.timeline import grouped
from channeld.cli.demo.trading import Day
from channeld.cli.demo.world import DECIMALS, DEPOSIT, SYMBOL, units
from channeld.cli.errors import ServiceError
from channeld.cli.trading import clock
from channeld.core.wad import format_decimal

if TYPE_CHECKING:
    from channeld.cli.demo.scenarios import Payouts
    from channeld.cli.demo.timeline import Timeline
    from channeld.cli.demo.world import World
    from channeld.core.state import Body

PERPETUAL, SIZE = "ETH-PERP", "800"
CRASH: tuple[tuple[float, str, str], ...] = (
    # hours from the start, ETH, BTC: a fall, a further one while margin is called, and a recovery that comes too late
    (-48, "3000", "95000"),
    (1, "3000", "95000"),
    (2, "2850", "93500"),
    (2.3, "2850", "93500"),
    (2.45, "2790", "92800"),
    (4, "2800", "93000"),
    (12, "3010", "95100"),
    (400, "3050", "95400"),
)


def default(world: World, timeline: Timeline) -> Payouts:
    """The taker is called, does nothing, and is closed out on chain at the fix of the call's time, with a penalty."""
    world.path = CRASH
    day = Day(world, timeline)
    world.special["maker"] = {"margin.auto_call": "call", "margin.reductions": "propose"}
    day.begin()
    day.open_positions()
    price = day.fair(PERPETUAL, "0")
    legs = [{"instrument": PERPETUAL, "size": SIZE, "price": price}]
    day.trade(world.taker, legs, f"buys {SIZE} {PERPETUAL} at {grouped(price)}")
    since = int(world.maker.call("private/events")["next"])
    day.mark(world.hour(2))
    call = _called(day, since)
    deadline = int(call["deadline"])
    with timeline.waiting("half of the call's time passes"):
        world.advance_to((int(call["issued"]) + deadline) // 2 + LATER)
        proposed = happened(world, world.maker, ("reduction_proposed",), since)
    day.tell(
        world.maker,
        f"proposes to close out part of the book by agreement: {proposed['legs']} legs; nobody at taker answers",
        kind="reduction_proposed",
        event=proposed,
    )
    with timeline.waiting("the call's deadline passes"):
        world.advance_to(deadline + LATER)
        failed = happened(world, world.maker, ("default",), since)
        raised = happened(world, world.maker, ("margin_called_on_chain",), since)
    day.tell(world.maker, f"alert: {failed['message']}", kind="alert", event=failed)
    at = int(raised["time"])
    day.tell(
        world.maker,
        f"calls margin on chain: both are judged at the fix of {clock(at * 1000)} UTC",
        kind="margin_called",
        more=("taker may still deposit until then; a newer state would be shown, a Resume signed",),
        event=raised,
    )
    return _judged(day, at)


def _called(day: Day, since: int) -> dict[str, str]:
    """Wait for the call and its answer, and tell them."""
    world, timeline = day.world, day.timeline
    with timeline.waiting("margin is looked at"):
        call = happened(world, world.maker, ("margin_call",), since)
    equity, maintenance, initial = (grouped(call[name]) for name in ("equity", "maintenance", "initial"))
    figures = f"taker's equity {equity}, maintenance margin {maintenance}, initial margin {initial}"
    day.tell(
        world.maker,
        f"calls taker's margin: {grouped(call['amount'])} {SYMBOL} until {clock(int(call['deadline']) * 1000)} UTC",
        kind="margin_call",
        more=(figures,),
        event=call,
    )

    def answered() -> dict[str, str] | None:
        rows = world.maker.call("private/calls", channel=world.channel)
        return next((row for row in rows if row["id"] == call["id"] and row["state"] != "issued"), None)

    with timeline.waiting("taker answers"):
        row: dict[str, str] = world.wait(answered, "the answer to the call")
    agreed = grouped(row["agreed"])
    day.tell(world.taker, f"{row['state']}: {agreed} {SYMBOL} by its own figures; it deposits nothing", kind="answered")
    return row


def _judged(day: Day, at: int) -> Payouts:
    """Live through L and the challenge period; the payment beside what the core computes."""
    from channeld.core.settlement import fix_time  # noqa: PLC0415 - heavy

    world, timeline = day.world, day.timeline
    assert world.terms is not None  # noqa: S101 - a channel is open
    body, deadline = _on_record(world)
    with timeline.waiting("the call's time comes"):
        world.advance_to(at + LATER)
    timeline.event(
        "maker", "archives the oracle's packages of the call's time, long before they are needed", kind="archived"
    )
    with timeline.waiting("the challenge period passes"):
        world.advance_to(deadline + LATER)
        tested = happened(world, world.maker, ("margin_tested",), 0)
    deposited = (units(DEPOSIT), units(DEPOSIT))
    fixes, verdict, amounts = expected.settlement_by_call(world.oracle, world.terms, body, deadline, at, deposited)
    if not verdict.below_b or verdict.below_a:
        message = "by the core's own figures the taker is not below its maintenance margin at the call's time"
        raise ServiceError(message)
    timeline.event(
        "maker",
        "proves the fixes, and has the margin call tested",
        kind="tested",
        more=(
            *(
                f"{feed} at {clock(t * 1000)} UTC: {grouped(format_decimal(value), 4)}"
                for (feed, t), value in fixes.items()
            ),
            f"taker's equity {grouped(tested['equity_b'])} is below its margin {grouped(tested['margin_b'])}",
            f"it pays {grouped(format_decimal(verdict.penalty, DECIMALS))} {SYMBOL} of penalty to maker",
        ),
        event=tested,
    )
    with timeline.waiting("the settlement"):
        world.advance_to(fix_time(world.terms, deadline) + LATER)
        happened(world, world.maker, ("settled",), 0)
    return _closed(day, amounts, f"settles: {len(body.positions)} positions closed out at the fix of the call")


def _on_record(world: World) -> tuple[Body, int]:
    """The body that the dispute is about, and its deadline.

    A state that was agreed in the very moment of the call is shown by a refutation, which the daemons do by themselves.
    """

    def newest() -> tuple[Body, int] | None:
        told = world.maker.call("private/dispute", channel=world.channel)
        body, version = last_signed(world, world.maker)
        return (body, int(told["deadline"])) if int(told["on_record"]) == version else None

    result: tuple[Body, int] = world.wait(newest, "the newest version on record")
    return result


def _closed(day: Day, amounts: tuple[int, int], what: str) -> Payouts:
    world, timeline = day.world, day.timeline
    timeline.event("maker", what, kind="settled")
    for desk in world.desks:
        world.wait(lambda desk=desk: world.see(desk)["status"] == "closed", "the settlement")  # type: ignore[misc]
    timeline.event("chain", f"pays both payout addresses in {SYMBOL}", kind="paid")
    return paid(world, amounts)


def oracle_dead(world: World, timeline: Timeline) -> Payouts:
    """The maker goes to the chain, and the oracle dies before the fix: after the grace the balances are paid."""
    from channeld.core.settlement import fix_time, settle_amounts  # noqa: PLC0415 - heavy

    day = Day(world, timeline)
    day.begin()
    day.open_positions()
    day.mark(world.hour(6))
    since = int(world.maker.call("private/events")["next"])
    with timeline.waiting("maker goes to the chain"):
        world.maker.call("private/challenge", channel=world.channel, timeout=120)
        for desk in world.desks:
            happened(world, desk, ("dispute_raised",), 0)
    day.tell(world.maker, "ends the relationship: challenges on chain with the newest state", kind="challenged")
    assert world.terms is not None  # noqa: S101 - a channel is open
    assert world.oracle_child is not None  # noqa: S101 - it runs
    body, deadline = _on_record(world)
    at = fix_time(world.terms, deadline)
    world.killed = world.oracle_child
    world.oracle_child.kill()
    timeline.event("oracle", "its service is killed with SIGKILL, and never comes back", kind="killed")
    with timeline.waiting("the challenge period passes, and the fix time"):
        world.advance_to(at + LATER)
    for desk in world.desks:
        world.wait(
            lambda desk=desk: str(desk.call("private/dispute", channel=world.channel)["next_step"]).startswith("wait"),  # type: ignore[misc]
            "the wait for the fixes",
        )
    timeline.event("chain", "no fix can be proven: the daemons wait until the grace period is over", kind="waiting")
    with timeline.waiting("the grace period passes"):
        world.advance_to(at + world.terms.oracle.grace + LATER)
        settled = happened(world, world.maker, ("settled",), since)
    if settled["complete"]:
        message = "the settlement counts as complete without any fix"
        raise ServiceError(message)
    amounts = settle_amounts(world.terms, body, {}, at, units(DEPOSIT), units(DEPOSIT), 0, 0)
    return _closed(day, amounts, "settles without fixes: every position at its mark, so the balances as they stand")
