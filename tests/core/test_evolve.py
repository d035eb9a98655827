"""Records made without checks are the records that checks would have let pass."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from strategies import DOMAIN, bodies, make_terms

from channeld.core.channel import fresh
from channeld.core.channel.values import Channel, Half
from channeld.core.evolve import evolver, maker
from channeld.core.operations import Leg, Trade, Transfer
from channeld.core.state import Account, Body, State

MADE = (Account, Body, State, Leg, Trade, Transfer)
CHANGED = (Channel, Half)


def blank(cls):
    """An instance whose fields are all different objects."""
    made = object.__new__(cls)
    made.__dict__.update({field.name: object() for field in fields(cls)})
    return made


@pytest.mark.parametrize("cls", MADE, ids=lambda c: c.__name__)
def test_every_value_lands_in_its_place(cls):
    names = [f.name for f in fields(cls)]
    values = [object() for _ in names]
    made = maker(cls)(*values)
    assert [getattr(made, name) for name in names] == values
    assert type(made) is cls


@pytest.mark.parametrize("cls", CHANGED, ids=lambda c: c.__name__)
def test_one_field_changes_and_no_other(cls):
    names = [f.name for f in fields(cls)]
    made = blank(cls)
    for name in names:
        other = object()
        changed = evolver(cls)(made, **{name: other})
        assert [getattr(changed, n) for n in names] == [other if n == name else getattr(made, n) for n in names]
    with pytest.raises(TypeError):
        evolver(cls)(made, nothing=1)


@given(bodies())
def test_the_same_as_the_ordinary_way(body):
    values = [getattr(body, f.name) for f in fields(Body)]
    assert maker(Body)(*values) == body


def test_the_same_as_replace():
    channel = fresh(DOMAIN, make_terms(), b"\x01" * 32, 0)
    assert evolver(Channel)(channel, frozen="so") == replace(channel, frozen="so")
