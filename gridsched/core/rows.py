"""From a provider's rows to readings: stamps become slots, numbers get their canonical unit, bad rows are set aside and named.

Providers differ in what a stamp means (start or end of the slot), in its notation (ISO with or without offset, epoch seconds
or milliseconds), in units, scale and sign. A ``Layout`` declares all of it; nothing is guessed from the neighbouring row.
Null means unknown and gives no reading. One bad row never costs the others: it lands in ``Batch.dropped`` with its reason.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from gridsched.core.errors import InvalidInput
from gridsched.core.quantity import factor
from gridsched.core.signal import UNIT, Quality, Reading, SignalKind

__all__ = ["Batch", "Dropped", "Layout", "Row", "Stamp", "StampFormat", "moment", "named_zone", "number", "read_rows"]

_MISSING = frozenset({"", "-", "n.a.", "n.e.", "n/a", "na", "nan", "null", "none"})


class Stamp(StrEnum):
    """Which end of its slot a row's time names."""

    START = "start"
    END = "end"


class StampFormat(StrEnum):
    """How a row's time is written."""

    ISO = "iso"
    EPOCH_S = "epoch_s"
    EPOCH_MS = "epoch_ms"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A row that gave no reading although it had a value: which one, and why."""

    row: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one fetch brought: readings by slot, and the rows set aside. Iterating gives the readings."""

    readings: tuple[Reading, ...] = ()
    dropped: tuple[Dropped, ...] = ()

    def __iter__(self) -> Iterator[Reading]:
        return iter(self.readings)

    def __len__(self) -> int:
        return len(self.readings)

    def __add__(self, other: "Batch") -> "Batch":
        return Batch(readings=self.readings + other.readings, dropped=self.dropped + other.dropped)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What rows mean. ``value * factor(unit) * scale + offset`` is the reading's value, ``offset`` in the canonical unit.

    ``unit`` may also be an energy (``MWh``) for a signal in watts: energy per slot. ``timezone`` is for stamps without an
    offset; without it they are refused.
    """

    zone: str
    signal: SignalKind
    source: str
    resolution: timedelta
    unit: str = ""
    scale: float = 1.0
    offset: float = 0.0
    stamp: Stamp = Stamp.START
    stamp_format: StampFormat = StampFormat.ISO
    timezone: str = ""
    quality: Quality = Quality.MEASURED

    def __post_init__(self) -> None:
        if not self.resolution > timedelta(0):
            raise InvalidInput(f"resolution must be longer than 0, got {self.resolution}")
        if self.timezone:
            named_zone(self.timezone)
        _ = self.multiplier

    @property
    def multiplier(self) -> float:
        """From a value as written to the canonical unit."""
        canonical = UNIT[self.signal]
        try:
            return factor(self.unit or canonical, canonical) * self.scale
        except InvalidInput:
            if canonical != "W":
                raise
            try:
                return factor(self.unit, "J") / self.resolution.total_seconds() * self.scale
            except InvalidInput:
                raise InvalidInput(f"{self.unit!r} is not a unit for {self.signal}; use W, kW, MW, GW, or Wh to GWh per slot") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row as found: ``label`` says where, ``stamp`` and ``value`` are as the provider wrote them.

    Where the provider also writes the slot's ``end`` (with its offset), a row of another length than the layout's is dropped.
    ``quality`` is for answers that mix measured and forecast rows: this row's instead of the layout's.
    """

    label: str
    stamp: object
    value: object
    end: object = None
    quality: Quality | None = None


