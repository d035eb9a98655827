"""Write the Python client's typed methods and results from the API's schema.

    python scripts/make_client.py            writes what is made in clients/python/channeld_client, and the table of
                                             methods in docs/client.md
    python scripts/make_client.py --check    exits with 1 where one of them is not what this would write

Rules: names and nesting are the schema's own (channeld/daemon/api_schema.json, made from docs/api.md); what a field
holds follows from its name, by the tables below. A name that is in no table is Any, so that nobody's result is
typed by a guess; clients/python/tests holds the types to what a running daemon answers.
"""  # noqa: INP001 - a script, no package

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "channeld" / "daemon" / "api_schema.json"
PACKAGE = ROOT / "clients" / "python" / "channeld_client"
PAGE = ROOT / "docs" / "client.md"
BEGIN, END = "<!-- repeatable: begin -->\n", "<!-- repeatable: end -->\n"
# what may be asked again although it changes something: the second time changes nothing that the first has not
SAFE = {
    "private/channel_propose": "the same terms are the same proposal",
    "private/market_set": "the newest market stands",
    "private/offer_reject": "an offer is refused once",
    "private/order": "by its `label`, which this client makes where none is given",
    "private/order_cancel": "it stays cancelled",
    "private/order_cancel_after": "the newest time stands",
    "private/order_cancel_all": "they stay cancelled",
    "private/peer_add": "the same address is the same peer",
    "private/policy_set": "every call sets the whole policy",
    "private/quote_pass": "a pass is a pass",
    "private/surface_set": "every call sets the whole surface",
    "private/vols_set": "the newest vols stand",
}
SKIPPED = {"private/subscribe"}
# the client's own `close` and `events` are other things
RENAMED = {"close": "channel_close", "events": "events_page"}
PARAMETERS = {"string": "str", "integer": "int", "boolean": "bool", "object": "Mapping[str, Any]"}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


