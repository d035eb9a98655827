"""Settings of what concerns a desk's people: alerts that are delivered, actions that need a second person."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Severity = Literal["info", "warning", "critical"]


class AlertSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where alerts go, beside the log, `channeld status` and the metrics. `channeld alerts test` sends one."""

    webhook: Annotated[
        str,
        Meta(
            description="POST each alert to this URL, as JSON. A URL that holds a secret belongs into"
            " CHANNELD_ALERTS_WEBHOOK, not into this file. Empty: do not."
        ),
    ] = ""
    webhook_severity: Annotated[Severity, Meta(description="The least severity that the webhook gets.")] = "warning"
    command: Annotated[
        str,
        Meta(description="Start this for each alert, without a shell, with the alert as JSON on its standard input."),
    ] = ""
    command_severity: Annotated[Severity, Meta(description="The least severity that the command gets.")] = "critical"
    timeout: Annotated[float, Meta(gt=0, le=300, description="Seconds that one attempt may take.")] = 10.0


class ApprovalSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Four eyes: what one token asks for, another must approve. What the daemon does by itself needs nobody."""

    treasury: Annotated[
        bool, Meta(description="Deposits, withdrawals and transfers need a second token, with the scope approve.")
    ] = False
    dispute: Annotated[
        bool, Meta(description="Challenges, margin calls on chain, closes and resumes need one as well.")
    ] = False
    expires: Annotated[
        float, Meta(gt=0, le=604_800, description="A request that nobody has approved is over after so many seconds.")
    ] = 3600.0
