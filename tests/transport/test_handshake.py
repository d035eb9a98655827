"""Who is on the other end: proofs, their order, and what every kind of lie gets."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from link_support import CHEATER, MAKER, TAKER, desk, shake

from channeld.core import codec
from channeld.core.crypto import keccak256, sign_digest
from channeld.transport.errors import (
    BadPeerConfigurationError,
    HandshakeError,
    IdentityError,
    NotAllowedError,
    RefusedError,
    VersionMismatchError,
    WrongPeerError,
)
from channeld.transport.handshake import (
    IDENTITY_TAG,
    INITIATOR,
    PROLOGUE,
    PROTOCOL_VERSION,
    RESPONDER,
    Identity,
    Initiator,
    Responder,
    identity_digest,
)
from channeld.transport.noise import HandshakeState


def sides(initiator: Identity = MAKER, responder: Identity = TAKER) -> tuple[Initiator, Responder]:
    return Initiator(initiator, TAKER.address), Responder(responder)


def test_both_sides_prove_themselves_and_can_talk():
    left, right = shake(*sides())
    (frame,) = left.seal([b"hello"])
    assert right.open(frame) == [b"hello"]
    (frame,) = right.seal([b"hello"])
    assert left.open(frame) == [b"hello"]


def test_the_digest_is_what_the_documentation_says():
    assert IDENTITY_TAG == b"\x19channeld/1 link identity\n"
    assert PROLOGUE == b"channeld/1"
    expected = keccak256(b"\x19channeld/1 link identity\n" + b"\x01" + b"h" * 64 + b"s" * 32 + b"a" * 20)
    assert identity_digest(RESPONDER, b"h" * 64, b"s" * 32, b"a" * 20) == expected


def test_the_responder_shows_no_signer_before_it_has_checked_the_initiators():
    initiator, responder = sides()
    second = responder.greet(initiator.hello())
    # whoever dials can read all of message 2: it says the version and nothing else
    probe = HandshakeState(initiator=True, prologue=PROLOGUE, static=b"\x01" * 32)
    answer = Responder(TAKER).greet(probe.write_message(codec.encode([PROTOCOL_VERSION])))
    assert codec.decode(probe.read_message(answer)) == [PROTOCOL_VERSION]
    assert len(answer) == len(second)
    with pytest.raises(HandshakeError, match="not finished"):
        responder.prove()
    with pytest.raises(NotAllowedError, match="allow-list"):
        responder.check(initiator.prove(second), lambda _: False)
    refusal = responder.refuse(NotAllowedError("not on the allow-list"))
    with pytest.raises(RefusedError, match="allow-list") as refused:
        initiator.finish(refusal)
    assert refused.value.details["peer_code"] == NotAllowedError.code


def test_the_initiator_shows_no_signer_to_another_version():
    initiator, responder = sides(responder=desk("taker", version=3))
    second = responder.greet(initiator.hello())
    assert responder.version_error.details == {"ours": 3, "theirs": 2}
    with pytest.raises(VersionMismatchError, match="speaks protocol version 2, the peer 3") as error:
        initiator.prove(second)
    assert error.value.details == {"ours": 2, "theirs": 3}


def test_a_later_version_may_say_more_and_is_still_told_apart():
    noise = HandshakeState(initiator=True, prologue=PROLOGUE, static=b"\x01" * 32)
    responder = Responder(TAKER)
    responder.greet(noise.write_message(codec.encode([7, b"more", "still"])))
    assert responder.version_error.details == {"ours": 2, "theirs": 7}


def test_an_expected_peer_that_is_another_is_named():
    initiator, responder = sides(responder=CHEATER)
    with pytest.raises(WrongPeerError) as error:
        shake(initiator, responder)
    assert set(error.value.details) == {"found", "expected"}


def test_a_desk_does_not_connect_to_itself():
    initiator, responder = sides(initiator=TAKER)
    with pytest.raises(NotAllowedError):
        shake(initiator, responder)


@pytest.mark.parametrize("role", ["initiator", "responder"])
def test_claiming_another_signers_address_is_refused(role):
    liar = desk("liar", sign=partial(sign_digest, keccak256(b"cheater")), address=MAKER.address)
    if role == "initiator":
        pair = Initiator(liar, TAKER.address), Responder(TAKER)
    else:
        pair = Initiator(TAKER, MAKER.address), Responder(liar)
    with pytest.raises(IdentityError):
        shake(*pair)


def test_an_unproven_claim_is_told_apart_from_the_list_only_after_the_proof():
    asked = []
    liar = desk("liar", address=MAKER.address)
    initiator, responder = sides(initiator=liar)
    third = initiator.prove(responder.greet(initiator.hello()))
    with pytest.raises(IdentityError):
        responder.check(third, lambda address: bool(asked.append(address)))
    assert asked == []


def test_a_proof_made_for_one_session_is_worth_nothing_in_another():
    captured = []

    def recording(digest: bytes) -> bytes:
        captured.append(MAKER.sign(digest))
        return captured[-1]

    shake(*sides(initiator=desk("maker", sign=recording)))
    thief = desk("thief", address=MAKER.address, static=MAKER.static, sign=lambda _digest: captured[0])
    with pytest.raises(IdentityError):
        shake(*sides(initiator=thief))


def test_a_proof_of_one_role_is_worth_nothing_in_the_other():
    digests = {identity_digest(role, bytes(64), bytes(32), bytes(20)) for role in (INITIATOR, RESPONDER)}
    assert len(digests) == 2


def test_the_listening_side_relaying_an_identity_gains_nothing():
    """The cheater is dialled as itself and dials the taker with the maker's proof: the transcripts differ."""
    towards_cheater = Initiator(MAKER, CHEATER.address)
    cheater = Responder(CHEATER)
    third = towards_cheater.prove(cheater.greet(towards_cheater.hello()))
    cheater.check(third, lambda _: True)
    taker = Responder(TAKER)
    own = Initiator(CHEATER, TAKER.address)
    own.prove(taker.greet(own.hello()))
    with pytest.raises(HandshakeError):
        taker.check(third, lambda _: True)