COUNTS = _words("""
    version versions as_of base until next seq block chain_time fix_time deadline issued number expiry seconds
    floor_version on_record ours_version dispute valid_until most_positions expiries most_expiries blocks_behind
    code vols_count intervals from to time
""")
FLAGS = _words("""
    replayed connected ours tower pinned flagged near_counts counts all_or_none post_only reduce_only expired
    current auto_accept
""")
FLOATS = _words("""
    delta gamma vega theta rho vanna volga residual total lag_s age_s
""")
NULLABLE = _words("""
    expires_ms
    best_bid best_ask spot value fix one_deviation distance value_now profit_now vol expiry_ms free_equity
    safe_offline_until_ms max_notional instruments price_band most_you_can_lose block chain_id_now last_error
    average_price used of_balance own_vol own_carry label reason limit group entry trigger
""")
TEXTS = _words("""
    way method outcome error token_id
    body_hash a b chain_id adjudicator channel batch signature_a signature_b instrument best_bid best_ask tx
    status id peer party side state reason amount agreed delivered equity maintenance initial hash summary
    balance peer_balance sequencer waits_for free_equity deposited_on_chain frozen phase deposited_a deposited_b
    paid_a paid_b next_step worst check level found advice size spot value distance one_deviation mark fix
    settled_gain free initial_margin maintenance_margin used feed profit of_balance us price
    profit_in_collateral equity_in_collateral market scan_risk spread_charge worst_loss worst_scenario
    value_then weighted scenario vol_factor weight without_near without_near_initial operation origin by
    fee_paid reference label type limit force filled working average_price name address url last_error
    max_notional price_band vol_band carry_band vol carry value_now profit_now rfq name payout trouble own_vol
    own_carry severity message token cash_now value_of_premium margin_now most_you_can_lose loss maker_signature
    taker_signature spot_move vol_move direction
""")
# by method and path, where a name alone does not tell
FIELDS = {
    "private/alerts.alerts": "list[dict[str, Any]]",
    "private/alerts_test.error": "str | None",
    "private/alerts.ways.waiting": "int",
    "private/alerts.ways.delivered": "int",
    "private/alerts.ways.dropped": "int",
    "private/approvals.params": "dict[str, Any]",
    "private/audit_page.base": "dict[str, Any] | None",
    "private/audit_page.terms": "dict[str, Any]",
    "private/audit_page.chain_id": "int",
    "private/book.bids": "list[dict[str, Any]]",
    "private/book.asks": "list[dict[str, Any]]",
    "private/book.shown": "Any",
    "private/calls.agreed": "str | None",
    "private/calls.delivered": "str | None",
    "private/channel.terms": "dict[str, Any]",
    "private/channel.body": "dict[str, Any]",
    "private/channel.pending": "list[int]",
    "private/channel.chain_id": "int",
    "private/channel_proposals.terms": "dict[str, Any]",
    "private/channel_proposals.summary": "dict[str, Any]",
    "private/channel_propose.summary": "dict[str, Any]",
    "private/channels.positions": "int",
    "private/compression.legs": "list[dict[str, Any]]",
    "private/compression.refused": "dict[str, Any] | None",
    "private/compression.before": "dict[str, dict[str, Any]] | None",
    "private/compression.after": "dict[str, dict[str, Any]] | None",
    "private/compression.gross_now": "str",
    "private/compression.gross_after": "str",
    "private/dispute.ours": "int",
    "private/dispute.dispute": "int",
    "private/dispute.quote": "dict[str, str] | None",
    "private/doctor.findings": "list[dict[str, Any]]",
    "private/events.events": "list[dict[str, Any]]",
    "private/greeks.positions": "list[dict[str, Any]]",
    "private/greeks.expiries": "list[dict[str, Any]]",
    "private/greeks.channels": "list[dict[str, Any]]",
    "private/greeks.desk": "list[dict[str, Any]]",
    "private/journal.operations": "list[dict[str, Any]]",
    "private/limits.policy": "dict[str, Any]",
    "private/limits.use.notional": "str",
    "private/limits.use.vega": "Any",
    "private/limits.use.positions": "int",
    "private/limits.oracle.max_age_s": "int",
    "private/limits.oracle.age_s": "float | None",
    "private/margin.prices": "dict[str, str]",
    "private/margin.a": "MarginParty",
    "private/margin.b": "MarginParty",
    "private/mark.prices": "dict[str, str]",
    "private/novate.cost": "str | None",
    "private/novate.taken": "list[dict[str, Any]]",
    "private/novate.parts": "list[dict[str, Any]]",
    "private/offers.legs": "list[dict[str, Any]]",
    "private/offers.origin": "str",
    "private/order.id": "int",
    "private/order.trigger": "dict[str, Any] | None",
    "private/order.group": "int | None",
    "private/order.entry": "Any",
    "private/peers.url": "str",
    "private/policy_set.instruments": "list[str] | None",
    "private/policy_set.never": "dict[str, Any] | None",
    "private/policy_set.sizes": "list[dict[str, str]]",
    "private/policy_set.words": "list[str]",
    "private/profit.rows": "list[dict[str, Any]]",
    "private/profit.total": "dict[str, Any]",
    "private/quotes_broken.count": "dict[str, int]",
    "private/quotes_broken.broken.quote": "dict[str, Any]",
    "private/quotes_broken.broken.legs": "list[dict[str, Any]]",
    "private/rfq.asked": "Any",
    "private/rfq.waiting": "Any",
    "private/rfq.passed": "Any",
    "private/rfq.quotes": "list[dict[str, Any]]",
    "private/rfq.taken": "list[dict[str, Any]]",
    "private/rfqs.ours": "list[dict[str, Any]]",
    "private/rfqs.theirs": "list[dict[str, Any]]",
    "private/rfqs.given": "list[dict[str, Any]]",
    "private/quote.given": "list[dict[str, Any]]",
    "private/order_cancel_all.stopped": "int",
    "private/scenario.spot_moves": "list[str]",
    "private/scenario.vol_moves": "list[str]",
    "private/scenario.days": "Any",
    "private/scenario.profit": "list[list[Any]]",
    "private/scenario.worst": "dict[str, Any]",
    "private/status.chain.chain_id": "int | None",
    "private/status.chain.adjudicator": "str | None",
    "private/status.chain.block": "int",
    "private/status.chain.time": "int",
    "private/status.chain.lag_s": "float",
    "private/status.protocol": "int",
    "private/status.version": "str",
    "private/status.peers": "list[Peers]",
    "private/status.channels": "list[dict[str, Any]]",
    "private/status.alerts": "list[dict[str, Any]]",
    "private/surface.surface": "dict[str, Any]",
    "private/surface.positions.vol_band": "Any",
    "private/surface.positions.own_vol": "Any",
    "private/surface.positions.own_carry": "Any",
    "private/token_create.scopes": "list[str]",
    "private/token_revoke.scopes": "list[str]",
    "private/tokens.scopes": "list[str]",
    "private/towers.age_s": "float | None",
    "private/towers.blocks_behind": "int | None",
    "private/towers.channels": "list[dict[str, Any]]",
    "private/trade.legs": "list[dict[str, Any]]",
    "private/vols_set.vols": "int",
    "private/vols_set.carries": "int",
    "private/vols_set.channels": "int",
    "private/what_if.legs": "list[dict[str, Any]]",
    "private/what_if.largest": "list[dict[str, Any]]",
    "private/what_if.refused": "dict[str, Any] | None",
    "private/what_if.before": "dict[str, dict[str, Any]]",
    "private/what_if.after": "dict[str, dict[str, Any]] | None",
    "private/what_if.last_unit": "dict[str, dict[str, Any]] | None",
    "private/peers.last_error": "str",
    "public/schema.openrpc": "str",
    "public/schema.info": "dict[str, Any]",
    "public/schema.methods": "list[dict[str, Any]]",
}
# fields that are there in some answers alone
OPTIONAL = {
    "private/alerts_test": {"error"},
    "private/trade": {"version", "valid_until_ms", "reason", "code"},
    "private/offers": {"legs", "fee_paid", "reference"},
    "private/dispute": {"dispute", "deadline", "fix_time", "on_record", "ours", "quote"},
    "private/channel": {"paid"},
    "private/calls": {"agreed", "delivered", "equity", "maintenance", "initial"},
}
# results that the page words by those of another method, or in prose
RESULTS = {
    "private/policy": "list[dict[str, Any]]",
    "private/bundle": "dict[str, Any]",
    "private/order_cancel": "Order",
    "private/order_group": "list[Order]",
    "private/orders": "list[dict[str, Any]]",
    "private/quote": "dict[str, Any]",
    "private/quote_take": "dict[str, Any]",
    "private/surface_set": "Surface",
}
BASES = {"private/channel": "Channels"}
# the second shape of a page's sentence that has a name of its own
NAMED = {"private/margin": ("MarginParty", 1), "private/trade": ("TradePremium", 1)}
FIELDS["private/trade.premium"] = "TradePremium"
_TOKEN = re.compile(r'\s*("[^"]*"|\.\.\.|\w+|[{}\[\],:])')


