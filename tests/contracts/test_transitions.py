"""Every function in every state: what transitions.py says is what the contract does and docs/contracts.md shows."""

import pytest
from contracts_harness import KEYS, NOW, PAYOUTS, ROOT, Account, Channel, World, make_oracle, make_terms, refused
from transitions import CLOCK, STATES, TRANSITIONS, diagram, matrix, states_table

from channeld.core import crypto
from channeld.core.settlement import fix_time
from channeld.core.wad import DAY

ONE = 1_000_000
DEADLINE = NOW + 86_400


def state(channel, version):
    return channel.body(Account(1000 * ONE - version, 1000 * ONE, 0), Account(600 * ONE + version, 600 * ONE, 0))


def channel_in(name):
    """A channel in a state, by good calls alone."""
    world = World.make()
    # samples, so that D is not the deadline itself
    oracle = make_oracle(samples=2, sample_gap=60)
    channel = Channel(world, make_terms(world.token.address, oracle=oracle))
    if name == "nothing":
        return channel
    channel.open()
    world.fund(channel.id, 0, 1000 * ONE)
    world.fund(channel.id, 1, 600 * ONE)
    if name == "open":
        return channel
    channel.call_margin(5, state(channel, 5), sender=PAYOUTS[1])
    d, grace = fix_time(channel.terms, DEADLINE), channel.terms.oracle.grace
    times = {
        "dispute": DEADLINE - 1,
        "judgement": DEADLINE,
        "payable": d,
        "last_call": d + 2 * grace,
        "window": d + 2 * grace,
        "window_over": d + 2 * grace,
        "abandoned": d + 180 * DAY,
        "ended": d,
    }
    world.chain.set_time(times[name])
    if name.startswith("window"):
        settle_last(channel, 3)
    if name == "window_over":
        world.chain.advance(grace)
    if name == "ended":
        channel.settle(state(channel, 5))
    return channel


def settle_last(channel, version):
    body = state(channel, version)
    channel.world.adjudicator.settle_last(channel.terms, version, body, channel.sign_state(version, body)[2])


def state_of(channel):
    """The state that record and clock say."""
    record, now = channel.record, channel.world.chain.now
    if record.phase != 2:
        return {0: "nothing", 1: "open", 3: "ended"}[record.phase]
    dispute = channel.dispute
    d, grace = fix_time(channel.terms, dispute.deadline), channel.terms.oracle.grace
    if dispute.window_end:
        return "window" if now < dispute.window_end else "window_over"
    steps = ((dispute.deadline, "dispute"), (d, "judgement"), (d + 2 * grace, "payable"), (d + 180 * DAY, "last_call"))
    return next((name for end, name in steps if now < end), "abandoned")


def call(channel, function):
    """A call with good arguments."""
    adjudicator = channel.world.adjudicator
    now, party = channel.world.chain.now, crypto.address_of(KEYS[0])
    if function == "deposit":
        channel.world.fund(channel.id, 0, 7)
        return
    if function == "deposit_with_permit":
        channel.world.token.mint(party, 7)
        channel.world.token.approve(adjudicator.address, 7, sender=party)
    shown = {"window": 4, "window_over": 3}.get(state_of(channel), 3)
    arguments = {
        "open": (channel.terms,),
        "deposit_with_permit": (channel.id, 0, 7, 0, now, 27, bytes(32), bytes(32)),
        "withdraw": channel.sign_withdrawal(6, 5, 0),
        "anchor": (channel.id, *channel.sign_state(6, state(channel, 6))),
        "challenge": (channel.id, *channel.sign_state(6, state(channel, 6))),
        "call_margin": (channel.id, *channel.sign_state(6, state(channel, 6))),
        "refute": (channel.id, *channel.sign_state(6, state(channel, 6))),
        "resume": channel.sign_resume(1),
        "test": (channel.terms, state(channel, 5), 0),
        "settle": (channel.terms, state(channel, 5)),
        "settle_last": (
            channel.terms,
            shown,
            state(channel, shown),
            channel.sign_state(shown, state(channel, shown))[2],
        ),
        "release": (channel.terms,),
        "close": channel.sign_close(6, Account(), Account()),
    }
    getattr(adjudicator, function)(*arguments[function], sender=party)


@pytest.mark.parametrize("name", STATES)
def test_every_function_does_what_the_table_says(name):
    channel = channel_in(name)
    assert (state_of(channel), channel.record.phase) == (name, STATES[name][0])
    for function, outcomes in TRANSITIONS.items():
        with channel.world.chain.anchored():
            if outcomes[name] in STATES:
                call(channel, function)
                assert state_of(channel) == outcomes[name], function
            else:
                with refused(outcomes[name]):
                    call(channel, function)
                assert state_of(channel) == name


def test_time_does_what_the_table_says():
    for source, target, _ in CLOCK:
        channel = channel_in(source)
        d, grace = fix_time(channel.terms, DEADLINE), channel.terms.oracle.grace
        ends = {"dispute": DEADLINE, "judgement": d, "payable": d + 2 * grace, "last_call": d + 180 * DAY}
        end = ends.get(source) or channel.dispute.window_end
        channel.world.chain.set_time(end - 1)
        assert state_of(channel) == source
        channel.world.chain.set_time(end)
        assert state_of(channel) == target


def test_the_table_covers_every_function_that_changes_something():
    changing = {
        name
        for name, entry in Channel(World.make(), make_terms(b"\1" * 20)).world.adjudicator.functions.items()
        if entry["stateMutability"] not in ("view", "pure")
    }
    # anchor_many is anchor without refusals; claim is of what is held, not of a channel
    assert changing == set(TRANSITIONS) | {"anchor_many", "claim"}


def test_every_state_has_an_end_that_one_party_reaches_alone():
    """From every state but nothing, calls that need no counterparty, and time, lead to ended."""
    alone = {"deposit", "challenge", "test", "settle", "settle_last", "release"}
    for start in STATES:
        reached, grown = {start}, True
        while grown:
            steps = {TRANSITIONS[f][s] for f in alone for s in reached} & set(STATES)
            steps |= {target for source, target, _ in CLOCK if source in reached}
            grown = not steps <= reached
            reached |= steps
        assert "ended" in reached or start == "nothing"


def test_the_documentation_shows_the_table():
    page = (ROOT / "docs" / "contracts.md").read_text()
    assert "```mermaid\n" + diagram() + "```" in page
    assert matrix() in page
    assert states_table() in page
