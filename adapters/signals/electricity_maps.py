"""Electricity Maps, API v4: https://api.electricitymaps.com/v4, with a token; world-wide. v3 and the older hosts are legacy.

One ``signal`` per table: ``carbon``, ``renewable_share``, ``residual_load`` (their net load) or ``price``. Facts that bite: an
unknown place is silently answered for the caller's own, so that is switched off and the place in the answer compared; answers
come in five shapes; the last hours are estimates and revised for a day; ``isEstimated`` is false even for hours to come; 401
also means that the plan does not cover what was asked.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gridsched import (
    AdapterError,
    Batch,
    Fault,
    Http,
    InvalidInput,
    Layout,
    Quality,
    Reading,
    Row,
    SignalKind,
    body_of,
    read_json,
    read_options,
    read_rows,
    refuse_old,
)

URL = "https://api.electricitymaps.com/v4"
PATH = MappingProxyType(
    {
        SignalKind.CARBON: "carbon-intensity",
        SignalKind.RENEWABLE_SHARE: "renewable-energy",
        SignalKind.RESIDUAL_LOAD: "net-load",
        SignalKind.PRICE: "price-day-ahead",
    }
)
HORIZONS = MappingProxyType({SignalKind.CARBON: (6, 24, 48, 72), SignalKind.RENEWABLE_SHARE: (6, 24, 48, 72)})
GRANULARITY = MappingProxyType({timedelta(minutes=5): "5_minutes", timedelta(minutes=15): "15_minutes", timedelta(hours=1): "hourly"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``area`` is their zone, as ``DK-DK2``. ``forecast = false`` is for plans that know only the last day; prices need no forecast."""

    zone: str
    area: str
    token: str
    signal: SignalKind = SignalKind.CARBON
    forecast: bool = True
    horizon_hours: int = 24
    resolution: timedelta = timedelta(hours=1)
    max_age: timedelta = timedelta(hours=3)
    url: str = URL

    def __post_init__(self) -> None:
        if self.signal not in PATH:
            raise InvalidInput(f"signal: {str(self.signal)!r} is none of {', '.join(PATH)}")
        if self.resolution not in GRANULARITY:
            raise InvalidInput(f"resolution: {self.resolution} is none of 5m, 15m, 1h")
        allowed = HORIZONS.get(self.signal, (24,))
        if self.horizon_hours not in allowed:
            raise InvalidInput(
                f"horizon_hours: {self.signal} is forecast for {', '.join(map(str, allowed))} hours, not {self.horizon_hours}"
            )


