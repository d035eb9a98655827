"""What MARKs are made of beside prices: the desk's own surfaces, the follower's bands, and the path of premiums.

Rules: a surface is durable before it is used. A follower tells its bands at each session and when they have moved; it
signs by those it told last as well as by the present ones, since the sequencer may not have heard the newest. A carry
by index is the average over the seconds since the last MARK, and stays as agreed where those were not all seen.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from channeld.core import records, wire
from channeld.core.channel import waiting_for
from channeld.core.instruments import instrument_name, parse_feed, parse_instrument
from channeld.core.state import MAX_VOL, MIN_VOL, Instrument, Kind
from channeld.core.terms import feed_symbol
from channeld.core.wad import WAD, format_decimal, parse_decimal
from channeld.desk.bands import Bands, pack_bands, unpack_bands
from channeld.desk.funding import DEFAULT_CAP, Path, annual, premium
from channeld.desk.marks import Surface, bands_of
from channeld.desk.smiles import SurfaceError, read_carry, read_smiles

if TYPE_CHECKING:
    from channeld.daemon.actor import Actor
    from channeld.daemon.node import Node

SURFACE = "surface"
LOOK_MS = 1_000
TELL_MOVE = WAD // 200
MOST_TOLD = 3
MOST_ROWS = 256


class MarkDesk:
    """The surfaces, bands and paths of one node's channels."""

    def __init__(self, node: Node) -> None:
        """Nothing is known before `load`."""
        self._node = node
        self.raw: dict[bytes, dict[str, Any]] = {}
        self._funding: dict[bytes, dict[bytes, tuple[bytes, bytes, int]]] = {}
        self._paths: dict[tuple[bytes, bytes], Path] = {}
        self._base: dict[bytes, Surface] = {}
        self._told: dict[bytes, list[Bands]] = {}
        self._looked_ms: dict[bytes, int] = {}

    async def load(self, actor: Actor) -> None:
        """Give an actor the surface that was set for its channel."""
        raw = await self._node.store.document(SURFACE, actor.id.hex())
        if raw is not None:
            self._use(actor, json.loads(raw))

    # ------------------------------------------------------------------------------------------------- surfaces

    def surface_of(self, actor: Actor) -> dict[str, Any]:
        """The surface of a channel in the form in which it is set."""
        return self.raw.get(actor.id, {"vols": {}, "carries": {}, "smiles": [], "funding": []})

    async def set_surface(self, actor: Actor, data: dict[str, Any], *, whole: bool) -> None:
        """Set a channel's surface: all of it, or only what is named.

        Raises:
            SurfaceError, InstrumentNameError, MalformedNumberError: what is wrong; nothing changed.
        """
        held = {} if whole else self.surface_of(actor)
        merged = {
            "vols": {**held.get("vols", {}), **_rows(data.get("vols", {}), "vols")},
            "carries": {**held.get("carries", {}), **_rows(data.get("carries", {}), "carries")},
            "smiles": data["smiles"] if "smiles" in data else held.get("smiles", []),
            "funding": data["funding"] if "funding" in data else held.get("funding", []),
        }
        if unknown := data.keys() - merged.keys():
            raise SurfaceError(f"a surface has no {min(unknown)!r}")
        surface_from(merged), funding_from(merged["funding"])
        value = json.dumps(merged).encode()
        await self._node.store.commit([records.PutDocument(SURFACE, actor.id.hex(), value)])
        self._use(actor, merged)

    def _use(self, actor: Actor, data: dict[str, Any]) -> None:
        self.raw[actor.id] = data
        actor.surface = actor.own.surface = self._base[actor.id] = surface_from(data)
        self._funding[actor.id] = funding_from(data["funding"])

    # ------------------------------------------------------------------------------------------------- looking

    async def look(self, actor: Actor, now_ms: int) -> None:
        """Once a second: see premiums, and as the follower tell our bands where they have moved."""
        last = self._looked_ms.get(actor.id, 0)
        if last <= now_ms < last + LOOK_MS:
            return
        self._looked_ms[actor.id] = now_ms
        for index in self._funding.get(actor.id, {}).values():
            await self._see(actor, index, now_ms)
        channel = actor.channel
        if channel.sequencer:
            self._carries(actor, now_ms)
            return
        present = self.bands(actor, now_ms)
        told = self._told.setdefault(actor.id, [])
        actor.bands = (present, *told)
        if not waiting_for(channel) and actor.state.body.positions and (not told or _moved(told[0], present)):
            told.insert(0, present)
            del told[MOST_TOLD:]
            await self._node.send(actor.peer, wire.MarkBands(actor.id, pack_bands(present)))

    def bands(self, actor: Actor, now_ms: int) -> Bands:
        """Our bands now, as the follower."""
        policy = actor.policy
        return bands_of(
            actor.state.body,
            actor.surface,
            actor.book.spots,
            now_ms // 1000,
            vol_band=policy.vol_band,
            carry_band=policy.carry_band,
        )

    def session(self, actor: Actor) -> None:
        """At a new session: bands are told again, and the peer's are forgotten until they are."""
        self._told[actor.id] = []
        actor.peer_bands = None

    async def received(self, actor: Actor, message: wire.MarkBands) -> None:
        """The follower's bands.

        Raises:
            BadBandsError: they are none; the session ends.
        """
        bands = unpack_bands(message.bands)
        if actor.channel.sequencer:
            actor.peer_bands = bands

    # ------------------------------------------------------------------------------------------------- funding

    async def _see(self, actor: Actor, feeds: tuple[bytes, bytes, int], now_ms: int) -> None:
        mark, index, _ = feeds
        for feed in (mark, index):
            await actor.book.refresh(feed, now_ms)
        printed, spots = actor.book.printed, actor.book.spots
        if mark in spots and index in spots and printed[mark] == printed[index]:
            self._paths.setdefault((mark, index), Path()).add(printed[mark], premium(spots[mark], spots[index]))

    def _carries(self, actor: Actor, now_ms: int) -> None:
        """(sequencer) The carry of each perpetual by its path since the last MARK."""
        if not self._funding.get(actor.id):
            return
        found: dict[tuple[bytes, int], int] = {}
        for feed, (mark, index, cap) in self._funding.get(actor.id, {}).items():
            path = self._paths.get((mark, index))
            begin = actor.state.body.as_of
            if path is None or not begin:
                continue
            rate = path.rate(begin, actor.book.latest_tick(now_ms), cap)
            if rate is not None:
                found[feed, 0] = annual(rate)
        # what is not found stays as it was agreed: the last average is not carried on
        set_by_hand = {key: value for key, value in self._base[actor.id].carries.items() if key not in found}
        actor.surface = replace(self._base[actor.id], carries={**set_by_hand, **found})
        actor.own.surface = actor.surface


