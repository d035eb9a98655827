"""What the demo's desks do all day: open, deposit, trade, pay, be marked, close out. Used by every scenario."""

from __future__ import annotations

import concurrent.futures
import datetime as dt
from typing import TYPE_CHECKING, Any

from channeld.cli.demo import expected
from channeld.cli.demo.timeline import grouped
from channeld.cli.demo.world import DECIMALS, DEPOSIT, SYMBOL, World
from channeld.cli.errors import RemoteError, ServiceError
from channeld.cli.processes import answers
from channeld.cli.trading import premium_facts
from channeld.core.wad import format_decimal, parse_decimal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from channeld.cli.demo.timeline import Timeline
    from channeld.cli.demo.world import Desk

VOL, SKEW_VOL, FUNDING = "0.65", "0.7", "0.1095"
CENT = 10**16
Leg = dict[str, str]


class Day:
    """A trading day: the world, its timeline, and the instruments that are traded in it."""

    def __init__(self, world: World, timeline: Timeline) -> None:
        """Name the instruments by the day the demo starts on."""
        self.world = world
        self.timeline = timeline

    def name(self, second: int, strike: str, right: str) -> str:
        """An ETH option that expires at 08:00 UTC of a day."""
        moment = dt.datetime.fromtimestamp(second, dt.UTC)
        return f"ETH-{moment.day}{moment.strftime('%b%y').upper()}-{strike}-{right}"

    @property
    def call(self) -> str:
        """The call that expires during the demo."""
        return self.name(self.world.day(2), "3000", "C")

    @property
    def puts(self) -> tuple[str, str]:
        """The puts of the spread, a month out: the higher strike first."""
        return self.name(self.world.day(30), "2900", "P"), self.name(self.world.day(30), "2700", "P")

    # -- the morning ---------------------------------------------------------------------------------------------------

    def begin(self, **settings: object) -> None:
        """Start every process, deploy, open the channel, and deposit."""
        world, timeline = self.world, self.timeline
        with timeline.waiting("starting the chain"):
            world.start_chain()
        with timeline.waiting("starting the oracle, creating two desks, deploying contracts"):
            oracle = world.start_oracle()
            world.create_desks(**settings)
            world.deploy()
            oracle.wait_ready(answers(world.oracle + "/healthz"))
        timeline.event("chain", f"{SYMBOL} and channeld's contracts are deployed", kind="deployed", token=world.token)
        with timeline.waiting("starting two daemons"):
            for desk in world.desks:
                world.start_desk(desk)
            for desk in world.desks:
                world.ready(desk)
            self._introduce()
        timeline.event(
            "maker", "connected to taker over an encrypted session", kind="connected", address=world.maker.address
        )
        self._open()
        self._deposit()

    def _introduce(self) -> None:
        world = self.world
        for desk, peer in ((world.maker, world.taker), (world.taker, world.maker)):
            desk.call("private/peer_add", name=peer.name, address=peer.address, url=f"ws://127.0.0.1:{peer.peer_port}")
        for desk in world.desks:
            world.wait(
                lambda desk=desk: any(one["connected"] for one in desk.call("private/peers")),  # type: ignore[misc]
                f"{desk.name}'s session with its peer",
            )

    def _open(self) -> None:
        world, timeline = self.world, self.timeline
        with timeline.waiting("opening a channel"):
            proposed = world.maker.call("private/channel_propose", peer="taker", terms=world.write_terms())
            wanted = str(proposed["hash"])
            timeline.event("maker", f"proposes terms {wanted[:18]}…, template tight", kind="proposed", hash=wanted)
            world.wait(
                lambda: any(one["hash"] == wanted for one in world.taker.call("private/channel_proposals")),
                "the proposal",
            )
            accepted = world.taker.call("private/channel_accept", hash=wanted)
            world.channel = str(accepted["channel"])
            for desk in world.desks:
                world.wait(lambda desk=desk: world.see(desk)["status"] == "open", "the opening on chain")  # type: ignore[misc]
        timeline.event("taker", "accepts the terms by their hash; the channel opens on chain", kind="opened")

    def _deposit(self) -> None:
        world, timeline = self.world, self.timeline
        for desk in world.desks:
            with timeline.waiting(f"{desk.name} deposits"):
                desk.call("private/deposit", channel=world.channel, amount=DEPOSIT, timeout=120)
                side = "ab"[world.desks.index(desk)]
                wanted = parse_decimal(DEPOSIT, DECIMALS)

                def counted(side: str = side, wanted: int = wanted) -> bool:
                    shown = [world.see(one) for one in world.desks]
                    return all(int(one["body"][side]["balance"]) >= wanted for one in shown)

                world.wait(counted, f"{desk.name}'s deposit")
            self.tell(desk, f"deposits {grouped(DEPOSIT)} {SYMBOL}; both sign the balance", kind="deposited")

    # -- reading -------------------------------------------------------------------------------------------------------

    def tell(self, desk: Desk, what: str, *, kind: str, more: Sequence[str] = (), **figures: Any) -> None:  # noqa: ANN401
        """An event with the channel's cash and version as they stand."""
        shown = self.world.see(desk)
        self.timeline.event(
            desk.name,
            what,
            kind=kind,
            cash=self.world.cash(shown),
            version=int(shown["version"]),
            more=tuple(more),
            **figures,
        )

    def fair(self, instrument: str, vol: str, carry: str = "0") -> str:
        """What an instrument is worth at the oracle's last print, to the cent, as a decimal string."""
        from channeld.core.instruments import parse_instrument  # noqa: PLC0415 - heavy
        from channeld.core.valuation import value  # noqa: PLC0415 - heavy

        world = self.world
        assert world.terms is not None  # noqa: S101 - a channel is open
        parsed = parse_instrument(instrument)
        now = world.now_ms() // 1000
        tick = now - now % world.terms.oracle.tick
        spot = expected.price(world.oracle, world.terms, parsed.feed, tick)
        volatility = parse_decimal(vol) if parsed.is_option else 0
        tau = max(0, parsed.expiry - now)
        exact = value(parsed.kind, spot, parsed.strike, parse_decimal(carry), volatility, tau)
        return format_decimal(exact - exact % CENT)

    # -- trading -------------------------------------------------------------------------------------------------------

    def trade(self, desk: Desk, legs: list[Leg], what: str, *, by_hand: bool = False, kind: str = "trade") -> None:
        """Propose a trade and wait until both desks have signed it; by_hand: the peer's trader accepts it."""
        world, timeline = self.world, self.timeline
        peer = world.taker if desk is world.maker else world.maker
        with timeline.waiting(f"{desk.name} trades"):
            if by_hand:
                result = self._by_hand(desk, peer, legs)
            else:
                result = desk.call("private/trade", channel=world.channel, legs=legs, wait_s=20)
                if result["status"] != "done":
                    message = f"a trade of the demo ended as {result['status']}: {result.get('reason')}"
                    raise ServiceError(message, advice="Run it again with --keep DIR, and read the logs there.")
            world.agreed(int(result["version"]))
        means = premium_lines(result.get("premium"), legs, reduces=kind != "trade")
        self.tell(desk, what, kind=kind, more=means, legs=legs)

    def _by_hand(self, desk: Desk, peer: Desk, legs: list[Leg]) -> dict[str, Any]:
        """The peer accepts nothing by itself: its trader looks at the offer, and accepts it."""
        world, timeline = self.world, self.timeline
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pending = pool.submit(
                lambda: desk.call("private/trade", channel=world.channel, legs=legs, wait_s=30, timeout=60)
            )
            offered = world.wait(
                lambda: (
                    pending.done()
                    or [one for one in peer.call("private/offers") if one.get("direction") in ("in", "incoming", None)]
                ),
                "the offer",
            )
            if offered is not True:
                timeline.event(
                    peer.name,
                    f"sees {desk.name}'s offer, and accepts it by hand, the default",
                    kind="offer",
                )
                peer.call("private/offer_accept", id=offered[0]["id"])
            result: dict[str, Any] = pending.result(timeout=60)
        if result["status"] != "done":
            message = f"a trade of the demo ended as {result['status']}: {result.get('reason')}"
            raise ServiceError(message, advice="Run it again with --keep DIR, and read the logs there.")
        return result

    def refused(self, desk: Desk, legs: list[Leg], what: str) -> None:
        """A trade that initial margin does not allow: it must be refused, with the figures."""
        before = self.world.see(desk)["version"]
        try:
            result = desk.call("private/trade", channel=self.world.channel, legs=legs, wait_s=20)
        except RemoteError as error:
            details = {name: str(value) for name, value in error.details.items()}
            self.tell(
                desk,
                f"{what}: refused",
                kind="trade_refused",
                more=[self._in_words(error)],
                code=error.remote_code,
                error=error.name,
                details=details,
            )
            if self.world.see(desk)["version"] == before:
                return
            message = "a refused trade changed the channel"
            raise ServiceError(message) from None
        message = f"a trade beyond initial margin was not refused: {result}"
        raise ServiceError(message)

    def _in_words(self, error: RemoteError) -> str:
        """A refusal by margin, with the desk's name and figures as people read them."""
        told = {name: grouped(str(value)) for name, value in error.details.items()}
        if not {"equity", "initial_margin", "maintenance_margin"} <= set(told):
            return str(error)
        party = "taker" if error.details.get("party") == "b" else "maker"
        return (
            f"{party} would have equity {told['equity']} below its initial margin {told['initial_margin']} "
            f"(maintenance {told['maintenance_margin']})"
        )

    def audit(self) -> tuple[str, str]:
        """Have both desks replay their journals, and replay them here as well; the balances of a and b they give."""
        world = self.world
        for desk in world.desks:
            # what was signed a moment ago is on its way to the disk, and an audit reads the disk
            world.wait(
                lambda desk=desk: desk.call("private/audit", channel=world.channel, timeout=120)["replayed"],  # type: ignore[misc]
                f"{desk.name}'s audit",
                10,
            )
        told = [expected.replayed(desk, world.channel) for desk in world.desks]
        if told[0] != told[1]:
            message = f"the desks' journals disagree: {told[0]} and {told[1]}"
            raise ServiceError(message)
        versions, balances = told[0]
        self.tell(
            world.maker,
            f"three replays of the journal agree: {versions} versions",
            kind="audited",
            more=("both daemons replayed theirs from version 0, and this process what the daemons gave it",),
        )
        return balances

    def open_positions(self) -> None:
        """The first trades: a call by hand; then, by the maker's policy, a put spread as one combo and a perpetual."""
        world = self.world
        premium = self.fair(self.call, VOL)
        self.trade(
            world.taker,
            [{"instrument": self.call, "size": "100", "price": premium, "vol": VOL, "carry": "0"}],
            f"buys 100 {self.call} at {grouped(premium)}",
            by_hand=True,
        )
        world.maker.call("private/policy_set", peer="taker", auto_accept=True, max_notional="5000000")
        self.timeline.event("maker", "now accepts taker's trades up to 5,000,000 by policy", kind="policy")
        high, low = self.puts
        first, second = self.fair(high, SKEW_VOL), self.fair(low, SKEW_VOL)
        spread = format_decimal(parse_decimal(first) - parse_decimal(second))
        self.trade(
            world.taker,
            [
                {"instrument": high, "size": "150", "price": first, "vol": SKEW_VOL, "carry": "0"},
                {"instrument": low, "size": "-150", "price": second, "vol": SKEW_VOL, "carry": "0"},
            ],
            f"buys 150 put spreads {high[:-2]}/{low.split('-')[2]} at {grouped(spread)}",
        )
        spot = self.fair("BTC-PERP", "0")
        self.trade(
            world.taker,
            [{"instrument": "BTC-PERP", "size": "4", "price": spot, "carry": FUNDING}],
            f"buys 4 BTC-PERP at {grouped(spot)}",
        )

    def pay(self, desk: Desk, amount: str, memo: str) -> None:
        """A payment to the peer."""
        with self.timeline.waiting(f"{desk.name} pays"):
            result = desk.call("private/transfer", channel=self.world.channel, amount=amount, memo=memo)
            self.world.agreed(int(result["version"]))
        self.tell(desk, f"pays {grouped(amount)} {SYMBOL} for {memo}", kind="payment")

    # -- marks ---------------------------------------------------------------------------------------------------------

    def mark(self, second: int) -> None:
        """Live until a second, be marked there, and tell what moved: prices, cash, funding, and what expired."""
        from channeld.core.files import body_from_json  # noqa: PLC0415 - heavy
        from channeld.core.instruments import instrument_name  # noqa: PLC0415 - heavy
        from channeld.core.terms import feed_id  # noqa: PLC0415 - small
        from channeld.core.valuation import funding  # noqa: PLC0415 - heavy

        world = self.world
        assert world.terms is not None  # noqa: S101 - a channel is open
        before, after = world.mark(second, self.timeline)
        old, new = body_from_json(before["body"]), body_from_json(after["body"])
        prices = {
            name: format_decimal(expected.price(world.oracle, world.terms, feed_id(name), new.as_of))
            for name in ("ETH", "BTC")
        }
        moved = new.b.balance - old.b.balance
        accrued = sum(
            funding(p.size, p.mark, p.carry, new.as_of - old.as_of) for p in old.positions if not p.instrument.expiry
        )
        more = []
        if accrued:
            paid = format_decimal(abs(accrued), places=2)
            more.append(f"funding of {grouped(paid)} {SYMBOL} went to {'taker' if accrued > 0 else 'maker'}")
        left = {p.key for p in new.positions}
        for position in old.positions:
            i = position.instrument
            if i.expiry and i.expiry <= new.as_of and position.key not in left:
                at = expected.fix(world.oracle, world.terms, i.feed, i.expiry)
                more.append(f"{instrument_name(i)} expired and was settled at its fix {grouped(format_decimal(at))}")
        self.tell(
            world.maker,
            f"marked at ETH {grouped(prices['ETH'])}, BTC {grouped(prices['BTC'])}: "
            f"{'taker' if moved >= 0 else 'maker'} gains {grouped(format_decimal(abs(moved), DECIMALS))}",
            kind="expired" if any("expired" in line for line in more) else "marked",
            more=more,
            prices=prices,
            moved_to_b=format_decimal(moved, DECIMALS),
            funding=format_decimal(accrued),
            as_of=new.as_of,
        )

    def close_out(self) -> None:
        """Trade everything that is left back, at its marks."""
        world = self.world
        held = world.taker.call("private/positions", channel=world.channel)
        legs = []
        for one in held:
            mark = parse_decimal(str(one["mark"]))
            size = str(one["size"])
            legs.append(
                {
                    "instrument": str(one["instrument"]),
                    "size": size[1:] if size.startswith("-") else f"-{size}",
                    "price": format_decimal(mark - mark % CENT),
                }
            )
        self.trade(world.taker, legs, f"closes out {len(legs)} positions in one trade", kind="closed_out")


def premium_lines(premium: dict[str, Any] | None, legs: Sequence[Leg], *, reduces: bool) -> list[str]:
    """What a trade means, in a line: premium, cash now, margin now, most you can lose.

    A trade that only reduces is told by its margin alone: its own worst case is not the desk's.
    """
    if not premium:
        return []
    told = premium_facts(premium, [leg["instrument"] for leg in legs])
    if reduces:
        told = {name: told[name] for name in ("cash now", "margin now") if name in told}
    return ["; ".join(f"{name} {figure}" for name, figure in told.items())]
