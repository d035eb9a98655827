"""Commands that start something which stays: the devnet and the oracle service; and what one asks of them.

Rules: a service runs in the foreground until it is told to stop (SIGINT, SIGTERM), or with --background as a process of
its own that says where its log and process id are, once it answers. It prints one line when it is ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import json as jsonlib
import signal
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from channeld.cli.client import DevnetClient, fetch
from channeld.cli.errors import CommandError, RemoteError, ServiceError
from channeld.cli.forms import check_address
from channeld.cli.output import OUT, JsonOption, note
from channeld.core.wad import parse_decimal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

DEVNET_URL = "http://127.0.0.1:8545"
ORACLE_URL = "http://127.0.0.1:9800"
BackgroundOption = Annotated[bool, typer.Option("--background", help="Run as a process of its own; return when ready.")]
ChainOption = Annotated[str, typer.Option("--chain", envvar="CHANNELD_CHAIN", help="The devnet's URL.")]
OracleOption = Annotated[str, typer.Option("--oracle", envvar="CHANNELD_ORACLE", help="The oracle service's URL.")]

devnet_app = typer.Typer(invoke_without_command=True, help="Run a development chain with a clock that can be advanced.")
oracle_app = typer.Typer(no_args_is_help=True, help="Sign prices, set them on a devnet, read packages.")


async def until_told(service: AbstractAsyncContextManager[Any], ready: Callable[[], str]) -> None:
    """Run a service until SIGINT or SIGTERM; say that it is ready."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # a platform without signals for loops
            loop.add_signal_handler(number, stop.set)
    async with service:
        if OUT.machine:
            typer.echo(jsonlib.dumps({"ready": ready()}))
        else:
            typer.echo(ready())
        await stop.wait()


def background(name: str, arguments: Sequence[str], folder: Path, ready: Callable[[], bool]) -> None:
    """Start channeld with arguments as a process of its own, wait until it is ready, and say where it is.

    Raises:
        ServiceError: it answers already, ended, or did not become ready.

    """
    from channeld.cli import processes  # noqa: PLC0415 - only here

    if ready():
        message = f"{name} runs already: something answers at its address"
        raise ServiceError(message, advice="Stop it first, or choose another port.")
    child = processes.start(name, arguments, folder / f"{name}.log", tied=False)
    try:
        child.wait_ready(ready)
    except ServiceError:
        child.kill()
        raise
    pid = folder / f"{name}.pid"
    pid.write_text(f"{child.process.pid}\n", encoding="ascii")
    told = {"name": name, "pid": child.process.pid, "log": str(child.log), "pid_file": str(pid)}
    OUT.emit(told, lambda: typer.echo(f"{name} runs: process {child.process.pid}, log {child.log}"))
    # it goes on without us: not ours to wait for
    child.process.returncode = 0


@devnet_app.callback()
def devnet(
    context: typer.Context,
    *,
    port: Annotated[int, typer.Option(help="The port to listen on.", min=0, max=65535)] = 8545,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    backend: Annotated[str, typer.Option(help="embedded (py-evm), anvil, or url (a node at --url).")] = "embedded",
    url: Annotated[str | None, typer.Option(help="The development node, for --backend url.")] = None,
    chain_id: Annotated[int | None, typer.Option(help="Default 31337.")] = None,
    start_time: Annotated[int | None, typer.Option(help="Begin at this time, Unix seconds; default now.")] = None,
    background_: BackgroundOption = False,
    json: JsonOption = False,
) -> None:
    """Run a development chain with a clock that can be advanced."""
    if context.invoked_subcommand is not None:
        return
    if backend not in ("embedded", "anvil", "url"):
        message = f"{backend!r} is no backend"
        raise CommandError(message, advice="The backends are embedded, anvil and url.")
    if background_:
        from channeld.cli.processes import answers  # noqa: PLC0415 - only here

        if not port:
            message = "a devnet in the background needs a port"
            raise CommandError(message, advice="Give one with --port.")
        arguments = ["devnet", "--port", str(port), "--host", host, "--backend", backend]
        for name, value in (("--url", url), ("--chain-id", chain_id), ("--start-time", start_time)):
            arguments += [name, str(value)] if value is not None else []
        background("devnet", arguments, Path(), answers(f"http://{host}:{port}/healthz"))
        return
    del json
    from channeld.chain.devnet import Devnet  # noqa: PLC0415 - heavy

    chain = Devnet(
        backend,  # type: ignore[arg-type]  # checked above
        host=host,
        port=port,
        chain_id=chain_id,
        start_time=start_time,
        url=url,
    )
    asyncio.run(until_told(chain, lambda: f"devnet ready at {chain.url}"))


