"""Energy-Charts (Fraunhofer ISE), API v2: https://api.energy-charts.info/v2, no key, CC BY 4.0 for most price zones.

One ``series`` per table: ``price`` (day-ahead), ``power`` (residual load and renewable share as measured, some hours late) or
``signal`` (the traffic light: red is an alarm; its share is a forecast). Facts that bite: slots not published yet are null;
two series of ``public_power`` are per cent inside an answer in MW; users measured a limit of 2 requests a minute.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from gridsched import (
    AdapterError,
    Batch,
    Fault,
    Http,
    InvalidInput,
    Layout,
    Publication,
    Quality,
    Row,
    SignalKind,
    body_of,
    named_zone,
    read_json,
    read_options,
    read_rows,
    refuse_old,
)

URL = "https://api.energy-charts.info/v2"
RED = -1


class Series(StrEnum):
    """Which part of the service a table asks for."""

    PRICE = "price"
    POWER = "power"
    SIGNAL = "signal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``surplus_below_residual`` (MW) makes ``power`` give a surplus: how far the residual load is below it."""

    zone: str
    series: Series = Series.PRICE
    bidding_zone: str = "DE-LU"
    country: str = "de"
    timezone: str = "Europe/Berlin"
    surplus_below_residual: float | None = None
    max_age: timedelta = timedelta(hours=6)
    url: str = URL

    def __post_init__(self) -> None:
        named_zone(self.timezone)


class EnergyCharts:
    """European day-ahead prices, measured residual load and renewable share, and a traffic light."""

    name = "energy_charts"
    signals: tuple[SignalKind, ...] = (SignalKind.PRICE, SignalKind.SURPLUS, SignalKind.RENEWABLE_SHARE, SignalKind.ALARM)
    every = timedelta(minutes=15)

    def __init__(self, table: Mapping[str, object], *, site: Path) -> None:  # noqa: ARG002 - part of the protocol
        self.options = read_options(Options, table, adapter=self.name)
        self.zone = self.options.zone
        self._tz = named_zone(self.options.timezone)
        self.signals = _signals(self.options)
        self.publishes = _publication(self.options)

    def fetch(self, http: Http, now: datetime) -> Batch:
        """Today and tomorrow for prices, yesterday and today for power; the traffic light takes no dates."""
        options = self.options
        today = now.astimezone(self._tz).date()
        day = timedelta(days=1)
        path, params = {
            Series.PRICE: ("price", {"bzn": options.bidding_zone, "start": str(today), "end": str(today + day)}),
            Series.POWER: ("public_power", {"country": options.country, "start": str(today - day), "end": str(today)}),
            Series.SIGNAL: ("signal", {"country": options.country}),
        }[options.series]
        response = http.get(f"{options.url}/{path}", params=params)
        return self.parse(body_of(response, source=self.name), now=now)

    def parse(self, payload: bytes, *, now: datetime) -> Batch:
        """The readings in ``payload``, an answer of the v2 shape; raises AdapterError."""
        document = _document(payload, self.options)
        try:
            batch = sum((self._one(document, signal, now) for signal in self.signals), Batch())
        except InvalidInput as error:
            raise AdapterError(f"{self.name}: {error}", kind=Fault.WRONG_UNIT) from error
        max_age = timedelta(0) if self.options.series is Series.PRICE else self.options.max_age
        return refuse_old(batch, now=now, max_age=max_age, source=self.name)

    def _one(self, document: dict[str, Any], signal: SignalKind, now: datetime) -> Batch:
        series_id, scale, offset = self._column(signal)
        layout = Layout(
            zone=self.zone,
            signal=signal,
            source=f"{self.name}/{self.options.series}",
            resolution=_resolution(document),
            unit=_unit(document, series_id),
            scale=scale,
            offset=offset,
            quality=Quality.FORECAST if self.options.series is Series.SIGNAL else Quality.MEASURED,
        )
        rows = [_row(index, row, series_id) for index, row in enumerate(document["data"])]
        if signal is SignalKind.ALARM:
            rows = [Row(label=row.label, stamp=row.stamp, value=None if row.value is None else int(row.value == RED)) for row in rows]
        return read_rows(layout, rows, known_at=now)

    def _column(self, signal: SignalKind) -> tuple[str, float, float]:
        """Series id, scale and offset of ``signal``; a surplus is how far the residual load lies below the given one."""
        if signal is SignalKind.PRICE:
            return "day_ahead_price", 1.0, 0.0
        if signal is SignalKind.SURPLUS:
            return "residual_load", -1.0, (self.options.surplus_below_residual or 0.0) * 1e6
        if signal is SignalKind.ALARM:
            return "signal", 1.0, 0.0
        return ("share" if self.options.series is Series.SIGNAL else "renewable_share_of_generation"), 1.0, 0.0


