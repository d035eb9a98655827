"""Configuration of a desk: msgspec structs filled from flags, environment, file and defaults, in this precedence.

Rules: every setting is declared once, in a struct below, with its type, bounds, default and a sentence; the annotated
sample and the names of environment variables (CHANNELD_<SECTION>_<KEY>) follow from that. Every setting is checked
before anything is started. What is unknown is refused with the nearest known name. Secrets are no settings: the
keystore's password comes from CHANNELD_PASSWORD, a password file or a prompt. Times are seconds.

SetupError
 '-- ConfigError 7001
      |-- ConfigFileError 7002       the file cannot be read
      |-- ConfigSyntaxError 7003     the file is no TOML
      |-- UnknownSettingError 7004   a section or key that does not exist
      |-- InvalidSettingError 7005   a value of a wrong type or out of bounds
      |-- ExposedApiError 7006       the API would listen beyond this machine
      '-- MissingSettingError 7007   a setting that this command needs is not set
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import math
import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from channeld.core.crypto import checksum_address
from channeld.core.errors import SetupError
from channeld.daemon.margin_settings import LimitSettings, Margin
from channeld.daemon.operator_settings import AlertSettings, ApprovalSettings
from channeld.tower.errors import TowerAddressError
from channeld.tower.protocol import parse_tower

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ENVIRONMENT_PREFIX: Final = "CHANNELD_"
FILE_NAME: Final = "channeld.toml"
SAMPLE_HEADER: Final = """\
# channeld: configuration of one desk. Every setting is here with its default.
# Precedence: command-line flag, environment (CHANNELD_<SECTION>_<KEY>, such as CHANNELD_CHAIN_CONFIRMATIONS),
# this file, default. Times are seconds. No secret belongs here.
"""


class ConfigError(SetupError):
    """The configuration cannot be used. Nothing was started."""

    code = 7001


class ConfigFileError(ConfigError):
    """The configuration file cannot be read."""

    code = 7002
    advice = "Create a desk with `channeld init`, or name its data directory with --data."


class ConfigSyntaxError(ConfigError):
    """The configuration file is no TOML."""

    code = 7003
    advice = "Correct the line; texts need quotes, sections are [names]. docs/configuration.md shows a whole file."


class UnknownSettingError(ConfigError):
    """A section or key that does not exist."""

    code = 7004
    advice = "Correct the name or remove it; docs/configuration.md lists every setting."


class InvalidSettingError(ConfigError):
    """A value of a wrong type, or out of bounds."""

    code = 7005
    advice = "Correct the value; docs/configuration.md gives type and bounds of every setting."


class ExposedApiError(ConfigError):
    """The API would listen beyond this machine, where its token would travel in clear."""

    code = 7006
    advice = "Listen on 127.0.0.1 or [::1], and come through an SSH tunnel; or set api.tls_cert and api.tls_key."


class MissingSettingError(ConfigError):
    """A setting that this command needs is not set."""

    code = 7007


class HostPort(NamedTuple):
    """Where a listener binds. Port 0 lets the system choose."""

    host: str
    port: int


# --- the settings -------------------------------------------------------------------------------------------

Seconds = Annotated[float, Meta(gt=0, le=31_536_000)]


class Desk(msgspec.Struct, frozen=True, kw_only=True):
    """The desk itself."""

    name: Annotated[str, Meta(min_length=1, max_length=64, description="What peers and logs call this desk.")] = "desk"
    data_dir: Annotated[str, Meta(description="Keystore, database and token. Empty: the directory of this file.")] = ""
    store: Annotated[
        str,
        Meta(
            description="Where records are kept: postgresql://USER@HOST/DATABASE?schema=NAME. Empty: channeld.db in the"
            " data directory. A URL with a password belongs into CHANNELD_DESK_STORE, not into this file."
        ),
    ] = ""
    payout: Annotated[
        str,
        Meta(
            description="The cold address that receives every token. Put into the terms at opening; cannot be changed"
            " later. Never an exchange's deposit address."
        ),
    ] = ""


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """The chain and how to speak to it."""

    urls: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            max_length=8,
            description="JSON-RPC endpoints, preferred first. Several are compared, and take over from each other;"
            " it takes three, of different providers, to tell which one lies.",
        ),
    ] = ("http://127.0.0.1:8545",)
    kind: Annotated[
        Literal["embedded", "anvil", "live"],
        Meta(description='"embedded" (channeld devnet), "anvil", or "live" for any other chain.'),
    ] = "live"
    clock: Annotated[
        Literal["system", "devnet"],
        Meta(description='"system"; or "devnet": the controllable clock of an embedded chain.'),
    ] = "system"
    confirmations: Annotated[
        int,
        Meta(ge=0, le=10_000, description="Blocks on top of one before what it holds is final: 0 only on a devnet."),
    ] = 12
    poll_interval: Annotated[Seconds, Meta(description="How often to look for a new block.")] = 2.0
    request_timeout: Annotated[Seconds, Meta(description="How long one request may take.")] = 10.0
    max_view_age: Annotated[
        Seconds, Meta(description="With a view of the chain older than this, nothing is signed but exits.")
    ] = 180.0


class Gas(msgspec.Struct, frozen=True, kw_only=True):
    """What transactions may cost. In a dispute, being late costs more than gas."""

    max_fee_gwei: Annotated[float, Meta(gt=0, le=1_000_000, description="Never pay more per unit of gas.")] = 500.0
    priority_fee_gwei: Annotated[float, Meta(ge=0, le=1_000_000, description="Tip at the first attempt.")] = 1.0
    bump_percent: Annotated[
        int, Meta(ge=10, le=1000, description="Rise of the fee at each further attempt (nodes ask for 10 at least).")
    ] = 25
    resend_after: Annotated[Seconds, Meta(description="Unmined for so long: attempt again at a higher fee.")] = 45.0
    dispute_budget: Annotated[
        float,
        Meta(
            ge=0,
            le=1_000_000,
            description="What one transaction of a dispute may cost to be in time, in native currency (ETH), where"
            " max_fee_gwei would not do.",
        ),
    ] = 0.5
    reserve: Annotated[
        float,
        Meta(
            ge=0,
            le=1_000_000,
            description="Native currency (ETH) that the hot key must hold for disputes: with less, no new risk is"
            " taken. 0: never mind.",
        ),
    ] = 0.05


class OracleSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where signed prices come from. Which signers count is in each channel's terms, not here."""

    urls: Annotated[
        tuple[str, ...], Meta(max_length=16, description="Oracle services; all are asked, packages are merged.")
    ] = ("http://127.0.0.1:9800",)
    gateways: Annotated[
        tuple[str, ...], Meta(max_length=16, description="RedStone gateways, asked after the services, with failover.")
    ] = ()
    gateway_service: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="The data service that gateways are asked for.")
    ] = "redstone-primary-prod"
    folders: Annotated[
        tuple[str, ...], Meta(max_length=16, description="Folders of packages as files, read last.")
    ] = ()
    archives: Annotated[
        tuple[str, ...],
        Meta(
            max_length=16,
            description="Further folders in which the packages of fixes are kept, on other disks: beside the data"
            " directory and the store.",
        ),
    ] = ()
    request_timeout: Annotated[Seconds, Meta(description="How long one request may take.")] = 5.0
    stale_after: Annotated[
        Seconds, Meta(description="Alert when the newest print is older. Trading obeys the terms' maxAge besides.")
    ] = 60.0