@devnet_app.command()
def clock(*, chain: ChainOption = DEVNET_URL, json: JsonOption = False) -> None:
    """Show the devnet's clock."""
    del json
    _show_clock(DevnetClient(chain).clock())


@devnet_app.command()
def advance(
    seconds: Annotated[int, typer.Argument(help="How far.", min=0)],
    *,
    chain: ChainOption = DEVNET_URL,
    json: JsonOption = False,
) -> None:
    """Advance the clock of every process on the devnet."""
    del json
    _show_clock(DevnetClient(chain).advance(seconds))


@devnet_app.command()
def faucet(
    address: Annotated[str, typer.Argument(help="Who receives it.")],
    amount: Annotated[str, typer.Argument(help="Native currency, such as 10.")] = "10",
    *,
    chain: ChainOption = DEVNET_URL,
    json: JsonOption = False,
) -> None:
    """Give an address native currency, to pay for transactions."""
    del json
    check_address(address, "address")
    wei = parse_decimal(amount)
    DevnetClient(chain).call("channeld_faucet", address, hex(wei))
    OUT.emit({"address": address, "wei": str(wei)}, lambda: typer.echo(f"{address} received {amount}"))


@devnet_app.command()
def token(
    name: Annotated[str, typer.Argument(help="Its symbol.")] = "USDC",
    *,
    decimals: Annotated[int, typer.Option(help="Its decimals.", min=0, max=18)] = 6,
    chain: ChainOption = DEVNET_URL,
    json: JsonOption = False,
) -> None:
    """Deploy a token that anybody can mint, as collateral for trials."""
    del json
    from channeld.cli import devtools  # noqa: PLC0415 - heavy

    address = devtools.deploy_token(chain, name, decimals)
    OUT.emit({"token": address, "symbol": name, "decimals": decimals}, lambda: typer.echo(address))


@devnet_app.command()
def mint(
    token_: Annotated[str, typer.Argument(metavar="TOKEN", help="The token's address.")],
    address: Annotated[str, typer.Argument(help="Who receives it.")],
    amount: Annotated[str, typer.Argument(help="How much, in the token.")],
    *,
    chain: ChainOption = DEVNET_URL,
    json: JsonOption = False,
) -> None:
    """Mint tokens of a trial token to an address."""
    del json
    check_address(token_, "token")
    check_address(address, "address")
    parse_decimal(amount)
    from channeld.cli import devtools  # noqa: PLC0415 - heavy

    balance = devtools.mint(chain, token_, address, amount)
    told = {"token": token_, "address": address, "balance": balance}
    OUT.emit(told, lambda: typer.echo(f"{address} holds {balance}"))


@devnet_app.command()
def balance(
    token_: Annotated[str, typer.Argument(metavar="TOKEN", help="The token's address.")],
    address: Annotated[str, typer.Argument(help="Whose balance.")],
    *,
    chain: ChainOption = DEVNET_URL,
    json: JsonOption = False,
) -> None:
    """Show what an address holds of a token."""
    del json
    check_address(token_, "token")
    check_address(address, "address")
    from channeld.cli import devtools  # noqa: PLC0415 - heavy

    held = devtools.balance(chain, token_, address)
    OUT.emit({"token": token_, "address": address, "balance": held}, lambda: typer.echo(held))


def _show_clock(told: dict[str, Any]) -> None:
    from channeld.cli.trading import clock as shown  # noqa: PLC0415 - it is small, but not needed to start

    OUT.emit(told, lambda: typer.echo(f"{shown(told['time_ms'])} UTC ({told['time_ms']} ms)"))


def _prices(texts: Sequence[str] | None) -> dict[bytes, int]:
    """Start prices from FEED=PRICE texts, 8 decimals."""
    from channeld.core.terms import feed_id  # noqa: PLC0415 - small, next to its use
    from channeld.oracle.sources import parse_price  # noqa: PLC0415 - heavy

    prices = {}
    for text in texts or []:
        symbol, equals, number = text.partition("=")
        if not equals:
            message = f"{text!r} is no price: write FEED=NUMBER, such as ETH=3000"
            raise CommandError(message)
        prices[feed_id(symbol)] = parse_price(number)
    return prices


