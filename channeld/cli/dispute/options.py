"""The options of commands that send transactions, declared once; and what they come to.

Rules: a key is opened only when something is to be signed. Who pays for gas need not be a party of the channel, but
for challenges and margin calls, which take the party's signing or payout address.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from channeld.cli.errors import CommandError
from channeld.cli.forms import check_address
from channeld.core.wad import parse_decimal

if TYPE_CHECKING:
    from collections.abc import Callable

    from channeld.core.bundle import Bundle

RpcOption = Annotated[
    list[str] | None,
    typer.Option("--rpc", envvar="CHANNELD_RPC", help="A JSON-RPC endpoint; repeat it, and they are compared."),
]
OracleOption = Annotated[
    list[str] | None,
    typer.Option("--oracle", envvar="CHANNELD_ORACLE", help="An oracle service to fetch packages from; repeat it."),
]
PackagesOption = Annotated[
    Path | None, typer.Option("--packages", help="A folder of packages, where fetched ones are kept too.")
]
BundleArgument = Annotated[Path, typer.Argument(help="The bundle file.", dir_okay=False)]


@dataclass(frozen=True, slots=True)
class How:
    """What the options say about sending."""

    rpc: list[str] | None
    oracle: list[str] | None
    packages: Path | None
    keystore: Path | None
    password_file: Path | None
    signer: str | None
    sender: str | None
    unsigned: bool
    dry_run: bool
    max_fee: str | None
    confirmations: int
    yes: bool

    @property
    def most(self) -> int | None:
        """--max-fee in wei."""
        return None if self.max_fee is None else parse_decimal(self.max_fee)

    def address(self, bundle: Bundle) -> bytes:
        """Whose transactions they are: --from, else the keystore's, else the party's signer or payout address.

        Raises:
            CommandError: --from is no address.
            SetupError: the keystore cannot be read.

        """
        party = bundle.terms.party(bundle.side)
        if self.sender in (None, "") and self.keystore is not None:
            from channeld.chain.keystore import keystore_address  # noqa: PLC0415 - only where there is one

            return keystore_address(self.keystore)
        if self.sender in (None, ""):
            return party.signer if self.signer else party.payout
        if self.sender in ("signer", "payout"):
            return party.signer if self.sender == "signer" else party.payout
        check_address(str(self.sender), "--from")
        return bytes.fromhex(str(self.sender)[2:])


_KINDS: dict[str, tuple[Any, Any]] = {
    "rpc": (RpcOption, None),
    "oracle": (OracleOption, None),
    "packages": (PackagesOption, None),
    "keystore": (
        Annotated[Path | None, typer.Option(help="Sign with the key of this keystore.", dir_okay=False)],
        None,
    ),
    "password_file": (
        Annotated[Path | None, typer.Option(help="Its password; else CHANNELD_PASSWORD, else asked.")],
        None,
    ),
    "signer": (Annotated[str | None, typer.Option(help="Sign by a Web3Signer at this URL.")], None),
    "sender": (
        Annotated[str | None, typer.Option("--from", help="Send from: signer, payout, or an address.")],
        None,
    ),
    "unsigned": (
        Annotated[bool, typer.Option("--unsigned", help="Print transactions to sign elsewhere; send none.")],
        False,
    ),
    "dry_run": (Annotated[bool, typer.Option("--dry-run", help="Simulate and show the cost; sign nothing.")], False),
    "max_fee": (
        Annotated[str | None, typer.Option(help="The most one transaction may cost, in native currency (ETH).")],
        None,
    ),
    "confirmations": (Annotated[int, typer.Option(min=1, help="Blocks that must hold a transaction.")], 1),
    "yes": (Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before sending.")], False),
}
assert [one.name for one in fields(How)] == list(_KINDS)  # noqa: S101 - one list, written twice


def sends(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of How, and call it with `how` instead of them."""
    own = inspect.signature(command, eval_str=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    given = [parameter for parameter in own.parameters.values() if parameter.name != "how"]
    added = [
        inspect.Parameter(name, keyword, default=default, annotation=kind) for name, (kind, default) in _KINDS.items()
    ]

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:  # noqa: ANN401 - whatever the options are
        how = How(**{name: values.pop(name) for name in _KINDS})
        command(**values, how=how)

    parameters = [*given, *added]
    wrapper.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": None}
    return wrapper


def need_rpc(urls: list[str] | None) -> list[str]:
    """The endpoints.

    Raises:
        CommandError: none is named.

    """
    if not urls:
        message = "no JSON-RPC endpoint is named"
        raise CommandError(message, advice="Give --rpc URL, once or more, or set CHANNELD_RPC.")
    return urls
