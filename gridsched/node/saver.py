"""The training child's hand: continuations written beside the training, and what keeps them from being written."""

import threading
from collections.abc import Callable
from pathlib import Path

from gridsched.core.errors import StorageFull
from gridsched.train.unit import Continuation

__all__ = ["Saver"]


class Saver:
    """Writes continuations beside the training, one at a time; what comes while it writes is skipped."""

    def __init__(self, folder: Path, save: Callable[[Path, Continuation], Path]) -> None:
        self._folder = folder
        self._save = save
        self._thread: threading.Thread | None = None
        self.step = 0
        self.stuck = ""

    def begin(self, saved: Continuation) -> None:
        """Write ``saved`` in the background, unless one is being written."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._write, args=(saved,), name="saver")
            self._thread.start()

    def now(self, saved: Continuation) -> None:
        """Write ``saved`` before returning; ``stuck`` says if that failed."""
        self.settle()
        self._write(saved)

    def settle(self) -> None:
        """Wait for a write under way."""
        if self._thread is not None:
            self._thread.join()

    def _write(self, saved: Continuation) -> None:
        try:
            self._save(self._folder, saved)
        except StorageFull as error:
            self.stuck = str(error)
        else:
            self.step, self.stuck = saved.step, ""
