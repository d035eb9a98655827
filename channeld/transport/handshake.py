"""Who is on the other end: Ethereum signers bound to a Noise handshake. docs/transport.md writes out every byte.

Rules: steps without input or output; whoever drives them moves the bytes. The initiator proves itself in the third
message; the responder checks proof and allow-list, and only then proves itself, in the first transport message. The
initiator believes nothing until it has checked that. Nobody learns a signer who has not been let in by it, save the
responder that was dialled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from channeld.core import codec
from channeld.core.codec import CodecError
from channeld.core.crypto import ADDRESS_BYTES, SIGNATURE_BYTES, SignatureError, checksum_address, keccak256, verify
from channeld.core.eip712 import link_digest, link_typed_data
from channeld.transport.errors import (
    BadPeerConfigurationError,
    HandshakeError,
    IdentityError,
    NotAllowedError,
    RefusedError,
    TransportError,
    VersionMismatchError,
    WrongPeerError,
)
from channeld.transport.noise import KEY_BYTES, HandshakeState, Session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PROTOCOL_VERSION = 2
PROLOGUE = b"channeld/1"
IDENTITY_TAG = b"\x19channeld/1 link identity\n"
INITIATOR, RESPONDER = b"\x00", b"\x01"
MAX_HANDSHAKE_MESSAGE = 1024
MAX_REASON = 256
_REFUSED, _PROVEN = 0, 1


@dataclass(frozen=True)
class Identity:
    """This desk on its links.

    Attributes:
        address: its signer's address, 20 bytes.
        static: the private Noise key, 32 bytes. It carries no identity (the signature does); random per process.
        sign: signs a 32-byte digest with the signer's key: 65 bytes, as core.crypto.sign_digest.
        version: the protocol version spoken.
        wallet: signs typed data (Link) instead of a digest, where the key is a wallet's; `sign` is then not used. Such
            an end can dial alone.

    """

    address: bytes
    static: bytes = field(repr=False)
    sign: Callable[[bytes], bytes] = field(repr=False)
    version: int = PROTOCOL_VERSION
    wallet: Callable[[dict[str, Any]], Awaitable[bytes]] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be right."""
        if len(self.address) != ADDRESS_BYTES or len(self.static) != KEY_BYTES:
            raise BadPeerConfigurationError("a link identity has an address of 20 bytes and a static key of 32")


def identity_digest(role: bytes, handshake_hash: bytes, static_public: bytes, address: bytes) -> bytes:
    """What a signer signs to own one end of one handshake: 32 bytes.

    Args:
        role: INITIATOR or RESPONDER, one byte.
        handshake_hash: 64 bytes; the initiator's after message 2, the responder's after message 3.
        static_public: the signing side's Noise static key, 32 bytes.
        address: the signing side's address, 20 bytes.

    """
    return keccak256(IDENTITY_TAG + role + handshake_hash + static_public + address)


def _link(role: bytes, handshake_hash: bytes, static_public: bytes, address: bytes) -> tuple[str, bytes, bytes, bytes]:
    """The facts of `identity_digest` as the fields of the typed data Link."""
    name = "initiator" if role == INITIATOR else "responder"
    return name, keccak256(handshake_hash), static_public, address


def clean_text(text: str) -> str:
    """A peer's text, cut and without anything that could play with a terminal or a log."""
    return "".join(c if c.isprintable() else "?" for c in text[:MAX_REASON])


def _array(raw: bytes) -> list[Any]:
    try:
        value = codec.decode(raw, MAX_HANDSHAKE_MESSAGE, 1)
    except CodecError as error:
        raise HandshakeError(f"a handshake payload is malformed: {error}") from error
    if not isinstance(value, list) or not value:
        raise HandshakeError("a handshake payload must be an array")
    return value


def _read_version(raw: bytes, ours: int) -> int:
    """The version in a payload [version]; a later version may say more after it."""
    value = _array(raw)
    theirs = value[0]
    if isinstance(theirs, bool) or not isinstance(theirs, int) or not 0 < theirs < 1 << 32:
        raise HandshakeError("a handshake payload must begin with a protocol version")
    if theirs == ours and len(value) != 1:
        raise HandshakeError("a handshake payload of this version has one element")
    return theirs


def _version_error(ours: int, theirs: int) -> VersionMismatchError | None:
    if ours == theirs:
        return None
    return VersionMismatchError(
        f"this daemon speaks protocol version {ours}, the peer {theirs}", ours=ours, theirs=theirs
    )


def _check_size(message: bytes) -> None:
    if len(message) > MAX_HANDSHAKE_MESSAGE:
        raise HandshakeError(f"a handshake message of {len(message)} bytes; at most {MAX_HANDSHAKE_MESSAGE}")


def _check_proof(proof: list[Any], role: bytes, handshake_hash: bytes, static_public: bytes) -> bytes:
    """The address that [address, signature] proves."""
    if len(proof) != 2 or not all(isinstance(part, bytes) for part in proof):
        raise HandshakeError("an identity must be [address, signature]")
    address, signature = proof
    if len(address) != ADDRESS_BYTES or len(signature) != SIGNATURE_BYTES:
        raise HandshakeError("an identity must be [address (20 bytes), signature (65 bytes)]")
    try:
        try:
            verify(identity_digest(role, handshake_hash, static_public, address), signature, address)
        except SignatureError:
            # a wallet's, made from the typed data of the same facts
            verify(link_digest(*_link(role, handshake_hash, static_public, address)), signature, address)
    except SignatureError as error:
        raise IdentityError(
            f"the other end did not prove to be {checksum_address(address)}", claimed=checksum_address(address)
        ) from error
    return bytes(address)


