"""What the API's methods give: made by scripts/make_client.py, not by hand.

Amounts, prices and sizes are decimal texts: `Decimal(row['balance'])`. A field that is not always there is
NotRequired.
"""
# ruff: noqa: D101 - each is named after its method, and docs/api.md says what is in it

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict


class AlertsWays(TypedDict):
    way: str
    severity: str
    waiting: int
    delivered: int
    dropped: int
    trouble: str


class Alerts(TypedDict):
    alerts: list[dict[str, Any]]
    ways: list[AlertsWays]


class AlertsTest(TypedDict):
    way: str
    severity: str
    outcome: str
    error: NotRequired[str | None]


class ApprovalReject(TypedDict):
    id: str
    method: str
    status: Literal["rejected"]


class Approvals(TypedDict):
    id: str
    method: str
    params: dict[str, Any]
    token: str
    token_id: str
    asked_ms: int
    expires_ms: int | None


class AuditExpected(TypedDict):
    a: str
    b: str


class Audit(TypedDict):
    replayed: bool
    versions: int
    version: int
    body_hash: str
    expected: AuditExpected


class AuditPageRows(TypedDict):
    version: int
    batch: str
    body_hash: str
    signature_a: str
    signature_b: str


class AuditPage(TypedDict):
    chain_id: int
    adjudicator: str
    channel: str
    terms: dict[str, Any]
    base: dict[str, Any] | None
    until: int
    rows: list[AuditPageRows]
    next: int


class Book(TypedDict):
    instrument: str
    best_bid: str | None
    best_ask: str | None
    bids: list[dict[str, Any]]
    asks: list[dict[str, Any]]
    shown: Any


class CallMargin(TypedDict):
    tx: str
    status: str


class Calls(TypedDict):
    id: str
    channel: str
    peer: str
    party: str
    ours: bool
    side: str
    version: int
    as_of: int
    issued: int
    deadline: int
    state: str
    reason: str | None
    amount: str
    agreed: NotRequired[str | None]
    delivered: NotRequired[str | None]
    equity: NotRequired[str]
    maintenance: NotRequired[str]
    initial: NotRequired[str]


class Challenge(TypedDict):
    tx: str
    status: str


class ChannelAccept(TypedDict):
    channel: str


class ChannelProposals(TypedDict):
    hash: str
    peer: str
    direction: Literal["in", "out"]
    status: Literal["pending", "accepted"]
    terms: dict[str, Any]
    summary: dict[str, Any]


class ChannelPropose(TypedDict):
    hash: str
    summary: dict[str, Any]


class Channels(TypedDict):
    channel: str
    peer: str
    side: Literal["a", "b"]
    status: Literal["opening", "open", "closing", "disputed", "closed"]
    version: int
    balance: str
    peer_balance: str
    sequencer: Literal["us", "peer"]
    positions: int
    deposited_on_chain: str
    waits_for: str
    free_equity: str | None
    safe_offline_until_ms: int | None
    tower: bool


class Close(TypedDict):
    version: int
    status: Literal["closing"]


class Compression(TypedDict):
    us: str
    legs: list[dict[str, Any]]
    gross_now: str
    gross_after: str
    refused: dict[str, Any] | None
    before: dict[str, dict[str, Any]] | None
    after: dict[str, dict[str, Any]] | None


class Deposit(TypedDict):
    tx: str
    status: str


class Dispute(TypedDict):
    phase: str
    dispute: NotRequired[int]
    deadline: NotRequired[int]
    fix_time: NotRequired[int]
    on_record: NotRequired[int]
    ours: NotRequired[int]
    next_step: str
    quote: NotRequired[dict[str, str] | None]


class Doctor(TypedDict):
    worst: str
    findings: list[dict[str, Any]]


class Events(TypedDict):
    next: int
    events: list[dict[str, Any]]


class ExpiriesExpiring(TypedDict):
    channel: str
    instrument: str
    size: str
    expiry: int
    seconds: int
    spot: str | None
    value: str | None
    distance: str | None
    one_deviation: str | None
    pinned: bool


class ExpiriesSettled(TypedDict):
    channel: str
    time_ms: int
    version: int
    instrument: str
    size: str
    mark: str
    fix: str | None
    settled_gain: str
    flagged: bool


class Expiries(TypedDict):
    expiring: list[ExpiriesExpiring]
    settled: list[ExpiriesSettled]


