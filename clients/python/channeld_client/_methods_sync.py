"""The API's methods, blocking: made by scripts/make_client.py, not by hand."""
# ruff: noqa: A002, ANN401 - parameters have the API's own names; what has no shape of its own is any JSON

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from channeld_client.requests import Amount
    from channeld_client.results import (
        Alerts,
        AlertsTest,
        ApprovalReject,
        Approvals,
        Audit,
        AuditPage,
        Book,
        CallMargin,
        Calls,
        Challenge,
        Channel,
        ChannelAccept,
        ChannelProposals,
        ChannelPropose,
        Channels,
        Close,
        Compression,
        Deposit,
        Dispute,
        Doctor,
        Events,
        Expiries,
        Greeks,
        Journal,
        Limits,
        Margin,
        Mark,
        MarketSet,
        Novate,
        OfferAccept,
        OfferReject,
        Offers,
        OperatorLog,
        Order,
        OrderCancelAfter,
        OrderCancelAll,
        PeerAdd,
        Peers,
        PolicySet,
        Positions,
        Profit,
        QuotePass,
        QuotesBroken,
        Resume,
        Rfq,
        Rfqs,
        Scenario,
        Schema,
        Shutdown,
        Status,
        Surface,
        Time,
        TokenCreate,
        TokenRevoke,
        Tokens,
        Towers,
        Trade,
        Transfer,
        VolsSet,
        WhatIf,
        Withdraw,
    )


