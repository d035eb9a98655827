"""EIP-712: the hashes that are signed, packed by hand.

Rules: the type strings are those of docs/protocol.md, section 3; type hashes are computed once, at import. A digest is
keccak256(0x1901 || domain separator || hashStruct). The channel id is the digest of the Terms; a body hash is
hashStruct(Body), so that the digest of a State needs (channel, version, body hash) alone. tests/core/test_eip712.py
holds every type to eth-account's encoder. `typed_data` gives the JSON that a wallet shows and signs.

Range checks are the classes' own (core/terms.py, core/state.py); the messages defined here check theirs when made.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from channeld.core.crypto import checksum_address, keccak256
from channeld.core.errors import RuleError
from channeld.core.state import Account, Body, Position, State
from channeld.core.terms import Market, Oracle, Party, Terms

NAME, VERSION = "channeld", "1"

Fields = tuple[tuple[str, str], ...]


class MessageRangeError(RuleError):
    """A field of a message to be signed lies outside its type."""

    code = 2102
    advice = "The field must fit the type that docs/protocol.md, section 3, gives it."


def _fields(text: str) -> Fields:
    return tuple((kind, name) for kind, name in (part.split(" ") for part in text.split(",")))


TYPES: dict[str, Fields] = {
    "Party": _fields("address signer,address payout"),
    "Oracle": _fields(
        "address[] signers,uint8 quorum,uint32 tick,uint8 samples,uint32 sampleGap,uint32 maxAge,uint32 grace"
    ),
    "Market": _fields("bytes32 feed,uint64 priceScan,uint64 volUp,uint64 volDown,uint64 wingCover,uint64 spreadCharge"),
    "Terms": _fields(
        "Party a,Party b,address collateral,uint8 decimals,bytes32 collateralFeed,uint64 haircut,Oracle oracle,"
        "Market[] markets,uint64 initialFactor,uint64 closeoutPenalty,uint32 challengePeriod,uint32 curePeriod,"
        "uint8 sequencer,bytes32 salt"
    ),
    "Account": _fields("uint128 balance,uint128 deposited,uint128 withdrawn"),
    "Position": _fields(
        "uint8 kind,bytes32 feed,uint64 expiry,uint128 strike,int128 size,uint128 mark,int64 carry,uint64 vol"
    ),
    "Body": _fields("uint64 asOf,uint128 collateralMark,bytes32 journal,Account a,Account b,Position[] positions"),
    "State": _fields("bytes32 channel,uint64 version,Body body"),
    "Withdrawal": _fields("bytes32 channel,uint64 version,bytes32 bodyHash,uint128 withdrawnA,uint128 withdrawnB"),
    "Close": _fields("bytes32 channel,uint64 version,uint64 validUntil,Account a,Account b"),
    "Resume": _fields("bytes32 channel,uint32 dispute,uint64 validUntil"),
    "Quote": _fields("bytes32 channel,bytes16 quoteId,uint8 maker,bytes32 legsHash,uint64 validUntil"),
}
DOMAIN_FIELDS: Fields = _fields("string name,string version,uint256 chainId,address verifyingContract")


def _references(primary: str) -> set[str]:
    """Every struct type that `primary` is made of, itself left out."""
    found: set[str] = set()
    for kind, _ in TYPES[primary]:
        base = kind.removesuffix("[]")
        if base in TYPES:
            found |= {base} | _references(base)
    return found


def encode_type(primary: str) -> str:
    """The type string of EIP-712: the primary type, then what it refers to, in alphabetical order."""
    names = [primary, *sorted(_references(primary))]
    return "".join(f"{name}({','.join(' '.join(field) for field in TYPES[name])})" for name in names)


TYPE_HASHES: dict[str, bytes] = {name: keccak256(encode_type(name).encode()) for name in TYPES}
_PARTY, _ORACLE, _MARKET = TYPE_HASHES["Party"], TYPE_HASHES["Oracle"], TYPE_HASHES["Market"]
_TERMS, _ACCOUNT, _POSITION = TYPE_HASHES["Terms"], TYPE_HASHES["Account"], TYPE_HASHES["Position"]
_BODY, _STATE = TYPE_HASHES["Body"], TYPE_HASHES["State"]
_DOMAIN = keccak256(f"EIP712Domain({','.join(' '.join(field) for field in DOMAIN_FIELDS)})".encode())
_NAME, _VERSION = keccak256(NAME.encode()), keccak256(VERSION.encode())
_PAD = b"\0" * 12


def _check(condition: bool, rule: str) -> None:  # noqa: FBT001 - an assertion with a typed error
    if not condition:
        raise MessageRangeError(rule)


def _check_uint(value: int, bits: int, name: str) -> None:
    _check(
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << bits,
        f"{name} must be a uint{bits}, not {value!r}",
    )


def _check_bytes(value: bytes, size: int, name: str) -> None:
    _check(isinstance(value, bytes) and len(value) == size, f"{name} must be {size} bytes")


@dataclass(frozen=True, slots=True)
class Domain:
    """Where signatures hold: a chain id and the 20-byte address of the Adjudicator."""

    chain_id: int
    adjudicator: bytes

    def __post_init__(self) -> None:
        """Refuse a chain id beyond uint256 and an address that is not 20 bytes."""
        _check_uint(self.chain_id, 256, "chainId")
        _check_bytes(self.adjudicator, 20, "verifyingContract")


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """Leave for the contract to pay out up to these cumulative totals (units), as State(version) counts them."""

    channel: bytes
    version: int
    body_hash: bytes
    withdrawn_a: int
    withdrawn_b: int

    def __post_init__(self) -> None:
        """Refuse fields outside their types."""
        _check_bytes(self.channel, 32, "channel")
        _check_uint(self.version, 64, "version")
        _check_bytes(self.body_hash, 32, "bodyHash")
        _check_uint(self.withdrawn_a, 128, "withdrawnA")
        _check_uint(self.withdrawn_b, 128, "withdrawnB")


@dataclass(frozen=True, slots=True)
class Close:
    """A cooperative close at a version's accounts, good until `valid_until` (Unix seconds, inclusive)."""

    channel: bytes
    version: int
    valid_until: int
    a: Account
    b: Account

    def __post_init__(self) -> None:
        """Refuse fields outside their types."""
        _check_bytes(self.channel, 32, "channel")
        _check_uint(self.version, 64, "version")
        _check_uint(self.valid_until, 64, "validUntil")


