"""What the shell must provide, as small Protocols. Verbs and the daemon are written against these alone."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from gridsched.core.facts import Fact
from gridsched.core.rule import Policy
from gridsched.core.signal import Reading, SignalKind

__all__ = ["Blobs", "Channel", "Clock", "Meter", "PolicyFiles", "Register", "Reply", "Store", "Tx", "Writer"]

R = TypeVar("R")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@runtime_checkable
class Clock(Protocol):
    """Time as the daemon sees it; ``speed`` clock seconds pass in a real one."""

    speed: float

    def now(self) -> datetime:
        """Aware, UTC, never before an earlier answer."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait for ``seconds`` of clock time."""
        ...


@dataclass(frozen=True, slots=True)
class Reply(Generic[T_co]):
    """What a verb answers its caller, beside the facts it made."""

    value: T_co
    facts: Sequence[Fact] = ()


class Tx(Protocol):
    """One transaction over the store's records. Each record type is a table, its fields are the columns.

    A record kind's key is in `gridsched.store.tables` (``Lease``: lease_id, ``Version``: (job_id, number), ...).
    ``where`` values are equal-to; a tuple, list or set means any-of; None means is-null.
    """

    def get(self, kind: type[R], /, *key: Any) -> R | None:
        """The record with that key, or None."""
        ...

    def must(self, kind: type[R], /, *key: Any) -> R:
        """The record with that key; raises `NotFound` naming it."""
        ...

    def find(self, kind: type[R], /, *, order: str = "", limit: int | None = None, **where: Any) -> list[R]:
        """All records that match, ordered by the named fields (``"-at"`` descends), else by key."""
        ...

    def count(self, kind: type[Any], /, **where: Any) -> int:
        """How many records match."""
        ...

    def insert(self, *records: Any) -> None:
        """New records of any kinds; raises `Conflict` where a key exists."""
        ...

    def put(self, *records: Any) -> None:
        """Insert or replace by key; many records of one kind go in one statement."""
        ...

    def swap(self, record: Any, /, **expected: Any) -> bool:
        """Replace by key only where the stored row still has the ``expected`` values; whether it had."""
        ...

    def delete(self, kind: type[Any], /, **where: Any) -> int:
        """Remove what matches; how many records that was."""
        ...

    def store_readings(self, readings: Sequence[Reading]) -> int:
        """Append readings; the number of new rows. A repeat of its slot's newest revision adds none, unless a forecast would grow old."""
        ...

    def readings(self, zone: str, signal: SignalKind, start: datetime, end: datetime, *, known_at: datetime) -> list[Reading]:
        """The newest revision known at ``known_at`` of every slot that overlaps [start, end), by start."""
        ...

    def facts(self, *, since: int = 0, limit: int = 1000, kinds: Sequence[str] = (), subject: str = "") -> list[tuple[int, Fact]]:
        """Committed facts after sequence ``since``; ``subject`` matches any id a fact names."""
        ...


class Store(Protocol):
    """Durable rows. ``read`` may be used from any thread; only the `Writer` calls ``write``."""

    def read(self) -> AbstractContextManager[Tx]:
        """A consistent view; nothing may be written in it."""
        ...

    def write(self) -> AbstractContextManager[Tx]:
        """One transaction, committed at the end and rolled back by an exception."""
        ...

    def upgrade(self) -> None:
        """Bring the schema to the newest migration, under a lock."""
        ...

    def close(self) -> None:
        """Let go of all connections."""
        ...


class Writer(Protocol):
    """The one thread that writes, group by group. A future is answered after its commit is durable."""

    def submit(self, verb: Callable[[Tx, datetime], Sequence[Fact] | Reply[T]]) -> "Future[T]":
        """Run ``verb`` in the next group; its savepoint is rolled back alone if it raises.

        Raises `Busy` when the queue is full.
        """
        ...

    def submit_many(self, verb: Callable[[Tx, datetime, Sequence[Any]], Reply[Sequence[T | Exception]]], item: Any) -> "Future[T]":
        """As ``submit``, but all waiting items of one ``verb`` go to it in one call.

        An Exception among its answers is raised to that item's caller.
        """
        ...


class Blobs(Protocol):
    """Content-addressed files: written aside, synced, renamed; a digest is a sha256 in lower-case hex."""

    def put(self, data: bytes | memoryview) -> str:
        """Store ``data`` durably; its digest."""
        ...

    def get(self, digest: str) -> bytes:
        """The bytes; raises `NotFound`, or `BlobCorrupt` where they no longer match."""
        ...

    def path(self, digest: str) -> Path:
        """The file, for streaming; raises `NotFound`."""
        ...

    def verified(self, digest: str) -> Path:
        """The file, held against its digest as `get` holds it."""
        ...

    def has(self, digest: str) -> bool:
        """Whether the whole blob is there."""
        ...

    def size(self, digest: str) -> int:
        """Its length in bytes; raises `NotFound`."""
        ...

    @property
    def files(self) -> int:
        """How many files are there, unfinished ones too."""
        ...

    def offset(self, digest: str, *, by: str = "") -> int:
        """Bytes already received of an unfinished upload ``by`` one caller; each has its own."""
        ...

    def append(self, digest: str, data: bytes, *, offset: int, total: int, by: str = "") -> bool:
        """One piece of a resumable upload; True once whole, verified and durable.

        Raises `Conflict` for another offset, `TooLarge`, `StorageFull`, `BlobCorrupt`.
        """
        ...

    def sweep(self, named: set[str], *, older_than: datetime) -> int:
        """Remove files that nothing names; how many bytes were freed."""
        ...

    def digests(self) -> Iterator[str]:
        """Every whole blob."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """A meter's cumulative energy in joules, the present power in watts, and ``measured`` or ``estimated``."""

    energy_j: float
    power_w: float
    method: str


class Meter(Protocol):
    """One power meter of a node."""

    def read(self) -> Register:
        """The register now; never runs backwards within one process."""
        ...


class Channel(Protocol):
    """Pushes to nodes that are connected; what cannot be pushed is pulled with the next sync."""

    def nudge(self, node_ids: Sequence[str]) -> None:
        """Send these nodes their present orders as soon as possible. Never blocks, drops the oldest when full."""
        ...

    def present(self) -> set[str]:
        """The nodes that are connected now."""
        ...


class PolicyFiles(Protocol):
    """The files that hold the zones' policies. A zone is one of the daemon's."""

    def name(self, zone: str) -> str:
        """The policy's name, which is its file's."""
        ...

    def text(self, zone: str) -> str:
        """The file as it is now; raises `PolicyError` where it cannot be read."""
        ...

    def parse(self, zone: str, text: str) -> Policy:
        """The policy in ``text``, which must rule ``zone``; raises `InvalidInput` with every problem."""
        ...

    def save(self, zone: str, text: str, *, replaces: str) -> Path | None:
        """Put ``text`` in the file's place and keep what was there: where, or None where nothing has changed.

        ``replaces`` is the sha256 of the text that was edited; raises `Conflict` where the file has become another since.
        """
        ...
