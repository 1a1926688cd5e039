"""Reads the processor's own energy counters through Linux powercap: Intel RAPL, and AMD's since kernel 5.8.

Each package is a folder ``/sys/class/powercap/intel-rapl:N`` with ``energy_uj``, a counter in microjoules that wraps at
``max_energy_range_uj`` (https://www.kernel.org/doc/html/latest/power/powercap/powercap.html). Subzones (``intel-rapl:N:M``) are
parts of their package and are not added to it; memory (``dram``) is, where ``dram = true``, because packages leave it out.
Since CVE-2020-8694 only root may read the counters; a udev rule or a group can allow it (see the message).
What the owner does on the same processor is metered too: use it where gridsched has the device to itself.

::

    [meter]
    use = "meters/rapl.py"
    root = "/sys/class/powercap"
    dram = true
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gridsched.adapter import read_options
from gridsched.core.errors import ConfigError
from gridsched.ports import Register

__all__ = ["RaplMeter"]

_SHORTEST_S = 0.01  # the counters move about every millisecond
_MOST_W = 2000.0
"""No package draws more: a counter that would have turned at more than that began anew, as some do when the machine has slept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    root: str = "/sys/class/powercap"
    dram: bool = True


@dataclass(slots=True)
class _Counter:
    folder: Path
    range_uj: int
    last_uj: int = field(default=0)

    def advance_uj(self, passed_s: float) -> int:
        """Microjoules since the last call. Read at least once per wrap (a minute at the very least), or a whole turn is missed."""
        now = _number(self.folder / "energy_uj")
        gained = now - self.last_uj
        self.last_uj = now
        if gained < 0:
            gained += self.range_uj
            if gained > _MOST_W * 1e6 * passed_s:
                return now
        return gained


class RaplMeter:
    """All packages of the machine, added up."""

    name = "rapl"

    def __init__(self, table: Mapping[str, object], *, power_w: float = 0.0, monotonic: Callable[[], float] = time.monotonic) -> None:
        del power_w  # a counter needs no model
        options = read_options(Options, table, adapter=self.name)
        self._counters = [_Counter(folder, _number(folder / "max_energy_range_uj")) for folder in _zones(Path(options.root), options.dram)]
        if not self._counters:
            raise ConfigError(f"adapter rapl: no package counters in {options.root}; this machine has none, use meters/estimate.py")
        for counter in self._counters:
            counter.advance_uj(0.0)
        self._monotonic = monotonic
        self._last_at = monotonic()
        self._energy_j = 0.0
        self._power_w = 0.0

    def read(self) -> Register:
        """The register now; power is the mean since the read before."""
        at = self._monotonic()
        passed_s = at - self._last_at
        if passed_s >= _SHORTEST_S:
            gained_j = sum(counter.advance_uj(passed_s) for counter in self._counters) / 1e6
            self._energy_j += gained_j
            self._power_w = gained_j / passed_s
            self._last_at = at
        return Register(energy_j=self._energy_j, power_w=self._power_w, method="measured")


def _zones(root: Path, dram: bool) -> list[Path]:
    """Folders of packages, and of their memory where asked for."""
    found = sorted(root.glob("intel-rapl:*")) if root.is_dir() else []
    return [folder for folder in found if _kind(folder).startswith("package") or (dram and _kind(folder) == "dram")]


def _kind(folder: Path) -> str:
    try:
        return (folder / "name").read_text().strip()
    except OSError:
        return ""


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except PermissionError as error:
        raise ConfigError(
            f"adapter rapl: {path} is readable by root only; allow your group: sudo chgrp $USER {path} && sudo chmod g+r {path}"
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"adapter rapl: {path} cannot be read ({error}); use meters/estimate.py") from error
