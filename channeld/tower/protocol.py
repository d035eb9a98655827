"""What owners and towers say to each other, byte for byte: signed requests, signed receipts. Pure.

Rules: a request is JSON whose exact bytes the owner signs; it names the tower, so that no other can use it, and carries
a number that rises, so that it is taken once. A receipt is EIP-712 typed data under a domain of its own name, so that
it can never be taken for a state: any wallet can verify it, and anybody can be shown it. Everything but `check` with a
higher version says nothing that the chain would not show in a dispute: no body, no position, no balance.

    Receipt(bytes32 channel,uint64 version,bytes32 bodyHash,address owner,uint64 timeMs,uint64 block,bytes32 request)

Of version 0 the body hash is zero. `block` is the newest block the tower had seen; `request` the keccak of the request
that it answers, which makes it an answer to that one and no older.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from channeld.core.crypto import ADDRESS_BYTES, SIGNATURE_BYTES, SignatureError, checksum_address, keccak256, verify
from channeld.core.eip712 import state_digest
from channeld.core.errors import ChanneldError
from channeld.core.files import address_from_text
from channeld.tower.errors import (
    BadReceiptError,
    BadStateSignaturesError,
    MalformedTowerRequestError,
    TowerAddressError,
)

if TYPE_CHECKING:
    from channeld.core.eip712 import Domain
    from channeld.core.terms import Terms

PATH = "/v1"
SIGNATURE_HEADER = "Channeld-Signature"
MAX_BODY = 256 * 1024
MAX_ITEMS = 64
MAX_VERSION = (1 << 64) - 1
TAG = b"channeld tower request v1\n"
ZERO_HASH = bytes(32)
_DOMAIN_TYPE = keccak256(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
_NAME, _VERSION = keccak256(b"channeld tower"), keccak256(b"1")
_RECEIPT_TYPE = keccak256(
    b"Receipt(bytes32 channel,uint64 version,bytes32 bodyHash,address owner,uint64 timeMs,uint64 block,bytes32 request)"
)
_HEX = re.compile(r"0x(?:[0-9a-fA-F]{2})*")
_PAD = bytes(12)
_TOWER_NAME = re.compile(r"(0x[0-9a-fA-F]{40})@(https?://.+)")


@dataclass(frozen=True, slots=True)
class TowerName:
    """A tower: the address of its key, and where it listens."""

    address: bytes
    url: str

    def __str__(self) -> str:
        """ADDRESS@URL."""
        return f"{checksum_address(self.address)}@{self.url}"


def parse_tower(text: str) -> TowerName:
    """A tower from ADDRESS@URL.

    Raises:
        TowerAddressError: it is not of that form.

    """
    match = _TOWER_NAME.fullmatch(text)
    try:
        parts = urlsplit(match[2]) if match else None
        if match is None or parts is None or not parts.hostname or parts.query or parts.username:
            raise TowerAddressError(f"{text!r} is no tower")
        parts.port  # noqa: B018 - raises where the port is none
        return TowerName(address_from_text(match[1]), match[2].rstrip("/"))
    except (ValueError, ChanneldError) as error:
        raise TowerAddressError(f"{text!r} is no tower: write ADDRESS@URL") from error


@dataclass(frozen=True, slots=True)
class Held:
    """All that a tower has of a channel's state: enough to refute. Version 0 is implicit, with nothing signed."""

    version: int
    body_hash: bytes
    signature_a: bytes
    signature_b: bytes

    @property
    def signatures(self) -> bytes:
        """Signature of a, then b's, as the contract takes them."""
        return self.signature_a + self.signature_b


NOTHING = Held(0, ZERO_HASH, b"", b"")


def check_held(domain: Domain, terms: Terms, channel: bytes, held: Held) -> None:
    """Return only if both parties of the terms have signed it.

    Raises:
        BadStateSignaturesError: they have not.

    """
    digest = state_digest(domain, channel, held.version, held.body_hash)
    try:
        verify(digest, held.signature_a, terms.a.signer)
        verify(digest, held.signature_b, terms.b.signer)
    except SignatureError as error:
        raise BadStateSignaturesError(
            f"version {held.version} of 0x{channel.hex()[:8]} is not signed by both parties: {error}",
            version=held.version,
        ) from error


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a tower had when it answered. time_ms: its clock, Unix milliseconds. block: the newest it had seen."""

    channel: bytes
    version: int
    body_hash: bytes
    owner: bytes
    time_ms: int
    block: int
    request: bytes
    signature: bytes = b""


@lru_cache(maxsize=16)
def _separator(domain: Domain) -> bytes:
    packed = domain.chain_id.to_bytes(32, "big") + _PAD + domain.adjudicator
    return keccak256(_DOMAIN_TYPE + _NAME + _VERSION + packed)


def receipt_digest(domain: Domain, receipt: Receipt) -> bytes:
    """What a tower signs (32 bytes): the EIP-712 digest in the domain "channeld tower" of the channels' contract."""
    r = receipt
    packed = b"".join(
        (
            r.channel,
            r.version.to_bytes(32, "big"),
            r.body_hash,
            _PAD + r.owner,
            r.time_ms.to_bytes(32, "big"),
            r.block.to_bytes(32, "big"),
            r.request,
        )
    )
    return keccak256(b"\x19\x01" + _separator(domain) + keccak256(_RECEIPT_TYPE + packed))


