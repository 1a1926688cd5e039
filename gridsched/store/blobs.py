"""Content-addressed files: programs, shards, continuations, updates, model versions.

A file is written aside, synced, renamed to its digest, and the folder is synced: a name that exists has all its bytes, whatever
was killed when. A file's time is the daemon's clock at its arrival, so that a replay ages its files by its own days. ::

    root/ab/cdef...         the blob abcdef...
    root/incoming/abcd...   an upload that is not whole yet; it goes on after a restart. Each caller has its own
    root/damaged/abcd...    what no longer matched its digest when it was read
"""

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from gridsched.core.errors import BlobCorrupt, Conflict, InvalidInput, NotFound, StorageFull, TooLarge
from gridsched.core.job import is_digest
from gridsched.ports import Clock

__all__ = ["FileBlobs"]

_FULL = (errno.ENOSPC, errno.EDQUOT)
_LOCKS = 64
_TRUSTED = timedelta(minutes=10)
_REMEMBERED = 4096


class FileBlobs:
    """`gridsched.ports.Blobs` below the folder ``root``, at most ``quota_bytes`` of them. Thread-safe."""

    def __init__(self, root: Path, *, quota_bytes: int, clock: Clock) -> None:
        self._root = root
        self._incoming = root / "incoming"
        self._damaged = root / "damaged"
        self._quota_bytes = quota_bytes
        self._clock = clock
        self._locks = [threading.Lock() for _ in range(_LOCKS)]
        self._counting = threading.Lock()
        self._seen: dict[str, tuple[_Touched, datetime]] = {}
        for folder in (root, self._incoming, self._damaged):
            folder.mkdir(parents=True, exist_ok=True)
        sizes = [file.stat().st_size for file in root.rglob("*") if file.is_file()]
        self._used_bytes, self._files = sum(sizes), len(sizes)

    @property
    def used_bytes(self) -> int:
        """Bytes of all files here, unfinished and damaged ones too."""
        return self._used_bytes

    @property
    def files(self) -> int:
        """How many files are here, unfinished and damaged ones too."""
        return self._files

    # -- reading

    def has(self, digest: str) -> bool:
        """Whether the whole blob is here."""
        return self._place(digest).is_file()

    def path(self, digest: str) -> Path:
        """The file, for streaming; raises `NotFound`."""
        place = self._place(digest)
        if not place.is_file():
            raise NotFound(f"there is no blob {digest}; upload it again, or check the digest")
        return place

    def size(self, digest: str) -> int:
        """Bytes of the blob; raises `NotFound`."""
        return self.path(digest).stat().st_size

    def get(self, digest: str) -> bytes:
        """The bytes; raises `NotFound`, or `BlobCorrupt` where they no longer match. Such a file is set aside, so it can be sent again."""
        data = self.path(digest).read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            raise self._set_aside(digest)
        return data

    def verified(self, digest: str) -> Path:
        """The file, whose bytes match; raises as `get` does.

        It is read through, unless this process has seen all its bytes within ten minutes and nothing has touched the file since: what
        was read or written so lately would come from memory again, not from the disk.
        """
        file = self.path(digest)
        touched, now = _touched(file), self._clock.now()
        known = self._seen.get(digest)
        if known is None or known[0] != touched or now - known[1] > _TRUSTED:
            with file.open("rb") as whole:
                found = hashlib.file_digest(whole, "sha256").hexdigest()
            if found != digest:
                raise self._set_aside(digest)
            self._remember(digest, touched)
        return file

    def digests(self) -> Iterator[str]:
        """Every whole blob."""
        for folder in sorted(self._root.glob("[0-9a-f][0-9a-f]")):
            yield from sorted(digest for file in folder.iterdir() if is_digest(digest := folder.name + file.name))

    # -- writing

    def put(self, data: bytes | memoryview) -> str:
        """Store ``data``; durable when this returns. Raises `StorageFull`."""
        digest = hashlib.sha256(data).hexdigest()
        with self._lock(digest):
            if not self._renewed(digest):
                aside = self._incoming / f"{digest}.whole"
                self._forget(aside)
                self._write(aside, data, offset=0)
                self._publish(aside, digest)
        return digest

    def offset(self, digest: str, *, by: str = "") -> int:
        """Bytes already received of an unfinished upload ``by`` one caller; 0 where there is none."""
        return _size(self._part(digest, by))

    def append(self, digest: str, data: bytes, *, offset: int, total: int, by: str = "") -> bool:
        """One piece of a resumable upload; True once whole, verified and durable. A piece of a blob that is here already is True too.

        What others have sent of the same blob is of no matter to what comes ``by`` one caller: whether it is true shows at its end only.

        Raises `Conflict` for another offset than the one it has come to, `TooLarge` beyond ``total``, `StorageFull` (the part stays as
        it was), `BlobCorrupt` when the whole does not match (the part is dropped).
        """
        if offset + len(data) > total:
            raise TooLarge(f"blob {digest}: {len(data)} bytes at {offset} go beyond the {total} that were announced; send at most those")
        with self._lock(digest):
            part = self._part(digest, by)
            if self._renewed(digest):
                self._forget(part)
                return True
            received = _size(part)
            if offset != received:
                raise Conflict(f"blob {digest}: {received} bytes are here, so a piece at {offset} does not fit; go on at {received}")
            self._write(part, data, offset=offset)
            if offset + len(data) < total:
                return False
            self._verify(part, digest)
            self._publish(part, digest)
            return True

    def sweep(self, named: set[str], *, older_than: datetime) -> int:
        """Remove blobs that nothing names and uploads nobody finished, both untouched since ``older_than``; how many bytes were freed."""
        unnamed = (digest for digest in self.digests() if digest not in named)
        aside = (file for folder in (self._incoming, self._damaged) for file in folder.iterdir() if is_digest(file.name[:64]))
        freed = sum(self._sweep_one(self._place(digest), digest, older_than) for digest in unnamed)
        return freed + sum(self._sweep_one(file, file.name, older_than) for file in aside)

    # -- below

    def _set_aside(self, digest: str) -> BlobCorrupt:
        with self._lock(digest):
            if self.has(digest):
                self._forget(self._damaged / digest)
                self._place(digest).rename(self._damaged / digest)
        return BlobCorrupt(f"blob {digest} has changed on disk; it was set aside in {self._damaged}. Upload it again, and check that disk")

    def _remember(self, digest: str, touched: "_Touched") -> None:
        """All bytes of the file have just been seen, as it was when last ``touched``."""
        if len(self._seen) >= _REMEMBERED:
            self._seen.clear()
        self._seen[digest] = touched, self._clock.now()

    def _place(self, digest: str) -> Path:
        _demand_digest(digest)
        return self._root / digest[:2] / digest[2:]

    def _part(self, digest: str, by: str) -> Path:
        _demand_digest(digest)
        return self._incoming / (f"{digest}.{hashlib.sha256(by.encode()).hexdigest()[:16]}" if by else digest)

    def _lock(self, digest: str) -> threading.Lock:
        """A few locks shared by all digests: two uploads of one blob never meet in one file."""
        _demand_digest(digest[:64])
        return self._locks[int(digest[:8], 16) % _LOCKS]

    def _renewed(self, digest: str) -> bool:
        """Whether the blob is here; its age starts anew, since somebody is about to name it."""
        try:
            self._stamp(self._place(digest))
        except FileNotFoundError:
            return False
        return True

    def _stamp(self, file: Path) -> None:
        now_s = self._clock.now().timestamp()
        os.utime(file, (now_s, now_s))

    def _write(self, file: Path, data: bytes | memoryview, *, offset: int) -> None:
        """``data`` at the end of ``file``, all of it or nothing."""
        self._claim(len(data), files=0 if file.exists() else 1)
        try:
            with file.open("ab") as out:
                out.write(data)
            self._stamp(file)
        except OSError as error:
            self._claim(-len(data), files=0 if offset else -1)
            _cut(file, offset)
            if error.errno in _FULL:
                raise StorageFull(
                    f"the disk of {self._root} is full; nothing of these {len(data)} bytes was kept. Free some room"
                ) from error
            raise

    def _claim(self, size_bytes: int, *, files: int) -> None:
        with self._counting:
            if size_bytes > 0 and self._used_bytes + size_bytes > self._quota_bytes:
                raise StorageFull(
                    f"{size_bytes} bytes do not fit: {self._used_bytes} of the quota of {self._quota_bytes} are used; "
                    "raise [blobs] quota or wait until files that nothing names are swept"
                )
            self._used_bytes += size_bytes
            self._files += files

    def _verify(self, part: Path, digest: str) -> None:
        with part.open("rb") as whole:
            found = hashlib.file_digest(whole, "sha256").hexdigest()
        if found != digest:
            self._forget(part)
            raise BlobCorrupt(f"the upload of blob {digest} has digest {found}; it was dropped, send it again from the beginning")

    def _publish(self, file: Path, digest: str) -> None:
        place = self._place(digest)
        try:
            if not place.parent.is_dir():
                place.parent.mkdir(exist_ok=True)
                _sync(self._root)
            _sync(file)
            file.rename(place)
            _sync(place.parent)
            self._remember(digest, _touched(place))
        except OSError as error:
            if error.errno in _FULL:
                raise StorageFull(
                    f"the disk of {self._root} is full; blob {digest} is not stored yet. Free some room, then send it again"
                ) from error
            raise

    def _sweep_one(self, file: Path, digest: str, older_than: datetime) -> int:
        with self._lock(digest):
            try:
                if file.stat().st_mtime >= older_than.timestamp():
                    return 0
            except FileNotFoundError:
                return 0
            return self._forget(file)

    def _forget(self, file: Path) -> int:
        if not file.exists():
            return 0
        size_bytes = _size(file)
        file.unlink()
        self._claim(-size_bytes, files=-1)
        return size_bytes


_Touched = tuple[int, int, int, int]


def _touched(file: Path) -> _Touched:
    """Changes whenever anybody writes to the file, or puts another in its place."""
    about = file.stat()
    return about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns


def _demand_digest(digest: str) -> None:
    if not is_digest(digest):
        raise InvalidInput(f"{digest!r} is not a blob's name; that is a sha256 in 64 lower-case hexadecimal digits")


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _cut(file: Path, size_bytes: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        if size_bytes:
            os.truncate(file, size_bytes)
        else:
            file.unlink()


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
