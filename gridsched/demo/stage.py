"""The real processes of the demo: one daemon, some nodes. They are started, killed without warning, started again, and always swept up."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import psutil

from gridsched.core.errors import GridschedError

__all__ = ["Process", "Stage", "free_port"]

_LAST_LINES = 12
_GRACE_S = 6.0


def free_port() -> int:
    """A port nobody listens on now. The daemon keeps it over a restart, so that the nodes find it again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass(slots=True, kw_only=True)
class Process:
    """One command with its log. ``wanted`` is False while it is meant to be down."""

    name: str
    command: Sequence[str]
    log: Path
    child: "subprocess.Popen[bytes] | None" = None
    wanted: bool = False
    crashes: int = 0

    def start(self) -> None:
        """Bring it up; its words are appended to the log."""
        self.wanted = True
        with self.log.open("ab") as words:
            # A session of its own, or Ctrl-C would reach it before the demo could end things in order.
            self.child = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=words, stderr=words, start_new_session=True)  # noqa: S603

    def kill(self) -> None:
        """``kill -9`` for it and every process below it, as a power cut does."""
        self.wanted = False
        self.crashes += 1
        for process in self._family():
            with suppress(psutil.Error):
                process.kill()
        self._reap()

    def ask_to_end(self) -> None:
        """SIGTERM; `end` waits for it."""
        self.wanted = False
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)

    def end(self, *, within_s: float = _GRACE_S) -> None:
        """Give it ``within_s`` to save and go, then kill it and what it left behind."""
        family = self._family()
        self.ask_to_end()
        if self.child is not None:
            with suppress(subprocess.TimeoutExpired):
                self.child.wait(timeout=within_s)
        for process in family:
            with suppress(psutil.Error):
                process.kill()
        self._reap()

    def failure(self) -> str | None:
        """What to tell if it has died of itself: where, with which last words."""
        if not self.wanted or self.child is None or self.child.poll() is None:
            return None
        words = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
        told = "\n".join(f"    {line}" for line in words) or "    (it said nothing)"
        return f"{self.name} has ended by itself (exit status {self.child.returncode}); its log is {self.log}:\n{told}"

    def _family(self) -> list[psutil.Process]:
        if self.child is None or self.child.poll() is not None:
            return []
        with suppress(psutil.Error):
            head = psutil.Process(self.child.pid)
            return [*head.children(recursive=True), head]
        return []

    def _reap(self) -> None:
        if self.child is not None:
            with suppress(subprocess.TimeoutExpired):
                self.child.wait(timeout=_GRACE_S)


@dataclass(slots=True)
class Stage:
    """All processes in ``folder``; used as a context, it leaves none behind unless `keep` was called."""

    folder: Path
    url: str
    processes: dict[str, Process] = field(default_factory=dict)
    kept: bool = False

    def __enter__(self) -> "Stage":
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self.kept or error is not None:
            self.end()

    def daemon(self) -> Process:
        """The control plane."""
        port = self.url.rsplit(":", 1)[1]
        return self._process("daemon", "serve", "--site", str(self.folder), "--port", port)

    def node(self, name: str) -> Process:
        """The agent of one node; its worker is a child of it."""
        return self._process(name, "node", "run", "--home", str(self.home(name)))

    def home(self, name: str) -> Path:
        """Where that node keeps its things."""
        return self.folder / "nodes" / name

    def check(self) -> None:
        """Raise for the first process that has died of itself."""
        for process in self.processes.values():
            told = process.failure()
            if told is not None:
                raise GridschedError(told)

    def wait_for(self, holds: Callable[[], bool], *, what: str, within_s: float) -> None:
        """Ask again and again until ``holds``; a process that dies meanwhile is told of, and so is the time running out."""
        until = time.monotonic() + within_s
        while not holds():
            self.check()
            if time.monotonic() > until:
                logs = ", ".join(str(process.log) for process in self.processes.values())
                raise GridschedError(f"{what} did not happen within {within_s:.0f} s; the logs are {logs}")
            time.sleep(0.05)

    def end(self) -> None:
        """End everything: the nodes save and go, then the daemon."""
        nodes = [process for name, process in self.processes.items() if name != "daemon"]
        for process in nodes:
            process.ask_to_end()
        for process in [*nodes, *(process for name, process in self.processes.items() if name == "daemon")]:
            process.end()

    @property
    def crashes(self) -> Mapping[str, int]:
        """How often each process was killed."""
        return {name: process.crashes for name, process in self.processes.items() if process.crashes}

    def _process(self, name: str, *arguments: str) -> Process:
        if name not in self.processes:
            command = [sys.executable, "-m", "gridsched", *arguments]
            self.processes[name] = Process(name=name, command=command, log=self.folder / "logs" / f"{name}.log")
        return self.processes[name]


def pids(stage: Stage) -> list[int]:
    """The process ids of what runs, for whoever wants to stop it later."""
    return [process.child.pid for process in stage.processes.values() if process.child is not None and process.child.poll() is None]


assert os.name == "posix", "the demo needs POSIX signals"