def verify_receipt(domain: Domain, receipt: Receipt, tower: bytes) -> None:
    """Return only if `tower` (20 bytes) has signed the receipt.

    Raises:
        BadReceiptError: somebody else did, or nobody.

    """
    try:
        verify(receipt_digest(domain, receipt), receipt.signature, tower)
    except SignatureError as error:
        raise BadReceiptError(f"a receipt for 0x{receipt.channel.hex()[:8]} that is no good: {error}") from error


def request_digest(body: bytes) -> bytes:
    """What an owner signs (32 bytes): the keccak of a tag and of the keccak of the body's exact bytes."""
    return keccak256(TAG + keccak256(body))


# --- the JSON of it ---------------------------------------------------------------------------------------------


class Register(msgspec.Struct, tag_field="operation", tag="register", forbid_unknown_fields=True):
    """Watch this channel. The terms give the signers; they are public on chain from the opening on."""

    terms: dict[str, Any]
    chain_id: int
    adjudicator: str


class Item(msgspec.Struct, forbid_unknown_fields=True):
    """A co-signed state without its body."""

    channel: str
    version: int
    body_hash: str
    signature_a: str
    signature_b: str


class Put(msgspec.Struct, tag_field="operation", tag="put", forbid_unknown_fields=True):
    """Keep these states. One below what is held changes nothing, and is answered with what is held."""

    states: list[Item]


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """A channel, and the version that the owner has."""

    channel: str
    version: int


class Check(msgspec.Struct, tag_field="operation", tag="check", forbid_unknown_fields=True):
    """What do you hold of these channels? Higher states come with their signatures."""

    channels: list[Asked]


Operation = Register | Put | Check


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """A request, as its signed bytes hold it."""

    tower: str
    owner: str
    number: int
    ask: Operation


_DECODER = msgspec.json.Decoder(Request)


def encode_request(tower: bytes, owner: bytes, number: int, ask: Operation) -> bytes:
    """The bytes to sign and send."""
    return msgspec.json.encode(Request(checksum_address(tower), checksum_address(owner), number, ask))


def decode_request(body: bytes) -> Request:
    """A request from its bytes.

    Raises:
        MalformedTowerRequestError: naming what is wrong with it.

    """
    try:
        request = _DECODER.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedTowerRequestError(f"the request cannot be read: {error}") from error
    if not 0 <= request.number <= MAX_VERSION:
        raise MalformedTowerRequestError("a request's number has 64 bits")
    items = {Put: "states", Check: "channels"}.get(type(request.ask))
    if items is not None and not 1 <= len(getattr(request.ask, items)) <= MAX_ITEMS:
        raise MalformedTowerRequestError(f"a request holds 1 to {MAX_ITEMS} {items}")
    return request


def unhex(text: object, size: int, name: str) -> bytes:
    """`size` bytes from 0x and hexadecimal digits.

    Raises:
        MalformedTowerRequestError: naming the field.

    """
    if not isinstance(text, str) or len(text) != 2 + 2 * size or not _HEX.fullmatch(text):
        raise MalformedTowerRequestError(f"{name} must be 0x and {2 * size} hexadecimal digits", field=name)
    return bytes.fromhex(text[2:])


def item_of(channel: bytes, held: Held) -> Item:
    """A state as it travels."""
    return Item(
        "0x" + channel.hex(),
        held.version,
        "0x" + held.body_hash.hex(),
        "0x" + held.signature_a.hex(),
        "0x" + held.signature_b.hex(),
    )


def held_of(item: Item) -> tuple[bytes, Held]:
    """The channel and the state of an item.

    Raises:
        MalformedTowerRequestError: naming the field.

    """
    if not 1 <= item.version <= MAX_VERSION:
        raise MalformedTowerRequestError("a co-signed state's version has 64 bits, and is not 0", field="version")
    held = Held(
        item.version,
        unhex(item.body_hash, 32, "body_hash"),
        unhex(item.signature_a, SIGNATURE_BYTES, "signature_a"),
        unhex(item.signature_b, SIGNATURE_BYTES, "signature_b"),
    )
    return unhex(item.channel, 32, "channel"), held


def receipt_to_json(receipt: Receipt) -> dict[str, Any]:
    """A receipt as it travels and as it is kept."""
    return {
        "channel": "0x" + receipt.channel.hex(),
        "version": receipt.version,
        "body_hash": "0x" + receipt.body_hash.hex(),
        "owner": checksum_address(receipt.owner),
        "time_ms": receipt.time_ms,
        "block": receipt.block,
        "request": "0x" + receipt.request.hex(),
        "signature": "0x" + receipt.signature.hex(),
    }


def receipt_from_json(data: object) -> Receipt:
    """A receipt from parsed JSON. It is not verified yet.

    Raises:
        BadReceiptError: naming the field.

    """
    if not isinstance(data, dict):
        raise BadReceiptError("a receipt must be an object")
    numbers = {}
    for name in ("version", "time_ms", "block"):
        value = data.get(name)
        if type(value) is not int or not 0 <= value <= MAX_VERSION:
            raise BadReceiptError(f"a receipt's {name} must be an integer of 64 bits")
        numbers[name] = value
    try:
        return Receipt(
            unhex(data.get("channel"), 32, "channel"),
            numbers["version"],
            unhex(data.get("body_hash"), 32, "body_hash"),
            unhex(data.get("owner"), ADDRESS_BYTES, "owner"),
            numbers["time_ms"],
            numbers["block"],
            unhex(data.get("request"), 32, "request"),
            unhex(data.get("signature"), SIGNATURE_BYTES, "signature"),
        )
    except MalformedTowerRequestError as error:
        raise BadReceiptError(f"a receipt is malformed: {error}") from error
