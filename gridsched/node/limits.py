"""What the device itself allows: its user, its temperature, its power supply and its disk. Sampling is apart from deciding."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from gridsched.core.errors import InvalidInput
from gridsched.core.fleet import DeviceState
from gridsched.node.user import user_idle_s

__all__ = ["COOLED_BY_C", "DeviceSample", "Limits", "device_state", "sample_device"]

_SUPPLIES = Path("/sys/class/power_supply")
COOLED_BY_C = 5.0
"""A device that was too hot works again only this far below its limit; at the limit itself it would switch to and fro."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The owner's limits. ``user_idle_s`` is how long desktop and terminals must have been quiet; None switches a limit off.

    ``cpu_share`` is how hard the device may work: the part of the time that steps are made, above 0 up to 1.
    ``max_memory_bytes`` is the most that training may take, runtime and all (None: half of the machine).
    """

    cpu_share: float = 1.0
    pause_when_user_active: bool = False
    user_idle_s: float = 300.0
    max_temperature_c: float | None = None
    not_on_battery: bool = True
    min_free_disk_bytes: int = 1_000_000_000
    max_memory_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.max_temperature_c is not None and not 20 <= self.max_temperature_c <= 120:
            raise InvalidInput(f"max_temperature_c must be between 20 and 120, got {self.max_temperature_c:g}; leave it out for no limit")
        if not 0 < self.cpu_share <= 1:
            raise InvalidInput(f"cpu_share must be above 0 and at most 1, got {self.cpu_share:g}; to do nothing at all, opt out")
        if self.max_memory_bytes is not None and self.max_memory_bytes <= 0:
            raise InvalidInput(f"max_memory must be above 0, got {self.max_memory_bytes}; to do nothing at all, opt out")
        if self.user_idle_s < 0 or self.min_free_disk_bytes < 0:
            raise InvalidInput("user_idle and min_free_disk must not be negative; 0 switches them off")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSample:
    """The device at one moment; None where the device cannot tell, which never stops work by itself."""

    free_disk_bytes: int
    user_idle_s: float | None = None
    temperature_c: float | None = None
    on_battery: bool | None = None


def device_state(sample: DeviceSample, limits: Limits, *, before: DeviceState = DeviceState.FREE) -> DeviceState:
    """What keeps the device from working, the gravest first, or ``free``. ``before`` gives temperature its hysteresis."""
    if sample.free_disk_bytes < limits.min_free_disk_bytes:
        return DeviceState.DISK_FULL
    if limits.max_temperature_c is not None and sample.temperature_c is not None:
        limit_c = limits.max_temperature_c - (COOLED_BY_C if before is DeviceState.HOT else 0.0)
        if sample.temperature_c >= limit_c:
            return DeviceState.HOT
    if limits.not_on_battery and sample.on_battery:
        return DeviceState.ON_BATTERY
    if limits.pause_when_user_active and sample.user_idle_s is not None and sample.user_idle_s < limits.user_idle_s:
        return DeviceState.USER_ACTIVE
    return DeviceState.FREE


def sample_device(folder: Path) -> DeviceSample:
    """The device now; ``folder`` names the disk that work is saved on."""
    return DeviceSample(
        free_disk_bytes=shutil.disk_usage(folder).free,
        user_idle_s=user_idle_s(),
        temperature_c=_hottest_c(),
        on_battery=_on_battery(_SUPPLIES),
    )


def _on_battery(supplies: Path) -> bool | None:
    """Whether a battery feeds the machine; None where it has none, or cannot tell. A mouse's own battery feeds the mouse."""
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if battery is None or battery.power_plugged is None:
        return None
    kinds = [(_word(supply / "type"), _word(supply / "scope")) for supply in supplies.glob("*")]
    scopes = [scope for kind, scope in kinds if kind == "Battery"]
    if scopes and all(scope == "Device" for scope in scopes):
        return None
    return not battery.power_plugged


def _word(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _hottest_c() -> float | None:
    if not hasattr(psutil, "sensors_temperatures"):
        return None
    readings = [entry.current for entries in psutil.sensors_temperatures().values() for entry in entries]
    return max(readings, default=None)
