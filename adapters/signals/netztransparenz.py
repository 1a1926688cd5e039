"""The four German transmission operators: https://ds.netztransparenz.de/api/v1, free account (their extranet gives an OAuth client).

One ``series`` per table: ``curtailment`` (renewable power that will have to be curtailed and is offered to new loads instead, by
relief region, ahead: paragraph 13k EnWG), ``redispatch`` (renewable plants told to reduce, as reported), ``price`` (the spot price
of the EEG) or ``negative_price`` (its flags, afterwards). Facts that bite: CSV with ``;`` and decimal commas; ``N.A.``, ``N.E.`` and
``-`` are unknown; dates in two notations; ``bis 00:00`` is the next day's; the unit stands in a column or in its name.
"""

import csv
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta, timezone
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlencode

from gridsched import (
    AdapterError,
    Batch,
    Dropped,
    Fault,
    Http,
    InvalidInput,
    Layout,
    Quality,
    Row,
    SignalKind,
    body_of,
    named_zone,
    number,
    read_json,
    read_options,
    read_rows,
    refuse_old,
)

QUARTER = timedelta(minutes=15)
LONGEST = timedelta(days=14)  # of a redispatch measure; a longer one is taken for a slip
MARGIN = timedelta(minutes=1)  # a token is not used in its last minute
OFFSET_H = {"UTC": 0, "CET": 1, "MEZ": 1, "CEST": 2, "MESZ": 2}
Record = Mapping[str, str]


