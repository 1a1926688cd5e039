"""ENTSO-E Transparency Platform: https://web-api.tp.entsoe.eu/api, free key (register, then ask the help desk for "Restful API access").

One ``series`` per table: ``price`` (A44, day-ahead), ``forecast`` (A65 and A69, day-ahead: residual load and renewable share) or
``actual`` (the same from A65 and A75, as measured). Facts that bite: under curve type A03 a slot equal to the one before is left
out; one day may come in quarter-hours and in hours; Germany and Austria carry a second auction (EXAA) under sequence 2; answers
cover whole market days whatever was asked; "nothing there" is an Acknowledgement with status 200 or 400.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from itertools import chain
from pathlib import Path
from xml.etree import ElementTree as ET
from xml.parsers.expat import errors

from gridsched import (
    AdapterError,
    Batch,
    Dropped,
    Fault,
    Http,
    InvalidInput,
    Layout,
    Publication,
    Quality,
    Response,
    Row,
    SignalKind,
    StampFormat,
    body_of,
    moment,
    named_zone,
    read_options,
    read_rows,
    refuse_old,
)

QUARTER = timedelta(minutes=15)
RESOLUTION = {"PT15M": QUARTER, "PT30M": 2 * QUARTER, "PT60M": 4 * QUARTER, "PT1H": 4 * QUARTER}
MOST_SLOTS = 100_000  # two days of everything are some thousand; a period may claim to last for centuries
CUT_SHORT = frozenset(errors.codes[message] for message in (errors.XML_ERROR_NO_ELEMENTS, errors.XML_ERROR_UNCLOSED_TOKEN))
GENERATION = {"B16": "solar", "B18": "wind_offshore", "B19": "wind_onshore"}
EIC = {
    "AT": "10YAT-APG------L",
    "BE": "10YBE----------2",
    "DE": "10Y1001A1001A83F",
    "DE-LU": "10Y1001A1001A82H",
    "DK1": "10YDK-1--------W",
    "DK2": "10YDK-2--------M",
    "ES": "10YES-REE------0",
    "FI": "10YFI-1--------U",
    "FR": "10YFR-RTE------C",
    "NL": "10YNL----------L",
}
WITH_WIND_AT_SEA = frozenset(EIC[name] for name in ("BE", "DE", "DE-LU", "DK1", "DK2", "NL"))


class Series(StrEnum):
    """Which part of the platform a table asks for."""

    PRICE = "price"
    FORECAST = "forecast"
    ACTUAL = "actual"


# The documents of a series: type, process type ("" where it has none), and the parameter that names the place.
DOCUMENTS = {
    Series.PRICE: (("A44", "", "in_Domain"),),
    Series.FORECAST: (("A65", "A01", "outBiddingZone_Domain"), ("A69", "A01", "in_Domain")),
    Series.ACTUAL: (("A65", "A16", "outBiddingZone_Domain"), ("A75", "A16", "in_Domain")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``market`` is a short name or an EIC. Market days run from midnight to midnight in ``timezone``, the same in the whole coupling.

    A slot is known only with all of ``needs``, the kinds of generation the market has, and with whatever else the answer brings.
    """

    zone: str
    token: str
    series: Series = Series.PRICE
    market: str = "DE-LU"
    timezone: str = "Europe/Brussels"
    needs: tuple[str, ...] = ()
    max_age: timedelta = timedelta(hours=6)
    url: str = "https://web-api.tp.entsoe.eu/api"

    def __post_init__(self) -> None:
        named_zone(self.timezone)
        eic = EIC.get(self.market, self.market)
        if len(eic) != 16:
            raise InvalidInput(f"market {eic!r} is no EIC of 16 characters and none of {', '.join(EIC)}")
        if unknown := set(self.needs) - set(GENERATION.values()):
            raise InvalidInput(f"needs: {', '.join(sorted(unknown))} is none of {', '.join(GENERATION.values())}")
        usual = ("solar", "wind_onshore", "wind_offshore") if eic in WITH_WIND_AT_SEA else ("solar", "wind_onshore")
        object.__setattr__(self, "market", eic)
        object.__setattr__(self, "needs", self.needs or usual)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One slot with its value as written."""

    label: str
    start: datetime
    length: timedelta
    value: str
    unit: str


class Entsoe:
    """Day-ahead prices, and residual load and renewable share as forecast or measured, for every European bidding zone."""

    name = "entsoe"
    signals: tuple[SignalKind, ...] = (SignalKind.PRICE, SignalKind.RESIDUAL_LOAD, SignalKind.RENEWABLE_SHARE)
    every = timedelta(minutes=15)

    def __init__(self, table: Mapping[str, object], *, site: Path) -> None:  # noqa: ARG002 - part of the protocol
        self.options = options = read_options(Options, table, adapter=self.name)
        self.zone = options.zone
        price = options.series is Series.PRICE
        self.signals = (SignalKind.PRICE,) if price else (SignalKind.RESIDUAL_LOAD, SignalKind.RENEWABLE_SHARE)
        # The day-ahead auction's results come out at about 12:57, after a decoupling by 15:00.
        self.publishes = Publication(opens=time(12, 50), closes=time(15), timezone=options.timezone) if price else None
        quality = Quality.FORECAST if options.series is Series.FORECAST else Quality.MEASURED
        source = f"{self.name}/{options.series}"
        self._layout = Layout(zone=self.zone, signal=self.signals[0], source=source, resolution=QUARTER, quality=quality)

    def fetch(self, http: Http, now: datetime) -> Batch:
        """The market days of today and tomorrow; of what is measured, yesterday and today."""
        options = self.options
        start, end = _window(now, options)
        payloads = []
        for document, process, place in DOCUMENTS[options.series]:
            asked = {"securityToken": options.token, "periodStart": start, "periodEnd": end, "documentType": document}
            asked |= {"processType": process} if process else {"out_Domain": options.market, "contract_MarketAgreement.type": "A01"}
            asked[place] = options.market
            payloads.append(_body(http.get(options.url, params=asked)))
        return self.parse(*payloads, now=now)

    def parse(self, *payloads: bytes, now: datetime) -> Batch:
        """The readings in the documents of one series together; raises AdapterError."""
        dropped: list[Dropped] = []
        slots: dict[str, list[Slot]] = {}
        documents = [_document(payload, self.options.series) for payload in payloads]
        found = chain.from_iterable(_found(document, self.options, dropped) for document in documents)
        for number, (what, slot) in enumerate(found):
            if number == MOST_SLOTS:
                raise AdapterError(f"{self.name} answered with more than {MOST_SLOTS} slots", kind=Fault.TOO_LARGE)
            slots.setdefault(what, []).append(slot)
        try:
            batch = self._native(slots.get("price", []), now) if self.options.series is Series.PRICE else self._balance(slots, now)
        except InvalidInput as error:
            raise AdapterError(f"{self.name}: {error}", kind=Fault.WRONG_UNIT) from error
        max_age = self.options.max_age if self.options.series is Series.ACTUAL else timedelta(0)
        return refuse_old(batch + Batch(dropped=tuple(dropped)), now=now, max_age=max_age, source=self._layout.source)

    def _native(self, slots: Iterable[Slot], now: datetime) -> Batch:
        """Slots of one kind at the length they came with, as the first signal; sorted."""
        rows: dict[Layout, list[Row]] = {}
        for slot in _finest(slots):
            layout = replace(self._layout, resolution=slot.length, unit=slot.unit)
            rows.setdefault(layout, []).append(Row(label=slot.label, stamp=slot.start.isoformat(), value=slot.value))
        batch = sum((read_rows(layout, rows[layout], known_at=now) for layout in rows), Batch())
        return replace(batch, readings=tuple(sorted(batch, key=lambda reading: reading.start)))

    def _balance(self, slots: Mapping[str, list[Slot]], now: datetime) -> Batch:
        """Load less wind and sun, and their share of it, wherever all of them are known; at the finest length that came."""
        if missing := {"load", *self.options.needs} - slots.keys():
            raise AdapterError(f"{self._layout.source} has no {', '.join(sorted(missing))} yet", kind=Fault.NOT_PUBLISHED)
        parts = {what: self._native(slots[what], now) for what in slots}
        step = min((reading.end - reading.start for part in parts.values() for reading in part), default=QUARTER)
        layout = replace(self._layout, resolution=step)
        watts = {what: _by_step(part, step) for what, part in parts.items()}
        load = watts.pop("load")
        residual, share = [], []
        for at in load.keys() & set.intersection(*(set(one) for one in watts.values())):
            green = sum(one[at] for one in watts.values())
            residual.append(Row(label=f"{at}", stamp=at.isoformat(), value=load[at] - green))
            share.append(Row(label=f"{at}", stamp=at.isoformat(), value=min(1.0, max(0.0, green / load[at])) if load[at] > 0 else None))
        batch = Batch(dropped=tuple(row for part in parts.values() for row in part.dropped)) + read_rows(layout, residual, known_at=now)
        return batch + read_rows(replace(layout, signal=SignalKind.RENEWABLE_SHARE), share, known_at=now)


def _window(now: datetime, options: Options) -> tuple[str, str]:
    """Two market days as the platform writes moments, in UTC: 47, 48 or 49 hours."""
    tz = named_zone(options.timezone)
    first = now.astimezone(tz).date() - timedelta(days=int(options.series is Series.ACTUAL))
    start, end = (datetime.combine(day, time(), tzinfo=tz).astimezone(UTC) for day in (first, first + timedelta(days=2)))
    return f"{start:%Y%m%d%H%M}", f"{end:%Y%m%d%H%M}"


def _body(response: Response) -> bytes:
    """The body worth parsing; why the platform has nothing it says in an Acknowledgement, with status 200 or 400."""
    if response.status == 400 and b"Acknowledgement_MarketDocument" in response.body:
        return response.body
    if response.status == 404 and response.body.startswith(b"404"):
        raise AdapterError(f"{Entsoe.name} is not where it should be (HTTP 404); it may be down", kind=Fault.UNAVAILABLE)
    return body_of(response, source=Entsoe.name)


def _document(payload: bytes, series: Series) -> ET.Element:
    """The root of a document of this series. Only UTF-8 and no DTD: neither occurs, and entities are how XML does harm."""
    try:
        text = payload.decode("utf-8-sig").strip()
        if "<!DOCTYPE" in text or "\0" in text:  # by a NUL the parser takes UTF-16 for granted, whatever it is told
            raise AdapterError(f"{Entsoe.name} answered with a document type declaration or UTF-16", kind=Fault.MALFORMED)
        root = ET.fromstring(text)  # noqa: S314 - see above
    except UnicodeDecodeError as error:
        raise AdapterError(f"{Entsoe.name} answered with something that is not UTF-8", kind=Fault.MALFORMED) from error
    except ET.ParseError as error:
        kind = Fault.TRUNCATED if error.code in CUT_SHORT else Fault.MALFORMED
        raise AdapterError(f"{Entsoe.name} answered with XML that is {kind} at line {error.position[0]}", kind=kind) from error
    if root.tag.casefold() == "html":
        raise AdapterError(f"{Entsoe.name} answered with a web page instead of data; it may be down", kind=Fault.HTML)
    if (reason := root.findtext("{*}Reason/{*}text")) is not None:
        nothing = root.findtext("{*}Reason/{*}code") == "B11" or re.search(r"(?i)no (matching )?data", reason)
        raise AdapterError(f"{Entsoe.name} says {reason!r}", kind=Fault.NOT_PUBLISHED if nothing else Fault.REFUSED)
    said = root.findtext("{*}type"), root.findtext("{*}process.processType")
    if not any(said[0] == document and process in ("", said[1]) for document, process, _ in DOCUMENTS[series]):
        raise AdapterError(f"{Entsoe.name} answered with document and process {said}, not with {series}", kind=Fault.MALFORMED)
    return root


def _found(document: ET.Element, options: Options, dropped: list[Dropped]) -> Iterator[tuple[str, Slot]]:
    """Every slot of the document with what it is of: ``price``, ``load`` or a kind of generation."""
    sequences = set()
    for number, series in enumerate(document.iterfind("{*}TimeSeries"), start=1):
        what, place, unit = _subject(series, options.series)
        market = series.findtext(place)
        if not what or market is None:
            continue  # another fuel, or what a kind of generation draws itself
        if market != options.market:
            raise AdapterError(f"{Entsoe.name} answered for {market!r}, not for {options.market!r}", kind=Fault.MALFORMED)
        sequence = series.findtext("{*}classificationSequence_AttributeInstanceComponent.position") or "1"
        sequences.add(sequence)
        if sequence == "1":
            yield from ((what, slot) for slot in _slots(series, f"TimeSeries {number}", unit, dropped))
    if sequences and "1" not in sequences:
        raise AdapterError(f"{Entsoe.name} has only auction sequence {', '.join(sorted(sequences))} yet, not 1", kind=Fault.NOT_PUBLISHED)


def _subject(series: ET.Element, asked: Series) -> tuple[str, str, str]:
    """What a TimeSeries is of ("" for what we do not use), which element names its place, and its unit."""
    if asked is Series.PRICE:
        unit = "/".join(series.findtext("{*}" + name) or "?" for name in ("currency_Unit.name", "price_Measure_Unit.name"))
        return "price", "{*}in_Domain.mRID", unit
    unit = (series.findtext("{*}quantity_Measure_Unit.name") or "?").replace("MAW", "MW")
    if (fuel := series.findtext("{*}MktPSRType/{*}psrType")) is None:
        return "load", "{*}outBiddingZone_Domain.mRID", unit
    return GENERATION.get(fuel, ""), "{*}inBiddingZone_Domain.mRID", unit


def _slots(series: ET.Element, label: str, unit: str, dropped: list[Dropped]) -> Iterator[Slot]:
    """The slots of every Period; under curve type A03 with those filled in that repeat the one before."""
    padded = series.findtext("{*}curveType") == "A03"
    for number, period in enumerate(series.iterfind("{*}Period"), start=1):
        where = f"{label} Period {number}"
        try:
            start, length, count = _grid(period)
            points = [(int(point.findtext("{*}position") or ""), point) for point in period.iterfind("{*}Point")]
        except (InvalidInput, ValueError) as error:
            dropped.append(Dropped(row=where, reason=str(error)))
            continue
        given = {at: point.findtext("{*}price.amount") or point.findtext("{*}quantity") for at, point in points}
        dropped += (Dropped(row=where, reason=f"position {at} lies outside 1..{count}") for at in given if not 0 < at <= count)
        value = None
        for position in range(1, count + 1):
            value = given.get(position, value if padded else None)
            if value is not None:
                place = f"{where} position {position}"
                yield Slot(label=place, start=start + (position - 1) * length, length=length, value=value, unit=unit)


def _grid(period: ET.Element) -> tuple[datetime, timedelta, int]:
    """Start, slot length and number of slots: by the interval and the resolution, never by the hours of a day."""
    start, end = (moment(period.findtext("{*}timeInterval/{*}" + side), StampFormat.ISO) for side in ("start", "end"))
    length = RESOLUTION.get(period.findtext("{*}resolution") or "")
    count, rest = divmod(end - start, length) if length else (0, None)
    if length is None or rest or not 0 < count <= MOST_SLOTS:
        raise InvalidInput(f"{start} to {end} in {period.findtext('{*}resolution')} is no whole number of slots")
    return start, length, count


def _finest(slots: Iterable[Slot]) -> Iterator[Slot]:
    """Each moment once: a finer slot wins, and a coarser one keeps what the finer ones leave open, in quarter-hours."""
    taken: dict[datetime, tuple[datetime, timedelta]] = {}
    for slot in sorted(slots, key=lambda slot: slot.length):
        own = slot.start, slot.length
        quarters = [slot.start + number * QUARTER for number in range(slot.length // QUARTER)]
        free = [quarter for quarter in quarters if taken.setdefault(quarter, own) == own]
        if len(free) == len(quarters):
            yield slot
        else:
            yield from (replace(slot, start=quarter, length=QUARTER) for quarter in free)


def _by_step(batch: Batch, step: timedelta) -> dict[datetime, float]:
    """Power at every ``step``: over its slot it is taken to be constant."""
    return {r.start + number * step: r.value for r in batch for number in range((r.end - r.start) // step)}