def _publication(options: Options) -> Publication | None:
    """The day-ahead auction's results come out at about 12:57; after 15:00 only a broken-down auction is still awaited."""
    if options.series is not Series.PRICE:
        return None
    return Publication(opens=time(12, 50), closes=time(15), timezone=options.timezone)


def _signals(options: Options) -> tuple[SignalKind, ...]:
    if options.series is Series.PRICE:
        return (SignalKind.PRICE,)
    if options.series is Series.SIGNAL:
        return (SignalKind.ALARM, SignalKind.RENEWABLE_SHARE)
    with_surplus = options.surplus_below_residual is not None
    return (SignalKind.RENEWABLE_SHARE, SignalKind.SURPLUS) if with_surplus else (SignalKind.RENEWABLE_SHARE,)


def _document(payload: bytes, options: Options) -> dict[str, Any]:
    """The answer, if it has the v2 shape and is about the place that was asked for."""
    document = read_json(payload, source=EnergyCharts.name)
    if not isinstance(document, dict) or not isinstance(document.get("data"), list) or not isinstance(document.get("series"), list):
        detail = document.get("detail") or document.get("message") if isinstance(document, dict) else None
        said = f" and says {detail!r}" if detail else "; is this API v2?"
        raise AdapterError(f"{EnergyCharts.name} answered without data and series{said}", kind=Fault.MALFORMED)
    key, asked = ("bidding_zone", options.bidding_zone) if options.series is Series.PRICE else ("country", options.country)
    if document.get(key) not in (asked, None):
        raise AdapterError(f"{EnergyCharts.name} answered for {key} {document[key]!r}, not {asked!r}", kind=Fault.MALFORMED)
    return document


def _resolution(document: dict[str, Any]) -> timedelta:
    minutes = document.get("interval_minutes")
    if isinstance(minutes, bool) or not isinstance(minutes, int) or not 0 < minutes <= 24 * 60:
        raise AdapterError(f"{EnergyCharts.name} gives no usable interval_minutes: {minutes!r}", kind=Fault.MALFORMED)
    return timedelta(minutes=minutes)


def _unit(document: dict[str, Any], series_id: str) -> str:
    """The series' own unit where it has one, else the answer's; the traffic light's shares are per cent, its levels have none."""
    series = {str(entry.get("id")): entry for entry in document["series"] if isinstance(entry, dict)}
    if series_id not in series:
        raise AdapterError(f"{EnergyCharts.name} has no series {series_id!r}, only {', '.join(sorted(series))}", kind=Fault.MALFORMED)
    if series_id == "signal":
        return ""
    return str(series[series_id].get("unit") or ("%" if series_id == "share" else document.get("unit") or "?"))


def _row(index: int, row: object, series_id: str) -> Row:
    values = row.get("values") if isinstance(row, dict) else None
    stamp = row.get("timestamp") if isinstance(row, dict) else None
    return Row(label=f"data[{index}]", stamp=stamp, value=values.get(series_id) if isinstance(values, dict) else "no values")
