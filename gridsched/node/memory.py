"""How much memory this machine offers to work units, and whether there is enough of it now.

Measured, not asked: what is available when the agent starts, within the owner's limit (half of the machine where none is set) and
that of a container, less what the training runtime takes for itself. A unit that needs more is refused before it begins; nothing is
ever begun in the hope that it fits.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

__all__ = ["Memory"]

_CONTAINER = Path("/sys/fs/cgroup")


class Memory:
    """``limit_bytes`` is the owner's (None: half of the machine); ``runtime_bytes`` what a training process takes before any unit."""

    def __init__(self, limit_bytes: int | None, runtime_bytes: int, *, free: "Callable[[], int] | None" = None) -> None:
        self._limit_bytes = limit_bytes
        self._runtime_bytes = runtime_bytes
        self._free = free or _free_bytes

    def offered(self) -> int:
        """Bytes for units, with no training process running yet."""
        limit = psutil.virtual_memory().total // 2 if self._limit_bytes is None else self._limit_bytes
        return max(min(limit, self._free()) - self._runtime_bytes, 0)

    def lacks(self, needed_bytes: int, *, child: int | None) -> str:
        """Why a unit that needs that much cannot begin now, or nothing. The room of a training process that runs already counts."""
        held = _resident_bytes(child) if child is not None else 0
        limit = self._limit_bytes if self._limit_bytes is not None else needed_bytes + self._runtime_bytes
        room = min(self._free() + held, limit) - self._runtime_bytes
        if needed_bytes <= room:
            return ""
        return f"memory: the unit needs {needed_bytes / 1e6:.0f} MB, {max(room, 0) / 1e6:.0f} MB are free within this node's limit"


def _free_bytes() -> int:
    """What can be had without swapping, within a container's own limit."""
    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):  # no container, or one without a limit ("max")
        free = min(free, int((_CONTAINER / "memory.max").read_text()) - int((_CONTAINER / "memory.current").read_text()))
    return max(free, 0)


def _resident_bytes(pid: int) -> int:
    with suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return 0