class Series(StrEnum):
    """Which part of the service a table asks for."""

    CURTAILMENT = "curtailment"
    REDISPATCH = "redispatch"
    PRICE = "price"
    NEGATIVE_PRICE = "negative_price"


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a series is: where it lies, what it gives, and how old its newest slot may be."""

    path: str
    signal: SignalKind
    quality: Quality
    max_age: timedelta = timedelta(0)


ABOUT = {
    Series.CURTAILMENT: About(path="AusgewieseneABSM", signal=SignalKind.CURTAILMENT, quality=Quality.FORECAST),
    Series.REDISPATCH: About(path="redispatch", signal=SignalKind.CURTAILMENT, quality=Quality.ESTIMATED, max_age=timedelta(days=1)),
    Series.PRICE: About(path="Spotmarktpreise", signal=SignalKind.PRICE, quality=Quality.MEASURED),
    Series.NEGATIVE_PRICE: About(path="NegativePreise", signal=SignalKind.SURPLUS, quality=Quality.MEASURED, max_age=timedelta(days=1)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``region``: a relief region such as ``H1``, for ``redispatch`` an operator such as ``50Hertz``; without one all are added up.

    A flag has no watts: ``surplus_when_negative`` (MW) says what one is worth. ``hours`` chooses the flags: for a price that is
    negative for 1, 3, 4 or 6 hours running, or 15 for each quarter-hour.
    """

    zone: str
    client_id: str
    client_secret: str
    series: Series = Series.CURTAILMENT
    region: str = ""
    hours: int = 15
    surplus_when_negative: float | None = None
    max_age: timedelta | None = None
    url: str = "https://ds.netztransparenz.de/api/v1/data"
    token_url: str = "https://identity.netztransparenz.de/users/connect/token"  # noqa: S105 - an address

    def __post_init__(self) -> None:
        if self.series is Series.NEGATIVE_PRICE and self.surplus_when_negative is None:
            raise InvalidInput("a flag is no signal by itself; give surplus_when_negative, the MW that one is worth here")
        if self.hours not in (1, 3, 4, 6, 15):
            raise InvalidInput(f"hours {self.hours} is none of 1, 3, 4, 6, or 15 for quarter-hours")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One slot with its value as written or as added up."""

    label: str
    start: datetime
    end: datetime
    value: str | float | None
    unit: str


class Netztransparenz:
    """Power that is otherwise lost in Germany, by place, and the spot price."""

    name = "netztransparenz"
    signals: tuple[SignalKind, ...] = (SignalKind.CURTAILMENT, SignalKind.PRICE, SignalKind.SURPLUS)
    every = timedelta(minutes=15)

    def __init__(self, table: Mapping[str, object], *, site: Path) -> None:  # noqa: ARG002 - part of the protocol
        self.options = options = read_options(Options, table, adapter=self.name)
        self.zone = options.zone
        self._about = about = ABOUT[options.series]
        self.signals = (about.signal,)
        source = f"{self.name}/{options.series}"
        self._layout = Layout(zone=self.zone, signal=about.signal, source=source, resolution=QUARTER, quality=about.quality)
        self._token: tuple[str, datetime] | None = None

    def fetch(self, http: Http, now: datetime) -> Batch:
        """Today and tomorrow; of what is reported afterwards, yesterday as well."""
        flags = f"/{self.options.hours}" if self.options.series is Series.NEGATIVE_PRICE else ""
        url = f"{self.options.url}/{self._about.path}{flags}/{_window(now, since=self._about.max_age)}"
        response = http.get(url, headers={"Authorization": f"Bearer {self._bearer(http, now)}"})
        if response.status == 401:
            self._token = None  # the next fetch logs in again
        return self.parse(body_of(response, source=self.name), now=now)

    def parse(self, payload: bytes, *, now: datetime) -> Batch:
        """The readings in ``payload``; raises AdapterError."""
        dropped: list[Dropped] = []
        rows: dict[Layout, list[Row]] = {}
        try:
            for slot in self._slots(*_records(payload, dropped), dropped):
                layout = replace(self._layout, resolution=slot.end - slot.start, unit=slot.unit)
                rows.setdefault(layout, []).append(Row(label=slot.label, stamp=slot.start.isoformat(), value=slot.value))
        except InvalidInput as error:
            raise AdapterError(f"{self.name}: {error}", kind=Fault.WRONG_UNIT) from error
        batch = sum((read_rows(layout, rows[layout], known_at=now) for layout in rows), Batch(dropped=tuple(dropped)))
        batch = replace(batch, readings=tuple(sorted(batch, key=lambda reading: reading.start)))
        max_age = self._about.max_age if self.options.max_age is None else self.options.max_age
        return refuse_old(batch, now=now, max_age=max_age, source=self._layout.source)

    def _bearer(self, http: Http, now: datetime) -> str:
        """The token of the last login while it lasts, else a new one."""
        if self._token is None or now >= self._token[1]:
            secret = {"client_id": self.options.client_id, "client_secret": self.options.client_secret}
            body = urlencode({"grant_type": "client_credentials", **secret}).encode()
            response = http.post(self.options.token_url, body=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
            answer = read_json(body_of(response, source=f"{self.name} login"), source=f"{self.name} login")
            token, lasts_s = (answer.get("access_token"), answer.get("expires_in")) if isinstance(answer, dict) else (None, None)
            if not isinstance(token, str) or not isinstance(lasts_s, int):
                raise AdapterError(f"{self.name} login answered without access_token and expires_in", kind=Fault.MALFORMED)
            self._token = token, now + timedelta(seconds=min(lasts_s, 86_400)) - MARGIN
        return self._token[0]

    def _slots(self, header: list[str], records: list[Record], dropped: list[Dropped]) -> Iterable[Slot]:
        series = self.options.series
        if series is Series.REDISPATCH:
            return _reduced(header, records, self.options.region, dropped)
        if series is Series.CURTAILMENT:
            read = _offered(header, self.options.region)
        elif series is Series.PRICE:
            read = _priced(header)
        else:
            read = _flagged(header, self.options.hours, f"{self.options.surplus_when_negative}")
        return _each(records, read, dropped)


def _window(now: datetime, *, since: timedelta) -> str:
    """Whole German days as the service writes moments, in UTC."""
    tz = named_zone("Europe/Berlin")
    today = now.astimezone(tz).date()
    midnights = (datetime.combine(day, time(), tzinfo=tz).astimezone(UTC) for day in (today - since, today + timedelta(days=2)))
    return "/".join(f"{midnight:%Y-%m-%dT%H:%M:%S}" for midnight in midnights)


def _records(payload: bytes, dropped: list[Dropped]) -> tuple[list[str], list[Record]]:
    """The header, and every whole line by column, with its place under "line"."""
    name = Netztransparenz.name
    try:
        lines = list(csv.reader(payload.decode("utf-8-sig").splitlines(), delimiter=";", quoting=csv.QUOTE_NONE))
    except (UnicodeDecodeError, csv.Error) as error:
        raise AdapterError(f"{name} answered with something that is not CSV in UTF-8: {error}", kind=Fault.MALFORMED) from error
    header = lines[0] if lines else []
    if len(lines) > 1 and len(lines[-1]) < len(header):
        raise AdapterError(f"{name} answered with CSV that is cut short in line {len(lines)}", kind=Fault.TRUNCATED)
    records: list[Record] = []
    for place, line in enumerate(lines[1:], start=2):
        if len(line) == len(header):
            records.append({**dict(zip(header, line, strict=True)), "line": f"line {place}"})
        else:
            dropped.append(Dropped(row=f"line {place}", reason=f"it has {len(line)} fields, not {len(header)}"))
    return header, records


def _require(header: list[str], *names: str) -> None:
    if missing := [name for name in names if name not in header]:
        found = ", ".join(header)[:200]
        raise AdapterError(f"{Netztransparenz.name} has no column {', '.join(missing)}; it has {found}", kind=Fault.MALFORMED)


def _each(records: Iterable[Record], read: Callable[[Record], Slot], dropped: list[Dropped]) -> Iterator[Slot]:
    """The slot of every record; what cannot be read costs only itself."""
    for record in records:
        try:
            yield read(record)
        except (InvalidInput, ValueError, OverflowError) as error:
            dropped.append(Dropped(row=record["line"], reason=str(error)))


def _moment(day: str, clock: str, zone: str) -> datetime:
    """A date in either notation, a time of day and the zone named beside them, in UTC; raises InvalidInput or ValueError."""
    if zone not in OFFSET_H:
        raise InvalidInput(f"{zone!r} is none of the zones {', '.join(OFFSET_H)}")
    iso = re.sub(r"^(\d\d)\.(\d\d)\.(\d{4})$", r"\3-\2-\1", day.strip())
    local = datetime.fromisoformat(f"{iso}T{clock.strip()}")
    return local.replace(tzinfo=timezone(timedelta(hours=OFFSET_H[zone]))).astimezone(UTC)


def _span(record: Record, since: str, until: str) -> tuple[datetime, datetime]:
    """From ``von`` to ``bis``, which name times of one day: midnight at the end is the next day's."""
    start, end = _moment(record["Datum"], record["von"], record[since]), _moment(record["Datum"], record["bis"], record[until])
    return start, end if end > start else end + timedelta(days=1)


