"""Carbon intensity of Great Britain (NESO): https://api.carbonintensity.org.uk, no key, CC BY 4.0.

The whole of Great Britain, or one region by ``postcode`` (its first half, as ``RG10``) or ``region_id`` (1 to 17). Facts that
bite: the first slot begins before the moment asked for; a success may be ``{}`` or an empty list; a body may be cut short;
forecasts are rewritten after the fact, so a slot that was measured gives that and nothing else. Regions are forecast only.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

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
    body_of,
    read_json,
    read_options,
    read_rows,
    refuse_old,
)

URL = "https://api.carbonintensity.org.uk"
HALF_HOUR = timedelta(minutes=30)
REVISED = timedelta(days=1)
AHEAD = timedelta(hours=48)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Without ``postcode`` and ``region_id`` it is the whole of Great Britain."""

    zone: str
    postcode: str = ""
    region_id: int | None = None
    url: str = URL

    def __post_init__(self) -> None:
        if self.postcode and self.region_id is not None:
            raise InvalidInput("give postcode or region_id, not both")
        if self.postcode and not re.fullmatch(r"[A-Z]{1,2}[0-9][0-9A-Z]?", self.postcode):
            raise InvalidInput(f"postcode {self.postcode!r} is not the first half of one, in capitals, such as RG10")
        if self.region_id is not None and not 1 <= self.region_id <= 17:
            raise InvalidInput(f"region_id must be from 1 to 17, got {self.region_id}")

    @property
    def place(self) -> str:
        """The end of a regional path, empty for the whole of Great Britain."""
        if self.region_id is not None:
            return f"/regionid/{self.region_id}"
        return f"/postcode/{self.postcode}" if self.postcode else ""


class UkCarbon:
    """Forecast and measured grams of carbon dioxide for a kilowatt-hour in Great Britain, by the half-hour."""

    name = "uk_carbon"
    signals: tuple[SignalKind, ...] = (SignalKind.CARBON,)
    every = timedelta(minutes=30)

    def __init__(self, table: Mapping[str, object], *, site: Path) -> None:  # noqa: ARG002 - part of the protocol
        self.options = read_options(Options, table, adapter=self.name)
        self.zone = self.options.zone
        self._layout = Layout(
            zone=self.zone, signal=SignalKind.CARBON, source=self.name, resolution=HALF_HOUR, unit="g/kWh", quality=Quality.FORECAST
        )

    def fetch(self, http: Http, now: datetime) -> Batch:
        """The next two days and, for the whole of Great Britain, the day that is still being revised."""
        options = self.options
        path = f"/regional/intensity/{_stamp(now)}/fw48h{options.place}"
        if not options.place:
            path = f"/intensity/{_stamp(now - REVISED)}/{_stamp(now + AHEAD)}"
        response = http.get(options.url + path, headers={"Accept": "application/json"})
        return self.parse(body_of(response, source=self.name), now=now)

    def parse(self, payload: bytes, *, now: datetime) -> Batch:
        """The readings in ``payload``; raises AdapterError."""
        rows = self._slots(read_json(payload, source=self.name))
        batch = read_rows(self._layout, [_row(index, row) for index, row in enumerate(rows)], known_at=now)
        return refuse_old(batch, now=now, max_age=timedelta(0), source=self.name)

    def _slots(self, document: object) -> list[Any]:
        """The list of slots: at ``data``, or for a region at ``data.data``, which some paths put into a list of one."""
        found = document.get("data") if isinstance(document, dict) else None
        if self.options.place:
            region = found[0] if isinstance(found, list) and len(found) == 1 else found
            found = region.get("data") if isinstance(region, dict) else None
            if isinstance(region, dict):
                self._check_place(region)
        if not isinstance(found, list):
            error = document.get("error") if isinstance(document, dict) else None
            said = f" and says {str(error)[:200]!r}" if error else ""
            raise AdapterError(f"{self.name} answered without slots{said}", kind=Fault.MALFORMED)
        return found

    def _check_place(self, region: dict[str, Any]) -> None:
        asked = {"regionid": self.options.region_id, "postcode": self.options.postcode or None}
        for key, value in asked.items():
            if value is not None and region.get(key, value) != value:
                raise AdapterError(f"{self.name} answered for {key} {region[key]!r}, not {value!r}", kind=Fault.MALFORMED)


def _stamp(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%MZ}"


def _row(index: int, row: object) -> Row:
    """One half-hour: as measured where it is, as forecast where it is not yet."""
    label = f"data[{index}]"
    intensity = row.get("intensity") if isinstance(row, dict) else None
    if not isinstance(row, dict) or not isinstance(intensity, dict):
        return Row(label=label, stamp=None, value="no intensity")
    actual = intensity.get("actual")
    value, quality = (intensity.get("forecast"), Quality.FORECAST) if actual is None else (actual, Quality.MEASURED)
    return Row(label=label, stamp=row.get("from"), value=value, end=row.get("to"), quality=quality)
