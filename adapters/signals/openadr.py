"""OpenADR 3, the utility's own voice: its prices, carbon, offered capacity, limits and alerts, as a VEN reads them from a VTN.

Works with 3.0 and 3.1, which differ in the login, in targets and in reports. All values are laid on one grid of five minutes: when an event
is changed its slots are simply told anew. An event that is *cancelled* is just gone from the VTN's list, and what has been told is
never deleted; so each fetch says about the next ``hold`` minutes what holds and also what does not: no alarm, no limit, no offered
capacity. What was announced for later stands until then. If the VTN falls silent, alarms and limits last as announced,
while an all-clear and offered capacity are only good for ``hold``: the careful side, both times.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any

from gridsched import (
    AdapterError,
    Batch,
    Dropped,
    EventSpan,
    Fault,
    Http,
    InvalidInput,
    OpenAdrVersion,
    Quality,
    Reading,
    SignalKind,
    Vtn,
    event_spans,
    factor,
    number,
    read_json,
    read_options,
)

SLOT = timedelta(minutes=5)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NO_LIMIT_W = 1e12
KINDS: Mapping[str, SignalKind] = {
    "PRICE": SignalKind.PRICE,
    "GHG": SignalKind.CARBON,
    "IMPORT_CAPACITY_LIMIT": SignalKind.LIMIT,
    "IMPORT_CAPACITY_AVAILABLE": SignalKind.SURPLUS,
    "SIMPLE": SignalKind.ALARM,
    "ALERT_GRID_EMERGENCY": SignalKind.ALARM,
    "ALERT_BLACK_START": SignalKind.ALARM,
    "ALERT_FLEX_ALERT": SignalKind.ALARM,
}
ALL_CLEAR: Mapping[SignalKind, float] = {SignalKind.ALARM: 0.0, SignalKind.LIMIT: NO_LIMIT_W, SignalKind.SURPLUS: 0.0}
OBEYED = (SignalKind.ALARM, SignalKind.LIMIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``program`` is an id or a name, empty for all. ``units`` and ``currency`` are for events that do not say theirs.

    ``eur_per_unit`` is what one unit of another currency is worth. ``simple_alarm`` is the lowest SIMPLE level that stops everything.
    With a ``client_name`` each new event is confirmed by a report; ``opted_in = false`` follows alarms and limits alone, and says so.
    """

    zone: str
    url: str
    version: OpenAdrVersion = OpenAdrVersion.V31
    program: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    token_url: str = ""
    scope: str = ""
    client_name: str = ""
    opted_in: bool = True
    targets: tuple[str, ...] = ()
    target_type: str = "GROUP"
    signals: tuple[str, ...] = ("price", "carbon", "surplus", "limit", "alarm")
    units: Mapping[str, str] = field(default_factory=dict)
    currency: str = ""
    eur_per_unit: float | None = None
    simple_alarm: int = 1
    flex_alert: bool = False
    hold: timedelta = timedelta(minutes=15)
    horizon: timedelta = timedelta(hours=36)

    def __post_init__(self) -> None:
        wrong = sorted(set(self.signals) - {kind.value for kind in KINDS.values()})
        if wrong or not self.signals:
            raise InvalidInput(f"signals has {', '.join(wrong) or 'nothing'}; there are price, carbon, surplus, limit and alarm")
        if not 1 <= self.simple_alarm <= 3:
            raise InvalidInput(f"simple_alarm must be 1, 2 or 3, got {self.simple_alarm}")
        if not SLOT <= self.hold <= self.horizon <= timedelta(days=8):
            raise InvalidInput("hold must be from 5 minutes up to horizon, and horizon at most 8 days")


