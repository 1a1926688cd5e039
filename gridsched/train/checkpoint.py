"""Files that survive: written aside, synced, renamed, and named by their digest.

A folder holds the last two states of one thing as ``<number>-<sha256>.safetensors``. A crash at any moment leaves at
least the state before, and a file that is damaged is passed over for the one before it.
"""

import contextlib
import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from gridsched.core.errors import BlobCorrupt, InvalidInput, StorageFull
from gridsched.train.tensors import file_digest
from gridsched.train.unit import Continuation

__all__ = ["latest_file", "load_continuation", "save_continuation", "save_numbered", "write_durably"]

_NAME = re.compile(r"(\d{12})-([0-9a-f]{64})\.safetensors")
_KEPT = 2


def write_durably(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write ``path`` so that after a crash it holds all of ``chunks`` or what it held before.

    Raises StorageFull where the disk or quota is full; then nothing has changed.
    """
    _write(path.parent, chunks, lambda: path.name)


def _write(folder: Path, chunks: Iterable[bytes | memoryview], name: Callable[[], str]) -> Path:
    """Write ``chunks`` aside, sync them, and give the file the ``name`` that is asked for when all of them have passed."""
    with _storage_full(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=folder, prefix=".aside-")
        try:
            with os.fdopen(handle, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            path = folder / name()
            Path(aside).replace(path)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise
        _sync_folder(folder)
    return path


@contextlib.contextmanager
def _storage_full(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageFull(f"no room to write to {folder}; free some space, what was there before is intact") from error
        raise


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # Windows cannot open a folder; its rename is journalled
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save_numbered(folder: Path, number: int, data: bytes | Iterable[bytes | memoryview]) -> Path:
    """Store ``data`` as state ``number`` of ``folder``, hashed as it is written; the state before it is kept.

    Older ones go, and so do those with a higher number: whoever stores a lower one could not go on from them.
    """
    digest = hashlib.sha256()

    def hashed() -> Iterator[bytes | memoryview]:
        for chunk in [data] if isinstance(data, bytes) else data:
            digest.update(chunk)
            yield chunk

    path = _write(folder, hashed(), lambda: f"{number:012d}-{digest.hexdigest()}.safetensors")
    found = _newest_first(folder)
    first = found.index(path)
    for other in (*found[:first], *found[first + _KEPT :]):
        other.unlink(missing_ok=True)
    return path


def latest_file(folder: Path) -> tuple[int, Path] | None:
    """Number and path of the newest state whose bytes match its name, or None where nothing was ever stored.

    Raises BlobCorrupt naming the newest file if none of them matches.
    """
    found = _newest_first(folder)
    for path in found:
        match = _NAME.fullmatch(path.name)
        assert match is not None
        if file_digest(path) == match[2]:
            return int(match[1]), path
    if found:
        raise BlobCorrupt(f"{found[0]} does not match its digest and no older state is intact; delete the folder to start the unit again")
    return None


def _newest_first(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)


def save_continuation(folder: Path, continuation: Continuation) -> Path:
    """Store ``continuation`` in the unit's own ``folder``, durably. Raises StorageFull; then the one before is intact."""
    return save_numbered(folder, continuation.step, continuation.chunks())


def load_continuation(folder: Path) -> Continuation | None:
    """The newest intact continuation in ``folder``, None if there never was one, BlobCorrupt if none is intact."""
    newest = latest_file(folder)
    if newest is None:
        return None
    try:
        return Continuation.from_bytes(newest[1].read_bytes())
    except InvalidInput as error:
        raise BlobCorrupt(f"{newest[1]}: {error}") from error
