"""The refusals of a caller's writes, worded once for every store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from channeld.core.records import DoubleSignError, RecordConflictError, UnknownRecordError

if TYPE_CHECKING:
    from channeld.core.records import PutSigned


def unknown_channel(channel: bytes) -> UnknownRecordError:
    """A channel that the store does not hold."""
    return UnknownRecordError(f"channel 0x{channel.hex()} is not in this store", channel="0x" + channel.hex())


def other_particulars(channel: bytes) -> RecordConflictError:
    """A channel that is stored with another peer, side, terms, domain or time."""
    return RecordConflictError(
        f"channel 0x{channel.hex()} is already stored with other particulars", channel="0x" + channel.hex()
    )


def conflict(what: str, channel: bytes, version: int) -> RecordConflictError:
    """Another record under a key that is written once."""
    return RecordConflictError(
        f"another {what} is already stored for version {version} of channel 0x{channel.hex()}",
        channel="0x" + channel.hex(),
        version=version,
    )


def double_sign(write: PutSigned, top: int | None) -> DoubleSignError:
    """A second digest at one version (top: None), or a version at or below `top`, the highest one signed."""
    reason = (
        f"another {write.kind} was signed at version {write.version}"
        if top is None
        else f"version {top} of kind {write.kind} was signed already, so version {write.version} must not be"
    )
    return DoubleSignError(
        f"channel 0x{write.channel.hex()}: {reason}",
        channel="0x" + write.channel.hex(),
        kind=write.kind,
        version=write.version,
        digest="0x" + write.digest.hex(),
    )
