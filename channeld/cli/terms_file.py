"""Terms files: TOML that two desks can read to each other, with the templates of docs/protocol.md, section 6.

Rules: fractions and factors are decimal strings, periods are seconds, addresses 0x text, feeds symbols. Both desks need
the same file, salt included: the hash they agree on covers all of it. A file ending in .json holds the typed data's own
form instead. What the contract's `open` would refuse is refused here already.
"""

from __future__ import annotations

import re
import secrets
import tomllib
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from channeld.cli.errors import CommandError, TermsFileError, UnreadableFileError
from channeld.cli.forms import read_bytes, read_json
from channeld.core.terms import ZERO_FEED, Market, Oracle, Party, Terms, feed_id
from channeld.core.wad import parse_decimal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MAX_FILE = 1 << 20
_SALT = re.compile(r"0x[0-9a-fA-F]{64}", re.ASCII)


@dataclass(frozen=True)
class Template:
    """A column of the table of section 6; decimals as text, periods in seconds."""

    cure_period: int
    challenge_period: int
    price_scan: dict[str, str]
    vol_up: str
    vol_down: str
    wing_cover: str
    spread_charge: str
    initial_factor: str
    closeout_penalty: str
    haircut: dict[str, str]
    tick: int
    samples: int
    sample_gap: int
    max_age: int
    grace: int
    jump: str
    deviations: str


DAILY_VOLS = {"ETH": "0.05", "BTC": "0.04"}
"""The daily volatilities of the table of section 6."""
REACTION_S = 600


def scan_range(template: Template, daily_vol: str, cure_period: int) -> str:
    """PriceScan = dailyVol * (j + z * sqrt(H / 1 day)), H = curePeriod + tick + maxAge + 10 minutes: section 6.

    A decimal, rounded up to a whole percent.

    Raises:
        CommandError: a daily volatility that is none.

    """
    try:
        vol = Decimal(daily_vol)
    except InvalidOperation:
        vol = Decimal(0)
    if not (vol.is_finite() and 0 < vol <= 2):
        message = f"a daily volatility must lie between 0 and 2, not {daily_vol!r}"
        raise CommandError(message, advice="Give it as a decimal: --daily-vol ETH=0.05 is 5% a day.")
    horizon = cure_period + template.tick + template.max_age + REACTION_S
    root = (Decimal(horizon) / 86_400).sqrt()
    scan = vol * (Decimal(template.jump) + Decimal(template.deviations) * root)
    return format(scan.quantize(Decimal("0.01"), ROUND_CEILING).normalize(), "f")


TEMPLATES = {
    "tight": Template(
        cure_period=900,
        challenge_period=86_400,
        price_scan={"ETH": "0.06", "BTC": "0.05"},
        vol_up="0.45",
        vol_down="0.30",
        wing_cover="0.01",
        spread_charge="0.005",
        initial_factor="1.2",
        closeout_penalty="0.02",
        haircut={"ETH": "0.15", "USDC": "0"},
        tick=10,
        samples=3,
        sample_gap=60,
        max_age=60,
        grace=1_800,
        jump="0.5",
        deviations="4",
    ),
    "standard": Template(
        cure_period=3_600,
        challenge_period=86_400,
        price_scan={"ETH": "0.11", "BTC": "0.09"},
        vol_up="0.60",
        vol_down="0.35",
        wing_cover="0.02",
        spread_charge="0.005",
        initial_factor="1.3",
        closeout_penalty="0.03",
        haircut={"ETH": "0.20", "USDC": "0.01"},
        tick=10,
        samples=5,
        sample_gap=60,
        max_age=120,
        grace=7_200,
        jump="1",
        deviations="5",
    ),
    "conservative": Template(
        cure_period=14_400,
        challenge_period=172_800,
        price_scan={"ETH": "0.20", "BTC": "0.16"},
        vol_up="0.75",
        vol_down="0.45",
        wing_cover="0.03",
        spread_charge="0.01",
        initial_factor="1.5",
        closeout_penalty="0.05",
        haircut={"ETH": "0.30", "USDC": "0.02"},
        tick=10,
        samples=5,
        sample_gap=60,
        max_age=300,
        grace=28_800,
        jump="1.5",
        deviations="6",
    ),
}


def _party(text: str, name: str) -> tuple[str, str]:
    signer, _, payout = text.partition("/")
    for part, field in ((signer, "signer"), (payout or signer, "payout")):
        _address(part, f"{name}.{field}")
    return signer, payout or signer


def _address(text: object, where: str) -> bytes:
    from channeld.core.files import address_from_text  # noqa: PLC0415 - it loads the curve

    return address_from_text(text, where)


def _salt(text: object) -> bytes:
    if not isinstance(text, str) or not _SALT.fullmatch(text):
        message = f"salt must be 0x and 64 hexadecimal digits, not {text!r}"
        raise TermsFileError(message)
    return bytes.fromhex(text[2:])


def _feed(text: object, where: str) -> bytes:
    if not isinstance(text, str):
        message = f"{where} must be an oracle feed's symbol, not {text!r}"
        raise TermsFileError(message)
    return feed_id(text)


