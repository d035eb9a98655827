"""Owner and tower over real HTTP: receipts, replays, floods, forgeries, malformed bytes, and towers that lie."""

import contextlib
import json
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web
from eth_account import Account
from eth_account.messages import encode_typed_data
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tower_support import (
    DOMAIN,
    MAKER,
    STRANGER,
    TAKER,
    TOWER,
    Clock,
    channel_of,
    client_of,
    door_of,
    held_of,
    role_key,
    terms_of,
)

from channeld.core.crypto import keccak256, sign_digest
from channeld.core.errors import ChanneldError
from channeld.core.files import terms_to_json
from channeld.store.errors import DiskFullError
from channeld.store.memory import MemoryStore
from channeld.tower import protocol
from channeld.tower.door import Limits
from channeld.tower.errors import (
    BadReceiptError,
    MalformedTowerRequestError,
    NotAdmittedError,
    NotWatchedError,
    OverQuotaError,
    RepeatedRequestError,
    RequestSignatureError,
    TooManyRequestsError,
    TowerAddressError,
    TowerAnswerError,
    TowerBrokeItsWordError,
    TowerUnableError,
    TowerUnreachableError,
)
from channeld.tower.ledger import Owners
from channeld.tower.protocol import parse_tower

TERMS = terms_of(1)
CHANNEL = channel_of(TERMS)
OWNERS = Owners({MAKER: 2, TAKER: 2})


@contextlib.asynccontextmanager
async def serving(application):
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def tower(*, limits=None, owners=OWNERS, store=None):
    """(door, a client of the maker's, the URL)."""
    clock = Clock()
    door = door_of(store or MemoryStore(), owners, clock, limits=limits)
    await door._ledger.load()
    async with serving(door.application()) as url, client_of(url, "maker", clock) as client:
        yield door, client, url


def mine(version):
    return (DOMAIN, TERMS, CHANNEL, held_of(CHANNEL, version))


async def test_a_receipt_is_typed_data_that_any_wallet_verifies():
    async with tower() as (_, client, _url):
        first = await client.register(DOMAIN, TERMS, CHANNEL)
        assert (first.version, first.owner, first.block) == (0, MAKER, 7)
        (answer,) = await client.put([mine(3)])
        receipt = answer.receipt
        assert (receipt.version, receipt.body_hash) == (3, mine(3)[3].body_hash)
        # checked by eth-account alone, not by our code
        types = (
            "bytes32 channel,uint64 version,bytes32 bodyHash,address owner,uint64 timeMs,uint64 block,bytes32 request"
        )
        data = {
            "types": {
                "EIP712Domain": [
                    {"name": "name", "type": "string"},
                    {"name": "version", "type": "string"},
                    {"name": "chainId", "type": "uint256"},
                    {"name": "verifyingContract", "type": "address"},
                ],
                "Receipt": [dict(zip(("type", "name"), field.split(), strict=True)) for field in types.split(",")],
            },
            "primaryType": "Receipt",
            "domain": {
                "name": "channeld tower",
                "version": "1",
                "chainId": DOMAIN.chain_id,
                "verifyingContract": "0x" + DOMAIN.adjudicator.hex(),
            },
            "message": {
                "channel": receipt.channel,
                "version": receipt.version,
                "bodyHash": receipt.body_hash,
                "owner": "0x" + receipt.owner.hex(),
                "timeMs": receipt.time_ms,
                "block": receipt.block,
                "request": receipt.request,
            },
        }
        signer = Account.recover_message(encode_typed_data(full_message=data), signature=receipt.signature)
        assert bytes.fromhex(signer[2:]) == TOWER


async def test_the_highest_state_is_kept_and_a_lower_one_is_answered_with_it():
    async with tower() as (door, client, _url):
        await client.register(DOMAIN, TERMS, CHANNEL)
        await client.put([mine(5)])
        (stale,) = await client.put([mine(4)])
        assert stale.receipt.version == 5
        # an owner whose key has signed what it has lost is shown it
        assert stale.state == held_of(CHANNEL, 5)
        (checked,) = await client.check([mine(5)])
        assert (checked.receipt.version, checked.state) == (5, None)
        assert door._ledger.channels[CHANNEL].durable.version == 5


async def test_one_refusal_among_several_takes_none_down():
    async with tower() as (_, client, _url):
        await client.register(DOMAIN, TERMS, CHANNEL)
        other = terms_of(2)
        unknown = (DOMAIN, other, channel_of(other), held_of(channel_of(other), 1))
        forged = (DOMAIN, TERMS, CHANNEL, held_of(CHANNEL, 9, keys=("maker", "stranger")))
        answers = await client.put([unknown, forged, mine(2)])
        assert isinstance(answers[0].error, NotWatchedError)
        assert answers[1].error.code == 3408
        assert answers[2].receipt.version == 2


