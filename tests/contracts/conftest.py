"""Fixtures of the contract tests."""

import pytest
from contracts_harness import Channel, World, make_terms


@pytest.fixture
def world() -> World:
    return World.make()


@pytest.fixture
def channel(world: World) -> Channel:
    """An open channel with nothing in it."""
    return Channel(world, make_terms(world.token.address)).open()


@pytest.fixture
def funded(channel: Channel) -> Channel:
    """An open channel in which a has 1000 tokens and b 600."""
    channel.world.fund(channel.id, 0, 1_000_000_000)
    channel.world.fund(channel.id, 1, 600_000_000)
    return channel
