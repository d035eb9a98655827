"""Requests as they travel, and when one may be asked again.

Rules: amounts are exact; a float is refused, since 0.1 is none. A request that did not arrive is always asked again;
one whose answer was lost only where the second time changes nothing (`REPEATABLE`, made from the API's own scopes). An
`order` without a label gets one here, so that it is placed once whatever happens to the answer.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from channeld_client._repeatable import REPEATABLE
from channeld_client.errors import BadRequestError, UnreadableAnswerError, daemon_error

if TYPE_CHECKING:
    from collections.abc import Callable

Amount = str | int | Decimal
"""A decimal: "1.5", 1, Decimal("1.5")."""

SECONDS = frozenset({"wait_s", "valid_s", "lifetime_s", "seconds"})
INTEGERS = frozenset({"id", "since", "version", "until_ms", "after", "until", "limit", "days", "within_s", "intervals"})
# what these names mean depends on the method: a decimal there
DECIMAL_IN = {"private/order": {"limit"}, "private/rfq": {"limit"}, "private/scenario": {"days"}}


def plain(name: str, value: object, *, method: str = "") -> Any:  # noqa: ANN401 - any JSON value
    """A value as it is sent: decimals as texts.

    Raises:
        BadRequestError: a float where money or a rate is meant, or what JSON cannot hold.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise BadRequestError(f"{name} must be a finite number")
        return format(value, "f")
    if isinstance(value, int):
        exact = name in SECONDS or (name in INTEGERS and name not in DECIMAL_IN.get(method, ()))
        return value if exact else str(value)
    if isinstance(value, float):
        if name in SECONDS:
            return value
        raise BadRequestError(f"{name} is a float; write it as a text or a Decimal, so that it is exact")
    if isinstance(value, Mapping):
        return {str(key): plain(str(key), one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [plain(name, one) for one in value]
    raise BadRequestError(f"{name} cannot be sent: it is a {type(value).__name__}")


def prepared(method: str, params: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The parameters as they are sent, those that are None left out, and whether the request may be repeated.

    Raises:
        BadRequestError: see `plain`.
    """
    # terms and surfaces are documents with integers of their own: they travel as they are
    given = {
        name: value if name in {"terms", "surface"} else plain(name, value, method=method)
        for name, value in params.items()
        if value is not None
    }
    if method == "private/order" and not given.get("label"):
        given["label"] = f"py-{secrets.token_hex(12)}"
    return given, method in REPEATABLE


def encoded(number: int, method: str, params: Mapping[str, Any]) -> bytes:
    """A JSON-RPC request.

    Raises:
        BadRequestError: JSON cannot hold it.
    """
    try:
        return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode()
    except (TypeError, ValueError) as error:
        raise BadRequestError(f"the request cannot be written as JSON: {error}") from None


def result_of(raw: bytes | str, where: str) -> Any:  # noqa: ANN401 - any JSON value
    """What a JSON-RPC answer gives.

    Raises:
        DaemonError: the daemon refused.
        UnreadableAnswerError: it is no answer.
    """
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
        raise daemon_error(answer["error"])
    if not isinstance(answer, dict) or "result" not in answer:
        raise UnreadableAnswerError(f"what answers at {where} is no daemon")
    return answer["result"]


class Pauses:
    """The pauses between attempts, in seconds: doubled up to a cap, half of each random."""

    def __init__(self, random: Callable[[], float], base: float = 0.1, cap: float = 10.0) -> None:
        """random: uniform in [0, 1)."""
        self._random, self._base, self._cap = random, base, cap
        self._failures = 0

    def next(self) -> float:
        """The pause after one more failure."""
        full = min(self._cap, self._base * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return full * (0.5 + 0.5 * self._random())

    def reset(self) -> None:
        """It worked."""
        self._failures = 0