class Peers(msgspec.Struct, frozen=True, kw_only=True):
    """Links to other desks, always encrypted."""

    listen: Annotated[
        str, Meta(description='host:port for incoming links; "0.0.0.0:9700" for the world. Empty: do not listen.')
    ] = "127.0.0.1:9700"
    heartbeat: Annotated[Seconds, Meta(description="Silence after which a link is probed, and then given up.")] = 15.0
    reconnect_max: Annotated[Seconds, Meta(description="Longest pause between attempts to reconnect.")] = 30.0
    backup_interval: Annotated[
        Seconds,
        Meta(description="After changes, have each peer keep a new encrypted backup of this desk, once in so long."),
    ] = 60.0


class Api(msgspec.Struct, frozen=True, kw_only=True):
    """The API for this desk's own people and programs, with /healthz and /metrics."""

    listen: Annotated[
        str, Meta(description="host:port. On this machine (127.0.0.1 or [::1]), unless tls_cert and tls_key are set.")
    ] = "127.0.0.1:9600"
    tls_cert: Annotated[str, Meta(description="A PEM file with the certificate and its chain. Empty: plain HTTP.")] = ""
    tls_key: Annotated[str, Meta(description="A PEM file with the certificate's key, readable by its owner alone.")] = (
        ""
    )
    rate: Annotated[
        float, Meta(ge=1, le=1_000_000, description="Requests a second of one token; twice as many at once.")
    ] = 1000.0


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """How channels are run."""

    proposal_timeout: Annotated[
        Seconds, Meta(description="A proposal unanswered for so long stops new risk in its channel.")
    ] = 5.0
    mark_interval: Annotated[
        Seconds, Meta(description="Propose a mark at least this often, where this desk is the sequencer.")
    ] = 60.0
    dispute_after: Annotated[
        Seconds, Meta(description="A peer silent for so long is an alert, and a case for auto_dispute.")
    ] = 900.0
    auto_dispute: Annotated[
        Literal["alert", "challenge"],
        Meta(
            description='On such silence: "alert" only, or "challenge" on chain by itself (which ends the channel).'
            " Cheating is refuted by itself in either case."
        ),
    ] = "alert"


class TowerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The watchtowers that answer challenges while this desk is away. They learn no position and no balance."""

    towers: Annotated[
        tuple[str, ...],
        Meta(max_length=8, description="ADDRESS@URL of each, as it prints at its start; all are given every state."),
    ] = ()
    request_timeout: Annotated[Seconds, Meta(description="How long one request may take.")] = 10.0
    check_interval: Annotated[Seconds, Meta(description="Have each tower show what it holds at least this often.")] = (
        60.0
    )
    stale_after: Annotated[
        Seconds, Meta(description="A tower that has not shown the newest state for so long is an alert.")
    ] = 300.0
    max_lag: Annotated[
        int, Meta(ge=1, le=10_000, description="A tower whose newest block is so many behind ours is an alert.")
    ] = 20


class BundleSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Bundles: one file per channel with all that an emergency needs, rewritten after every state."""

    folder: Annotated[
        str,
        Meta(
            description="Keep each channel's newest bundle here, relative to the data directory; best on another disk"
            " or machine. Empty: do not."
        ),
    ] = ""
    command: Annotated[
        str, Meta(description="Start this with the path of each bundle that was written, to carry it elsewhere.")
    ] = ""
    interval: Annotated[
        Seconds, Meta(description="Write at most once in so long; what comes meanwhile is in the next one.")
    ] = 1.0


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """What is written where."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="The least severity written.")] = (
        "info"
    )
    format: Annotated[
        Literal["console", "json"], Meta(description='"console" for people, "json" one object a line.')
    ] = "console"
    file: Annotated[str, Meta(description="Append to this file. Empty: standard error.")] = ""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of a desk. `source` is the file it came from, None for none."""

    desk: Desk = Desk()
    chain: Chain = Chain()
    gas: Gas = Gas()
    oracle: OracleSettings = OracleSettings()
    peers: Peers = Peers()
    api: Api = Api()
    channel: Channel = Channel()
    tower: TowerSettings = TowerSettings()
    margin: Margin = Margin()
    limits: LimitSettings = LimitSettings()
    bundle: BundleSettings = BundleSettings()
    alerts: AlertSettings = AlertSettings()
    approvals: ApprovalSettings = ApprovalSettings()
    log: Log = Log()
    source: str | None = None

    @property
    def data_path(self) -> Path:
        """The data directory: `desk.data_dir` relative to the file; else the file's own; else the current one."""
        base = Path(self.source).parent if self.source else Path()
        return base / self.desk.data_dir

    @property
    def api_address(self) -> HostPort:
        """Where the API listens."""
        return parse_host_port(self.api.listen)

    @property
    def api_scheme(self) -> str:
        """How the API is spoken: https where it has a certificate."""
        return "https" if self.api.tls_cert else "http"

    @property
    def peer_address(self) -> HostPort | None:
        """Where peers may connect, or None."""
        return parse_host_port(self.peers.listen) if self.peers.listen else None

    @property
    def payout_address(self) -> bytes:
        """The payout address, 20 bytes.

        Raises:
            MissingSettingError: none is set.

        """
        if not self.desk.payout:
            raise MissingSettingError(
                "desk.payout is not set",
                advice=f"Set payout under [desk] in {self.source or FILE_NAME} to your cold address.",
                key="desk.payout",
            )
        return bytes.fromhex(self.desk.payout[2:])


