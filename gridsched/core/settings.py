"""The site's settings as records: the sections of ``gridsched.toml``, each key with its unit, default and limits.

`gridsched.config` reads them from the file and the environment; this module knows neither. A field's type says how its key is
written: a `Span` is a duration, a `Size` a number of bytes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from gridsched.core.errors import ConfigError, InvalidInput
from gridsched.core.job import is_name
from gridsched.core.quantity import duration

__all__ = [
    "AdapterTable",
    "Blobs",
    "Control",
    "Outgoing",
    "Replay",
    "Settings",
    "Site",
    "StoreAddress",
    "Trust",
    "Web",
    "ZoneTable",
    "size_bytes",
]

_SIZES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE = re.compile(rf"\s*(\d+(?:\.\d+)?)\s*({'|'.join(_SIZES)})?\s*")


def size_bytes(written: object) -> int:
    """``"512 MB"``, ``"2 GiB"`` or a plain number, in bytes."""
    match = _SIZE.fullmatch(str(written)) if isinstance(written, str | int) and not isinstance(written, bool) else None
    if match is None:
        raise InvalidInput(f"{written!r} is not a size; write it like '512 MB', '20 GB' or as a number of bytes")
    return int(float(match[1]) * _SIZES[match[2] or "B"])


def _seconds(written: object) -> timedelta:
    """A duration as in policies; in the site's file a bare number is seconds."""
    if not isinstance(written, int | float) or isinstance(written, bool):
        return duration(written)
    try:
        return timedelta(seconds=written)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"{written} seconds are longer than any calendar") from error


def _rates(written: object) -> Mapping[str, float]:
    """A table from a host to a number above 0."""
    if not isinstance(written, dict):
        raise InvalidInput(f'{written!r} is not a table of hosts; write it like {{ "192.168.1.20" = 60 }}')
    wrong = [f"{host!r} = {rate!r}" for host, rate in written.items() if type(rate) not in (int, float) or not 0 < rate < float("inf")]
    if wrong:
        raise InvalidInput(f"{', '.join(wrong)}: requests a minute must be a number above 0")
    return MappingProxyType({host.lower(): float(rate) for host, rate in written.items()})


def _demand(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)