@dataclass(frozen=True, slots=True)
class Resume:
    """Leave to end the dispute of that number and go on, good until `valid_until` (Unix seconds, inclusive)."""

    channel: bytes
    dispute: int
    valid_until: int

    def __post_init__(self) -> None:
        """Refuse fields outside their types."""
        _check_bytes(self.channel, 32, "channel")
        _check_uint(self.dispute, 32, "dispute")
        _check_uint(self.valid_until, 64, "validUntil")


@dataclass(frozen=True, slots=True)
class Quote:
    """A firm quote: `maker` (0 or 1) will trade the legs of that hash until `valid_until` (seconds, inclusive)."""

    channel: bytes
    quote_id: bytes
    maker: int
    legs_hash: bytes
    valid_until: int

    def __post_init__(self) -> None:
        """Refuse fields outside their types."""
        _check_bytes(self.channel, 32, "channel")
        _check_bytes(self.quote_id, 16, "quoteId")
        _check(self.maker in (0, 1), "maker must be 0 (a) or 1 (b)")
        _check_bytes(self.legs_hash, 32, "legsHash")
        _check_uint(self.valid_until, 64, "validUntil")


def _word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def _signed(value: int) -> bytes:
    return value.to_bytes(32, "big", signed=True)


@lru_cache(maxsize=16)
def domain_separator(domain: Domain) -> bytes:
    """The hashStruct of the domain."""
    return keccak256(_DOMAIN + _NAME + _VERSION + _word(domain.chain_id) + _PAD + domain.adjudicator)


def digest(domain: Domain, struct_hash: bytes) -> bytes:
    """What is signed: keccak256(0x1901 || domain separator || struct hash)."""
    return keccak256(b"\x19\x01" + domain_separator(domain) + struct_hash)


def party_hash(party: Party) -> bytes:
    """The hashStruct of a Party."""
    return keccak256(_PARTY + _PAD + party.signer + _PAD + party.payout)


def oracle_hash(oracle: Oracle) -> bytes:
    """The hashStruct of an Oracle: the key under which the FixBook remembers its fixes."""
    return keccak256(
        b"".join(
            (
                _ORACLE,
                keccak256(b"".join(_PAD + signer for signer in oracle.signers)),
                _word(oracle.quorum),
                _word(oracle.tick),
                _word(oracle.samples),
                _word(oracle.sample_gap),
                _word(oracle.max_age),
                _word(oracle.grace),
            )
        )
    )


def market_hash(market: Market) -> bytes:
    """The hashStruct of a Market."""
    return keccak256(
        b"".join(
            (
                _MARKET,
                market.feed,
                _word(market.price_scan),
                _word(market.vol_up),
                _word(market.vol_down),
                _word(market.wing_cover),
                _word(market.spread_charge),
            )
        )
    )


