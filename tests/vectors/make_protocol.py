"""Writes hashing.json and batches.json: typed data, digests, signatures, batches and states for other implementations.

`python tests/vectors/make_protocol.py`. Keys are for tests alone. Integers beyond 2**53 are decimal text, bytes are 0x
text; states stand in the file form of docs/protocol-operations.md. A change of any result is a change of protocol.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "core"))

from strategies import (  # noqa: E402 - the path comes first
    BTC,
    DOMAIN,
    ETH,
    EXPIRY,
    GRACE,
    MAKER,
    ORACLE_KEYS,
    SALT,
    T0,
    TAKER,
    Desk,
    call,
    dollars,
    future,
    leg,
    make_mark,
    make_terms,
    packages,
    perpetual,
    put,
)

from channeld.core.crypto import address_of, checksum_address, sign_digest  # noqa: E402
from channeld.core.eip712 import (  # noqa: E402
    TYPE_HASHES,
    Close,
    Quote,
    Resume,
    Withdrawal,
    body_hash,
    channel_id,
    close_digest,
    domain_separator,
    encode_type,
    oracle_hash,
    quote_digest,
    resume_digest,
    state_digest,
    terms_hash,
    typed_data,
    withdrawal_digest,
)
from channeld.core.errors import ChanneldError  # noqa: E402
from channeld.core.files import batch_to_json, body_to_json, terms_to_json  # noqa: E402
from channeld.core.operations import (  # noqa: E402
    CloseChannel,
    Deposit,
    Mark,
    Trade,
    Transfer,
    Withdraw,
    decode_batch,
    legs_hash,
)
from channeld.core.terms import feed_id  # noqa: E402
from channeld.core.transition import apply  # noqa: E402
from channeld.core.wad import WAD  # noqa: E402

FUNDED = 500_000 * 10**6
UNITS = 10**6


def text(raw: bytes) -> str:
    return "0x" + raw.hex()


def desks_day() -> Desk:
    """A day at two desks: every operation, funding, an expiry at its fix, one without."""
    desk = Desk(funded=0)
    desk.do(Deposit(0, FUNDED, 0), at=T0 - 50)
    desk.do(Deposit(1, FUNDED, FUNDED), at=T0 - 40)
    spread = (leg(put(3200), 20, 290, vol=58 * 10**16), leg(put(2800), -20, 90, vol=66 * 10**16))
    desk.do(Trade(0, (leg(call(), -10, 151, carry=5 * 10**16, vol=6 * 10**17),), reference=b"order 1"), at=T0 + 1.234)
    desk.do(
        Trade(1, spread, fee=25 * UNITS),
        Trade(0, (leg(perpetual(BTC), 2, 60_000, carry=10**17),)),
        at=T0 + 2,
    )
    desk.do(Transfer(1, 1234 * UNITS, b"rent"), Withdraw(0, 1_000 * UNITS), at=T0 + 3)
    desk.mark(
        T0 + 60,
        {ETH: dollars(3010.5), BTC: dollars(59_870.25)},
        carries={(ETH, EXPIRY): 4 * 10**16, (BTC, 0): 11 * 10**16},
        vols={(ETH, EXPIRY, 3000 * WAD): 61 * 10**16},
    )
    desk.do(
        Trade(0, (leg(perpetual(BTC), -1, 60_100), leg(future(BTC, EXPIRY + 600), 1, 60_500, carry=10**16))), at=T0 + 75
    )
    desk.mark(T0 + 80, {ETH: dollars(2990)})
    desk.do(at=T0 + 81)
    desk.mark(EXPIRY + 10, {ETH: dollars(3055.55), BTC: dollars(61_000)})
    late = EXPIRY + 600 + GRACE
    desk.do(
        Mark(1, late, (BTC,), packages(BTC, late, dollars(61_500)), (11 * 10**16,), (0,), ((BTC, EXPIRY + 600),)),
        at=late,
    )
    desk.do(Trade(1, (leg(perpetual(BTC), -1, 61_490),)), CloseChannel(0), at=late + 5)
    return desk


def hashing() -> dict:
    """Type hashes, digests and signatures of an example of every type."""
    terms = make_terms()
    channel = channel_id(DOMAIN, terms)
    desk = Desk(terms)
    desk.do(Trade(0, (leg(call(), -5, 150), leg(put(2800), 3, 77), leg(perpetual(), 2, 3000, carry=-(10**17)))), at=T0)
    state = desk.state
    assert state.channel == channel
    trade = Trade(0, (leg(call(), 5, 151),), 25, b"quote 1")
    close = Close(channel, 9, T0 + 600, state.body.a, state.body.b)
    withdrawal = Withdrawal(channel, state.version, body_hash(state.body), 1_000 * UNITS, 0)
    resume = Resume(channel, 1, T0 + 600)
    quote = Quote(channel, bytes(range(16)), 1, legs_hash(trade.legs, trade.fee, trade.reference), T0 + 30)
    signed = {
        "Terms": (terms, channel),
        "State": (state, state_digest(DOMAIN, channel, state.version, body_hash(state.body))),
        "Withdrawal": (withdrawal, withdrawal_digest(DOMAIN, withdrawal)),
        "Close": (close, close_digest(DOMAIN, close)),
        "Resume": (resume, resume_digest(DOMAIN, resume)),
        "Quote": (quote, quote_digest(DOMAIN, quote)),
    }
    keys = {"maker": MAKER, "taker": TAKER} | {f"oracle {n}": k for n, k in enumerate(ORACLE_KEYS)}
    return {
        "about": "docs/protocol.md section 3; keys are for tests alone",
        "keys": {name: {"private": text(k), "address": checksum_address(address_of(k))} for name, k in keys.items()},
        "types": {name: {"string": encode_type(name), "hash": text(digest)} for name, digest in TYPE_HASHES.items()},
        "domainSeparator": text(domain_separator(DOMAIN)),
        "termsHash": text(terms_hash(terms)),
        "oracleHash": text(oracle_hash(terms.oracle)),
        "bodyHash": text(body_hash(state.body)),
        "legs": {"batch": text(desk.raw(trade, at=T0)), "legsHash": text(quote.legs_hash)},
        "signed": {
            name: {
                "typedData": typed_data(DOMAIN, name, value),
                "digest": text(digest),
                "maker": text(sign_digest(MAKER, digest)),
                "taker": text(sign_digest(TAKER, digest)),
            }
            for name, (value, digest) in signed.items()
        },
    }


def refusals(desk: Desk) -> list[dict]:
    """Batches refused on the last state but one, each with its error."""
    raws = {
        "negative balance": desk.raw(Transfer(0, 10**13), at=T0 + 10**6),
        "unknown market": desk.raw(Trade(0, (leg(perpetual(feed_id("SOL")), 1, 100),)), at=T0 + 10**6),
        "expired": desk.raw(Trade(0, (leg(call(), 1, 100),)), at=T0 + 10**6),
        "before asOf": desk.raw(at=T0),
        "close with positions": desk.raw(CloseChannel(0), at=T0 + 10**6),
        "deposits fall": desk.raw(Deposit(0, 1, FUNDED), at=T0 + 10**6),
        "mark too far behind": desk.raw(make_mark(desk.terms, desk.body, T0, {}), at=T0 + 10**6),
        "mark without quorum": desk.raw(Mark(0, T0 + 10**6, (BTC,), (), (0,), (0,)), at=T0 + 10**6),
        "trailing byte": desk.raw(Transfer(0, 1), at=T0 + 10**6) + b"\0",
        "not minimal": desk.raw(CloseChannel(0), at=T0 + 10**6)[:-3] + bytes.fromhex("9200cc06"),
        "random bytes": b"\x93\xff\x00" + SALT,
    }
    listed = []
    for name, raw in raws.items():
        try:
            apply(desk.terms, desk.state, raw)
        except ChanneldError as error:
            listed.append({"name": name, "batch": text(raw), "code": error.code, "error": type(error).__name__})
        else:
            message = f"{name} was not refused"
            raise AssertionError(message)
    return listed


def batches() -> dict:
    """A channel's life, batch by batch, and batches that are refused."""
    done = desks_day()
    desk = Desk(done.terms, funded=0)
    steps, refused = [], []
    for number, (version, raw) in enumerate(done.journal):
        if number == len(done.journal) - 1:
            refused = refusals(desk)
        applied = apply(desk.terms, desk.state, raw)
        desk.state = applied.state
        steps.append(
            {
                "version": version,
                "batch": text(raw),
                "decoded": batch_to_json(decode_batch(raw)),
                "body": body_to_json(applied.state.body),
                "bodyHash": text(body_hash(applied.state.body)),
                "stateDigest": text(state_digest(DOMAIN, desk.state.channel, version, body_hash(applied.state.body))),
                "settled": [
                    {"feed": s.instrument.feed.rstrip(b"\0").decode(), "payoff": str(s.payoff), "flagged": s.flagged}
                    for s in applied.settled
                ],
                "closing": applied.closing,
            }
        )
    return {
        "about": "docs/protocol-operations.md; `refused` are batches on the state before the last",
        "chainId": DOMAIN.chain_id,
        "adjudicator": checksum_address(DOMAIN.adjudicator),
        "terms": terms_to_json(done.terms),
        "channel": text(done.state.channel),
        "steps": steps,
        "refused": refused,
    }


def files() -> dict[str, str]:
    """The files by name, exactly as they are committed."""
    made = {"hashing.json": hashing(), "batches.json": batches()}
    return {name: json.dumps(data, indent=1) + "\n" for name, data in made.items()}


if __name__ == "__main__":
    for file_name, content in files().items():
        (HERE / file_name).write_text(content)
