"""Combos by name, to and from the legs of one atomic TRADE.

    ETH-27JUN25-3000/3200-CS        call spread: buys the first strike, sells the second; PS with puts
    ETH-27JUN25-3000-STRD           straddle                  ETH-27JUN25-2800/3200-STRG  strangle
    ETH-27JUN25-2800/3000/3200-CBUT butterfly of calls; PBUT of puts; IBUT the iron one (sells the straddle)
    ETH-27JUN25-A/B/C/D-CCON        condor of calls; PCON of puts; ICON the iron one (sells the strangle)
    ETH-27JUN25/26SEP25-3000-CCAL   calendar: sells the near call, buys the far one; PCAL with puts
    ETH-27JUN25/26SEP25-A/B-CDIAG   diagonal: sells the near A, buys the far B; PDIAG with puts
    ETH-27JUN25-2800/3200-RR        risk reversal: buys the call, sells the put
    ETH-27JUN25-2800/3200-COL       collar: buys the perpetual and the put, sells the call; COLF with the future
    ETH-27JUN25-3200-CC             covered call: buys the perpetual, sells the call; CCF with the future
    ETH-27JUN25/26SEP25-FS          future spread: sells the near future, buys the far one
    -1*NAME, 2*NAME, NAME,NAME      any multiple, and any list: custom legs, or a hedge beside a combo

Rules: a combo is a set of legs with ratios (wads, per unit of the combo's size), sorted as the protocol sorts, no
instrument twice, none of ratio zero; buying the combo buys what has a positive ratio. Every combo has a name that reads
back as the same combo. Sizes come out in whole wads or are refused: no leg is ever rounded. Where a feed's symbol holds
a character of this grammar it is written as 0x and 64 digits.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from channeld.core.errors import ChanneldError, InputError
from channeld.core.instruments import (
    expiry_name,
    feed_text,
    instrument_name,
    parse_expiry,
    parse_feed,
    parse_instrument,
)
from channeld.core.state import Instrument, Kind
from channeld.core.wad import WAD, format_decimal, parse_decimal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_COMBO_LEGS: Final = 16
MAX_RATIO: Final = 1_000 * WAD
MAX_NAME: Final = 1_024
_MAX_PRICE: Final = 1 << 96

_CALL, _PUT, _FUTURE, _PERPETUAL = Kind.CALL, Kind.PUT, Kind.FUTURE, Kind.PERPETUAL


class ComboNameError(InputError):
    """A text that names no combo."""

    code = 1225
    advice = "Write ETH-27JUN25-3000/3200-CS, or legs with ratios such as 1*ETH-27JUN25-3000-C,-0.4*ETH-PERP."


class ComboSizeError(InputError):
    """A size or price that the legs of a combo cannot have in whole wads."""

    code = 1226
    advice = "Choose a size that every ratio divides, or give the legs and their prices one by one."


@dataclass(frozen=True, slots=True)
class ComboLeg:
    """An instrument and its ratio (wad; negative is sold when the combo is bought)."""

    instrument: Instrument
    ratio: int


@dataclass(frozen=True, slots=True)
class Combo:
    """Legs in the protocol's order."""

    legs: tuple[ComboLeg, ...]

    def __post_init__(self) -> None:
        """Refuse what is no combo.

        Raises:
            ComboNameError: no legs, too many, an instrument twice, or a ratio of zero or too large.
        """
        keys = [leg.instrument.key for leg in self.legs]
        if not 1 <= len(keys) <= MAX_COMBO_LEGS:
            raise ComboNameError(f"a combo has 1 to {MAX_COMBO_LEGS} legs, not {len(keys)}")
        if any(first >= second for first, second in itertools.pairwise(keys)):
            raise ComboNameError("a combo names each instrument once, in the protocol's order")
        if any(not 0 < abs(leg.ratio) <= MAX_RATIO for leg in self.legs):
            raise ComboNameError(f"a ratio lies within {MAX_RATIO // WAD}, and is not zero")

    def __neg__(self) -> Combo:
        """The combo sold."""
        return Combo(tuple(ComboLeg(leg.instrument, -leg.ratio) for leg in self.legs))

    def sizes(self, size: int) -> tuple[tuple[Instrument, int], ...]:
        """What each leg trades for `size` of the combo (wads; negative sells it).

        Raises:
            ComboSizeError: a leg's size would not be a whole number of wads.
        """
        found = []
        for leg in self.legs:
            delta, rest = divmod(leg.ratio * size, WAD)
            if rest or not delta:
                raise ComboSizeError(
                    f"{format_decimal(size)} of the combo gives {instrument_name(leg.instrument)} no whole size"
                )
            found.append((leg.instrument, delta))
        return tuple(found)

    def cost(self, prices: Mapping[Instrument, int], size: int = WAD) -> int:
        """What `size` of the combo costs at the legs' prices, wads rounded down: negative where it pays."""
        return sum(leg.ratio * prices[leg.instrument] * size for leg in self.legs) // (WAD * WAD)


