"""The training child's ear: orders as they arrive, and whether anyone is left to give them."""

import threading
from collections import deque
from collections.abc import Callable
from typing import BinaryIO

from gridsched.node.pipe import Drop, Lost, Order, Train, Wake, order

__all__ = ["Mailbox"]


class Mailbox:
    """Orders as they arrive, read by a thread of its own so that a drop or the agent's death is seen between any two steps."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._changed = threading.Condition()
        self._waiting: deque[Train] = deque()
        self._dropped = 0
        self._lost: dict[str, str] = {}
        self.orphaned = False
        self.share = 1.0
        self._thread = threading.Thread(target=self._read, name="mailbox", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def join(self) -> None:
        """Wait until the agent has closed its end."""
        self._thread.join()

    def next(self) -> Train | None:
        """The next run, or None when the agent is gone."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self.orphaned)
            return self._waiting.popleft() if self._waiting and not self.orphaned else None

    def ended(self, run: int) -> bool:
        """Whether that run is dropped, or the agent gone."""
        return self.orphaned or run <= self._dropped

    def lost(self, digest: str) -> str:
        """Why a blob can never be had, since the last run was asked for; "" where that was not said."""
        return self._lost.get(digest, "")

    def wait(self, seconds: float | None, until: Callable[[], bool]) -> bool:
        """Wait for ``until`` to hold, at most ``seconds`` (None: however long); it is asked again at every line. Whether it holds."""
        with self._changed:
            return self._changed.wait_for(until, timeout=seconds)

    def _read(self) -> None:
        for data in self._source:
            with self._changed:
                self._take(order(data))
                self._changed.notify_all()
        with self._changed:
            self.orphaned = True
            self._changed.notify_all()

    def _take(self, message: Order) -> None:
        if isinstance(message, Train):
            self._waiting.append(message)
            self._lost = {}
        elif isinstance(message, Lost):
            self._lost[message.digest] = message.why
        elif isinstance(message, Drop):
            self._dropped = max(self._dropped, message.run)
            self._waiting = deque(train for train in self._waiting if train.run > self._dropped)
        elif isinstance(message, Wake):
            self.share = message.share
