"""StromGedacht (TransnetBW): the state of the grid in Baden-Württemberg by postcode: https://api.stromgedacht.de, no key.

One ``series`` per table: ``states`` (red is an alarm) or ``forecast`` (residual load and, as a surplus, how far it is below the
service's own threshold for "supergreen"). Facts that bite: states come as runs, not as a grid, and the first one starts at the
moment of asking, to a fraction of a second; minus one is the best state here, and the worst one elsewhere; other postcodes get
a 400 that says so.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from gridsched import (
    AdapterError,
    Batch,
    Dropped,
    Fault,
    Http,
    InvalidInput,
    Layout,
    Quality,
    Response,
    Row,
    SignalKind,
    StampFormat,
    body_of,
    moment,
    number,
    read_json,
    read_options,
    read_rows,
    refuse_old,
)

QUARTER = timedelta(minutes=15)
AHEAD_H = 48
LONGEST = timedelta(days=8)
STATES = {-1: "supergreen", 1: "green", 2: "yellow", 3: "orange", 4: "red"}


class Series(StrEnum):
    """Which part of the service a table asks for."""

    STATES = "states"
    FORECAST = "forecast"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``zip`` is a postcode in Baden-Württemberg; a state from ``alarm_from`` on is an alarm (3 orange, 4 red)."""

    zone: str
    zip: str
    series: Series = Series.STATES
    alarm_from: int = 4
    url: str = "https://api.stromgedacht.de/v1"

    def __post_init__(self) -> None:
        if not (self.zip.isdecimal() and len(self.zip) == 5):
            raise InvalidInput(f"zip {self.zip!r} is not a postcode of five digits")
        if self.alarm_from not in STATES:
            raise InvalidInput(f"alarm_from {self.alarm_from} is none of {', '.join(f'{n} ({name})' for n, name in STATES.items())}")


class StromGedacht:
    """A grid alarm, or residual load and surplus ahead, for one postcode."""

    name = "stromgedacht"
    signals: tuple[SignalKind, ...] = (SignalKind.ALARM, SignalKind.RESIDUAL_LOAD, SignalKind.SURPLUS)
    every = timedelta(minutes=5)

    def __init__(self, table: Mapping[str, object], *, site: Path) -> None:  # noqa: ARG002 - part of the protocol
        self.options = options = read_options(Options, table, adapter=self.name)
        self.zone = options.zone
        states = options.series is Series.STATES
        self.signals = (SignalKind.ALARM,) if states else (SignalKind.RESIDUAL_LOAD, SignalKind.SURPLUS)
        self.every = StromGedacht.every if states else 3 * StromGedacht.every
        self._layout = Layout(
            zone=self.zone,
            signal=self.signals[0],
            source=f"{self.name}/{options.series}",
            resolution=QUARTER,
            unit="" if states else "MW",
            quality=Quality.FORECAST,
        )

    def fetch(self, http: Http, now: datetime) -> Batch:
        """From now on for two days."""
        options = self.options
        if options.series is Series.STATES:
            path, span = "statesRelative", {"hoursInFuture": str(AHEAD_H), "hoursInPast": "0"}
        else:
            start = _quarter(now)
            path, span = "forecast", {"from": _written(start), "to": _written(start + timedelta(hours=AHEAD_H))}
        return self.parse(_body(http.get(f"{options.url}/{path}", params={"zip": options.zip, **span})), now=now)

    def parse(self, payload: bytes, *, now: datetime) -> Batch:
        """The readings in ``payload``; raises AdapterError."""
        document = read_json(payload, source=self.name)
        if self.options.series is Series.STATES:
            batch = self._alarms(_listed(document, "states"), now)
        else:
            batch = self._balance(_listed(document, "residualLoad"), _listed(document, "superGreenThreshold"), now)
        return refuse_old(batch, now=now, max_age=timedelta(0), source=self._layout.source)

    def _alarms(self, runs: list[Any], now: datetime) -> Batch:
        """Runs cut into quarter-hours of the clock, so that all answers speak of the same slots; of two states in one the worse counts."""
        worst: dict[datetime, int] = {}
        dropped = []
        for index, run in enumerate(runs):
            try:
                state, quarters = _run(run)
            except (InvalidInput, OverflowError) as error:
                dropped.append(Dropped(row=f"states[{index}]", reason=str(error)))
                continue
            worst |= {at: max(state, worst.get(at, state)) for at in quarters}
        rows = [Row(label=f"{at}", stamp=at.isoformat(), value=int(state >= self.options.alarm_from)) for at, state in worst.items()]
        return Batch(dropped=tuple(dropped)) + read_rows(self._layout, rows, known_at=now)

    def _balance(self, residual: list[Any], threshold: list[Any], now: datetime) -> Batch:
        """Residual load, and how far it lies below the threshold of the same slot."""
        limits = read_rows(self._layout, _rows("superGreenThreshold", threshold), known_at=now)
        loads = read_rows(self._layout, _rows("residualLoad", residual), known_at=now)
        limit_w = {reading.start: reading.value for reading in limits}
        surplus = [replace(r, signal=SignalKind.SURPLUS, value=limit_w[r.start] - r.value) for r in loads if r.start in limit_w]
        return loads + Batch(readings=tuple(surplus), dropped=limits.dropped)


def _quarter(at: datetime) -> datetime:
    """The quarter-hour of the clock that ``at`` lies in, in UTC."""
    at = at.astimezone(UTC)
    return at.replace(minute=at.minute // 15 * 15, second=0, microsecond=0)


def _written(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


def _body(response: Response) -> bytes:
    """The body of a good answer; a 400 explains itself (RFC 9457, problem details)."""
    if response.status == 400:
        problem = None
        with contextlib.suppress(AdapterError):
            problem = read_json(response.body, source=StromGedacht.name)
        if isinstance(problem, dict) and (said := problem.get("detail") or problem.get("title")):
            raise AdapterError(f"{StromGedacht.name} does not accept the request and says {said!r}; check zip", kind=Fault.REFUSED)
    return body_of(response, source=StromGedacht.name)


def _listed(document: object, key: str) -> list[Any]:
    found = document.get(key) if isinstance(document, dict) else None
    if not isinstance(found, list):
        raise AdapterError(f"{StromGedacht.name} answered without a list of {key}", kind=Fault.MALFORMED)
    return found


def _rows(key: str, listed: list[Any]) -> Iterator[Row]:
    for index, row in enumerate(listed):
        whole = row if isinstance(row, dict) else {"value": "not a row"}
        yield Row(label=f"{key}[{index}]", stamp=whole.get("dateTime"), value=whole.get("value"))


def _run(run: object) -> tuple[int, list[datetime]]:
    """The state of one run and the quarter-hours it touches; raises InvalidInput, or OverflowError at the end of the calendar."""
    state = number(run.get("state")) if isinstance(run, dict) else None
    if not isinstance(run, dict) or state not in STATES:
        raise InvalidInput(f"{run!r} is not one of the states {', '.join(map(str, STATES))}")
    start, end = (moment(run.get(side), StampFormat.ISO) for side in ("from", "to"))
    if not timedelta(0) < end - start <= LONGEST:
        raise InvalidInput(f"a state from {start} to {end} is not plausible")
    first = _quarter(start)
    return int(state), [first + nth * QUARTER for nth in range(-((first - end) // QUARTER))]