@dataclass(frozen=True, slots=True)
class _Structure:
    """A named combo. legs: (kind, index of expiry, index of strike, ratio in units); -1 for none."""

    title: str
    expiries: int
    strikes: int
    legs: tuple[tuple[Kind, int, int, int], ...]
    ascending: bool = True


def _covered(kind: Kind, expiry: int) -> tuple[Kind, int, int, int]:
    return (kind, expiry, -1, 1)


STRUCTURES: Final[dict[str, _Structure]] = {
    "CS": _Structure("call spread", 1, 2, ((_CALL, 0, 0, 1), (_CALL, 0, 1, -1)), ascending=False),
    "PS": _Structure("put spread", 1, 2, ((_PUT, 0, 0, 1), (_PUT, 0, 1, -1)), ascending=False),
    "STRD": _Structure("straddle", 1, 1, ((_CALL, 0, 0, 1), (_PUT, 0, 0, 1))),
    "STRG": _Structure("strangle", 1, 2, ((_PUT, 0, 0, 1), (_CALL, 0, 1, 1))),
    "CBUT": _Structure("call butterfly", 1, 3, ((_CALL, 0, 0, 1), (_CALL, 0, 1, -2), (_CALL, 0, 2, 1))),
    "PBUT": _Structure("put butterfly", 1, 3, ((_PUT, 0, 0, 1), (_PUT, 0, 1, -2), (_PUT, 0, 2, 1))),
    "IBUT": _Structure(
        "iron butterfly", 1, 3, ((_PUT, 0, 0, 1), (_PUT, 0, 1, -1), (_CALL, 0, 1, -1), (_CALL, 0, 2, 1))
    ),
    "CCON": _Structure("call condor", 1, 4, ((_CALL, 0, 0, 1), (_CALL, 0, 1, -1), (_CALL, 0, 2, -1), (_CALL, 0, 3, 1))),
    "PCON": _Structure("put condor", 1, 4, ((_PUT, 0, 0, 1), (_PUT, 0, 1, -1), (_PUT, 0, 2, -1), (_PUT, 0, 3, 1))),
    "ICON": _Structure("iron condor", 1, 4, ((_PUT, 0, 0, 1), (_PUT, 0, 1, -1), (_CALL, 0, 2, -1), (_CALL, 0, 3, 1))),
    "CCAL": _Structure("call calendar", 2, 1, ((_CALL, 0, 0, -1), (_CALL, 1, 0, 1))),
    "PCAL": _Structure("put calendar", 2, 1, ((_PUT, 0, 0, -1), (_PUT, 1, 0, 1))),
    "CDIAG": _Structure("call diagonal", 2, 2, ((_CALL, 0, 0, -1), (_CALL, 1, 1, 1)), ascending=False),
    "PDIAG": _Structure("put diagonal", 2, 2, ((_PUT, 0, 0, -1), (_PUT, 1, 1, 1)), ascending=False),
    "RR": _Structure("risk reversal", 1, 2, ((_PUT, 0, 0, -1), (_CALL, 0, 1, 1))),
    "COL": _Structure("collar", 1, 2, (_covered(_PERPETUAL, -1), (_PUT, 0, 0, 1), (_CALL, 0, 1, -1))),
    "COLF": _Structure("collar on the future", 1, 2, (_covered(_FUTURE, 0), (_PUT, 0, 0, 1), (_CALL, 0, 1, -1))),
    "CC": _Structure("covered call", 1, 1, (_covered(_PERPETUAL, -1), (_CALL, 0, 0, -1))),
    "CCF": _Structure("covered call on the future", 1, 1, (_covered(_FUTURE, 0), (_CALL, 0, 0, -1))),
    "FS": _Structure("future spread", 2, 0, ((_FUTURE, 0, -1, -1), (_FUTURE, 1, -1, 1))),
}

