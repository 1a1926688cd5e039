"""Any signal from a CSV or JSON file (``.gz`` too), with its unit, resolution and stamps declared; live or as a replay.

``known`` says when each value became known: ``fetch`` (live: when we read it), ``start`` or ``end`` of its slot, or
``day_ahead``: 13:00 market time on the day before. So under a scaled clock every reading is seen only when it would have been.
A gap stays unknown; stamps without offset need a ``timezone``.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from enum import StrEnum
from pathlib import Path

from gridsched import (
    AdapterError,
    Batch,
    Fault,
    Http,
    Layout,
    Quality,
    Reading,
    Row,
    SignalKind,
    Stamp,
    StampFormat,
    named_zone,
    read_json,
    read_options,
    read_rows,
    refuse_old,
)

GATE = time(13, 0)


class Known(StrEnum):
    """When a value became known."""

    FETCH = "fetch"
    START = "start"
    END = "end"
    DAY_AHEAD = "day_ahead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``time`` and ``value`` name columns (JSON: keys, dots descend); ``rows`` is the path to a JSON list, empty for the document itself.

    A fetch gives what is known by then and ended at most ``lookback`` ago. ``value * unit * scale + offset`` is the reading.
    """

    zone: str
    path: str
    signal: SignalKind
    resolution: timedelta
    time: str
    value: str
    unit: str
    rows: str = ""
    scale: float = 1.0
    offset: float = 0.0
    stamp: Stamp = Stamp.START
    time_format: StampFormat = StampFormat.ISO
    timezone: str = ""
    separator: str = ","
    quality: Quality = Quality.MEASURED
    known: Known = Known.FETCH
    market_timezone: str = "Europe/Berlin"
    lookback: timedelta = timedelta(days=2)
    max_age: timedelta | None = None

    def __post_init__(self) -> None:
        named_zone(self.market_timezone)
        self.layout()

    def layout(self) -> Layout:
        """What the file's rows mean."""
        return Layout(
            zone=self.zone,
            signal=self.signal,
            source=f"file:{Path(self.path).name}",
            resolution=self.resolution,
            unit=self.unit,
            scale=self.scale,
            offset=self.offset,
            stamp=self.stamp,
            stamp_format=self.time_format,
            timezone=self.timezone,
            quality=self.quality,
        )


class File:
    """A file that someone else writes, or a recorded series to replay."""

    name = "file"
    signals: tuple[SignalKind, ...] = tuple(SignalKind)
    every = timedelta(minutes=5)

    def __init__(self, table: Mapping[str, object], *, site: Path) -> None:
        self.options = options = read_options(Options, table, adapter=self.name)
        self.zone = options.zone
        self.signals = (options.signal,)
        self._path = site / options.path
        self._market = named_zone(options.market_timezone)
        self._layout = options.layout()
        self._read: tuple[tuple[int, int], Batch] | None = None

    def fetch(self, http: Http, now: datetime) -> Batch:  # noqa: ARG002 - part of the protocol
        """What the file says that is known at ``now``; the file is parsed again only when it has changed."""
        try:
            state = self._path.stat()
            version = (state.st_mtime_ns, state.st_size)
            if self._read is None or self._read[0] != version:
                self._read = (version, self.parse(self._path.read_bytes(), now=now))
        except OSError as error:
            raise AdapterError(f"file {self._path} cannot be read: {error.strerror}", kind=Fault.UNAVAILABLE) from error
        return self._window(self._read[1], now)

    def parse(self, payload: bytes, *, now: datetime) -> Batch:
        """Every reading in ``payload``, each known when ``known`` says; raises AdapterError."""
        text = _unzipped(payload, self.name)
        rows = _json_rows(text, self.options) if ".json" in self._path.suffixes else _csv_rows(text, self.options)
        batch = read_rows(self._layout, rows, known_at=now)
        return replace(batch, readings=tuple(replace(r, known_at=self._known_at(r, now)) for r in batch))

    def _known_at(self, reading: Reading, now: datetime) -> datetime:
        known = self.options.known
        if known is Known.START:
            return reading.start
        if known is Known.END:
            return reading.end
        if known is Known.DAY_AHEAD:
            day_before = reading.start.astimezone(self._market).date() - timedelta(days=1)
            return datetime.combine(day_before, GATE, tzinfo=self._market)
        return now

    def _window(self, batch: Batch, now: datetime) -> Batch:
        oldest = now - self.options.lookback
        live = self.options.known is Known.FETCH
        recent = [r for r in batch if r.end > oldest and (live or r.known_at <= now)]
        window = replace(batch, readings=tuple(replace(r, known_at=now) for r in recent) if live else tuple(recent))
        if self.options.max_age is None:
            return window
        return refuse_old(window, now=now, max_age=self.options.max_age, source=f"file {self._path}")


def _unzipped(payload: bytes, source: str) -> bytes:
    if payload[:2] != b"\x1f\x8b":
        return payload
    try:
        return gzip.decompress(payload)
    except (OSError, EOFError, zlib.error) as error:
        raise AdapterError(f"{source}: the gzip file is cut short or damaged: {error}", kind=Fault.TRUNCATED) from error


def _csv_rows(text: bytes, options: Options) -> Iterator[Row]:
    if not text.strip():
        raise AdapterError(f"{options.path} is empty", kind=Fault.EMPTY)
    try:
        table = csv.DictReader(io.StringIO(text.decode("utf-8-sig"), newline=""), delimiter=options.separator)
        names = table.fieldnames or []
        for column in (options.time, options.value):
            if column not in names:
                raise AdapterError(f"{options.path} has no column {column!r}; it has {', '.join(names)}", kind=Fault.MALFORMED)
        for row in table:
            yield Row(label=f"line {table.line_num}", stamp=row[options.time], value=row[options.value])
    except (UnicodeDecodeError, csv.Error) as error:
        raise AdapterError(f"{options.path} is not CSV in UTF-8: {error}", kind=Fault.MALFORMED) from error


def _json_rows(text: bytes, options: Options) -> Iterator[Row]:
    rows = read_json(text, source=options.path)
    for key in filter(None, options.rows.split(".")):
        rows = rows.get(key) if isinstance(rows, dict) else None
    if not isinstance(rows, list):
        raise AdapterError(f"{options.path} has no list at {options.rows or 'the top'}", kind=Fault.MALFORMED)
    for index, row in enumerate(rows):
        stamp, value = _inside(row, options.time), _inside(row, options.value)
        yield Row(label=f"row {index}", stamp=stamp, value=value)


def _inside(row: object, path: str) -> object:
    for key in path.split("."):
        row = row.get(key) if isinstance(row, dict) else None
    return row