class SyncMethods:
    """One Python method for each of the API, with the API's own names."""

    def _ask(self, method: str, params: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    def alerts(
        self,
    ) -> Alerts:
        """No parameters."""
        result: Alerts = self._ask("private/alerts", {})
        return result

    def alerts_test(self, *, severity: str | None = None) -> list[AlertsTest]:
        """Send a test alert by every way, now, once.

        Never repeated by itself.
        """
        result: list[AlertsTest] = self._ask("private/alerts_test", {"severity": severity})
        return result

    def approval_reject(self, *, id: str) -> ApprovalReject:
        """Throw a request away.

        Never repeated by itself.
        """
        result: ApprovalReject = self._ask("private/approval_reject", {"id": id})
        return result

    def approvals(
        self,
    ) -> list[Approvals]:
        """No parameters."""
        result: list[Approvals] = self._ask("private/approvals", {})
        return result

    def approve(self, *, id: str) -> Any:
        """Carry out what another token has asked for, as it was asked for, once.

        Never repeated by itself.
        """
        result: Any = self._ask("private/approve", {"id": id})
        return result

    def audit(self, *, channel: str) -> Audit:
        """Replay every batch from version 0 and compare with what is co-signed."""
        result: Audit = self._ask("private/audit", {"channel": channel})
        return result

    def audit_page(
        self, *, channel: str, after: int | None = None, until: int | None = None, limit: int | None = None
    ) -> AuditPage:
        """What an audit file is made of (audit.md), a page at a time."""
        result: AuditPage = self._ask(
            "private/audit_page", {"channel": channel, "after": after, "until": until, "limit": limit}
        )
        return result

    def book(self, *, instrument: str | None = None) -> list[Book]:
        """The aggregated book."""
        result: list[Book] = self._ask("private/book", {"instrument": instrument})
        return result

    def bundle(self, *, channel: str) -> dict[str, Any]:
        """All that channeld dispute needs to act for this desk without its daemon: runbook.md."""
        result: dict[str, Any] = self._ask("private/bundle", {"channel": channel})
        return result

    def call_margin(self, *, channel: str) -> CallMargin:
        """Call margin on chain with the newest co-signed state; in a dispute that runs, another call of it.

        Never repeated by itself.
        """
        result: CallMargin = self._ask("private/call_margin", {"channel": channel})
        return result

    def calls(self, *, channel: str | None = None) -> list[Calls]:
        """Margin calls, ours and the peers', the newest first."""
        result: list[Calls] = self._ask("private/calls", {"channel": channel})
        return result

    def challenge(self, *, channel: str, version: int | None = None) -> Challenge:
        """Start a dispute with the newest co-signed state.

        Never repeated by itself.
        """
        result: Challenge = self._ask("private/challenge", {"channel": channel, "version": version})
        return result

    def channel(self, *, channel: str) -> Channel:
        """See private/channel in docs/api.md."""
        result: Channel = self._ask("private/channel", {"channel": channel})
        return result

    def channel_accept(self, *, hash: str) -> ChannelAccept:
        """Accept a peer's proposal.

        Never repeated by itself.
        """
        result: ChannelAccept = self._ask("private/channel_accept", {"hash": hash})
        return result

    def channel_proposals(
        self,
    ) -> list[ChannelProposals]:
        """No parameters."""
        result: list[ChannelProposals] = self._ask("private/channel_proposals", {})
        return result

    def channel_propose(self, *, peer: str, terms: Mapping[str, Any]) -> ChannelPropose:
        """Propose terms to a peer, who accepts them by their hash."""
        result: ChannelPropose = self._ask("private/channel_propose", {"peer": peer, "terms": terms})
        return result

    def channels(
        self,
    ) -> list[Channels]:
        """No parameters."""
        result: list[Channels] = self._ask("private/channels", {})
        return result

    def channel_close(self, *, channel: str) -> Close:
        """Close by agreement; the book must be empty.

        Never repeated by itself.
        """
        result: Close = self._ask("private/close", {"channel": channel})
        return result

    def compression(self, *, channel: str) -> Compression:
        """What can be closed, at our own values, without changing what either party stands to gain or lose: ..."""
        result: Compression = self._ask("private/compression", {"channel": channel})
        return result

    def deposit(self, *, channel: str, amount: Amount) -> Deposit:
        """Approve and deposit from the hot key's own tokens.

        Never repeated by itself.
        """
        result: Deposit = self._ask("private/deposit", {"channel": channel, "amount": amount})
        return result

    def dispute(self, *, channel: str) -> Dispute:
        """See private/dispute in docs/api.md."""
        result: Dispute = self._ask("private/dispute", {"channel": channel})
        return result

    def doctor(
        self,
    ) -> Doctor:
        """Clock, endpoints, disk, gas reserve, oracle, towers, bundles, open deadlines: what would hurt this ..."""
        result: Doctor = self._ask("private/doctor", {})
        return result

    def events_page(
        self, *, since: int | None = None, wait_s: Amount | float | None = None, channel: str | None = None
    ) -> Events:
        """What happened, in order; a long poll where asked."""
        result: Events = self._ask("private/events", {"since": since, "wait_s": wait_s, "channel": channel})
        return result

    def expiries(self, *, channel: str | None = None, within_s: int | None = None) -> Expiries:
        """What expires soon, with its pin risk, and how what has expired was settled."""
        result: Expiries = self._ask("private/expiries", {"channel": channel, "within_s": within_s})
        return result

    def greeks(self, *, channel: str | None = None) -> Greeks:
        """Greeks at the newest prints: advisory, floats."""
        result: Greeks = self._ask("private/greeks", {"channel": channel})
        return result

    def journal(self, *, channel: str) -> list[Journal]:
        """See private/journal in docs/api.md."""
        result: list[Journal] = self._ask("private/journal", {"channel": channel})
        return result

    def limits(self, *, channel: str | None = None) -> list[Limits]:
        """See private/limits in docs/api.md."""
        result: list[Limits] = self._ask("private/limits", {"channel": channel})
        return result

    def margin(self, *, channel: str, prices: Mapping[str, Any] | None = None) -> Margin:
        """See private/margin in docs/api.md."""
        result: Margin = self._ask("private/margin", {"channel": channel, "prices": prices})
        return result

    def mark(self, *, channel: str) -> Mark:
        """Mark now, at the newest tick that has prints.

        Never repeated by itself.
        """
        result: Mark = self._ask("private/mark", {"channel": channel})
        return result

    def market_set(
        self,
        *,
        instrument: str,
        bids: Sequence[Any] | None = None,
        asks: Sequence[Any] | None = None,
        peers: Sequence[Any] | None = None,
        valid_s: Amount | float | None = None,
    ) -> MarketSet:
        """Stream a market of one's own."""
        result: MarketSet = self._ask(
            "private/market_set",
            {"instrument": instrument, "bids": bids, "asks": asks, "peers": peers, "valid_s": valid_s},
        )
        return result

    def novate(
        self,
        *,
        channel: str,
        to: str,
        positions: Sequence[Any] | None = None,
        price: Amount | None = None,
        max_cost: Amount | None = None,
        wait_s: Amount | float | None = None,
    ) -> Novate:
        """Move positions from one channel to another: both peers are asked for firm quotes, to close here and ...

        Never repeated by itself.
        """
        result: Novate = self._ask(
            "private/novate",
            {
                "channel": channel,
                "to": to,
                "positions": positions,
                "price": price,
                "max_cost": max_cost,
                "wait_s": wait_s,
            },
        )
        return result

    def offer_accept(self, *, id: str) -> OfferAccept:
        """See private/offer_accept in docs/api.md.

        Never repeated by itself.
        """
        result: OfferAccept = self._ask("private/offer_accept", {"id": id})
        return result

    def offer_reject(self, *, id: str, reason: str | None = None) -> OfferReject:
        """See private/offer_reject in docs/api.md."""
        result: OfferReject = self._ask("private/offer_reject", {"id": id, "reason": reason})
        return result

    def offers(
        self,
    ) -> list[Offers]:
        """No parameters."""
        result: list[Offers] = self._ask("private/offers", {})
        return result

    def operator_log(self, *, after: int | None = None, limit: int | None = None) -> OperatorLog:
        """Entries of the operators' log, oldest first.

        Never repeated by itself.
        """
        result: OperatorLog = self._ask("private/operator_log", {"after": after, "limit": limit})
        return result

    def order(
        self,
        *,
        instrument: str,
        side: str,
        size: Amount,
        type: str | None = None,
        limit: Amount | None = None,
        slippage: Amount | None = None,
        force: str | None = None,
        until_ms: int | None = None,
        post_only: bool | None = None,
        reduce_only: bool | None = None,
        cancel_on_disconnect: bool | None = None,
        trigger: Mapping[str, Any] | None = None,
        label: str | None = None,
        peers: Sequence[Any] | None = None,
    ) -> Order:
        """Place an order."""
        result: Order = self._ask(
            "private/order",
            {
                "instrument": instrument,
                "side": side,
                "size": size,
                "type": type,
                "limit": limit,
                "slippage": slippage,
                "force": force,
                "until_ms": until_ms,
                "post_only": post_only,
                "reduce_only": reduce_only,
                "cancel_on_disconnect": cancel_on_disconnect,
                "trigger": trigger,
                "label": label,
                "peers": peers,
            },
        )
        return result

    def order_cancel(self, *, id: int | None = None, label: str | None = None) -> Order:
        """See private/order_cancel in docs/api.md."""
        result: Order = self._ask("private/order_cancel", {"id": id, "label": label})
        return result

    def order_cancel_after(self, *, seconds: Amount | float) -> OrderCancelAfter:
        """Stop the orders with cancel_on_disconnect unless this is called again in time."""
        result: OrderCancelAfter = self._ask("private/order_cancel_after", {"seconds": seconds})
        return result

    def order_cancel_all(
        self,
    ) -> OrderCancelAll:
        """No parameters."""
        result: OrderCancelAll = self._ask("private/order_cancel_all", {})
        return result

    def order_group(self, *, kind: str, orders: Sequence[Any]) -> list[Order]:
        """See private/order_group in docs/api.md.

        Never repeated by itself.
        """
        result: list[Order] = self._ask("private/order_group", {"kind": kind, "orders": orders})
        return result

    def orders(self, *, all: bool | None = None) -> list[dict[str, Any]]:
        """See private/orders in docs/api.md."""
        result: list[dict[str, Any]] = self._ask("private/orders", {"all": all})
        return result

    def peer_add(self, *, name: str, address: str, url: str | None = None) -> PeerAdd:
        """Allow a peer to connect and, with a URL, connect to it."""
        result: PeerAdd = self._ask("private/peer_add", {"name": name, "address": address, "url": url})
        return result

    def peers(
        self,
    ) -> list[Peers]:
        """No parameters."""
        result: list[Peers] = self._ask("private/peers", {})
        return result

    def policy(self, *, peer: str | None = None) -> list[dict[str, Any]]:
        """See private/policy in docs/api.md."""
        result: list[dict[str, Any]] = self._ask("private/policy", {"peer": peer})
        return result

    def policy_set(
        self,
        *,
        peer: str,
        auto_accept: bool | None = None,
        max_notional: Amount | None = None,
        price_band: Amount | None = None,
        vol_band: Amount | None = None,
        carry_band: Amount | None = None,
        instruments: Sequence[str] | None = None,
        sizes: Sequence[Mapping[str, Any]] | None = None,
        trade_delta: Amount | None = None,
        trade_gamma: Amount | None = None,
        trade_vega: Amount | None = None,
        channel_delta: Amount | None = None,
        channel_gamma: Amount | None = None,
        channel_vega: Amount | None = None,
        never: Mapping[str, Any] | None = None,
    ) -> PolicySet:
        """What this desk agrees to by itself from a peer, and what it never signs (policy.md)."""
        result: PolicySet = self._ask(
            "private/policy_set",
            {
                "peer": peer,
                "auto_accept": auto_accept,
                "max_notional": max_notional,
                "price_band": price_band,
                "vol_band": vol_band,
                "carry_band": carry_band,
                "instruments": instruments,
                "sizes": sizes,
                "trade_delta": trade_delta,
                "trade_gamma": trade_gamma,
                "trade_vega": trade_vega,
                "channel_delta": channel_delta,
                "channel_gamma": channel_gamma,
                "channel_vega": channel_vega,
                "never": never,
            },
        )
        return result

    def positions(self, *, channel: str | None = None) -> list[Positions]:
        """See private/positions in docs/api.md."""
        result: list[Positions] = self._ask("private/positions", {"channel": channel})
        return result

    def profit(self, *, channel: str, intervals: int | None = None) -> Profit:
        """Where the profit of the last MARK intervals came from, up to now: advisory, floats that add up."""
        result: Profit = self._ask("private/profit", {"channel": channel, "intervals": intervals})
        return result

    def quote(
        self,
        *,
        rfq: str,
        bid: Amount | None = None,
        ask: Amount | None = None,
        size: Amount | None = None,
        valid_s: Amount | float | None = None,
    ) -> dict[str, Any]:
        """Give firm quotes to a peer's request.

        Never repeated by itself.
        """
        result: dict[str, Any] = self._ask(
            "private/quote", {"rfq": rfq, "bid": bid, "ask": ask, "size": size, "valid_s": valid_s}
        )
        return result

    def quote_pass(self, *, rfq: str, reason: str | None = None) -> QuotePass:
        """See private/quote_pass in docs/api.md."""
        result: QuotePass = self._ask("private/quote_pass", {"rfq": rfq, "reason": reason})
        return result

    def quote_take(self, *, id: str, wait_s: Amount | float | None = None) -> dict[str, Any]:
        """Take a quote that a peer gave.

        Never repeated by itself.
        """
        result: dict[str, Any] = self._ask("private/quote_take", {"id": id, "wait_s": wait_s})
        return result

    def quotes_broken(
        self,
    ) -> QuotesBroken:
        """No parameters."""
        result: QuotesBroken = self._ask("private/quotes_broken", {})
        return result

    def resume(self, *, channel: str) -> Resume:
        """Sign that a dispute ends and the channel goes on: the peer's offer to do so where one lives, else ...

        Never repeated by itself.
        """
        result: Resume = self._ask("private/resume", {"channel": channel})
        return result

    def rfq(
        self,
        *,
        instrument: str,
        size: Amount,
        side: str | None = None,
        peers: Sequence[Any] | None = None,
        all_or_none: bool | None = None,
        take_best: str | None = None,
        limit: Amount | None = None,
        lifetime_s: Amount | float | None = None,
        wait_s: Amount | float | None = None,
    ) -> Rfq:
        """Ask peers for firm, signed quotes; wait for them a little; take the best where told to.

        Never repeated by itself.
        """
        result: Rfq = self._ask(
            "private/rfq",
            {
                "instrument": instrument,
                "size": size,
                "side": side,
                "peers": peers,
                "all_or_none": all_or_none,
                "take_best": take_best,
                "limit": limit,
                "lifetime_s": lifetime_s,
                "wait_s": wait_s,
            },
        )
        return result

    def rfqs(
        self,
    ) -> Rfqs:
        """No parameters."""
        result: Rfqs = self._ask("private/rfqs", {})
        return result

    def scenario(
        self,
        *,
        spot_moves: Sequence[Any],
        channel: str | None = None,
        vol_moves: Sequence[Any] | None = None,
        days: Amount | None = None,
    ) -> Scenario:
        """What the desk gains in every pair of moves: advisory, floats."""
        result: Scenario = self._ask(
            "private/scenario", {"spot_moves": spot_moves, "channel": channel, "vol_moves": vol_moves, "days": days}
        )
        return result

    def shutdown(
        self,
    ) -> Shutdown:
        """No parameters.

        Never repeated by itself.
        """
        result: Shutdown = self._ask("private/shutdown", {})
        return result

    def status(
        self,
    ) -> Status:
        """No parameters."""
        result: Status = self._ask("private/status", {})
        return result

    def surface(self, *, channel: str) -> Surface:
        """See private/surface in docs/api.md."""
        result: Surface = self._ask("private/surface", {"channel": channel})
        return result

    def surface_set(self, *, channel: str, surface: Mapping[str, Any]) -> Surface:
        """The whole surface of this desk in a channel, in place of what was set before."""
        result: Surface = self._ask("private/surface_set", {"channel": channel, "surface": surface})
        return result

    def token_create(self, *, name: str, scopes: Sequence[str], days: int | None = None) -> TokenCreate:
        """See private/token_create in docs/api.md.

        Never repeated by itself.
        """
        result: TokenCreate = self._ask("private/token_create", {"name": name, "scopes": scopes, "days": days})
        return result

    def token_revoke(self, *, token: str) -> TokenRevoke:
        """See private/token_revoke in docs/api.md.

        Never repeated by itself.
        """
        result: TokenRevoke = self._ask("private/token_revoke", {"token": token})
        return result

    def tokens(
        self,
    ) -> list[Tokens]:
        """No parameters.

        Never repeated by itself.
        """
        result: list[Tokens] = self._ask("private/tokens", {})
        return result

    def towers(self, *, check: bool | None = None) -> list[Towers]:
        """The desk's watchtowers (tower.md)."""
        result: list[Towers] = self._ask("private/towers", {"check": check})
        return result

    def trade(
        self,
        *,
        channel: str,
        legs: Sequence[Any],
        fee: Amount | None = None,
        reference: str | None = None,
        wait_s: Amount | float | None = None,
    ) -> Trade:
        """Offer a trade, after this desk's own check of both parties' margin.

        Never repeated by itself.
        """
        result: Trade = self._ask(
            "private/trade", {"channel": channel, "legs": legs, "fee": fee, "reference": reference, "wait_s": wait_s}
        )
        return result

    def transfer(self, *, channel: str, amount: Amount, memo: str | None = None) -> Transfer:
        """Pay the peer.

        Never repeated by itself.
        """
        result: Transfer = self._ask("private/transfer", {"channel": channel, "amount": amount, "memo": memo})
        return result

    def vols_set(
        self, *, channel: str | None = None, vols: Sequence[Any] | None = None, carries: Sequence[Any] | None = None
    ) -> VolsSet:
        """This desk's own vols and carries, beside those that it has already: for the MARKs that it proposes, ..."""
        result: VolsSet = self._ask("private/vols_set", {"channel": channel, "vols": vols, "carries": carries})
        return result

    def what_if(self, *, channel: str, legs: Sequence[Any], fee: Amount | None = None) -> WhatIf:
        """What a trade would do at our own prices, before it is made."""
        result: WhatIf = self._ask("private/what_if", {"channel": channel, "legs": legs, "fee": fee})
        return result

    def withdraw(self, *, channel: str, amount: Amount) -> Withdraw:
        """Withdraw free collateral to our payout address.

        Never repeated by itself.
        """
        result: Withdraw = self._ask("private/withdraw", {"channel": channel, "amount": amount})
        return result

    def schema(
        self,
    ) -> Schema:
        """No parameters."""
        result: Schema = self._ask("public/schema", {})
        return result

    def time(
        self,
    ) -> Time:
        """No parameters."""
        result: Time = self._ask("public/time", {})
        return result
