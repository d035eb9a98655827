"""`channeld init`, `run` and `deploy`: a desk's directory, its daemon, its contracts.

Rules: nothing that exists is written over: a key, a configuration, a deployment. The keystore's password comes from a
file, the environment or the keyboard, and goes nowhere else. Contracts are trusted only after chain id and code hashes
were checked.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from channeld.cli.client import DEFAULT_DATA, DataOption, api_url
from channeld.cli.errors import CommandError, UnreadableFileError
from channeld.cli.output import OUT, JsonOption, facts, note

if TYPE_CHECKING:
    from channeld.chain.deployment import Deployment
    from channeld.daemon.config import Config

PasswordFileOption = Annotated[Path | None, typer.Option(help="A file with the keystore's password on its first line.")]
KEYSTORE, DEPLOYMENT, RESTORED = "keystore.json", "deployment.json", "restored"


def settings_of(texts: list[str] | None) -> dict[str, object]:
    """Settings from SECTION.KEY=VALUE texts, as flags of the configuration.

    Raises:
        CommandError: not of that form.

    """
    settings: dict[str, object] = {}
    for text in texts or []:
        key, equals, value = text.partition("=")
        if not equals:
            message = f"{text!r} is no setting: write SECTION.KEY=VALUE, such as chain.confirmations=3"
            raise CommandError(message)
        settings[key.strip()] = value.strip()
    return settings


def create_desk(
    folder: Path, settings: dict[str, object], password: str, *, key: bytes | None = None, iterations: int | None = None
) -> tuple[str, str]:
    """Create a desk's directory, keystore and configuration; (its address, its payout address).

    iterations: the keystore's work factor; the default is the standard's, and a demo uses a small one.

    Raises:
        ChanneldError: a setting that is wrong, a keystore or configuration that is there already.

    """
    from channeld.chain.keystore import create_keystore  # noqa: PLC0415 - heavy
    from channeld.core.crypto import checksum_address  # noqa: PLC0415 - it loads the curve
    from channeld.daemon.config import annotated_sample, load  # noqa: PLC0415 - heavy

    target = folder / "channeld.toml"
    if target.exists():
        message = f"{folder} is a desk's data directory already"
        raise CommandError(message, advice="Use the desk that is there, or name another directory.")
    load(None, flags=settings, environment={})
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        message = f"{folder} cannot be created: {error.strerror}"
        raise UnreadableFileError(message, advice="Check the path and its permissions.") from None
    address = checksum_address(create_keystore(folder / KEYSTORE, password, key, iterations=iterations))
    payout = str(settings.get("desk.payout") or address)
    config = load(None, flags={**settings, "desk.payout": payout}, environment={})
    target.write_text(annotated_sample(config), encoding="utf-8")
    return address, payout


def init(
    *,
    data: DataOption = DEFAULT_DATA,
    name: Annotated[str, typer.Option(help="What peers and logs call this desk.")] = "desk",
    payout: Annotated[str | None, typer.Option(help="The cold address that receives every token.")] = None,
    chain: Annotated[str, typer.Option(envvar="CHANNELD_CHAIN", help="The chain's JSON-RPC URL.")] = (
        "http://127.0.0.1:8545"
    ),
    devnet: Annotated[
        bool, typer.Option("--devnet", help="The chain is a devnet: its clock, no confirmations.")
    ] = False,
    oracle: Annotated[str, typer.Option(envvar="CHANNELD_ORACLE", help="The oracle service's URL.")] = (
        "http://127.0.0.1:9800"
    ),
    api_port: Annotated[int, typer.Option(help="The API's port, on this machine.", min=0, max=65535)] = 9600,
    peer_port: Annotated[int, typer.Option(help="The port for peers.", min=0, max=65535)] = 9700,
    setting: Annotated[list[str] | None, typer.Option("--set", help="SECTION.KEY=VALUE; repeat it.")] = None,
    password_file: PasswordFileOption = None,
    json: JsonOption = False,
) -> None:
    """Create a desk: its directory, keystore and configuration."""
    del json
    from channeld.cli.passwords import password  # noqa: PLC0415 - only here

    settings: dict[str, object] = {
        "desk.name": name,
        "chain.urls": [chain],
        "oracle.urls": [oracle],
        "api.listen": f"127.0.0.1:{api_port}",
        "peers.listen": f"127.0.0.1:{peer_port}",
        **settings_for_devnet(devnet=devnet),
        **settings_of(setting),
    }
    if payout is not None:
        settings["desk.payout"] = payout
    folder = data.expanduser()
    address, paid_to = create_desk(folder, settings, password(password_file, confirm=True))
    told = {"data": str(folder), "name": name, "address": address, "payout": paid_to}
    OUT.emit(told, lambda: facts("desk created", told))
    if paid_to == address:
        note("the payout address is the hot key's own: on a live chain, name a cold one with --payout")


def address(
    *,
    data: DataOption = DEFAULT_DATA,
    payout: Annotated[bool, typer.Option("--payout", help="The payout address instead.")] = False,
    json: JsonOption = False,
) -> None:
    """Print the desk's address: what a peer adds, and what terms name as its signer."""
    del json
    from channeld.chain.keystore import keystore_address  # noqa: PLC0415 - heavy
    from channeld.core.crypto import checksum_address  # noqa: PLC0415 - it loads the curve
    from channeld.daemon.config import load  # noqa: PLC0415 - heavy

    config = load(data.expanduser())
    told = {
        "address": checksum_address(keystore_address(config.data_path / KEYSTORE)),
        "payout": checksum_address(config.payout_address),
    }
    OUT.emit(told, lambda: typer.echo(told["payout" if payout else "address"]))