SECTIONS: Final[dict[str, type[msgspec.Struct]]] = {
    "desk": Desk,
    "chain": Chain,
    "gas": Gas,
    "oracle": OracleSettings,
    "peers": Peers,
    "api": Api,
    "channel": Channel,
    "tower": TowerSettings,
    "margin": Margin,
    "limits": LimitSettings,
    "bundle": BundleSettings,
    "alerts": AlertSettings,
    "approvals": ApprovalSettings,
    "log": Log,
}
_TYPES: Final = {name: get_type_hints(struct, include_extras=True) for name, struct in SECTIONS.items()}
KEYS: Final[tuple[str, ...]] = tuple(f"{section}.{key}" for section in SECTIONS for key in _TYPES[section])


OPTIONAL_TEXTS: Final = frozenset({"api.tls_cert", "api.tls_key", "desk.payout", "desk.store", "peers.listen"})


def environment_name(key: str) -> str:
    """The environment variable of a setting: chain.poll_interval -> CHANNELD_CHAIN_POLL_INTERVAL."""
    return ENVIRONMENT_PREFIX + key.replace(".", "_").upper()


# --- reading ------------------------------------------------------------------------------------------------


class _Setting(NamedTuple):
    """A value and where it came from. `plain`: a text that stands for a value of another type."""

    value: Any
    origin: str
    plain: bool