def named_zone(name: str) -> ZoneInfo:
    """The IANA time zone; raises InvalidInput for any other name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidInput(f"timezone {name!r} is not an IANA name such as Europe/Berlin") from error


def number(written: object) -> float | None:
    """A value as a float, None where the provider says it has none; raises InvalidInput for anything else.

    Strings are read with a decimal point or a decimal comma, not with thousands separators.
    """
    if written is None or (isinstance(written, str) and written.strip().casefold() in _MISSING):
        return None
    if isinstance(written, bool) or not isinstance(written, int | float | str):
        raise InvalidInput(f"{written!r} is not a number")
    try:
        value = float(written.strip().replace(",", ".") if isinstance(written, str) else written)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"{written!r} is not a number") from error
    if not math.isfinite(value):
        raise InvalidInput(f"{written!r} is not a finite number")
    return value


def moment(written: object, form: StampFormat, timezone: tzinfo | None = None) -> datetime:
    """A stamp as a datetime: in UTC where it says its offset, else local and still to be resolved in ``timezone``.

    Raises InvalidInput for an unreadable stamp, and for one without an offset when no ``timezone`` is declared.
    """
    try:
        if form is not StampFormat.ISO:
            seconds = number(written)
            if seconds is None:
                raise InvalidInput("the stamp is missing")
            return datetime.fromtimestamp(seconds / (1000 if form is StampFormat.EPOCH_MS else 1), UTC)
        read = datetime.fromisoformat(str(written).strip())
        if read.utcoffset() is not None:
            return read.astimezone(UTC)
        if timezone is not None:
            read = read.replace(tzinfo=timezone)
            read.astimezone(UTC)  # raises at either end of the calendar
            return read
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidInput(f"stamp {written!r} is not readable as {form}") from error
    raise InvalidInput(f"stamp {written!r} has no UTC offset; declare the timezone it is written in")


def read_rows(layout: Layout, rows: Iterable[Row], *, known_at: datetime) -> Batch:
    """Readings of ``rows`` in any order, sorted by slot, and the rows that gave none although they should have.

    Stamps without offset inside the hour that a clock change repeats are told apart by their order: the first of two is
    summer time (the second, where the newest row comes first). Where such a stamp comes only once, it could mean either
    hour, so it is dropped. The same slot twice with the same value is kept once; with another value the later row is dropped.
    """
    tz = named_zone(layout.timezone) if layout.timezone else None
    dropped: list[Dropped] = []
    read: list[tuple[Row, datetime, float]] = []
    for row in rows:
        try:
            value = number(row.value)
            stamp = moment(row.stamp, layout.stamp_format, tz)
            if value is not None or _repeats(stamp):
                read.append((row, stamp, math.nan if value is None else value))
        except InvalidInput as error:
            dropped.append(Dropped(row=row.label, reason=str(error)))
    found: dict[datetime, Reading] = {}
    for row, stamp, value in _resolved(read, dropped):
        if math.isnan(value):
            continue
        try:
            reading = _reading(layout, row, stamp, value, known_at)
        except InvalidInput as error:
            dropped.append(Dropped(row=row.label, reason=str(error)))
            continue
        twin = found.setdefault(reading.start, reading)
        if twin.value != reading.value:
            dropped.append(
                Dropped(row=row.label, reason=f"second value {reading.value:g} for {reading.start}; kept the first, {twin.value:g}")
            )
    return Batch(readings=tuple(found[start] for start in sorted(found)), dropped=tuple(dropped))


def _reading(layout: Layout, row: Row, stamp: datetime, value: float, known_at: datetime) -> Reading:
    try:
        start = stamp if layout.stamp is Stamp.START else stamp - layout.resolution
        end = start + layout.resolution
    except OverflowError as error:
        raise InvalidInput(f"stamp {stamp} lies outside the calendar") from error
    if row.end is not None and moment(row.end, layout.stamp_format) != end:
        raise InvalidInput(f"{row.stamp}..{row.end} does not last {layout.resolution}")
    return Reading(
        zone=layout.zone,
        signal=layout.signal,
        start=start,
        end=end,
        value=value * layout.multiplier + layout.offset,
        quality=row.quality or layout.quality,
        source=layout.source,
        known_at=known_at,
    )


def _repeats(stamp: datetime) -> bool:
    """Whether this local time comes twice that day."""
    return stamp.replace(fold=0).utcoffset() > stamp.replace(fold=1).utcoffset()  # type: ignore[operator]


def _skipped(stamp: datetime) -> bool:
    """Whether this local time is jumped over that day."""
    return stamp.replace(fold=0).utcoffset() < stamp.replace(fold=1).utcoffset()  # type: ignore[operator]


def _resolved(read: list[tuple[Row, datetime, float]], dropped: list[Dropped]) -> Iterator[tuple[Row, datetime, float]]:
    """The same rows with every stamp in UTC."""
    times: dict[datetime, int] = {}
    for _, stamp, _ in read:
        if stamp.tzinfo is not UTC and _repeats(stamp):
            times[stamp] = times.get(stamp, 0) + 1
    newest_first = bool(read) and read[0][1] > read[-1][1]
    seen: dict[datetime, int] = {}
    for row, stamp, value in read:
        if stamp.tzinfo is UTC:
            yield row, stamp, value
        elif _skipped(stamp):
            dropped.append(Dropped(row=row.label, reason=f"{stamp:%Y-%m-%d %H:%M} does not exist: the clock jumps over it"))
        elif stamp not in times:
            yield row, stamp.astimezone(UTC), value
        elif times[stamp] != 2:
            reason = f"{stamp:%Y-%m-%d %H:%M} could be summer or winter time: it should come twice and comes {times[stamp]} times"
            dropped.append(Dropped(row=row.label, reason=reason))
        else:
            yield row, stamp.replace(fold=seen.setdefault(stamp, int(newest_first))).astimezone(UTC), value
            seen[stamp] = 1 - seen[stamp]
