"""The Noise state machine against the published vector, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channeld.transport import noise
from channeld.transport.errors import GarbageError, HandshakeError, NonceExhaustedError, TamperedFrameError
from channeld.transport.noise import CipherState, HandshakeState, Session

ROOT = Path(__file__).resolve().parents[2]
VECTOR = ROOT.parent / "shared" / "data" / "noise_xx_vector.json"
SMALL_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


def pair(prologue: bytes = b"test") -> tuple[HandshakeState, HandshakeState]:
    return (
        HandshakeState(initiator=True, prologue=prologue, static=b"\x11" * 32),
        HandshakeState(initiator=False, prologue=prologue, static=b"\x22" * 32),
    )


def sessions() -> tuple[Session, Session]:
    initiator, responder = pair()
    responder.read_message(initiator.write_message(b""))
    initiator.read_message(responder.write_message(b""))
    responder.read_message(initiator.write_message(b""))
    return initiator.session(), responder.session()


def test_the_published_vector_byte_for_byte():
    if not VECTOR.exists():
        pytest.skip("../shared/data/noise_xx_vector.json is absent")
    (vector,) = json.loads(VECTOR.read_text())
    assert vector["protocol_name"].encode() == noise.PROTOCOL_NAME
    raw = {key: bytes.fromhex(value) for key, value in vector.items() if isinstance(value, str) and "_" in key[4:5]}
    sides = [
        HandshakeState(
            initiator=role == "init",
            prologue=raw[f"{role}_prologue"],
            static=raw[f"{role}_static"],
            ephemeral=raw[f"{role}_ephemeral"],
        )
        for role in ("init", "resp")
    ]
    messages = [(bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"])) for m in vector["messages"]]
    for turn, (payload, ciphertext) in enumerate(messages[:3]):
        assert sides[turn % 2].write_message(payload) == ciphertext
        assert sides[1 - turn % 2].read_message(ciphertext) == payload
    assert [side.hash.hex() for side in sides] == [vector["handshake_hash"]] * 2
    assert sides[0].remote_static == sides[1].static_public
    assert sides[1].remote_static == sides[0].static_public
    links = [side.session() for side in sides]
    for turn, (payload, ciphertext) in enumerate(messages[3:], start=3):
        assert links[turn % 2].encrypt(payload) == ciphertext
        assert links[1 - turn % 2].decrypt(ciphertext) == payload


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_a_public_key_of_small_order_is_refused(point):
    responder = pair()[1]
    responder.read_message(point)
    with pytest.raises(HandshakeError, match="small order"):
        responder.write_message(b"")


def test_another_prologue_is_refused():
    initiator, _ = pair(b"one")
    _, responder = pair(b"two")
    responder.read_message(initiator.write_message(b""))
    with pytest.raises(HandshakeError, match="not authentic"):
        initiator.read_message(responder.write_message(b""))


def test_messages_out_of_turn_and_early_sessions_are_refused():
    initiator, responder = pair()
    with pytest.raises(HandshakeError, match="turn"):
        initiator.read_message(b"")
    with pytest.raises(HandshakeError, match="turn"):
        responder.write_message(b"")
    with pytest.raises(HandshakeError, match="not finished"):
        initiator.session()
    with pytest.raises(HandshakeError, match="32 bytes"):
        HandshakeState(initiator=True, prologue=b"", static=b"short")
    with pytest.raises(HandshakeError, match="at most"):
        initiator.write_message(bytes(70_000))
    with pytest.raises(HandshakeError, match="at most"):
        responder.read_message(bytes(70_000))


@given(st.data())
def test_an_altered_handshake_message_is_refused_at_once_or_at_the_next(data):
    initiator, responder = pair()
    sides = [initiator, responder]
    target = data.draw(st.integers(0, 2))

    def shake() -> None:
        for turn in range(3):
            message = bytearray(sides[turn % 2].write_message(b"payload"))
            if turn == target:
                message[data.draw(st.integers(0, len(message) - 1))] ^= data.draw(st.integers(1, 255))
            sides[1 - turn % 2].read_message(bytes(message))

    with pytest.raises(HandshakeError):
        shake()


@given(st.binary(max_size=200))
def test_random_bytes_as_any_handshake_message_are_refused_or_lead_nowhere(raw):
    initiator, responder = pair()
    try:
        responder.read_message(raw)
        responder.write_message(b"")
    except HandshakeError:
        pass
    initiator.write_message(b"")
    with pytest.raises(HandshakeError):
        initiator.read_message(raw)


def test_nonces_run_out_rather_than_repeat():
    cipher = CipherState(bytes(32))
    cipher.nonce = noise.MAX_NONCE - 1
    last = cipher.encrypt_with_ad(b"", b"x")
    with pytest.raises(NonceExhaustedError):
        cipher.encrypt_with_ad(b"", b"x")
    other = CipherState(bytes(32))
    other.nonce = noise.MAX_NONCE - 1
    assert other.decrypt_with_ad(b"", last) == b"x"
    with pytest.raises(NonceExhaustedError):
        other.decrypt_with_ad(b"", last)


@given(st.lists(st.integers(1, 200_000), min_size=1, max_size=6))
def test_records_survive_cutting_and_joining(sizes):
    sender, receiver = sessions()
    records = [bytes([at % 256]) * size for at, size in enumerate(sizes)]
    got = []
    for frame in sender.seal(records):
        assert len(frame) <= noise.MAX_MESSAGE
        got += receiver.open(frame)
    assert got == records
    assert receiver.at_boundary


def test_the_largest_record_passes_and_a_larger_one_does_not():
    sender, receiver = sessions()
    record = bytes(noise.MAX_RECORD)
    assert [r for frame in sender.seal([record]) for r in receiver.open(frame)] == [record]
    for wrong in (b"", bytes(noise.MAX_RECORD + 1)):
        with pytest.raises(GarbageError):
            sender.seal([wrong])
    with pytest.raises(GarbageError):
        sender.encrypt(bytes(noise.MAX_PLAINTEXT + 1))


@pytest.mark.parametrize("plaintext", [b"", b"\0\0\0\0", b"\x00\x10\x00\x01", b"\xff\xff\xff\xff"])
def test_empty_frames_and_absurd_lengths_are_refused_before_anything_is_kept(plaintext):
    sender, receiver = sessions()
    with pytest.raises(GarbageError):
        receiver.open(sender.encrypt(plaintext))


@given(st.data())
def test_replayed_truncated_altered_and_reordered_frames_are_refused(data):
    sender, receiver = sessions()
    (first,) = sender.seal([b"first"])
    (second,) = sender.seal([b"second"])
    bad = data.draw(
        st.one_of(
            st.just(second),
            st.integers(0, len(first) - 1).map(lambda n: first[:n]),
            st.tuples(st.integers(0, len(first) - 1), st.integers(1, 255)).map(
                lambda change: first[: change[0]] + bytes([first[change[0]] ^ change[1]]) + first[change[0] + 1 :]
            ),
            st.binary(max_size=100),
            st.just(bytes(70_000)),
        )
    )
    with pytest.raises(TamperedFrameError):
        receiver.open(bad)
    assert receiver.open(first) == [b"first"]
    with pytest.raises(TamperedFrameError):
        receiver.open(first)