async def test_quota_and_admission():
    async with tower() as (_, client, url):
        for salt in (1, 2):
            terms = terms_of(salt)
            await client.register(DOMAIN, terms, channel_of(terms))
        third = terms_of(3)
        with pytest.raises(OverQuotaError):
            await client.register(DOMAIN, third, channel_of(third))
        async with client_of(url, "stranger", Clock()) as stranger:
            with pytest.raises(NotAdmittedError):
                await stranger.register(DOMAIN, TERMS, CHANNEL)


def signed_request(ask, *, number=1, owner=MAKER, key="maker", to=TOWER):
    body = protocol.encode_request(to, owner, number, ask)
    return body, "0x" + sign_digest(role_key(key), protocol.request_digest(body)).hex()


REGISTER = protocol.Register(terms_to_json(TERMS), DOMAIN.chain_id, "0x" + DOMAIN.adjudicator.hex())
CHECK = protocol.Check([protocol.Asked("0x" + CHANNEL.hex(), 0)])


async def test_replays_and_forged_requests_are_refused():
    async with tower() as (door, _client, _url):
        body, signature = signed_request(REGISTER, number=5)
        await door.answer(body, signature)
        for number in (5, 4):
            with pytest.raises(RepeatedRequestError):
                await door.answer(*signed_request(REGISTER, number=number))
        with pytest.raises(RequestSignatureError):
            await door.answer(*signed_request(CHECK, number=6, key="taker"))
        other = signed_request(CHECK, number=7)[0]
        with pytest.raises(RequestSignatureError):
            await door.answer(other, signature)
        with pytest.raises(MalformedTowerRequestError, match="another tower"):
            await door.answer(*signed_request(CHECK, number=8, to=STRANGER))
        # none of that has used up a number of the owner's
        await door.answer(*signed_request(CHECK, number=6))


async def test_floods_are_cut_before_anything_is_read_and_the_owner_is_served_again_later():
    limits = Limits(sender_rate=1, sender_burst=5, owner_rate=1e6, owner_burst=1e6)
    async with tower(limits=limits) as (door, client, url):
        clock = door._senders._now_s.__self__
        async with aiohttp.ClientSession() as session:
            statuses = []
            for _ in range(20):
                async with session.post(url + protocol.PATH, data=b"x" * 100) as answer:
                    statuses.append(answer.status)
            assert statuses == [400] * 5 + [429] * 15
        with pytest.raises(TooManyRequestsError):
            await client.register(DOMAIN, TERMS, CHANNEL)
        clock.ms += 1_000
        await client.register(DOMAIN, TERMS, CHANNEL)


async def test_an_owner_that_floods_from_many_addresses_is_cut_too():
    limits = Limits(1e6, 1e6, owner_rate=1, owner_burst=3)
    async with tower(limits=limits) as (door, _client, _url):
        for number in (1, 2, 3):
            await door.answer(*signed_request(REGISTER, number=number))
        with pytest.raises(TooManyRequestsError):
            await door.answer(*signed_request(REGISTER, number=4))


async def test_a_body_that_is_too_large_is_refused_unread():
    body = b" " * (protocol.MAX_BODY + 1)
    async with (
        tower() as (_door, _client, url),
        aiohttp.ClientSession() as session,
        session.post(url + protocol.PATH, data=body) as answer,
    ):
        assert (answer.status, (await answer.json())["error"]["code"]) == (400, 3402)


async def test_a_store_that_fails_promises_nothing():
    store = MemoryStore()
    async with tower(store=store) as (_, client, _url):
        await client.register(DOMAIN, TERMS, CHANNEL)
        store.fail_with = DiskFullError("no room")
        with pytest.raises(TowerUnableError):
            await client.put([mine(1)])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_bytes_make_the_decoder_fail_otherwise_than_typed(data):
    good = protocol.encode_request(TOWER, MAKER, 1, data.draw(st.sampled_from((REGISTER, CHECK))))
    at = data.draw(st.integers(0, len(good) - 1))
    raw = data.draw(
        st.one_of(
            st.binary(max_size=200),
            st.just(good[:at]),
            st.integers(0, 255).map(lambda byte: good[:at] + bytes((byte,)) + good[at + 1 :]),
            st.just(b"[" * 100_000),
        )
    )
    try:
        protocol.decode_request(raw)
    except MalformedTowerRequestError:
        return


@pytest.mark.parametrize(
    "change",
    [
        {"terms": {}},
        {"terms": {**terms_to_json(TERMS), "decimals": "six"}},
        {"chain_id": -1},
        {"adjudicator": "0x12"},
    ],
)
async def test_terms_that_are_none_are_refused(change):
    async with tower() as (door, _client, _url):
        ask = protocol.Register(
            **{"terms": REGISTER.terms, "chain_id": REGISTER.chain_id, "adjudicator": REGISTER.adjudicator, **change}
        )
        with pytest.raises(ChanneldError) as refused:
            await door.answer(*signed_request(ask))
        assert refused.value.code in {3402, 3407}
        assert not door._ledger.channels


# --- what an owner finds out -------------------------------------------------------------------------------------


