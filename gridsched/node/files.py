"""How the node writes: whole or not at all, and through one port that tests can put a full disk behind."""

import errno
from collections.abc import Callable
from pathlib import Path

from gridsched.core.errors import StorageFull
from gridsched.train.checkpoint import write_durably

__all__ = ["NO_ROOM", "Write", "full_disk", "write_durable"]

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
Write = Callable[[Path, bytes], None]


def write_durable(path: Path, data: bytes) -> None:
    """``data`` at ``path``, readable by its owner alone. After a crash there is the old file or the new one; raises StorageFull."""
    write_durably(path, [data])


def full_disk(path: Path) -> StorageFull:
    """The error for a write to ``path`` that found no room."""
    return StorageFull(f"no room left to write {path}; free some space, work goes on by itself then")
