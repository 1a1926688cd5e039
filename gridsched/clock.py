"""What time it is: the machine's clock, made monotonic, and a faster one for replays.

The only module that asks the machine. Everything else is given ``now`` as an argument, an aware UTC datetime.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

__all__ = ["ScaledClock", "SystemClock"]

log = logging.getLogger(__name__)

_STEP = timedelta(seconds=1)
"""A jump of the wall clock beyond this is a step worth a line in the log; less is NTP at its usual work."""


def _machine_now() -> datetime:
    return datetime.now(UTC)


class SystemClock:
    """The machine's wall clock, except that it never runs backwards.

    When the wall clock is stepped back, this clock runs on at half speed until the wall has caught up: every timestamp stays
    ordered, leases still expire, and an hour's step is absorbed in two. A step forward (or a suspended machine) is followed at
    once. Both are logged. Thread-safe.
    """

    speed = 1.0

    def __init__(
        self,
        *,
        wall: Callable[[], datetime] = _machine_now,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._pause = pause
        self._lock = threading.Lock()
        self._last = wall()
        self._last_monotonic = monotonic()
        self._ahead = timedelta(0)

    def now(self) -> datetime:
        """Aware UTC; never earlier than the answer before."""
        with self._lock:
            wall, monotonic = self._wall(), self._monotonic()
            elapsed = timedelta(seconds=monotonic - self._last_monotonic)
            expected = self._last + elapsed
            self._report_step(expected - wall - self._ahead)
            give_back = min(expected - wall, elapsed / 2)
            self._last, self._last_monotonic = expected - give_back, monotonic
            self._ahead = self._last - wall
            return self._last

    def sleep(self, seconds: float) -> None:
        """Wait for ``seconds``; not at all when there is nothing left to wait for."""
        if seconds > 0:
            self._pause(seconds)

    @property
    def ahead_s(self) -> float:
        """How far this clock was ahead of the wall clock when last asked; above zero only after a step back."""
        return self._ahead.total_seconds()

    def _report_step(self, step_back: timedelta) -> None:
        if abs(step_back) < _STEP:
            return
        seconds = abs(step_back.total_seconds())
        if step_back > timedelta(0):
            log.warning(
                "the wall clock was set back by %.1f s; running at half speed until it has caught up",
                seconds,
                extra={"action": "clock_stepped_back", "step_s": -seconds},
            )
        else:
            log.warning(
                "the wall clock jumped forward by %.1f s (set, or the machine was suspended); following it",
                seconds,
                extra={"action": "clock_stepped_forward", "step_s": seconds},
            )


class ScaledClock:
    """A clock that starts at ``start`` and runs ``speed`` times as fast as ``real``: a day of the grid in two minutes."""

    def __init__(self, start: datetime, speed: float, *, real: SystemClock | None = None) -> None:
        if start.utcoffset() != timedelta(0):
            raise ValueError(f"a clock starts at an aware UTC time, not at {start.isoformat()}; add +00:00")
        if not 0 < speed < float("inf"):
            raise ValueError(f"a clock's speed is a number above zero, not {speed}; 1 is real time")
        self.speed = float(speed)
        self._start = start
        self._real = real or SystemClock()
        self._real_start = self._real.now()

    def now(self) -> datetime:
        """Aware UTC; never earlier than the answer before."""
        return self._start + (self._real.now() - self._real_start) * self.speed

    def sleep(self, seconds: float) -> None:
        """Wait until ``seconds`` have passed on this clock, which is ``seconds / speed`` on the wall."""
        self._real.sleep(seconds / self.speed)
