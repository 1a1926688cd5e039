"""Energi Data Service (Energinet): https://api.energidataservice.dk, no key, CC BY 4.0; Denmark.

One ``series`` per table: ``price`` (``DayAheadPrices``, quarter-hours) or ``carbon`` (``CO2EmisProg``, a forecast by five
minutes). Facts that bite: stamps in UTC carry no Z; ``start`` and ``end`` are Danish time; the older ``Elspotprices`` ended in
2025 and answers as if nothing had happened; one request a minute for each dataset.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from enum import StrEnum
from pathlib import Path

from gridsched import (
    AdapterError,
    Batch,
    Fault,
    Http,
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

URL = "https://api.energidataservice.dk"
DENMARK = "Europe/Copenhagen"


class Series(StrEnum):
    """Which dataset a table asks for."""

    PRICE = "price"
    CARBON = "carbon"


class Area(StrEnum):
    """West and east of the Great Belt."""

    DK1 = "DK1"
    DK2 = "DK2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Where a series lies and what its records mean."""

    name: str
    signal: SignalKind
    stamp: str
    value: str
    unit: str
    resolution: timedelta
    quality: Quality
    every: timedelta


DATASETS = {
    Series.PRICE: Dataset(
        name="DayAheadPrices",
        signal=SignalKind.PRICE,
        stamp="TimeUTC",
        value="DayAheadPriceEUR",
        unit="EUR/MWh",
        resolution=timedelta(minutes=15),
        quality=Quality.MEASURED,
        every=timedelta(hours=1),
    ),
    Series.CARBON: Dataset(
        name="CO2EmisProg",
        signal=SignalKind.CARBON,
        stamp="Minutes5UTC",
        value="CO2Emission",
        unit="g/kWh",
        resolution=timedelta(minutes=5),
        quality=Quality.FORECAST,
        every=timedelta(minutes=15),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One ``series`` of one ``area``."""

    zone: str
    area: Area = Area.DK1
    series: Series = Series.PRICE
    url: str = URL


class EnergiDataService:
    """Danish day-ahead prices in euros, or the forecast of the carbon in the next hours."""

    name = "energi_data_service"
    signals: tuple[SignalKind, ...] = (SignalKind.PRICE, SignalKind.CARBON)
    every = timedelta(hours=1)

    def __init__(self, table: Mapping[str, object], *, site: Path) -> None:  # noqa: ARG002 - part of the protocol
        self.options = options = read_options(Options, table, adapter=self.name)
        self.zone = options.zone
        self._dataset = dataset = DATASETS[options.series]
        self.signals = (dataset.signal,)
        self.every = dataset.every
        self.publishes = Publication(opens=time(12, 50), closes=time(15), timezone=DENMARK) if options.series is Series.PRICE else None
        self._layout = Layout(
            zone=self.zone,
            signal=dataset.signal,
            source=f"{self.name}/{dataset.name}",
            resolution=dataset.resolution,
            unit=dataset.unit,
            timezone="UTC",
            quality=dataset.quality,
        )

    def fetch(self, http: Http, now: datetime) -> Batch:
        """Today and, once published, tomorrow, both Danish."""
        today = now.astimezone(named_zone(DENMARK)).date()
        params: dict[str, str | int] = {
            "start": str(today),
            "end": str(today + timedelta(days=2)),
            "filter": json.dumps({"PriceArea": [self.options.area]}, separators=(",", ":")),
            "sort": f"{self._dataset.stamp} asc",
            "limit": 0,
        }
        response = http.get(f"{self.options.url}/dataset/{self._dataset.name}", params=params)
        return self.parse(body_of(response, source=self.name), now=now)

    def parse(self, payload: bytes, *, now: datetime) -> Batch:
        """The readings in ``payload``; raises AdapterError."""
        document, dataset = read_json(payload, source=self.name), self._dataset
        records = document.get("records") if isinstance(document, dict) else None
        if not isinstance(document, dict) or not isinstance(records, list):
            raise AdapterError(f"{self.name} answered without records", kind=Fault.MALFORMED)
        if document.get("dataset") != dataset.name:
            raise AdapterError(f"{self.name} answered with dataset {document.get('dataset')!r}, not {dataset.name!r}", kind=Fault.MALFORMED)
        rows = [
            Row(label=f"records[{index}]", stamp=record.get(dataset.stamp), value=record.get(dataset.value))
            for index, record in enumerate(records)
            if isinstance(record, dict) and record.get("PriceArea") == self.options.area
        ]
        return refuse_old(read_rows(self._layout, rows, known_at=now), now=now, max_age=timedelta(0), source=self.name)