def terms_hash(terms: Terms) -> bytes:
    """The hashStruct of the Terms (32 bytes). The channel id is its digest, not this."""
    return keccak256(
        b"".join(
            (
                _TERMS,
                party_hash(terms.a),
                party_hash(terms.b),
                _PAD + terms.collateral,
                _word(terms.decimals),
                terms.collateral_feed,
                _word(terms.haircut),
                oracle_hash(terms.oracle),
                keccak256(b"".join(map(market_hash, terms.markets))),
                _word(terms.initial_factor),
                _word(terms.closeout_penalty),
                _word(terms.challenge_period),
                _word(terms.cure_period),
                _word(terms.sequencer),
                terms.salt,
            )
        )
    )


def channel_id(domain: Domain, terms: Terms) -> bytes:
    """The channel id (32 bytes): the EIP-712 digest of the Terms."""
    return digest(domain, terms_hash(terms))


def account_hash(account: Account) -> bytes:
    """The hashStruct of an Account."""
    return keccak256(
        _ACCOUNT
        + account.balance.to_bytes(32, "big")
        + account.deposited.to_bytes(32, "big")
        + account.withdrawn.to_bytes(32, "big")
    )


def position_hash(position: Position) -> bytes:
    """The hashStruct of a Position."""
    instrument = position.instrument
    return keccak256(
        b"".join(
            (
                _POSITION,
                _word(instrument.kind),
                instrument.feed,
                _word(instrument.expiry),
                _word(instrument.strike),
                _signed(position.size),
                _word(position.mark),
                _signed(position.carry),
                _word(position.vol),
            )
        )
    )


_EMPTY_BOOK = keccak256(b"")


def positions_hash(positions: tuple[Position, ...]) -> bytes:
    """The hash of the array of positions. Each keeps its own: a trade changes one of many, a payment none."""
    if not positions:
        return _EMPTY_BOOK
    return keccak256(b"".join([p.hashed or _keep_hash(p) for p in positions]))


def _keep_hash(position: Position) -> bytes:
    made = position_hash(position)
    object.__setattr__(position, "hashed", made)
    return made


def body_hash(body: Body) -> bytes:
    """The hashStruct of a Body (32 bytes): all that the chain learns of it before it is settled."""
    return keccak256(
        _BODY
        + body.as_of.to_bytes(32, "big")
        + body.collateral_mark.to_bytes(32, "big")
        + body.journal
        + account_hash(body.a)
        + account_hash(body.b)
        + positions_hash(body.positions)
    )


def state_digest(domain: Domain, channel: bytes, version: int, body_hash: bytes) -> bytes:
    """The digest of State(channel, version, body), from the body's hash alone."""
    return keccak256(
        b"\x19\x01" + domain_separator(domain) + keccak256(_STATE + channel + version.to_bytes(32, "big") + body_hash)
    )


def withdrawal_digest(domain: Domain, withdrawal: Withdrawal) -> bytes:
    """The digest of a Withdrawal."""
    w = withdrawal
    packed = w.channel + _word(w.version) + w.body_hash + _word(w.withdrawn_a) + _word(w.withdrawn_b)
    return digest(domain, keccak256(TYPE_HASHES["Withdrawal"] + packed))


def close_digest(domain: Domain, close: Close) -> bytes:
    """The digest of a Close."""
    packed = close.channel + _word(close.version) + _word(close.valid_until)
    return digest(domain, keccak256(TYPE_HASHES["Close"] + packed + account_hash(close.a) + account_hash(close.b)))


def resume_digest(domain: Domain, resume: Resume) -> bytes:
    """The digest of a Resume."""
    packed = resume.channel + _word(resume.dispute) + _word(resume.valid_until)
    return digest(domain, keccak256(TYPE_HASHES["Resume"] + packed))


def quote_digest(domain: Domain, quote: Quote) -> bytes:
    """The digest of a Quote."""
    q = quote
    packed = q.channel + q.quote_id + b"\0" * 16 + _word(q.maker) + q.legs_hash + _word(q.valid_until)
    return digest(domain, keccak256(TYPE_HASHES["Quote"] + packed))


