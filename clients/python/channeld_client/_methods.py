"""The API's methods, awaited: made by scripts/make_client.py, not by hand."""
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


class AsyncMethods:
    """One Python method for each of the API, with the API's own names."""

    async def _ask(self, method: str, params: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    async def alerts(
        self,
    ) -> Alerts:
        """No parameters."""
        result: Alerts = await self._ask("private/alerts", {})
        return result

    async def alerts_test(self, *, severity: str | None = None) -> list[AlertsTest]:
        """Send a test alert by every way, now, once.

        Never repeated by itself.
        """
        result: list[AlertsTest] = await self._ask("private/alerts_test", {"severity": severity})
        return result

    async def approval_reject(self, *, id: str) -> ApprovalReject:
        """Throw a request away.

        Never repeated by itself.
        """
        result: ApprovalReject = await self._ask("private/approval_reject", {"id": id})
        return result

    async def approvals(
        self,
    ) -> list[Approvals]:
        """No parameters."""
        result: list[Approvals] = await self._ask("private/approvals", {})
        return result

    async def approve(self, *, id: str) -> Any:
        """Carry out what another token has asked for, as it was asked for, once.

        Never repeated by itself.
        """
        result: Any = await self._ask("private/approve", {"id": id})
        return result

    async def audit(self, *, channel: str) -> Audit:
        """Replay every batch from version 0 and compare with what is co-signed."""
        result: Audit = await self._ask("private/audit", {"channel": channel})
        return result

    async def audit_page(
        self, *, channel: str, after: int | None = None, until: int | None = None, limit: int | None = None
    ) -> AuditPage:
        """What an audit file is made of (audit.md), a page at a time."""
        result: AuditPage = await self._ask(
            "private/audit_page", {"channel": channel, "after": after, "until": until, "limit": limit}
        )
        return result

    async def book(self, *, instrument: str | None = None) -> list[Book]:
        """The aggregated book."""
        result: list[Book] = await self._ask("private/book", {"instrument": instrument})
        return result

    async def bundle(self, *, channel: str) -> dict[str, Any]:
        """All that channeld dispute needs to act for this desk without its daemon: runbook.md."""
        result: dict[str, Any] = await self._ask("private/bundle", {"channel": channel})
        return result

    async def call_margin(self, *, channel: str) -> CallMargin:
        """Call margin on chain with the newest co-signed state; in a dispute that runs, another call of it.

        Never repeated by itself.
        """
        result: CallMargin = await self._ask("private/call_margin", {"channel": channel})
        return result

    async def calls(self, *, channel: str | None = None) -> list[Calls]:
        """Margin calls, ours and the peers', the newest first."""
        result: list[Calls] = await self._ask("private/calls", {"channel": channel})
        return result

    async def challenge(self, *, channel: str, version: int | None = None) -> Challenge:
        """Start a dispute with the newest co-signed state.

        Never repeated by itself.
        """
        result: Challenge = await self._ask("private/challenge", {"channel": channel, "version": version})
        return result

    async def channel(self, *, channel: str) -> Channel:
        """See private/channel in docs/api.md."""
        result: Channel = await self._ask("private/channel", {"channel": channel})
        return result

    async def channel_accept(self, *, hash: str) -> ChannelAccept:
        """Accept a peer's proposal.

        Never repeated by itself.
        """
        result: ChannelAccept = await self._ask("private/channel_accept", {"hash": hash})
        return result

    async def channel_proposals(
        self,
    ) -> list[ChannelProposals]:
        """No parameters."""
        result: list[ChannelProposals] = await self._ask("private/channel_proposals", {})
        return result

    async def channel_propose(self, *, peer: str, terms: Mapping[str, Any]) -> ChannelPropose:
        """Propose terms to a peer, who accepts them by their hash."""
        result: ChannelPropose = await self._ask("private/channel_propose", {"peer": peer, "terms": terms})
        return result

    async def channels(
        self,
    ) -> list[Channels]:
        """No parameters."""
        result: list[Channels] = await self._ask("private/channels", {})
        return result

    async def channel_close(self, *, channel: str) -> Close:
        """Close by agreement; the book must be empty.

        Never repeated by itself.
        """
        result: Close = await self._ask("private/close", {"channel": channel})
        return result

    async def compression(self, *, channel: str) -> Compression:
        """What can be closed, at our own values, without changing what either party stands to gain or lose: ..."""
        result: Compression = await self._ask("private/compression", {"channel": channel})
        return result

    async def deposit(self, *, channel: str, amount: Amount) -> Deposit:
        """Approve and deposit from the hot key's own tokens.

        Never repeated by itself.
        """
        result: Deposit = await self._ask("private/deposit", {"channel": channel, "amount": amount})
        return result

    async def dispute(self, *, channel: str) -> Dispute:
        """See private/dispute in docs/api.md."""
        result: Dispute = await self._ask("private/dispute", {"channel": channel})
        return result

    async def doctor(
        self,
    ) -> Doctor:
        """Clock, endpoints, disk, gas reserve, oracle, towers, bundles, open deadlines: what would hurt this ..."""
        result: Doctor = await self._ask("private/doctor", {})
        return result

    async def events_page(
        self, *, since: int | None = None, wait_s: Amount | float | None = None, channel: str | None = None
    ) -> Events:
        """What happened, in order; a long poll where asked."""
        result: Events = await self._ask("private/events", {"since": since, "wait_s": wait_s, "channel": channel})
        return result

    async def expiries(self, *, channel: str | None = None, within_s: int | None = None) -> Expiries:
        """What expires soon, with its pin risk, and how what has expired was settled."""
        result: Expiries = await self._ask("private/expiries", {"channel": channel, "within_s": within_s})
        return result

    async def greeks(self, *, channel: str | None = None) -> Greeks:
        """Greeks at the newest prints: advisory, floats."""
        result: Greeks = await self._ask("private/greeks", {"channel": channel})
        return result

    async def journal(self, *, channel: str) -> list[Journal]:
        """See private/journal in docs/api.md."""
        result: list[Journal] = await self._ask("private/journal", {"channel": channel})
        return result

    async def limits(self, *, channel: str | None = None) -> list[Limits]:
        """See private/limits in docs/api.md."""
        result: list[Limits] = await self._ask("private/limits", {"channel": channel})
        return result

    async def margin(self, *, channel: str, prices: Mapping[str, Any] | None = None) -> Margin:
        """See private/margin in docs/api.md."""
        result: Margin = await self._ask("private/margin", {"channel": channel, "prices": prices})
        return result

    async def mark(self, *, channel: str) -> Mark:
        """Mark now, at the newest tick that has prints.

        Never repeated by itself.
        """
        result: Mark = await self._ask("private/mark", {"channel": channel})
        return result

    async def market_set(
        self,
        *,
        instrument: str,
        bids: Sequence[Any] | None = None,
        asks: Sequence[Any] | None = None,
        peers: Sequence[Any] | None = None,
        valid_s: Amount | float | None = None,
    ) -> MarketSet:
        """Stream a market of one's own."""
        result: MarketSet = await self._ask(
            "private/market_set",
            {"instrument": instrument, "bids": bids, "asks": asks, "peers": peers, "valid_s": valid_s},
        )
        return result

    async def novate(
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
        result: Novate = await self._ask(
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

    async def offer_accept(self, *, id: str) -> OfferAccept:
        """See private/offer_accept in docs/api.md.

        Never repeated by itself.
        """
        result: OfferAccept = await self._ask("private/offer_accept", {"id": id})
        return result

    async def offer_reject(self, *, id: str, reason: str | None = None) -> OfferReject:
        """See private/offer_reject in docs/api.md."""
        result: OfferReject = await self._ask("private/offer_reject", {"id": id, "reason": reason})
        return result

    async def offers(
        self,
    ) -> list[Offers]:
        """No parameters."""
        result: list[Offers] = await self._ask("private/offers", {})
        return result

    async def operator_log(self, *, after: int | None = None, limit: int | None = None) -> OperatorLog:
        """Entries of the operators' log, oldest first.

        Never repeated by itself.
        """
        result: OperatorLog = await self._ask("private/operator_log", {"after": after, "limit": limit})
        return result

    async def order(
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
        result: Order = await self._ask(
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

    async def order_cancel(self, *, id: int | None = None, label: str | None = None) -> Order:
        """See private/order_cancel in docs/api.md."""
        result: Order = await self._ask("private/order_cancel", {"id": id, "label": label})
        return result

    async def order_cancel_after(self, *, seconds: Amount | float) -> OrderCancelAfter:
        """Stop the orders with cancel_on_disconnect unless this is called again in time."""
        result: OrderCancelAfter = await self._ask("private/order_cancel_after", {"seconds": seconds})
        return result

    async def order_cancel_all(
        self,
    ) -> OrderCancelAll:
        """No parameters."""
        result: OrderCancelAll = await self._ask("private/order_cancel_all", {})
        return result

    async def order_group(self, *, kind: str, orders: Sequence[Any]) -> list[Order]:
        """See private/order_group in docs/api.md.

        Never repeated by itself.
        """
        result: list[Order] = await self._ask("private/order_group", {"kind": kind, "orders": orders})
        return result

    async def orders(self, *, all: bool | None = None) -> list[dict[str, Any]]:
        """See private/orders in docs/api.md."""
        result: list[dict[str, Any]] = await self._ask("private/orders", {"all": all})
        return result

    async def peer_add(self, *, name: str, address: str, url: str | None = None) -> PeerAdd:
        """Allow a peer to connect and, with a URL, connect to it."""
        result: PeerAdd = await self._ask("private/peer_add", {"name": name, "address": address, "url": url})
        return result

    async def peers(
        self,
    ) -> list[Peers]:
        """No parameters."""
        result: list[Peers] = await self._ask("private/peers", {})
        return result

    async def policy(self, *, peer: str | None = None) -> list[dict[str, Any]]:
        """See private/policy in docs/api.md."""
        result: list[dict[str, Any]] = await self._ask("private/policy", {"peer": peer})
        return result

    async def policy_set(
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
        result: PolicySet = await self._ask(
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

    async def positions(self, *, channel: str | None = None) -> list[Positions]:
        """See private/positions in docs/api.md."""
        result: list[Positions] = await self._ask("private/positions", {"channel": channel})
        return result

    async def profit(self, *, channel: str, intervals: int | None = None) -> Profit:
        """Where the profit of the last MARK intervals came from, up to now: advisory, floats that add up."""
        result: Profit = await self._ask("private/profit", {"channel": channel, "intervals": intervals})
        return result

    async def quote(
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
        result: dict[str, Any] = await self._ask(
            "private/quote", {"rfq": rfq, "bid": bid, "ask": ask, "size": size, "valid_s": valid_s}
        )
        return result

    async def quote_pass(self, *, rfq: str, reason: str | None = None) -> QuotePass:
        """See private/quote_pass in docs/api.md."""
        result: QuotePass = await self._ask("private/quote_pass", {"rfq": rfq, "reason": reason})
        return result

    async def quote_take(self, *, id: str, wait_s: Amount | float | None = None) -> dict[str, Any]:
        """Take a quote that a peer gave.

        Never repeated by itself.
        """
        result: dict[str, Any] = await self._ask("private/quote_take", {"id": id, "wait_s": wait_s})
        return result

    async def quotes_broken(
        self,
    ) -> QuotesBroken:
        """No parameters."""
        result: QuotesBroken = await self._ask("private/quotes_broken", {})
        return result

    async def resume(self, *, channel: str) -> Resume:
        """Sign that a dispute ends and the channel goes on: the peer's offer to do so where one lives, else ...

        Never repeated by itself.
        """
        result: Resume = await self._ask("private/resume", {"channel": channel})
        return result

    async def rfq(
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
        result: Rfq = await self._ask(
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

    async def rfqs(
        self,
    ) -> Rfqs:
        """No parameters."""
        result: Rfqs = await self._ask("private/rfqs", {})
        return result

    async def scenario(
        self,
        *,
        spot_moves: Sequence[Any],
        channel: str | None = None,
        vol_moves: Sequence[Any] | None = None,
        days: Amount | None = None,
    ) -> Scenario:
        """What the desk gains in every pair of moves: advisory, floats."""
        result: Scenario = await self._ask(
            "private/scenario", {"spot_moves": spot_moves, "channel": channel, "vol_moves": vol_moves, "days": days}
        )
        return result

    async def shutdown(
        self,
    ) -> Shutdown:
        """No parameters.

        Never repeated by itself.
        """
        result: Shutdown = await self._ask("private/shutdown", {})
        return result

    async def status(
        self,
    ) -> Status:
        """No parameters."""
        result: Status = await self._ask("private/status", {})
        return result

    async def surface(self, *, channel: str) -> Surface:
        """See private/surface in docs/api.md."""
        result: Surface = await self._ask("private/surface", {"channel": channel})
        return result

    async def surface_set(self, *, channel: str, surface: Mapping[str, Any]) -> Surface:
        """The whole surface of this desk in a channel, in place of what was set before."""
        result: Surface = await self._ask("private/surface_set", {"channel": channel, "surface": surface})
        return result

    async def token_create(self, *, name: str, scopes: Sequence[str], days: int | None = None) -> TokenCreate:
        """See private/token_create in docs/api.md.

        Never repeated by itself.
        """
        result: TokenCreate = await self._ask("private/token_create", {"name": name, "scopes": scopes, "days": days})
        return result

    async def token_revoke(self, *, token: str) -> TokenRevoke:
        """See private/token_revoke in docs/api.md.

        Never repeated by itself.
        """
        result: TokenRevoke = await self._ask("private/token_revoke", {"token": token})
        return result

    async def tokens(
        self,
    ) -> list[Tokens]:
        """No parameters.

        Never repeated by itself.
        """
        result: list[Tokens] = await self._ask("private/tokens", {})
        return result

    async def towers(self, *, check: bool | None = None) -> list[Towers]:
        """The desk's watchtowers (tower.md)."""
        result: list[Towers] = await self._ask("private/towers", {"check": check})
        return result

    async def trade(
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
        result: Trade = await self._ask(
            "private/trade", {"channel": channel, "legs": legs, "fee": fee, "reference": reference, "wait_s": wait_s}
        )
        return result

    async def transfer(self, *, channel: str, amount: Amount, memo: str | None = None) -> Transfer:
        """Pay the peer.

        Never repeated by itself.
        """
        result: Transfer = await self._ask("private/transfer", {"channel": channel, "amount": amount, "memo": memo})
        return result

    async def vols_set(
        self, *, channel: str | None = None, vols: Sequence[Any] | None = None, carries: Sequence[Any] | None = None
    ) -> VolsSet:
        """This desk's own vols and carries, beside those that it has already: for the MARKs that it proposes, ..."""
        result: VolsSet = await self._ask("private/vols_set", {"channel": channel, "vols": vols, "carries": carries})
        return result

    async def what_if(self, *, channel: str, legs: Sequence[Any], fee: Amount | None = None) -> WhatIf:
        """What a trade would do at our own prices, before it is made."""
        result: WhatIf = await self._ask("private/what_if", {"channel": channel, "legs": legs, "fee": fee})
        return result

    async def withdraw(self, *, channel: str, amount: Amount) -> Withdraw:
        """Withdraw free collateral to our payout address.

        Never repeated by itself.
        """
        result: Withdraw = await self._ask("private/withdraw", {"channel": channel, "amount": amount})
        return result

    async def schema(
        self,
    ) -> Schema:
        """No parameters."""
        result: Schema = await self._ask("public/schema", {})
        return result

    async def time(
        self,
    ) -> Time:
        """No parameters."""
        result: Time = await self._ask("public/time", {})
        return result
