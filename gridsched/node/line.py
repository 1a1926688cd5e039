"""One thread of calls to the daemon, in order; answers come back to the agent's own thread."""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from gridsched.core.errors import GridschedError
from gridsched.node.client import Client

__all__ = ["Line", "Lines", "ThreadLine"]

T = TypeVar("T")
Call = Callable[[], None]


class Line(Protocol):
    """Calls run one after another, so that what is said later also arrives later."""

    def call(self, ask: Callable[[Client], T], then: Callable[[T], None], failed: Callable[[GridschedError], None]) -> None:
        """Ask; then ``then`` or ``failed`` is called in the agent's thread."""
        ...

    def close(self) -> None:
        """No more calls."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """``talk`` carries all reports in order; ``send`` and ``fetch`` carry blobs, which may take long."""

    talk: Line
    send: Line
    fetch: Line

    def close(self) -> None:
        """No more calls on any."""
        for line in (self.talk, self.send, self.fetch):
            line.close()


class ThreadLine:
    """``deliver`` puts a function into the agent's inbox; ``then`` and ``failed`` run there."""

    def __init__(self, name: str, client: Client, deliver: Callable[[Call], None]) -> None:
        self._client = client
        self._deliver = deliver
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call(self, ask: Callable[[Client], T], then: Callable[[T], None], failed: Callable[[GridschedError], None]) -> None:
        """Queue ``ask``; the callers keep the queue short by having one call of a kind under way."""

        def one() -> None:
            try:
                answer = ask(self._client)
            except GridschedError as problem:
                error = problem
                self._deliver(lambda: failed(error))
            except Exception as problem:  # noqa: BLE001 (a bug of ours must end the agent, not silence one of its threads)
                bug = problem
                self._deliver(lambda: _raise(bug))
            else:
                self._deliver(lambda: then(answer))

        self._calls.put(one)

    def close(self) -> None:
        """End after the call under way; it is not waited for."""
        self._calls.put(None)

    def _run(self) -> None:
        while (one := self._calls.get()) is not None:
            one()
        self._client.close()


def _raise(error: Exception) -> None:
    raise error
