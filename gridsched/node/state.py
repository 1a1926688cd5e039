"""The node's home folder: who it is, what its owner chose, what it has not yet handed in.

::

    HOME/
      identity.json    address, name and token (0600)
      node.toml        the owner's settings, theirs to edit
      consent.json     the owner's newest choice;  consent.sent  the id of the choice the daemon has acknowledged
      lock             held by the running agent
      gate             one byte, shared with the training child: may it go on?
      register.json    the meter's register
      status.json      what the agent does now, for ``gridsched node status``
      blobs/           downloads by digest
      local/NAME/      the owner's own datasets, which never leave
      lease.json       steps run under the present lease
      work/UNIT/CLASS/ saved middles of units, apart by the hardware class that computed them
      outbox/          finished updates the daemon has not yet answered
"""

import fcntl
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TypeVar
from urllib.parse import quote

from gridsched.core.errors import ConfigError, Conflict, MessageError
from gridsched.node.files import Write, write_durable
from gridsched.node.local import LocalStore
from gridsched.wire import decode, encode

__all__ = ["Choice", "Effort", "Finished", "Home", "HomeLock", "Identity", "Status"]

T = TypeVar("T")

_KEPT_UNITS = 4
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_LOCK_ATTEMPTS = 5
_LOCK_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who this node is to which daemon; written by ``gridsched node join``. ``runtime_bytes`` is what its training process takes idle."""

    url: str
    node_id: str
    token: str = field(repr=False)
    zone: str
    power_w: float
    runtime: str
    clock_speed: float
    runtime_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The owner's choice as made on this machine at ``made_at``. ``for_s`` is in seconds of the daemon's clock."""

    choice_id: str = field(default_factory=lambda: secrets.token_hex(8))
    opted_in: bool
    for_s: float | None = None
    max_w: float | None = None
    min_reward_micro_per_kwh: int = 0
    made_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A finished unit on its way to the daemon. ``update`` is the digest of a file in the outbox, None for an evaluation."""

    lease_id: str
    generation: int
    unit_id: str
    update: str | None
    steps_executed: int
    metrics: Mapping[str, float]
    digests: list[tuple[int, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """``steps_executed`` counts every step run under the lease, repeated ones too."""

    lease_id: str
    steps_executed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What the agent does and why, as last written. Times are the node's own; ``energy_j`` is its whole register."""

    node_id: str
    phase: str
    reason: str
    node_reason: str = ""
    connected: bool = False
    last_contact: datetime | None = None
    device: str = "free"
    job_id: str = ""
    unit_id: str = ""
    step: int = 0
    steps: int = 0
    speed: float = 0.0
    power_w: float = 0.0
    energy_j: float = 0.0
    earned_micro: int = 0
    opted_in: bool = False
    consent_left_s: float | None = None
    max_w: float | None = None
    min_reward_micro_per_kwh: int = 0
    waiting_updates: int = 0
    finished_units: int = 0
    notice: str = ""
    pid: int = 0


