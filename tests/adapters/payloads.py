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


def _bounds(start: datetime, slots: int, minutes: int, form: str = "%Y-%m-%dT%H:%M:%SZ") -> list[str]:
    """The stamps in UTC of ``slots`` slots' starts and, last, of the end."""
    first = start.astimezone(UTC_ZONE)
    return [(first + i * timedelta(minutes=minutes)).strftime(form) for i in range(slots + 1)]


def uk_carbon(
    start: datetime, forecast: Sequence[float | None], actual: Sequence[float | None] = (), *, region: Mapping[str, object] | None = None
) -> bytes:
    """Half-hours from ``start`` on; with ``region`` (its ``regionid``, ``postcode``) the regional shape, which has no actual value."""
    bounds = _bounds(start, len(forecast), 30, "%Y-%m-%dT%H:%MZ")
    rows: list[dict[str, Any]] = []
    for i, value in enumerate(forecast):
        intensity: dict[str, object] = {"forecast": value, "index": "low"}
        if region is None:
            intensity["actual"] = actual[i] if i < len(actual) else None
        rows.append({"from": bounds[i], "to": bounds[i + 1], "intensity": intensity})
    return json.dumps({"data": rows if region is None else {"shortname": "Somewhere", **region, "data": rows}}).encode()


def electricity_maps(
    start: datetime,
    values: Sequence[float | None],
    /,
    *,
    key: str = "data",
    field: str = "value",
    area: str = "DK-DK2",
    row: Mapping[str, object] | None = None,
) -> bytes:
    """Hours from ``start`` on under ``key``, or the first one flat where ``key`` is ``latest``; ``row`` is in every one."""
    stamps = _bounds(start, len(values), 60, "%Y-%m-%dT%H:%M:%S.000Z")
    rows = [{"datetime": stamp, field: value, **(row or {})} for stamp, value in zip(stamps, values, strict=False)]
    document = rows[0] if key == "latest" else {key: rows}
    return json.dumps({"zone": area, **document, "temporalGranularity": "hourly"}).encode()


def watttime(start: datetime, values: Sequence[float | None], **meta: object) -> bytes:
    """Five minutes each, from ``start`` on, in pounds for a megawatt-hour."""
    about = {"region": "CAISO_NORTH", "signal_type": "co2_moer", "units": "lbs_co2_per_mwh", "data_point_period_seconds": 300, **meta}
    stamps = _bounds(start, len(values), 5, "%Y-%m-%dT%H:%M:%S+00:00")
    rows = [{"point_time": stamp, "value": value} for stamp, value in zip(stamps, values, strict=False)]
    return json.dumps({"data": rows, "meta": about}).encode()


def energi_data_service(start: datetime, values: Sequence[float | None], *, area: str = "DK1", carbon: bool = False) -> bytes:
    """``DayAheadPrices`` by the quarter-hour, or ``CO2EmisProg`` by five minutes; stamps in UTC without saying so."""
    dataset, step = ("CO2EmisProg", 5) if carbon else ("DayAheadPrices", 15)
    stamp, value = ("Minutes5UTC", "CO2Emission") if carbon else ("TimeUTC", "DayAheadPriceEUR")
    stamps = _bounds(start, len(values), step, "%Y-%m-%dT%H:%M:%S")
    records = [{stamp: at, "PriceArea": area, value: number} for at, number in zip(stamps, values, strict=False)]
    return json.dumps({"total": len(records), "dataset": dataset, "records": records}).encode()


def octopus(start: datetime, values: Sequence[float | None], *, following: str | None = None) -> bytes:
    """Half-hours from ``start`` on, the newest first; pence without VAT, 5 % more with it."""
    bounds = _bounds(start, len(values), 30)
    rates = [
        {
            "value_exc_vat": value,
            "value_inc_vat": None if value is None else round(value * 1.05, 4),
            "valid_from": bounds[i],
            "valid_to": bounds[i + 1],
            "payment_method": None,
        }
        for i, value in enumerate(values)
    ]
    return json.dumps({"count": len(rates), "next": following, "previous": None, "results": rates[::-1]}).encode()


def tibber_home(
    today: datetime, values: Sequence[float | None], *, currency: str = "EUR", step: int = 15, home_id: str = "h1", known: int = 96
) -> dict[str, Any]:
    """One home with a subscription: the first ``known`` slots are today's, the others tomorrow's."""
    moments = [(today.astimezone(UTC_ZONE) + i * timedelta(minutes=step)).astimezone(BERLIN) for i in range(len(values))]
    prices = [
        {"energy": value, "startsAt": moment.isoformat(timespec="milliseconds"), "currency": currency}
        for moment, value in zip(moments, values, strict=True)
    ]
    return {"id": home_id, "currentSubscription": {"priceInfo": {"today": prices[:known], "tomorrow": prices[known:]}}}


def tibber(*homes: Mapping[str, Any]) -> bytes:
    return json.dumps({"data": {"viewer": {"homes": homes}}}).encode()


def nordpool(
    start: datetime, values: Sequence[float | None], *, area: str = "SE3", step: int = 15, state: str = "Final", currency: str = "EUR"
) -> bytes:
    """One market day from ``start`` on, ``step`` minutes a slot."""
    bounds = _bounds(start, len(values), step)
    entries = [{"deliveryStart": bounds[i], "deliveryEnd": bounds[i + 1], "entryPerArea": {area: value}} for i, value in enumerate(values)]
    about = {"deliveryAreas": [area], "market": "DayAhead", "currency": currency, "areaStates": [{"state": state, "areas": [area]}]}
    return json.dumps({"deliveryDateCET": f"{start:%Y-%m-%d}", **about, "multiAreaEntries": entries}).encode()


def energyzero(start: datetime, values: Sequence[str | None], *, step: int = 15) -> bytes:
    """Slots of ``step`` minutes from ``start`` on, their price in text."""
    bounds = _bounds(start, len(values), step)
    base = [{"start": bounds[i], "end": bounds[i + 1], "price": {"value": value}} for i, value in enumerate(values)]
    return json.dumps({"interval": 2, "range": {"start": bounds[0], "end": bounds[-1]}, "base": base}).encode()


def openadr(start: datetime, payloads: Mapping[str, Sequence[object]], /, *, hours: float = 2.0, **changes: Any) -> bytes:
    """A VTN's list of one event, in one interval from ``start`` on."""
    units = {"PRICE": "KWH", "IMPORT_CAPACITY_LIMIT": "KW", "IMPORT_CAPACITY_AVAILABLE": "KW"}
    event: dict[str, Any] = {
        "id": "e1",
        "createdDateTime": "2026-05-30T08:00:00.000Z",
        "objectType": "EVENT",
        "programID": "44",
        "eventName": "invented",
        "intervalPeriod": {"start": f"{start.astimezone(UTC_ZONE):%Y-%m-%dT%H:%M:%S}.000Z", "duration": f"PT{hours * 60:g}M"},
        "payloadDescriptors": [{"payloadType": kind, "units": unit, "currency": "EUR"} for kind, unit in units.items()],
        "intervals": [{"id": 0, "payloads": [{"type": kind, "values": list(values)} for kind, values in payloads.items()]}],
    }
    return json.dumps([event | changes]).encode()
