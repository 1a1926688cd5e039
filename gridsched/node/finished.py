"""Finished units on their way into the outbox. On a full disk they wait in memory, in order, and are tried again."""

from collections.abc import Callable

from gridsched.core.errors import StorageFull
from gridsched.node.held import Held
from gridsched.node.pipe import Done
from gridsched.node.returns import Returns
from gridsched.node.state import Finished

__all__ = ["FinishedUnits"]

_RETRY_S = 1.0


class FinishedUnits:
    """``stuck(where, why)`` is told when the disk takes nothing, and with an empty ``why`` when it does again."""

    def __init__(self, returns: Returns, *, stuck: Callable[[str, str], None]) -> None:
        self._returns = returns
        self._stuck = stuck
        self._waiting: list[Finished] = []
        self._due_s = 0.0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, event: Done, held: Held) -> None:
        """What the child has finished under the lease it held."""
        self._waiting.append(
            Finished(
                lease_id=held.order.lease_id,
                generation=held.order.generation,
                unit_id=held.order.unit.unit_id,
                update=event.update,
                steps_executed=held.steps_executed,
                metrics=event.metrics,
                digests=event.digests,
            )
        )

    def post(self, now_s: float) -> None:
        """Put the first one into the outbox, where it survives this process."""
        if not self._waiting or now_s < self._due_s:
            return
        try:
            self._returns.add(self._waiting[0])
        except StorageFull as error:
            self._stuck("outbox", str(error))
            self._due_s = now_s + _RETRY_S
        else:
            del self._waiting[0]
            self._stuck("outbox", "")
