"""How often somebody may ask: a bucket for each that fills at a rate and holds a burst, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from channeld.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_CALLERS = 10_000


class TooOftenError(InputError):
    """More requests than the API serves to one caller in that time."""

    code = 1263
    advice = "Ask less often, subscribe instead of polling, or raise api.rate."


class Buckets:
    """Counts requests by who asks. Whoever was not heard of for longest is forgotten first."""

    def __init__(self, rate: float, burst: float, now_s: Callable[[], float]) -> None:
        """Allow `burst` at once, and `rate` a second. now_s: a clock that only rises, in seconds."""
        self._rate, self._burst, self._now_s = rate, burst, now_s
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def _now(self, who: str) -> float:
        left, then = self._left.get(who, (self._burst, self._now_s()))
        return min(self._burst, left + (self._now_s() - then) * self._rate)

    def check(self, who: str) -> None:
        """Return only if one more may be asked; it is not counted.

        Raises:
            TooOftenError: none is left.

        """
        if self._now(who) < 1:
            raise TooOftenError(f"more than {self._rate:g} requests a second")

    def take(self, who: str) -> None:
        """Count one request.

        Raises:
            TooOftenError: there were too many.

        """
        left = self._now(who)
        self._left[who] = (max(0.0, left - 1), self._now_s())
        self._left.move_to_end(who)
        if len(self._left) > MOST_CALLERS:
            self._left.popitem(last=False)
        if left < 1:
            raise TooOftenError(f"more than {self._rate:g} requests a second")
