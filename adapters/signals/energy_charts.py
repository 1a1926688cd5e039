"""Energy-Charts (Fraunhofer ISE), API v2: https://api.energy-charts.info/v2, no key, CC BY 4.0 for most price zones.

One ``series`` per table: ``price`` (day-ahead), ``power`` (residual load and renewable share as measured, some hours late),
``forecast`` (the same for today and tomorrow, from the day-ahead forecasts of load, wind and sun) or ``signal`` (the traffic
light: red is an alarm; its share is a forecast). Facts that bite: slots not published yet are null, and during trouble a whole
forecast is; two series of ``public_power`` are per cent inside an answer in MW; a share of the load exceeds 100 % where power is
exported; users measured a limit of 2 requests a minute.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
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
    Publication,
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

URL = "https://api.energy-charts.info/v2"
RED = -1
LIGHTS = (RED, 0, 1, 2)
FORECASTS = ("load", "solar", "wind")


class Series(StrEnum):
    """Which part of the service a table asks for."""

    PRICE = "price"
    POWER = "power"
    FORECAST = "forecast"
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
    """European day-ahead prices, residual load and renewable share as measured and as forecast, and a traffic light."""

    name = "energy_charts"
    signals: tuple[SignalKind, ...] = (
        SignalKind.PRICE,
        SignalKind.SURPLUS,
        SignalKind.RENEWABLE_SHARE,
        SignalKind.RESIDUAL_LOAD,
        SignalKind.ALARM,
    )
    every = timedelta(minutes=15)

    def __init__(self, table: Mapping[str, object], *, site: Path) -> None:  # noqa: ARG002 - part of the protocol
        self.options = read_options(Options, table, adapter=self.name)
        self.zone = self.options.zone
        self._tz = named_zone(self.options.timezone)
        self.signals = _signals(self.options)
        self.every = timedelta(hours=1) if self.options.series is Series.FORECAST else EnergyCharts.every
        self.publishes = _publication(self.options)

    def fetch(self, http: Http, now: datetime) -> Batch:
        """Today and tomorrow for prices and forecasts, yesterday and today for power; the traffic light takes no dates."""
        answers = [http.get(f"{self.options.url}/{path}", params=params) for path, params in self._questions(now)]
        return self.parse(*[body_of(answer, source=self.name) for answer in answers], now=now)

    def _questions(self, now: datetime) -> list[tuple[str, dict[str, str | int]]]:
        options = self.options
        today = now.astimezone(self._tz).date()
        day = timedelta(days=1)
        ahead = {"start": str(today), "end": str(today + day)}
        if options.series is Series.PRICE:
            return [("price", {"bzn": options.bidding_zone, **ahead})]
        if options.series is Series.POWER:
            return [("public_power", {"country": options.country, "start": str(today - day), "end": str(today)})]
        if options.series is Series.SIGNAL:
            return [("signal", {"country": options.country})]
        asked = {"country": options.country, "forecast_type": "day-ahead", **ahead}
        return [("public_power_forecast", {**asked, "production_type": kind}) for kind in FORECASTS]

    def parse(self, *payloads: bytes, now: datetime) -> Batch:
        """The readings in ``payloads``, answers of the v2 shape about one series; raises AdapterError."""
        documents = [_document(payload, self.options) for payload in payloads]
        try:
            if self.options.series is Series.FORECAST:
                batch = self._forecast(documents, now)
            else:
                batch = sum((self._one(documents[0], signal, now) for signal in self.signals), Batch())
        except InvalidInput as error:
            raise AdapterError(f"{self.name}: {error}", kind=Fault.WRONG_UNIT) from error
        max_age = timedelta(0) if self.options.series in (Series.PRICE, Series.FORECAST) else self.options.max_age
        return refuse_old(batch, now=now, max_age=max_age, source=self.name)

    def _one(self, document: dict[str, Any], signal: SignalKind, now: datetime) -> Batch:
        series_id, scale, offset = self._column(signal)
        layout = replace(self._layout(document, signal, series_id), scale=scale, offset=offset)
        rows = [_row(index, row, series_id) for index, row in enumerate(document["data"])]
        dropped: list[Dropped] = []
        if signal is SignalKind.ALARM:
            rows = _changed(rows, _alarm, dropped)
        if signal is SignalKind.RENEWABLE_SHARE:
            rows = _changed(rows, lambda share: min(share, 1 / layout.multiplier), dropped)
        return Batch(dropped=tuple(dropped)) + read_rows(layout, rows, known_at=now)

    def _forecast(self, documents: list[dict[str, Any]], now: datetime) -> Batch:
        """Load less wind and sun, and their share of it, in the slots for which all three are known: null is neither dark nor calm."""
        layouts, parts = [], []
        for kind in FORECASTS:
            document = next((one for one in documents if kind in _series(one)), documents[0])
            layouts.append(self._layout(document, SignalKind.RESIDUAL_LOAD, kind))
            parts.append(read_rows(layouts[-1], [_row(index, row, kind) for index, row in enumerate(document["data"])], known_at=now))
        layout = replace(min(layouts, key=lambda one: one.resolution), unit="W")
        load, solar, wind = (_by_step(part, layout.resolution) for part in parts)
        residual, share = [], []
        for at in load.keys() & solar.keys() & wind.keys():
            green = solar[at] + wind[at]
            residual.append(Row(label=f"{at}", stamp=at.isoformat(), value=load[at] - green))
            share.append(Row(label=f"{at}", stamp=at.isoformat(), value=min(1.0, max(0.0, green / load[at])) if load[at] > 0 else None))
        batch = Batch(dropped=sum((part.dropped for part in parts), ())) + read_rows(layout, residual, known_at=now)
        return batch + read_rows(replace(layout, signal=SignalKind.RENEWABLE_SHARE, unit=""), share, known_at=now)

    def _layout(self, document: dict[str, Any], signal: SignalKind, series_id: str) -> Layout:
        return Layout(
            zone=self.zone,
            signal=signal,
            source=f"{self.name}/{self.options.series}",
            resolution=_resolution(document),
            unit=_unit(document, series_id),
            quality=Quality.FORECAST if self.options.series in (Series.SIGNAL, Series.FORECAST) else Quality.MEASURED,
        )

    def _column(self, signal: SignalKind) -> tuple[str, float, float]:
        """Series id, scale and offset of ``signal``; a surplus is how far the residual load lies below the given one."""
        if signal is SignalKind.PRICE:
            return "day_ahead_price", 1.0, 0.0
        if signal is SignalKind.SURPLUS:
            return "residual_load", -1.0, (self.options.surplus_below_residual or 0.0) * 1e6
        if signal is SignalKind.RENEWABLE_SHARE:
            return ("share" if self.options.series is Series.SIGNAL else "renewable_share_of_generation"), 1.0, 0.0
        return {SignalKind.ALARM: "signal", SignalKind.RESIDUAL_LOAD: "residual_load"}[signal], 1.0, 0.0


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
    balance = (SignalKind.RESIDUAL_LOAD, SignalKind.RENEWABLE_SHARE)
    with_surplus = options.series is Series.POWER and options.surplus_below_residual is not None
    return (*balance, SignalKind.SURPLUS) if with_surplus else balance


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


def _series(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {str(entry.get("id")): entry for entry in document["series"] if isinstance(entry, dict)}


def _unit(document: dict[str, Any], series_id: str) -> str:
    """The series' own unit where it has one, else the answer's; the traffic light's shares are per cent, its levels have none."""
    series = _series(document)
    if series_id not in series:
        raise AdapterError(f"{EnergyCharts.name} has no series {series_id!r}, only {', '.join(sorted(series))}", kind=Fault.MALFORMED)
    if series_id == "signal":
        return ""
    return str(series[series_id].get("unit") or ("%" if series_id == "share" else document.get("unit") or "?"))


def _row(index: int, row: object, series_id: str) -> Row:
    values = row.get("values") if isinstance(row, dict) else None
    stamp = row.get("timestamp") if isinstance(row, dict) else None
    return Row(label=f"data[{index}]", stamp=stamp, value=values.get(series_id) if isinstance(values, dict) else "no values")


def _changed(rows: Iterable[Row], change: Callable[[float], float], dropped: list[Dropped]) -> list[Row]:
    """``rows`` with their values changed, as far as they have one; what is no number, or is refused, goes to ``dropped``."""
    kept = []
    for row in rows:
        try:
            value = number(row.value)
            kept.append(replace(row, value=None if value is None else change(value)))
        except InvalidInput as error:
            dropped.append(Dropped(row=row.label, reason=str(error)))
    return kept


def _alarm(light: float) -> float:
    if light not in LIGHTS:
        raise InvalidInput(f"{light:g} is no light; there are {', '.join(map(str, LIGHTS))}")
    return float(light == RED)


def _by_step(batch: Batch, step: timedelta) -> dict[datetime, float]:
    """Power at every ``step``: over its slot it is taken to be constant."""
    return {r.start + number * step: r.value for r in batch for number in range((r.end - r.start) // step)}
