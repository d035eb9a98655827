"""The API's tokens: the owner's, in a file, and those it has made, of which only a hash is kept.

Rules: a token is "chd_" with a public number and 256 random bits. What is kept is SHA-256 of those bits (they need no
salt: nobody can try them) with name, scopes and life; it is compared in constant time, and a token that is unknown
takes the same steps as one that is wrong. The secret is told once. A revoked token stops with the next request.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from channeld.core import records
from channeld.core.errors import InputError, SetupError
from channeld.daemon.scopes import ADMIN, GRANTABLE, scope_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from channeld.core.records import Store

TOKEN = "token"  # noqa: S105 - the kind of a record
PREFIX = "chd_"
MAX_NAME = 64
MAX_TOKENS = 256
OWNER = "owner"


class UnauthorizedError(SetupError):
    """The token is missing or wrong."""

    code = 1210
    advice = "Send the content of api.token in the desk's directory as `Authorization: Bearer`."


class ScopeError(SetupError):
    """The token is good, and may not call this method."""

    code = 1262
    advice = "Use a token with the scope that is named; `channeld token create` makes one."


class UnknownTokenError(InputError):
    """There is no such token."""

    code = 1264
    advice = "`channeld token list` shows them."


class TokenNameError(InputError):
    """A token of that name is there already, or the name or scope is none."""

    code = 1265
    advice = "Give each token a name of its own, and one or more of read, trade, treasury, dispute, approve."


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is kept. Times in milliseconds; expires_ms 0 for no end. digest: SHA-256 of its secret."""

    number: str
    name: str
    scopes: tuple[str, ...]
    digest: bytes
    created_ms: int
    expires_ms: int = 0

    def as_data(self) -> dict[str, Any]:
        """What is shown of it: never the hash."""
        return {
            "id": self.number,
            "name": self.name,
            "scopes": list(self.scopes),
            "created_ms": self.created_ms,
            "expires_ms": self.expires_ms or None,
        }


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the name and number of its token, and what it may do."""

    name: str
    scopes: frozenset[str]
    number: str = ""

    def check(self, method: str) -> None:
        """Return only if this caller may call a private method.

        Raises:
            ScopeError: it lacks the scope, which is named.

        """
        needed = scope_of(method)
        if ADMIN not in self.scopes and needed not in self.scopes:
            whose = "the owner's token (api.token)" if needed == ADMIN else f"the scope {needed!r}"
            raise ScopeError(f"this method needs {whose}; the token {self.name!r} does not have it", scope=needed)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


_NOBODY = Token("", "", (), bytes(32), 0)


class Tokens:
    """The tokens of one desk."""

    def __init__(self, store: Store, now_ms: Callable[[], int]) -> None:
        """Bind. Until `own` is told the owner's token, nobody is the owner."""
        self._store, self._now_ms = store, now_ms
        self._owner = _digest(secrets.token_urlsafe(32))
        self._known: dict[str, Token] = {}

    def own(self, owner: str) -> None:
        """Take the content of api.token for the owner's, which may do everything."""
        self._owner = _digest(owner)

    async def load(self) -> None:
        """Read what is kept."""
        for number, raw in await self._store.documents(TOKEN):
            data = json.loads(raw)
            self._known[number] = Token(
                number,
                data["name"],
                tuple(data["scopes"]),
                bytes.fromhex(data["digest"]),
                data["created_ms"],
                data["expires_ms"],
            )

    def authenticate(self, authorization: str) -> Caller:
        """Whose token an Authorization header holds.

        Raises:
            UnauthorizedError: nobody's, or one that is over.

        """
        given = authorization.removeprefix("Bearer ")
        number, _, secret = given.removeprefix(PREFIX).partition("_")
        token = self._known.get(number, _NOBODY) if given.startswith(PREFIX) else _NOBODY
        # both comparisons are made whatever the token looks like
        is_token = hmac.compare_digest(_digest(secret), token.digest)
        if hmac.compare_digest(_digest(given), self._owner):
            return Caller(OWNER, frozenset({ADMIN}))
        if not is_token or token is _NOBODY or (token.expires_ms and token.expires_ms <= self._now_ms()):
            raise UnauthorizedError("this method needs the desk's token")
        return Caller(token.name, frozenset(token.scopes), token.number)

    def good(self, number: str) -> bool:
        """Whether a token may still act; the empty number is the owner's."""
        token = self._known.get(number)
        return not number or (token is not None and not 0 < token.expires_ms <= self._now_ms())

    def listed(self) -> list[dict[str, Any]]:
        """All tokens, oldest first, without their secrets."""
        now = self._now_ms()
        rows = sorted(self._known.values(), key=lambda token: (token.created_ms, token.number))
        return [{**t.as_data(), "expired": bool(t.expires_ms) and t.expires_ms <= now} for t in rows]

    async def create(self, name: str, scopes: Sequence[str], expires_ms: int = 0) -> tuple[Token, str]:
        """A new token, durable, and the text that its bearer sends, which is told this once.

        Raises:
            TokenNameError: the name is taken or empty, or a scope is none.
            StoreError: it could not be kept.

        """
        if not 1 <= len(name) <= MAX_NAME or name == OWNER or name.strip() != name:
            raise TokenNameError(f"a token's name has 1 to {MAX_NAME} characters, and is not {OWNER!r}")
        if any(token.name == name for token in self._known.values()):
            raise TokenNameError(f"there is a token {name!r} already")
        if not scopes or len(set(scopes)) != len(scopes) or not set(scopes) <= set(GRANTABLE):
            raise TokenNameError(f"a token has one or more of the scopes {', '.join(GRANTABLE)}")
        if len(self._known) >= MAX_TOKENS:
            raise TokenNameError(f"there are {MAX_TOKENS} tokens already")
        number, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
        ordered = tuple(scope for scope in GRANTABLE if scope in scopes)
        token = Token(number, name, ordered, _digest(secret), self._now_ms(), expires_ms)
        value = {**token.as_data(), "digest": token.digest.hex(), "expires_ms": expires_ms}
        # known at once, so that no second of the same name is made while this one is written
        self._known[number] = token
        try:
            await self._store.commit([records.PutDocument(TOKEN, number, json.dumps(value).encode())])
        except BaseException:
            del self._known[number]
            raise
        return token, f"{PREFIX}{number}_{secret}"

    async def revoke(self, which: str) -> Token:
        """End a token, by its number or its name.

        Raises:
            UnknownTokenError: there is none.
            StoreError: it could not be kept; the token is over in this run all the same.

        """
        token = self._known.get(which) or next((t for t in self._known.values() if t.name == which), None)
        if token is None:
            raise UnknownTokenError(f"there is no token {which[:MAX_NAME]!r}")
        del self._known[token.number]
        await self._store.commit([records.DropDocument(TOKEN, token.number)])
        return token
