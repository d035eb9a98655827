"""Alerts arrive: by a real server that fails first, by a real program; the severest first; nothing waits for ever."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import sys

import pytest
from aiohttp import web
from desk_world import two_desks
from hypothesis import given
from hypothesis import strategies as st

from channeld.daemon.alerting import (
    MOST_TRIES,
    MOST_WAITING,
    SEVERITIES,
    AlertDeliveryError,
    Alerting,
    Command,
    Queue,
    Webhook,
)
from channeld.daemon.operator_settings import AlertSettings

SECRET = "s3cr3tpath"
ALERT = {"severity": "critical", "message": "the peer is silent", "desk": "maker", "time_ms": 7}


@contextlib.asynccontextmanager
async def receiver(*statuses):
    """A server that answers with these statuses, then 200; what it was sent."""
    heard, left = [], list(statuses)

    async def post(request):
        heard.append(await request.json())
        return web.Response(status=left.pop(0) if left else 200)

    app = web.Application()
    app.router.add_post(f"/{SECRET}", post)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/{SECRET}", heard
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def working(queue):
    """A queue at work; the pauses that it asked for, of which none is waited for."""
    task = asyncio.create_task(queue.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def settled(queue, delivered, dropped=0):
    async with asyncio.timeout(60):
        while (queue.delivered, queue.dropped) != (delivered, dropped):  # noqa: ASYNC110 - another task works
            await asyncio.sleep(0.001)


def impatient(pauses):
    async def pause(seconds):
        pauses.append(seconds)
        await asyncio.sleep(0)

    return pause


async def test_a_webhook_that_fails_is_tried_again_with_growing_pauses():
    pauses = []
    async with receiver(500, 503, 429) as (url, heard):
        queue = Queue(Webhook(url, 30), "warning", impatient(pauses))
        async with working(queue):
            queue.offer({"severity": "info", "message": "nobody is woken for this"})
            queue.offer(dict(ALERT))
            await settled(queue, 1)
    assert pauses == [1, 2, 4]
    assert len(heard) == 4
    assert heard[-1] == {"text": "[critical] maker: the peer is silent", **ALERT}
    assert queue.data()["trouble"] == ""


async def test_what_is_refused_for_good_is_not_tried_again_and_what_never_answers_is_given_up():
    pauses = []
    async with receiver(404) as (url, heard):
        queue = Queue(Webhook(url, 30), "info", impatient(pauses))
        async with working(queue):
            queue.offer(dict(ALERT))
            await settled(queue, 0, 1)
            assert (len(heard), pauses) == (1, [])
            assert queue.data()["trouble"] == "webhook 127.0.0.1 answers 404"
            queue.offer(dict(ALERT))
            await settled(queue, 1, 1)
    # nobody listens there any more
    gone = Queue(Webhook(url, 30), "info", impatient(pauses))
    async with working(gone):
        gone.offer(dict(ALERT))
        await settled(gone, 0, 1)
    assert len(pauses) == MOST_TRIES
    assert max(pauses) <= 60
    # the URL is a secret
    assert SECRET not in json.dumps(gone.data()) + json.dumps(queue.data())


async def test_a_command_gets_the_alert_and_none_of_our_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("CHANNELD_PASSWORD", SECRET)
    got = tmp_path / "got.json"
    script = "import json, os, sys\nseen = [json.load(sys.stdin), sorted(os.environ), sys.argv[1:]]\n"
    script += f"with open({str(got)!r}, 'w') as file: json.dump(seen, file)"
    line = shlex.join([sys.executable, "-c", script, "; echo $HOME"])
    await Command(line, 60).bring(ALERT)
    alert, names, words = json.loads(got.read_text())
    assert (alert, words) == (ALERT, ["; echo $HOME"])
    assert not [name for name in names if name.startswith("CHANNELD_")]
    with pytest.raises(AlertDeliveryError, match="status 3"):
        await Command(shlex.join([sys.executable, "-c", "raise SystemExit(3)"]), 60).bring(ALERT)
    with pytest.raises(AlertDeliveryError, match="cannot be started"):
        await Command(str(tmp_path / "nothing"), 60).bring(ALERT)
    with pytest.raises(AlertDeliveryError, match="did not end"):
        await Command(shlex.join([sys.executable, "-c", "while True: pass"]), 0.2).bring(ALERT)


@given(st.lists(st.sampled_from([*SEVERITIES, None]), max_size=2 * MOST_WAITING))
def test_a_full_queue_drops_the_least_severe_and_the_oldest_of_them(severities):
    queue = Queue(None, "info")
    for number, severity in enumerate(severities):
        queue.offer({"severity": severity, "number": number})
    assert len(queue.waiting) == min(len(severities), MOST_WAITING)
    assert queue.dropped == len(severities) - len(queue.waiting)
    kept = sum(alert["severity"] == "critical" for alert in queue.waiting)
    # the newest is always taken in; beyond that a critical one goes only where nothing else is left
    assert kept >= min(severities.count("critical"), MOST_WAITING - 1)
    numbers = [alert["number"] for alert in queue.waiting]
    assert numbers == sorted(numbers)


async def test_the_severest_goes_first():
    async with receiver() as (url, heard):
        queue = Queue(Webhook(url, 30), "info")
        for severity in ("info", "warning", "critical", "warning", "critical"):
            queue.offer({**ALERT, "severity": severity})
        async with working(queue):
            await settled(queue, 5)
    assert [one["severity"] for one in heard] == ["critical", "critical", "warning", "warning", "info"]


@pytest.mark.parametrize("bad", [{"webhook": "ftp://x"}, {"webhook": "http://["}, {"command": "'"}, {"command": " "}])
def test_what_can_bring_nothing_is_refused_at_the_start(bad):
    with pytest.raises(AlertDeliveryError):
        Alerting(AlertSettings(**bad), "desk", lambda: 0)


async def test_a_desk_s_alerts_arrive_and_can_be_tested(tmp_path):
    async with receiver() as (url, heard), two_desks(tmp_path, alerts__webhook=url) as world:
        maker = world.maker
        (told,) = await maker.call("alerts_test", severity="critical")
        assert told["outcome"] == "delivered"
        assert (heard[0]["test"], heard[0]["desk"]) == (True, "maker")
        (told,) = await maker.call("alerts_test", severity="info")
        assert told["outcome"] == "not severe enough"
        await maker.node.emit("alert", None, severity="critical", message="something is wrong")
        await maker.until(lambda: any(one["message"] == "something is wrong" for one in heard), "the alert")
        shown = await maker.call("alerts")
        assert shown["alerts"][-1]["message"] == "something is wrong"
        await maker.until(lambda: maker.node.alerting.data()[0]["delivered"] >= 1, "the word that it arrived")
        assert SECRET not in json.dumps([await maker.call("alerts"), await maker.call("status")], default=str)