def camel(text: str) -> str:
    """The name of a class: `audit_page` -> `AuditPage`."""
    return "".join(part.capitalize() for part in text.split("_"))


class Shapes:
    """Reads the shapes of one method's result and makes classes of them."""

    def __init__(self, method: str, classes: dict[str, str]) -> None:
        """classes: what is made, by name, in the order in which it can stand."""
        self._method, self._classes, self._tokens = method, classes, [""]

    def read(self, text: str, name: str, base: str = "TypedDict", path: str | None = None) -> str:
        """The type of a shape; its classes are made on the way."""
        self._tokens = [match[1] for match in _TOKEN.finditer(text)]
        return self._value(self._method if path is None else path, name, base)

    def _value(self, path: str, name: str, base: str = "TypedDict") -> str:
        found = [self._one(path, name, base)]
        while self._tokens and self._tokens[0] in {"or", ","} and (self._tokens[0] == "or" or self._literal()):
            self._tokens.pop(0)
            found.append(self._one(path, name, base))
        literals = [one for one in found if one.startswith('"')]
        if literals:
            return f"Literal[{', '.join(literals)}]"
        return " | ".join(dict.fromkeys(found))

    def _literal(self) -> bool:
        return len(self._tokens) > 1 and self._tokens[1].startswith('"')

    def _one(self, path: str, name: str, base: str) -> str:
        word = self._tokens.pop(0)
        if word == "{":
            return self._object(path, name, base)
        if word == "[":
            inner = self._value(path, name)
            self._tokens.pop(0)
            return f"list[{inner}]"
        if word == "null":
            return "None"
        return word

    def _object(self, path: str, name: str, base: str) -> str:
        lines = []
        while self._tokens[0] != "}":
            field = self._tokens.pop(0)
            if field == ",":
                continue
            if field == "...":
                continue
            told = f"{path}.{field}"
            kind = ""
            if self._tokens[0] == ":":
                self._tokens.pop(0)
                kept = self._classes
                self._classes = {} if told in FIELDS else kept
                kind = self._value(told, name + camel(field))
                self._classes = kept
            kind = FIELDS.get(told) or kind or self._named(told, field)
            if field in OPTIONAL.get(path, ()):
                kind = f"NotRequired[{kind}]"
            lines.append((field, kind))
        self._tokens.pop(0)
        if any(not field.isidentifier() or field in {"from", "x"} for field, _ in lines):
            inside = ", ".join(f'"{field}": {kind}' for field, kind in lines)
            self._classes[name] = f'{name} = TypedDict("{name}", {{{inside}}})\n'
        else:
            body = "".join(f"    {field}: {kind}\n" for field, kind in lines)
            self._classes[name] = f"class {name}({base}):\n{body}"
        return name

    def _named(self, path: str, field: str) -> str:
        if any(path.startswith(f"{told}.") for told in FIELDS):
            return "Any"  # inside of what a table types as a whole
        none = " | None" if field in NULLABLE else ""
        if field in FLAGS:
            return "bool"
        if field in COUNTS or field.endswith("_ms"):
            return "int" + none
        if field in FLOATS:
            return "Any"
        if field in TEXTS:
            return "str" + none
        return "Any"