class OpenAdr:
    """What a utility says about prices, carbon, capacity, limits and emergencies, by OpenADR 3."""

    name = "openadr"
    signals: tuple[SignalKind, ...] = tuple(dict.fromkeys(KINDS.values()))
    every = timedelta(minutes=5)

    def __init__(self, table: Mapping[str, object], *, site: Path) -> None:  # noqa: ARG002 - part of the protocol
        self.options = options = read_options(Options, table, adapter=self.name)
        self.zone = options.zone
        self.signals = tuple(SignalKind(name) for name in options.signals)
        self._vtn = Vtn(
            url=options.url.rstrip("/"),
            version=options.version,
            client_id=options.client_id,
            client_secret=options.client_secret,
            token_url=options.token_url,
            scope=options.scope,
            name=self.name,
        )
        self._program: Mapping[str, Any] = {}
        self._confirmed: set[tuple[str, str]] = set()

    def fetch(self, http: Http, now: datetime) -> Batch:
        """All events for us; one that is new is reported on, where reports are wanted."""
        options = self.options
        if options.program and not self._program:
            self._program = self._named(self._vtn.programs(http, now))
        program = str(self._program.get("id") or "")
        events = self._vtn.events(http, now, program=program, targets=options.targets, target_type=options.target_type)
        return self._read(events, now) + self._confirm(http, events, now)

    def parse(self, payload: bytes, *, now: datetime) -> Batch:
        """The readings in ``payload``, a list of events; raises AdapterError."""
        events = read_json(payload, source=self.name)
        if not isinstance(events, list):
            raise AdapterError(f"{self.name}: events is not a list", kind=Fault.MALFORMED)
        return self._read(events, now)

    def _named(self, programs: list[Any]) -> Mapping[str, Any]:
        """The program that the options name by its id or its name."""
        known = [program for program in programs if isinstance(program, dict)]
        for program in known:
            if self.options.program in (program.get("id"), program.get("programName")):
                return program
        names = ", ".join(str(program.get("programName")) for program in known) or "none"
        raise AdapterError(f"{self.name}: there is no program {self.options.program!r}, only {names}", kind=Fault.NOT_PUBLISHED)

    def _confirm(self, http: Http, events: list[Any], now: datetime) -> Batch:
        """One report about one new event: which of its intervals we read, and whether we take part."""
        if not self.options.client_name:
            return Batch()
        for event in events:
            if not isinstance(event, dict) or not isinstance(event.get("id"), str) or _mark(event) in self._confirmed:
                continue
            try:
                self._vtn.report(http, now, event, client=self.options.client_name, states=self._states(event, now))
            except AdapterError as error:
                return Batch(dropped=(Dropped(row=f"report on event {event['id']}", reason=str(error)),))
            self._confirmed.add(_mark(event))
            break
        return Batch()

    def _states(self, event: Mapping[str, Any], now: datetime) -> dict[int, str]:
        """Our operating state in each interval that says something we understand."""
        state = "NORMAL" if self.options.opted_in else "IDLE_OPTED_OUT"
        try:
            spans = event_spans(event, now=now, until=now + self.options.horizon) if self._ours(event) else []
        except InvalidInput:
            return {}
        return {span.interval: state for span in spans if span.kind in KINDS and isinstance(span.interval, int)}

    def _read(self, events: list[Any], now: datetime) -> Batch:
        dropped: list[Dropped] = []
        first = (now - EPOCH) // SLOT
        until = now + self.options.horizon
        slots: dict[str, dict[int, float]] = {kind: {} for kind in KINDS}
        for number_, event in sorted(enumerate(events), key=lambda item: _rank(item[1])):
            label = f"event {event.get('eventName') or event.get('id') or number_}" if isinstance(event, dict) else f"event {number_}"
            try:
                spans = event_spans(event, now=now, until=until, luck=self._luck(event)) if self._ours(event) else []
            except InvalidInput as error:
                dropped.append(Dropped(row=label, reason=str(error)))
                continue
            for span in (span for span in spans if span.end > now and span.kind in KINDS):
                value = self._value(span, event, label, dropped)
                if value is not None:
                    low, high = _snapped(span, KINDS[span.kind])
                    slots[span.kind].update(dict.fromkeys(range(max(low, first), min(high, (until - EPOCH) // SLOT)), value))
        return Batch(readings=tuple(self._readings(slots, first, now)), dropped=tuple(dropped))

    def _value(self, span: EventSpan, event: Mapping[str, Any], label: str, dropped: list[Dropped]) -> float | None:
        """The value in its canonical unit; None where it is not for us or of no use. A limit that cannot be read counts as 0."""
        kind = KINDS[span.kind]
        if kind not in self.signals or not (self.options.opted_in or kind in OBEYED):
            return None
        try:
            return self._converted(span, event)
        except InvalidInput as error:
            dropped.append(Dropped(row=label, reason=f"{span.kind}: {error}" + ("; it counts as 0 W" if kind is SignalKind.LIMIT else "")))
            return 0.0 if kind is SignalKind.LIMIT else None

    def _converted(self, span: EventSpan, event: Mapping[str, Any]) -> float | None:
        if span.kind == "ALERT_FLEX_ALERT":
            return 1.0 if self.options.flex_alert else None
        if span.kind.startswith("ALERT_"):
            return 1.0
        value = number(span.value)
        if value is None:
            raise InvalidInput("a value is missing")
        if span.kind == "SIMPLE":
            return float(value >= self.options.simple_alarm)
        described = self._described(span.kind, event)
        units = str(described.get("units") or self.options.units.get(span.kind, ""))
        if span.kind == "GHG":
            return _finite(value * (1.0 if units in ("", "GHG") else factor(units, "g/kWh")))
        if not units:
            raise InvalidInput(f"the event does not say its units; declare them: units = {{ {span.kind} = ... }}")
        if span.kind == "PRICE":
            return _finite(value * factor(f"EUR/{units}", "EUR/MWh") * self._eur(described.get("currency")))
        return max(_finite(value * factor(units, "W")), 0.0)

    def _eur(self, currency: object) -> float:
        """Euros for a unit of the event's currency."""
        named = str(currency or self.options.currency or "?")
        if named == "EUR":
            return 1.0
        if self.options.eur_per_unit is None:
            raise InvalidInput(f"the price is in {named}, not EUR; say with eur_per_unit what one is worth")
        return self.options.eur_per_unit

    def _described(self, kind: str, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """The payload descriptor of that type: the event's own, else its program's."""
        for descriptors in (event.get("payloadDescriptors"), self._program.get("payloadDescriptors")):
            for one in descriptors if isinstance(descriptors, list) else []:
                if isinstance(one, dict) and one.get("payloadType") == kind:
                    return one
        return {}

    def _readings(self, slots: Mapping[str, Mapping[int, float]], first: int, now: datetime) -> Iterator[Reading]:
        held = range(first, first + -(-self.options.hold // SLOT))
        for signal in self.signals:
            values: dict[int, float] = {}
            for kind in (name for name, of in KINDS.items() if of is signal):
                for slot, value in slots[kind].items():
                    values[slot] = max(value, values.get(slot, value))  # only alarms come in several types, and any of them counts
            if signal in ALL_CLEAR:
                values = dict.fromkeys(held, ALL_CLEAR[signal]) | values
            if signal is SignalKind.SURPLUS:
                values = {slot: value for slot, value in values.items() if slot in held}
            yield from (self._reading(signal, slot, values[slot], now) for slot in sorted(values))

    def _reading(self, signal: SignalKind, slot: int, value: float, now: datetime) -> Reading:
        start = EPOCH + slot * SLOT
        quality = Quality.FORECAST if signal is SignalKind.CARBON else Quality.MEASURED
        source = f"{self.name}/{self.options.program or 'all'}"
        return Reading(
            zone=self.zone, signal=signal, start=start, end=start + SLOT, value=value, quality=quality, source=source, known_at=now
        )

    def _ours(self, event: object) -> bool:
        """Whether the event is for everyone or for one of our targets; without targets of our own the VTN has chosen already."""
        if not isinstance(event, dict):
            raise InvalidInput("it is not an event")
        targets = event.get("targets")
        if not self.options.targets or not isinstance(targets, list) or not targets:
            return True
        named = {str(v) for t in targets for v in (t.get("values") or [] if isinstance(t, dict) else [t])}
        return not named.isdisjoint(self.options.targets)

    def _luck(self, event: object) -> float:
        """Where within ``randomizeStart`` this site starts: the same at each fetch, different at each site."""
        seed = f"{self.options.client_name or self.options.client_id}/{self.zone}/{event.get('id') if isinstance(event, dict) else ''}"
        return int.from_bytes(sha256(seed.encode()).digest()[:8]) / 2**63 - 1


def _finite(value: float) -> float:
    if not isfinite(value):
        raise InvalidInput("the value is out of all measure")
    return value


def _rank(event: object) -> tuple[bool, int, str]:
    """Events from the least to the most important: a lower number is a higher priority, none is the lowest; then the newer one."""
    if not isinstance(event, dict):
        return (False, 0, "")
    priority = event.get("priority")
    made = str(event.get("modificationDateTime") or event.get("createdDateTime"))
    if not isinstance(priority, int) or isinstance(priority, bool):
        return (False, 0, made)
    return (True, -priority, made)


def _mark(event: Mapping[str, Any]) -> tuple[str, str]:
    """The event as it is now: a changed one is confirmed again."""
    return str(event["id"]), str(event.get("modificationDateTime"))


def _snapped(span: EventSpan, signal: SignalKind) -> tuple[int, int]:
    """The slots of ``span``: whole and begun ones for alarms and limits, whole ones alone for surplus, the nearest for the rest."""
    if signal in OBEYED:
        return (span.start - EPOCH) // SLOT, -((EPOCH - span.end) // SLOT)
    if signal is SignalKind.SURPLUS:
        return -((EPOCH - span.start) // SLOT), (span.end - EPOCH) // SLOT
    return round((span.start - EPOCH) / SLOT), round((span.end - EPOCH) / SLOT)
