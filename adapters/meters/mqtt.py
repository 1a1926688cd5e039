"""Reads a smart plug's own energy counter by MQTT: Tasmota's ``ENERGY.Total`` (kWh), a Shelly's ``aenergy.total`` (Wh) and their like.

The plug measures whatever is plugged into it: use it where gridsched has the device to itself. Its counter is followed from the
first message on; a retained one is passed over, because nobody knows when it was true. A plug tells its counter seldom and in
steps (a Tasmota's are of 3.6 kJ), so what has come is told at the device's registered power at most: the sum is the plug's, a little
later, and never looks like more power than the device has. A counter that starts again at a lower value only loses that one step.

::

    [meter]
    use = "meters/mqtt.py"
    host = "broker.local"       # port, username, password, tls = true, ca = "/etc/ssl/broker.pem"
    topic = "tele/plug/SENSOR"
    value = "ENERGY.Total"      # dotted path; leave it out where the payload is the number
    unit = "kWh"
    wait = "30s"                # for the first message
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from gridsched.adapter import read_json, read_options, value_at
from gridsched.core.errors import ConfigError, GridschedError, InvalidInput
from gridsched.core.meter import TOLERANCE
from gridsched.core.quantity import factor
from gridsched.core.rows import number
from gridsched.ports import Register
from gridsched.providers.broker import Broker, Message

__all__ = ["MqttMeter"]

log = logging.getLogger(__name__)

_SHORTEST_S = 0.01

Follow = Callable[[str, Callable[[Message], None], Callable[[str], None]], Callable[[], None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    host: str
    topic: str
    value: str = ""
    unit: str = "kWh"
    scale: float = 1.0
    wait: timedelta = timedelta(seconds=30)
    port: int | None = None
    username: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    ca: str = ""

    def __post_init__(self) -> None:
        factor(self.unit, "J")
        if not self.scale > 0:
            raise InvalidInput(f"scale must be above 0, got {self.scale:g}; a counter of energy used only goes up")
        self.broker()

    def broker(self) -> Broker:
        """Where to connect; the usual port where none is given."""
        port = (8883 if self.tls else 1883) if self.port is None else self.port
        return Broker(host=self.host, port=port, username=self.username, password=self.password, tls=self.tls, ca=self.ca)


class MqttMeter:
    """A smart plug's counter. The connection begins with the first reading and is kept up from then on."""

    name = "mqtt"

    def __init__(
        self,
        table: Mapping[str, object],
        *,
        power_w: float = 0.0,
        follow: Follow | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options = read_options(Options, table, adapter=self.name)
        self._most_w = power_w if power_w > 0 else float("inf")
        self._follow = follow or options.broker().follow
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._heard = threading.Event()
        self._refusal = ""
        self._unreadable = False
        self._end: Callable[[], None] | None = None
        self._counter_j = 0.0
        self._moved_s = 0.0
        self._waiting_j = 0.0  # come from the plug and not told yet
        self._energy_j = 0.0
        self._power_w = 0.0
        self._read_s = monotonic()

    def read(self) -> Register:
        """The register now; power is the mean since the read before. The first read waits for the plug, ConfigError if it is silent."""
        if self._end is None:
            self._begin()
        with self._lock:
            now_s = self._monotonic()
            passed_s = now_s - self._read_s
            if passed_s >= _SHORTEST_S:
                told_j = min(self._waiting_j, self._most_w * passed_s)
                self._waiting_j -= told_j
                self._energy_j += told_j
                self._power_w = told_j / passed_s
                self._read_s = now_s
            return Register(energy_j=self._energy_j, power_w=self._power_w, method="measured")

    def close(self) -> None:
        """Let go of the broker."""
        if self._end is not None:
            self._end()
            self._end = None

    def _begin(self) -> None:
        options = self._options
        self._end = self._follow(options.topic, self._take, self._refuse)
        if self._heard.wait(options.wait.total_seconds()) and not self._refusal:
            self._read_s = self._monotonic()
            return
        self.close()
        silent = (
            f"{options.topic} at {options.host} gave no figure within {options.wait}; is the broker there, how often does the plug report?"
        )
        raise ConfigError(f"adapter mqtt: {self._refusal or silent}")

    def _refuse(self, why: str) -> None:
        self._refusal = why
        self._heard.set()

    def _take(self, message: Message) -> None:
        """Called on the connection's own thread."""
        if message.retained:
            return
        counter_j = self._counter(message.payload)
        if counter_j is None:
            return
        with self._lock:
            now_s = self._monotonic()
            if not self._heard.is_set():
                self._counter_j, self._moved_s = counter_j, now_s
                self._heard.set()
            gained_j = counter_j - self._counter_j
            if gained_j != 0:
                self._waiting_j += max(0.0, min(gained_j, self._most_w * (1 + TOLERANCE) * (now_s - self._moved_s)))
                self._counter_j, self._moved_s = counter_j, now_s

    def _counter(self, payload: bytes) -> float | None:
        """The plug's counter in joules; None where the payload has none, which is logged once."""
        options, figure = self._options, None
        try:
            figure = number(value_at(read_json(payload, source=options.topic), options.value))
        except GridschedError as error:
            if not self._unreadable:
                log.warning("the meter's message is of no use: %s", error, extra={"action": "meter_unreadable"})
        self._unreadable = figure is None
        return None if figure is None else figure * factor(options.unit, "J") * options.scale