class Greeks(TypedDict):
    positions: list[dict[str, Any]]
    expiries: list[dict[str, Any]]
    channels: list[dict[str, Any]]
    desk: list[dict[str, Any]]


class JournalBalances(TypedDict):
    a: str
    b: str


class Journal(TypedDict):
    version: int
    batch: str
    time_ms: int
    operations: list[dict[str, Any]]
    balances: JournalBalances


class LimitsUse(TypedDict):
    notional: str
    vega: Any
    positions: int
    most_positions: int
    expiries: int
    most_expiries: int


class LimitsMargin(TypedDict):
    equity: str
    initial_margin: str
    maintenance_margin: str
    free: str
    used: str | None


class LimitsUnsettled(TypedDict):
    profit: str
    of_balance: str | None


class LimitsOracle(TypedDict):
    feed: str
    age_s: float | None
    max_age_s: int


class Limits(TypedDict):
    channel: str
    peer: str
    policy: dict[str, Any]
    use: LimitsUse
    margin: LimitsMargin
    unsettled: LimitsUnsettled
    oracle: list[LimitsOracle]


class MarginPartyMarketsLegs(TypedDict):
    instrument: str
    size: str
    value: str | None
    value_then: str
    profit: str
    weighted: str
    counts: bool


class MarginPartyMarketsScenarios(TypedDict):
    scenario: str
    price: str
    vol_factor: str
    weight: str
    profit: str
    without_near: str
    without_near_initial: str
    weighted: str


class MarginPartyMarkets(TypedDict):
    market: str
    price: str
    scan_risk: str
    spread_charge: str
    maintenance_margin: str
    worst_loss: str
    initial_margin: str
    worst_scenario: str
    near_counts: bool
    legs: list[MarginPartyMarketsLegs]
    scenarios: list[MarginPartyMarketsScenarios]


class MarginParty(TypedDict):
    equity: str
    initial_margin: str
    maintenance_margin: str
    free: str
    profit: str
    profit_in_collateral: str
    equity_in_collateral: str
    markets: list[MarginPartyMarkets]


class Margin(TypedDict):
    time: int
    us: Literal["a", "b"]
    prices: dict[str, str]
    a: MarginParty
    b: MarginParty


class Mark(TypedDict):
    version: int
    as_of: int
    prices: dict[str, str]


class MarketSet(TypedDict):
    instrument: str
    valid_until_ms: int


class Novate(TypedDict):
    status: str
    cost: str | None
    taken: list[dict[str, Any]]
    parts: list[dict[str, Any]]


class OfferAccept(TypedDict):
    id: str
    status: Literal["done", "agreed"]
    version: int


class OfferReject(TypedDict):
    id: str
    status: Literal["refused"]


class Offers(TypedDict):
    id: str
    peer: str
    channel: str
    direction: Literal["in", "out"]
    valid_until_ms: int
    operation: str
    origin: str
    by: str
    legs: NotRequired[list[dict[str, Any]]]
    fee_paid: NotRequired[str]
    reference: NotRequired[str]


class OperatorLogEntries(TypedDict):
    number: int
    time_ms: int
    token: str
    token_id: str
    method: str
    outcome: str
    before: Any
    hash: str


class OperatorLog(TypedDict):
    entries: list[OperatorLogEntries]
    number: int
    hash: str


class Order(TypedDict):
    id: int
    label: str | None
    instrument: str
    side: str
    size: str
    type: str
    limit: str | None
    force: str
    post_only: bool
    reduce_only: bool
    status: str
    filled: str
    working: str
    average_price: str | None
    reason: str | None
    group: int | None
    entry: Any
    trigger: dict[str, Any] | None


class OrderCancelAfter(TypedDict):
    cancel_at_ms: int


class OrderCancelAll(TypedDict):
    stopped: int


class PeerAdd(TypedDict):
    name: str
    address: str
    connected: bool


class Peers(TypedDict):
    name: str
    address: str
    url: str
    connected: bool
    last_error: str


class PolicySet(TypedDict):
    peer: str
    auto_accept: bool
    max_notional: str | None
    instruments: list[str] | None
    price_band: str | None
    vol_band: str
    carry_band: str
    sizes: list[dict[str, str]]
    never: dict[str, Any] | None
    words: list[str]


class Positions(TypedDict):
    channel: str
    instrument: str
    size: str
    mark: str
    value_now: str | None
    profit_now: str | None
    vol: str | None
    carry: str
    expiry_ms: int | None


