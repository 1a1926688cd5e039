"""A recorded signal from a CSV file, with few questions asked: what is not said is read from the header, and told in one line.

Nothing is guessed in silence: ``Trace.told`` says which columns, unit, resolution and time zone were taken, and where two
readings of the file are possible it is refused with the option that decides.
"""

import csv
import gzip
import io
import itertools
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import numpy as np

from gridsched.core.errors import InvalidInput
from gridsched.core.grid import Grid, grid_of
from gridsched.core.quantity import factor
from gridsched.core.rows import Layout, Row, StampFormat, moment, named_zone, number, read_rows
from gridsched.core.signal import UNIT, SignalKind

__all__ = ["Columns", "Trace", "read_trace"]

_WORDS: Mapping[SignalKind, tuple[str, ...]] = MappingProxyType(
    {
        SignalKind.PRICE: ("price", "preis", "prix", "precio", "prijs", "prezzo"),
        SignalKind.CARBON: ("carbon intensity", "carbon", "co2", "co₂"),
        SignalKind.SURPLUS: ("surplus", "excess", "export"),
        SignalKind.RENEWABLE_SHARE: ("renewable", "erneuerbar"),
        SignalKind.RESIDUAL_LOAD: ("residual",),
        SignalKind.CURTAILMENT: ("curtail",),
    }
)
_SPELT = (
    *("EUR/MWh", "EUR/kWh", "ct/kWh", "gCO2eq/kWh", "gCO2/kWh", "g/kWh", "kg/kWh", "kg/MWh"),
    *("GWh", "MWh", "kWh", "GW", "MW", "kW", "W", "%"),
)
_UNITS = re.compile(rf"(?<![a-z])({'|'.join(_SPELT)}|percent(?:age)?)(?![a-z])", re.IGNORECASE)
_PEEK = 60
"""Rows looked at to tell what a column holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """What the user says of the file; whatever is empty is read from its header. ``timezone`` is for stamps without offset."""

    time: str = ""
    value: str = ""
    unit: str = ""
    timezone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """``grid`` holds ``signal`` in its canonical unit, NaN where the file knows nothing; ``told`` says how the file was read."""

    name: str
    signal: SignalKind
    grid: Grid
    told: str
    dropped: tuple[str, ...] = field(default=())


def read_trace(path: Path, signal: SignalKind, columns: Columns | None = None) -> Trace:
    """The trace in the CSV file at ``path`` (``.gz`` too). Raises InvalidInput that names the file and the remedy."""
    asked = columns or Columns()
    names, rows = _table(path)
    time = _time_column(path, names, rows, asked.time)
    value = _value_column(path, names, rows, signal, asked.value, time)
    unit = asked.unit or _unit_of(names[value], signal, path)
    timezone = asked.timezone or ("UTC" if re.search(r"(?<![a-z])(utc|gmt)(?![a-z])", names[time], re.IGNORECASE) else "")
    slot = _resolution(path, rows, time, timezone)
    layout = Layout(zone="trace", signal=signal, source=path.name, resolution=slot, unit=unit, timezone=timezone)
    found = (
        Row(label=f"line {line}", stamp=_iso(row[time]), value=row[value])
        for line, row in enumerate(rows, start=2)
        if len(row) > max(time, value)
    )
    batch = read_rows(layout, found, known_at=datetime(1970, 1, 1, tzinfo=UTC))
    dropped = tuple(f"{row.row}: {row.reason}" for row in batch.dropped)
    if not batch.readings:
        raise InvalidInput(f"{path}: no row of column {names[value]!r} could be used ({dropped[0] if dropped else 'they are empty'})")
    grid = grid_of(batch, start=batch.readings[0].start, end=batch.readings[-1].end, slot=slot)
    return Trace(
        name=path.name,
        signal=signal,
        grid=grid,
        told=_told(path, grid, names[time], names[value], unit, timezone, dropped),
        dropped=dropped,
    )


def _told(path: Path, grid: Grid, time: str, value: str, unit: str, timezone: str, dropped: Sequence[str]) -> str:
    minutes = int(grid.slot / timedelta(minutes=1))
    gaps = int(np.isnan(grid.values).sum())
    parts = [
        f"{path.name}: {value!r} in {unit} by {time!r}" + (f" ({timezone})" if timezone else ""),
        f"{len(grid)} slots of {minutes} minutes from {grid.start:%Y-%m-%d %H:%M} to {grid.end:%Y-%m-%d %H:%M} UTC",
    ]
    parts += [f"{gaps} of them unknown"] if gaps else []
    parts += [f"{len(dropped)} rows not used, the first: {dropped[0]}"] if dropped else []
    return "; ".join(parts)


def _table(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except (EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not CSV in UTF-8 (or gzip of it): {error}") from error
    head = text.partition("\n")[0]
    separator = max(",;\t|", key=head.count)
    names, *rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator)) or [[]]
    if not rows:
        raise InvalidInput(f"{path} has no rows below its header")
    return [name.strip() for name in names], rows


def _time_column(path: Path, names: list[str], rows: list[list[str]], asked: str) -> int:
    if asked:
        return _named(path, names, asked, "--time")
    for index in range(len(names)):
        stamps = _stamps([row[index] for row in rows[:_PEEK] if len(row) > index])
        if stamps and len(set(stamps)) > len(stamps) // 2:
            return index
    raise InvalidInput(f"{path}: no column holds stamps such as 2025-01-01T00:00Z; name one of {_list(names)} with --time")


def _value_column(path: Path, names: list[str], rows: list[list[str]], signal: SignalKind, asked: str, time: int) -> int:
    if asked:
        return _named(path, names, asked, "--value")
    numeric = [
        index for index in range(len(names)) if index != time and _is_numeric([row[index] for row in rows[:_PEEK] if len(row) > index])
    ]
    for word in _WORDS.get(signal, ()):
        alike = [index for index in numeric if word in names[index].casefold()]
        if len(alike) > 1:
            raise InvalidInput(f"{path}: {_list([names[i] for i in alike])} could all be the {signal}; choose one with --value")
        if alike:
            return alike[0]
    if len(numeric) == 1:
        return numeric[0]
    what = (
        f"which of {_list([names[i] for i in numeric])} is the {signal}"
        if numeric
        else f"that any column is the {signal}; none holds numbers"
    )
    raise InvalidInput(f"{path} does not say {what}; name it with --value")


def _named(path: Path, names: list[str], asked: str, option: str) -> int:
    if asked not in names:
        raise InvalidInput(f"{path} has no column {asked!r}; it has {_list(names)}; name one with {option}")
    return names.index(asked)


def _list(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _iso(text: str) -> str:
    """``2025-01-01 00:00:00+0100`` and alike as Python reads them."""
    return text.strip().replace("/", "-") if re.match(r"\d{4}/", text) else text.strip()


def _stamps(cells: Sequence[str]) -> list[datetime]:
    """The cells as stamps, empty where one is none."""
    try:
        return [moment(_iso(cell), StampFormat.ISO, UTC) for cell in cells]
    except InvalidInput:
        return []


def _is_numeric(cells: Sequence[str]) -> bool:
    try:
        return any(number(cell) is not None for cell in cells)
    except InvalidInput:
        return False


def _unit_of(name: str, signal: SignalKind, path: Path) -> str:
    """The unit that a header tells: ``price_eur_per_mwh``, ``Load [MWh]``, ``surplus_w``."""
    plain = re.sub(r"_per_|\s+per\s+", "/", name, flags=re.IGNORECASE).replace("_", " ").replace("€", "EUR").replace("₂", "2")
    plain = re.sub(r"(?i)\b(eur|ct|g|kg) (mwh|kwh)\b", r"\1/\2", plain)
    for told in _UNITS.findall(plain):
        unit = "%" if told.casefold().startswith("percent") else told
        if _fits(unit, signal):
            return next(name for name in _SPELT if name.casefold() == unit.casefold())
    if UNIT[signal] == "W":
        raise InvalidInput(f"{path}: the header {name!r} does not tell the unit of the {signal}; say it with --unit, for example --unit MW")
    return UNIT[signal]


def _fits(unit: str, signal: SignalKind) -> bool:
    for canonical in (UNIT[signal], *(["J"] if UNIT[signal] == "W" else [])):
        try:
            factor(unit, canonical)
        except InvalidInput:
            continue
        return True
    return False


def _resolution(path: Path, rows: list[list[str]], time: int, timezone: str) -> timedelta:
    """How long a slot lasts: the step that comes most often."""
    first = next(cell for row in rows if len(row) > time and (cell := row[time].strip()))
    zone = named_zone(timezone) if timezone else None
    try:
        moment(_iso(first), StampFormat.ISO, zone)
    except InvalidInput as error:
        if zone is None:
            raise InvalidInput(
                f"{path}: {first!r} has no UTC offset; say whose clock it is, for example --timezone Europe/Berlin"
            ) from error
        raise InvalidInput(f"{path}: {error}") from error
    stamps = sorted(stamp for row in rows[: 40 * _PEEK] if len(row) > time for stamp in _stamps([row[time]]))
    steps = Counter(later - earlier for earlier, later in itertools.pairwise(stamps) if later > earlier)
    if not steps:
        raise InvalidInput(f"{path} has fewer than two different stamps; a trace needs at least a few weeks of them")
    slot = steps.most_common(1)[0][0]
    if timedelta(days=1) % slot or slot > timedelta(hours=1):
        raise InvalidInput(f"{path}: slots of {slot} are not supported; use a trace of 15, 30 or 60 minutes")
    return slot
