"""The API's methods for a desk's people: alerts and their test, the operators' log, approvals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from channeld.daemon.alerting import SEVERITIES
from channeld.daemon.operators import CALLER
from channeld.daemon.parameters import BadParameterError, Json, Params, take
from channeld.daemon.requests import Requests

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MOST_ENTRIES = 1_000


class OperatorMethods(Requests):
    """What operators see of themselves and each other."""

    # carries out what was approved; Methods has it
    call: Callable[[str, Params], Awaitable[Json]]

    def operator_table(self) -> dict[str, Callable[[Params], Awaitable[Json]]]:
        """The methods by name."""
        return {
            "private/alerts": self.alerts,
            "private/alerts_test": self.alerts_test,
            "private/operator_log": self.operator_log,
            "private/approvals": self.approvals,
            "private/approve": self.approve,
            "private/approval_reject": self.approval_reject,
        }

    async def alerts(self, _: Params) -> Json:
        """The newest alerts, and how they are delivered."""
        return {"alerts": list(self.node.alerts), "ways": self.node.alerting.data()}

    async def alerts_test(self, params: Params) -> Json:
        """Send a test alert by every way, now, and say how it went."""
        severity = take(params, "severity", str, "critical")
        if severity not in SEVERITIES:
            raise BadParameterError(f"a severity is one of {', '.join(SEVERITIES)}")
        return await self.node.alerting.test(severity)

    async def operator_log(self, params: Params) -> Json:
        """Entries of the operators' log after a number, and where the log ends."""
        after, limit = take(params, "after", int, 0), take(params, "limit", int, MOST_ENTRIES)
        log = self.node.operators
        entries = await log.page(after, max(1, min(limit, MOST_ENTRIES)))
        return {"entries": entries, "number": log.number, "hash": log.head}

    async def approvals(self, _: Params) -> Json:
        """What waits for a second person."""
        return self.node.approvals.data()

    async def approve(self, params: Params) -> Json:
        """Carry out what another token has asked for; the result is its method's."""
        request = await self.node.approvals.take(CALLER.get(), take(params, "id", str))
        return await self.call(request.method, request.params)

    async def approval_reject(self, params: Params) -> Json:
        """Throw a request away; who asked may do so as well."""
        request = await self.node.approvals.take(CALLER.get(), take(params, "id", str), reject=True)
        return {"id": request.id, "method": request.method, "status": "rejected"}
