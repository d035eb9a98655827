"""Commands that need no daemon and no network: hash, value, margin of a file, decode. Files in, figures out.

Rules: everything here is arithmetic of the core on what a file or the command line says; exact where it is money,
decimal strings wherever it is shown. The file formats are described in docs/files.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from channeld.cli.errors import CommandError, UnreadableFileError
from channeld.cli.forms import check_address, read_bytes, read_json
from channeld.cli.output import OUT, JsonOption, facts
from channeld.core.wad import WAD, format_decimal, parse_decimal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from channeld.core.eip712 import Domain
    from channeld.core.state import Body
    from channeld.core.terms import Terms

hash_app = typer.Typer(no_args_is_help=True, help="Print hashes and digests of terms, bodies and states in JSON files.")
NEGATIVE = {"ignore_unknown_options": True}
MAX_PAYLOAD = 16 << 20
_GREEKS = ("delta", "gamma", "vega", "theta", "rho", "vanna", "volga")

FileArgument = Annotated[Path, typer.Argument(help="A JSON file; see docs/files.md.")]
ChainIdOption = Annotated[int | None, typer.Option(help="The domain's chain id, where the file names none.")]
AdjudicatorOption = Annotated[str | None, typer.Option(help="The Adjudicator, where the file names none.")]
DeploymentOption = Annotated[Path | None, typer.Option(help="A deployment.json, for the domain.")]
TypedDataOption = Annotated[bool, typer.Option("--typed-data", help="Print the EIP-712 JSON a wallet would sign.")]


def domain_of(
    data: dict[str, Any], chain_id: int | None, adjudicator: str | None, deployment: Path | None = None
) -> Domain | None:
    """The domain that options, a deployment or a file's `domain` name; None where none does.

    Raises:
        UnreadableFileError: a domain that is no {chainId, verifyingContract}.

    """
    from channeld.core.eip712 import Domain  # noqa: PLC0415 - it loads the curve

    told = read_json(deployment) if deployment is not None else data.get("domain")
    if told is not None and not isinstance(told, dict):
        message = "domain must be an object with chainId and verifyingContract"
        raise UnreadableFileError(message)
    told = told or {}
    identifier = chain_id if chain_id is not None else told.get("chainId", told.get("chain_id"))
    contract = adjudicator if adjudicator is not None else told.get("verifyingContract", told.get("adjudicator"))
    if identifier is None and contract is None:
        return None
    if identifier is None or contract is None:
        message = "a domain needs both a chain id and an Adjudicator"
        raise UnreadableFileError(message, advice="Give --chain-id and --adjudicator, or both in the file's domain.")
    check_address(str(contract), "domain.verifyingContract")
    return Domain(_whole(identifier, "domain.chainId"), bytes.fromhex(str(contract)[2:]))


def _whole(value: object, where: str) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 78:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    message = f"{where} must be a whole number, not {value!r}"
    raise UnreadableFileError(message)


def _needed(domain: Domain | None, what: str) -> Domain:
    if domain is None:
        message = f"{what} needs a domain: chain id and Adjudicator"
        raise CommandError(message, advice="Give --chain-id and --adjudicator, or a domain in the file.")
    return domain


def _hex(raw: bytes) -> str:
    return "0x" + raw.hex()


def _print_typed(data: dict[str, Any]) -> None:
    import json  # noqa: PLC0415 - next to its one use

    typer.echo(json.dumps(data, indent=2))


@hash_app.command("terms")
def hash_terms(
    file: FileArgument,
    *,
    typed_data: TypedDataOption = False,
    identifier: Annotated[bool, typer.Option("--id", help="Print the channel id alone.")] = False,
    chain_id: ChainIdOption = None,
    adjudicator: AdjudicatorOption = None,
    deployment: DeploymentOption = None,
    json: JsonOption = False,
) -> None:
    """Print the hash of terms, of their oracle, and, with a domain, the channel id. TOML terms files do as well."""
    del json
    from channeld.core import eip712, files  # noqa: PLC0415 - they load the curve

    if file.suffix == ".toml":
        from channeld.cli.terms_file import read  # noqa: PLC0415 - only here

        data: dict[str, Any] = {}
        terms = read(file)
    else:
        data = read_json(file)
        terms = files.terms_from_json(data.get("terms", data.get("message", data)))
    domain = domain_of(data, chain_id, adjudicator, deployment)
    if typed_data:
        _print_typed(eip712.typed_data(_needed(domain, "typed data"), "Terms", terms))
        return
    if identifier:
        typer.echo(_hex(eip712.channel_id(_needed(domain, "a channel id"), terms)))
        return
    result = {"terms_hash": _hex(eip712.terms_hash(terms)), "oracle_hash": _hex(eip712.oracle_hash(terms.oracle))}
    if domain is not None:
        result["channel"] = _hex(eip712.channel_id(domain, terms))
    OUT.emit(result, lambda: facts("", result))


@hash_app.command("body")
def hash_body(file: FileArgument, *, typed_data: TypedDataOption = False, json: JsonOption = False) -> None:
    """Print the hash of a body."""
    del json
    from channeld.core import eip712, files  # noqa: PLC0415 - they load the curve

    if typed_data:
        message = "a body is never signed by itself"
        raise CommandError(message, advice="Use `channeld hash state FILE --typed-data`.")
    data = read_json(file)
    result = {"body_hash": _hex(eip712.body_hash(files.body_from_json(data.get("body", data))))}
    OUT.emit(result, lambda: facts("", result))


@hash_app.command("state")
def hash_state(
    file: FileArgument,
    *,
    typed_data: TypedDataOption = False,
    chain_id: ChainIdOption = None,
    adjudicator: AdjudicatorOption = None,
    deployment: DeploymentOption = None,
    json: JsonOption = False,
) -> None:
    """Print the body hash of a state, and, with a domain, the digest that both desks sign."""
    del json
    from channeld.core import eip712, files  # noqa: PLC0415 - they load the curve

    data = read_json(file)
    state = files.state_from_json(data.get("state", data.get("message", data)))
    domain = domain_of(data, chain_id, adjudicator, deployment)
    if typed_data:
        _print_typed(eip712.typed_data(_needed(domain, "typed data"), "State", state))
        return
    body_hash = eip712.body_hash(state.body)
    result = {"channel": _hex(state.channel), "version": str(state.version), "body_hash": _hex(body_hash)}
    if domain is not None:
        result["digest"] = _hex(eip712.state_digest(domain, state.channel, state.version, body_hash))
    OUT.emit(result, lambda: facts("", result))


KINDS = {"perpetual": 0, "future": 1, "call": 2, "put": 3}


def value(
    *,
    kind: Annotated[str, typer.Option(help="call, put, future or perpetual.")],
    spot: Annotated[str, typer.Option(help="The price of the underlying now.")],
    strike: Annotated[str | None, typer.Option(help="Of an option.")] = None,
    vol: Annotated[str | None, typer.Option(help="Of an option, as a decimal: 0.65 is 65%.")] = None,
    carry: Annotated[str, typer.Option(help="Annual basis of the forward, as a decimal.")] = "0",
    tau: Annotated[int, typer.Option(help="Seconds to expiry.", min=0)] = 0,
    json: JsonOption = False,
) -> None:
    """Price one instrument exactly as the contract does, with greeks (vega, rho per point, theta per day)."""
    del json
    result = price_and_greeks(kind, spot, strike, vol, carry, tau)
    OUT.emit(result, lambda: facts("", result))


def price_and_greeks(kind: str, spot: str, strike: str | None, vol: str | None, carry: str, tau: int) -> dict[str, str]:
    """price, price_wad, delta, gamma, vega, theta, rho, vanna, volga as decimal strings; only the price is exact.

    Raises:
        CommandError: an unknown kind, or an option without strike or vol.
        MalformedNumberError, InputError: a number that is none, or out of range.

    """
    from channeld.core import greeks, valuation  # noqa: PLC0415 - they load the tables of the normal distribution

    if kind not in KINDS:
        message = f"{kind!r} is no kind of instrument"
        raise CommandError(message, advice="The kinds are call, put, future and perpetual.")
    code = KINDS[kind]
    if code >= KINDS["call"] and (strike is None or vol is None):
        message = f"a {kind} needs --strike and --vol"
        raise CommandError(message)
    numbers = (parse_decimal(spot), parse_decimal(strike or "0"), parse_decimal(carry), parse_decimal(vol or "0"))
    if code < KINDS["call"]:
        numbers = (numbers[0], 0, numbers[2], 0)
    price = valuation.value(code, *numbers, tau)
    spot_, strike_, carry_, vol_ = (number / WAD for number in numbers)
    advisory = greeks.greeks(code, spot_, strike_, carry_, vol_, tau)
    return {
        "price": format_decimal(price),
        "price_wad": str(price),
        **{name: plain(getattr(advisory, name)) for name in _GREEKS},
    }


def plain(number: float) -> str:
    """A float as a plain decimal of at most 12 places."""
    text = f"{number:.12f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def read_book(path: Path) -> tuple[Terms, Body, dict[bytes, int], int, int]:
    """Terms, body, prices (wads), time (Unix seconds) and the collateral's price of a file {terms, body, prices, time}.

    prices: feed symbols to decimal strings; collateralPrice: an optional decimal string, the body's mark without it.

    Raises:
        UnreadableFileError: the file is not of that form.
        ChanneldError: what the core refuses, by name.

    """
    from channeld.core import files  # noqa: PLC0415 - heavy
    from channeld.core.terms import feed_id, feed_symbol  # noqa: PLC0415 - small

    data = read_json(path)
    for name in ("terms", "body", "prices", "time"):
        if name not in data:
            message = f"{path} has no {name!r}"
            raise UnreadableFileError(message)
    if not isinstance(data["prices"], dict):
        message = f"{path}: prices must be an object of feed symbols and decimal strings"
        raise UnreadableFileError(message)
    terms, body = files.terms_from_json(data["terms"]), files.body_from_json(data["body"])
    prices = {feed_id(str(feed)): parse_decimal(_text(price, feed)) for feed, price in data["prices"].items()}
    needed = {p.instrument.feed for p in body.positions} - set(prices)
    if needed:
        message = f"{path}: prices lacks {', '.join(sorted(map(feed_symbol, needed)))}"
        raise UnreadableFileError(message)
    collateral = body.collateral_mark
    if "collateralPrice" in data:
        collateral = parse_decimal(_text(data["collateralPrice"], "collateralPrice"))
    return terms, body, prices, _whole(data["time"], "time"), collateral


def margin_of_file(path: Path) -> dict[str, Any]:
    """Equity, initial and maintenance margin of both parties, with every scenario and leg, for a file as `read_book`.

    Raises:
        UnreadableFileError: the file is not of that form.
        ChanneldError: what the core refuses, by name.

    """
    from channeld.core import margin  # noqa: PLC0415 - heavy
    from channeld.core.describe import legs_data, margin_data  # noqa: PLC0415 - the same

    terms, body, prices, time, collateral = read_book(path)
    reports = margin.both(terms, body, prices, time, collateral)
    return {
        "time": time,
        **{
            name: margin_data(report, terms.decimals, legs_data(terms, body, report, time))
            for name, report in zip("ab", reports, strict=True)
        },
    }


def _text(value: object, name: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    message = f'the price of {name} must be a decimal in quotes such as "3000.5", not {value!r}'
    raise UnreadableFileError(message)


def describe(raw: bytes) -> dict[str, Any]:
    """The packages in these bytes, as plain data."""
    from channeld.core.packages import describe_payload  # noqa: PLC0415 - it loads the curve

    return describe_payload(raw)


def decode_file(path: Path, terms: Path | None = None) -> dict[str, Any]:
    """The packages in a file, as plain data; with terms, a package by nobody of their oracle has an error.

    Raises:
        UnreadableFileError: a file cannot be read.
        ChanneldError: what is wrong with the terms, by name.

    """
    result = describe(read_bytes(path, MAX_PAYLOAD))
    if terms is not None:
        from channeld.cli.terms_file import read  # noqa: PLC0415 - only here

        _judge_signers(result, read(terms).oracle.signers)
    return result


def _judge_signers(result: dict[str, Any], signers: Sequence[bytes]) -> None:
    """Give each package by another signer its error, and leave it out of the medians."""
    from channeld.core.crypto import checksum_address  # noqa: PLC0415 - it loads the curve
    from channeld.core.packages import UnknownSignerError, median  # noqa: PLC0415 - the same

    known = {checksum_address(signer) for signer in signers}
    values: dict[tuple[str, int, str], int] = {}
    for one in result["packages"]:
        if one["signer"] is not None and one["signer"] not in known:
            message = f"{one['signer']} is no signer of the terms' oracle"
            one["errors"].append(UnknownSignerError(message).as_data())
        if not one["errors"]:
            for point in one["points"]:
                values[point["feed_id"], one["timestamp_ms"], one["signer"]] = int(point["value_wad"])
    kept = []
    for one in result["medians"]:
        one["signers"] = [signer for signer in one["signers"] if signer in known]
        counted = [values[one["feed_id"], one["timestamp_ms"], signer] for signer in one["signers"]]
        if counted:
            kept.append({**one, "median": format_decimal(median(counted)), "median_wad": str(median(counted))})
    result["medians"] = kept


def faults(decoded: dict[str, Any]) -> list[dict[str, Any]]:
    """Every error in decoded packages: those of the file, then those of its packages."""
    return [*decoded["errors"], *(error for one in decoded["packages"] for error in one["errors"])]
