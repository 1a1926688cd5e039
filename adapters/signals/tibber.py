"""Tibber: https://api.tibber.com/v1-beta/gql, with a token; Norway, Sweden, Germany, the Netherlands.

The exchange's part of what a household pays (``energy``, without taxes), for a kilowatt-hour in the home's currency. Facts that
bite: a GraphQL error comes with status 200; only the start of a slot is given, so its length is the one that was asked for;
``tomorrow`` is an empty list until about 13:00.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from itertools import pairwise
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
    Publication,
    Row,
    SignalKind,
    body_of,
    named_zone,
    read_json,
    read_options,
    read_rows,
    refuse_old,
)

URL = "https://api.tibber.com/v1-beta/gql"
RESOLUTION = MappingProxyType({timedelta(minutes=15): "QUARTER_HOURLY", timedelta(hours=1): "HOURLY"})
QUERY = (
    "{viewer{homes{id currentSubscription{priceInfo(resolution:%s){today{energy startsAt currency} tomorrow{energy startsAt currency}}}}}}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``home_id`` is needed where the token knows several homes, ``eur_per_unit`` where ``currency`` is not the euro.

    ``timezone`` is the one in which tomorrow's prices are awaited from 13:00 on.
    """

    zone: str
    token: str
    home_id: str = ""
    currency: str = "EUR"
    eur_per_unit: float | None = None
    resolution: timedelta = timedelta(minutes=15)
    timezone: str = "Europe/Berlin"
    url: str = URL

    def __post_init__(self) -> None:
        named_zone(self.timezone)
        if self.resolution not in RESOLUTION:
            raise InvalidInput(f"resolution: {self.resolution} is none of 15m, 1h")
        if self.currency != "EUR" and (self.eur_per_unit is None or not 0 < self.eur_per_unit < math.inf):
            raise InvalidInput(f"prices in {self.currency} need eur_per_unit, the euros that one {self.currency} is worth")

    @property
    def euros(self) -> float:
        """What one unit of ``currency`` is worth in euros."""
        return 1.0 if self.currency == "EUR" or self.eur_per_unit is None else self.eur_per_unit


class Tibber:
    """The exchange's price as a home's contract has it."""

    name = "tibber"
    signals: tuple[SignalKind, ...] = (SignalKind.PRICE,)
    every = timedelta(hours=1)

    def __init__(self, table: Mapping[str, object], *, site: Path) -> None:  # noqa: ARG002 - part of the protocol
        self.options = options = read_options(Options, table, adapter=self.name)
        self.zone = options.zone
        self.publishes = Publication(opens=time(13), closes=time(15), timezone=options.timezone)
        self._layout = Layout(
            zone=self.zone,
            signal=SignalKind.PRICE,
            source=self.name,
            resolution=options.resolution,
            unit="EUR/kWh",
            scale=options.euros,
        )

    def fetch(self, http: Http, now: datetime) -> Batch:
        """Today and, once published, tomorrow."""
        body = json.dumps({"query": QUERY % RESOLUTION[self.options.resolution]}).encode()
        headers = {"Authorization": f"Bearer {self.options.token}", "Content-Type": "application/json"}
        response = http.post(self.options.url, body=body, headers=headers)
        return self.parse(body_of(response, source=self.name), now=now)

    def parse(self, payload: bytes, *, now: datetime) -> Batch:
        """The readings in ``payload``; raises AdapterError."""
        document = read_json(payload, source=self.name)
        self._refuse_errors(document)
        home = self._home(_at(document, "data", "viewer", "homes"))
        info = _at(home, "currentSubscription", "priceInfo")
        prices = [(f"{day}[{index}]", price) for day in ("today", "tomorrow") for index, price in enumerate(_listed(_at(info, day)))]
        self._refuse_currency({str(_at(price, "currency"))[:9] for _, price in prices})
        batch = read_rows(self._layout, [_row(label, price, self.options.currency) for label, price in prices], known_at=now)
        return self._refuse_steps(refuse_old(batch, now=now, max_age=timedelta(0), source=self.name))

    def _refuse_errors(self, document: object) -> None:
        errors = _listed(_at(document, "errors"))
        if not errors:
            return
        said = str(_at(errors[0], "message"))[:200]
        if _at(errors[0], "extensions", "code") in ("UNAUTHENTICATED", "FORBIDDEN"):
            raise AdapterError(f"{self.name} refuses access and says {said!r}; check the token", kind=Fault.REFUSED)
        raise AdapterError(f"{self.name} answered with an error and says {said!r}", kind=Fault.UNAVAILABLE)

    def _home(self, homes: object) -> object:
        """The home that was asked for, or the only one with a subscription."""
        if not isinstance(homes, list):
            raise AdapterError(f"{self.name} answered without homes", kind=Fault.MALFORMED)
        asked = self.options.home_id
        found = [home for home in homes if (_at(home, "id") == asked if asked else _at(home, "currentSubscription"))]
        if len(found) == 1:
            return found[0]
        known = ", ".join(str(_at(home, "id"))[:60] for home in homes[:9]) or "none"
        raise AdapterError(f"{self.name}: set home_id to the home that is meant; the token knows {known}", kind=Fault.REFUSED)

    def _refuse_currency(self, found: set[str]) -> None:
        """Where no price at all is in the currency declared; a single one that is not is set aside."""
        if found and self.options.currency not in found:
            other = min(found)
            remedy = f'set currency = "{other}" and, unless that is EUR, eur_per_unit, the euros that one is worth'
            raise AdapterError(f"{self.name} gives prices in {other}, not {self.options.currency}; {remedy}", kind=Fault.WRONG_UNIT)

    def _refuse_steps(self, batch: Batch) -> Batch:
        """``batch``, unless its slots are not as long as asked for: no row says where it ends."""
        steps = [later.start - earlier.start for earlier, later in pairwise(batch)]
        if steps and min(steps) != self.options.resolution:
            raise AdapterError(f"{self.name} answered in steps of {min(steps)}, not {self.options.resolution}", kind=Fault.MALFORMED)
        return batch


def _at(found: object, *keys: str) -> Any:
    """What lies at ``keys``, None where nothing does."""
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _listed(found: object) -> list[Any]:
    return found if isinstance(found, list) else []


def _row(label: str, price: object, currency: str) -> Row:
    if not isinstance(price, dict):
        return Row(label=label, stamp=None, value="not a row")
    if price.get("currency") != currency:
        return Row(label=label, stamp=price.get("startsAt"), value=f"{price.get('energy')} {price.get('currency')} instead of {currency}")
    return Row(label=label, stamp=price.get("startsAt"), value=price.get("energy"))
