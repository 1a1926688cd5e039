"""Heavy work with a place in simulated time."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, TypeVar

__all__ = ["InlineExecutor"]

T = TypeVar("T")


class InlineExecutor(Executor):
    """Keeps what it is given and runs it when told to, so that heavy work has its place in simulated time too."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """Keep ``fn`` for `run_all`."""
        future: Future[T] = Future()
        self._waiting.append((future, partial(fn, *args, **kwargs)))
        return future

    def run_all(self) -> None:
        """Run everything that waits."""
        waiting, self._waiting = self._waiting, []
        for future, call in waiting:
            try:
                future.set_result(call())
            except Exception as error:  # noqa: BLE001 - handed to whoever holds the future
                future.set_exception(error)
