"""Octopus Agile: https://api.octopus.energy/v1, no key for the rates; Great Britain, half-hours.

What a household pays, in pence for a kilowatt-hour, so it needs to be told what a pound is worth. Facts that bite: the newest
half-hour comes first, in pages; ``valid_to`` may be null; the rates of the next day come out at about 16:00 and end at 23:00
local time; products are replaced under new names from time to time.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
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
    body_of,
    read_json,
    read_options,
    read_rows,
    refuse_old,
)

URL = "https://api.octopus.energy"
HALF_HOUR = timedelta(minutes=30)
PAGES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``product`` as ``AGILE-24-10-01``; ``region`` is the letter of the distribution area, A to P; without VAT unless ``with_vat``."""

    zone: str
    product: str
    region: str
    eur_per_gbp: float | None = None
    with_vat: bool = False
    url: str = URL

    def __post_init__(self) -> None:
        if self.eur_per_gbp is None or not 0 < self.eur_per_gbp < math.inf:
            raise InvalidInput("the rates come in pence: give eur_per_gbp, the euros that one pound is worth, such as 1.15")
        if len(self.region) != 1 or not "A" <= self.region <= "P":
            raise InvalidInput(f"region {self.region!r} is not the letter of a distribution area, A to P")


class Octopus:
    """Half-hourly rates of a tariff, negative ones included, in euros at the exchange rate given."""

    name = "octopus"
    signals: tuple[SignalKind, ...] = (SignalKind.PRICE,)
    every = timedelta(hours=1)
    publishes = Publication(opens=time(16), closes=time(20), timezone="Europe/London", every=timedelta(minutes=10))

    def __init__(self, table: Mapping[str, object], *, site: Path) -> None:  # noqa: ARG002 - part of the protocol
        self.options = options = read_options(Options, table, adapter=self.name)
        self.zone = options.zone
        self._layout = Layout(
            zone=self.zone,
            signal=SignalKind.PRICE,
            source=f"{self.name}/{options.product}",
            resolution=HALF_HOUR,
            unit="ct/kWh",  # a penny is the hundredth of a pound, as a cent is of a euro
            scale=options.eur_per_gbp or math.nan,
        )

    def fetch(self, http: Http, now: datetime) -> Batch:
        """From now on, page by page."""
        options = self.options
        tariff = f"{options.url}/v1/products/{options.product}/electricity-tariffs/E-1R-{options.product}-{options.region}"
        params: dict[str, str | int] = {"period_from": _stamp(now), "period_to": _stamp(now + timedelta(days=2)), "page_size": 1500}
        response = http.get(f"{tariff}/standard-unit-rates/", params=params)
        rates, following = self._page(body_of(response, source=self.name))
        for _ in range(PAGES - 1):
            if not following.startswith(f"{options.url}/"):
                break
            more, following = self._page(body_of(http.get(following), source=self.name))
            rates += more
        return self._read(rates, now)

    def parse(self, payload: bytes, *, now: datetime) -> Batch:
        """The readings in ``payload``, one page; raises AdapterError."""
        rates, _ = self._page(payload)
        return self._read(rates, now)

    def _page(self, payload: bytes) -> tuple[list[Any], str]:
        """The rates of one page and where the next one is, empty after the last."""
        document = read_json(payload, source=self.name)
        rates = document.get("results") if isinstance(document, dict) else None
        if not isinstance(document, dict) or not isinstance(rates, list):
            raise AdapterError(f"{self.name} answered without results", kind=Fault.MALFORMED)
        return rates, str(document.get("next") or "")

    def _read(self, rates: list[Any], now: datetime) -> Batch:
        column = "value_inc_vat" if self.options.with_vat else "value_exc_vat"
        rows = [_row(index, rate, column) for index, rate in enumerate(rates)]
        return refuse_old(read_rows(self._layout, rows, known_at=now), now=now, max_age=timedelta(0), source=self.name)


def _stamp(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _row(index: int, rate: object, column: str) -> Row:
    label = f"results[{index}]"
    if not isinstance(rate, dict):
        return Row(label=label, stamp=None, value="not a row")
    return Row(label=label, stamp=rate.get("valid_from"), value=rate.get(column), end=rate.get("valid_to"))
