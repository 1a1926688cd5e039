"""How long nobody has used this machine: by its terminals, and by what its desktop tells the login manager.

A terminal's device is read at every key. A desktop reads none: the session tells systemd-logind when it is idle (``IdleHint`` and
``IdleSinceHint`` of https://www.freedesktop.org/software/systemd/man/org.freedesktop.login1.html). One that never tells counts as used.
"""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from gridsched.clock import SystemClock

__all__ = ["Desktop", "user_idle_s"]

_EVERY_S = 10.0
_TIMEOUT_S = 2.0
_SEAT = "seat0"

Ask = Callable[..., Mapping[str, str]]


def _loginctl(*words: str) -> Mapping[str, str]:
    """The properties that ``loginctl`` shows; none where it cannot be asked."""
    tool = shutil.which("loginctl")
    if tool is None:
        return {}
    with suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run([tool, *words], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True).stdout  # noqa: S603 - our own words
        return dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
    return {}


class Desktop:
    """Who sits at the machine's own screen, asked for every ten seconds."""

    def __init__(self, ask: Ask = _loginctl, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._monotonic = monotonic
        self._due_s = 0.0
        self._idle_since_s: float | None = None

    def idle_s(self) -> float | None:
        """Seconds since the screen's user did anything; None where nobody is logged in there, or that is no desktop."""
        if self._monotonic() >= self._due_s:
            self._idle_since_s = self._look()
            self._due_s = self._monotonic() + _EVERY_S
        return None if self._idle_since_s is None else max(SystemClock().now().timestamp() - self._idle_since_s, 0.0)

    def _look(self) -> float | None:
        session = self._ask("show-seat", _SEAT, "--property=ActiveSession").get("ActiveSession", "")
        if not session:
            return None
        found = self._ask("show-session", session, *(f"--property={name}" for name in ("Class", "Type", "IdleHint", "IdleSinceHint")))
        if found.get("Class") != "user" or found.get("Type") not in ("x11", "wayland", "mir"):
            return None
        since = found.get("IdleSinceHint", "")
        if found.get("IdleHint") == "yes" and since.isdecimal():
            return int(since) / 1e6
        return SystemClock().now().timestamp()


_desktop = Desktop()


def user_idle_s() -> float | None:
    """Seconds since anyone used a terminal or the desktop; None where nobody is logged in, or the machine cannot tell."""
    return min((idle_s for idle_s in (_terminals_idle_s(), _desktop.idle_s()) if idle_s is not None), default=None)


def _terminals_idle_s() -> float | None:
    """As ``w`` counts it: by the access time of the terminal's device."""
    now_s = SystemClock().now().timestamp()
    touched = list(_terminal_times(user.terminal for user in psutil.users()))
    return max(now_s - max(touched), 0.0) if touched else None


def _terminal_times(terminals: Iterable[str | None]) -> Iterable[float]:
    for terminal in terminals:
        if terminal and not terminal.startswith(":"):
            with suppress(OSError):
                yield (Path("/dev") / terminal).stat().st_atime
