"""The desk's key, and the guard before it: the signing rules are enforced here, from the durable record.

Rules: never two digests for one (channel, kind, version); never a version at or below one signed, save to repeat the
same digest, which gives the same bytes; never a state more than 2 * W above the last, save the leap of a recovery. The
record in the store decides; what was signed and is not yet durable counts too. Callers' good will is not relied on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from channeld.core.channel.values import WINDOW
from channeld.core.crypto import address_of, sign_digest
from channeld.core.errors import Fault, PeerError
from channeld.core.records import SIGNED_STATE, DoubleSignError

if TYPE_CHECKING:
    from channeld.core.records import Store


class TooFarAboveError(PeerError):
    """The signer was asked for a state more than 2 * W above the last one that is no recovery's."""

    code = 3121
    fault = Fault.SELF
    advice = "Nothing was signed. The channel is frozen: keep the data directory as it is and report the log."


class SigningGuard:
    """The rules, for whatever holds the key of `address`."""

    def __init__(self, address: bytes, store: Store) -> None:
        """Hold the store whose record binds the key."""
        self.address = address
        self._store = store
        self._last: dict[tuple[bytes, str], tuple[int, bytes, bytes]] = {}

    def remember(self, channel: bytes, kind: str, version: int, digest: bytes, signature: bytes) -> bytes:
        """Count what was signed just now, before it is durable; the signature."""
        self._last[channel, kind] = (version, digest, signature)
        return signature

    async def permitted(
        self, channel: bytes, kind: str, version: int, digest: bytes, *, leap: bool = False
    ) -> bytes | None:
        """None where the digest may be signed now; the same signature where it was signed already. Errors as `sign`."""
        if (channel, kind) not in self._last:
            record = await self._store.highest_signed(channel, kind)
            read = (record.version, record.digest, record.signature) if record else (0, b"", b"")
            # another caller may have signed while this one was reading: what it signed stands
            self._last.setdefault((channel, kind), read)
        highest, signed_digest, signature = self._last[channel, kind]
        if version == highest and digest == signed_digest:
            return signature
        if version <= highest:
            known = await self._store.signed(channel, version, kind)
            if known is not None and known.digest == digest:
                return known.signature
            raise DoubleSignError(
                f"asked to sign {kind} version {version} of 0x{channel.hex()[:8]}; version {highest} is signed already",
                version=version,
                highest=highest,
            )
        if kind == SIGNED_STATE and not leap and version - highest > 2 * WINDOW:
            raise TooFarAboveError(
                f"asked to sign state version {version} of 0x{channel.hex()[:8]}, with {highest} signed last",
                version=version,
                highest=highest,
            )
        return None


class GuardedSigner(SigningGuard):
    """Signs digests of states and documents of this desk's channels."""

    def __init__(self, private_key: bytes, store: Store) -> None:
        """Hold the key (32 bytes) and the store whose record binds it."""
        super().__init__(address_of(private_key), store)
        self._key = private_key

    def sign_plain(self, digest: bytes) -> bytes:
        """Sign what is no state: the session's handshake."""
        return sign_digest(self._key, digest)

    def sign_now(self, channel: bytes, kind: str, version: int, digest: bytes, *, leap: bool = False) -> bytes | None:
        """The same as `sign` where nothing has to be read and no rule stands in the way; None otherwise.

        The usual case of a channel at work: its record is known, and the version is the next one.
        """
        known = self._last.get((channel, kind))
        if known is None or version <= known[0]:
            return None
        if kind == SIGNED_STATE and not leap and version - known[0] > 2 * WINDOW:
            return None
        return self.remember(channel, kind, version, digest, sign_digest(self._key, digest))

    async def sign(self, channel: bytes, kind: str, version: int, digest: bytes, *, leap: bool = False) -> bytes:
        """A signature (65 bytes) on the digest of `version`. leap: the empty state of a recovery of lost states.

        Raises:
            TooFarAboveError: the version lies further above the last than its purpose allows.
            DoubleSignError: another digest was signed for that version, or a version at or above it.
            StoreError: the record cannot be read; nothing is signed.
        """
        quick = self.sign_now(channel, kind, version, digest, leap=leap)
        if quick is not None:
            return quick
        known = await self.permitted(channel, kind, version, digest, leap=leap)
        if known is not None:
            return known
        return self.remember(channel, kind, version, digest, sign_digest(self._key, digest))