def _offered(header: list[str], region: str) -> Callable[[Record], Slot]:
    """Offered power: of one relief region, or of all together where all are known."""
    wanted = [region] if region else [name for name in header if re.fullmatch(r"[A-Z]\d+", name)] or ["H1"]
    _require(header, "Datum", "Zeitzone", "von", "bis", "Einheit", *wanted)

    def read(record: Record) -> Slot:
        start, end = _span(record, "Zeitzone", "Zeitzone")
        powers = [number(record[name]) for name in wanted]
        known = [power for power in powers if power is not None]
        total = math.fsum(known) if len(known) == len(powers) else None
        return Slot(label=record["line"], start=start, end=end, value=total, unit=record["Einheit"])

    return read


def _priced(header: list[str]) -> Callable[[Record], Slot]:
    """The spot price, in the unit that its column's name tells."""
    column = next((name for name in header if name.startswith("Spotmarktpreis in ")), "Spotmarktpreis in ct/kWh")
    _require(header, "Datum", "von", "Zeitzone von", "bis", "Zeitzone bis", column)

    def read(record: Record) -> Slot:
        start, end = _span(record, "Zeitzone von", "Zeitzone bis")
        return Slot(label=record["line"], start=start, end=end, value=record[column], unit=column.removeprefix("Spotmarktpreis in "))

    return read


def _flagged(header: list[str], hours: int, worth_mw: str) -> Callable[[Record], Slot]:
    """``worth_mw`` where the flag is up, 0 where it is down; stamps are in UTC."""
    column = "Negativ" if "Negativ" in header else f"Stunde{hours}"
    _require(header, "Datum", column)
    length = QUARTER if hours == 15 else 4 * QUARTER
    worth = {"1": worth_mw, "ja": worth_mw, "0": "0", "nein": "0"}

    def read(record: Record) -> Slot:
        day, _, clock = record["Datum"].partition(" ")
        start, flag = _moment(day, clock, "UTC"), record[column]
        return Slot(label=record["line"], start=start, end=start + length, value=worth.get(flag.casefold(), flag), unit="MW")

    return read


def _reduced(header: list[str], records: Iterable[Record], operator: str, dropped: list[Dropped]) -> Iterator[Slot]:
    """Mean power that renewable plants were told to give up, per quarter-hour that any measure touches; the rest is unknown."""
    _require(header, *("BEGINN_DATUM", "BEGINN_UHRZEIT", "ZEITZONE_VON", "ENDE_DATUM", "ENDE_UHRZEIT", "ZEITZONE_BIS"))
    _require(header, "RICHTUNG", "MITTLERE_LEISTUNG_MW", "ANWEISENDER_UENB", "PRIMAERENERGIEART")

    def read(record: Record) -> Slot:
        start = _moment(record["BEGINN_DATUM"], record["BEGINN_UHRZEIT"], record["ZEITZONE_VON"])
        end = _moment(record["ENDE_DATUM"], record["ENDE_UHRZEIT"], record["ZEITZONE_BIS"])
        if not timedelta(0) < end - start <= LONGEST:
            raise InvalidInput(f"a measure from {start} to {end} is not plausible")
        green = record["PRIMAERENERGIEART"].casefold().startswith("erneuerbar") and "reduzieren" in record["RICHTUNG"].casefold()
        power = number(record["MITTLERE_LEISTUNG_MW"]) if green and operator in ("", record["ANWEISENDER_UENB"]) else 0.0
        return Slot(label=record["line"], start=start, end=end, value=math.nan if power is None else power, unit="MW")

    total: dict[datetime, float] = {}
    for measure in _each(records, read, dropped):
        at = measure.start.replace(minute=measure.start.minute // 15 * 15, second=0, microsecond=0)
        while at < measure.end:
            covered = (min(measure.end, at + QUARTER) - max(measure.start, at)) / QUARTER
            total[at] = total.get(at, 0.0) + covered * float(measure.value or 0)
            at += QUARTER
    for at, power in total.items():
        yield Slot(label=f"{at}", start=at, end=at + QUARTER, value=None if math.isnan(power) else power, unit="MW")
