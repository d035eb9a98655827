"""The API's methods about margin calls and the end of disputes by agreement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from channeld.core.wad import format_decimal
from channeld.daemon.requests import Requests
from channeld.desk.margin_calls import to_data

if TYPE_CHECKING:
    from channeld.daemon.actor import Actor
    from channeld.daemon.parameters import Json, Params
    from channeld.desk.margin_calls import Call

_WADS = ("equity", "maintenance", "initial")
_UNITS = ("amount", "agreed", "delivered")


class MarginMethods(Requests):
    """Calls, and what follows of them."""

    async def margin_calls(self, params: Params) -> Json:
        """Margin calls, ours and the peers', the newest first; of one channel where one is named."""
        chosen = [self._actor(params)] if params.get("channel") is not None else list(self.node.actors.values())
        rows: list[dict[str, Json]] = []
        for actor in chosen:
            rows += [self._call_row(actor, call) for call in self.node.margin.calls.get(actor.id, {}).values()]
        return sorted(rows, key=lambda row: (row["issued"], row["id"]), reverse=True)

    def _call_row(self, actor: Actor, call: Call) -> dict[str, Json]:
        decimals = actor.channel.terms.decimals
        row: dict[str, Json] = {
            **to_data(call),
            "channel": "0x" + actor.id.hex(),
            "peer": self.node.name(actor.peer),
            "party": "peer" if call.ours else "us",
            **{name: format_decimal(getattr(call, name), decimals) for name in _UNITS},
            **{name: format_decimal(getattr(call, name), places=2) for name in _WADS},
        }
        del row["baseline"]
        return row

    async def call_margin(self, params: Params) -> Json:
        """Call margin on chain with the newest co-signed state: who is below at the call's time is closed out."""
        actor = self._actor(params)
        transaction = await self.node.chain.disputes.call_margin(actor)
        return {"tx": "0x" + transaction.hex(), "status": "margin is called on chain; a dispute runs"}

    async def resume(self, params: Params) -> Json:
        """Sign that a dispute ends and the channel goes on: the peer's offer to do so, or one of our own."""
        return await self.node.resuming.agree(self._actor(params))