Profit = TypedDict(
    "Profit", {"from": int, "to": int, "intervals": int, "rows": list[dict[str, Any]], "total": dict[str, Any]}
)


class QuotePass(TypedDict):
    rfq: str
    status: Literal["passed"]


class QuotesBrokenBroken(TypedDict):
    id: str
    peer: str
    time_ms: int
    code: int
    reason: str | None
    quote: dict[str, Any]
    legs: list[dict[str, Any]]
    batch: str
    maker_signature: str
    taker_signature: str


class QuotesBroken(TypedDict):
    count: dict[str, int]
    broken: list[QuotesBrokenBroken]


class Resume(TypedDict):
    dispute: int
    valid_until: int
    status: str


class Rfq(TypedDict):
    rfq: str
    instrument: str
    size: str
    side: str
    all_or_none: bool
    valid_until_ms: int
    asked: Any
    waiting: Any
    passed: Any
    quotes: list[dict[str, Any]]
    taken: list[dict[str, Any]]


class Rfqs(TypedDict):
    ours: list[dict[str, Any]]
    theirs: list[dict[str, Any]]
    given: list[dict[str, Any]]


class Scenario(TypedDict):
    spot_moves: list[str]
    vol_moves: list[str]
    days: Any
    profit: list[list[Any]]
    worst: dict[str, Any]


class Shutdown(TypedDict):
    status: Literal["stopping"]


class StatusChain(TypedDict):
    url: str
    chain_id: int | None
    adjudicator: str | None
    block: int
    time: int
    lag_s: float
    trouble: str


class Status(TypedDict):
    name: str
    address: str
    payout: str
    version: str
    protocol: int
    time_ms: int
    chain: StatusChain
    peers: list[Peers]
    channels: list[dict[str, Any]]
    alerts: list[dict[str, Any]]


class SurfacePositions(TypedDict):
    instrument: str
    feed: str
    vol: str | None
    own_vol: Any
    vol_band: Any
    carry: str
    own_carry: Any


class Surface(TypedDict):
    surface: dict[str, Any]
    positions: list[SurfacePositions]


class TokenCreate(TypedDict):
    id: str
    name: str
    scopes: list[str]
    created_ms: int
    expires_ms: int | None
    token: str


class TokenRevoke(TypedDict):
    id: str
    name: str
    scopes: list[str]
    created_ms: int
    expires_ms: int | None
    status: Literal["revoked"]


class Tokens(TypedDict):
    id: str
    name: str
    scopes: list[str]
    created_ms: int
    expires_ms: int | None
    expired: bool


class Towers(TypedDict):
    tower: bool
    address: str
    trouble: str
    age_s: float | None
    blocks_behind: int | None
    channels: list[dict[str, Any]]


class TradePremium(TypedDict):
    cash_now: str
    value_of_premium: str
    margin_now: str
    most_you_can_lose: str | None


class Trade(TypedDict):
    id: str
    status: Literal["done", "pending", "rejected"]
    premium: TradePremium
    legs: list[dict[str, Any]]
    version: NotRequired[int]
    valid_until_ms: NotRequired[int]
    reason: NotRequired[str | None]
    code: NotRequired[int]


class Transfer(TypedDict):
    version: int


class VolsSet(TypedDict):
    vols: int
    carries: int
    channels: int


class WhatIf(TypedDict):
    us: str
    legs: list[dict[str, Any]]
    refused: dict[str, Any] | None
    before: dict[str, dict[str, Any]]
    after: dict[str, dict[str, Any]] | None
    last_unit: dict[str, dict[str, Any]] | None
    largest: list[dict[str, Any]]


class Withdraw(TypedDict):
    version: int
    status: str


class Schema(TypedDict):
    openrpc: str
    info: dict[str, Any]
    methods: list[dict[str, Any]]


class Time(TypedDict):
    time_ms: int
    chain_time: int
    block: int | None


class ChannelChain(TypedDict):
    phase: str
    deposited_a: str
    deposited_b: str
    paid_a: str
    paid_b: str
    floor_version: int


class ChannelDispute(TypedDict):
    number: int
    version: int
    deadline: int


class ChannelPaid(TypedDict):
    a: str
    b: str


class Channel(Channels):
    terms: dict[str, Any]
    chain_id: int
    adjudicator: str
    body: dict[str, Any]
    body_hash: str
    signature_a: str
    signature_b: str
    pending: list[int]
    frozen: str
    chain: ChannelChain | None
    dispute: ChannelDispute | None
    paid: NotRequired[ChannelPaid | None]
