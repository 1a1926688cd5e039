"""Any signal from any JSON service, by configuration: a URL template, paths to time and value, unit, scale, resolution.

Paths are dotted; numbers are list positions (``data.0.value``). Three shapes are read: a list of rows, parallel lists of
times and values, and a single live value (``time`` left out), which then holds for one ``resolution`` from now.
A meter that counts export as negative takes ``scale = -1``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from string import Formatter

from gridsched import (
    AdapterError,
    Batch,
    Fault,
    Http,
    InvalidInput,
    Layout,
    Quality,
    Row,
    SignalKind,
    Stamp,
    StampFormat,
    body_of,
    read_json,
    read_options,
    read_rows,
    refuse_old,
    value_at,
)

_PLACES = frozenset({f"{side}{form}" for side in ("start", "end") for form in ("", "_s", "_ms", "_date")})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The window asked for is ``[now - before, now + ahead)``.

    In ``url`` it is ``{start}`` and ``{end}`` (ISO, UTC), ``{start_s}``, ``{start_ms}``, ``{start_date}`` and so on.
    An answer whose newest slot ended ``max_age`` ago is refused.
    """

    zone: str
    url: str
    signal: SignalKind
    resolution: timedelta
    value: str
    unit: str
    time: str = ""
    rows: str = ""
    scale: float = 1.0
    offset: float = 0.0
    stamp: Stamp = Stamp.START
    time_format: StampFormat = StampFormat.ISO
    timezone: str = ""
    quality: Quality = Quality.MEASURED
    before: timedelta = timedelta(hours=6)
    ahead: timedelta = timedelta(hours=48)
    max_age: timedelta = timedelta(hours=3)
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_template(self.url)
        self.layout()

    def layout(self) -> Layout:
        """What the answer's rows mean; a single live value starts now."""
        return Layout(
            zone=self.zone,
            signal=self.signal,
            source=f"http_json:{self.zone}/{self.signal}",
            resolution=self.resolution,
            unit=self.unit,
            scale=self.scale,
            offset=self.offset,
            stamp=self.stamp if self.time else Stamp.START,
            stamp_format=self.time_format if self.time else StampFormat.ISO,
            timezone=self.timezone,
            quality=self.quality,
        )


class HttpJson:
    """Every provider without an adapter of its own."""

    name = "http_json"
    signals: tuple[SignalKind, ...] = tuple(SignalKind)
    every = timedelta(minutes=5)

    def __init__(self, table: Mapping[str, object], *, site: Path) -> None:  # noqa: ARG002 - part of the protocol
        self.options = options = read_options(Options, table, adapter=self.name)
        self.zone = options.zone
        self.signals = (options.signal,)
        self._layout = options.layout()

    def fetch(self, http: Http, now: datetime) -> Batch:
        """What the service says about the window around ``now``."""
        options = self.options
        url = options.url.format(**_places("start", now - options.before), **_places("end", now + options.ahead))
        response = http.get(url, headers=options.headers)
        return self.parse(body_of(response, source=self._layout.source), now=now)

    def parse(self, payload: bytes, *, now: datetime) -> Batch:
        """The readings in ``payload``; raises AdapterError."""
        source = self._layout.source
        found = value_at(read_json(payload, source=source), self.options.rows)
        batch = read_rows(self._layout, _rows(found, self.options, now), known_at=now)
        return refuse_old(batch, now=now, max_age=self.options.max_age, source=source)


def _check_template(url: str) -> None:
    try:
        wrong = {name for _, name, _, _ in Formatter().parse(url) if name is not None} - _PLACES
    except ValueError as error:
        raise InvalidInput(f"url {url!r}: {error}") from error
    if wrong:
        raise InvalidInput(f"url has no place {', '.join(sorted(wrong))}; use one of {', '.join(sorted(_PLACES))}")


def _places(side: str, moment: datetime) -> Mapping[str, str]:
    moment = moment.astimezone(UTC).replace(microsecond=0)
    seconds = int(moment.timestamp())
    return {
        side: f"{moment:%Y-%m-%dT%H:%M:%SZ}",
        f"{side}_s": str(seconds),
        f"{side}_ms": str(seconds * 1000),
        f"{side}_date": f"{moment:%Y-%m-%d}",
    }


def _rows(found: object, options: Options, now: datetime) -> Iterable[Row]:
    if not options.time:
        return [Row(label=options.value, stamp=now.isoformat(), value=_live(found, options))]
    if isinstance(found, list):
        return [Row(label=f"row {i}", stamp=value_at(row, options.time), value=value_at(row, options.value)) for i, row in enumerate(found)]
    stamps, values = value_at(found, options.time), value_at(found, options.value)
    if isinstance(stamps, list) and isinstance(values, list) and len(stamps) == len(values):
        return [Row(label=f"row {i}", stamp=s, value=v) for i, (s, v) in enumerate(zip(stamps, values, strict=True))]
    if stamps is not None and not isinstance(stamps, list | dict):
        return [Row(label=options.value, stamp=stamps, value=values)]
    raise AdapterError(
        f"the answer has neither a list at {options.rows or 'its top'!r} nor lists of times and values", kind=Fault.MALFORMED
    )


def _live(found: object, options: Options) -> object:
    value = value_at(found, options.value)
    if value is None:
        raise AdapterError(f"the answer has nothing at {options.value!r}", kind=Fault.NOT_PUBLISHED)
    return value
