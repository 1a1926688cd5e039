"""Downloads on disk, by digest: fetched once, verified, resumed where they were cut, and never more than a set size."""

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from gridsched.core.errors import BlobCorrupt, GridschedError, StorageFull, TooLarge, Unreachable
from gridsched.core.job import is_digest
from gridsched.node.client import Client
from gridsched.node.files import NO_ROOM, full_disk
from gridsched.train.version import advanced

__all__ = ["BlobCache", "Steps"]

log = logging.getLogger(__name__)

_NO_SUCH_RANGE = "HTTP 416"

Steps = Sequence[tuple[str, str]]
"""(version, step to the next) digests, the oldest first; the last step leads to the version that is wanted."""


class BlobCache:
    """``folder`` holds at most ``limit_bytes``; what was used longest ago goes first."""

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where the blob lies, or would."""
        if not is_digest(digest):
            raise BlobCorrupt(f"{digest[:80]!r} is not a sha256 digest")
        return self._folder / digest

    def fetch(self, digest: str, client: Client, *, steps: Steps = ()) -> Path:
        """The verified file. Raises Unreachable where it could not be had in whole (what came is kept), StorageFull, BlobCorrupt, TooLarge.

        A version that ``steps`` lead to is made from one that lies here, where there is such; whatever goes wrong, it is downloaded whole.
        """
        return self._fetch(digest, client, steps, keep=())

    def _fetch(self, digest: str, client: Client, steps: Steps, *, keep: Sequence[Path]) -> Path:
        """As `fetch`; the files in ``keep`` make room for nothing."""
        path = self.path(digest)
        if path.exists():
            os.utime(path)
            return path
        part = self._folder / f"{digest}.part"
        try:
            if not self._make(digest, part, steps, client):
                self._download(digest, part, client)
        except TooLarge:
            part.unlink(missing_ok=True)
            raise
        except OSError as error:
            if error.errno in NO_ROOM:
                raise full_disk(part) from error
            raise
        if _sha256(part) != digest:
            part.unlink()
            raise BlobCorrupt(f"what {client.url} sent for blob {digest[:12]} does not match that digest; it is fetched again")
        part.replace(path)
        self._make_room(keep=(path, *keep))
        return path

    def _make(self, digest: str, part: Path, steps: Steps, client: Client) -> bool:
        """Whether the version could be made from an older one; what was downloaded of it before is worth more."""
        held = [place for place, (base, _) in enumerate(steps) if self.path(base).exists()]
        if not held or part.exists():
            return False
        base, further = self.path(steps[held[-1]][0]), [step for _, step in steps[held[-1] :]]
        keep = (base, *map(self.path, further))
        try:
            made = advanced(base, [self._fetch(step, client, (), keep=keep) for step in further])
        except (Unreachable, StorageFull):
            raise
        except GridschedError as error:
            log.info("a version is downloaded whole: %s", error, extra={"action": "steps_not_used"})
            return False
        if hashlib.sha256(made).hexdigest() != digest:
            log.warning("the steps to version %s do not lead there", digest[:12], extra={"action": "steps_not_used"})
            return False
        os.utime(base)
        with part.open("wb") as file:
            file.write(made)
            file.flush()
            os.fsync(file.fileno())
        return True

    def _download(self, digest: str, part: Path, client: Client) -> None:
        """Into ``part``, from where it ends. Its last byte is asked for again: beyond a part that is whole there is nothing to ask for."""
        had = max(part.stat().st_size - 1, 0) if part.exists() else 0
        try:
            self._receive(digest, part, client, had)
        except Unreachable as error:
            if not had or _NO_SUCH_RANGE not in str(error):
                raise
            log.info("blob %s is fetched from its start: what lies here of it is longer", digest[:12], extra={"action": "part_not_used"})
            self._receive(digest, part, client, 0)

    def _receive(self, digest: str, part: Path, client: Client, had: int) -> None:
        with client.blob(digest, offset=had) as (start, pieces), part.open("r+b" if had else "wb") as file:
            file.seek(start)
            file.truncate()
            written = start
            for piece in pieces:
                written += file.write(piece)
                if written > self._limit_bytes:
                    raise TooLarge(
                        f"blob {digest[:12]} is larger than the cache of {self._limit_bytes} bytes; raise cache_size in node.toml"
                    )
            file.flush()
            os.fsync(file.fileno())

    def _make_room(self, *, keep: Sequence[Path]) -> None:
        files = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in self._folder.iterdir())
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= self._limit_bytes:
                return
            if path not in keep:
                path.unlink(missing_ok=True)
                total -= size


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
