"""Blobs for the training child: fetched over their own line, again and again where the line is bad."""

import logging
from collections.abc import Callable
from pathlib import Path

from gridsched.core.errors import Forbidden, GridschedError, NotFound, StorageFull, TooLarge
from gridsched.node.cache import BlobCache, Steps
from gridsched.node.channel import backoff_s
from gridsched.node.line import Line

__all__ = ["Supply"]

log = logging.getLogger(__name__)

_NEVER = (Forbidden, NotFound, TooLarge)


class Supply:
    """``got`` is told of each blob that was asked for and lies in the cache; ``stuck`` of a full disk, and of its end.

    ``lost`` is told of each that was asked for and can never be had here, and of the daemon's reason.
    """

    def __init__(
        self,
        cache: BlobCache,
        line: Line,
        *,
        got: Callable[[str], None],
        lost: Callable[[str, GridschedError], None],
        stuck: Callable[[str, str], None],
    ) -> None:
        self._cache = cache
        self._line = line
        self._got = got
        self._lost = lost
        self._stuck = stuck
        self._wanted: list[str] = []
        self._asked: set[str] = set()
        self._foreseen = ""
        self._steps: Steps = ()
        self._busy = False
        self._failures = 0
        self._wait = False
        self._due_s = 0.0

    def order(self, digest: str) -> None:
        """The child needs that blob."""
        self._asked.add(digest)
        if digest not in self._wanted:
            self._wanted.append(digest)

    def foresee(self, digest: str, steps: Steps = ()) -> None:
        """The child will need that blob, which ``steps`` lead to: fetch it before it asks. Said again and again of one, it is done once."""
        if digest == self._foreseen:
            return
        self._foreseen, self._steps = digest, tuple(steps)
        if digest not in self._wanted:
            self._wanted.append(digest)

    def forget(self) -> None:
        """The run is over that all of it was for."""
        self._wanted.clear()
        self._asked.clear()
        self._foreseen = ""
        self._stuck("cache", "")

    def turn(self, now_s: float) -> None:
        """Fetch the next one, when none is under way."""
        if self._wait:
            self._wait, self._due_s = False, now_s + backoff_s(self._failures, first_s=0.25, longest_s=15.0)
            self._failures += 1
        if self._busy or not self._wanted or now_s < self._due_s:
            return
        self._busy = True
        digest = self._wanted[0]
        steps = self._steps if digest == self._foreseen else ()

        def fetched(_: Path) -> None:
            self._busy, self._failures = False, 0
            if self._done_with(digest):
                self._got(digest)

        def failed(error: GridschedError) -> None:
            self._busy = False
            if isinstance(error, _NEVER):
                if self._done_with(digest):
                    self._lost(digest, error)
            elif digest in self._wanted:
                self._put_off(digest, error)

        self._line.call(lambda client: self._cache.fetch(digest, client, steps=steps), fetched, failed)

    def _done_with(self, digest: str) -> bool:
        """Whether somebody waits for it."""
        asked = digest in self._asked
        self._asked.discard(digest)
        if digest in self._wanted:
            self._wanted.remove(digest)
        self._stuck("cache", "")
        return asked

    def _put_off(self, digest: str, error: GridschedError) -> None:
        """Later, and after the others: what this one lacks they may not."""
        self._wait = True
        self._wanted.remove(digest)
        self._wanted.append(digest)
        if isinstance(error, StorageFull):
            self._stuck("cache", str(error))
        elif not self._failures:
            log.warning("a download failed: %s", error, extra={"action": "download_failed"})
