"""The one thread that writes: group commit.

It takes whatever waits in its queue, runs every verb in a savepoint of its own inside one transaction, commits once with full
sync, and only then answers. Under load one sync serves hundreds of callers; a lone caller waits for nobody.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from gridsched.core.errors import Busy, StorageFull
from gridsched.core.facts import Fact
from gridsched.ports import Clock, Reply, Tx
from gridsched.store.sql import SqlStore, SqlTx

__all__ = ["GroupWriter"]

log = logging.getLogger(__name__)

T = TypeVar("T")
Verb = Callable[..., Any]

_GROUP = 512


@dataclass(slots=True, eq=False)
class _Task:
    """One caller's wish. ``many``: its ``item`` may go to the verb together with those of others."""

    verb: Verb
    future: "Future[Any]"
    item: Any = None
    many: bool = False


Outcome = tuple[_Task, Any]
"""A task and what its caller gets; an Exception is raised to them."""


class GroupWriter:
    """`gridsched.ports.Writer` over a `SqlStore`. Its thread starts with the first wish and ends with ``close``.

    ``on_commit`` gets the facts of every committed group, in the writer's thread, after its callers were answered.
    """

    def __init__(self, store: SqlStore, clock: Clock, *, max_queue: int, on_commit: Callable[[Sequence[Fact]], None]) -> None:
        self.on_commit = on_commit
        self._store = store
        self._clock = clock
        self._max_queue = max_queue
        self._waiting: deque[_Task] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False

    def submit(self, verb: Callable[[Tx, datetime], Sequence[Fact] | Reply[T]]) -> "Future[T]":
        """Run ``verb`` in the next group; its savepoint is rolled back alone if it raises. Raises `Busy` when the queue is full."""
        return self._queue(_Task(verb, Future()))

    def submit_many(self, verb: Callable[[Tx, datetime, Sequence[Any]], Reply[Sequence[T | Exception]]], item: Any) -> "Future[T]":
        """As ``submit``, but all waiting items of one ``verb`` go to it in one call; an Exception among its answers is one caller's."""
        return self._queue(_Task(verb, Future(), item, many=True))

    def close(self) -> None:
        """Do what waits, then stop. Whoever comes later is told `Busy`."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    # -- the queue

    def _queue(self, task: _Task) -> "Future[Any]":
        with self._changed:
            if self._closing:
                raise Busy("the daemon is stopping; try again when it is back")
            if len(self._waiting) >= self._max_queue:
                raise Busy(f"{len(self._waiting)} writes are waiting, which is all the queue holds; try again in a moment")
            self._waiting.append(task)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
                self._thread.start()
            self._changed.notify()
        return task.future

    def _work(self) -> None:
        while group := self._take():
            self._serve([task for task in group if task.future.set_running_or_notify_cancel()])

    def _take(self) -> list[_Task]:
        """Wait for something to do, and take it; nothing once all is done and the writer closes."""
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), _GROUP))]

    # -- a group

    def _serve(self, group: Sequence[_Task]) -> None:
        """Commit, answer, tell. A group that the database refuses for one member's sake is served again, each member alone."""
        try:
            outcomes, facts = self._commit(group)
        except BaseException as error:  # noqa: BLE001 (whatever it is, it goes to the callers, and the thread lives on)
            if len(group) == 1 or isinstance(error, StorageFull | Busy):
                return _answer((task, error) for task in group)
            for task in group:
                self._serve([task])
            return None
        _answer(outcomes)
        try:
            self.on_commit(facts)
        except Exception:
            log.exception("facts are stored, but telling of them failed", extra={"action": "after_commit_failed", "facts": len(facts)})
        return None

    def _commit(self, group: Sequence[_Task]) -> tuple[list[Outcome], list[Fact]]:
        """Run the whole group in one transaction; when this returns it is durable."""
        outcomes: list[Outcome] = []
        facts: list[Fact] = []
        with self._store.write() as tx:
            now = self._clock.now()
            for verb, tasks in _calls(group):
                served, happened = _run(tx, now, verb, tasks)
                outcomes += served
                facts += happened
            tx.append(facts)
        return outcomes, facts


def _calls(group: Sequence[_Task]) -> Iterator[tuple[Verb, list[_Task]]]:
    """Who is served by one call: each ``submit`` alone, all items of one verb together, in the place of the first of them."""
    gathered: dict[Verb, list[_Task]] = {}
    for task in group:
        if task.many:
            gathered.setdefault(task.verb, []).append(task)
    for task in group:
        if not task.many:
            yield task.verb, [task]
        elif task.verb in gathered:
            yield task.verb, gathered.pop(task.verb)


def _run(tx: SqlTx, now: datetime, verb: Verb, tasks: list[_Task]) -> tuple[list[Outcome], list[Fact]]:
    """Call the verb in a savepoint. Where it fails for many at once, each is tried alone, so that one bad item hurts nobody else."""
    try:
        with tx.savepoint():
            return _call(tx, now, verb, tasks)
    except Exception as error:
        if tx.lost:
            raise
        if len(tasks) == 1:
            return [(tasks[0], error)], []
    alone = [_run(tx, now, verb, [task]) for task in tasks]
    return [outcome for outcomes, _ in alone for outcome in outcomes], [fact for _, facts in alone for fact in facts]


def _call(tx: SqlTx, now: datetime, verb: Verb, tasks: list[_Task]) -> tuple[list[Outcome], list[Fact]]:
    if not tasks[0].many:
        reply = verb(tx, now)
        value, facts = (reply.value, reply.facts) if isinstance(reply, Reply) else (None, reply)
        return [(tasks[0], value)], list(facts)
    reply = verb(tx, now, [task.item for task in tasks])
    return list(zip(tasks, reply.value, strict=True)), list(reply.facts)


def _answer(outcomes: Iterable[Outcome]) -> None:
    for task, value in outcomes:
        if isinstance(value, BaseException):
            task.future.set_exception(value)
        else:
            task.future.set_result(value)