def load(
    path: Path | str | None = None,
    *,
    flags: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Config:
    """The configuration from a file, the environment and flags, checked.

    Args:
        path: the TOML file, or the data directory that holds channeld.toml; None for none.
        flags: settings by dotted key, such as {"chain.confirmations": 3}; None values count as not given; texts are
            converted as those of the environment are.
        environment: os.environ unless given.

    Raises:
        ConfigError: one of its subclasses, naming file or variable, key, and what to do.

    """
    file = _resolve(Path(path)) if path is not None else None
    settings: dict[str, _Setting] = {}
    if file is not None:
        settings |= _from_file(file)
    settings |= _from_environment(os.environ if environment is None else environment)
    for key, value in (flags or {}).items():
        if value is None:
            continue
        if key not in KEYS:
            raise _unknown(key, "the command line", KEYS)
        settings[key] = _Setting(value, f"flag for {key}", isinstance(value, str))
    sections: dict[str, Any] = {}
    for section, struct in SECTIONS.items():
        values = {
            key: _convert(f"{section}.{key}", settings[f"{section}.{key}"], kind)
            for key, kind in _TYPES[section].items()
            if f"{section}.{key}" in settings
        }
        sections[section] = struct(**values)
    config = Config(**sections, source=str(file) if file is not None else None)
    _check(config, {key: setting.origin for key, setting in settings.items()})
    return config


def _resolve(path: Path) -> Path:
    return path / FILE_NAME if path.is_dir() else path


def _from_file(path: Path) -> dict[str, _Setting]:
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigFileError(f"configuration file {path}: {error.strerror}", file=str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigSyntaxError(f"{path} is not UTF-8 text: {error}", file=str(path)) from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigSyntaxError(f"{path} is no valid TOML: {error}", file=str(path)) from error
    settings = {}
    for section, content in document.items():
        if section not in SECTIONS:
            raise _unknown(section, str(path), (*SECTIONS, *KEYS))
        if not isinstance(content, dict):
            raise InvalidSettingError(
                f"{path}: {section} must be a section", advice=f"Write [{section}] on a line of its own.", key=section
            )
        for key, value in content.items():
            dotted = f"{section}.{key}"
            if dotted not in KEYS:
                raise _unknown(dotted, str(path), KEYS)
            settings[dotted] = _Setting(value, str(path), plain=False)
    return settings


def _from_environment(environment: Mapping[str, str]) -> dict[str, _Setting]:
    """Settings among the environment. What is nearly the name of one is refused; other variables are not ours."""
    names = {environment_name(key): key for key in KEYS}
    settings = {}
    for name, value in environment.items():
        if name in names:
            settings[names[name]] = _Setting(value, f"environment variable {name}", plain=True)
        elif name.startswith(ENVIRONMENT_PREFIX) and difflib.get_close_matches(name, names, n=1, cutoff=0.9):
            raise _unknown(name, "the environment", tuple(names))
    return settings


def _unknown(name: str, where: str, known: tuple[str, ...]) -> UnknownSettingError:
    # A right key in a wrong section is nearer than any other.
    key = name.rpartition(".")[2]
    near = [each for each in known if each.rpartition(".")[2] == key] or difflib.get_close_matches(
        name, known, n=1, cutoff=0.5
    )
    hint = f"Did you mean {near[0]}? Otherwise remove it." if near else None
    return UnknownSettingError(
        f"{where}: there is no setting {name}", advice=hint, key=name, nearest=near[0] if near else ""
    )


def _base(kind: Any) -> Any:  # noqa: ANN401 - a type expression
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _convert(key: str, setting: _Setting, kind: Any) -> Any:  # noqa: ANN401 - a type expression, and its value
    value = setting.value
    if setting.plain and get_origin(_base(kind)) is tuple:
        value = [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, float) and not math.isfinite(value):
        raise _invalid(key, setting.origin, f"{value} is no finite number")
    try:
        return msgspec.convert(value, kind, strict=not setting.plain)
    except msgspec.ValidationError as error:
        raise _invalid(key, setting.origin, f"{setting.value!r}: {error}") from None


def _invalid(key: str, origin: str, reason: str) -> InvalidSettingError:
    return InvalidSettingError(
        f"{origin}: {key}: {reason}", advice=f"Correct it: {description(key)}", key=key, origin=origin
    )


def description(key: str) -> str:
    """The sentence that explains a setting."""
    section, name = key.split(".")
    metas = [meta for meta in getattr(_TYPES[section][name], "__metadata__", ()) if isinstance(meta, Meta)]
    return next((meta.description for meta in metas if meta.description), "")


# --- checks -------------------------------------------------------------------------------------------------


def parse_host_port(text: str) -> HostPort:
    """HostPort of "host:port" or "[IPv6]:port". Raises ValueError."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not colon or not host or (":" in host) != bracketed or not (port.isascii() and port.isdigit()):
        message = f"{text!r} is not host:port"
        raise ValueError(message)
    if int(port) > 65_535:
        message = f"{port} is no port"
        raise ValueError(message)
    return HostPort(host, int(port))


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own, without asking any name server."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_url(text: str, schemes: tuple[str, ...]) -> None:
    try:
        parts = urlsplit(text)
        valid = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        message = f"{text!r} is no URL with {' or '.join(schemes)}"
        raise ValueError(message)


def _check_payout(text: str) -> None:
    try:
        raw = bytes.fromhex(text[2:])
    except ValueError:
        raw = b""
    if not text.startswith("0x") or len(raw) != 20 or len(text) != 42 or not any(raw):
        message = f"{text!r} is no address (0x and 40 hexadecimal digits, not zero)"
        raise ValueError(message)
    if text[2:] not in (text[2:].lower(), text[2:].upper()) and text != checksum_address(raw):
        message = f"{text!r} fails its EIP-55 checksum: a digit or letter is wrong"
        raise ValueError(message)


def _check_tower(text: str) -> None:
    try:
        parse_tower(text)
    except TowerAddressError as error:
        raise ValueError(str(error)) from error


def _check(config: Config, origins: Mapping[str, str]) -> None:
    """What types and bounds cannot say."""
    checks: list[tuple[str, Callable[[str], object], tuple[str, ...]]] = [
        ("api.listen", parse_host_port, (config.api.listen,)),
        ("peers.listen", parse_host_port, (config.peers.listen,)),
        ("desk.payout", _check_payout, (config.desk.payout,)),
        ("chain.urls", lambda url: _check_url(url, ("http", "https")), config.chain.urls),
        ("oracle.urls", lambda url: _check_url(url, ("http", "https")), config.oracle.urls),
        ("limits.oracle_signers", _check_payout, config.limits.oracle_signers),
        ("oracle.gateways", lambda url: _check_url(url, ("http", "https")), config.oracle.gateways),
        ("tower.towers", _check_tower, config.tower.towers),
    ]
    for key, check, values in checks:
        for value in values:
            if not value and key in OPTIONAL_TEXTS:
                continue
            try:
                check(value)
            except ValueError as error:
                raise _invalid(key, origins.get(key, "default"), str(error)) from None
    if bool(config.api.tls_cert) != bool(config.api.tls_key):
        missing = "api.tls_key" if config.api.tls_cert else "api.tls_cert"
        raise _invalid(
            missing, origins.get(missing, "default"), "a certificate needs its key, and a key its certificate"
        )
    if not is_loopback(config.api_address.host) and not config.api.tls_cert:
        raise ExposedApiError(
            f"{origins.get('api.listen', 'default')}: api.listen: {config.api.listen} is not on this machine alone",
            key="api.listen",
        )
    if config.chain.clock == "devnet" and config.chain.kind == "live":
        raise _invalid(
            "chain.clock", origins.get("chain.clock", "default"), 'a "live" chain has no clock that can be set'
        )
    if config.chain.confirmations == 0 and config.chain.kind == "live":
        raise _invalid(
            "chain.confirmations",
            origins.get("chain.confirmations", "default"),
            "on a live chain, what the newest block holds may vanish again",
        )
    if config.channel.dispute_after < config.channel.proposal_timeout:
        raise _invalid(
            "channel.dispute_after",
            origins.get("channel.dispute_after", "default"),
            "must not be shorter than channel.proposal_timeout",
        )


# --- writing ------------------------------------------------------------------------------------------------


def _toml(value: object) -> str:
    """A value as TOML. Strings: JSON's escapes are TOML's, but for DEL, which TOML wants escaped."""
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _wrapped(text: str, width: int = 116) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines


def annotated_sample(config: Config | None = None) -> str:
    """TOML text with a comment on every setting, holding the values of `config` (the defaults where none is given).

    `load` of this text gives an equal configuration, `source` apart.
    """
    shown = config or Config()
    lines = [SAMPLE_HEADER]
    for section, struct in SECTIONS.items():
        lines.append(f"[{section}]  # {(struct.__doc__ or '').splitlines()[0]}")
        values = getattr(shown, section)
        for key in _TYPES[section]:
            lines += [f"# {line}" for line in _wrapped(description(f"{section}.{key}"))]
            lines.append(f"{key} = {_toml(getattr(values, key))}")
        lines.append("")
    return "\n".join(lines)
