"""Everything that decodes a stranger's bytes: what each may raise, and what holds of what it accepts.

Rules: a decoder raises a ChanneldError (a JSON reader a ValueError), or what it gives is encoded to the same bytes
again where the encoding is one to one. Anything else is a bug: `run` lets it through.
"""

from __future__ import annotations

import contextlib
import json
from functools import partial

from channeld.core import records, wire
from channeld.core.audit import audit_lines
from channeld.core.bundle import bundle_from_json
from channeld.core.codec import decode, encode
from channeld.core.crypto import address_of, keccak256, sign_digest
from channeld.core.errors import ChanneldError
from channeld.core.files import body_from_json, state_from_json, terms_from_json, terms_to_json
from channeld.core.instruments import instrument_name, parse_expiry, parse_feed, parse_instrument
from channeld.core.operations import Batch, Deposit, Leg, Trade, Transfer, Withdraw, decode_batch, encode_batch
from channeld.core.package_codec import decode_package, decode_payload, split_packages, split_payload
from channeld.core.state import genesis
from channeld.core.strict_json import read_json
from channeld.core.terms import ZERO_FEED, Market, Oracle, Party, Terms, feed_id
from channeld.core.wad import WAD, format_decimal, parse_decimal
from channeld.desk.bands import unpack_bands
from channeld.desk.quotes import read_quote, read_request
from channeld.transport.handshake import Identity, Initiator, Responder

KEY = keccak256(b"fuzz")
IDENTITY = Identity(address_of(KEY), keccak256(b"static"), partial(sign_digest, KEY))


def json_text(raw: bytes) -> None:
    """The reader of the API's requests."""
    with contextlib.suppress(ValueError, RecursionError):
        json.dumps(read_json(raw))


def message(raw: bytes) -> None:
    """A peer's message."""
    found = wire.unpack(raw)
    assert wire.unpack(wire.pack(found)) == found


def packed(raw: bytes) -> None:
    """MessagePack: minimal, so one value has one form."""
    assert encode(decode(raw)) == raw


def batch(raw: bytes) -> None:
    """A batch: what is signed is the very bytes."""
    assert encode_batch(decode_batch(raw)) == raw


def stored_terms(raw: bytes) -> None:
    """Terms as they travel."""
    assert records.decode_terms(records.encode_terms(records.decode_terms(raw))) == records.decode_terms(raw)


def stored_body(raw: bytes) -> None:
    """A body as it travels in a Sync."""
    assert records.decode_body(records.encode_body(records.decode_body(raw))) == records.decode_body(raw)


def package(raw: bytes) -> None:
    """Oracle packages in their forms."""
    for read in (decode_package, decode_payload, split_packages, split_payload):
        with contextlib.suppress(ChanneldError):
            read(raw)


def greeted(raw: bytes) -> None:
    """The first message of a link, at the listener."""
    Responder(IDENTITY).greet(raw)


def answered(raw: bytes) -> None:
    """The second, at who dials, also with a wallet."""
    for ask in (Initiator.prove, Initiator.asks_wallet):
        initiator = Initiator(IDENTITY, b"\1" * 20)
        initiator.hello()
        with contextlib.suppress(ChanneldError):
            ask(initiator, raw)


def proven(raw: bytes) -> None:
    """The third, at the listener."""
    initiator, responder = Initiator(IDENTITY, b"\1" * 20), Responder(IDENTITY)
    responder.greet(initiator.hello())
    responder.check(raw, lambda _: True)


def documents(raw: bytes) -> None:
    """What the API and the commands take as JSON documents."""
    try:
        value = read_json(raw)
    except (ValueError, RecursionError):
        return
    for read in (terms_from_json, body_from_json, state_from_json, bundle_from_json):
        with contextlib.suppress(ChanneldError):
            read(value)


def names(raw: bytes) -> None:
    """Instruments and decimals as the API's parameters have them."""
    text = raw.decode("utf-8", "replace")
    for read in (parse_feed, parse_expiry, parse_instrument, parse_decimal):
        with contextlib.suppress(ChanneldError):
            read(text)
    with contextlib.suppress(ChanneldError):
        assert parse_instrument(instrument_name(parse_instrument(text))) == parse_instrument(text)
    with contextlib.suppress(ChanneldError):
        assert parse_decimal(format_decimal(parse_decimal(text))) == parse_decimal(text)


def quotes(raw: bytes) -> None:
    """Requests, quotes and bands inside of messages."""
    for read in (read_quote, unpack_bands, partial(read_request, now_ms=0)):
        with contextlib.suppress(ChanneldError):
            read(raw)


def audit(raw: bytes) -> None:
    """An audit file."""
    audit_lines(raw.splitlines(keepends=True))


DECODERS = (
    json_text,
    message,
    packed,
    batch,
    stored_terms,
    stored_body,
    package,
    greeted,
    answered,
    proven,
    documents,
    names,
    quotes,
    audit,
)


def seeds() -> list[bytes]:
    """Inputs of `run` that are accepted, for a fuzzer to begin from."""
    leg = Leg(parse_instrument("ETH-27DEC30-3000-C"), -WAD, 1200 * WAD, 0, 65 * WAD // 100)
    operations = (Deposit(0, 7, 9), Trade(0, (leg,), -5, b"reference"), Transfer(1, 5, b""), Withdraw(0, 3))
    raw = encode_batch(Batch(1_796_000_000_000, b"\1" * 16, operations))
    channel, signature = b"\2" * 32, b"\3" * 65
    party = Party(b"\4" * 20, b"\5" * 20)
    market = Market(feed_id("ETH"), WAD // 10, WAD // 2, WAD // 4, WAD // 50, WAD // 200)
    terms = Terms(
        *(party, Party(b"\6" * 20, b"\7" * 20), b"\10" * 20, 6, ZERO_FEED, 0),
        *(Oracle((b"\11" * 20, b"\12" * 20), 2, 10, 3, 60, 60, 1800), (market,)),
        *(13 * WAD // 10, WAD // 50, 86_400, 900, 0, b"\13" * 32),
    )
    propose = wire.Propose(channel, 7, raw, signature)
    body = records.encode_body(genesis(channel).body)
    sync = wire.Sync(channel, 6, body, signature, signature, (propose,), None, (wire.SignedDocument(1, 6, signature),))
    reject = wire.Reject(channel, 7, 2210, "too little", 71, raw, signature)
    inputs = {
        json_text: [b'{"jsonrpc": "2.0", "id": 1, "method": "private/channels", "params": {"channel": "taker"}}'],
        message: [wire.pack(one) for one in (propose, sync, reject, wire.Accept(channel, 7, signature))],
        packed: [raw],
        batch: [raw],
        stored_terms: [records.encode_terms(terms)],
        stored_body: [body],
        greeted: [Initiator(IDENTITY, b"\1" * 20).hello()],
        documents: [json.dumps(terms_to_json(terms)).encode()],
        names: [b"ETH-27DEC30-3000-C", b"BTC-PERP", b"-1.5"],
    }
    return [bytes([DECODERS.index(one)]) + each for one, many in inputs.items() for each in many]


def run(data: bytes) -> None:
    """The first byte names the decoder, the rest is its input. Returns, or lets a bug through."""
    if data:
        with contextlib.suppress(ChanneldError):
            DECODERS[data[0] % len(DECODERS)](data[1:])
