"""The desk's own limits, from the configuration's texts to what desk/limits.py checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from channeld.core.wad import parse_decimal
from channeld.desk.limits import Limits

if TYPE_CHECKING:
    from channeld.daemon.margin_settings import LimitSettings


def limits_of(settings: LimitSettings) -> Limits:
    """The limits of a configuration that was checked."""
    signers = frozenset(bytes.fromhex(text[2:]) for text in settings.oracle_signers)
    return Limits(
        max_notional=parse_decimal(settings.max_notional) or None,
        max_vega=parse_decimal(settings.max_vega) or None,
        instruments=settings.instruments or None,
        oracle_signers=signers or None,
        min_challenge_period=settings.min_challenge_period,
        min_cure_period=settings.min_cure_period,
    )