_DATE = r"(?:\d{1,2}[A-Za-z]{3}(?:\d{4}|\d{2})(?:T\d{4}(?:\d{2})?)?|@\d{1,20})"
_STRIKE = r"\d{1,40}(?:\.\d{1,18})?"
_STRUCTURED = re.compile(
    rf"(?P<feed>[^,*/+\s]+?)-(?P<dates>{_DATE}(?:/{_DATE})?)(?:-(?P<strikes>{_STRIKE}(?:/{_STRIKE}){{0,3}}))?"
    rf"-(?P<code>{'|'.join(STRUCTURES)})",
    re.ASCII | re.IGNORECASE,
)
_TERM = re.compile(r"(?:(?P<ratio>[+-]?\d{1,4}(?:\.\d{1,18})?)\*)?(?P<name>[^*]+)", re.ASCII)


def _refuse(text: object, why: str) -> NoReturn:
    shown = text if isinstance(text, str) and len(text) <= 80 else "the text"
    raise ComboNameError(f"{shown!r} is no combo: {why}")


def build(code: str, feed: bytes, expiries: Sequence[int], strikes: Sequence[int]) -> Combo:
    """The combo of a structure's code. expiries: Unix seconds; strikes: wads.

    Raises:
        ComboNameError: an unknown code, a wrong number of expiries or strikes, or ones that do not rise.
    """
    structure = STRUCTURES.get(code.upper())
    if structure is None:
        _refuse(code, f"the structures are {', '.join(STRUCTURES)}")
    if (len(expiries), len(strikes)) != (structure.expiries, structure.strikes):
        _refuse(
            code, f"a {structure.title} has {structure.expiries} expiries and {structure.strikes} strikes, not as given"
        )
    if any(near >= far for near, far in itertools.pairwise(expiries)):
        _refuse(code, "the near expiry comes first")
    if structure.ascending and any(low >= high for low, high in itertools.pairwise(strikes)):
        _refuse(code, f"the strikes of a {structure.title} must rise")
    legs = []
    for kind, expiry, strike, ratio in structure.legs:
        try:
            instrument = Instrument(
                kind, feed, expiries[expiry] if expiry >= 0 else 0, strikes[strike] if strike >= 0 else 0
            )
        except ChanneldError as error:
            _refuse(code, str(error))
        legs.append(ComboLeg(instrument, ratio * WAD))
    return _combo(legs, code)


def _combo(legs: Sequence[ComboLeg], text: str) -> Combo:
    by_key = {leg.instrument.key: leg for leg in legs}
    if len(by_key) != len(legs):
        _refuse(text, "it names an instrument twice")
    return Combo(tuple(by_key[key] for key in sorted(by_key)))


def _named(name: str) -> Combo:
    """A structure, or a single instrument."""
    match = _STRUCTURED.fullmatch(name)
    if match is None:
        return Combo((ComboLeg(parse_instrument(name), WAD),))
    expiries = [parse_expiry(text) for text in match["dates"].split("/")]
    strikes = [parse_decimal(text) for text in (match["strikes"] or "").split("/") if text]
    return build(match["code"], parse_feed(match["feed"]), expiries, strikes)