Size = Annotated[int, size_bytes]
Span = Annotated[timedelta, _seconds]
Rates = Annotated[Mapping[str, float], _rates]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """``data`` is the folder of database and blobs, relative to the site."""

    name: str = "home"
    data: Path = Path("data")

    def __post_init__(self) -> None:
        _demand(is_name(self.name), f"name: {self.name!r} must be lower-case letters, digits, - and _, at most 63")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAddress:
    """``url`` as SQLAlchemy writes it: ``sqlite:///`` (a relative path starts at the site) or ``postgresql+psycopg://``."""

    url: str = field(default="sqlite:///data/gridsched.sqlite", repr=False)

    def __post_init__(self) -> None:
        _demand(self.url.startswith(("sqlite://", "postgresql")), "url: must begin with sqlite:/// or postgresql+psycopg://")


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """Where the daemon listens, and its limits.

    ``max_queue`` is the number of calls that may wait to be written;
    ``calls_per_s`` is what one token may do; ``max_body_bytes`` bounds a JSON message (but for the digests that a long unit is handed in
    with, see `web.intake`), ``max_blob_bytes`` a stored file, and ``max_blobs`` their number, unfinished ones included.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    max_body_bytes: Size = 64_000
    max_blob_bytes: Size = 512_000_000
    max_blobs: int = 100_000
    max_queue: int = 10_000
    calls_per_s: float = 200.0
    metrics_need_token: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None

    def __post_init__(self) -> None:
        _demand(0 <= self.port < 65536, f"port: {self.port} is not a port; use 1 to 65535, or 0 for any free one")
        _demand((self.tls_cert is None) == (self.tls_key is None), "tls_cert and tls_key belong together; give both or neither")
        for name in ("max_body_bytes", "max_blob_bytes", "max_blobs", "max_queue", "calls_per_s"):
            _demand(getattr(self, name) > 0, f"{name}: must be above 0, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """How often the adapters may ask one host: ``burst`` times at once and ``per_minute`` in the long run.

    ``hosts`` has its own requests a minute for hosts by name, with or without their port: a meter in the house bears more than a
    public service.
    """

    per_minute: float = 2.0
    burst: int = 4
    hosts: Rates = field(default_factory=dict)

    def __post_init__(self) -> None:
        _demand(0 < self.per_minute < float("inf"), f"per_minute: must be above 0, got {self.per_minute}")
        _demand(self.burst > 0, f"burst: must be above 0, got {self.burst}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A clock that starts at ``replay_from`` and runs ``speed`` times as fast as the real one; without ``[clock]`` time is real."""

    replay_from: datetime
    speed: float = 1.0

    def __post_init__(self) -> None:
        _demand(0 < self.speed < float("inf"), f"speed: must be above 0, got {self.speed}; 1 is real time")


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """The pace of the daemon, in durations of its own clock.

    ``every``: control tick. ``sync_every``: how often a node reports. ``lease_ttl``: how long a node may go on unheard.
    ``longest_lease``: then the unit goes to another node. ``absent_after``: silence that counts as gone. ``start_jitter``: spreads
    starts. ``hand_over_after``: a pause this long asks for the continuation back. ``copies``: the share of a round's units (at least
    one) that an idle node may do a second time where their own node is silent, paused or far behind; 0 for none.
    """

    every: Span = timedelta(minutes=1)
    sync_every: Span = timedelta(seconds=20)
    lease_ttl: Span = timedelta(seconds=90)
    longest_lease: Span = timedelta(hours=6)
    absent_after: Span = timedelta(seconds=60)
    start_jitter: Span = timedelta(seconds=2)
    hand_over_after: Span = timedelta(minutes=10)
    copies: float = 0.2

    def __post_init__(self) -> None:
        _demand(0 <= self.copies <= 1, f"copies: must be a share between 0 and 1, got {self.copies}")
        for f in (f for f in fields(self) if f.name != "copies"):
            least = timedelta(0) if f.name == "start_jitter" else timedelta(milliseconds=1)
            _demand(getattr(self, f.name) >= least, f"{f.name}: must be above 0")
        _demand(
            self.absent_after > self.sync_every,
            f"absent_after: {self.absent_after} is not longer than sync_every {self.sync_every}; nodes would be lost between two syncs",
        )
        _demand(
            self.lease_ttl >= 2 * self.sync_every,
            f"lease_ttl: {self.lease_ttl} is not twice sync_every {self.sync_every}; one lost message would end a lease",
        )
        _demand(self.longest_lease >= self.lease_ttl, "longest_lease: must be at least lease_ttl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Blobs:
    """``quota_bytes`` is the room for all stored files; what nothing names is removed after ``keep``."""

    quota_bytes: Size = field(default=20_000_000_000, metadata={"key": "quota"})
    keep: Span = timedelta(days=7)

    def __post_init__(self) -> None:
        _demand(self.quota_bytes > 0, "quota: must be above 0")
        _demand(self.keep >= timedelta(0), "keep: must be 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whether nodes' work is done again elsewhere and compared: ``audits``.

    A node is always audited until ``probation`` units in a row were found right; from then on ever less, but never less than ``share``
    of its units (see `core.trust`).
    """

    audits: bool = True
    share: float = 0.05
    probation: int = 3

    def __post_init__(self) -> None:
        _demand(0 <= self.share <= 1, f"share: must lie between 0 and 1, got {self.share}")
        _demand(self.probation >= 0, f"probation: must be 0 or more units, got {self.probation}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneTable:
    """A zone and the file of its policy: a path from the site, or a bare file name in its ``policies/``."""

    name: str
    policy: Path

    def __post_init__(self) -> None:
        _demand(is_name(self.name), f"name: {self.name!r} must be lower-case letters, digits, - and _, at most 63")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterTable:
    """``use`` names the adapter (a path below ``adapters/``, or ``module:Class``); ``options`` is the rest of its table.

    ``secrets`` are the values that came from the environment: no log and no screen shows them.
    """

    use: str
    options: Mapping[str, Any] = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All of it; ``folder`` is the site's absolute path, and every path below is absolute too."""

    folder: Path
    site: Site = Site()
    store: StoreAddress = StoreAddress()
    web: Web = Web()
    http: Outgoing = Outgoing()
    clock: Replay | None = None
    control: Control = Control()
    blobs: Blobs = Blobs()
    trust: Trust = Trust()
    zones: tuple[ZoneTable, ...] = ()
    adapters: tuple[AdapterTable, ...] = ()

    @property
    def token_file(self) -> Path:
        """Where ``gridsched init`` leaves the first operator token, readable by its owner only."""
        return self.folder / "operator.token"
