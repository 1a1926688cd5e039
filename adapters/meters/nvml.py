"""Reads an NVIDIA GPU's own energy counter through NVML; needs ``pip install 'gridsched[nvml]'``.

``nvmlDeviceGetTotalEnergyConsumption`` counts millijoules since the driver was loaded, on Volta and newer
(https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html). Where a GPU has no counter, its power is read instead and
summed up between reads, which is told as an estimate. The rest of the machine is not metered: a GPU's share of the work is. What
the owner does on the same GPU is metered too: use it where gridsched has the GPU to itself.

::

    [meter]
    use = "meters/nvml.py"
    gpu = 0             # its number in nvidia-smi; without it all of them, added up
"""

import importlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gridsched.adapter import read_options
from gridsched.core.errors import ConfigError
from gridsched.ports import Register

__all__ = ["NvmlMeter"]

_SHORTEST_S = 0.1  # over less, power would show the steps in which a counter moves


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    gpu: int | None = None


class NvmlMeter:
    """The GPUs of the machine, or one of them. ``nvml`` is the module ``pynvml``, or something like it."""

    name = "nvml"

    def __init__(
        self, table: Mapping[str, object], *, power_w: float = 0.0, nvml: Any = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        del power_w  # a counter needs no model
        options = read_options(Options, table, adapter=self.name)
        self._nvml = _installed() if nvml is None else nvml
        try:
            self._gpus = self._handles(options.gpu)
            self._counts = self._has_counters()
            self._last_j, self._last_w = self._counter_j(), self._present_w()
        except self._nvml.NVMLError as error:
            raise ConfigError(f"adapter nvml: no usable GPU ({error}); check nvidia-smi, or use meters/estimate.py") from error
        self._monotonic = monotonic
        self._last_at = monotonic()
        self._energy_j = 0.0
        self._power_w = 0.0

    def _handles(self, gpu: int | None) -> list[Any]:
        self._nvml.nvmlInit()
        count = self._nvml.nvmlDeviceGetCount()
        if not count or (gpu is not None and not 0 <= gpu < count):
            which = "no GPU" if gpu is None else f"no GPU {gpu}"
            raise ConfigError(f"adapter nvml: there is {which} here, nvidia-smi lists {count}; use meters/estimate.py where there is none")
        return [self._nvml.nvmlDeviceGetHandleByIndex(index) for index in (range(count) if gpu is None else [gpu])]

    def _has_counters(self) -> bool:
        try:
            for gpu in self._gpus:
                self._nvml.nvmlDeviceGetTotalEnergyConsumption(gpu)
        except self._nvml.NVMLError_NotSupported:
            return False
        return True

    def read(self) -> Register:
        """The register now; power is the mean since the read before."""
        at = self._monotonic()
        passed_s = at - self._last_at
        if passed_s >= _SHORTEST_S:
            gained_j = self._gained_j(passed_s)
            self._energy_j += gained_j
            self._power_w = gained_j / passed_s
            self._last_at = at
        return Register(energy_j=self._energy_j, power_w=self._power_w, method="measured" if self._counts else "estimated")

    def _gained_j(self, passed_s: float) -> float:
        """Joules since the last call. A driver that was loaded anew counts from zero: what it says then is lost, not taken back."""
        last_j, last_w = self._last_j, self._last_w
        try:
            self._last_j, self._last_w = self._counter_j(), self._present_w()
        except self._nvml.NVMLError as error:
            raise ConfigError(f"adapter nvml: the GPU does not answer any more ({error}); check nvidia-smi") from error
        return max(self._last_j - last_j, 0.0) if self._counts else (last_w + self._last_w) / 2 * passed_s

    def _counter_j(self) -> float:
        return sum(self._nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) for gpu in self._gpus) / 1e3 if self._counts else 0.0

    def _present_w(self) -> float:
        return 0.0 if self._counts else sum(self._nvml.nvmlDeviceGetPowerUsage(gpu) for gpu in self._gpus) / 1e3


def _installed() -> Any:
    try:
        return importlib.import_module("pynvml")
    except ImportError as error:
        raise ConfigError("adapter nvml: the package nvidia-ml-py is missing; pip install 'gridsched[nvml]'") from error
