"""Errors of the links between peers.

Rules: whatever a peer, or whoever pretends to be one, does to a connection ends in exactly one of these (or in one of
core.codec's CodecErrors, for bytes that are no value), and ends nothing but that connection.
"""

from __future__ import annotations

from channeld.core.errors import Fault, PeerError


class TransportError(PeerError):
    """A connection to a peer failed or ended."""

    code = 3210


class HandshakeError(TransportError):
    """The handshake could not be completed: malformed, not authentic, or cut off."""

    code = 3211
    advice = "Check that the address and port are the peer port of a channeld daemon."


class VersionMismatchError(TransportError):
    """The two daemons speak different versions of the protocol."""

    code = 3212
    advice = "The side with the older version must upgrade channeld."


class IdentityError(TransportError):
    """Who is on the other end did not prove the signer that it claims to be."""

    code = 3213
    advice = "Somebody else answers, or the peer's keystore and configuration disagree. Do not trust this connection."


class NotAllowedError(TransportError):
    """A proven signer that is not on the allow-list asked to connect."""

    code = 3214
    advice = "If this desk is meant to connect, add it with `channeld peer add`."


class WrongPeerError(TransportError):
    """The dialled endpoint proved to be a signer other than the expected one."""

    code = 3215
    advice = "Check the peer's address and URL with its operator, then correct them with `channeld peer add`."


class RefusedError(TransportError):
    """The peer refused this desk; the message is the peer's own."""

    code = 3216
    advice = "Ask the peer's operator to add this desk's address."


class HandshakeTimeoutError(TransportError):
    """The other end did not finish the handshake in time."""

    code = 3217
    advice = "Check that the address and port are the peer port of a channeld daemon, and the network between."


class CrowdedError(TransportError):
    """Too many connections that have not proven who they are; new ones wait."""

    code = 3218


class LinkClosedError(TransportError):
    """The link was closed on purpose, by either side."""

    code = 3220


class LinkBrokenError(TransportError):
    """The connection was lost without a goodbye."""

    code = 3221
    advice = "The link is dialled again by itself."


class TamperedFrameError(TransportError):
    """A frame that is not authentic: altered, truncated, replayed or out of order."""

    code = 3222
    advice = "Something between the desks alters the traffic. It learns nothing and can only cut the connection."


class GarbageError(TransportError):
    """Authentic bytes that are no message: the peer's program is broken or another one."""

    code = 3223
    advice = "The peer runs another program or a broken one; compare versions with its operator."


class SlowPeerError(TransportError):
    """The peer does not read what it is sent, and the bound on what waits for it is reached."""

    code = 3224
    advice = "Nothing is lost: what matters is sent again when the link is back. The peer is overloaded or stuck."


class SilentPeerError(TransportError):
    """The peer did not answer a heartbeat in time."""

    code = 3225
    advice = "The link is dialled again by itself."


class UnreachableError(TransportError):
    """No connection to the peer's URL could be made."""

    code = 3226
    advice = "Check the peer's URL and that its daemon runs; it is dialled again by itself."


class NotConnectedError(TransportError):
    """There is no live link to this peer now."""

    code = 3227
    advice = "Nothing was sent. It is sent again by the exchange that opens the next link."


class NonceExhaustedError(TransportError):
    """A session has used all its nonces; no further message may be encrypted under its key."""

    code = 3228
    fault = Fault.SELF
    advice = "A new connection has new keys."


class DuplicateLinkError(TransportError):
    """Another link to the same peer is kept instead of this one."""

    code = 3229


class BadPeerConfigurationError(TransportError):
    """A peer's address or URL, or this desk's link identity, that cannot be right."""

    code = 3230
    fault = Fault.USER
    advice = "A peer has another address than this desk, of 20 bytes, and a URL such as ws://host:9735."