def parse_combo(text: str) -> Combo:
    """The combo of a name; a single instrument's name is a combo of one leg.

    Raises:
        ComboNameError, InstrumentNameError, MalformedNumberError: not a name.
    """
    if not isinstance(text, str) or not 0 < len(text) <= MAX_NAME:
        _refuse(text, f"a name has 1 to {MAX_NAME} characters")
    legs: list[ComboLeg] = []
    for part in text.split(","):
        match = _TERM.fullmatch(part.strip())
        if match is None:
            _refuse(text, "each part is NAME or RATIO*NAME")
        ratio = parse_decimal(match["ratio"]) if match["ratio"] else WAD
        for leg in _named(match["name"]).legs:
            product, rest = divmod(leg.ratio * ratio, WAD)
            if rest or not product:
                _refuse(text, "a ratio of zero")
            legs.append(ComboLeg(leg.instrument, product))
    return _combo(legs, text)


def _feed(feed: bytes) -> str:
    text = feed_text(feed)
    return "0x" + feed.hex() if re.search(r"[,*/+\s]", text) else text


def _leg_name(instrument: Instrument) -> str:
    return _feed(instrument.feed) + instrument_name(instrument).removeprefix(feed_text(instrument.feed))


def _recognise(combo: Combo) -> str | None:
    feeds = {leg.instrument.feed for leg in combo.legs}
    if len(feeds) > 1 or len(combo.legs) < 2:
        return None
    (feed,) = feeds
    dates = sorted({leg.instrument.expiry for leg in combo.legs if leg.instrument.expiry})
    strikes = sorted({leg.instrument.strike for leg in combo.legs if leg.instrument.is_option})
    for code, structure in STRUCTURES.items():
        if (structure.expiries, len(structure.legs)) != (len(dates), len(combo.legs)):
            continue
        for order in itertools.product(strikes, repeat=structure.strikes) if structure.strikes <= 2 else [strikes]:
            try:
                found = build(code, feed, dates, order)
            except ComboNameError:
                continue
            if found == combo:
                days = "/".join(expiry_name(date) for date in dates)
                middle = "-" + "/".join(format_decimal(strike) for strike in order) if order else ""
                return f"{_feed(feed)}-{days}{middle}-{code}"
    return None


def combo_name(combo: Combo) -> str:
    """The name of a combo: its structure's where it has one, else its legs with their ratios."""
    if len(combo.legs) == 1 and combo.legs[0].ratio == WAD:
        return _leg_name(combo.legs[0].instrument)
    name = _recognise(combo)
    if name is not None:
        return name
    name = _recognise(-combo)
    if name is not None:
        return "-1*" + name
    return ",".join(f"{format_decimal(leg.ratio)}*{_leg_name(leg.instrument)}" for leg in combo.legs)


def allocate(combo: Combo, net: int, fair: Mapping[Instrument, int]) -> dict[Instrument, int]:
    """Prices of the legs (wads) that cost exactly `net` for one unit of the combo, near their fair values.

    The whole difference goes to one leg, that with the greatest value; the money is the same wherever it stands, since
    all legs are one trade and every mark settles it.

    Raises:
        ComboSizeError: no leg can carry the difference in whole wads at a price from 0 to 2**96.
    """
    prices = {leg.instrument: fair[leg.instrument] for leg in combo.legs}
    missing = net * WAD - sum(leg.ratio * prices[leg.instrument] for leg in combo.legs)
    for leg in sorted(combo.legs, key=lambda leg: (-prices[leg.instrument], leg.instrument.key)):
        shift, rest = divmod(missing, leg.ratio)
        price = prices[leg.instrument] + shift
        if not rest and 0 <= price < _MAX_PRICE:
            prices[leg.instrument] = price
            return prices
    raise ComboSizeError(f"no leg can carry a net price of {format_decimal(net)} in whole wads")


def unit_of(combo: Combo) -> int:
    """The smallest size (wads) of the combo whose legs are whole: every size is a multiple of it."""
    return math.lcm(*(WAD // math.gcd(abs(leg.ratio), WAD) for leg in combo.legs))
