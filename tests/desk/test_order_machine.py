"""The order machine against a model of the world: peers, fills, prices and crashes at any point.

The world is the truth: what was sent to a channel, what was filled there, and the positions. The machine sees of it
what its shell tells, and is rebuilt from its journal after every crash. The model judges by the world alone.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, replace
from itertools import count

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from strategies import ETH, perpetual

from channeld.core.errors import ChanneldError
from channeld.core.wad import WAD
from channeld.desk.aggregated_book import AggregatedBook
from channeld.desk.order_machine import Blotter, LabelUsedError, OrderRefusedError, UnknownOrderError
from channeld.desk.order_types import (
    LIVE,
    Filled,
    Force,
    Kind,
    OrderJournalError,
    OrderSpec,
    OrderSpecError,
    Placed,
    Routed,
    Side,
    Source,
    Status,
    Trigger,
    TriggerKind,
    pack_events,
    unpack_events,
)

PERP = perpetual()
CHANNELS = tuple(bytes([n]) * 32 for n in (1, 2, 3))
ROOM = 40

prices = st.integers(97, 103)
sizes = st.integers(1, 20)
flags = st.booleans()
sides = st.sampled_from(list(Side))
sources = st.sampled_from(list(Source))
crashes = st.sampled_from(["", "", "", "", "before the commit", "before acting"])
triggers = st.one_of(
    st.builds(Trigger, st.sampled_from([TriggerKind.STOP, TriggerKind.TAKE]), sources, prices.map(lambda p: p * WAD)),
    st.builds(
        Trigger,
        st.just(TriggerKind.TRAIL),
        sources,
        st.one_of(st.just(0), prices.map(lambda p: p * WAD)),
        st.integers(1, 9).map(lambda n: n * WAD),
    ),
    st.builds(
        Trigger,
        st.just(TriggerKind.TRAIL),
        sources,
        st.just(0),
        st.integers(1, 9).map(lambda n: n * WAD // 100),
        st.just(True),
    ),
)


@st.composite
def specs(draw, side=sides, size=sizes, reduce_only=flags, post_only=flags) -> OrderSpec:
    kind = draw(st.sampled_from([Kind.LIMIT, Kind.LIMIT, Kind.MARKET]))
    shown = kind is Kind.LIMIT and draw(post_only)
    force = draw(st.sampled_from([Force.GTC, Force.GTD] if shown else [Force.GTC, *Force]))
    return OrderSpec(
        label="to be given",
        instrument=PERP,
        side=draw(side),
        size=draw(size) * WAD,
        kind=kind,
        limit=draw(prices) * WAD if kind is Kind.LIMIT else 0,
        slippage=draw(st.integers(0, 5)) * WAD // 100 if kind is Kind.MARKET else 0,
        force=force,
        until_ms=draw(st.integers(1, 60)) if force is Force.GTD else 0,
        post_only=shown,
        reduce_only=draw(reduce_only),
        cancel_on_disconnect=draw(st.booleans()),
        trigger=draw(st.one_of(st.none(), st.none(), triggers)),
        channels=draw(st.sampled_from([(), (), (), CHANNELS[:1], CHANNELS[1:]])),
    )


def snapshot(blotter: Blotter):
    """Everything the machine holds, comparable."""
    busy = {key: size for key, size in blotter._busy.items() if size}
    reducing = {key: size for key, size in blotter._reducing.items() if size}
    return (
        {n: asdict(order) for n, order in blotter.orders.items()},
        {r: asdict(route) for r, route in blotter.routes.items()},
        set(blotter._live),
        (busy, reducing, blotter._labels, blotter._groups, blotter._children, blotter.last_number),
    )


class OrdersInTheWorld(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.now = 1
        self.routes = count(1)
        self.labels = count(1)
        self.sequence = count(1)
        self.journal: list[bytes] = []
        self.blotter = self.fresh()
        self.book = AggregatedBook()
        # the world
        self.positions: dict[bytes, int] = defaultdict(int)
        self.sent: dict[bytes, Routed] = {}
        self.outcome: dict[bytes, bool] = {}
        self.fills: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self.placed: dict[int, Placed] = {}
        self.levels: dict[int, int] = {}
        self.limits: dict[int, int] = {}

    def fresh(self) -> Blotter:
        return Blotter(lambda: next(self.routes).to_bytes(16, "big"))

    def position(self, channel, _instrument) -> int:
        return self.positions[channel]

    # ------------------------------------------------------------------------------------------- the shell

    def run(self, operation, crash: str = "") -> bool:
        """One operation of the shell: decide, commit, act; crashing where told. Whether it was committed."""
        events = operation()
        if crash == "before the commit":
            self.restart()
            return False
        if events:
            self.journal.append(pack_events(events))
        for event in events:
            if isinstance(event, Placed):
                self.placed[event.order] = event
        if crash == "before acting":
            self.restart()
            return True
        for event in events:
            if isinstance(event, Routed):
                assert event.route not in self.sent, "sent twice"
                self.sent[event.route] = event
        return True

    def restart(self) -> None:
        """Rebuild from the journal, then ask the channels what became of the routes on their way."""
        self.blotter = self.fresh()
        for raw in self.journal:
            self.blotter.restore(unpack_events(raw))
        for route in list(self.blotter.routes):
            if route not in self.sent:
                self.run(lambda r=route: self.blotter.failed(r, "never sent", self.now))
            elif route in self.outcome:
                self.tell(route)

    def tell(self, route: bytes) -> None:
        if self.outcome[route]:
            self.run(lambda: self.blotter.filled(route, 1, self.now))
        else:
            self.run(lambda: self.blotter.failed(route, "refused", self.now))

    # ------------------------------------------------------------------------------------------- what may happen

    @initialize(longs=st.lists(st.integers(-25, 25), min_size=3, max_size=3))
    def begin(self, longs):
        self.positions.update({c: n * WAD for c, n in zip(CHANNELS, longs, strict=True)})
        for channel in CHANNELS:
            self.book.set_capacity(channel, PERP, ROOM * WAD, ROOM * WAD)
            self.book.update(
                channel, PERP, next(self.sequence), ((99 * WAD, 12 * WAD),), ((101 * WAD, 12 * WAD),), 10**6
            )

    def labelled(self, spec: OrderSpec) -> OrderSpec:
        until = spec.until_ms + self.now if spec.force is Force.GTD else 0
        return replace(spec, label=f"order {next(self.labels)}", until_ms=until)

    @rule(spec=specs(), crash=crashes)
    def place(self, spec, crash):
        mine = self.labelled(spec)
        if not self.run(lambda: self.blotter.place(mine, self.now)[1], crash):
            # the client had no answer: it asks again under the same label, and has one order
            self.run(lambda: self.blotter.place(mine, self.now)[1])
        assert self.blotter.place(mine, self.now) == (self.blotter.by_label(mine.label).number, ())
        with pytest.raises(LabelUsedError):
            self.blotter.place(replace(mine, size=mine.size + 1), self.now)
        self.work()

    @rule(first=specs(post_only=st.just(False)), second=specs(post_only=st.just(False)), crash=crashes)
    def place_oco(self, first, second, crash):
        pair = self.labelled(first), self.labelled(second)
        self.run(lambda: self.blotter.place_oco(*pair, self.now)[1], crash)
        self.work()

    @rule(
        entry=specs(),
        exits=st.tuples(*[specs(post_only=st.just(False), reduce_only=st.just(True))] * 2),
        crash=crashes,
    )
    def place_bracket(self, entry, exits, crash):
        ours = [self.labelled(s) for s in (entry, *exits)]
        two = [replace(s, side=Side(-entry.side), size=entry.size) for s in ours[1:]]
        self.run(lambda: self.blotter.place_bracket(ours[0], *two, self.now)[1], crash)
        self.work()

    @rule(
        channel=st.sampled_from(CHANNELS),
        middle=prices,
        bids=st.lists(sizes, max_size=2),
        asks=st.lists(sizes, max_size=2),
        life=st.integers(0, 30),
        crash=crashes,
    )
    def stream(self, channel, middle, bids, asks, life, crash):
        """A peer streams; the desk works its orders at once."""
        buy = tuple(((middle - 1 - n) * WAD, size * WAD) for n, size in enumerate(bids))
        sell = tuple(((middle + 1 + n) * WAD, size * WAD) for n, size in enumerate(asks))
        assert self.book.update(channel, PERP, next(self.sequence), buy, sell, self.now + life)
        self.work(crash)

    def work(self, crash=""):
        self.run(lambda: self.blotter.work(self.book, self.position, self.now), crash)

    @rule(source=sources, price=prices, crash=crashes)
    def price_moves(self, source, price, crash):
        what = ETH if source is Source.INDEX else PERP
        self.run(lambda: self.blotter.observe(source, what, price * WAD, self.now), crash)
        self.work()

    @rule(
        what=st.sampled_from(["time", "time", "margin", "cancel", "cancel", "client", "crash"]),
        channel=st.sampled_from(CHANNELS),
        room=st.integers(0, ROOM),
        crash=crashes,
    )
    def other_things(self, what, channel, room, crash):
        if what == "time":
            self.now += room // 3
            self.run(lambda: self.blotter.tick(self.now), crash)
        elif what == "margin":
            self.book.set_capacity(channel, PERP, room * WAD, (ROOM - room) * WAD)
        elif what == "client":
            self.run(lambda: self.blotter.disconnected(self.now, "gone"), crash)
        elif what == "cancel" and self.placed:
            self.run(lambda: self.blotter.cancel(1 + room % len(self.placed), self.now), crash)
        elif what == "crash":
            before = snapshot(self.blotter)
            sent = all(route in self.sent for route in self.blotter.routes)
            self.restart()
            assert snapshot(self.blotter) == before or not sent

    @precondition(lambda self: any(order.rested and order.live for order in self.blotter.orders.values()))
    @rule(data=st.data(), size=sizes, channel=st.sampled_from(CHANNELS), crash=crashes)
    def peer_takes(self, data, size, channel, crash):
        number = data.draw(st.sampled_from([o.number for o in self.blotter.live() if o.rested]))
        order = self.blotter.order(number)
        most = self.blotter.shown_size(order, channel, self.position)
        assert (order in self.blotter.shown(channel)) == (order.stopping is None and self.allowed(order, channel))
        route = next(self.routes).to_bytes(16, "big")
        take = lambda: self.blotter.reserve(number, route, channel, size * WAD, self.position, self.now)  # noqa: E731 - told to the shell
        if size * WAD > most or order.stopping is not None:
            with pytest.raises(ChanneldError):
                take()
        else:
            self.run(take, crash)

    @staticmethod
    def allowed(order, channel) -> bool:
        return not order.spec.channels or channel in order.spec.channels

    def on_way(self) -> list[bytes]:
        return [route for route in self.sent if route not in self.outcome]

    @precondition(lambda self: self.on_way())
    @rule(first=st.booleans(), outcomes=st.lists(st.sampled_from([True, True, False]), min_size=1, max_size=4))
    def answers(self, first, outcomes):
        for success in outcomes:
            if self.on_way():
                self.answer(self.on_way()[0 if first else -1], success, "")

    @precondition(lambda self: self.on_way())
    @rule(success=st.booleans())
    def answered_in_a_crash(self, success):
        self.answer(self.on_way()[0], success, "crash")

    def answer(self, route, success, crash):
        """A channel signs a route, or refuses it; the daemon may crash before it has told its orders."""
        event, self.outcome[route] = self.sent[route], success
        if success:
            spec = self.placed[event.order].spec
            before = self.positions[event.channel]
            after = self.positions[event.channel] = before + spec.side * event.size
            self.fills[event.order].append((event.size, event.price))
            if spec.reduce_only:
                assert abs(after) < abs(before), "reduce-only increased"
                assert after * before >= 0, "reduce-only turned the position"
        if crash:
            self.restart()
        else:
            self.tell(route)
            assert self.blotter.filled(route, 9, self.now) == ()
            self.work()

    # ------------------------------------------------------------------------------------------- what must hold

    @invariant()
    def nothing_beyond_size_or_limit(self):
        for number, fills in self.fills.items():
            spec, order = self.placed[number].spec, self.blotter.order(number)
            assert sum(size for size, _ in fills) <= spec.size
            limit = order.limit
            assert limit is not None
            assert all(spec.side * price <= spec.side * limit for _, price in fills)
            assert self.limits.setdefault(number, limit) == limit, "the limit moved"
            if spec.post_only:
                assert all(price == spec.limit for _, price in fills)

    @invariant()
    def what_is_filled_is_known_once(self):
        for number, order in self.blotter.orders.items():
            told = [r for r, ok in self.outcome.items() if ok and self.sent[r].order == number]
            assert order.filled == sum(self.sent[r].size for r in told) == sum(s for s, _ in self.fills.get(number, ()))
            working = sum(route.size for route in self.blotter.routes.values() if route.order == number)
            assert order.working == working
            assert order.filled + order.working <= order.spec.size
            assert order.live or not working
            assert (order.status is Status.FILLED) <= (order.filled > 0)
            assert order.stopping is None or not order.live or working

    @invariant()
    def oco_never_fills_both(self):
        filled = defaultdict(set)
        for number, placed in self.placed.items():
            if placed.group and self.fills.get(number):
                filled[placed.group].add(number)
        assert all(len(numbers) <= 1 for numbers in filled.values())

    @invariant()
    def exits_never_exceed_their_entry(self):
        for placed in self.placed.values():
            if placed.parent:
                mine = sum(size for size, _ in self.fills.get(placed.order, ()))
                assert mine <= sum(size for size, _ in self.fills.get(placed.parent, ()))

    @invariant()
    def trailing_stops_never_loosen(self):
        for number, order in self.blotter.orders.items():
            trigger, side = order.spec.trigger, order.spec.side
            if trigger is None or order.extreme is None or trigger.kind is not TriggerKind.TRAIL:
                continue
            level = trigger.level(side, order.extreme)
            held = self.levels.setdefault(number, level)
            assert level <= held if side is Side.BUY else level >= held
            self.levels[number] = level

    def teardown(self):
        again = Blotter(lambda: b"")
        for raw in self.journal:
            again.restore(unpack_events(raw))
        assert snapshot(again) == snapshot(self.blotter)


TestOrdersInTheWorld = OrdersInTheWorld.TestCase
TestOrdersInTheWorld.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


# ----------------------------------------------------------------------------------------------------- examples


class Market:
    """A blotter, a book and positions, for examples."""

    def __init__(self, **positions: int):
        self.routes = count(1)
        self.blotter = Blotter(lambda: next(self.routes).to_bytes(16, "big"))
        self.book = AggregatedBook()
        self.long = {CHANNELS[int(name[1:])]: size * WAD for name, size in positions.items()}
        self.sequence = count(1)
        for channel in CHANNELS:
            self.book.set_capacity(channel, PERP, ROOM * WAD, ROOM * WAD)

    def stream(self, channel: int, bid: int, ask: int, size: int = 10):
        self.book.update(
            CHANNELS[channel], PERP, next(self.sequence), ((bid * WAD, size * WAD),), ((ask * WAD, size * WAD),), 10**9
        )

    def place(self, side=Side.BUY, size=10, now=0, **fields) -> int:
        fields = {"limit": 100 * WAD, **fields} if fields.get("kind") is not Kind.MARKET else fields
        return self.blotter.place(OrderSpec(f"l{next(self.routes)}", PERP, side, size * WAD, **fields), now)[0]

    def work(self) -> list[Routed]:
        events = self.blotter.work(self.book, lambda c, _: self.long.get(c, 0), 1)
        return [e for e in events if isinstance(e, Routed)]

    def fill(self, routed: list[Routed]) -> None:
        for event in routed:
            self.blotter.filled(event.route, 1, 2)

    def status(self, number: int) -> Status:
        return self.blotter.order(number).status


def test_a_sweep_takes_the_best_price_first_across_channels():
    market = Market()
    market.stream(0, 98, 100, 4)
    market.stream(1, 97, 99, 4)
    market.stream(2, 97, 101, 4)
    number = market.place(size=10)
    routed = market.work()
    assert [(e.channel, e.size // WAD, e.price // WAD) for e in routed] == [
        (CHANNELS[1], 4, 99),
        (CHANNELS[0], 4, 100),
    ]
    market.fill(routed)
    order = market.blotter.order(number)
    assert (order.filled, order.status, order.average_price) == (8 * WAD, Status.OPEN, 995 * WAD // 10)


def test_fok_is_one_trade_in_one_channel_or_nothing():
    market = Market()
    market.stream(0, 90, 99, 6)
    market.stream(1, 90, 99, 6)
    number = market.place(size=10, force=Force.FOK)
    assert market.work() == []
    assert market.status(number) is Status.CANCELLED
    market.stream(2, 90, 100, 10)
    whole = market.place(size=10, force=Force.FOK)
    (routed,) = market.work()
    assert (routed.channel, routed.size) == (CHANNELS[2], 10 * WAD)
    market.fill([routed])
    assert market.status(whole) is Status.FILLED


def test_ioc_keeps_what_it_got_and_ends():
    market = Market()
    market.stream(0, 90, 99, 6)
    number = market.place(size=10, force=Force.IOC)
    routed = market.work()
    assert market.status(number) is Status.OPEN
    market.fill(routed)
    order = market.blotter.order(number)
    assert (order.status, order.filled) == (Status.CANCELLED, 6 * WAD)


def test_a_market_order_is_bounded_by_its_slippage():
    market = Market()
    market.stream(0, 90, 100, 5)
    market.stream(1, 90, 102, 5)
    market.stream(2, 90, 103, 5)
    market.place(size=15, kind=Kind.MARKET, slippage=WAD // 50, force=Force.IOC)
    assert [e.price // WAD for e in market.work()] == [100, 102]


def test_a_stop_waits_for_a_book_and_works_then():
    market = Market()
    stop = Trigger(TriggerKind.STOP, Source.MARK, 95 * WAD)
    number = market.place(Side.SELL, kind=Kind.MARKET, trigger=stop)
    market.blotter.observe(Source.MARK, PERP, 96 * WAD, 0)
    assert market.status(number) is Status.ARMED
    market.blotter.observe(Source.INDEX, ETH, 90 * WAD, 0)
    assert market.status(number) is Status.ARMED
    market.blotter.observe(Source.MARK, PERP, 95 * WAD, 0)
    assert market.status(number) is Status.OPEN
    assert market.work() == []
    market.stream(0, 94, 96, 10)
    market.fill(market.work())
    assert market.status(number) is Status.FILLED


@pytest.mark.parametrize("relative", [False, True])
def test_a_trailing_stop_arms_ratchets_and_fires(relative):
    market = Market()
    distance = WAD // 50 if relative else 2 * WAD
    trail = Trigger(TriggerKind.TRAIL, Source.INDEX, 102 * WAD, distance, relative)
    number = market.place(Side.SELL, limit=90 * WAD, trigger=trail)
    order = market.blotter.order(number)
    for price, extreme in ((101, None), (97, None), (102, 102), (101, 102), (110, 110), (109, 110)):
        market.blotter.observe(Source.INDEX, ETH, price * WAD, 0)
        assert order.extreme == (extreme * WAD if extreme else None)
        assert order.status is Status.ARMED
    market.blotter.observe(Source.INDEX, ETH, (1078 * WAD if relative else 1080 * WAD) // 10, 5)
    assert order.status is Status.OPEN


def test_post_only_never_takes():
    market = Market()
    market.stream(0, 98, 100)
    taker, maker = market.place(limit=100 * WAD, post_only=True), market.place(limit=99 * WAD, post_only=True)
    assert market.work() == []
    assert market.status(taker) is Status.REJECTED
    assert [order.number for order in market.blotter.shown(CHANNELS[0])] == [maker]
    market.stream(1, 97, 98)
    assert market.work() == []
    assert market.status(maker) is Status.OPEN


def test_reduce_only_counts_what_is_on_its_way():
    market = Market(c0=10)
    market.stream(0, 100, 101, 8)
    first = market.place(Side.SELL, size=10, reduce_only=True)
    (routed,) = market.work()
    assert routed.size == 8 * WAD
    market.stream(0, 100, 101, 20)
    second = market.place(Side.SELL, size=30)
    assert [(e.order, e.size // WAD) for e in market.work()] == [(first, 2)]
    assert market.blotter.order(second).working == 0
    market.stream(1, 100, 101, 20)
    assert [(e.order, e.channel, e.size // WAD) for e in market.work()] == [(second, CHANNELS[1], 20)]


def test_a_bracket_protects_what_its_entry_got():
    market = Market()
    market.stream(0, 98, 100, 4)
    entry = OrderSpec("in", PERP, Side.BUY, 10 * WAD, limit=100 * WAD)
    take = OrderSpec("take", PERP, Side.SELL, 10 * WAD, limit=110 * WAD, reduce_only=True)
    stop = OrderSpec(
        "stop",
        PERP,
        Side.SELL,
        10 * WAD,
        Kind.MARKET,
        reduce_only=True,
        trigger=Trigger(TriggerKind.STOP, Source.LAST, 95 * WAD),
    )
    (one, two, three), _ = market.blotter.place_bracket(entry, take, stop, 0)
    assert (market.status(two), market.status(three)) == (Status.DORMANT, Status.DORMANT)
    market.fill(market.work())
    market.long[CHANNELS[0]] = 4 * WAD
    assert (market.status(two), market.status(three)) == (Status.OPEN, Status.ARMED)
    market.blotter.observe(Source.LAST, PERP, 95 * WAD, 0)
    market.stream(0, 94, 101, 10)
    (routed,) = market.work()
    assert (routed.order, routed.size) == (three, 4 * WAD)
    market.fill([routed])
    assert [market.status(n) for n in (one, two, three)] == [Status.CANCELLED, Status.CANCELLED, Status.FILLED]


def test_what_does_not_go_together_is_refused():
    blotter = Market().blotter
    plain = OrderSpec("one", PERP, Side.BUY, WAD, limit=WAD)
    with pytest.raises(OrderRefusedError, match="could fill both"):
        blotter.place_oco(plain, replace(plain, label="two", post_only=True), 0)
    with pytest.raises(LabelUsedError):
        blotter.place_oco(plain, plain, 0)
    exit_ = replace(plain, side=Side.SELL)
    with pytest.raises(OrderRefusedError, match="reduce-only"):
        blotter.place_bracket(plain, replace(exit_, label="two"), replace(exit_, label="three"), 0)
    with pytest.raises(OrderRefusedError, match="has passed"):
        blotter.place(replace(plain, force=Force.GTD, until_ms=1), 2)
    with pytest.raises(UnknownOrderError):
        blotter.cancel(1, 0)
    assert not blotter.orders


@pytest.mark.parametrize(
    "fields",
    [
        {"size": 0},
        {"limit": 0},
        {"kind": Kind.MARKET},
        {"slippage": 1},
        {"force": Force.GTD},
        {"until_ms": 5},
        {"force": Force.IOC, "post_only": True},
        {"label": ""},
        {"label": "x" * 65},
    ],
)
def test_an_order_whose_fields_do_not_go_together_is_none(fields):
    with pytest.raises(OrderSpecError):
        replace(OrderSpec("one", PERP, Side.BUY, WAD, limit=WAD), **fields)


@pytest.mark.parametrize("junk", [b"", b"{}", b"[1]", b'[{"event":"placed"}]', b'[{"event":"nothing","order":1}]'])
def test_a_damaged_journal_is_a_typed_error(junk):
    with pytest.raises(OrderJournalError):
        unpack_events(junk)


def test_every_status_is_live_or_over():
    assert set(Status) - LIVE == {Status.FILLED, Status.CANCELLED, Status.EXPIRED, Status.REJECTED}
    assert Filled(1, b"", 1, 1).order == 1
