"""What the sequencer has agreed to is done, also where it stops between its answer and its proposal."""

from __future__ import annotations

import asyncio

import pytest
from desk_world import PATIENCE_S, only_actor, two_desks

from channeld.core.operations import Transfer, decode_batch
from channeld.desk.offers import Status

pytestmark = pytest.mark.xdist_group("faults")


async def test_a_request_agreed_to_before_a_restart_is_proposed_after_it(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        maker, taker = world.maker, world.taker
        actor = only_actor(maker)
        actor._free = lambda: False  # it agrees, and gets no further
        paid = asyncio.create_task(taker.call("transfer", channel=world.channel, amount="7", memo="once"))
        await maker.until(lambda: any(o.status is Status.AGREED for o in actor.offers), "an agreed request")
        await maker.node.stop()
        await maker.start()
        async with asyncio.timeout(PATIENCE_S):
            version = (await paid)["version"]
        for desk in (maker, taker):
            await desk.until(lambda d=desk: only_actor(d).state.version >= version, "the payment")
            batches = await desk.node.store.batches(only_actor(desk).id)
            found = [
                (batch.version, op.units)
                for batch in batches
                for op in decode_batch(batch.raw).operations
                if isinstance(op, Transfer)
            ]
            assert found == [(version, 7_000_000)]
