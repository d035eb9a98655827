"""What people and programs do to a desk: a log that cannot be altered unseen, and actions that need a second person.

Rules of the log: what moves money, acts on chain, changes the desk or agrees to something is written down with its
token, before it is done and after; entries are numbered without gaps, and each holds the hash of the one before. One
is durable before what it tells of begins. Where the store takes nothing any more, a desk must still be defended: the
daemon's own log then has the entry. Parameters are kept, results and tokens never. Nothing is ever removed.

Rules of approvals: a request is kept with its parameters as they were asked for, is carried out once, by a word of
another token than the asker's, within its life, while the asker's token is still good. What the daemon does by itself
(refuting, an automatic challenge) needs nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from channeld.core import records
from channeld.core.errors import ChanneldError, Fault, InputError, SetupError, StoreError
from channeld.daemon.scopes import ADMIN, APPROVE, DISPUTE, TREASURY, scope_of
from channeld.daemon.tokens import Caller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from channeld.core.records import Store
    from channeld.daemon.operator_settings import ApprovalSettings
    from channeld.daemon.tokens import Tokens

log = structlog.get_logger(__name__)

ENTRY, HEAD, REQUEST = "operator", "operator_head", "approval"
PAGE = 100
MOST_PARAMS = 4_096
MOST_REQUESTS = 64
ZERO = "0" * 64
AGREEING = frozenset(
    {
        "private/mark",
        "private/novate",
        "private/offer_accept",
        "private/offer_reject",
        "private/order",
        "private/order_cancel_all",
        "private/order_group",
        "private/quote_take",
        "private/trade",
    }
)
"""Of the scope `trade`: what agrees to something. What streams (quotes, markets, vols) would drown it."""
NOBODY = Caller("", frozenset())
LOOKING = frozenset({"private/operator_log", "private/tokens"})
"""The owner's, and yet no more than a look; reading the log must not make it longer."""
CALLER: ContextVar[Caller] = ContextVar("CALLER", default=NOBODY)
"""Who asks, while a method runs."""


class ApprovalNeededError(SetupError):
    """This desk wants a second person for this. The request is kept, and waits for approval."""

    code = 1271
    advice = "Another token, with the scope approve, carries it out: `channeld approval approve ID`."


class UnknownApprovalError(InputError):
    """There is no such request, or it is over."""

    code = 1272
    advice = "`channeld approval list` shows what waits; what is over must be asked for again."


class OwnApprovalError(SetupError):
    """Who asked cannot approve, and a token that is over cannot have asked."""

    code = 1273
    advice = "Have another person approve, with a token of their own."


class TooManyRequestsError(InputError):
    """Too many requests wait for approval."""

    code = 1274
    advice = "Approve or reject what waits."


class AlteredLogError(SetupError):
    """The operators' log is not what was written."""

    code = 1275
    fault = Fault.DISK
    advice = "Compare with the daemon's log, which names number and hash of each entry; somebody has had the database."


def wanted(method: str) -> bool:
    """Whether a method's calls are written down."""
    acting = scope_of(method) in {TREASURY, DISPUTE, ADMIN, APPROVE} and method not in LOOKING
    return acting or method in AGREEING