@oracle_app.command()
def serve(
    *,
    port: Annotated[int, typer.Option(help="The port to listen on.", min=0, max=65535)] = 9800,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    price: Annotated[list[str] | None, typer.Option(help="Set by hand: FEED=PRICE to start with; repeat it.")] = None,
    synthetic: Annotated[list[str] | None, typer.Option(help="A made-up path from FEED=PRICE; repeat it.")] = None,
    path: Annotated[Path | None, typer.Option(help="A path from a file: CSV time,feed,price, or JSON.")] = None,
    minutes: Annotated[Path | None, typer.Option(help="A replay of one-minute bars, for --feed.")] = None,
    feed: Annotated[str, typer.Option(help="The feed of --minutes.")] = "ETH",
    begin_at: Annotated[int | None, typer.Option(help="When --minutes begins, Unix seconds.")] = None,
    keys: Annotated[Path | None, typer.Option(help="A directory of keystores, one for each signer.")] = None,
    password_file: Annotated[Path | None, typer.Option(help="A file with the keystores' password.")] = None,
    devnet_: Annotated[bool, typer.Option("--devnet", help="Derive keys that are worth nothing; take prices.")] = False,
    signers: Annotated[int, typer.Option(help="How many, with --devnet.")] = 3,
    tick: Annotated[int, typer.Option(help="Prices exist at multiples of so many seconds.", min=1)] = 10,
    chain: Annotated[str | None, typer.Option(envvar="CHANNELD_CHAIN", help="A devnet whose clock to follow.")] = None,
    background_: BackgroundOption = False,
    json: JsonOption = False,
) -> None:
    """Sign prices as RedStone packages, on every tick, over HTTP."""
    del json
    chosen = [bool(price), bool(synthetic), path is not None, minutes is not None]
    if sum(chosen) != 1:
        message = "an oracle needs one source of prices"
        raise CommandError(message, advice="Give --price, --synthetic, --path or --minutes.")
    if background_:
        from channeld.cli.processes import answers  # noqa: PLC0415 - only here

        arguments = ["oracle", "serve", "--port", str(port), "--host", host, "--tick", str(tick), "--feed", feed]
        arguments += [word for text in price or [] for word in ("--price", text)]
        arguments += [word for text in synthetic or [] for word in ("--synthetic", text)]
        arguments += ["--devnet", "--signers", str(signers)] if devnet_ else []
        named = {
            "--path": path,
            "--minutes": minutes,
            "--begin-at": begin_at,
            "--keys": keys,
            "--password-file": password_file,
            "--chain": chain,
        }
        arguments += [word for name, value in named.items() if value is not None for word in (name, str(value))]
        background("oracle", arguments, Path(), answers(f"http://{host}:{port}/healthz"))
        return
    from channeld.core.terms import feed_id  # noqa: PLC0415 - small, next to its use
    from channeld.oracle import service as oracle_service  # noqa: PLC0415 - heavy
    from channeld.oracle import sources  # noqa: PLC0415 - heavy

    source: sources.PriceSource
    if price:
        source = sources.ManualSource(_prices(price))
    elif synthetic:
        source = sources.SyntheticSource(_prices(synthetic))
    elif path is not None:
        source = sources.read_path(path)
    else:
        source = sources.read_minutes(minutes or Path(), feed_id(feed), begin_at=begin_at)
    if not devnet_ and keys is None:
        message = "an oracle needs keys to sign with"
        raise CommandError(message, advice="Give --keys DIR; or --devnet, for keys that are worth nothing.")
    signing = oracle_service.signer_keys(
        devnet=devnet_, count=signers, directory=keys, open_keystore=lambda file: _open_keystore(file, password_file)
    )
    asyncio.run(_serve_oracle(signing, source, tick=tick, devnet=devnet_, chain=chain, address=(host, port)))


def _open_keystore(file: Path, password_file: Path | None) -> bytes:
    from channeld.chain.keystore import load_keystore  # noqa: PLC0415 - heavy
    from channeld.cli.passwords import password  # noqa: PLC0415 - next to its use

    return load_keystore(file, password(password_file))