def _template(name: str) -> Template:
    if name not in TEMPLATES:
        message = f"there is no template {name!r}"
        raise CommandError(message, advice="The templates are tight, standard and conservative.")
    return TEMPLATES[name]


def _with(template: Template, daily_vols: Mapping[str, str], cure_period: int | None) -> Template:
    """The template with other daily volatilities or another cure period, and the scan ranges that follow."""
    if not daily_vols and cure_period is None:
        return template
    cure = template.cure_period if cure_period is None else cure_period
    derived = daily_vols if cure_period is None else {**DAILY_VOLS, **daily_vols}
    scans = {feed: scan_range(template, vol, cure) for feed, vol in derived.items()}
    # what `open` demands of a longer cure period follows it
    return replace(
        template,
        cure_period=cure,
        challenge_period=max(template.challenge_period, cure),
        grace=max(template.grace, 2 * cure),
        price_scan={**template.price_scan, **scans},
    )


def _line(name: str, value: str | int, why: str = "") -> str:
    shown = f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}"
    return f"{shown.ljust(28)} # {why}" if why else shown


def write(
    *,
    template: str,
    a: str,
    b: str,
    collateral: str,
    decimals: int,
    oracle_signers: Sequence[str],
    quorum: int | None = None,
    markets: Sequence[str] = ("ETH", "BTC"),
    sequencer: str = "a",
    collateral_feed: str = "",
    salt: bytes | None = None,
    daily_vols: Mapping[str, str] | None = None,
    cure_period: int | None = None,
) -> str:
    """The text of a terms file from a template. a, b: SIGNER or SIGNER/PAYOUT addresses.

    daily_vols, by feed, and cure_period, in seconds, replace the template's own; scan ranges follow by `scan_range`.
    Without either the table of section 6 stands as it is.

    Raises:
        CommandError, UnreadableFileError, InvalidTermsError: what cannot stand in terms, by name.

    """
    chosen = _with(_template(template), daily_vols or {}, cure_period)
    (signer_a, payout_a), (signer_b, payout_b) = _party(a, "a"), _party(b, "b")
    unknown = [name for name in markets if name not in chosen.price_scan]
    if unknown:
        message = f"the templates have no figures for {', '.join(unknown)}"
        raise CommandError(message, advice="Give its daily volatility: --daily-vol FEED=0.08.")
    if collateral_feed and collateral_feed not in chosen.haircut:
        message = f"the templates have no haircut for collateral with the feed {collateral_feed}"
        raise CommandError(message, advice="Write a file for USDC or ETH; then change collateral_feed and haircut.")
    signers = sorted(dict.fromkeys(oracle_signers), key=lambda text: _address(text, "oracle signer"))
    lines = [
        f"# The terms of a channel, after the template {template!r}. Both desks need this same file: the",
        "# channel's id is a hash over all of it. Fractions and factors are decimals in quotes; periods are seconds.",
        "",
        _line("collateral", collateral, "the token that both deposit"),
        _line("decimals", decimals, "of the token"),
        _line("collateral_feed", collateral_feed, "an oracle feed, unless prices are in the collateral"),
        _line("haircut", chosen.haircut[collateral_feed] if collateral_feed else "0", "only with a collateral_feed"),
        _line("initial_factor", chosen.initial_factor, "initial margin, in maintenance margins"),
        _line("closeout_penalty", chosen.closeout_penalty, "of maintenance margin, paid by who is closed out"),
        _line("challenge_period", chosen.challenge_period, "to answer a dispute with a newer state"),
        _line("cure_period", chosen.cure_period, "to answer a margin call with a deposit"),
        _line("sequencer", sequencer, "the desk that orders: a or b"),
        _line("salt", "0x" + (salt or secrets.token_bytes(32)).hex()),
        "",
        "[a]",
        _line("signer", signer_a, "the hot key that co-signs"),
        _line("payout", payout_a, "receives every token, and nothing else does"),
        "",
        "[b]",
        _line("signer", signer_b),
        _line("payout", payout_b),
        "",
        "[oracle]",
        "signers = [",
        *(f'  "{signer}",' for signer in signers),
        "]",
        _line("quorum", len(signers) // 2 + 1 if quorum is None else quorum, "signatures that make a price"),
        _line("tick", chosen.tick, "prices exist at multiples of it"),
        _line("samples", chosen.samples, "a fix is the mean of so many prints,"),
        _line("sample_gap", chosen.sample_gap, "so far apart"),
        _line("max_age", chosen.max_age, "an older print allows no more risk"),
        _line("grace", chosen.grace, "to prove fixes on chain"),
    ]
    for name in sorted(markets, key=feed_id):
        lines += [
            "",
            "[[markets]]",
            _line("feed", name),
            _line("price_scan", chosen.price_scan[name], "the move that margin covers"),
            _line("vol_up", chosen.vol_up, "the rise of vols that margin covers"),
            _line("vol_down", chosen.vol_down),
            _line("wing_cover", chosen.wing_cover, "weight of a price three times as high"),
            _line("spread_charge", chosen.spread_charge, "of spot, on perpetuals against futures"),
        ]
    text = "\n".join(lines) + "\n"
    parse(tomllib.loads(text))
    return text


def save(path: Path, text: str) -> None:
    """Write a new file; never over another.

    Raises:
        UnreadableFileError: it exists, or cannot be written.

    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        message = f"{path} exists already"
        raise UnreadableFileError(message, advice="Name another file, or remove that one.") from None
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror or error}"
        raise UnreadableFileError(message, advice="Check the path and its permissions.") from None


FIELDS: dict[str, set[str]] = {
    "": {
        "collateral",
        "decimals",
        "collateral_feed",
        "haircut",
        "initial_factor",
        "closeout_penalty",
        "challenge_period",
        "cure_period",
        "sequencer",
        "salt",
        "a",
        "b",
        "oracle",
        "markets",
    },
    "a": {"signer", "payout"},
    "b": {"signer", "payout"},
    "oracle": {"signers", "quorum", "tick", "samples", "sample_gap", "max_age", "grace"},
    "markets": {"feed", "price_scan", "vol_up", "vol_down", "wing_cover", "spread_charge"},
}


def _section(data: object, name: str) -> dict[str, Any]:
    shown = f"[{name}]" if name else "the terms file"
    if not isinstance(data, dict):
        message = f"{shown} is missing or no table"
        raise TermsFileError(message)
    missing = sorted(FIELDS[name] - set(data))
    unknown = sorted(set(data) - FIELDS[name])
    if missing or unknown:
        parts = [f"lacks {', '.join(missing)}"] if missing else []
        parts += [f"has unknown {', '.join(unknown)}"] if unknown else []
        message = f"{shown} {' and '.join(parts)}"
        raise TermsFileError(message)
    return data


def _number(section: dict[str, Any], name: str) -> int:
    value = section[name]
    if not isinstance(value, int) or isinstance(value, bool):
        message = f"{name} must be a whole number, not {value!r}"
        raise TermsFileError(message)
    return value


def _wad(section: dict[str, Any], name: str) -> int:
    value = section[name]
    if not isinstance(value, str):
        message = f'{name} must be a decimal in quotes such as "0.06", not {value!r}'
        raise TermsFileError(message)
    return parse_decimal(value)


def _list(value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        message = f"{name} must be a list"
        raise TermsFileError(message)
    return value


def parse(data: dict[str, Any]) -> Terms:
    """The terms that a terms file's content says.

    Raises:
        TermsFileError: a field is missing, unknown, or of another type.
        MalformedNumberError, UnreadableFileError, InvalidTermsError: a value that terms cannot have.

    """
    top = _section(data, "")
    parties = []
    for name in ("a", "b"):
        party = _section(top[name], name)
        parties.append(Party(_address(party["signer"], f"{name}.signer"), _address(party["payout"], f"{name}.payout")))
    oracle = _section(top["oracle"], "oracle")
    markets = [_section(one, "markets") for one in _list(top["markets"], "markets")]
    sequencer = {"a": 0, "b": 1}.get(str(top["sequencer"]))
    if sequencer is None:
        message = f'sequencer must be "a" or "b", not {top["sequencer"]!r}'
        raise TermsFileError(message)
    feed = top["collateral_feed"]
    return Terms(
        a=parties[0],
        b=parties[1],
        collateral=_address(top["collateral"], "collateral"),
        decimals=_number(top, "decimals"),
        collateral_feed=_feed(feed, "collateral_feed") if feed else ZERO_FEED,
        haircut=_wad(top, "haircut"),
        oracle=Oracle(
            signers=tuple(_address(one, "oracle.signers") for one in _list(oracle["signers"], "signers")),
            **{name: _number(oracle, name) for name in ("quorum", "tick", "samples", "sample_gap", "max_age", "grace")},
        ),
        markets=tuple(
            Market(
                feed=_feed(one["feed"], "feed"),
                **{
                    name: _wad(one, name)
                    for name in ("price_scan", "vol_up", "vol_down", "wing_cover", "spread_charge")
                },
            )
            for one in markets
        ),
        initial_factor=_wad(top, "initial_factor"),
        closeout_penalty=_wad(top, "closeout_penalty"),
        challenge_period=_number(top, "challenge_period"),
        cure_period=_number(top, "cure_period"),
        sequencer=sequencer,
        salt=_salt(top["salt"]),
    )


def read(path: Path) -> Terms:
    """The terms in a file: TOML, or JSON where its name ends in .json.

    Raises:
        ChanneldError: whatever is wrong with the file or the terms, by name.

    """
    if path.suffix == ".json":
        from channeld.core.files import terms_from_json  # noqa: PLC0415 - it loads the curve

        data = read_json(path)
        return terms_from_json(data.get("terms", data.get("message", data)))
    raw = read_bytes(path, MAX_FILE)
    try:
        data = tomllib.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        message = f"{path} is not TOML: {error}"
        raise UnreadableFileError(message) from None
    return parse(data)


def load(path: Path) -> dict[str, Any]:
    """The terms in a file as the JSON data that the daemon takes; raises as `read`."""
    from channeld.core.files import terms_to_json  # noqa: PLC0415 - it loads the curve

    return terms_to_json(read(path))
