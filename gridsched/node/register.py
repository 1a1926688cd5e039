"""A meter's register that survives: it goes on from where the last agent left it, and counts by the daemon's clock."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from gridsched import plugins
from gridsched.core.errors import ConfigError
from gridsched.node.files import Write, write_durable
from gridsched.ports import Meter, Register

__all__ = ["KeptRegister", "load_meter"]

log = logging.getLogger(__name__)


class KeptRegister:
    """``meter``'s energy since this object was made, times ``speed``, on top of what ``path`` holds.

    A replayed day runs ``speed`` times as fast as the device; its energy is what the device would have used on a real day,
    power x clock time. What ``read`` has answered is on disk before anyone is told, so the register never runs backwards,
    whatever is killed.
    """

    def __init__(self, meter: Meter, path: Path, *, speed: float, write: Write = write_durable) -> None:
        self._meter = meter
        self._path = path
        self.speed = speed
        self._write = write
        self._kept_j = self._load()
        self._last_j = meter.read().energy_j

    def read(self) -> Register:
        """The register now; raises StorageFull where it could not be kept."""
        now = self._meter.read()
        total_j = self._kept_j + max(now.energy_j - self._last_j, 0.0) * self.speed
        if total_j != self._kept_j:
            self._write(self._path, json.dumps({"energy_j": total_j, "method": now.method}).encode())
        self._kept_j, self._last_j = total_j, now.energy_j
        return Register(energy_j=total_j, power_w=now.power_w, method=now.method)

    def _load(self) -> float:
        try:
            return float(json.loads(self._path.read_bytes())["energy_j"])
        except FileNotFoundError:
            return 0.0
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"the meter's register {self._path} is damaged; restore it, or join again as a new node") from error


def load_meter(ref: str, options: Mapping[str, object], *, power_w: float, adapters: Path | None = None) -> Meter:
    """The meter that ``ref`` names, from ``adapters`` or the shipped folder; ``power_w`` is the most the device draws."""
    kind = plugins.load_adapter(ref, adapters or plugins.shipped("adapters"))
    meter: Meter = kind(options, power_w=power_w)
    return meter
