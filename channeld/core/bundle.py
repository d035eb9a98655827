"""The bundle: one JSON document with all that a party needs to enforce a channel on chain.

Rules: it holds the EIP-712 domain, the terms, the highest co-signed state with both signatures, optionally half-signed
states (the counterparty may add the other signature, and then their bodies are what is settled), and signed oracle
packages. It is read strictly: unknown and missing fields are refused by name, the checksum must hold, every signature
must be its signer's. What is read is therefore enforceable, whatever happened to the file on its way. Times are Unix
milliseconds where named so; packages are judged where they are used.

The checksum is keccak256 of the document without it, as JSON with sorted keys and no blanks, ASCII. It finds accidents;
the signatures find everything else that matters. No key is in a bundle, but the whole book is: keep it to yourself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from channeld.core.crypto import SignatureError, checksum_address, keccak256, verify
from channeld.core.eip712 import Domain, body_hash, channel_id, state_digest
from channeld.core.errors import InputError
from channeld.core.files import (
    FileFormatError,
    address_from_text,
    state_from_json,
    state_to_json,
    terms_from_json,
    terms_to_json,
)
from channeld.core.state import State, genesis

if TYPE_CHECKING:
    from channeld.core.terms import Terms

FORMAT = "channeld-bundle"
FORMAT_VERSION = 1
MAX_HALVES = 128
MAX_PACKAGES = 4096
MAX_PACKAGE = 4096
_FIELDS = (
    "format",
    "formatVersion",
    "checksum",
    "madeMs",
    "side",
    "domain",
    "terms",
    "state",
    "signatureA",
    "signatureB",
    "halfSigned",
    "packages",
)
_HALF = ("state", "signatureA", "signatureB")


class BundleFormatError(InputError):
    """What should be a bundle is none; the message names the field."""

    code = 1400
    advice = "Take another copy; docs/files.md describes bundles, and `channeld dispute export` writes them."


class BundleChecksumError(InputError):
    """A bundle whose content is not what was written: a damaged or edited file."""

    code = 1401
    advice = "Take another copy of the bundle; an earlier one that is whole is better than a newer one that is not."


class BundleSignatureError(InputError):
    """A signature in a bundle is not its signer's over its state."""

    code = 1402
    advice = "The contract would refuse it. Take another bundle, or export it again."


class BundleVersionError(InputError):
    """A bundle of a later format than this release reads."""

    code = 1403
    advice = "Install the release that wrote it."


@dataclass(frozen=True, slots=True)
class HalfSigned:
    """A state with one signature; the other is empty."""

    state: State
    signature_a: bytes = b""
    signature_b: bytes = b""


@dataclass(frozen=True, slots=True)
class Bundle:
    """See the module. side: whose it is, 0 for a and 1 for b. Signatures are empty at version 0, which is implicit."""

    domain: Domain
    terms: Terms
    side: int
    state: State
    signature_a: bytes = b""
    signature_b: bytes = b""
    halves: tuple[HalfSigned, ...] = ()
    packages: tuple[bytes, ...] = ()
    made_ms: int = 0

    @property
    def channel(self) -> bytes:
        """The channel id, 32 bytes."""
        return self.state.channel

    @property
    def version(self) -> int:
        """The version of the co-signed state."""
        return self.state.version

    @property
    def sigs(self) -> bytes:
        """Both signatures as the contract takes them; empty at version 0."""
        return self.signature_a + self.signature_b

    def body_with_hash(self, hashed: bytes) -> State | None:
        """The state of the bundle, half-signed ones and version 0 included, whose body has this hash."""
        known = (self.state, genesis(self.channel), *(half.state for half in self.halves))
        return next((state for state in known if body_hash(state.body) == hashed), None)


def check_bundle(bundle: Bundle) -> Bundle:
    """The bundle, if all in it is of one channel and every signature holds.

    Raises:
        BundleFormatError: a state of another channel, or a version 0 that is not the implicit one.
        BundleSignatureError: naming the signature.

    """
    if channel_id(bundle.domain, bundle.terms) != bundle.channel:
        _refuse("state.channel", "is not the channel of these terms under this domain")
    if bundle.side not in (0, 1):
        _refuse("side", "must be a or b")
    if bundle.version == 0:
        if bundle.state != genesis(bundle.channel) or bundle.sigs:
            _refuse("state", "version 0 is the empty state, and has no signatures")
    else:
        for side, signature in enumerate((bundle.signature_a, bundle.signature_b)):
            _check_signature(bundle, bundle.state, side, signature, "signature" + "AB"[side])
    for number, half in enumerate(bundle.halves):
        where = f"halfSigned[{number}]"
        if half.state.channel != bundle.channel:
            _refuse(f"{where}.state.channel", "is another channel")
        given = (half.signature_a, half.signature_b)
        if not any(given):
            _refuse(where, "has no signature at all")
        for side, signature in enumerate(given):
            if signature:
                _check_signature(bundle, half.state, side, signature, f"{where}.signature{'AB'[side]}")
    return bundle


def _check_signature(bundle: Bundle, state: State, side: int, signature: bytes, path: str) -> None:
    signer = bundle.terms.party(side).signer
    digest = state_digest(bundle.domain, state.channel, state.version, body_hash(state.body))
    try:
        verify(digest, signature, signer)
    except SignatureError as error:
        message = f"{path}: not a signature of {checksum_address(signer)} over version {state.version}"
        raise BundleSignatureError(message, field=path, version=state.version) from error