def settings_for_devnet(*, devnet: bool) -> dict[str, object]:
    """The settings of a desk on a devnet: its clock, no confirmations, quick polls."""
    if not devnet:
        return {}
    return {
        "chain.kind": "embedded",
        "chain.clock": "devnet",
        "chain.confirmations": 0,
        "chain.poll_interval": 0.2,
    }


def run(
    *,
    data: DataOption = DEFAULT_DATA,
    setting: Annotated[list[str] | None, typer.Option("--set", help="SECTION.KEY=VALUE; repeat it.")] = None,
    password_file: PasswordFileOption = None,
    background: Annotated[bool, typer.Option("--background", help="A process of its own; return when ready.")] = False,
    restored: Annotated[
        bool, typer.Option("--restored", help="The database is an older copy: sign nothing before a recovery.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Run a desk's daemon."""
    del json
    folder = data.expanduser()
    if restored:
        # a file, and not an argument, so that it holds until the daemon has made it durable in its records
        (folder / RESTORED).touch(mode=0o600)
    if background:
        from channeld.cli import processes, services  # noqa: PLC0415 - only here

        arguments = ["run", "--data", str(folder)]
        arguments += [word for text in setting or [] for word in ("--set", text)]
        arguments += ["--password-file", str(password_file)] if password_file is not None else []
        health = api_url(folder).removesuffix("/api") + "/healthz"
        services.background("daemon", arguments, folder, processes.answers(health))
        return
    from channeld.cli.passwords import password  # noqa: PLC0415 - only here
    from channeld.daemon.config import load  # noqa: PLC0415 - heavy

    config = load(folder, flags=settings_of(setting))
    secret = password(password_file)
    asyncio.run(_checked(config))
    serve(config, secret)


def serve(config: Config, secret: str) -> None:
    """Run the daemon of a configuration until it is told to stop."""
    from channeld.daemon.main import run as run_daemon  # noqa: PLC0415 - heavy

    run_daemon(config, secret, typer.echo)


def deploy(
    *,
    data: DataOption = DEFAULT_DATA,
    adopt: Annotated[Path | None, typer.Option(help="Record the deployment in this file (the other desk's).")] = None,
    password_file: PasswordFileOption = None,
    json: JsonOption = False,
) -> None:
    """Deploy the contracts with the desk's key, or record another deployment; code and chain are checked first."""
    del json
    from channeld.chain.deployment import write_deployment  # noqa: PLC0415 - heavy
    from channeld.daemon.config import load  # noqa: PLC0415 - heavy

    folder = data.expanduser()
    config = load(folder)
    target = config.data_path / DEPLOYMENT
    if target.exists():
        message = f"{target} records a deployment already"
        raise CommandError(message, advice="Use it; or remove the file, if no channel was opened with it.")
    if adopt is not None:
        deployment = asyncio.run(_adopted(config, adopt))
    else:
        from channeld.chain.keystore import load_keystore  # noqa: PLC0415 - heavy
        from channeld.cli.passwords import password  # noqa: PLC0415 - only here

        key = load_keystore(config.data_path / KEYSTORE, password(password_file))
        deployment = asyncio.run(_deployed(config, key))
    write_deployment(target, deployment)
    told = deployment.as_data()
    shown = {name: value for name, value in told.items() if not isinstance(value, dict)}
    OUT.emit(told, lambda: facts("deployed" if adopt is None else "checked and recorded", shown))


async def _checked(config: Config) -> None:
    """Refuse to start with a deployment of another chain; a chain that is silent is the daemon's to wait for.

    Raises:
        DeploymentFileError: a deployment.json that is none.
        WrongChainIdError, CodeMismatchError: the chain is another than the deployment's, or the code there.

    """
    from channeld.chain.deployment import read_deployment, verify_deployment  # noqa: PLC0415 - heavy
    from channeld.chain.errors import CodeMismatchError, WrongChainIdError  # noqa: PLC0415 - heavy
    from channeld.chain.rpc import ChainRpc  # noqa: PLC0415 - heavy
    from channeld.core.errors import ChainError  # noqa: PLC0415 - next to its one use

    path = config.data_path / DEPLOYMENT
    if not path.exists():
        return
    deployment = read_deployment(path)
    try:
        async with ChainRpc(config.chain.urls[0]) as rpc:
            await verify_deployment(rpc, deployment)
    except (WrongChainIdError, CodeMismatchError):
        raise
    except ChainError:
        # the daemon asks again, and signs nothing before its chain has answered
        return


async def _deployed(config: Config, key: bytes) -> Deployment:
    from channeld.chain.deployment import deploy as deploy_contracts  # noqa: PLC0415 - heavy
    from channeld.chain.rpc import ChainRpc  # noqa: PLC0415 - heavy
    from channeld.chain.transactions import LocalSigner, TransactionManager  # noqa: PLC0415 - heavy

    async with ChainRpc(config.chain.urls[0]) as rpc:
        manager = TransactionManager(
            rpc, LocalSigner(key), chain_id=await rpc.chain_id(), confirmations=max(1, config.chain.confirmations)
        )
        return await deploy_contracts(manager)


async def _adopted(config: Config, file: Path) -> Deployment:
    from channeld.chain.deployment import read_deployment, verify_deployment  # noqa: PLC0415 - heavy
    from channeld.chain.rpc import ChainRpc  # noqa: PLC0415 - heavy

    deployment = read_deployment(file)
    async with ChainRpc(config.chain.urls[0]) as rpc:
        await verify_deployment(rpc, deployment)
    return deployment
