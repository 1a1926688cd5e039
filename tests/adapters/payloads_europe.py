"""More answers in European providers' shapes, made by hand: the figures are invented."""

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
