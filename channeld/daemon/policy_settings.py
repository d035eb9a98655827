"""A policy as the API has it: decimal texts in, decimal texts and sentences out."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from channeld.core.wad import format_decimal, parse_decimal
from channeld.daemon.parameters import BadParameterError, Json, Params, objects, take
from channeld.desk.envelope import Envelope
from channeld.desk.policy import DEFAULT_CARRY_BAND, DEFAULT_VOL_BAND, Policy, policy_in_words

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_PATTERN = 64
AMOUNTS = tuple(f.name for f in fields(Envelope) if f.name not in {"instruments", "sizes"})
ENVELOPE = {f.name for f in fields(Envelope)}


def policy_of(params: Params) -> Policy:
    """A whole policy from the parameters of private/policy_set.

    Raises:
        BadParameterError, MalformedNumberError: a parameter is none.
    """
    never = take(params, "never", dict, None)
    unknown = sorted(set(never or ()) - ENVELOPE)
    if unknown:
        raise BadParameterError(f"'never' knows no {unknown[0][:64]!r}")
    bands = {name: _not_negative(params, name) for name in ("vol_band", "carry_band")}
    return Policy(
        **_envelope(params),
        auto_accept=take(params, "auto_accept", bool, False),
        never=Envelope(**_envelope(never)) if never else None,
        vol_band=DEFAULT_VOL_BAND if bands["vol_band"] is None else bands["vol_band"],
        carry_band=DEFAULT_CARRY_BAND if bands["carry_band"] is None else bands["carry_band"],
    )


def _envelope(params: Params) -> dict[str, Any]:
    instruments = take(params, "instruments", list, None)
    for pattern in instruments or ():
        _check_pattern(pattern)
    sizes = []
    for one in objects(take(params, "sizes", list, []), "sizes"):
        pattern = take(one, "instrument", str)
        _check_pattern(pattern)
        size = _not_negative({"size": take(one, "size", str)}, "size")
        sizes.append((pattern, size))
    return {
        "instruments": tuple(instruments) if instruments is not None else None,
        "sizes": tuple(sizes),
        **{name: _not_negative(params, name) for name in AMOUNTS},
    }


def _check_pattern(pattern: Json) -> None:
    if not isinstance(pattern, str) or not pattern or len(pattern) > MAX_PATTERN or not pattern.isprintable():
        raise BadParameterError("every instrument must be a name or pattern such as ETH-*")


def _not_negative(params: Params, name: str) -> int | None:
    text = take(params, name, str, None)
    if text is None:
        return None
    found = parse_decimal(text)
    if found < 0:
        raise BadParameterError(f"the parameter {name!r} must not be negative")
    return found


def policy_data(policy: Policy) -> dict[str, Json]:
    """A policy for people and programs: its parameters again, and what they mean in words."""
    never = _data(asdict(policy.never)) if policy.never is not None else None
    return {**_data(asdict(policy)), "never": never, "words": policy_in_words(policy)}


def _data(envelope: Mapping[str, Any]) -> dict[str, Json]:
    found: dict[str, Json] = {
        name: format_decimal(x) if isinstance(x, int) and not isinstance(x, bool) else x for name, x in envelope.items()
    }
    found["instruments"] = list(envelope["instruments"]) if envelope["instruments"] is not None else None
    found["sizes"] = [{"instrument": pattern, "size": format_decimal(size)} for pattern, size in envelope["sizes"]]
    return found
