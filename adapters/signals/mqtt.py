"""A meter, inverter or any other device that tells its figures by MQTT: topic, dotted path, unit, scale and direction are configured.

Each fetch connects, subscribes and waits for the next message, at most ``wait``. Where ``time`` names the payload's own time, that
decides how old the value is. Where it does not, a *retained* message is passed over: the broker hands it to whoever subscribes, as
if it were new, though the device may have been dead for days. A list of values (Tasmota, one for each channel) is added up.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from gridsched import (
    AdapterError,
    Batch,
    Broker,
    Fault,
    Http,
    InvalidInput,
    Layout,
    Quality,
    Row,
    SignalKind,
    StampFormat,
    moment,
    named_zone,
    number,
    read_json,
    read_options,
    read_rows,
    refuse_old,
    value_at,
)


class Positive(StrEnum):
    """Which way a positive number flows, seen from the site: most meters count what is drawn from the grid as positive."""

    IMPORT = "import"
    EXPORT = "export"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``value`` and ``time`` are dotted paths into a JSON payload, a number being a list's position; without ``value`` it is the payload.

    ``value * unit * scale + offset`` holds for one ``resolution`` from the payload's time, or from now. For a surplus ``positive``
    must say which way a positive number flows. Older than ``max_age`` is refused.
    """

    zone: str
    topic: str
    host: str
    signal: SignalKind = SignalKind.SURPLUS
    value: str = ""
    unit: str = "W"
    scale: float = 1.0
    offset: float = 0.0
    positive: Positive | None = None
    resolution: timedelta = timedelta(minutes=1)
    time: str = ""
    time_format: StampFormat = StampFormat.ISO
    timezone: str = ""
    quality: Quality = Quality.MEASURED
    max_age: timedelta = timedelta(minutes=2)
    wait: timedelta = timedelta(seconds=10)
    port: int | None = None
    username: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    ca: str = ""

    def __post_init__(self) -> None:
        if "+" in self.topic or "#" in self.topic or not self.topic:
            raise InvalidInput(f"topic {self.topic!r} must name one topic, without + and #")
        if (self.signal is SignalKind.SURPLUS) != (self.positive is not None):
            raise InvalidInput("positive must say 'import' or 'export' for a surplus, and is for nothing else")
        if not timedelta(0) < self.wait <= timedelta(minutes=5):
            raise InvalidInput(f"wait must be above 0 and at most 5 minutes, got {self.wait}")
        self.layout()
        self.broker(Path())

    def layout(self) -> Layout:
        """What a value means; its stamp is handed on in UTC."""
        return Layout(
            zone=self.zone,
            signal=self.signal,
            source=f"mqtt:{self.topic}",
            resolution=self.resolution,
            unit=self.unit,
            scale=-self.scale if self.positive is Positive.IMPORT else self.scale,
            offset=self.offset,
            timezone=self.timezone,
            quality=self.quality,
        )

    def broker(self, site: Path) -> Broker:
        """Where to connect; the usual port where none is given."""
        port = (8883 if self.tls else 1883) if self.port is None else self.port
        ca = str(site / self.ca) if self.ca else ""
        return Broker(host=self.host, port=port, username=self.username, password=self.password, tls=self.tls, ca=ca)


class Mqtt:
    """Any figure that comes by MQTT: the site's own export, say."""

    name = "mqtt"
    signals: tuple[SignalKind, ...] = tuple(SignalKind)
    every = timedelta(minutes=1)

    def __init__(self, table: Mapping[str, object], *, site: Path) -> None:
        self.options = options = read_options(Options, table, adapter=self.name)
        self.zone = options.zone
        self.signals = (options.signal,)
        self._broker = options.broker(site)
        self._layout = options.layout()

    def fetch(self, http: Http, now: datetime) -> Batch:  # noqa: ARG002 - part of the protocol
        """The next message's value, or that of a retained one which carries its own time and is not too old."""
        wait_s = self.options.wait.total_seconds()
        kept = f"{self.options.topic} said nothing within {wait_s:g} s; does the device publish that seldom? then lengthen wait"
        fault = Fault.NOT_PUBLISHED
        for message in self._broker.messages(self.options.topic, patience_s=wait_s):
            if not message.retained:
                return self.parse(message.payload, now=now)
            if not self.options.time:
                kept = (
                    f"{self.options.topic} has only a retained message, which may be of any age; say with `time` where its own time stands"
                )
                continue
            try:
                return self.parse(message.payload, now=now)
            except AdapterError as error:
                kept, fault = str(error), Fault(error.kind)
        raise AdapterError(kept, kind=fault)

    def parse(self, payload: bytes, *, now: datetime) -> Batch:
        """The reading in ``payload``; raises AdapterError."""
        options, source = self.options, self._layout.source
        document = read_json(payload, source=source) if options.value or options.time else None
        value = value_at(document, options.value) if options.value or options.time else payload.decode("utf-8", "replace")
        try:
            figure = _added_up(value)
            if figure is None:
                raise AdapterError(f"{source} has no value at {options.value or 'all'!r}", kind=Fault.NOT_PUBLISHED)
            start = self._start(value_at(document, options.time), now) if options.time else now
        except InvalidInput as error:
            raise AdapterError(f"{source}: {error}", kind=Fault.MALFORMED) from error
        if start - now > max(options.max_age, options.wait):
            raise AdapterError(f"{source} is dated {start - now} ahead; set the device's clock or `timezone` right", kind=Fault.MALFORMED)
        row = Row(label=options.value or "payload", stamp=start.isoformat(), value=figure)
        return refuse_old(read_rows(self._layout, [row], known_at=now), now=now, max_age=options.max_age, source=source)

    def _start(self, written: object, now: datetime) -> datetime:
        """The payload's own time. One without offset in the hour that comes twice is the one nearer to ``now``: the message is live."""
        tz = named_zone(self.options.timezone) if self.options.timezone else None
        stamp = moment(written, self.options.time_format, tz)
        return min((stamp.replace(fold=fold).astimezone(UTC) for fold in (0, 1)), key=lambda one: abs(one - now))


def _added_up(value: object) -> float | None:
    """A number as it is, a list of them as their sum; unknown as soon as one of them is."""
    if not isinstance(value, list):
        return number(value)
    figures = [number(item) for item in value]
    known = [figure for figure in figures if figure is not None]
    return sum(known) if figures and len(known) == len(figures) else None
