"""Answers in the providers' shapes, made by hand: the figures are invented."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

BERLIN = ZoneInfo("Europe/Berlin")
UTC_ZONE = ZoneInfo("UTC")


def energy_charts(
    start: datetime, series: Mapping[str, Sequence[float | None]], /, *, endpoint: str = "price", unit: str = "EUR / MWh", **changes: Any
) -> bytes:
    """The v2 shape; ``series`` by id, quarter-hours from ``start`` on. A series named ``x|%`` has a unit of its own."""
    columns = {name.partition("|")[0]: values for name, values in series.items()}
    slots = max(len(values) for values in columns.values())
    stamps = [(start.astimezone(UTC_ZONE) + i * timedelta(minutes=15)).astimezone(BERLIN).isoformat() for i in range(slots)]
    document: dict[str, Any] = {
        "schema_version": "2.0",
        "endpoint": endpoint,
        "country": "de",
        "bidding_zone": "DE-LU" if endpoint == "price" else None,
        "timezone": "Europe/Berlin",
        "resolution": "PT15M",
        "interval_minutes": 15,
        "unit": unit,
        "generated_at": stamps[-1],
        "available_from": stamps[0],
        "available_until": stamps[-1],
        "series": [{"id": n.partition("|")[0], "name": n} | ({"unit": n.partition("|")[2]} if "|" in n else {}) for n in series],
        "data": [{"timestamp": stamp, "values": {name: values[i] for name, values in columns.items()}} for i, stamp in enumerate(stamps)],
        "attributes": {},
        "license": "invented",
        "deprecated": False,
    }
    return json.dumps({**document, **changes}).encode()


def awattar(start: datetime, prices: Sequence[float | None], *, unit: str = "Eur/MWh") -> bytes:
    first = int(start.timestamp()) * 1000
    rows = [
        {"start_timestamp": first + i * 3_600_000, "end_timestamp": first + (i + 1) * 3_600_000, "marketprice": price, "unit": unit}
        for i, price in enumerate(prices)
    ]
    return json.dumps({"object": "list", "data": rows, "url": "/de/v1/marketdata"}).encode()
