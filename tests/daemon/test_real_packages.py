"""Real RedStone packages settle a channel whose terms name their real signers, on a chain of their time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from desk_world import BTC, ETH, TOKENS, only_actor, two_desks

from channeld.core.packages import fix_price, split_payload
from channeld.core.settlement import settle_amounts
from channeld.core.terms import Oracle
from channeld.core.wad import WAD
from channeld.oracle.sources import PriceUnavailableError

FILE = Path(__file__).resolve().parents[3] / "shared" / "data" / "redstone_3sig_ETH_BTC.hex"
SIGNERS = tuple(
    sorted(
        bytes.fromhex(address)
        for address in (
            "1ea62d73edf8ac05dfcea1a34b9796e937a29eff",
            "12470f7aba85c8b81d63137dd5925d6ee114952b",
            "109b4a318a4f5ddcbca6349b45f881b4137deafb",
        )
    )
)
SIGNED_AT = 1_721_130_810
DEPOSIT = 250_000 * TOKENS


@pytest.mark.skipif(not FILE.exists(), reason=f"{FILE} is not there: real packages are not part of the project")
async def test_real_packages_settle_a_channel_on_chain(tmp_path):
    packages = list(split_payload(bytes.fromhex(FILE.read_text().strip().removeprefix("0x"))).packages)
    oracle = Oracle(SIGNERS, 2, 10, 1, 0, 60, 120)
    async with two_desks(tmp_path, start_time=SIGNED_AT - 600) as world:

        def served(_feed, timestamp_ms):
            if timestamp_ms != SIGNED_AT * 1000:
                raise PriceUnavailableError("only one moment was kept")
            return packages

        world.service.packages = served
        world.terms = replace(world.terms, oracle=oracle, challenge_period=120, cure_period=60)
        await world.open()
        for desk in (world.maker, world.taker):
            # the signers' earlier prints were not kept: each desk is told what it would have seen
            now = desk.node.clock.now_ms() // 1000
            only_actor(desk).book._prints |= {ETH: (now, 3400 * WAD), BTC: (now, 63_000 * WAD)}
        await world.taker.call("policy_set", peer="maker", auto_accept=True)
        for leg in (
            {"instrument": "ETH-27SEP24-3400-C", "size": "10", "price": "320"},
            {"instrument": "BTC-PERP", "size": "-0.4", "price": "63000", "carry": "0.1"},
        ):
            done = await world.maker.call("trade", channel="taker", legs=[leg])
            assert done["status"] == "done", done
        body = only_actor(world.maker).state.body
        await world.advance(SIGNED_AT - 125 - world.clock.now_ms() / 1000)
        await world.taker.call("challenge", channel="maker")
        await world.maker.until(lambda: world.status(world.maker, "disputed"), "the dispute")
        told = await world.maker.call("dispute", channel="taker")
        assert told["fix_time"] == SIGNED_AT
        await world.advance(SIGNED_AT + 5 - world.clock.now_ms() / 1000)
        for desk in (world.maker, world.taker):
            await desk.until(lambda d=desk: world.status(d, "closed"), "the payment")
        fixes = {
            (feed, SIGNED_AT): fix_price(oracle, feed, SIGNED_AT, _of(packages, feed)).value for feed in (ETH, BTC)
        }
        assert fixes[ETH, SIGNED_AT] == 3_418_997_701_280_000_000_000
        expected = settle_amounts(world.terms, body, fixes, SIGNED_AT, DEPOSIT, DEPOSIT, 0, 0)
        money = await world.paid()
        assert (money["a"], money["b"]) == expected
        assert sum(expected) == 2 * DEPOSIT


def _of(packages, feed):
    return [raw for raw in packages if raw.startswith(feed)]
