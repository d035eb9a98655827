import pytest
from chain_support import START_TIME, DevnetThread, role_key

from channeld.chain.contracts import Token, load_artifact
from channeld.chain.deployment import deploy_test_token
from channeld.chain.errors import CursorError, UnknownLogError
from channeld.chain.events import OtherEvent, Reorganised
from channeld.chain.rpc import ChainRpc
from channeld.chain.transactions import LocalSigner, TransactionManager
from channeld.chain.watcher import Cursor, Watcher, parse_cursor

EVENTS = load_artifact("TestToken").abi.events


@pytest.fixture
async def minting():
    """A chain of its own, to be reorganised, and a token on it."""
    with DevnetThread("embedded", start_time=START_TIME, heartbeat_s=None) as url:
        async with ChainRpc(url) as rpc:
            manager = TransactionManager(rpc, LocalSigner(role_key("maker")), chain_id=31_337, poll_s=0.002)
            await rpc.faucet(manager.address)
            token = Token(rpc, await deploy_test_token(manager))

            async def mint(amount):
                await manager.transact(token.mint(manager.address, amount))

            yield rpc, token, mint


def amounts(found):
    """What was minted, event by event; a reorganisation as the number of the block it kept."""
    return [
        ("back to", event.at.block_number) if isinstance(event, Reorganised) else dict(event.inputs)["value"]
        for event in found
    ]


async def test_events_come_once_and_in_order(minting):
    rpc, token, mint = minting
    watcher = Watcher(rpc, [token.address], Cursor.begin(0), events=EVENTS)
    assert await watcher.poll() == []
    for amount in (1, 2, 3):
        await mint(amount)
    found = await watcher.poll()
    assert amounts(found) == [1, 2, 3]
    assert all(isinstance(event, OtherEvent) and event.name == "Transfer" for event in found)
    assert await watcher.poll() == []
    head = await rpc.header()
    assert (watcher.view.block, watcher.view.hash, watcher.view.time) == (head.number, head.hash, head.timestamp)
    assert (watcher.view.confirmed_block, watcher.view.behind) == (head.number, 0)
    await mint(4)
    assert amounts(await watcher.poll()) == [4]


async def test_a_watcher_goes_on_from_a_stored_cursor(minting):
    rpc, token, mint = minting
    first = Watcher(rpc, [token.address], Cursor.begin(0), events=EVENTS)
    await mint(1)
    assert amounts(await first.poll()) == [1]
    stored = first.cursor.as_data()
    await mint(2)
    second = Watcher(rpc, [token.address], parse_cursor(stored), events=EVENTS)
    assert amounts(await second.poll()) == [2]


async def test_confirmations_hold_events_back(minting):
    rpc, token, mint = minting
    watcher = Watcher(rpc, [token.address], Cursor.begin(0), events=EVENTS, confirmations=3)
    await mint(1)
    assert amounts(await watcher.poll()) == []
    await rpc.request("evm_mine")
    assert amounts(await watcher.poll()) == []
    await rpc.request("evm_mine")
    assert amounts(await watcher.poll()) == [1]
    assert watcher.view.block - watcher.view.confirmed_block == 2


async def test_long_histories_are_read_in_spans(minting):
    rpc, token, mint = minting
    for amount in range(1, 8):
        await mint(amount)
    watcher = Watcher(rpc, [token.address], Cursor.begin(0), events=EVENTS, span=3)
    found = []
    rounds = 0
    while watcher.view is None or watcher.view.behind:
        found += await watcher.poll()
        rounds += 1
    assert amounts(found) == list(range(1, 8))
    assert rounds > 2


async def test_a_reorganisation_goes_back_to_the_common_ancestor(minting):
    rpc, token, mint = minting
    watcher = Watcher(rpc, [token.address], Cursor.begin(0), events=EVENTS)
    await mint(1)
    await watcher.poll()
    kept = await rpc.block_number()
    await mint(2)
    await mint(3)
    assert amounts(await watcher.poll()) == [2, 3]
    await rpc.request("channeld_reorganise", 2)
    assert amounts(await watcher.poll()) == [("back to", kept)]
    assert await watcher.poll() == []
    # the sender puts back what was taken, so that no nonce is left out
    await mint(9)
    assert amounts(await watcher.poll()) == [2, 3, 9]


async def test_a_reorganisation_while_it_was_away(minting):
    rpc, token, mint = minting
    watcher = Watcher(rpc, [token.address], Cursor.begin(0), events=EVENTS)
    await mint(1)
    assert amounts(await watcher.poll()) == [1]
    await mint(2)
    assert amounts(await watcher.poll()) == [2]
    stored = watcher.cursor.as_data()
    await rpc.request("channeld_reorganise", 1)
    await mint(5)
    later = Watcher(rpc, [token.address], parse_cursor(stored), events=EVENTS)
    reported = amounts(await later.poll())
    assert reported[0][0] == "back to"
    assert reported[1:] == [2, 5]


async def test_a_reorganisation_beyond_memory_reads_all_again(minting):
    rpc, token, mint = minting
    await mint(1)
    start = await rpc.block_number()
    await mint(2)
    watcher = Watcher(rpc, [token.address], Cursor.begin(start), events=EVENTS)
    assert amounts(await watcher.poll()) == [1, 2]
    await rpc.request("channeld_reorganise", 1)
    assert amounts(await watcher.poll()) == [("back to", start - 1), 1]


async def test_a_log_of_no_known_event(minting):
    rpc, token, mint = minting
    await mint(1)
    watcher = Watcher(rpc, [token.address], Cursor.begin(0))
    before = watcher.cursor
    with pytest.raises(UnknownLogError):
        await watcher.poll()
    assert watcher.cursor == before


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"next_block": 1, "hashes": [], "start": "x"},
        {"next_block": -1, "hashes": [], "start": 0},
        {"next_block": 1, "hashes": [[1, "0x12"]], "start": 0},
        {"next_block": 1, "hashes": [[2, "0x" + "11" * 32], [1, "0x" + "11" * 32]], "start": 0},
        {"next_block": 1, "hashes": [5], "start": 0},
    ],
)
def test_malformed_cursors(data):
    with pytest.raises(CursorError):
        parse_cursor(data)
