"""Trades and statements in the shapes of the ISDA Common Domain Model (FINOS, version 6), as plain JSON.

Rules: names and nesting are the model's: TradeState, Trade, NonTransferableProduct, OptionPayout, SettlementPayout,
PerformancePayout, TradeLot. What the model has no place for (carry, vol, margin) is left out; docs/paper.md maps each
field. One trade for each leg, since the model's trade has one product; the legs of one TRADE share an identifier.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from channeld.core.crypto import checksum_address
from channeld.core.instruments import instrument_name
from channeld.core.operations import Trade
from channeld.core.state import Kind
from channeld.core.terms import feed_symbol
from channeld.core.wad import format_decimal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from channeld.core.operations import Leg
    from channeld.core.state import Instrument
    from channeld.core.terms import Terms
    from channeld.desk.confirmations import Confirmation

QUOTE = "USD"


def trade_states(confirmation: Confirmation) -> list[dict[str, Any]]:
    """The trades of a confirmation, a TradeState each."""
    batch = confirmation.batch
    found = []
    for index, operation in enumerate(batch.operations):
        if isinstance(operation, Trade):
            found += list(_states(confirmation, operation, index))
    return found


def _states(confirmation: Confirmation, trade: Trade, index: int) -> Iterator[dict[str, Any]]:
    package = f"{confirmation.number.hex()}-{index}"
    when = dt.datetime.fromtimestamp(confirmation.batch.time_ms / 1000, dt.UTC)
    for number, leg in enumerate(trade.legs):
        identifiers = [_identifier(f"{package}-{number}")]
        if len(trade.legs) > 1:
            identifiers.append(_identifier(package))
        buyer, seller = ("Party1", "Party2") if leg.size_delta > 0 else ("Party2", "Party1")
        yield {
            "@type": "cdm.event.common.TradeState",
            "trade": {
                "tradeIdentifier": identifiers,
                "tradeDate": {"value": when.date().isoformat()},
                "tradeTime": {"value": when.strftime("%H:%M:%S.") + f"{when.microsecond // 1000:03d}Z"},
                "party": [_party(confirmation.terms, side) for side in (0, 1)],
                "counterparty": [
                    {"role": role, "partyReference": {"globalReference": checksum_address(party.signer)}}
                    for role, party in (("Party1", confirmation.terms.a), ("Party2", confirmation.terms.b))
                ],
                "product": _product(leg.instrument, buyer, seller),
                "tradeLot": [{"priceQuantity": [_price_quantity(leg)]}],
            },
            "state": {"positionState": "Executed"},
        }


def _identifier(value: str) -> dict[str, Any]:
    return {"assignedIdentifier": [{"identifier": {"value": value}}], "identifierType": "UniqueTransactionIdentifier"}


def _party(terms: Terms, side: int) -> dict[str, Any]:
    address = checksum_address(terms.party(side).signer)
    return {
        "meta": {"globalKey": address},
        "partyId": [{"identifier": {"value": address}, "identifierType": "Other"}],
        "name": {"value": f"party {'ab'[side]}"},
    }


def _date(expiry: int) -> dict[str, Any]:
    day = dt.datetime.fromtimestamp(expiry, dt.UTC)
    return {"adjustableDate": {"unadjustedDate": day.date().isoformat()}}


def _underlier(instrument: Instrument) -> dict[str, Any]:
    name = feed_symbol(instrument.feed)
    return {"Observable": {"Index": {"identifier": [{"identifier": {"value": name}, "identifierType": "Other"}]}}}


def _product(instrument: Instrument, buyer: str, seller: str) -> dict[str, Any]:
    """The product: an option, a future settled in cash, or a perpetual as a performance swap without an end."""
    shared = {"payerReceiver": {"payer": seller, "receiver": buyer}, "underlier": _underlier(instrument)}
    cash = {"settlementType": "Cash", "settlementCurrency": {"value": QUOTE}}
    payout: dict[str, Any]
    if instrument.is_option:
        payout = {
            "OptionPayout": {
                **shared,
                "settlementTerms": cash,
                "buyerSeller": {"buyer": buyer, "seller": seller},
                "optionType": "Call" if instrument.kind == Kind.CALL else "Put",
                "exerciseTerms": {"style": "European", "expirationDate": [_date(instrument.expiry)]},
                "strike": {
                    "strikePrice": {
                        "value": format_decimal(instrument.strike),
                        "unit": {"currency": {"value": QUOTE}},
                        "priceType": "AssetPrice",
                    }
                },
            }
        }
    elif instrument.kind == Kind.FUTURE:
        value = {"valueDate": _date(instrument.expiry)["adjustableDate"]["unadjustedDate"]}
        payout = {"SettlementPayout": {**shared, "settlementTerms": {**cash, "settlementDate": value}}}
    else:
        payout = {"PerformancePayout": {**shared, "settlementTerms": cash}}
    return {
        "identifier": [{"identifier": {"value": instrument_name(instrument)}, "identifierType": "Other"}],
        "economicTerms": {"payout": [payout]},
    }


def _price_quantity(leg: Leg) -> dict[str, Any]:
    return {
        "price": [
            {
                "value": {
                    "value": format_decimal(leg.price),
                    "unit": {"currency": {"value": QUOTE}},
                    "perUnitOf": {"financialUnit": "Contract"},
                    "priceType": "CashPrice" if leg.instrument.is_option else "AssetPrice",
                }
            }
        ],
        "quantity": [{"value": {"value": format_decimal(abs(leg.size_delta)), "unit": {"financialUnit": "Contract"}}}],
    }