_ATTRIBUTES = {
    "collateralFeed": "collateral_feed",
    "initialFactor": "initial_factor",
    "closeoutPenalty": "closeout_penalty",
    "challengePeriod": "challenge_period",
    "curePeriod": "cure_period",
    "sampleGap": "sample_gap",
    "maxAge": "max_age",
    "priceScan": "price_scan",
    "volUp": "vol_up",
    "volDown": "vol_down",
    "wingCover": "wing_cover",
    "spreadCharge": "spread_charge",
    "asOf": "as_of",
    "collateralMark": "collateral_mark",
    "bodyHash": "body_hash",
    "withdrawnA": "withdrawn_a",
    "withdrawnB": "withdrawn_b",
    "validUntil": "valid_until",
    "quoteId": "quote_id",
    "legsHash": "legs_hash",
}
_SAFE_INTEGER = 1 << 53
Signable = Terms | Body | State | Withdrawal | Close | Resume | Quote


# A wallet that signs nothing but typed data proves with this who it is on a link (docs/transport.md). It is bound to no
# chain and no contract, so its domain has a name and a version alone, and no signature on it is one on anything else.
LINK_TYPES: dict[str, Fields] = {
    "EIP712Domain": _fields("string name,string version"),
    "Link": _fields("string role,bytes32 session,bytes32 key,address signer"),
}
_LINK = keccak256(f"Link({','.join(' '.join(field) for field in LINK_TYPES['Link'])})".encode())
_LINK_DOMAIN = keccak256(keccak256(b"EIP712Domain(string name,string version)") + _NAME + _VERSION)


def link_digest(role: str, session: bytes, key: bytes, signer: bytes) -> bytes:
    """The digest of Link: `role` ("initiator" or "responder") of a session (32 bytes) owns the link key (32 bytes)."""
    packed = keccak256(role.encode()) + session + key + _PAD + signer
    return keccak256(b"\x19\x01" + _LINK_DOMAIN + keccak256(_LINK + packed))


def link_typed_data(role: str, session: bytes, key: bytes, signer: bytes) -> dict[str, Any]:
    """The typed data of the same."""
    return {
        "types": {name: [{"name": n, "type": k} for k, n in found] for name, found in LINK_TYPES.items()},
        "primaryType": "Link",
        "domain": {"name": NAME, "version": VERSION},
        "message": {
            "role": role,
            "session": "0x" + session.hex(),
            "key": "0x" + key.hex(),
            "signer": checksum_address(signer),
        },
    }


def attribute(field: str) -> str:
    """The Python attribute that holds a field of the typed data: `asOf` -> `as_of`."""
    return _ATTRIBUTES.get(field, field)


def field_value(struct: object, field: str) -> Any:  # noqa: ANN401 - whatever the field holds
    """The value of a typed-data field of one of the protocol's structs; a Position's instrument is looked through."""
    if isinstance(struct, Position) and field in {"kind", "feed", "expiry", "strike"}:
        return getattr(struct.instrument, field)
    return getattr(struct, attribute(field))


def _json(kind: str, value: Any) -> Any:  # noqa: ANN401 - the JSON of any field
    if kind.endswith("[]"):
        return [_json(kind[:-2], item) for item in value]
    if kind in TYPES:
        return message_data(kind, value)
    if kind == "address":
        return checksum_address(value)
    if kind.startswith("bytes"):
        return "0x" + value.hex()
    # JSON's numbers are doubles to most wallets: what they cannot hold travels as a decimal string
    return int(value) if abs(value) < _SAFE_INTEGER else str(int(value))


def message_data(primary: str, value: object) -> dict[str, Any]:
    """A struct as JSON data under the protocol's own field names.

    Addresses in EIP-55, bytes as 0x text, integers beyond 2**53 as decimal strings.
    """
    return {name: _json(kind, field_value(value, name)) for kind, name in TYPES[primary]}


def typed_data(domain: Domain, primary: str, value: Signable) -> dict[str, Any]:
    """The EIP-712 JSON that a wallet shows and signs (eth_signTypedData_v4) for a struct of the protocol.

    Raises:
        MessageRangeError: `primary` is not a type of the protocol, or the value is not of it.

    """
    _check(primary in TYPES, f"{primary!r} is not a type of the protocol")
    _check(type(value).__name__ == primary, f"a {type(value).__name__} is not a {primary}")
    names = [primary, *sorted(_references(primary))]
    types = {"EIP712Domain": DOMAIN_FIELDS} | {name: TYPES[name] for name in names}
    return {
        "types": {name: [{"name": n, "type": k} for k, n in fields] for name, fields in types.items()},
        "primaryType": primary,
        "domain": {
            "name": NAME,
            "version": VERSION,
            "chainId": domain.chain_id,
            "verifyingContract": checksum_address(domain.adjudicator),
        },
        "message": message_data(primary, value),
    }
