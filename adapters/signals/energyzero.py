"""EnergyZero: https://public.api.energyzero.nl, no key; day-ahead prices of the Netherlands, also behind several other brands.

Facts that bite: the number is a string, in euros for a kilowatt-hour; an answer may span more days than the one asked for; a day
not published yet is 404; a wrong request is 400 with a code and a message.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from gridsched import (
    AdapterError,
    Batch,
    Fault,
    Http,
    Layout,
    Publication,
    Response,
    Row,
    SignalKind,
    body_of,
    named_zone,
    read_json,
    read_options,
    read_rows,
    refuse_old,
)

URL = "https://public.api.energyzero.nl"
NETHERLANDS = "Europe/Amsterdam"


class Interval(StrEnum):
    """How long a slot lasts."""

    QUARTER = "quarter"
    HOUR = "hour"


RESOLUTION = MappingProxyType({Interval.QUARTER: timedelta(minutes=15), Interval.HOUR: timedelta(hours=1)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``interval`` is what the contract is billed by."""

    zone: str
    interval: Interval = Interval.QUARTER
    url: str = URL


class EnergyZero:
    """Dutch day-ahead prices without taxes and VAT."""

    name = "energyzero"
    signals: tuple[SignalKind, ...] = (SignalKind.PRICE,)
    every = timedelta(hours=1)
    publishes = Publication(opens=time(12, 50), closes=time(15), timezone=NETHERLANDS)

    def __init__(self, table: Mapping[str, object], *, site: Path) -> None:  # noqa: ARG002 - part of the protocol
        self.options = read_options(Options, table, adapter=self.name)
        self.zone = self.options.zone
        self._layout = Layout(
            zone=self.zone, signal=SignalKind.PRICE, source=self.name, resolution=RESOLUTION[self.options.interval], unit="EUR/kWh"
        )

    def fetch(self, http: Http, now: datetime) -> Batch:
        """Today and, once published, tomorrow: asked for only where today's answer does not hold it already."""
        tz = named_zone(NETHERLANDS)
        today = now.astimezone(tz).date()
        batch = self._day(http, now, today)
        reached = max((reading.end for reading in batch), default=now)
        if reached < datetime.combine(today + timedelta(days=2), time(), tzinfo=tz):
            batch += self._day_after(http, now, today, reached=reached)
        return refuse_old(batch, now=now, max_age=timedelta(0), source=self.name)

    def parse(self, payload: bytes, *, now: datetime) -> Batch:
        """The readings in ``payload``; raises AdapterError."""
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
        interval = f"INTERVAL_{self.options.interval.upper()}"
        params = {"energyType": "ENERGY_TYPE_ELECTRICITY", "date": f"{day:%d-%m-%Y}", "interval": interval}
        response = http.get(f"{self.options.url}/public/v1/prices", params=params)
        self._refuse_request(response)
        return self._read(body_of(response, source=self.name), now)

    def _refuse_request(self, response: Response) -> None:
        """With what the service says about a request it does not understand."""
        if response.status != 400 or not response.body:
            return
        said = read_json(response.body, source=self.name)
        message = said.get("message") if isinstance(said, dict) else None
        raise AdapterError(f"{self.name} does not accept the request (HTTP 400) and says {str(message)[:200]!r}", kind=Fault.REFUSED)

    def _read(self, payload: bytes, now: datetime) -> Batch:
        document = read_json(payload, source=self.name)
        base = document.get("base") if isinstance(document, dict) else None
        if not isinstance(base, list):
            raise AdapterError(f"{self.name} answered without base prices", kind=Fault.MALFORMED)
        return read_rows(self._layout, [_row(index, slot) for index, slot in enumerate(base)], known_at=now)


def _row(index: int, slot: object) -> Row:
    label = f"base[{index}]"
    price = slot.get("price") if isinstance(slot, dict) else None
    if not isinstance(slot, dict) or not isinstance(price, dict):
        return Row(label=label, stamp=None, value="no price")
    return Row(label=label, stamp=slot.get("start"), value=price.get("value"), end=slot.get("end"))
