"""Whether this device may work now: its owner's limits, and whether anything could not be written."""

import logging
from collections.abc import Callable
from pathlib import Path

from gridsched.core.fleet import DeviceState
from gridsched.node.limits import DeviceSample, Limits, device_state

__all__ = ["Device"]

log = logging.getLogger(__name__)

_EVERY_S = 2.0


class Device:
    """Sampled every two seconds. A failed write counts as a full disk until the same thing has been written."""

    def __init__(self, folder: Path, limits: Limits, sample: Callable[[Path], DeviceSample]) -> None:
        self._folder = folder
        self._limits = limits
        self._sample = sample
        self._sampled = DeviceState.FREE
        self._due_s = 0.0
        self._stuck: dict[str, str] = {}

    @property
    def state(self) -> DeviceState:
        """What the daemon is told, and what work depends on."""
        return DeviceState.DISK_FULL if self._stuck else self._sampled

    @property
    def trouble(self) -> str:
        """A sentence on what could not be written, or nothing."""
        return next(iter(self._stuck.values()), "")

    def look(self, now_s: float) -> bool:
        """Sample when it is time; whether the state has changed."""
        if now_s < self._due_s:
            return False
        self._due_s = now_s + _EVERY_S
        before, self._sampled = self._sampled, device_state(self._sample(self._folder), self._limits, before=self._sampled)
        if self._sampled is before:
            return False
        log.info("the device is %s", self._sampled.value, extra={"action": "device", "device": self._sampled.value})
        return True

    def stuck(self, where: str, why: str) -> bool:
        """``where`` could not write because of ``why``, or could (empty); whether that is news."""
        if why:
            news = where not in self._stuck
            self._stuck[where] = why
            if news:
                log.error("%s", why, extra={"action": "disk_full"})
            return news
        if self._stuck.pop(where, None) is None:
            return False
        log.info("there is room on the disk again", extra={"action": "disk_free"})
        return True
