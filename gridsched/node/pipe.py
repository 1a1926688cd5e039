"""What agent and training child say to each other: one JSON object a line, and one shared byte.

The byte is the **gate**: the child reads it before every step, so a pause costs no message and no system call. Lines to the
child: `Train`, `Fetched`, `Lost`, `Drop`, `Wake`. Lines from it: `Ready`, `Need`, `Progress`, `Done`, `Failed`. ``run`` numbers
what is asked of the child, so that words about an earlier run are not taken for the present one.
"""

import mmap
import os
from pathlib import Path
from types import TracebackType

import msgspec

from gridsched.core.errors import MessageError
from gridsched.core.work import UnitSpec

__all__ = [
    "Done",
    "Drop",
    "Event",
    "Failed",
    "Fetched",
    "Gate",
    "Lost",
    "Need",
    "Order",
    "Progress",
    "Ready",
    "Train",
    "Wake",
    "event",
    "line",
    "order",
]


class _Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    pass


class Train(_Line, frozen=True, kw_only=True):
    """Run ``unit``, from the newest of its start, the daemon's ``continuation`` and what lies in this node's folder.

    ``save_every_s`` in real seconds; ``share`` of the time the child may work, for an owner who allows less than full power.
    """

    run: int
    unit: UnitSpec
    continuation: str | None = None
    continuation_step: int = 0
    save_every_s: float = 60.0
    share: float = 1.0


class Fetched(_Line, frozen=True, kw_only=True):
    """The blob asked for lies in the cache."""

    digest: str


class Lost(_Line, frozen=True, kw_only=True):
    """The blob asked for can never be had, and ``why``."""

    digest: str
    why: str


class Drop(_Line, frozen=True, kw_only=True):
    """End run ``run`` at the next step, without saving."""

    run: int


class Wake(_Line, frozen=True, kw_only=True):
    """Look at the gate; ``share`` as in `Train`."""

    share: float = 1.0


class Ready(_Line, frozen=True, kw_only=True):
    """The child has started; ``runtime`` is its hardware class, ``resident_bytes`` the memory it takes before any unit."""

    runtime: str
    resident_bytes: int = 0


class Need(_Line, frozen=True, kw_only=True):
    """A blob that is not in the cache; the child waits for it."""

    digest: str


class Progress(_Line, frozen=True, kw_only=True):
    """``executed`` counts the steps of this run, ``worked_s`` the real seconds spent on them; ``stuck`` says why nothing can be saved."""

    run: int
    paused: bool
    step: int
    executed: int
    saved_step: int
    worked_s: float
    stuck: str = ""


class Done(_Line, frozen=True, kw_only=True):
    """The unit is finished; ``update`` is the digest of a file in the outbox."""

    run: int
    update: str | None
    executed: int
    metrics: dict[str, float]
    digests: list[tuple[int, str]]


class Failed(_Line, frozen=True, kw_only=True):
    """This unit cannot be run here, and trying again would not help."""

    run: int
    detail: str


Order = Train | Fetched | Lost | Drop | Wake
Event = Ready | Need | Progress | Done | Failed

_orders: msgspec.json.Decoder[Order] = msgspec.json.Decoder(Order)
_events: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def line(message: Order | Event) -> bytes:
    """``message`` as one line."""
    return msgspec.json.encode(message) + b"\n"


def order(data: bytes) -> Order:
    """The agent's line; the child trusts it."""
    return _orders.decode(data)


def event(data: bytes) -> Event:
    """Raises MessageError for a line that is none: a library that prints, perhaps."""
    try:
        return _events.decode(data)
    except msgspec.DecodeError as error:
        raise MessageError(f"the training process wrote {data[:80]!r}") from error


class Gate:
    """One byte in a shared file. The agent opens and shuts it; the child only looks."""

    def __init__(self, path: Path, *, owner: bool) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT if owner else os.O_RDONLY, 0o600)
        try:
            if owner:
                os.ftruncate(descriptor, 1)
            self._map = mmap.mmap(descriptor, 1, access=mmap.ACCESS_WRITE if owner else mmap.ACCESS_READ)
        finally:
            os.close(descriptor)
        if owner:
            self.shut()

    @property
    def open(self) -> bool:
        """Whether the child may go on."""
        return self._map[0] == 1

    def let(self) -> None:
        """Open it."""
        self._map[0] = 1

    def shut(self) -> None:
        """Shut it."""
        self._map[0] = 0

    def __enter__(self) -> "Gate":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._map.close()