@pytest.mark.parametrize(
    "payload",
    [[], [True], ["1"], [0], [PROTOCOL_VERSION, 2], [-1], [1 << 32], [b"\x01"], 1, None, [[1]]],
)
def test_version_payloads_that_make_no_sense(payload):
    noise = HandshakeState(initiator=True, prologue=PROLOGUE, static=b"\x01" * 32)
    with pytest.raises(HandshakeError):
        Responder(TAKER).greet(noise.write_message(codec.encode(payload)))


@pytest.mark.parametrize(
    "payload",
    [
        [],
        [1],
        [b"a" * 20],
        [b"a" * 20, b"s" * 65],
        [b"a" * 19, b"s" * 65],
        ["a" * 20, b"s" * 65],
        [b"a" * 20, 1, 2],
        {},
    ],
)
def test_identity_payloads_that_make_no_sense(payload):
    raw = b"\x80" if payload == {} else codec.encode(payload)
    noise = HandshakeState(initiator=True, prologue=PROLOGUE, static=b"\x01" * 32)
    responder = Responder(TAKER)
    noise.read_message(responder.greet(noise.write_message(codec.encode([PROTOCOL_VERSION]))))
    with pytest.raises((HandshakeError, IdentityError)):
        responder.check(noise.write_message(raw), lambda _: True)


@pytest.mark.parametrize(
    "records",
    [
        [[]],
        [[0]],
        [[0, "no", 1]],
        [[1, b"a" * 20]],
        [[2, 3, 4]],
        [[1, b"a" * 20, b"s" * 65]],
        [[0, 1, "no"], [1]],
        [["x"]],
    ],
)
def test_answers_of_a_responder_that_make_no_sense(records):
    initiator = Initiator(MAKER, TAKER.address)
    noise = HandshakeState(initiator=False, prologue=PROLOGUE, static=b"\x02" * 32)
    noise.read_message(initiator.hello())
    noise.read_message(initiator.prove(noise.write_message(codec.encode([PROTOCOL_VERSION]))))
    (frame,) = noise.session().seal([codec.encode(record) for record in records])
    with pytest.raises((HandshakeError, IdentityError)):
        initiator.finish(frame)


@given(st.binary(max_size=300), st.integers(0, 3))
def test_random_bytes_at_every_stage_are_a_handshake_error(raw, stage):
    initiator, responder = sides()

    def run() -> None:
        first = raw if stage == 0 else initiator.hello()
        second = raw if stage == 1 else responder.greet(first)
        third = raw if stage == 2 else initiator.prove(second)
        responder.check(third, lambda _: True)
        initiator.finish(raw)

    with pytest.raises(HandshakeError):
        run()


@given(st.data())
def test_altered_bytes_at_every_stage_end_the_handshake(data):
    initiator, responder = sides()
    stage = data.draw(st.integers(0, 3))

    def pass_on(at: int, message: bytes) -> bytes:
        if at != stage:
            return message
        place = data.draw(st.integers(0, len(message) - 1))
        if data.draw(st.booleans()):
            return message[:place]
        return message[:place] + bytes([message[place] ^ data.draw(st.integers(1, 255))]) + message[place + 1 :]

    def run() -> None:
        second = pass_on(1, responder.greet(pass_on(0, initiator.hello())))
        responder.check(pass_on(2, initiator.prove(second)), lambda _: True)
        initiator.finish(pass_on(3, responder.prove()[0]))

    with pytest.raises((HandshakeError, VersionMismatchError)):
        run()


def test_oversized_messages_are_refused_before_they_are_read():
    initiator, responder = sides()
    first = initiator.hello()
    for step in (
        lambda: responder.greet(bytes(1025)),
        lambda: initiator.prove(bytes(1025)),
        lambda: responder.check(bytes(1025), lambda _: True),
        lambda: initiator.finish(bytes(1025)),
    ):
        with pytest.raises(HandshakeError, match="1025 bytes"):
            step()
    assert len(first) <= 1024


def test_a_peers_words_cannot_play_with_a_terminal():
    initiator, responder = sides()
    responder.check(initiator.prove(responder.greet(initiator.hello())), lambda _: True)
    with pytest.raises(RefusedError) as error:
        initiator.finish(responder.refuse(NotAllowedError("\x1b[2Jgone\r\n" + "x" * 600)))
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 320


def test_identities_of_wrong_sizes_are_refused_and_secrets_are_not_printed():
    with pytest.raises(BadPeerConfigurationError):
        desk("maker", address=b"short")
    with pytest.raises(BadPeerConfigurationError):
        desk("maker", static=b"short")
    assert MAKER.static.hex() not in repr(MAKER)
    assert repr(MAKER.static) not in repr(MAKER)