async def _serve_oracle(
    keys: list[bytes],
    source: Any,  # noqa: ANN401 - a PriceSource, whose module is heavy
    *,
    tick: int,
    devnet: bool,
    chain: str | None,
    address: tuple[str, int],
) -> None:
    from channeld.chain.clock import DevnetClock, SystemClock  # noqa: PLC0415 - heavy
    from channeld.oracle.service import OracleService, Serving  # noqa: PLC0415 - heavy

    async with contextlib.AsyncExitStack() as stack:
        clock_ = await stack.enter_async_context(DevnetClock(chain)) if chain else SystemClock()
        serving = Serving(OracleService(keys, source, clock_, tick=tick, devnet=devnet), *address)
        try:
            await until_told(serving, lambda: f"oracle ready at {serving.url}, {len(keys)} signers, tick {tick} s")
        except OSError as error:
            message = f"the oracle cannot listen on {address[0]}:{address[1]}: {error.strerror or error}"
            raise ServiceError(message, advice="Choose another port, or stop what listens there.") from None


def oracle_request(url: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request to an oracle service; its answer.

    Raises:
        UnreachableError: nothing answers.
        RemoteError: the service refused.

    """
    status, raw = fetch(
        url.rstrip("/") + path,
        body=jsonlib.dumps(body).encode() if body is not None else None,
        what="oracle service",
        advice="Start one with `channeld oracle serve`, or correct --oracle.",
    )
    try:
        answer = jsonlib.loads(raw)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        message = f"what answers at {url} is no oracle service (HTTP status {status})"
        raise ServiceError(message, advice="Correct --oracle.")
    told = answer.get("error")
    if isinstance(told, dict):
        raise RemoteError(int(told.get("code") or 4000), str(told.get("message")), told)
    return answer


@oracle_app.command("set")
def set_(
    feed: Annotated[str, typer.Argument(help="Such as ETH.")],
    price: Annotated[str, typer.Argument(help="From the next second on, or from --at on.")],
    at: Annotated[int | None, typer.Option(help="Unix seconds.")] = None,
    *,
    oracle: OracleOption = ORACLE_URL,
    json: JsonOption = False,
) -> None:
    """Set a price of a devnet's oracle (one that was started with --devnet and --price)."""
    del json
    parse_decimal(price, 8)
    body: dict[str, Any] = {"feed": feed, "price": price}
    result = oracle_request(oracle, "/price", body if at is None else {**body, "time": at})
    OUT.emit(result, lambda: typer.echo(f"{result['feed']} is {result['price']} from {result['time']} on"))


@oracle_app.command("signers")
def signers_(*, oracle: OracleOption = ORACLE_URL, json: JsonOption = False) -> None:
    """List the signers of an oracle service, as terms name them."""
    del json
    result = oracle_request(oracle, "/signers")

    def draw() -> None:
        for signer in result["signers"]:
            typer.echo(signer)

    OUT.emit(result, draw)


@oracle_app.command()
def latest(
    feed: Annotated[str, typer.Argument(help="Such as ETH.")],
    *,
    oracle: OracleOption = ORACLE_URL,
    json: JsonOption = False,
) -> None:
    """Show the last tick's packages of a feed: signers, prices, the median."""
    del json
    from channeld.cli import pure, render  # noqa: PLC0415 - only here

    result = oracle_request(oracle, "/latest?" + urllib.parse.urlencode({"feed": feed}))
    decoded = pure.describe(bytes.fromhex("".join(str(one).removeprefix("0x") for one in result["packages"])))
    OUT.emit(decoded, lambda: render.packages(decoded))


@oracle_app.command()
def decode(
    file: Annotated[Path, typer.Argument(help="A RedStone payload, or signed packages; binary or hexadecimal.")],
    *,
    terms: Annotated[
        Path | None, typer.Option(help="A terms file: only packages by its oracle's signers are good.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Print the packages in a file: points, recovered signers, medians, errors; exit 14 where one is not good."""
    del json
    from channeld.cli import pure, render  # noqa: PLC0415 - only here

    result = pure.decode_file(file, terms)
    OUT.emit(result, lambda: render.packages(result))
    wrong = pure.faults(result)
    if wrong:
        note(f"error: {wrong[0]['message']}" + (f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""))
        note(f"what to do: {wrong[0]['advice']}")
    if wrong or not result["packages"]:
        raise typer.Exit(14)
