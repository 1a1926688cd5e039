"""Nord Pool's data portal: https://dataportal-api.nordpoolgroup.com, no key; the Nordic and Baltic countries and their neighbours.

The portal is meant for people who look at it in a browser: its terms restrict other and commercial use, and clients that are not
browsers are sometimes turned away. Facts that bite: a day not published yet is 204 with an empty body; a day is one of central
European time, given in UTC; until the auction is final its prices are preliminary, which reads as estimated.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
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
    StampFormat,
    body_of,
    moment,
    named_zone,
    read_json,
    read_options,
    read_rows,
    refuse_old,
)

URL = "https://dataportal-api.nordpoolgroup.com"
MARKET_TIME = "Europe/Brussels"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``area`` as ``SE3``, ``FI``, ``NO2``; ``market`` is ``N2EX_DayAhead`` for Great Britain."""

    zone: str
    area: str
    market: str = "DayAhead"
    url: str = URL

    def __post_init__(self) -> None:
        if not self.area:
            raise InvalidInput("area is empty; the portal answers such a request with an error")


class NordPool:
    """Day-ahead prices of one delivery area, in euros."""

    name = "nordpool"
    signals: tuple[SignalKind, ...] = (SignalKind.PRICE,)
    every = timedelta(hours=1)
    publishes = Publication(opens=time(12, 45), closes=time(15), timezone=MARKET_TIME)

    def __init__(self, table: Mapping[str, object], *, site: Path) -> None:  # noqa: ARG002 - part of the protocol
        self.options = read_options(Options, table, adapter=self.name)
        self.zone = self.options.zone

    def fetch(self, http: Http, now: datetime) -> Batch:
        """Today and, once published, tomorrow."""
        today = now.astimezone(named_zone(MARKET_TIME)).date()
        batch = self._day(http, now, today)
        batch += self._day_after(http, now, today, reached=max((reading.end for reading in batch), default=now))
        return refuse_old(batch, now=now, max_age=timedelta(0), source=self.name)

    def parse(self, payload: bytes, *, now: datetime) -> Batch:
        """The readings in ``payload``, one day; raises AdapterError."""
        return refuse_old(self._read(payload, now), now=now, max_age=timedelta(0), source=self.name)

    def _day_after(self, http: Http, now: datetime, today: date, *, reached: datetime) -> Batch:
        """What there is from ``reached`` on, nothing before it is published."""
        try:
            batch = self._day(http, now, today + timedelta(days=1))
        except AdapterError as error:
            if error.kind != Fault.NOT_PUBLISHED:
                raise
            return Batch()
        return replace(batch, readings=tuple(reading for reading in batch if reading.start >= reached))

    def _day(self, http: Http, now: datetime, day: date) -> Batch:
        options = self.options
        params = {"date": str(day), "market": options.market, "deliveryArea": options.area, "currency": "EUR"}
        response = http.get(f"{options.url}/api/DayAheadPrices", params=params)
        return self._read(body_of(response, source=self.name), now)

    def _read(self, payload: bytes, now: datetime) -> Batch:
        document = read_json(payload, source=self.name)
        entries = document.get("multiAreaEntries") if isinstance(document, dict) else None
        if not isinstance(document, dict) or not isinstance(entries, list):
            raise AdapterError(f"{self.name} answered without multiAreaEntries", kind=Fault.MALFORMED)
        try:
            layout = Layout(
                zone=self.zone,
                signal=SignalKind.PRICE,
                source=f"{self.name}/{self.options.area}",
                resolution=_resolution(entries),
                unit=f"{document.get('currency')}/MWh",
                quality=_quality(document, self.options.area),
            )
        except InvalidInput as error:
            raise AdapterError(f"{self.name}: {error}", kind=Fault.WRONG_UNIT) from error
        rows = [_row(index, entry, self.options.area) for index, entry in enumerate(entries)]
        return read_rows(layout, rows, known_at=now)


def _resolution(entries: list[Any]) -> timedelta:
    """The length of most slots; a slot of another length is set aside."""
    lengths: Counter[timedelta] = Counter()
    for entry in entries:
        try:
            start, end = (moment(entry[key], StampFormat.ISO) for key in ("deliveryStart", "deliveryEnd"))
        except (InvalidInput, TypeError, KeyError):
            continue
        lengths[end - start] += 1
    return lengths.most_common(1)[0][0] if lengths else timedelta(hours=1)


def _quality(document: dict[str, Any], area: str) -> Quality:
    """Measured once the state of ``area`` is final, estimated before."""
    states = document.get("areaStates")
    for state in states if isinstance(states, list) else []:
        if isinstance(state, dict) and isinstance(state.get("areas"), list) and area in state["areas"]:
            return Quality.MEASURED if state.get("state") == "Final" else Quality.ESTIMATED
    return Quality.ESTIMATED


def _row(index: int, entry: object, area: str) -> Row:
    label = f"multiAreaEntries[{index}]"
    prices = entry.get("entryPerArea") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(prices, dict):
        return Row(label=label, stamp=None, value="no prices")
    return Row(label=label, stamp=entry.get("deliveryStart"), value=prices.get(area), end=entry.get("deliveryEnd"))
