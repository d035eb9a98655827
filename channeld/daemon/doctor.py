"""The doctor: what would hurt this desk on a bad day, looked at on a good one.

Rules: a finding names what was looked at, how it stands, and what to do; it changes nothing. Levels: "ok", "warning"
(soon a problem), "critical" (money is at risk, or the desk cannot defend itself), "unknown" (could not be looked at).
Without a running daemon what can be seen from outside is looked at all the same. Times are seconds unless named.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

from channeld.chain.contracts import Phase
from channeld.chain.endpoints import ChainEndpoints
from channeld.core.errors import ChainError
from channeld.core.settlement import fix_time
from channeld.core.terms import feed_symbol
from channeld.core.wad import format_decimal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from channeld.daemon.actor import Actor
    from channeld.daemon.config import Config
    from channeld.daemon.node import Node

OK, WARNING, CRITICAL, UNKNOWN = "ok", "warning", "critical", "unknown"
SLOW_SYNC_MS = 20.0
BAD_SYNC_MS = 200.0
LOW_DISK_BYTES = 1 << 30
OLD_HEAD_S = 120
SKEW_S = 2
SOON_S = 3_600
BUNDLE_OLD_S = 600
BACKUP_NOTE, BACKUP_OLD_S = "last-backup.json", 2 * 86_400
_UNSYNCHRONISED = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. advice is empty where all is well."""

    check: str
    level: str
    found: str
    advice: str = ""

    def as_data(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def worst(findings: Iterable[Finding]) -> str:
    """The worst level among findings."""
    order = (OK, UNKNOWN, WARNING, CRITICAL)
    return max((finding.level for finding in findings), key=order.index, default=OK)


async def examine(node: Node) -> list[Finding]:
    """Everything about a desk whose daemon runs."""
    config, now_ms = node.config, node.clock.now_ms()
    live = config.chain.kind == "live"
    held = await asyncio.gather(
        endpoints(config.chain.urls, config.chain.request_timeout, now_ms // 1000 if live else None),
        asyncio.to_thread(disk, node.data),
    )
    findings = [*([clock()] if live else []), *(finding for group in held for finding in group)]
    findings.append(_view(node))
    findings.append(_reserve(node))
    findings += _oracle(node, now_ms)
    findings += _towers(node)
    findings += _bundles(node)
    findings.append(backup(node.data, live=live))
    for actor in node.actors.values():
        if actor.record.status != "closed":
            findings += _channel(node, actor, now_ms)
    return findings


async def examine_from_outside(config: Config) -> list[Finding]:
    """What can be seen of a desk whose daemon does not run."""
    live = config.chain.kind == "live"
    data = config.data_path
    held = await asyncio.gather(
        endpoints(config.chain.urls, config.chain.request_timeout, int(time.time()) if live else None),
        asyncio.to_thread(disk, data),
        services(config.oracle.urls, config.oracle.request_timeout),
    )
    advice = "Start it with `channeld run`: nobody defends this desk's channels now, but its watchtowers."
    findings = [Finding("daemon", CRITICAL, "does not run", advice)]
    findings += [*([clock()] if live else []), *(finding for group in held for finding in group)]
    for name in ("keystore.json", "deployment.json"):
        path = data / name
        there = path.is_file()
        findings.append(Finding(name, OK if there else CRITICAL, str(path) if there else f"{path} is missing"))
    return findings


# --- the machine ----------------------------------------------------------------------------------------------


def clock() -> Finding:
    """Whether the kernel says that its clock is synchronised."""
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    except (OSError, AttributeError):
        state = -1
    if state < 0:
        return Finding("clock", UNKNOWN, "this system does not say whether its clock is synchronised")
    if state == _UNSYNCHRONISED:
        advice = "Run chrony or systemd-timesyncd: peers reject batches more than two seconds from their own clock."
        return Finding("clock", WARNING, "the kernel's clock is not synchronised", advice)
    return Finding("clock", OK, "synchronised")


def disk(folder: Path) -> list[Finding]:
    """How long a sync takes, and how much room is left."""
    try:
        took = sorted(_sync_once(folder) for _ in range(5))
        free = shutil.disk_usage(folder).free
    except OSError as error:
        advice = "The desk cannot sign without writing there."
        return [Finding("disk", CRITICAL, f"{folder} cannot be written: {error.strerror or error}", advice)]
    median_ms = statistics.median(took) * 1000
    level = CRITICAL if median_ms > BAD_SYNC_MS else WARNING if median_ms > SLOW_SYNC_MS else OK
    advice = "" if level == OK else "Every signature waits for a sync: use a local disk with power-loss protection."
    room = f"{free / (1 << 30):.1f} GiB free"
    full = Finding("disk space", WARNING, room, "Make room: a full disk freezes the desk.")
    return [
        Finding("disk sync", level, f"{median_ms:.2f} ms", advice),
        full if free < LOW_DISK_BYTES else Finding("disk space", OK, room),
    ]


def _sync_once(folder: Path) -> float:
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(os.urandom(4096))
        file.flush()
        began = time.perf_counter()
        os.fsync(file.fileno())
        return time.perf_counter() - began


# --- the chain ------------------------------------------------------------------------------------------------


async def endpoints(urls: Sequence[str], timeout_s: float, now: int | None) -> list[Finding]:
    """Each endpoint: whether it answers, how fast, how far behind, and what the comparison says."""
    async with ChainEndpoints(urls, timeout_s=timeout_s, attempts=1) as client:
        began = time.perf_counter()
        try:
            await client.compare(now, force=True)
        except ChainError as error:
            advice = "The desk sees no chain: it signs nothing and defends nothing. Correct chain.urls, or the node."
            return [Finding("rpc", CRITICAL, str(error), advice)]
        took_ms = (time.perf_counter() - began) * 1000
        findings = []
        for endpoint in client.endpoints:
            where = f"rpc {_host(endpoint.url)}"
            if endpoint.trouble:
                findings.append(Finding(where, WARNING, endpoint.trouble, "It is set aside; mend or replace it."))
                continue
            found = f"block {endpoint.head}, answers in {took_ms:.0f} ms"
            age = 0 if now is None else now - endpoint.time
            if age > OLD_HEAD_S:
                findings.append(
                    Finding(where, CRITICAL, f"{found}, {age} s old", "The node does not follow the chain.")
                )
            elif age < -SKEW_S - 12:
                advice = "This machine's clock is behind: synchronise it."
                findings.append(Finding(where, WARNING, f"{found}, {-age} s ahead of our clock", advice))
            else:
                findings.append(Finding(where, OK, found))
        if client.disagreement:
            findings.append(Finding("rpc", CRITICAL, client.disagreement, "Nothing new is signed until they agree."))
        elif len(urls) == 1:
            advice = "Name two more of other providers under chain.urls: it takes three to tell which one lies."
            findings.append(Finding("rpc endpoints", WARNING if now is not None else OK, "only one", advice))
        return findings


def _host(url: str) -> str:
    """A URL without credentials and keys in its path."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.split('/')[0].rpartition('@')[2]}"


def _view(node: Node) -> Finding:
    why = node.chain_trouble or (node.chain.stale() if node.chain.ready else "no contracts yet")
    if why:
        return Finding("chain view", CRITICAL, why, "While the view is not fresh nothing is signed.")
    return Finding("chain view", OK, f"block {node.chain.view['block']}, {node.chain.age_s():.1f} s old")


def _reserve(node: Node) -> Finding:
    reserve = node.chain.reserve
    if not reserve.wei:
        return Finding("gas reserve", WARNING, "gas.reserve is 0", "Set it: a desk without gas cannot defend itself.")
    if reserve.held is None:
        return Finding("gas reserve", UNKNOWN, "not looked at yet")
    found = f"{format_decimal(reserve.held, places=4)} of {format_decimal(reserve.wei, places=4)}"
    if reserve.why:
        return Finding("gas reserve", CRITICAL, found, "Send native currency to the signing address.")
    if reserve.held < 2 * reserve.wei:
        return Finding("gas reserve", WARNING, found, "It is nearly at the reserve: fill it before it gates trading.")
    return Finding("gas reserve", OK, found)


# --- the oracle -----------------------------------------------------------------------------------------------


async def services(urls: Sequence[str], timeout_s: float) -> list[Finding]:
    """Whether each oracle service answers."""
    findings = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as session:
        for url in urls:
            where = f"oracle {_host(url)}"
            try:
                async with session.get(url.rstrip("/") + "/signers") as response:
                    level = OK if response.status == 200 else WARNING
                    findings.append(Finding(where, level, f"HTTP status {response.status}"))
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                why = str(error) or type(error).__name__
                findings.append(Finding(where, WARNING, f"does not answer: {why}", "Correct oracle.urls, or start it."))
    return findings


def _oracle(node: Node, now_ms: int) -> list[Finding]:
    findings, stale_after = [], node.config.oracle.stale_after
    books = {id(actor.book): actor.book for actor in node.actors.values() if actor.record.status != "closed"}
    for book in books.values():
        for feed, printed in sorted(book.printed.items()):
            age = now_ms / 1000 - printed
            name = f"oracle {feed_symbol(feed)}"
            if age > stale_after:
                advice = "No marks and no new risk without prints: check oracle.urls and the signers."
                findings.append(Finding(name, WARNING, f"the newest print is {age:.0f} s old", advice))
            else:
                findings.append(Finding(name, OK, f"printed {max(age, 0):.0f} s ago"))
    return findings


# --- what stands in for us ------------------------------------------------------------------------------------


def _towers(node: Node) -> list[Finding]:
    rows = node.towers.data()
    if not rows:
        found, advice = "none", "Without one this desk must not be away longer than the challenge period."
        return [Finding("watchtower", WARNING if node.config.chain.kind == "live" else OK, found, advice)]
    findings = []
    for row in rows:
        behind = [one["channel"][:10] for one in row["channels"] if not one["current"]]
        if row["trouble"] or behind:
            found = row["trouble"] or f"not current for {', '.join(behind)}"
            findings.append(Finding(f"watchtower {row['tower']}", WARNING, str(found), "See `channeld tower status`."))
        else:
            findings.append(Finding(f"watchtower {row['tower']}", OK, f"current, {row['age_s']} s ago"))
    return findings


def backup(data: Path, *, live: bool) -> Finding:
    """How old the last backup is that `channeld backup create` made of this directory, by its own note."""
    name, advice = "backup", "Run `channeld backup create` from a timer, to another disk or site."
    try:
        created_ms = int(json.loads((data / BACKUP_NOTE).read_text(encoding="utf-8"))["created_ms"])
    except FileNotFoundError:
        return Finding(name, WARNING if live else OK, "none was made", advice)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Finding(name, WARNING, f"its note cannot be read: {type(error).__name__}", advice)
    age_s = time.time() - created_ms / 1000
    level = WARNING if age_s > BACKUP_OLD_S else OK
    return Finding(name, level, f"made {age_s / 3600:.1f} hours ago", advice if level == WARNING else "")


def _bundles(node: Node) -> list[Finding]:
    if not node.config.bundle.folder:
        advice = "Set bundle.folder to another disk or machine: with a bundle no daemon is needed to be paid."
        return [Finding("bundles", WARNING if node.config.chain.kind == "live" else OK, "not exported", advice)]
    folder, findings = node.data / node.config.bundle.folder, []
    for actor in node.actors.values():
        if actor.record.status == "closed":
            continue
        path = folder / f"0x{actor.id.hex()}.bundle.json"
        name = f"bundle of 0x{actor.id.hex()[:8]}"
        age: float | None = None
        with contextlib.suppress(OSError):
            age = time.time() - path.stat().st_mtime
        if age is None:
            findings.append(Finding(name, WARNING, f"{path} is missing", "See the alerts: the export fails."))
        elif node.bundles is not None and node.bundles.pending(actor.id):
            level = WARNING if age > BUNDLE_OLD_S else OK
            findings.append(Finding(name, level, f"written {age:.0f} s ago, and a newer state waits"))
        else:
            findings.append(Finding(name, OK, f"up to date, written {age:.0f} s ago"))
    return findings


# --- channels -------------------------------------------------------------------------------------------------


def _channel(node: Node, actor: Actor, now_ms: int) -> list[Finding]:
    name, now = f"channel 0x{actor.id.hex()[:8]} with {node.name(actor.peer)}", now_ms // 1000
    known = node.chain.known.get(actor.id)
    findings = []
    if known is not None and known.phase is Phase.DISPUTED and known.dispute is not None:
        deadline, terms = known.dispute.deadline, actor.channel.terms
        at = fix_time(terms, deadline)
        if now < deadline:
            older = known.dispute.version < actor.state.version
            level = CRITICAL if older or deadline - now < SOON_S else WARNING
            found = (
                f"disputed with version {known.dispute.version}, ours is {actor.state.version}; {deadline - now} s left"
            )
            findings.append(Finding(name, level, found, "See `channeld dispute status`; the daemon acts by itself."))
        else:
            found = f"disputed; the fix is of {at}, it settles by {at + terms.oracle.grace} at the latest"
            findings.append(Finding(name, WARNING, found, "Keep the oracle and gas at hand until it is paid."))
    elif actor.channel.frozen:
        findings.append(Finding(name, CRITICAL, f"frozen: {actor.channel.frozen}", "See `channeld status`."))
    elif not actor.channel.connected:
        gone_s = (now_ms - node.lost_at_ms.get(actor.peer, now_ms)) // 1000
        findings.append(Finding(name, WARNING, f"the peer has been away for {gone_s} s", "Call them."))
    else:
        findings.append(Finding(name, OK, f"{actor.record.status}, version {actor.state.version}"))
    return findings