def _moved(before: Bands, now: Bands) -> bool:
    """Whether bands are of other positions, or an edge has moved enough to be worth telling."""
    if (before.vols.keys(), before.carries.keys()) != (now.vols.keys(), now.carries.keys()):
        return True
    if (before.vol_band, before.carry_band) != (now.vol_band, now.carry_band):
        return True
    edges = [(before.vols[key], ends) for key, ends in now.vols.items()]
    edges += [(before.carries[key], ends) for key, ends in now.carries.items()]
    return any(abs(a - b) >= TELL_MOVE for old, new in edges for a, b in zip(old, new, strict=True))


def _rows(data: object, name: str) -> dict[str, str]:
    """{instrument: decimal text}."""
    if not isinstance(data, dict) or len(data) > MOST_ROWS or not all(isinstance(v, str) for v in data.values()):
        raise SurfaceError(f"{name} must map at most {MOST_ROWS} instruments to decimal texts")
    return {instrument_name(parse_instrument(str(key))): value for key, value in data.items()}


def surface_from(data: dict[str, Any]) -> Surface:
    """A surface from its JSON: {vols: {instrument: vol}, carries: {instrument: carry}, smiles: [...], funding: [...]}.

    Raises:
        SurfaceError, InstrumentNameError, MalformedNumberError: what is wrong.
    """
    vols, carries = {}, {}
    for name, text in data["vols"].items():
        i = parse_instrument(name)
        vol = parse_decimal(text)
        if not i.is_option or not MIN_VOL <= vol <= MAX_VOL:
            bounds = f"{format_decimal(MIN_VOL)}..{format_decimal(MAX_VOL)}"
            raise SurfaceError(f"a vol is an option's, and lies in {bounds}")
        vols[i.feed, i.expiry, i.strike] = vol
    for name, text in data["carries"].items():
        i = parse_instrument(name)
        carries[i.feed, i.expiry] = read_carry(text)
    return Surface(vols, carries, read_smiles(data["smiles"]))


def funding_from(rows: object) -> dict[bytes, tuple[bytes, bytes, int]]:
    """Funding by index: perpetual's feed to (mark feed, index feed, cap per eight hours as a wad), from its JSON.

    Raises:
        SurfaceError, MalformedNumberError: what is wrong.
    """
    if not isinstance(rows, list) or len(rows) > MOST_ROWS:
        raise SurfaceError("funding must be a list")
    found: dict[bytes, tuple[bytes, bytes, int]] = {}
    for row in rows:
        if not isinstance(row, dict) or not {"perpetual", "mark", "index"} <= row.keys() <= {
            *("perpetual", "mark", "index", "cap")
        }:
            raise SurfaceError("funding needs perpetual, mark and index, and may have a cap")
        instrument = parse_instrument(str(row["perpetual"]))
        if instrument.kind != Kind.PERPETUAL:
            raise SurfaceError(f"{row['perpetual']} is no perpetual")
        cap = parse_decimal(str(row["cap"])) if "cap" in row else DEFAULT_CAP
        if not 0 < cap <= WAD:
            raise SurfaceError("a cap must be positive, and at most 1 in eight hours")
        found[instrument.feed] = (parse_feed(str(row["mark"])), parse_feed(str(row["index"])), cap)
    return found


def surface_rows(actor: Actor) -> list[dict[str, Any]]:
    """For people: agreed, own, and both desks' bands of every position of the book."""
    rows = []
    spots = actor.book.spots
    for p in actor.state.body.positions:
        i: Instrument = p.instrument
        own = actor.surface.vol(i, spots.get(i.feed), p.carry, actor.services.clock.now_ms() // 1000)
        carry = actor.surface.carry(i)
        row: dict[str, Any] = {"instrument": instrument_name(i), "feed": feed_symbol(i.feed)}
        row |= {"carry": format_decimal(p.carry), "own_carry": None if carry is None else format_decimal(carry)}
        row |= {
            "vol": format_decimal(p.vol) if i.is_option else None,
            "own_vol": None if own is None else format_decimal(own, places=6),
        }
        bands = actor.peer_bands if actor.channel.sequencer else next(iter(actor.bands), None)
        low, high = (bands or Bands()).vol_range(p)
        ends = [format_decimal(max(low, MIN_VOL)), format_decimal(min(high, MAX_VOL))]
        row["vol_band"] = ends if i.is_option else None
        rows.append(row)
    return rows
