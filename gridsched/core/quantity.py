"""Numbers with units and durations, as people write them: ``"2 kW"``, ``"12 ct/kWh"``, ``"15m"``; and what to say of a misspelt key."""

import difflib
import math
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import timedelta
from decimal import Decimal
from types import MappingProxyType

from gridsched.core.errors import InvalidInput

__all__ = ["duration", "factor", "quantity", "unknown_key"]

_TO: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "W": {"W": 1.0, "kW": 1e3, "MW": 1e6, "GW": 1e9},
        "J": {"J": 1.0, "Wh": 3.6e3, "kWh": 3.6e6, "MWh": 3.6e9, "GWh": 3.6e12},
        "EUR/MWh": {"EUR/MWh": 1.0, "EUR/kWh": 1e3, "ct/kWh": 10.0},
        "EUR": {"EUR": 1.0, "ct": 0.01},
        "g/kWh": {
            "g/kWh": 1.0,
            "gCO2/kWh": 1.0,
            "gCO2eq/kWh": 1.0,
            "kg/MWh": 1.0,
            "kg/kWh": 1e3,
            "lb/MWh": 0.45359237,
            "lbs/MWh": 0.45359237,
        },
        "share": {"share": 1.0, "%": 0.01},
        "level": {"level": 1.0},
    }
)
_NUMBER = re.compile(r"\s*([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*(.*?)\s*")
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d)\s*")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def factor(unit: str, canonical: str) -> float:
    """What a value in ``unit`` is multiplied by to be in ``canonical``; raises InvalidInput that names the right units.

    Spaces and, where it leaves no doubt, upper and lower case do not matter: providers write ``EUR / MWh`` and ``Eur/MWh``.
    """
    known = _TO[canonical]
    plain = unit.replace(" ", "").replace("€", "EUR")
    if plain in known:
        return known[plain]
    alike = [name for name in known if name.casefold() == plain.casefold()]
    if len(alike) == 1:
        return known[alike[0]]
    raise InvalidInput(f"{unit!r} is not a unit this can be given in; use {_either(known)}")


def quantity(written: object, canonical: str) -> float:
    """A number, or a string of a number with its unit, in ``canonical``. A bare number is taken to be canonical already."""
    if isinstance(written, bool) or not isinstance(written, int | float | Decimal | str):
        raise InvalidInput(f"{written!r} is not a number; write it as a number in {canonical} or as text with its unit")
    if not isinstance(written, str):
        value, unit = _float(written), canonical
    else:
        match = _NUMBER.fullmatch(written)
        if match is None:
            raise InvalidInput(f"{written!r} is not a number with a unit; write it like '10 {canonical}'")
        value, unit = float(match[1]), match[2] or canonical
    try:
        value *= factor(unit, canonical)
    except InvalidInput as error:
        raise InvalidInput(f"{written!r}: {error}") from error
    if not math.isfinite(value):
        raise InvalidInput(f"{written!r} is not a finite number")
    return value


def _float(written: float | Decimal) -> float:
    try:
        return float(written)
    except OverflowError as error:  # such an integer may be too long even to be shown
        raise InvalidInput(f"the number is too large; the largest is {sys.float_info.max:.2g}") from error


def duration(written: object) -> timedelta:
    """``"90s"``, ``"15m"``, ``"1h30m"``, ``"2d"`` as a timedelta; a bare number is refused, because it has no unit (but 0 is 0)."""
    if isinstance(written, timedelta):
        return written
    if written == 0 and not isinstance(written, bool):
        return timedelta(0)
    text = written.strip() if isinstance(written, str) else ""
    parts = _PART.findall(text)
    if not text or "".join(_PART.split(text)[::3]).strip() or not parts:
        raise InvalidInput(f"{written!r} is not a duration; write it like '90s', '15m', '2h' or '1h30m'")
    try:
        return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))
    except OverflowError as error:
        raise InvalidInput(f"{written!r} is longer than any calendar") from error


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The sentence for a key that is not in the vocabulary: it names the nearest valid one, or all of them."""
    names = sorted(str(name) for name in known)
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    return f"unknown key {key!r}; " + (f"did you mean {near[0]!r}?" if near else f"valid are {', '.join(names)}")


def _either(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last