# --- writing ------------------------------------------------------------------------------------------------


def bundle_to_json(bundle: Bundle) -> dict[str, Any]:
    """The bundle as JSON data, checksum included."""
    data: dict[str, Any] = {
        "format": FORMAT,
        "formatVersion": FORMAT_VERSION,
        "madeMs": bundle.made_ms,
        "side": "ab"[bundle.side],
        "domain": {
            "chainId": bundle.domain.chain_id,
            "verifyingContract": checksum_address(bundle.domain.adjudicator),
        },
        "terms": terms_to_json(bundle.terms),
        "state": state_to_json(bundle.state),
        "signatureA": "0x" + bundle.signature_a.hex(),
        "signatureB": "0x" + bundle.signature_b.hex(),
        "halfSigned": [
            {
                "state": state_to_json(half.state),
                "signatureA": "0x" + half.signature_a.hex(),
                "signatureB": "0x" + half.signature_b.hex(),
            }
            for half in bundle.halves
        ],
        "packages": ["0x" + raw.hex() for raw in bundle.packages],
    }
    return {**data, "checksum": _checksum(data)}


def bundle_text(bundle: Bundle) -> str:
    """The bundle as the text of a file."""
    return json.dumps(bundle_to_json(bundle), indent=1) + "\n"


def _checksum(data: dict[str, Any]) -> str:
    plain = {name: value for name, value in data.items() if name != "checksum"}
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return "0x" + keccak256(canonical.encode("ascii")).hex()


# --- reading ------------------------------------------------------------------------------------------------


def _refuse(path: str, why: str) -> NoReturn:
    raise BundleFormatError(f"{path}: {why}", field=path)


def _only(data: Any, names: tuple[str, ...], path: str) -> dict[str, Any]:  # noqa: ANN401 - parsed JSON
    if not isinstance(data, dict):
        _refuse(path, "must be an object")
    for name in names:
        if name not in data:
            _refuse(f"{path}.{name}", "is missing")
    for name in data:
        if name not in names:
            _refuse(f"{path}.{name}", f"is no field; the fields are {', '.join(names)}")
    return data


def _bytes(value: object, sizes: tuple[int, ...] | range, path: str) -> bytes:
    text = value if isinstance(value, str) else ""
    try:
        raw = bytes.fromhex(text[2:])
    except ValueError:
        raw = None
    if raw is None or not text.startswith("0x") or len(text) != 2 + 2 * len(raw) or len(raw) not in sizes:
        _refuse(path, "must be 0x and hexadecimal digits, of the right length")
    return raw


def _whole(value: object, path: str) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        _refuse(path, "must be a whole number")
    return value


def _list(value: object, most: int, path: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        _refuse(path, f"must be a list of at most {most}")
    return value


def bundle_from_json(data: object) -> Bundle:
    """The bundle of parsed JSON, complete and checked.

    Raises:
        BundleFormatError: a field that is missing, unknown, or of the wrong form.
        BundleVersionError: a later format.
        BundleChecksumError: it was damaged.
        BundleSignatureError: a signature that the contract would refuse.

    """
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        _refuse("format", f"is not {FORMAT!r}")
    if _whole(data.get("formatVersion"), "formatVersion") > FORMAT_VERSION:
        raise BundleVersionError(
            f"the bundle is of format {data['formatVersion']}; this release reads {FORMAT_VERSION}"
        )
    fields = _only(data, _FIELDS, "bundle")
    try:
        matches = fields["checksum"] == _checksum(fields)
    except (ValueError, RecursionError):
        matches = False
    if not matches:
        raise BundleChecksumError(f"the checksum {str(fields['checksum'])[:70]} is not that of the content")
    domain = _only(fields["domain"], ("chainId", "verifyingContract"), "domain")
    if fields["side"] not in ("a", "b"):
        _refuse("side", "must be a or b")
    try:
        terms = terms_from_json(fields["terms"])
        state = state_from_json(fields["state"])
        contract = address_from_text(domain["verifyingContract"], "domain.verifyingContract")
        halves = tuple(
            _half(half, f"halfSigned[{number}]")
            for number, half in enumerate(_list(fields["halfSigned"], MAX_HALVES, "halfSigned"))
        )
    except FileFormatError as error:
        raise BundleFormatError(str(error), **error.details) from error
    packages = enumerate(_list(fields["packages"], MAX_PACKAGES, "packages"))
    return check_bundle(
        Bundle(
            domain=Domain(_whole(domain["chainId"], "domain.chainId"), contract),
            terms=terms,
            side="ab".index(fields["side"]),
            state=state,
            signature_a=_bytes(fields["signatureA"], (0, 65), "signatureA"),
            signature_b=_bytes(fields["signatureB"], (0, 65), "signatureB"),
            halves=halves,
            packages=tuple(_bytes(raw, range(1, MAX_PACKAGE + 1), f"packages[{n}]") for n, raw in packages),
            made_ms=_whole(fields["madeMs"], "madeMs"),
        )
    )


def _half(data: object, path: str) -> HalfSigned:
    fields = _only(data, _HALF, path)
    return HalfSigned(
        state_from_json(fields["state"]),
        _bytes(fields["signatureA"], (0, 65), f"{path}.signatureA"),
        _bytes(fields["signatureB"], (0, 65), f"{path}.signatureB"),
    )