class FalseTower:
    """Answers with what a test puts together, signed by a key of its choice."""

    def __init__(self, alter=lambda receipt: receipt, key="tower", extra=None):
        self.alter, self.key, self.extra = alter, key, extra or {}

    async def post(self, request):
        body = await request.read()
        asked = protocol.decode_request(body)
        held = held_of(CHANNEL, 5)
        blank = protocol.Receipt(CHANNEL, 5, held.body_hash, MAKER, 1, 7, keccak256(body))
        receipt = self.alter(blank)
        signature = sign_digest(role_key(self.key), protocol.receipt_digest(DOMAIN, receipt))
        told = {"receipt": protocol.receipt_to_json(replace(receipt, signature=signature)), **self.extra}
        count = 1 if isinstance(asked.ask, protocol.Register) else len(getattr(asked.ask, "states", [1]))
        return web.json_response({"results": [told] * count})

    def application(self):
        app = web.Application()
        app.router.add_post(protocol.PATH, self.post)
        return app


@pytest.mark.parametrize(
    ("liar", "found"),
    [
        (FalseTower(key="stranger"), BadReceiptError),
        (FalseTower(lambda r: replace(r, channel=b"\1" * 32)), BadReceiptError),
        (FalseTower(lambda r: replace(r, owner=TAKER)), BadReceiptError),
        # an old answer, played again by whoever sits in between
        (FalseTower(lambda r: replace(r, request=b"\2" * 32)), BadReceiptError),
        # it says that it is current, and is not
        (FalseTower(lambda r: replace(r, version=4)), TowerBrokeItsWordError),
        (FalseTower(lambda r: replace(r, body_hash=b"\3" * 32)), TowerBrokeItsWordError),
        # it claims more than there is, and cannot show it
        (FalseTower(lambda r: replace(r, version=9)), BadReceiptError),
    ],
)
async def test_a_tower_that_lies_is_found_out(liar, found):
    async with serving(liar.application()) as url, client_of(url, "maker", Clock()) as client:
        (answer,) = await client.put([mine(5)])
        assert isinstance(answer.error, found)
        assert answer.receipt is None


async def test_a_tower_that_forgets_is_convicted_by_its_own_receipts():
    liar = FalseTower()
    async with serving(liar.application()) as url, client_of(url, "maker", Clock()) as client:
        assert (await client.put([mine(5)]))[0].receipt.version == 5
        liar.alter = lambda r: replace(r, version=4)
        (answer,) = await client.check([mine(4)])
        assert isinstance(answer.error, TowerBrokeItsWordError)
        for which in ("earlier", "later"):
            receipt = protocol.receipt_from_json(answer.error.details[which])
            protocol.verify_receipt(DOMAIN, receipt, TOWER)


async def test_a_higher_state_that_is_shown_must_be_signed_by_both():
    forged = held_of(CHANNEL, 5, keys=("maker", "stranger"))
    item = protocol.item_of(CHANNEL, forged)
    shown = {name: getattr(item, name) for name in item.__struct_fields__}
    liar = FalseTower(extra={"state": shown})
    async with serving(liar.application()) as url, client_of(url, "maker", Clock()) as client:
        (answer,) = await client.check([mine(4)])
        assert answer.error.code == 3408
        assert answer.state is None


async def _empty(_):
    return web.json_response({"results": []})


async def _text(_):
    return web.Response(text="<html>", status=502)


async def _huge(_):
    return web.Response(body=b" " * (2 << 20))


async def _numbers(_):
    return web.json_response({"results": [7]})


@pytest.mark.parametrize("handler", [_empty, _text, _huge, _numbers])
async def test_what_is_no_tower_is_a_typed_error(handler):
    app = web.Application()
    app.router.add_post(protocol.PATH, handler)
    async with serving(app) as url, client_of(url, "maker", Clock()) as client:
        with pytest.raises(TowerAnswerError):
            await client.register(DOMAIN, TERMS, CHANNEL)


async def test_a_tower_that_is_not_there_is_a_typed_error():
    async with client_of("http://127.0.0.1:9", "maker", Clock()) as client:
        with pytest.raises(TowerUnreachableError):
            await client.register(DOMAIN, TERMS, CHANNEL)


def test_a_tower_is_named_by_address_and_url():
    text = "0x" + TOWER.hex() + "@https://tower.example:9900/"
    assert parse_tower(text).address == TOWER
    assert parse_tower(text).url == "https://tower.example:9900"
    for wrong in (
        "",
        "tower.example",
        "0x12@http://x",
        "0x" + TOWER.hex() + "@ftp://x",
        "0x" + TOWER.hex() + "@http://",
    ):
        with pytest.raises(TowerAddressError):
            parse_tower(wrong)


def test_nothing_that_travels_says_a_position():
    """The shapes of requests have no place for a body."""
    shapes = (protocol.Item, protocol.Asked, protocol.Register)
    travels = {field for shape in shapes for field in shape.__struct_fields__}
    assert travels == {
        *("channel", "version", "body_hash", "signature_a", "signature_b"),
        *("terms", "chain_id", "adjudicator"),
    }
    assert json.loads(signed_request(CHECK)[0]).keys() == {"tower", "owner", "number", "ask"}
