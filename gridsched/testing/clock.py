"""A clock that stands still until it is moved."""

import threading
from datetime import UTC, datetime, timedelta

__all__ = ["ManualClock"]


class ManualClock:
    """Implements `gridsched.ports.Clock`. Sleeping moves it, so code that waits is tested without waiting."""

    def __init__(self, start: datetime = datetime(2018, 5, 1, tzinfo=UTC), *, speed: float = 1.0) -> None:
        self.speed = speed
        self._now = start
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """The moment it was last moved to."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Move on by ``seconds`` at once."""
        self.advance(timedelta(seconds=seconds))

    def advance(self, step: timedelta) -> datetime:
        """Move on by ``step`` (0 or more); the new moment."""
        assert step >= timedelta(0), "a clock never goes back; give a wall-clock fault to SystemClock instead"
        with self._lock:
            self._now += step
            return self._now

    def move_to(self, moment: datetime) -> None:
        """Move on to ``moment``."""
        self.advance(moment - self._now)
