"""The API's methods about itself: its schema, tokens, subscriptions."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from channeld.core.errors import InputError
from channeld.daemon.parameters import BadParameterError, Json, Params, take
from channeld.daemon.requests import Requests

if TYPE_CHECKING:
    from channeld.core.records import EventRecord

DAY_MS = 86_400_000
MOST_DAYS = 3_650


class NotHereError(InputError):
    """A subscription over plain HTTP, which has nowhere to send events to."""

    code = 1266
    advice = "Subscribe over the WebSocket at /ws, or poll private/events with `since` and `wait_s`."


def event_row(event: EventRecord) -> dict[str, Json]:
    """An event as the API tells it. `seq` rises by itself and is never used twice."""
    return {
        **json.loads(event.data),
        "seq": event.sequence,
        "time_ms": event.time_ms,
        "kind": event.kind,
        "channel": "0x" + event.channel.hex() if event.channel else None,
    }


@cache
def api_schema() -> Json:
    """The schema that scripts/make_api.py makes of docs/api.md."""
    return json.loads(resources.files("channeld.daemon").joinpath("api_schema.json").read_text(encoding="utf-8"))


@cache
def parameters_of(method: str) -> frozenset[str]:
    """The names of a method's parameters, by the schema."""
    found = next((one for one in api_schema()["methods"] if one["name"] == method), None)
    return frozenset(parameter["name"] for parameter in found["params"]) if found else frozenset()


class TokenMethods(Requests):
    """The schema, tokens and subscriptions."""

    async def schema(self, _: Params) -> Json:
        """Every method with its parameters, types and scope."""
        return api_schema()

    async def tokens(self, _: Params) -> Json:
        """The tokens that the owner has made; their secrets are not kept."""
        return self.node.tokens.listed()

    async def token_create(self, params: Params) -> Json:
        """A new token. Its text is told this once."""
        name = take(params, "name", str)
        scopes = take(params, "scopes", list)
        days = take(params, "days", int, 0)
        if any(not isinstance(scope, str) for scope in scopes):
            raise BadParameterError("'scopes' must be a list of texts")
        if days > MOST_DAYS:
            raise BadParameterError(f"'days' must be at most {MOST_DAYS}")
        expires_ms = self.node.clock.now_ms() + days * DAY_MS if days else 0
        token, text = await self.node.tokens.create(name, scopes, expires_ms)
        return {**token.as_data(), "token": text}

    async def token_revoke(self, params: Params) -> Json:
        """End a token."""
        token = await self.node.tokens.revoke(take(params, "token", str))
        return {**token.as_data(), "status": "revoked"}

    async def subscribe(self, params: Params) -> Json:
        """What a subscription is to tell; the door carries it out where there is a WebSocket to tell it on."""
        kinds = take(params, "kinds", list, [])
        if any(not isinstance(kind, str) for kind in kinds):
            raise BadParameterError("'kinds' must be a list of texts")
        since = take(params, "since", int, -1) if params.get("since") is not None else -1
        channel = self._actor(params).id.hex() if params.get("channel") is not None else None
        return {"since": since, "channel": channel, "kinds": kinds}