def results(methods: list[dict[str, Any]]) -> tuple[dict[str, str], dict[str, str]]:
    """The classes by name, and the type of each method's result."""
    classes: dict[str, str] = {}
    kinds: dict[str, str] = {}
    for method in sorted(methods, key=lambda one: (one["name"] in BASES, one["name"])):
        name, told = method["name"], method["result"]["description"]
        if name in SKIPPED:
            continue
        shapes = [text for text in re.findall(r"`([^`]+)`", told) if text[0] in "{["]
        if name in RESULTS or not shapes:
            kinds[name] = RESULTS.get(name, "Any")
            continue
        reader, title = Shapes(name, classes), camel(name.partition("/")[2])
        if name in NAMED:
            second, place = NAMED[name]
            reader.read(shapes[place], second, path=f"{name}.{second}")
        kind = reader.read(shapes[0], title, BASES.get(name, "TypedDict"))
        several = told.startswith(("a list of", "a line for each"))
        kinds[name] = f"list[{kind}]" if several else kind
    return classes, kinds


def parameter(schema: dict[str, Any]) -> str:
    """The type of a parameter."""
    kind = schema.get("type")
    if kind == "string" and "pattern" in schema:
        return "Amount"
    if isinstance(kind, list):
        return "Amount | float"
    if kind == "array":
        inner = schema.get("items", {}).get("type")
        return f"Sequence[{PARAMETERS[inner] if inner else 'Any'}]"
    return PARAMETERS[str(kind)]


