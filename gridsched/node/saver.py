"""The training child's hand: continuations written beside the training, and what keeps them from being written."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from gridsched.core.errors import StorageFull
from gridsched.train.unit import Continuation

__all__ = ["MOST_OF_THE_TIME", "Saver"]

MOST_OF_THE_TIME = 0.01


class Saver:
    """Writes continuations beside the training, one at a time.

    Training stands still only while the continuation is copied; hashing and writing it take a processor that may be the only one.
    Where both together take long, because the model is large, it is done less often than every ``every_s`` real seconds, so that at
    most one percent of the time goes into it. ``effort`` counts the processor seconds of the thread that asks.
    """

    def __init__(
        self,
        folder: Path,
        save: Callable[[Path, Continuation], Path],
        *,
        every_s: float,
        monotonic: Callable[[], float] = time.monotonic,
        effort: Callable[[], float] = time.thread_time,
    ) -> None:
        self._folder = folder
        self._save = save
        self._every_s = every_s
        self._monotonic = monotonic
        self._effort = effort
        self._due_at = monotonic() + every_s
        self._thread: threading.Thread | None = None
        self.step = 0
        self.stuck = ""

    @property
    def busy(self) -> bool:
        """Whether one is being written."""
        return self._thread is not None and self._thread.is_alive()

    def offer(self, make: Callable[[], Continuation]) -> None:
        """Where it is time and nothing is being written, make a continuation and write it in the background."""
        began = self._monotonic()
        if began < self._due_at or self.busy:
            return
        saved = make()
        self._due_at = began + self._every_s
        self._thread = threading.Thread(target=self._beside, args=(saved, self._monotonic() - began), name="saver")
        self._thread.start()

    def now(self, saved: Continuation) -> None:
        """Write ``saved`` before returning; ``stuck`` says if that failed."""
        self.settle()
        self._write(saved)
        self._due_at = self._monotonic() + self._every_s

    def settle(self) -> None:
        """Wait for a write under way."""
        if self._thread is not None:
            self._thread.join()

    def _beside(self, saved: Continuation, copied_s: float) -> None:
        began = self._effort()
        self._write(saved)
        spent_s = copied_s + self._effort() - began
        self._due_at = max(self._due_at, self._monotonic() + spent_s / MOST_OF_THE_TIME)

    def _write(self, saved: Continuation) -> None:
        try:
            self._save(self._folder, saved)
        except StorageFull as error:
            self.stuck = str(error)
        else:
            self.step, self.stuck = saved.step, ""
