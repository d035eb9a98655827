"""Writes handshake.json, messages.json and agreement.json: what peers say to each other, for other implementations.

`python tests/vectors/make_wire.py`. Keys are for tests alone; bytes are 0x text. handshake.json has the four messages
of a link with every secret of both ends; messages.json one message of every type, and bytes that must be refused;
agreement.json what two desks say about one channel from version 0 on (a proposal, a rejection, a withdrawal, a close,
lost states and their recovery) with the state, journal and signatures that follow. A change is a change of protocol.
"""

import json
import sys
from dataclasses import fields
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "core"), str(HERE.parent / "core" / "channel"), str(HERE.parent / "transport")]

from channel_shell import TERMS, Pair, run  # noqa: E402 - the path comes first
from link_support import MAKER as MAKER_LINK  # noqa: E402
from link_support import TAKER as TAKER_LINK  # noqa: E402
from strategies import DOMAIN, MAKER, TAKER, leg, perpetual  # noqa: E402
from test_wire import EXAMPLES  # noqa: E402

from channeld.core import records, wire  # noqa: E402
from channeld.core.channel import CloseExpired, ProposeBatch, Recover  # noqa: E402
from channeld.core.codec import encode  # noqa: E402
from channeld.core.crypto import checksum_address, keccak256  # noqa: E402
from channeld.core.eip712 import state_digest  # noqa: E402
from channeld.core.errors import ChanneldError  # noqa: E402
from channeld.core.files import body_to_json, terms_to_json  # noqa: E402
from channeld.core.operations import CloseChannel, Deposit, Trade, Transfer, Withdraw  # noqa: E402
from channeld.transport import handshake as links  # noqa: E402
from channeld.transport.noise import HandshakeState  # noqa: E402

ROLES = ("maker", "taker")


def text(raw: bytes) -> str:
    return "0x" + raw.hex()