def entry_hash(entry: dict[str, Any]) -> str:
    """SHA-256, in hexadecimal, of an entry without its own hash: JSON with sorted keys and no spaces, in ASCII."""
    plain = {key: value for key, value in entry.items() if key != "hash"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def check_entries(entries: Sequence[dict[str, Any]], number: int, before: str) -> tuple[int, str]:
    """Check entries that follow on entry `number` with the hash `before` (empty: unknown); the last one's two.

    Raises:
        AlteredLogError: naming the first that was altered, or is missing.
    """
    for entry in entries:
        follows = entry.get("number") == number + 1 and before in {"", entry.get("before")}
        if not follows or entry.get("hash") != entry_hash(entry):
            raise AlteredLogError(f"entry {number + 1} of the operators' log is missing or was altered")
        number, before = entry["number"], entry["hash"]
    return number, before


@dataclass
class OperatorLog:
    """The log of one desk."""

    store: Store
    now_ms: Callable[[], int]
    number: int = 0
    head: str = ZERO
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def load(self) -> None:
        """Find the end."""
        raw = await self.store.document(HEAD, "")
        if raw is not None:
            self.number, self.head = json.loads(raw)

    async def write(self, **told: Any) -> None:  # noqa: ANN401 - any JSON value
        """Append an entry, durable when this returns; or in the daemon's log alone, where the store has failed."""
        # whole, whatever becomes of the caller: an entry that is durable and not counted would be written over
        await asyncio.shield(self._write(told))

    async def _write(self, told: dict[str, Any]) -> None:
        async with self.lock:
            entry = {"number": self.number + 1, "time_ms": self.now_ms(), **told, "before": self.head}
            entry["hash"] = entry_hash(entry)
            # wherever the daemon's log is carried to, the end of this one is known
            log.info("operator", **{name: value for name, value in entry.items() if name not in {"params", "before"}})
            key = f"{entry['number'] // PAGE:010d}/{entry['number'] % PAGE:02d}"
            head = json.dumps([entry["number"], entry["hash"]]).encode()
            value = json.dumps(entry, sort_keys=True).encode()
            try:
                await self.store.commit([records.PutDocument(ENTRY, key, value), records.PutDocument(HEAD, "", head)])
            except StoreError as error:
                log.error("the operator's log takes nothing more", code=error.code, why=str(error))  # noqa: TRY400 - typed
                return
            self.number, self.head = entry["number"], entry["hash"]

    async def page(self, after: int, limit: int) -> list[dict[str, Any]]:
        """Entries after a number, oldest first, at most `limit`."""
        found: list[dict[str, Any]] = []
        for page in range((after + 1) // PAGE, self.number // PAGE + 1):
            rows = sorted(await self.store.documents(ENTRY, f"{page:010d}/"))
            found += [entry for entry in (json.loads(raw) for _, raw in rows) if entry["number"] > after]
            if len(found) >= limit:
                break
        return found[:limit]

    @contextlib.asynccontextmanager
    async def around(self, caller: Caller, method: str, params: dict[str, Any]) -> AsyncIterator[None]:
        """Write down that a method is called, and how that went."""
        text = json.dumps(params, sort_keys=True, default=str)
        who = {"token": caller.name, "token_id": caller.number, "method": method}
        shown = params if len(text) <= MOST_PARAMS else {"sha256": hashlib.sha256(text.encode()).hexdigest()}
        await self.write(**who, params=shown, outcome="asked")
        asked, outcome = self.number, "failed"
        try:
            yield
            outcome = "done"
        except ChanneldError as error:
            outcome = str(error.code)
            raise
        finally:
            await self.write(**who, asked=asked, outcome=outcome)


@dataclass(frozen=True, slots=True)
class Request:
    """What waits for approval. Times in milliseconds."""

    id: str
    method: str
    params: dict[str, Any]
    token: str
    token_id: str
    asked_ms: int
    expires_ms: int


@dataclass
class Approvals:
    """The requests of one desk that wait for a second person."""

    settings: ApprovalSettings
    store: Store
    tokens: Tokens
    now_ms: Callable[[], int]
    waiting: dict[str, Request] = field(default_factory=dict)

    async def load(self) -> None:
        """Read what is kept."""
        for key, raw in await self.store.documents(REQUEST):
            self.waiting[key] = Request(**json.loads(raw))

    def needed(self, method: str) -> bool:
        """Whether a second person is wanted for a method."""
        scope = scope_of(method)
        return (scope == TREASURY and self.settings.treasury) or (scope == DISPUTE and self.settings.dispute)

    async def ask(self, caller: Caller, method: str, params: dict[str, Any]) -> None:
        """Keep a request.

        Raises:
            ApprovalNeededError: always: it is kept, durable, and its id told.
            TooManyRequestsError: it is not.
        """
        await self._forget()
        if len(self.waiting) >= MOST_REQUESTS:
            raise TooManyRequestsError(f"{len(self.waiting)} requests wait for approval already")
        now = self.now_ms()
        over = now + int(self.settings.expires * 1000)
        request = Request(secrets.token_hex(4), method, params, caller.name, caller.number, now, over)
        await self.store.commit([records.PutDocument(REQUEST, request.id, json.dumps(asdict(request)).encode())])
        self.waiting[request.id] = request
        name = method.removeprefix("private/")
        raise ApprovalNeededError(
            f"{name} waits for the approval of a second person, as {request.id}", id=request.id, expires_ms=over
        )

    async def take(self, caller: Caller, wanted_id: str, *, reject: bool = False) -> Request:
        """A request, which is over from now on, durably. Who asked may take it back, and not approve it.

        Raises:
            UnknownApprovalError: there is none, or its life is over.
            OwnApprovalError: the caller asked for it, or the asker's token is no longer good.
        """
        await self._forget()
        request = self.waiting.get(wanted_id)
        if request is None:
            raise UnknownApprovalError(f"no request {wanted_id[:16]!r} waits for approval")
        if not reject and request.token_id == caller.number:
            raise OwnApprovalError(f"{caller.name!r} asked for it: somebody else must approve")
        if not reject and not self.tokens.good(request.token_id):
            raise OwnApprovalError(f"the token {request.token!r} that asked for it is over")
        # taken before it is dropped: a second word that comes meanwhile finds nothing
        del self.waiting[wanted_id]
        await self.store.commit([records.DropDocument(REQUEST, wanted_id)])
        return request

    async def _forget(self) -> None:
        now = self.now_ms()
        over = [key for key, request in self.waiting.items() if request.expires_ms <= now]
        for key in over:
            del self.waiting[key]
        if over:
            await self.store.commit([records.DropDocument(REQUEST, key) for key in over])

    def data(self) -> list[dict[str, Any]]:
        """What waits, oldest first."""
        now = self.now_ms()
        return [asdict(r) for r in sorted(self.waiting.values(), key=lambda r: r.asked_ms) if r.expires_ms > now]