class Home:
    """The files above. One agent at a time holds the lock; the command line writes only ``consent.json``."""

    def __init__(self, folder: Path, *, write: Write = write_durable) -> None:
        self.folder = folder
        self.write = write
        self.settings = folder / "node.toml"
        self.gate = folder / "gate"
        self.register = folder / "register.json"
        self.blobs = folder / "blobs"
        self.local = LocalStore(folder / "local", write=write)
        self.outbox = folder / "outbox"
        self.work = folder / "work"
        self.worker_log = folder / "worker.log"

    def make(self) -> None:
        """Create the folder, closed to others."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)

    def identity(self) -> Identity:
        """Raises ConfigError where the node has not joined."""
        found = self._read("identity.json", Identity)
        if found is None:
            raise ConfigError(f"no node lives in {self.folder}; join first: gridsched node join URL --code CODE")
        return found

    def set_identity(self, identity: Identity) -> None:
        """Keep who this node is."""
        self._save("identity.json", identity)

    def retire(self) -> None:
        """The node has left its daemon: forget who it was and what it was at. The settings stay, and the owner's own data."""
        for folder in (self.outbox, self.work, self.blobs):
            shutil.rmtree(folder, ignore_errors=True)
        for name in ("consent.json", "consent.sent", "status.json", "lease.json", "identity.json"):
            (self.folder / name).unlink(missing_ok=True)
        self.register.unlink(missing_ok=True)

    def choice(self) -> Choice | None:
        """The owner's newest choice, or None where none was made here."""
        return self._read("consent.json", Choice)

    def set_choice(self, choice: Choice) -> None:
        """Keep the owner's newest choice."""
        self._save("consent.json", choice)

    def choice_stamp(self) -> int:
        """Changes when a choice is made; 0 before the first."""
        try:
            return (self.folder / "consent.json").stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def sent_choice(self) -> str:
        """The id of the last choice that the daemon has acknowledged."""
        path = self.folder / "consent.sent"
        return path.read_text().strip() if path.exists() else ""

    def set_sent_choice(self, choice_id: str) -> None:
        """The daemon has acknowledged that choice."""
        self.write(self.folder / "consent.sent", choice_id.encode())

    def status(self) -> Status | None:
        """What the agent last wrote, running or not."""
        return self._read("status.json", Status)

    def set_status(self, status: Status) -> None:
        """Show what the agent does."""
        self._hint("status.json", status)

    # Saved middles of units.

    def unit_folder(self, unit_id: str) -> Path:
        """All that is kept of a unit."""
        return self.work / f"unit-{quote(unit_id, safe='')}"

    def middles(self, unit_id: str, hardware_class: str) -> Path:
        """Where a unit's continuations by one hardware class are; `gridsched.train.checkpoint` keeps the newest two.

        Those of another class stay out of sight: this one may neither go on from them nor hand them over as its own work.
        """
        plain = _PLAIN.fullmatch(hardware_class) is not None
        return self.unit_folder(unit_id) / (hardware_class if plain else hashlib.sha256(hardware_class.encode()).hexdigest()[:16])

    def prune(self) -> None:
        """Keep the few units last worked on: a dropped one may be asked for again."""
        folders = sorted(self.work.glob("unit-*"), key=_written_at, reverse=True)
        for folder in folders[_KEPT_UNITS:]:
            shutil.rmtree(folder, ignore_errors=True)

    def forget(self, unit_id: str) -> None:
        """The unit is done with, here."""
        shutil.rmtree(self.unit_folder(unit_id), ignore_errors=True)

    def effort(self, lease_id: str) -> int:
        """Steps run so far under this lease, by this agent and those before it."""
        found = self._read("lease.json", Effort)
        return found.steps_executed if found is not None and found.lease_id == lease_id else 0

    def set_effort(self, lease_id: str, steps_executed: int) -> None:
        """Keep the steps run under the present lease."""
        self._hint("lease.json", Effort(lease_id=lease_id, steps_executed=steps_executed))

    # The outbox.

    def post(self, finished: Finished) -> None:
        """Keep a finished unit until the daemon has answered; its update's file must be in place already."""
        self._save(f"outbox/{quote(finished.lease_id, safe='')}.json", finished)

    def posted(self) -> list[Finished]:
        """All that waits, in order of lease id."""
        found = (self._read(f"outbox/{path.name}", Finished) for path in sorted(self.outbox.glob("*.json")))
        return [item for item in found if item is not None]

    def update_path(self, digest: str) -> Path:
        """Where a finished update's bytes are."""
        return self.outbox / f"{digest}.update"

    def unpost(self, finished: Finished) -> None:
        """The daemon has answered: accepted, or refused for good."""
        (self.outbox / f"{quote(finished.lease_id, safe='')}.json").unlink(missing_ok=True)
        left = self.posted()  # done twice, a unit ends in the same file
        if finished.update is not None and all(item.update != finished.update for item in left):
            self.update_path(finished.update).unlink(missing_ok=True)
        if all(item.unit_id != finished.unit_id for item in left):
            self.forget(finished.unit_id)

    def _hint(self, name: str, record: object) -> None:
        """Whole or not there, but not synced: it changes often, and after a loss of power it tells nothing. A full disk is no matter."""
        part = self.folder / f".{name}.part"
        with suppress(OSError):
            part.write_bytes(encode(record))
            part.replace(self.folder / name)

    def _save(self, name: str, record: object) -> None:
        self.write(self.folder / name, encode(record))

    def _read(self, name: str, kind: type[T]) -> T | None:
        path = self.folder / name
        try:
            return decode(path.read_bytes(), kind)
        except FileNotFoundError:
            return None
        except MessageError as error:
            raise ConfigError(f"{path} is damaged ({error}); delete it, or join again with a new code") from error


def _written_at(unit: Path) -> float:
    """When a continuation was last put into a unit's folder: seconds since 1970. One by a release before this lies in the folder itself."""
    return max(folder.stat().st_mtime for folder in (unit, *unit.glob("*/")))


class HomeLock:
    """Held while an agent runs: two on one home would train the same unit twice. The system frees it when the holder dies."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"
        self._descriptor: int | None = None

    def __enter__(self) -> "HomeLock":
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        if not self._take(descriptor):
            os.close(descriptor)
            place = self._path.parent
            raise Conflict(f"an agent already runs on {place}; stop it first, or give this one another folder with --home")
        self._descriptor = descriptor
        return self

    @staticmethod
    def _take(descriptor: int) -> bool:
        """Whether it could be had; a few attempts, because ``held`` takes it for a moment too."""
        for attempt in range(_LOCK_ATTEMPTS):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if attempt + 1 < _LOCK_ATTEMPTS:
                    time.sleep(_LOCK_PAUSE_S)
            else:
                return True
        return False

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def held(self) -> bool:
        """Whether an agent holds it now."""
        try:
            with HomeLock(self._path.parent):
                return False
        except Conflict:
            return True
