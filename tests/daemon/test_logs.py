"""Logs and metrics: what is on a line, what never is, and what a scrape shows."""

import io
import json
import logging

import pytest
import structlog

from channeld.core.errors import InvalidStateError
from channeld.daemon.logs import LogFileError, error_fields, get_logger, is_secret_name, setup, working_on
from channeld.daemon.metrics import Metrics, channel_label

CHANNEL = bytes(range(32))
KEY = "11223344556677889900aabbccddeeff"


@pytest.fixture(autouse=True)
def restored():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    setup(stream=io.StringIO())
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def lines():
    stream = io.StringIO()
    setup("debug", "json", stream=stream, fields={"desk": "maker"})
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_time_level_event_and_fields(lines):
    get_logger("channeld.test").info("state co-signed", positions=3, digest=b"\1\2")
    (line,) = lines()
    assert line["event"] == "state co-signed"
    assert line["level"] == "info"
    assert line["logger"] == "channeld.test"
    assert line["desk"] == "maker"
    assert line["positions"] == 3
    assert line["digest"] == "0x0102"
    assert line["time"].endswith("Z")


def test_channel_and_version_stand_on_every_line_inside(lines):
    log = get_logger()
    with working_on(channel=CHANNEL, version=7, peer="taker"):
        log.info("one")
        logging.getLogger("some.library").warning("two %s", "words")
        with working_on(version=8):
            log.info("three")
    log.info("four")
    one, two, three, four = lines()
    assert one["channel"] == two["channel"] == "0x" + CHANNEL.hex()
    assert (one["version"], two["version"], three["version"]) == (7, 7, 8)
    assert two["event"] == "two words"
    assert three["peer"] == "taker"
    assert "channel" not in four
    assert "version" not in four


SECRETS = [
    {"private_key": KEY},
    {"privateKey": KEY},
    {"password": KEY},
    {"keystore_password": KEY},
    {"api_token": KEY},
    {"tokens": [KEY]},
    {"headers": {"Authorization": f"Bearer {KEY}"}},
    {"nested": [{"deep": {"seed": KEY}}]},
    {"text": f"got Authorization: Bearer {KEY}"},
    {"url": f"https://user:{KEY}@node.example/path"},
    {"url": f"https://node.example/path?x=1&api_key={KEY}"},
    {"static_key": bytes.fromhex(KEY)},
]


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize("fields", SECRETS)
def test_secrets_are_never_written(style, fields):
    stream = io.StringIO()
    setup("debug", style, stream=stream)
    get_logger().warning("an event", **fields)
    logging.getLogger("some.library").warning("an event", extra=fields)
    assert len(stream.getvalue().splitlines()) == 2
    assert KEY not in stream.getvalue()
    assert "(secret)" in stream.getvalue()


@pytest.mark.parametrize("style", ["json", "console"])
def test_tracebacks_show_no_local_variables(style):
    stream = io.StringIO()
    setup("debug", style, stream=stream)

    def signing():
        local = KEY[:16] + KEY[16:]
        return 1 // len(local[:0])

    try:
        signing()
    except ZeroDivisionError:
        get_logger().exception("a fault")
    assert "ZeroDivisionError" in stream.getvalue()
    assert "signing" in stream.getvalue()
    assert KEY not in stream.getvalue()


@pytest.mark.parametrize("name", ["channel", "digest", "signature", "key", "monkey", "peer", "keys", "tokenizer"])
def test_what_is_no_secret_is_written(name):
    assert not is_secret_name(name)


def test_typed_errors_are_data(lines):
    error = InvalidStateError("a balance is negative", side=1)
    get_logger().error("batch refused", **error_fields(error), raw=error)
    (line,) = lines()
    assert (line["code"], line["error"], line["reason"]) == (2001, "InvalidStateError", "a balance is negative")
    assert line["raw"]["details"] == {"side": 1}
    assert error_fields(KeyError("x"))["error"] == "KeyError"


def test_the_level_is_kept(lines):
    setup("warning", "json", stream=(stream := io.StringIO()))
    get_logger().info("quiet")
    get_logger().warning("loud")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["loud"]
    assert lines() == []


def test_long_bytes_are_cut(lines):
    get_logger().info("frame", raw=bytes(1000))
    assert lines()[0]["raw"].endswith("... (1000 bytes)")


def test_a_file_is_appended_to_and_a_bad_one_refused(tmp_path):
    path = tmp_path / "desk.log"
    path.write_text("before\n")
    setup(style="json", file=path)
    get_logger().info("after")
    setup(stream=io.StringIO())
    before, after = path.read_text().splitlines()
    assert before == "before"
    assert json.loads(after)["event"] == "after"
    with pytest.raises(LogFileError, match="Is a directory"):
        setup(file=tmp_path)


def test_a_stream_that_fails_loses_lines_and_nothing_else():
    class Full(io.StringIO):
        def write(self, _text):
            raise OSError(28, "No space left on device")

    setup(stream=Full())
    get_logger().info("lost")


# --- metrics ---


def test_a_scrape_shows_what_happened():
    metrics = Metrics()
    metrics.cosigned(CHANNEL, 41)
    metrics.cosigned(CHANNEL, 42)
    metrics.refused(InvalidStateError("no"))
    metrics.peer_connected.labels(peer="taker").set(1)
    metrics.oracle_age_seconds.labels(feed="ETH").set(3.5)
    metrics.chain_block.set(17)
    metrics.alerts.labels(kind="peer_lost").inc()
    metrics.disputes.labels(step="raised").inc()
    with metrics.committing():
        pass
    text = metrics.exposition().decode()
    label = channel_label(CHANNEL)
    assert label == "0x00010203"
    for line in (
        f'channeld_states_signed_total{{channel="{label}"}} 2.0',
        f'channeld_channel_version{{channel="{label}"}} 42.0',
        'channeld_batches_refused_total{code="2001"} 1.0',
        'channeld_peer_connected{peer="taker"} 1.0',
        'channeld_oracle_age_seconds{feed="ETH"} 3.5',
        "channeld_chain_block 17.0",
        'channeld_alerts_total{kind="peer_lost"} 1.0',
        'channeld_disputes_total{step="raised"} 1.0',
        "channeld_commit_seconds_count 1.0",
    ):
        assert line in text, line
    metrics.forget_channel(CHANNEL)
    metrics.forget_channel(CHANNEL)
    assert "channeld_channel_version{" not in metrics.exposition().decode()


def test_two_desks_in_one_process_count_apart():
    first, second = Metrics(), Metrics()
    first.chain_block.set(1)
    assert "channeld_chain_block 0.0" in second.exposition().decode()


def test_a_commit_that_fails_is_not_measured():
    metrics = Metrics()
    with pytest.raises(KeyError), metrics.committing():
        raise KeyError
    assert "channeld_commit_seconds_count 0.0" in metrics.exposition().decode()