def plain(value: object) -> object:
    """A field as JSON: bytes as 0x text, integers beyond 2**53 as decimal text."""
    if isinstance(value, bytes):
        return text(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 1 << 53:
        return str(value)
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    if isinstance(value, wire.Message | wire.SignedDocument):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    return value


def message(value: wire.Message) -> dict:
    return {"name": type(value).__name__, "type": value.TYPE, "fields": plain(value), "bytes": text(wire.pack(value))}


# --- the link


def handshake() -> dict:
    """The four messages of a link, with all that goes into them."""
    ephemerals = {role: keccak256(b"ephemeral " + role.encode()) for role in ROLES}
    initiator = links.Initiator(MAKER_LINK, TAKER_LINK.address, ephemeral=ephemerals["maker"])
    responder = links.Responder(TAKER_LINK, ephemeral=ephemerals["taker"])
    first = initiator.hello()
    second = responder.greet(first)
    third = initiator.prove(second)
    at_two = _hash_after_two(ephemerals, first, second)
    responder.check(third, lambda _: True)
    fourth, theirs = responder.prove()
    ours = initiator.finish(fourth)
    hello = [encode(["hello", 1]), encode(["bye"])]
    sealed = ours.seal(hello)
    assert [r for raw in sealed for r in theirs.open(raw)] == hello
    at_three = responder._noise.hash
    own = {"maker": (MAKER_LINK, links.INITIATOR, at_two), "taker": (TAKER_LINK, links.RESPONDER, at_three)}
    return {
        "about": "docs/transport.md; the maker dials the taker; records of `sealed` are [hello, 1] and [bye]",
        "prologue": text(links.PROLOGUE),
        "identityTag": text(links.IDENTITY_TAG),
        "version": links.PROTOCOL_VERSION,
        "ends": {
            role: {
                "role": text(name),
                "address": checksum_address(identity.address),
                "static": text(identity.static),
                "staticPublic": text(_public(identity.static)),
                "ephemeral": text(ephemerals[role]),
                "handshakeHash": text(hashed),
                "identityDigest": text(digest),
                "signature": text(identity.sign(digest)),
            }
            for role, (identity, name, hashed) in own.items()
            for digest in [links.identity_digest(name, hashed, _public(identity.static), identity.address)]
        },
        "payloads": [
            text(encode([links.PROTOCOL_VERSION])),
            text(encode([links.PROTOCOL_VERSION])),
            text(encode([MAKER_LINK.address, _signature(MAKER_LINK, links.INITIATOR, at_two)])),
            text(encode([1, TAKER_LINK.address, _signature(TAKER_LINK, links.RESPONDER, at_three)])),
        ],
        "messages": [text(raw) for raw in (first, second, third, fourth)],
        "sealed": [text(raw) for raw in sealed],
    }


def _signature(identity: links.Identity, role: bytes, hashed: bytes) -> bytes:
    return identity.sign(links.identity_digest(role, hashed, _public(identity.static), identity.address))


def _public(static: bytes) -> bytes:
    return HandshakeState(initiator=True, prologue=b"", static=static).static_public


def _hash_after_two(ephemerals: dict, first: bytes, second: bytes) -> bytes:
    noise = HandshakeState(
        initiator=True, prologue=links.PROLOGUE, static=MAKER_LINK.static, ephemeral=ephemerals["maker"]
    )
    assert noise.write_message(encode([links.PROTOCOL_VERSION])) == first
    noise.read_message(second)
    return noise.hash


# --- messages


def messages() -> dict:
    """Every type of message once or more, records that travel in them, and what must be refused."""
    propose = next(m for m in EXAMPLES if isinstance(m, wire.Propose))
    array = wire.to_wire(propose)
    bad = {
        "no array": encode(7),
        "an empty array": encode([]),
        "an unknown type": encode([250, b"\0" * 32]),
        "a field too few": encode(array[:-1]),
        "a field too many": encode([*array, 0]),
        "a channel of 31 bytes": encode([array[0], array[1][:-1], *array[2:]]),
        "a negative version": encode([*array[:2], -1, *array[3:]]),
        "a version that is a boolean": encode([*array[:2], True, *array[3:]]),
        "a signature of 64 bytes": encode([*array[:4], array[4][:-1]]),
        "a number that is not minimal": b"\x92\xcc\x15\xc4\x20" + b"\x11" * 32,
        "a byte after the end": wire.pack(propose) + b"\0",
        "a map": b"\x81\x01\x02",
        "an extension": b"\xc7\x01\x05\x00",
        "cut short": wire.pack(propose)[:-1],
    }
    refused = []
    for name, raw in bad.items():
        try:
            wire.unpack(raw)
        except ChanneldError as error:
            refused.append({"name": name, "bytes": text(raw), "error": type(error).__name__, "code": error.code})
        else:
            raise AssertionError(f"{name} was not refused")
    return {
        "about": "docs/protocol.md section 9.1; the bytes are those inside a link's records",
        "messages": [message(m) for m in EXAMPLES],
        "terms": {"value": terms_to_json(TERMS), "bytes": text(records.encode_terms(TERMS))},
        "refused": refused,
    }


# --- agreeing


class Recorded(Pair):
    """A pair of desks that writes down what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[dict] = []

    def deliver(self, sender: int) -> bool:
        outbox = self.sides[sender].outbox
        raw = outbox[0] if self.linked and outbox else None
        before = [side.latest.version for side in self.sides]
        done = super().deliver(sender)
        if raw is not None:
            said = wire.unpack(raw)
            entry = {"from": ROLES[sender], **message(said)}
            after = [side.latest.version for side in self.sides]
            states = [self._state(n) for n in (0, 1) if after[n] != before[n]]
            self.told.append({**entry, "coSigned": states} if states else entry)
        return done

    def _state(self, number: int) -> dict:
        agreed = self.sides[number].channel.latest
        state = agreed.state
        return {
            "at": ROLES[number],
            "version": str(state.version),
            "body": body_to_json(state.body),
            "bodyHash": text(agreed.body_hash),
            "stateDigest": text(state_digest(DOMAIN, state.channel, state.version, agreed.body_hash)),
            "journal": text(state.body.journal),
            "maker": text(agreed.signature_a),
            "taker": text(agreed.signature_b),
            "record": text(records.encode_body(state.body)),
        }


def agreement() -> dict:
    """What two desks say about one channel."""
    pair = Recorded()
    scenes: list[dict] = []

    def scene(name: str) -> None:
        pair.settle()
        scenes.append({"scene": name, "messages": pair.told})
        pair.told = []

    def say(*operations: object) -> None:
        pair.feed(pair.sequencer, ProposeBatch(pair.clock.batch(*operations)))

    pair.connect()
    scene("the first exchange")
    say(Deposit(0, 10**9, 10**9))
    scene("a proposal is accepted")
    say(Trade(0, (leg(perpetual(), 2, 3000),)), Transfer(1, 25))
    say(Transfer(0, 7, b"rent"))
    scene("two proposals are outstanding")
    pair.follower.refuse = True
    say(Transfer(0, 1))
    pair.deliver(0)
    pair.follower.refuse = False
    scene("a proposal is rejected")
    copy = pair.follower.backup()
    say(Withdraw(1, 1000))
    scene("a withdrawal")
    say(Trade(0, (leg(perpetual(), -2, 3000),)), CloseChannel(0))
    scene("a close, which nobody takes to the chain")
    pair.clock.now_ms += 700_000
    for side in pair.sides:
        side.feed(CloseExpired())
    pair.drop()
    pair.follower.restore(copy)
    pair.connect()
    scene("the follower has lost states, and says nothing of it in its exchange")
    pair.clock.now_ms += 610_000
    pair.feed(pair.follower, Recover(pair.clock.batch()))
    scene("the recovery")
    say(Transfer(0, 3))
    scene("and on")
    return {
        "about": "docs/protocol.md section 9; the maker is a and the sequencer; times are milliseconds in the batches",
        "chainId": DOMAIN.chain_id,
        "adjudicator": checksum_address(DOMAIN.adjudicator),
        "terms": terms_to_json(TERMS),
        "channel": text(pair.sequencer.id),
        "keys": {"maker": text(MAKER), "taker": text(TAKER)},
        "scenes": scenes,
        "journals": {
            ROLES[n]: [
                {"version": str(b.version), "batch": text(b.raw), "batchHash": text(keccak256(b.raw))}
                for b in run(side.disk.batches(side.id))
            ]
            for n, side in enumerate(pair.sides)
        },
    }


def files() -> dict[str, str]:
    """The files by name, exactly as they are committed."""
    made = {"handshake.json": handshake(), "messages.json": messages(), "agreement.json": agreement()}
    return {name: json.dumps(data, indent=1) + "\n" for name, data in made.items()}


if __name__ == "__main__":
    for file_name, content in files().items():
        (HERE / file_name).write_text(content)