def function(method: dict[str, Any], kind: str, *, waits: bool) -> str:
    """One method of the client."""
    params = sorted(method["params"], key=lambda one: not one["required"])
    names = [one["name"] for one in params]
    signature = ", ".join(
        f"{one['name']}: {parameter(one['schema'])}" + ("" if one["required"] else " | None = None") for one in params
    )
    given = "{" + ", ".join(f'"{name}": {name}' for name in names) + "}"
    title = method["name"].partition("/")[2]
    title = RENAMED.get(title, title)
    prose = method["summary"] or f"See `{method['name']}` in docs/api.md."
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", prose).replace("`", "")
    word, waiting = ("async ", "await ") if waits else ("", "")
    star = "*, " if signature else ""
    safe = "" if repeatable(method) else "\n\n        Never repeated by itself.\n        "
    return (
        f"    {word}def {title}(self, {star}{signature}) -> {kind}:\n"
        f'        """{wrapped(words)}{safe}"""\n'
        f'        result: {kind} = {waiting}self._ask("{method["name"]}", {given})\n'
        "        return result\n"
    )


def wrapped(words: str) -> str:
    """A docstring of one line, whatever the page says."""
    first = re.split(r"(?<=[.!?])\s", words)[0].rstrip(".:") + "."
    return first if len(first) <= 105 else first[:100].rsplit(" ", 1)[0] + " ..."


def repeatable(method: dict[str, Any]) -> bool:
    """Whether it may be asked again where the answer was lost."""
    return method["name"] in SAFE or method.get("x-scope", "read") == "read"


def module(methods: list[dict[str, Any]], kinds: dict[str, str], *, waits: bool) -> str:
    """The mixin of one client."""
    title = "AsyncMethods" if waits else "SyncMethods"
    made = "\n".join(function(one, kinds[one["name"]], waits=waits) for one in methods)
    used = sorted({name for kind in kinds.values() for name in re.findall(r"\w+", kind) if name[0].isupper()} - {"Any"})
    ask = "async def _ask" if waits else "def _ask"
    how = "awaited" if waits else "blocking"
    return (
        f'"""The API\'s methods, {how}: made by scripts/make_client.py, not by hand."""\n'
        "# ruff: noqa: A002, ANN401 - parameters have the API's own names; what has no shape of its own is any JSON\n\n"
        "from __future__ import annotations\n\n"
        "from typing import TYPE_CHECKING, Any\n\n"
        "if TYPE_CHECKING:\n"
        "    from collections.abc import Mapping, Sequence\n\n"
        "    from channeld_client.requests import Amount\n"
        f"    from channeld_client.results import {', '.join(used)}\n\n\n"
        f"class {title}:\n"
        '    """One Python method for each of the API, with the API\'s own names."""\n\n'
        f"    {ask}(self, method: str, params: Mapping[str, Any]) -> Any:\n"
        "        raise NotImplementedError\n\n"
        f"{made}"
    )


def formatted(text: str) -> str:
    """As the project's formatter has it."""
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(PACKAGE / "made.py"), "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=ROOT)  # noqa: S603 - ours
    return done.stdout


def made() -> dict[Path, str]:
    """Every file that this writes, by path."""
    methods = [one for one in json.loads(SCHEMA.read_text(encoding="utf-8"))["methods"] if one["name"] not in SKIPPED]
    classes, kinds = results(methods)
    head = (
        '"""What the API\'s methods give: made by scripts/make_client.py, not by hand.\n\n'
        "Amounts, prices and sizes are decimal texts: `Decimal(row['balance'])`. A field that is not always there is\n"
        'NotRequired.\n"""\n'
        "# ruff: noqa: D101 - each is named after its method, and docs/api.md says what is in it\n\n"
        "from __future__ import annotations\n\n"
        "from typing import Any, Literal, NotRequired, TypedDict\n\n"
    )
    safe = sorted(one["name"] for one in methods if repeatable(one))
    listed = (
        '"""Methods that may be asked again where an answer was lost: made by scripts/make_client.py."""\n\n'
        "from __future__ import annotations\n\n"
        f"REPEATABLE = frozenset({json.dumps(safe)})\n"
    )
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    reads = ", ".join(f"`{one.partition('/')[2]}`" for one in safe if one not in SAFE)
    never = ", ".join(f"`{one['name'].partition('/')[2]}`" for one in methods if not repeatable(one))
    rows = "".join(f"| `{name.partition('/')[2]}` | {why} |\n" for name, why in sorted(SAFE.items()))
    table = f"| repeated by itself | because |\n| --- | --- |\n| {reads} | they change nothing |\n{rows}"
    table += f"| never: {never} | twice would be two |\n"
    return {
        PACKAGE / "results.py": formatted(head + "\n\n".join(classes.values())),
        PACKAGE / "_methods.py": formatted(module(methods, kinds, waits=True)),
        PACKAGE / "_methods_sync.py": formatted(module(methods, kinds, waits=False)),
        PACKAGE / "_repeatable.py": formatted(listed),
        PAGE: before + BEGIN + table + END + rest.partition(END)[2],
    }


def main(arguments: list[str]) -> int:
    """Write the files, or compare them."""
    files = made()
    if "--check" in arguments:
        old = [path.name for path, text in files.items() if not path.exists() or path.read_text("utf-8") != text]
        told = f"old: {', '.join(old)}; run scripts/make_client.py" if old else "the client is as it should be"
        sys.stdout.write(told + "\n")
        return 1 if old else 0
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
