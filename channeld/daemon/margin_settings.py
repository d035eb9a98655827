"""Settings of margin calls: what a desk does by itself when margin is lacking, on either side. One section, [margin].

Rules: everything that moves money or ends a channel by itself is off by default. Amounts are decimal texts in the
collateral's own measure, since the token's decimals are the terms' to say.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Amount = Annotated[str, Meta(pattern=r"^[0-9]{1,30}(\.[0-9]{1,18})?$")]
Factor = Annotated[str, Meta(pattern=r"^(0|[1-9][0-9]{0,3}(\.[0-9]{1,6})?)$")]
Window = Annotated[float, Meta(gt=0, le=86_400)]


class Margin(msgspec.Struct, frozen=True, kw_only=True):
    """Margin calls: amounts are decimals of the collateral token."""

    threshold: Annotated[Amount, Meta(description="A peer's shortfall up to this is not called.")] = "0"
    minimum_transfer: Annotated[Amount, Meta(description="No call for less than this.")] = "0"
    rounding: Annotated[
        Amount, Meta(description="Calls are for multiples of this, rounded up; what is swept is rounded down.")
    ] = "1"
    call_window: Annotated[
        Window,
        Meta(description="How long a peer has to meet a call. The templates' scan ranges allow for ten minutes of it."),
    ] = 600.0
    auto_call: Annotated[
        Literal["alert", "call"],
        Meta(
            description='A call not met, or a default: "alert" only, or "call" margin on chain by itself (which ends'
            " the channel, unless both agree to resume)."
        ),
    ] = "alert"
    top_up_limit: Annotated[
        Amount,
        Meta(
            description="The most that is deposited by itself into one channel within one UTC day, from the hot key, to"
            " meet calls that our own figures bear out. 0: nothing is."
        ),
    ] = "0"
    reductions: Annotated[
        Literal["off", "propose", "agree"],
        Meta(
            description='While margin is called: "propose" trades that reduce the book at our own values, and "agree"'
            " by itself also to the peer's."
        ),
    ] = "off"
    reduction_band: Annotated[
        Amount,
        Meta(description="How much a peer's reduction may cost us by our own values, a fraction of its notional."),
    ] = "0.002"
    sweep_above: Annotated[
        Factor,
        Meta(
            description="What we hold beyond so many initial margins is withdrawn to the payout address by itself, once"
            " an hour at most. 0: nothing is."
        ),
    ] = "0"
    sweep_keep: Annotated[Amount, Meta(description="What a sweep leaves at least.")] = "0"
    auto_resume: Annotated[
        Literal["ask", "agree"],
        Meta(
            description='A peer asks to end a dispute and trade on: "ask" a person, or "agree" where both are above'
            " initial margin."
        ),
    ] = "ask"


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What this desk never signs, whoever asks and whatever a policy says; 0 and empty lists limit nothing."""

    max_notional: Annotated[
        Amount, Meta(description="Most notional of a channel's book: the sum of size times spot.")
    ] = "0"
    max_vega: Annotated[Amount, Meta(description="Most that one vol point may move a channel's book.")] = "0"
    instruments: Annotated[
        tuple[str, ...], Meta(max_length=64, description="Names or patterns such as ETH-*; empty: all.")
    ] = ()
    oracle_signers: Annotated[
        tuple[str, ...],
        Meta(max_length=64, description="Addresses of the only oracle signers that terms may name; empty: any."),
    ] = ()
    min_challenge_period: Annotated[
        int, Meta(ge=0, le=31_536_000, description="Terms with a shorter challenge period are refused, seconds.")
    ] = 0
    min_cure_period: Annotated[
        int, Meta(ge=0, le=31_536_000, description="Terms with a shorter cure period are refused, seconds.")
    ] = 0
