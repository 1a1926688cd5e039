"""aWATTar day-ahead prices for Germany and Austria: https://api.awattar.de/v1/marketdata, no key, fair use 100 requests a day.

Hourly, also where the market is quarter-hourly. With ``start`` alone the service gives 24 rows, which is wrong on both
clock-change days; so ``start`` and ``end`` are always sent, as the local midnights around today and tomorrow.
"""

from collections import Counter
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
    Row,
    SignalKind,
    StampFormat,
    body_of,
    named_zone,
    read_json,
    read_options,
    read_rows,
    refuse_old,
)

HOUR = timedelta(hours=1)


class Country(StrEnum):
    """The two markets."""

    DE = "de"
    AT = "at"


TIMEZONE = {Country.DE: "Europe/Berlin", Country.AT: "Europe/Vienna"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``url`` replaces ``https://api.awattar.<country>`` (for a mirror or a test)."""

    zone: str
    country: Country = Country.DE
    url: str = ""


class Awattar:
    """Hourly day-ahead prices, negative ones included."""

    name = "awattar"
    signals: tuple[SignalKind, ...] = (SignalKind.PRICE,)
    every = timedelta(hours=1)

    def __init__(self, table: Mapping[str, object], *, site: Path) -> None:  # noqa: ARG002 - part of the protocol
        self.options = read_options(Options, table, adapter=self.name)
        self.zone = self.options.zone
        self.publishes = Publication(
            opens=time(13, 55), closes=time(15), timezone=TIMEZONE[self.options.country], every=timedelta(minutes=10)
        )

    def fetch(self, http: Http, now: datetime) -> Batch:
        """Today and, once published, tomorrow."""
        country = self.options.country
        start, end = _window(now, TIMEZONE[country])
        base = self.options.url or f"https://api.awattar.{country}"
        response = http.get(f"{base}/v1/marketdata", params={"start": _milliseconds(start), "end": _milliseconds(end)})
        return self.parse(body_of(response, source=self.name), now=now)

    def parse(self, payload: bytes, *, now: datetime) -> Batch:
        """The readings in ``payload``; raises AdapterError."""
        document = read_json(payload, source=self.name)
        rows = document.get("data") if isinstance(document, dict) else None
        if not isinstance(rows, list):
            raise AdapterError(f"{self.name} answered without a list of data", kind=Fault.MALFORMED)
        try:
            layout = Layout(
                zone=self.zone,
                signal=SignalKind.PRICE,
                source=self.name,
                resolution=HOUR,
                unit=_unit(rows),
                stamp_format=StampFormat.EPOCH_MS,
            )
        except InvalidInput as error:
            raise AdapterError(f"{self.name}: {error}", kind=Fault.WRONG_UNIT) from error
        read = read_rows(layout, [_row(index, row, layout.unit) for index, row in enumerate(rows)], known_at=now)
        return refuse_old(read, now=now, max_age=timedelta(0), source=self.name)


def _window(now: datetime, timezone: str) -> tuple[datetime, datetime]:
    """Local midnight today until local midnight two days on: 47, 48 or 49 hours."""
    tz = named_zone(timezone)
    today = now.astimezone(tz).date()
    midnight = time(tzinfo=tz)
    return datetime.combine(today, midnight), datetime.combine(today + timedelta(days=2), midnight)


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000


def _unit(rows: list[Any]) -> str:
    """The unit most rows speak; the others are set aside one by one."""
    units = Counter(row["unit"] for row in rows if isinstance(row, dict) and isinstance(row.get("unit"), str))
    return units.most_common(1)[0][0] if units else "Eur/MWh"


def _row(index: int, row: object, unit: str) -> Row:
    """One hour, if it is one and speaks the same unit as most."""
    label = f"data[{index}]"
    if not isinstance(row, dict):
        return Row(label=label, stamp=None, value="not a row")
    start, end = row.get("start_timestamp"), row.get("end_timestamp")
    if not isinstance(start, int) or not isinstance(end, int) or end - start != HOUR.total_seconds() * 1000:
        return Row(label=label, stamp=start, value=f"{start}..{end} is not one hour")
    if row.get("unit", unit) != unit:
        return Row(label=label, stamp=start, value=f"{row.get('marketprice')} {row['unit']}")
    return Row(label=label, stamp=start, value=row.get("marketprice"))
