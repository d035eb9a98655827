"""Terms and bodies as bytes, for the store.

Rules: strict MessagePack (core/codec.py), arrays in the order of the EIP-712 structs; 128-bit fields always as 16
bytes, big-endian. These bytes are never hashed and never signed: hashes are those of core/eip712.py. What is decoded is
constructed anew, and so checked anew.
"""

from __future__ import annotations

from typing import Any

from channeld.core import codec
from channeld.core.errors import ChanneldError, StoreError
from channeld.core.state import Account, Body, Instrument, Kind, Position
from channeld.core.terms import Market, Oracle, Party, Terms

MAX_TERMS_BYTES = 8 * 1024
MAX_BODY_BYTES = 64 * 1024


class RecordDecodeError(StoreError):
    """Stored bytes that are no Terms or Body."""

    code = 6005
    advice = "The database is damaged or was edited: stop, keep a copy, and restore (docs/store.md, Recovery)."


_U128_LIMIT = 1 << 128
_I128_LIMIT = 1 << 127


def _wide(value: int) -> bytes:
    """16 bytes, big-endian: two's complement for int128 fields, plain for uint128 ones; the same below 2**127."""
    return (value % _U128_LIMIT).to_bytes(16, "big")


def _unsigned(raw: Any) -> int:  # noqa: ANN401 - checked here
    if not isinstance(raw, bytes) or len(raw) != 16:
        message = "a 128-bit field must be 16 bytes"
        raise ValueError(message)
    return int.from_bytes(raw, "big")


def _signed(raw: Any) -> int:  # noqa: ANN401 - checked by _unsigned
    value = _unsigned(raw)
    return value - _U128_LIMIT if value >= _I128_LIMIT else value


def _integer(value: Any) -> int:  # noqa: ANN401 - checked here
    if type(value) is not int:
        message = "an integer was expected"
        raise TypeError(message)
    return value


def _fields(value: Any, count: int) -> list[Any]:  # noqa: ANN401 - checked here
    if not isinstance(value, list | tuple) or len(value) != count:
        message = f"an array of {count} was expected"
        raise ValueError(message)
    return list(value)


def _array(value: Any) -> list[Any]:  # noqa: ANN401 - checked here
    if not isinstance(value, list | tuple):
        message = "an array was expected"
        raise TypeError(message)
    return list(value)


def encode_terms(terms: Terms) -> bytes:
    """Terms as strict MessagePack, in the order of the EIP-712 struct."""
    oracle = terms.oracle
    return codec.encode(
        [
            [terms.a.signer, terms.a.payout],
            [terms.b.signer, terms.b.payout],
            terms.collateral,
            terms.decimals,
            terms.collateral_feed,
            terms.haircut,
            [
                list(oracle.signers),
                oracle.quorum,
                oracle.tick,
                oracle.samples,
                oracle.sample_gap,
                oracle.max_age,
                oracle.grace,
            ],
            [[m.feed, m.price_scan, m.vol_up, m.vol_down, m.wing_cover, m.spread_charge] for m in terms.markets],
            terms.initial_factor,
            terms.closeout_penalty,
            terms.challenge_period,
            terms.cure_period,
            terms.sequencer,
            terms.salt,
        ]
    )


def decode_terms(raw: bytes) -> Terms:
    """Terms from `encode_terms`.

    Raises:
        RecordDecodeError: not the encoding of valid terms.

    """
    try:
        f = _fields(codec.decode(raw, MAX_TERMS_BYTES), 14)
        oracle = _fields(f[6], 7)
        return Terms(
            Party(*_fields(f[0], 2)),
            Party(*_fields(f[1], 2)),
            f[2],
            f[3],
            f[4],
            f[5],
            Oracle(tuple(_array(oracle[0])), *oracle[1:]),
            tuple(Market(*_fields(m, 6)) for m in _array(f[7])),
            f[8],
            f[9],
            f[10],
            f[11],
            _integer(f[12]),
            f[13],
        )
    except (ChanneldError, ValueError, TypeError) as error:
        message = f"stored terms cannot be read: {error}"
        raise RecordDecodeError(message) from error


def _account(account: Account) -> list[bytes]:
    return [_wide(account.balance), _wide(account.deposited), _wide(account.withdrawn)]


def _position(p: Position) -> list[Any]:
    i = p.instrument
    return [int(i.kind), i.feed, i.expiry, _wide(i.strike), _wide(p.size), _wide(p.mark), p.carry, p.vol]


def encode_body(body: Body) -> bytes:
    """A body as strict MessagePack, in the order of the EIP-712 struct; 128-bit fields as 16 bytes, big-endian."""
    return codec.encode(
        [
            body.as_of,
            _wide(body.collateral_mark),
            body.journal,
            _account(body.a),
            _account(body.b),
            [_position(p) for p in body.positions],
        ]
    )


def _decode_account(value: Any) -> Account:  # noqa: ANN401 - checked by _fields
    return Account(*(_unsigned(x) for x in _fields(value, 3)))


def _decode_position(value: Any) -> Position:  # noqa: ANN401 - checked by _fields
    kind, feed, expiry, strike, size, mark, carry, vol = _fields(value, 8)
    instrument = Instrument(Kind(_integer(kind)), feed, _integer(expiry), _unsigned(strike))
    return Position(instrument, _signed(size), _unsigned(mark), _integer(carry), _integer(vol))


def decode_body(raw: bytes) -> Body:
    """A body from `encode_body`.

    Raises:
        RecordDecodeError: not the encoding of a valid body.

    """
    try:
        as_of, collateral_mark, journal, a, b, positions = _fields(codec.decode(raw, MAX_BODY_BYTES), 6)
        if not isinstance(journal, bytes):
            raise TypeError("a journal must be bytes")  # noqa: TRY301 - one place makes every refusal a typed one
        return Body(
            _integer(as_of),
            _unsigned(collateral_mark),
            journal,
            _decode_account(a),
            _decode_account(b),
            tuple(_decode_position(p) for p in _array(positions)),
        )
    except (ChanneldError, ValueError, TypeError) as error:
        message = f"a stored body cannot be read: {error}"
        raise RecordDecodeError(message) from error