class ElectricityMaps:
    """Carbon intensity, renewable share, residual load or price of any place they cover: the last day and, joined to it, the forecast."""

    name = "electricity_maps"
    signals: tuple[SignalKind, ...] = tuple(PATH)
    every = timedelta(minutes=30)

    def __init__(self, table: Mapping[str, object], *, site: Path) -> None:  # noqa: ARG002 - part of the protocol
        self.options = read_options(Options, table, adapter=self.name)
        self.zone = self.options.zone
        self.signals = (self.options.signal,)

    def fetch(self, http: Http, now: datetime) -> Batch:
        """The last 24 hours with every revision of them, and the hours to come that they do not hold; prices come in one."""
        if self.options.signal is SignalKind.PRICE:
            return self._fresh(self._ask(http, now, "combined", {}), now)
        batch = self._ask(http, now, "history", {})
        if self.options.forecast:
            ahead = self._ask(http, now, "forecast", {"horizonHours": self.options.horizon_hours})
            known = {reading.start for reading in batch}
            batch += replace(ahead, readings=tuple(reading for reading in ahead if reading.start not in known))
        return self._fresh(batch, now)

    def parse(self, payload: bytes, *, now: datetime) -> Batch:
        """The readings in ``payload``, an answer of any of the five shapes; raises AdapterError."""
        return self._fresh(self._read(payload, now), now)

    def _ask(self, http: Http, now: datetime, temporality: str, more: Mapping[str, str | int]) -> Batch:
        options = self.options
        params = {"zone": options.area, "temporalGranularity": GRANULARITY[options.resolution], "disableCallerLookup": "true", **more}
        response = http.get(f"{options.url}/{PATH[options.signal]}/{temporality}", params=params, headers={"auth-token": options.token})
        return self._read(body_of(response, source=f"{self.name}/{temporality}"), now)

    def _read(self, payload: bytes, now: datetime) -> Batch:
        options = self.options
        document = self._document(payload)
        entries = self._entries(document)
        try:
            layout = Layout(
                zone=self.zone,
                signal=options.signal,
                source=f"{self.name}/{PATH[options.signal]}",
                resolution=options.resolution,
                unit=_unit(options.signal, document, entries),
                quality=Quality.FORECAST,
            )
        except InvalidInput as error:
            raise AdapterError(f"{self.name}: {error}", kind=Fault.WRONG_UNIT) from error
        key = "carbonIntensity" if options.signal is SignalKind.CARBON else "value"
        batch = read_rows(layout, [_row(index, entry, key) for index, entry in enumerate(entries)], known_at=now)
        if options.signal is SignalKind.PRICE:
            return batch
        return replace(batch, readings=tuple(_sobered(reading, now) for reading in batch))

    def _document(self, payload: bytes) -> dict[str, Any]:
        """The answer, if it is about the place and the resolution that were asked for."""
        document, options = read_json(payload, source=self.name), self.options
        if not isinstance(document, dict):
            raise AdapterError(f"{self.name} answered with something else than an object", kind=Fault.MALFORMED)
        if document.get("status") == "no-data":
            raise AdapterError(f"{self.name} has no data for {options.area}", kind=Fault.NOT_PUBLISHED)
        if document.get("zone") != options.area:
            said = document.get("message") or document.get("error") or f"zone {document.get('zone')!r}"
            raise AdapterError(f"{self.name} answered not for {options.area!r} but with {str(said)[:200]!r}", kind=Fault.MALFORMED)
        granularity, asked = document.get("temporalGranularity"), GRANULARITY[options.resolution]
        if granularity not in (asked, None):
            raise AdapterError(f"{self.name} answered with {granularity!r} values, not {asked!r}", kind=Fault.MALFORMED)
        return document

    def _entries(self, document: dict[str, Any]) -> list[Any]:
        """The list at ``history``, ``forecast`` or ``data``; the latest value alone lies flat in the answer."""
        found = next((document[key] for key in ("history", "forecast", "data") if key in document), [document])
        if not isinstance(found, list):
            raise AdapterError(f"{self.name} answered without a list of values", kind=Fault.MALFORMED)
        return found

    def _fresh(self, batch: Batch, now: datetime) -> Batch:
        max_age = timedelta(0) if self.options.signal is SignalKind.PRICE else self.options.max_age
        return refuse_old(batch, now=now, max_age=max_age, source=self.name)


def _unit(signal: SignalKind, document: dict[str, Any], entries: list[Any]) -> str:
    """The unit most rows speak; carbon intensity has none in the answer and is always g/kWh."""
    if signal is SignalKind.CARBON:
        return "gCO2eq/kWh"
    units = Counter(entry["unit"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("unit"), str))
    return units.most_common(1)[0][0] if units else str(document.get("unit") or "?")


def _row(index: int, entry: object, key: str) -> Row:
    label = f"data[{index}]"
    if not isinstance(entry, dict):
        return Row(label=label, stamp=None, value="not a row")
    return Row(label=label, stamp=entry.get("datetime"), value=entry.get(key), quality=_quality(entry))


def _quality(entry: dict[str, Any]) -> Quality:
    """As the row says it: a price by where it comes from (an exchange or their own model), anything else by ``isEstimated``.

    A row that says nothing is a forecast.
    """
    if "isEstimated" in entry:
        return Quality.MEASURED if entry["isEstimated"] is False else Quality.ESTIMATED
    source = str(entry.get("source") or "").replace(" ", "").casefold()
    return Quality.MEASURED if source and "electricitymaps" not in source else Quality.FORECAST


def _sobered(reading: Reading, now: datetime) -> Reading:
    """``reading`` of no better quality than its time allows: what has not begun is forecast, what is not over is at best estimated."""
    if reading.start > now:
        return replace(reading, quality=Quality.FORECAST)
    if reading.end > now and reading.quality is Quality.MEASURED:
        return replace(reading, quality=Quality.ESTIMATED)
    return reading
