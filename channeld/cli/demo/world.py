"""The demo's world: a devnet, an oracle service and two desks, each a process of its own.

Rules: the demo talks to the daemons by their API and to the devnet by its clock, as any program could; it shares no
state with them. Each desk has its own keystore, database and port. Everything that is waited for has a condition and a
limit. Amounts travel as decimal strings.
"""

from __future__ import annotations

import datetime as dt
import json
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from channeld.cli import setup, terms_file
from channeld.cli.client import DeskClient, DevnetClient
from channeld.cli.errors import RemoteError, ServiceError, UnreachableError
from channeld.cli.processes import Cast, Child, answers, free_port
from channeld.cli.services import oracle_request
from channeld.core.crypto import address_of, checksum_address
from channeld.core.wad import format_decimal, parse_decimal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from channeld.cli.demo.timeline import Timeline
    from channeld.core.terms import Terms

START = int(dt.datetime(2030, 12, 25, 14, 0, tzinfo=dt.UTC).timestamp())
DECIMALS = 6
SYMBOL = "USDC"
DEPOSIT = "250000"
HOUR = 3600
PATIENCE_S = 45.0
PATH: tuple[tuple[float, str, str], ...] = (
    # hours from the start, ETH, BTC
    (-48, "3000", "95000"),
    (0, "3000", "95000"),
    (6, "3042.50", "95820"),
    (12, "3018.25", "95210"),
    (18, "3071", "96480"),
    (24, "3096.40", "96950"),
    (30, "3064.75", "96300"),
    (36, "3101.30", "97120"),
    (42, "3127.80", "97655.50"),
    (48, "3110", "97300"),
    (60, "3155.20", "98110"),
    (72, "3178", "98460"),
    (96, "3120", "97800"),
    (400, "3240", "99900"),
)


@dataclass
class Desk:
    """A desk of the demo: its daemon's process, and a client of its API."""

    name: str
    folder: Path
    password: str
    api_port: int
    peer_port: int
    address: str = ""
    payout: str = ""
    child: Child | None = None
    client: DeskClient = field(default_factory=lambda: DeskClient("http://127.0.0.1:1"))

    @property
    def base(self) -> str:
        """Where its API listens."""
        return f"http://127.0.0.1:{self.api_port}"

    def call(self, method: str, *, timeout: float = 60.0, **params: Any) -> Any:  # noqa: ANN401 - any JSON value
        """A method of its API; raises as DeskClient.call."""
        return self.client.call(method, timeout=timeout, **params)