class Initiator:
    """The dialling side: `hello` -> message 1; `prove(message 2)` -> message 3; `finish(message 4)` -> session."""

    def __init__(self, identity: Identity, expected: bytes, *, ephemeral: bytes | None = None) -> None:
        """Dial `expected` (20 bytes) as `identity`; `ephemeral` is for test vectors alone."""
        self._identity, self._expected = identity, expected
        self._noise = HandshakeState(initiator=True, prologue=PROLOGUE, static=identity.static, ephemeral=ephemeral)

    def hello(self) -> bytes:
        """Message 1: our version, in clear."""
        return self._noise.write_message(codec.encode([self._identity.version]))

    def prove(self, message: bytes) -> bytes:
        """Check message 2 (the responder's version) and answer with message 3: our identity, for its eyes alone.

        Raises:
            HandshakeError: malformed or not authentic.
            VersionMismatchError: names both versions. Our identity has not been shown.

        """
        self._read_greeting(message)
        identity = self._identity
        digest = identity_digest(INITIATOR, self._noise.hash, self._noise.static_public, identity.address)
        return self.proven(identity.sign(digest))

    def asks_wallet(self, message: bytes) -> dict[str, Any]:
        """Check message 2; the typed data that a wallet signs to prove us. Its signature goes to `proven`.

        Raises:
            HandshakeError, VersionMismatchError: as `prove`.
        """
        self._read_greeting(message)
        facts = _link(INITIATOR, self._noise.hash, self._noise.static_public, self._identity.address)
        return link_typed_data(*facts)

    def proven(self, signature: bytes) -> bytes:
        """Message 3, with the signature (65 bytes) that proves us."""
        return self._noise.write_message(codec.encode([self._identity.address, signature]))

    def _read_greeting(self, message: bytes) -> None:
        _check_size(message)
        payload = self._noise.read_message(message)
        error = _version_error(self._identity.version, _read_version(payload, self._identity.version))
        if error is not None:
            raise error

    def finish(self, message: bytes) -> Session:
        """Check message 4, the responder's identity.

        Raises:
            HandshakeError: malformed or not authentic.
            RefusedError: the responder does not want us; its reason.
            IdentityError: it did not prove the address that it claims.
            WrongPeerError: it proved another than the expected; names both.

        """
        _check_size(message)
        session = self._noise.session()
        try:
            records = session.open(message)
        except TransportError as error:
            raise HandshakeError(f"the responder's identity is unreadable: {error}") from error
        if len(records) != 1 or not session.at_boundary:
            raise HandshakeError("the responder's identity must come alone")
        answer = _array(records[0])
        if answer[0] == _REFUSED and len(answer) == 3 and isinstance(answer[1], int) and isinstance(answer[2], str):
            raise RefusedError(f"the peer refused this desk: {clean_text(answer[2])}", peer_code=answer[1])
        if answer[0] != _PROVEN:
            raise HandshakeError("the responder's identity is malformed")
        address = _check_proof(answer[1:], RESPONDER, self._noise.hash, self._noise.remote_static)
        if address != self._expected:
            found, wanted = checksum_address(address), checksum_address(self._expected)
            raise WrongPeerError(f"the endpoint is {found}, not {wanted}", found=found, expected=wanted)
        return session


class Responder:
    """The listening side: `greet(message 1)` -> message 2; `check(message 3)` -> address; `prove` or `refuse` -> 4."""

    def __init__(self, identity: Identity, *, ephemeral: bytes | None = None) -> None:
        """Answer as `identity`; `ephemeral` is for test vectors alone."""
        self._identity = identity
        self._noise = HandshakeState(initiator=False, prologue=PROLOGUE, static=identity.static, ephemeral=ephemeral)
        self._session: Session | None = None
        self.version_error: VersionMismatchError | None = None
        """Set by `greet`; to be raised once message 2 is sent, so that the initiator learns our version too."""

    def greet(self, message: bytes) -> bytes:
        """Read message 1 and answer with message 2: our version and nothing else.

        Raises:
            HandshakeError: malformed.

        """
        _check_size(message)
        version = self._identity.version
        self.version_error = _version_error(version, _read_version(self._noise.read_message(message), version))
        return self._noise.write_message(codec.encode([version]))

    def check(self, message: bytes, allowed: Callable[[bytes], bool]) -> bytes:
        """The initiator's address (20 bytes), proven by message 3 and let in by `allowed`.

        Raises:
            HandshakeError: malformed or not authentic.
            IdentityError: a signature that is not by the claimed address.
            NotAllowedError: proven, but not on the allow-list. (The proof is checked first: nobody may ask whose
                addresses are on the list without owning them.)

        """
        _check_size(message)
        at_two = self._noise.hash
        payload = self._noise.read_message(message)
        self._session = self._noise.session()
        address = _check_proof(_array(payload), INITIATOR, at_two, self._noise.remote_static)
        if address == self._identity.address or not allowed(address):
            name = checksum_address(address)
            raise NotAllowedError(f"{name} is not on the allow-list", address=name)
        return address

    def prove(self) -> tuple[bytes, Session]:
        """Message 4, our identity, and the session. Only after `check` returned."""
        session = self._established()
        identity = self._identity
        digest = identity_digest(RESPONDER, self._noise.hash, self._noise.static_public, identity.address)
        (message,) = session.seal([codec.encode([_PROVEN, identity.address, identity.sign(digest)])])
        return message, session

    def refuse(self, error: TransportError) -> bytes | None:
        """Message 4 that says why not, without saying who we are; None where no session exists to say it in."""
        if self._session is None:
            return None
        (message,) = self._session.seal([codec.encode([_REFUSED, error.code, str(error)[:MAX_REASON]])])
        return message

    def _established(self) -> Session:
        if self._session is None:
            raise HandshakeError("the handshake is not finished")
        return self._session
