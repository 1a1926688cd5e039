"""From the writer's thread back to the event loop, a whole committed group in one wake-up.

`asyncio.wrap_future` wakes the loop once per future, each a write to its pipe. At ten thousand answers a second that costs more
than the answers, so here the first of a group wakes the loop and the others ride along.
"""

import asyncio
from collections import deque
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

__all__ = ["Answers"]

T = TypeVar("T")


class Answers:
    """Belongs to the loop that first awaits an answer through it."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: deque[tuple[asyncio.Future[Any], Future[Any]]] = deque()
        self._woken = False

    async def of(self, future: "Future[T]") -> T:
        """The result of ``future``, or its exception raised."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        waiter: asyncio.Future[T] = self._loop.create_future()
        future.add_done_callback(partial(self._done, waiter))
        return await waiter

    def _done(self, waiter: "asyncio.Future[T]", future: "Future[T]") -> None:
        """In the writer's thread. A wake-up too many is harmless; one too few cannot happen: the flag falls before the queue is read."""
        self._ready.append((waiter, future))
        if not self._woken and self._loop is not None and not self._loop.is_closed():
            self._woken = True
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._woken = False
        while self._ready:
            waiter, future = self._ready.popleft()
            if waiter.done():  # its request has been given up
                continue
            if future.cancelled():
                waiter.cancel()
            elif (error := future.exception()) is not None:
                waiter.set_exception(error)
            else:
                waiter.set_result(future.result())
