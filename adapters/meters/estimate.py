"""Estimates the node's power from the processor time of gridsched's own processes: for devices without a meter.

power = idle_w x idle_share + (max_w - idle_w) x utilisation, the linear model of Fan, Weber and Barroso 2007
(doi 10.1145/1250662.1250665), which they found within 1 % for machine groups and about 5 % for one machine. Only the agent and
its children count: what the owner does with the device is not ours to be paid for.

::

    [meter]
    use = "meters/estimate.py"
    max_w = 120.0       # at full use; default: the power registered on joining
    idle_w = 6.0        # drawn for being ready; default 5 % of max_w
    idle_share = 1.0    # how much of idle_w is gridsched's: 0 where the device would be on anyway
    cores = 1           # processor seconds per second that count as full use; 0.25 for a device held to a quarter of a core
    agent = true        # false leaves the agent out: in a replay it talks as often as the day is fast
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import psutil

from gridsched.adapter import read_options
from gridsched.core.errors import InvalidInput
from gridsched.ports import Register

__all__ = ["EstimateMeter"]

_SHORTEST_S = 0.05  # the kernel counts processor time in ticks of 10 ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    max_w: float | None = None
    idle_w: float | None = None
    idle_share: float = 1.0
    cores: float = 1.0
    agent: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.idle_share <= 1:
            raise InvalidInput(f"idle_share must be between 0 and 1, got {self.idle_share:g}")
        if not 0 < self.cores < 10_000:
            raise InvalidInput(f"cores must be above 0, got {self.cores:g}")


def own_cpu_s(*, agent: bool = True) -> float:
    """Processor seconds of this process (unless ``agent`` is False) and its children so far, dead ones included.

    The kernel adds a child's time to its parent's when it is waited for; until then the dead child still tells its own.
    """
    own = os.times()
    total = own.children_user + own.children_system + (own.user + own.system if agent else 0.0)
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            times = child.cpu_times()
            total += times.user + times.system + getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return total


class EstimateMeter:
    """A linear power model over our own processor time."""

    name = "estimate"

    def __init__(
        self,
        table: Mapping[str, object],
        *,
        power_w: float,
        cpu_s: Callable[[], float] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        options = read_options(Options, table, adapter=self.name)
        self._max_w = power_w if options.max_w is None else options.max_w
        self._idle_w = 0.05 * self._max_w if options.idle_w is None else options.idle_w
        if not 0 <= self._idle_w <= self._max_w:
            raise InvalidInput(f"adapter {self.name}: idle_w {self._idle_w:g} must lie between 0 and max_w {self._max_w:g}")
        self._options = options
        self._cpu_s = cpu_s or partial(own_cpu_s, agent=options.agent)
        self._monotonic = monotonic
        self._last_at = monotonic()
        self._last_cpu_s = self._cpu_s()
        self._energy_j = 0.0
        self._power_w = self._draw_w(0.0)

    def read(self) -> Register:
        """The register now; power is the mean since the read before."""
        at = self._monotonic()
        passed_s = at - self._last_at
        if passed_s >= _SHORTEST_S:
            # A child may vanish between the kernel's two ledgers for a moment; its time comes back with the next read.
            used_s = max(self._cpu_s() - self._last_cpu_s, 0.0)
            self._power_w = self._draw_w(min(used_s / (passed_s * self._options.cores), 1.0))
            self._energy_j += self._power_w * passed_s
            self._last_at = at
            self._last_cpu_s += used_s
        return Register(energy_j=self._energy_j, power_w=self._power_w, method="estimated")

    def _draw_w(self, utilisation: float) -> float:
        return self._idle_w * self._options.idle_share + (self._max_w - self._idle_w) * utilisation