class World:
    """Everything the demo runs. `setup` builds it up; scenarios act in it."""

    def __init__(self, cast: Cast, directory: Path, chain: str) -> None:
        """Nothing is started yet. chain: embedded, anvil, or a development node's URL."""
        self.cast = cast
        self.directory = directory
        self.chain = chain
        self.devnet_port = free_port()
        self.devnet = DevnetClient(f"http://127.0.0.1:{self.devnet_port}")
        self.oracle = f"http://127.0.0.1:{free_port()}"
        self.maker = self._desk("maker")
        self.taker = self._desk("taker")
        self.token = ""
        self.channel = ""
        self.terms: Terms | None = None
        self.start = START
        self._offset_ms = 0
        self.path = PATH
        self.special: dict[str, dict[str, object]] = {}
        self.oracle_child: Child | None = None

    def _desk(self, name: str) -> Desk:
        return Desk(name, self.directory / name, secrets.token_hex(16), free_port(), free_port())

    @property
    def desks(self) -> tuple[Desk, Desk]:
        """Maker, who is a and orders, and taker, who is b."""
        return self.maker, self.taker

    # -- time ----------------------------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """The devnet's time as last learnt, in milliseconds."""
        return int(time.time() * 1000) + self._offset_ms

    def _learn(self, clock: dict[str, Any]) -> None:
        self._offset_ms = int(clock["offset_ms"])

    def hour(self, hours: float) -> int:
        """The Unix second so many hours after the demo's start."""
        return self.start + round(hours * HOUR)

    def day(self, days: int) -> int:
        """08:00 UTC, so many days after the day of the start."""
        return self.start - self.start % 86_400 + days * 86_400 + 8 * HOUR

    def advance_to(self, second: int, desks: tuple[Desk, ...] | None = None) -> None:
        """Advance the devnet to a time, and wait until the daemons' clocks and views of the chain are there.

        Raises:
            ServiceError: a daemon does not follow in time.

        """
        if second * 1000 > self.now_ms():
            self._learn(self.devnet.set_time(second))
        for desk in self.desks if desks is None else desks:
            self.wait(lambda desk=desk: self._there(desk, second), f"{desk.name}'s clock")  # type: ignore[misc]

    @staticmethod
    def _there(desk: Desk, second: int) -> bool:
        told = desk.call("public/time")
        chain_time = int(told.get("chain_time") or 0)
        chain_second = chain_time // 1000 if chain_time > 10**11 else chain_time
        return int(told["time_ms"]) >= second * 1000 and chain_second >= second - 1

    def wait(self, done: Callable[[], Any], what: str, patience: float = PATIENCE_S) -> Any:  # noqa: ANN401 - of `done`
        """Wait until `done` gives something true; that.

        Raises:
            ServiceError: not in time; naming what was waited for.

        """
        end = time.monotonic() + patience
        last = ""
        while True:
            try:
                result = done()
                if result:
                    return result
            except (RemoteError, UnreachableError) as error:
                last = f" ({error})"
            dead = [child for child in self.cast.children if not child.alive and child is not self.killed]
            if dead:
                message = f"{dead[0].name} ended by itself; its log {dead[0].log} ends:\n{dead[0].tail()}"
                raise ServiceError(message)
            if time.monotonic() > end:
                message = f"{what} did not come within {patience:.0f} s{last}; logs are in {self.directory}"
                raise ServiceError(message, advice="Run it again with --keep DIR, and read the logs there.")
            time.sleep(0.03)

    killed: Child | None = None

    # -- building up ---------------------------------------------------------------------------------------------------

    def start_chain(self) -> None:
        """Start the devnet: embedded, anvil, or in front of a development node, and learn its time."""
        arguments = ["devnet", "--port", str(self.devnet_port)]
        if self.chain in ("embedded", "anvil"):
            arguments += ["--backend", self.chain, "--start-time", str(START - 60)]
        else:
            arguments += ["--backend", "url", "--url", self.chain]
        child = self.cast.start("devnet", arguments)
        child.wait_ready(answers(self.devnet.url + "/healthz"))
        self._learn(self.devnet.clock())
        if self.chain not in ("embedded", "anvil"):
            now = self.now_ms() // 1000
            self.start = now - now % 86_400 + 86_400 + 14 * HOUR
        self._learn(self.devnet.set_time(self.start))

    def start_oracle(self) -> Child:
        """Start the oracle service on the demo's path of prices; three signers, a tick of ten seconds."""
        path = self.directory / "prices.json"
        points = [
            [self.hour(hours), feed, price]
            for hours, ether, bitcoin in self.path
            for feed, price in (("ETH", ether), ("BTC", bitcoin))
        ]
        path.write_text(json.dumps({"interpolation": "linear", "points": points}), encoding="utf-8")
        port = self.oracle.rsplit(":", 1)[1]
        arguments = ["oracle", "serve", "--port", port, "--path", str(path), "--devnet", "--chain", self.devnet.url]
        self.oracle_child = self.cast.start("oracle", arguments)
        return self.oracle_child

    def create_desks(self, **settings: object) -> None:
        """Create both desks' directories: keystores, configurations, cold payout addresses."""
        for desk in self.desks:
            desk.payout = checksum_address(address_of(secrets.token_bytes(32)))
            desk.address, _ = setup.create_desk(
                desk.folder,
                {
                    **setup.settings_for_devnet(devnet=True),
                    "desk.name": desk.name,
                    "desk.payout": desk.payout,
                    "chain.urls": [self.devnet.url],
                    "oracle.urls": [self.oracle],
                    "api.listen": f"127.0.0.1:{desk.api_port}",
                    "peers.listen": f"127.0.0.1:{desk.peer_port}",
                    **settings,
                    **self.special.get(desk.name, {}),
                },
                desk.password,
                iterations=4096,
            )

    def deploy(self) -> None:
        """Deploy the token and the contracts; give both desks tokens and gas."""
        from channeld.chain.deployment import write_deployment  # noqa: PLC0415 - heavy
        from channeld.cli import devtools  # noqa: PLC0415 - heavy

        self.token = devtools.deploy_token(self.devnet.url, SYMBOL, DECIMALS)
        deployment = devtools.deploy_contracts(self.devnet.url)
        for desk in self.desks:
            self.devnet.call("channeld_faucet", desk.address, hex(10**20))
            devtools.mint(self.devnet.url, self.token, desk.address, DEPOSIT)
            write_deployment(desk.folder / setup.DEPLOYMENT, deployment)

    def start_desk(self, desk: Desk) -> None:
        """Start a desk's daemon; `ready` waits for it."""
        desk.child = self.cast.start(
            desk.name, ["run", "--data", str(desk.folder)], environment={"CHANNELD_PASSWORD": desk.password}
        )

    def ready(self, desk: Desk) -> None:
        """Wait until a desk's daemon answers, and take its token."""
        if desk.child is not None:
            desk.child.wait_ready(answers(desk.base + "/healthz"))
        token = (desk.folder / "api.token").read_text(encoding="ascii").strip()
        desk.client = DeskClient(desk.base + "/api", token=token)

    def write_terms(self) -> dict[str, Any]:
        """The channel's terms, from the tight template, with the oracle's signers; as JSON data."""
        from channeld.core.files import terms_to_json  # noqa: PLC0415 - heavy

        path = self.directory / "terms.toml"
        text = terms_file.write(
            template="tight",
            a=f"{self.maker.address}/{self.maker.payout}",
            b=f"{self.taker.address}/{self.taker.payout}",
            collateral=self.token,
            decimals=DECIMALS,
            oracle_signers=oracle_request(self.oracle, "/signers")["signers"],
            quorum=2,
        )
        terms_file.save(path, text)
        self.terms = terms_file.read(path)
        return terms_to_json(self.terms)

    # -- what desks see ------------------------------------------------------------------------------------------------

    def see(self, desk: Desk | None = None) -> dict[str, Any]:
        """The channel as a desk's daemon shows it; the maker's, where none is named."""
        shown: dict[str, Any] = (desk or self.maker).call("private/channel", channel=self.channel)
        return shown

    def cash(self, shown: dict[str, Any] | None = None) -> tuple[str, str]:
        """Balances of maker and taker, decimal strings, from the body that a desk shows."""
        body = (shown or self.see())["body"]
        return tuple(format_decimal(int(body[side]["balance"]), DECIMALS) for side in "ab")  # type: ignore[return-value]

    def agreed(self, version: int) -> dict[str, Any]:
        """Wait until both desks have co-signed this version or a later one; the channel as the maker shows it."""

        def both() -> dict[str, Any] | None:
            shown = [self.see(desk) for desk in self.desks]
            return shown[0] if min(int(one["version"]) for one in shown) >= version else None

        result: dict[str, Any] = self.wait(both, f"version {version} at both desks")
        return result

    def mark(self, second: int, timeline: Timeline) -> tuple[dict[str, Any], dict[str, Any]]:
        """Advance to a time and have the channel marked there; the channel before and after."""
        before = self.see()
        with timeline.waiting("the day goes on"):
            self.advance_to(second)

            def marked() -> dict[str, Any] | None:
                shown = self.see()
                if int(shown["body"]["asOf"]) >= second:
                    return shown
                self.maker.call("private/mark", channel=self.channel)
                return None

            shown = self.wait(marked, "the mark")
            return before, self.agreed(int(shown["version"]))


def units(amount: str) -> int:
    """A decimal string of the demo's collateral in its units."""
    return parse_decimal(amount, DECIMALS)
