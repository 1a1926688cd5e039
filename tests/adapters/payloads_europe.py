"""More answers in European providers' shapes, made by hand: the figures are invented."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta


def entsoe(*series: str, document: str = "A44", process: str = "") -> bytes:
    """A document of ENTSO-E's with these `time_series`."""
    kind = "publicationdocument:7:3" if document == "A44" else "generationloaddocument:3:0"
    process = f"<process.processType>{process}</process.processType>" if process else ""
    root = "Publication_MarketDocument" if document == "A44" else "GL_MarketDocument"
    return f"""<?xml version="1.0" encoding="utf-8"?>
<{root} xmlns="urn:iec62325.351:tc57wg16:451-3:{kind}"><mRID>invented</mRID><type>{document}</type>{process}
<createdDateTime>2026-06-01T10:00:00Z</createdDateTime>
{"".join(series)}</{root}>""".encode()


def time_series(
    what: str,
    start: datetime,
    points: Sequence[float | str | None] | Mapping[int, float | str],
    *,
    slots: int | None = None,
    resolution: str = "PT15M",
    curve: str = "A03",
    sequence: int | None = None,
    market: str = "10Y1001A1001A82H",
    unit: str = "",
) -> str:
    """One TimeSeries with one Period: of ``price``, ``load`` or a fuel such as ``B16``; ``points`` by position, a None is left out."""
    given = points if isinstance(points, Mapping) else {at: value for at, value in enumerate(points, start=1) if value is not None}
    length = timedelta(minutes=int(resolution.strip("PTM")))
    first = start.astimezone(UTC)
    last = first + length * (slots or len(points))
    place = {"price": "in_Domain", "load": "outBiddingZone_Domain"}.get(what, "inBiddingZone_Domain")
    number = "price.amount" if what == "price" else "quantity"
    units = {"price_Measure_Unit.name": unit or "MWH", "currency_Unit.name": "EUR"} if what == "price" else {}
    tags = {f"{place}.mRID": market} | (units or {"quantity_Measure_Unit.name": unit or "MAW"})
    if sequence:
        tags["classificationSequence_AttributeInstanceComponent.position"] = str(sequence)
    head = "".join(f"<{tag}>{text}</{tag}>" for tag, text in tags.items())
    fuel = f"<MktPSRType><psrType>{what}</psrType></MktPSRType>" if what.startswith("B") else ""
    body = "".join(f"<Point><position>{at}</position><{number}>{value}</{number}></Point>" for at, value in given.items())
    return f"""<TimeSeries>{head}<curveType>{curve}</curveType>{fuel}<Period><timeInterval><start>{first:%Y-%m-%dT%H:%MZ}</start>
<end>{last:%Y-%m-%dT%H:%MZ}</end></timeInterval><resolution>{resolution}</resolution>{body}</Period></TimeSeries>
"""


def offered(start: datetime, *rows: Sequence[str], regions: Sequence[str] = ("H1", "T1"), unit: str = "MW") -> bytes:
    """AusgewieseneABSM: a quarter-hour per row, values as the service writes them."""
    lines = [f"Datum;Zeitzone;von;bis;Datenkategorie;Einheit;{';'.join(regions)}"]
    for number, values in enumerate(rows):
        at = start.astimezone(UTC) + number * timedelta(minutes=15)
        until = at + timedelta(minutes=15)
        lines.append(f"{at:%d.%m.%Y};UTC;{at:%H:%M};{until:%H:%M};ausgewiesene Abregelungsstrommenge;{unit};{';'.join(values)}")
    return "\n".join([*lines, ""]).encode()


def spot(start: datetime, *prices: str, unit: str = "ct/kWh", form: str = "%d.%m.%Y") -> bytes:
    """Spotmarktpreise: an hour per row, values as the service writes them."""
    lines = [f"Datum;von;Zeitzone von;bis;Zeitzone bis;Spotmarktpreis in {unit}"]
    for number, price in enumerate(prices):
        at = start.astimezone(UTC) + number * timedelta(hours=1)
        lines.append(f"{at.strftime(form)};{at:%H:%M};UTC;{at + timedelta(hours=1):%H:%M};UTC;{price}")
    return "\n".join([*lines, ""]).encode()


MEASURE = (
    *("BEGINN_DATUM", "BEGINN_UHRZEIT", "ZEITZONE_VON", "ENDE_DATUM", "ENDE_UHRZEIT", "ZEITZONE_BIS", "GRUND_DER_MASSNAHME", "RICHTUNG"),
    *("MITTLERE_LEISTUNG_MW", "MAXIMALE_LEISTUNG_MW", "GESAMTE_ARBEIT_MWH", "ANWEISENDER_UENB", "ANFORDERNDER_UENB", "BETROFFENE_ANLAGE"),
    "PRIMAERENERGIEART",
)


def redispatch(
    *measures: tuple[datetime, datetime, str], fuel: str = "Erneuerbar", direction: str = "reduzieren", by: str = "50Hertz"
) -> bytes:
    """Measures from, until and with a mean power in MW."""
    lines = [";".join(MEASURE)]
    for start, end, power in measures:
        since, until = (f"{at.astimezone(UTC):%d.%m.%Y;%H:%M};UTC" for at in (start, end))
        lines.append(f"{since};{until};Invented;Wirkleistungseinspeisung {direction};{power};99;99;{by};{by};Park A;{fuel}")
    return "\n".join([*lines, ""]).encode()


def flags(start: datetime, *ups: str, minutes: int = 15, column: str = "Negativ") -> bytes:
    """NegativePreise: a flag per row."""
    stamps = [start.astimezone(UTC) + number * timedelta(minutes=minutes) for number in range(len(ups))]
    rows = [f"{at:%Y-%m-%d %H:%M};{up}" for at, up in zip(stamps, ups, strict=True)]
    return "\n".join([f"Datum;{column}", *rows, ""]).encode()


def states(*runs: tuple[str, str, object]) -> bytes:
    """StromGedacht's states, from and until as written."""
    return json.dumps({"states": [{"from": start, "to": end, "state": state} for start, end, state in runs]}).encode()


def green_forecast(start: datetime, residual: Sequence[object], threshold: Sequence[object]) -> bytes:
    """StromGedacht's forecast in MW, quarter-hours from ``start`` on."""

    def listed(values: Sequence[object]) -> list[dict[str, object]]:
        first = start.astimezone(UTC)
        return [{"dateTime": f"{first + n * timedelta(minutes=15):%Y-%m-%dT%H:%M:%SZ}", "value": value} for n, value in enumerate(values)]

    return json.dumps(
        {"load": [], "renewableEnergy": [], "residualLoad": listed(residual), "superGreenThreshold": listed(threshold)}
    ).encode()
