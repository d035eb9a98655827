"""Metrics of a desk, for `GET /metrics`: one object, its own registry.

Rules: names begin with channeld_, units are in the names (seconds), labels have few values: a channel is labelled by
the first eight hexadecimal digits of its id, errors by their code. Amounts of money are no metrics: they belong to the
API behind its token, and /metrics may be scraped by others.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from channeld.core.errors import ChanneldError

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
COMMIT_BUCKETS: Final = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
UPDATE_BUCKETS: Final = (0.001, 0.0015, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


def channel_label(channel: bytes) -> str:
    """The label of a channel: 0x and the first eight digits of its id."""
    return "0x" + channel.hex()[:8]


class Metrics:
    """Counters and gauges of one desk. Safe to use from any thread."""

    def __init__(self) -> None:
        """All at zero, in a registry of their own, so that several desks may live in one process."""
        self.registry = registry = CollectorRegistry()
        self.build = Gauge("channeld_build", "Constant 1, with versions", ["version", "protocol"], registry=registry)
        self.states_signed = Counter("channeld_states_signed", "States co-signed", ["channel"], registry=registry)
        self.batches_refused = Counter(
            "channeld_batches_refused",
            "Batches refused, ours or the peer's, by error code",
            ["code"],
            registry=registry,
        )
        self.trades = Counter("channeld_trades", "Trades by outcome", ["outcome"], registry=registry)
        self.channel_version = Gauge(
            "channeld_channel_version", "Newest co-signed version", ["channel"], registry=registry
        )
        self.channel_status = Gauge("channeld_channels", "Channels by status", ["status"], registry=registry)
        self.proposals_outstanding = Gauge(
            "channeld_proposals_outstanding", "Proposals without an answer", ["channel"], registry=registry
        )
        self.safe_offline_until = Gauge(
            "channeld_safe_offline_until_seconds",
            "Unix time until which being offline is safe",
            ["channel"],
            registry=registry,
        )
        self.peer_connected = Gauge("channeld_peer_connected", "1 while linked", ["peer"], registry=registry)
        self.peer_messages = Counter(
            "channeld_peer_messages", "Messages by direction (in, out)", ["peer", "direction"], registry=registry
        )
        self.commit_seconds = Histogram(
            "channeld_commit_seconds",
            "From the request of a commit until it is durable",
            buckets=COMMIT_BUCKETS,
            registry=registry,
        )
        self.update_seconds = Histogram(
            "channeld_update_seconds",
            "From a proposal until it is co-signed",
            buckets=UPDATE_BUCKETS,
            registry=registry,
        )
        self.chain_block = Gauge("channeld_chain_block", "Newest block seen", registry=registry)
        self.chain_age_seconds = Gauge("channeld_chain_age_seconds", "Age of the view of the chain", registry=registry)
        self.transactions = Counter(
            "channeld_transactions", "Transactions by function and outcome", ["function", "outcome"], registry=registry
        )
        self.oracle_age_seconds = Gauge(
            "channeld_oracle_age_seconds", "Age of the newest print of a feed", ["feed"], registry=registry
        )
        self.disputes = Counter(
            "channeld_disputes", "Disputes by step (raised, refuted, settled)", ["step"], registry=registry
        )
        self.disputes_open = Gauge("channeld_disputes_open", "Channels in dispute", registry=registry)
        self.alerts = Counter("channeld_alerts", "Alerts by kind", ["kind"], registry=registry)
        self.store_poisoned = Gauge(
            "channeld_store_poisoned", "1 when the store accepts nothing more", registry=registry
        )

    def refused(self, error: ChanneldError) -> None:
        """Count a refused batch under its error's code."""
        self.batches_refused.labels(code=str(error.code)).inc()

    def cosigned(self, channel: bytes, version: int, states: int = 1) -> None:
        """Count co-signed states, the newest of which has this version, and show it."""
        label = channel_label(channel)
        self.states_signed.labels(channel=label).inc(states)
        self.channel_version.labels(channel=label).set(version)

    def forget_channel(self, channel: bytes) -> None:
        """Drop the gauges of a channel that is closed, so that a dashboard does not show it for ever."""
        label = channel_label(channel)
        for gauge in (self.channel_version, self.proposals_outstanding, self.safe_offline_until):
            with contextlib.suppress(KeyError):
                gauge.remove(label)

    @contextlib.contextmanager
    def committing(self) -> Iterator[None]:
        """Measure a commit that succeeds."""
        started = time.perf_counter()
        yield
        self.commit_seconds.observe(time.perf_counter() - started)

    def exposition(self) -> bytes:
        """The text of `GET /metrics`; its content type is CONTENT_TYPE."""
        return generate_latest(self.registry)
