"""What each scope of a token may call. The table is the whole rule, and docs/api.md shows it.

Rules: a token has one or more scopes, and no scope holds another. `read` looks and changes nothing. `trade` makes and
answers trades and marks, within the desk's policy. `treasury` moves money. `dispute` acts on chain. `approve` is the
second person's: it carries out what another token with the scope for it has asked for. `admin` is the
owner's, of api.token alone: tokens, peers, terms, policy, stopping. A method that is not in the table is the owner's.
"""

from __future__ import annotations

from typing import Final

READ, TRADE, TREASURY, DISPUTE, ADMIN = "read", "trade", "treasury", "dispute", "admin"
APPROVE: Final = "approve"
GRANTABLE: Final = (READ, TRADE, TREASURY, DISPUTE, APPROVE)
SCOPES: Final[dict[str, tuple[str, ...]]] = {
    READ: (
        "private/alerts",
        "private/approvals",
        "private/audit",
        "private/audit_page",
        "private/book",
        "private/bundle",
        "private/calls",
        "private/channel",
        "private/channel_proposals",
        "private/channels",
        "private/dispute",
        "private/doctor",
        "private/events",
        "private/expiries",
        "private/greeks",
        "private/journal",
        "private/limits",
        "private/margin",
        "private/offers",
        "private/orders",
        "private/peers",
        "private/policy",
        "private/positions",
        "private/profit",
        "private/quotes_broken",
        "private/rfqs",
        "private/scenario",
        "private/status",
        "private/subscribe",
        "private/surface",
        "private/towers",
        "private/what_if",
        "private/compression",
    ),
    TRADE: (
        "private/mark",
        "private/market_set",
        "private/offer_accept",
        "private/offer_reject",
        "private/order",
        "private/order_cancel",
        "private/order_cancel_after",
        "private/order_cancel_all",
        "private/order_group",
        "private/quote",
        "private/quote_pass",
        "private/novate",
        "private/quote_take",
        "private/rfq",
        "private/surface_set",
        "private/trade",
        "private/vols_set",
    ),
    TREASURY: (
        "private/deposit",
        "private/transfer",
        "private/withdraw",
    ),
    DISPUTE: (
        "private/call_margin",
        "private/challenge",
        "private/close",
        "private/resume",
    ),
    APPROVE: (
        "private/approval_reject",
        "private/approve",
    ),
    ADMIN: (
        "private/alerts_test",
        "private/channel_accept",
        "private/channel_propose",
        "private/operator_log",
        "private/peer_add",
        "private/policy_set",
        "private/shutdown",
        "private/token_create",
        "private/token_revoke",
        "private/tokens",
    ),
}
_SCOPE: Final = {method: scope for scope, methods in SCOPES.items() for method in methods}


def scope_of(method: str) -> str:
    """The scope that a private method needs."""
    return _SCOPE.get(method, ADMIN)
