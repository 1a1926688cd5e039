"""The owner's settings of one node, in ``node.toml`` of its home folder; read strictly."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from gridsched.core.errors import ConfigError, InvalidInput
from gridsched.core.quantity import duration, unknown_key
from gridsched.node.limits import Limits
from gridsched.node.runtimes import RUNTIMES

__all__ = ["NodeSettings", "Priority", "parse_settings", "read_settings", "settings_text"]

_SIZES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


class Priority(StrEnum):
    """How the training child competes for the processor: ``idle`` takes only what nobody else wants."""

    IDLE = "idle"
    LOW = "low"
    NORMAL = "normal"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """``meter`` names an adapter, ``meter_options`` is its table; ``runtime`` is torch, wasm or auto, ``device`` cpu, cuda, mps or auto.

    ``save_every`` and ``release_memory_after`` are clock time (as fast as the daemon's); a continuation is saved at least that
    often while running, and a child paused that long ends after saving.
    """

    meter: str = "meters/estimate.py"
    meter_options: Mapping[str, object] = field(default_factory=dict)
    adapters: str = ""
    runtime: str = "auto"
    device: str = "cpu"
    threads: int = 1
    priority: Priority = Priority.IDLE
    release_memory_after: timedelta = timedelta(minutes=10)
    save_every: timedelta = timedelta(minutes=1)
    cache_bytes: int = 5_000_000_000
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise InvalidInput(f"threads must be at least 1, got {self.threads}")
        if self.runtime not in RUNTIMES:
            raise InvalidInput(f"runtime {self.runtime!r} is none of {', '.join(RUNTIMES)}")
        if self.device not in ("cpu", "cuda", "mps", "auto"):
            raise InvalidInput(f"device {self.device!r} is none of cpu, cuda, mps, auto")


def settings_text(settings: NodeSettings, *, power_w: float) -> str:
    """A first ``node.toml`` with every setting and what it means."""
    limits = settings.limits
    hot = f"max_temperature_c = {limits.max_temperature_c:g}" if limits.max_temperature_c else "# max_temperature_c = 85"
    memory = f'max_memory = "{limits.max_memory_bytes / 1e6:g} MB"' if limits.max_memory_bytes else '# max_memory = "2 GB"'
    return f"""# This node registered with {power_w:g} W. Changes here take effect when the agent starts again.
runtime = "{settings.runtime}"                # torch: fast; wasm: small, and the same bits on every device; auto: torch if installed
device = "{settings.device}"                  # cpu, cuda, mps or auto
threads = {settings.threads}                     # more threads are another hardware class: results agree within a tolerance only
priority = "{settings.priority}"               # idle: only what nobody else wants of the processor; low; normal
release_memory_after = "{_seconds(settings.release_memory_after)}"   # paused this long, the training process ends (saved)
save_every = "{_seconds(settings.save_every)}"              # a killed node loses at most this much work
cache_size = "{settings.cache_bytes / 1e9:g} GB"             # downloads kept on disk

[meter]
use = "{settings.meter}"

[limits]
cpu_share = {limits.cpu_share:g}                 # how hard it may work: 0.5 rests as long as it computes
pause_when_user_active = {str(limits.pause_when_user_active).lower()}
user_idle = "{limits.user_idle_s:g}s"              # desktop and terminals quiet for this long count as away
{hot}
not_on_battery = {str(limits.not_on_battery).lower()}
min_free_disk = "{limits.min_free_disk_bytes / 1e9:g} GB"
{memory}                # the most that training may take; default: half of the machine
"""


def _seconds(time: timedelta) -> str:
    return f"{time.total_seconds():g}s"


def read_settings(path: Path) -> NodeSettings:
    """The settings in ``path``, or all defaults where there is no file. Raises ConfigError."""
    if not path.exists():
        return NodeSettings()
    return parse_settings(path.read_text(), where=str(path))


def parse_settings(text: str, *, where: str = "node.toml") -> NodeSettings:
    """Every mistake in one ConfigError, each with the key it is in."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} is not TOML: {error}") from error
    problems: list[str] = []
    meter = dict(_table(table, "meter", problems))
    limits = _read(dict(_table(table, "limits", problems)), _LIMITS, "limits.", problems)
    values = _read(table, _SETTINGS, "", problems)
    if "use" in meter:
        values["meter"] = str(meter.pop("use"))
    if not problems:
        try:
            return NodeSettings(**values, meter_options=meter, limits=Limits(**limits))
        except InvalidInput as error:
            problems = [str(error)]
    raise ConfigError(f"{where}: " + "; ".join(problems))


def _table(table: dict[str, Any], key: str, problems: list[str]) -> dict[str, Any]:
    found = table.pop(key, {})
    if isinstance(found, dict):
        return found
    problems.append(f"{key} must be a table: write [{key}]")
    return {}


def _read(table: Mapping[str, object], vocabulary: Mapping[str, tuple[str, Any]], prefix: str, problems: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, written in table.items():
        if key not in vocabulary:
            problems.append(f"{prefix}{unknown_key(key, vocabulary)}")
            continue
        name, reader = vocabulary[key]
        try:
            values[name] = reader(written)
        except (InvalidInput, ValueError) as error:
            problems.append(f"{prefix}{key}: {error}")
    return values


def _size(written: object) -> int:
    """``"5 GB"`` in bytes."""
    text = str(written).strip()
    unit = text.lstrip("0123456789.").strip()
    if unit not in _SIZES:
        raise InvalidInput(f"{written!r} is not a size; write it like '5 GB'")
    return int(float(text.removesuffix(unit)) * _SIZES[unit])


def _typed(kind: type) -> Any:
    def read(written: object) -> object:
        if not isinstance(written, kind) or (kind is not bool and isinstance(written, bool)):
            raise InvalidInput(f"{written!r} is not a {kind.__name__}")
        return written

    return read


def _temperature(written: object) -> float:
    if isinstance(written, bool) or not isinstance(written, int | float):
        raise InvalidInput(f"{written!r} is not a number of degrees Celsius")
    return float(written)


def _share(written: object) -> float:
    if isinstance(written, bool) or not isinstance(written, int | float):
        raise InvalidInput(f"{written!r} is not a number above 0 up to 1")
    return float(written)


_SETTINGS: Mapping[str, tuple[str, Any]] = {
    "adapters": ("adapters", _typed(str)),
    "runtime": ("runtime", _typed(str)),
    "device": ("device", _typed(str)),
    "threads": ("threads", _typed(int)),
    "priority": ("priority", Priority),
    "release_memory_after": ("release_memory_after", duration),
    "save_every": ("save_every", duration),
    "cache_size": ("cache_bytes", _size),
}
_LIMITS: Mapping[str, tuple[str, Any]] = {
    "cpu_share": ("cpu_share", _share),
    "pause_when_user_active": ("pause_when_user_active", _typed(bool)),
    "user_idle": ("user_idle_s", lambda written: duration(written).total_seconds()),
    "max_temperature_c": ("max_temperature_c", _temperature),
    "not_on_battery": ("not_on_battery", _typed(bool)),
    "min_free_disk": ("min_free_disk_bytes", _size),
    "max_memory": ("max_memory_bytes", _size),
}
assert {name for name, _ in _LIMITS.values()} == {f.name for f in fields(Limits)}
