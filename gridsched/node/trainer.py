"""The training child as its supervisor sees it: started when needed, spoken to in lines, never waited for."""

import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from gridsched.config import environment_with
from gridsched.core.errors import GridschedError, MessageError
from gridsched.node.pipe import Drop, Event, Fetched, Gate, Lost, Order, Train, Wake, event, line
from gridsched.node.settings import NodeSettings
from gridsched.node.state import Home

__all__ = ["ENVIRONMENT", "Trainer"]

log = logging.getLogger(__name__)

ENVIRONMENT = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # cuBLAS gives equal bits for equal work only so, and asks once
    "OPENBLAS_NUM_THREADS": "1",  # numpy only moves bytes here, and each of its threads would keep megabytes for more
}
"""What a training child finds in its environment beside the agent's own."""


class Trainer:
    """``on_event`` and ``on_exit`` (with the last words of a child that died unasked) are called on a thread of the trainer's own."""

    def __init__(self, home: Home, settings: NodeSettings, on_event: Callable[[Event], None], on_exit: Callable[[str], None]) -> None:
        self._home = home
        self._settings = settings
        self._on_event = on_event
        self._on_exit = on_exit
        self._gate = Gate(home.gate, owner=True)
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        """Whether there is a child."""
        return self._child is not None

    @property
    def pid(self) -> int | None:
        """The child's process id, for whoever measures it."""
        return self._child.pid if self._child is not None else None

    def train(self, message: Train) -> None:
        """Run a unit, in the child there is or in a new one; the gate is opened."""
        if self._child is None:
            self.start()
        self._gate.let()
        self._send(message)

    def start(self) -> None:
        """Bring a child up; it says `Ready` once it can train."""
        settings = self._settings
        command = [sys.executable, "-m", "gridsched.node.worker", str(self._home.folder)]
        command += [
            "--runtime",
            settings.runtime,
            "--device",
            settings.device,
            "--threads",
            str(settings.threads),
            "--priority",
            settings.priority.value,
        ]
        with self._home.worker_log.open("wb") as words:
            # A session of its own keeps Ctrl-C in a terminal from killing the child before it has saved.
            child = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=words,
                env=environment_with(ENVIRONMENT),
                start_new_session=True,
            )
        self._child = child
        assert child.stdout is not None
        threading.Thread(target=self._listen, args=(child, child.stdout), name="trainer", daemon=True).start()

    def let(self, share: float) -> None:
        """Open the gate: the child goes on at once, for ``share`` of the time."""
        self._gate.let()
        self._send(Wake(share=share))

    def hold(self) -> None:
        """Shut the gate: the child saves and rests at the next step."""
        self._gate.shut()
        self._send(Wake())

    def drop(self, run: int) -> None:
        """End a run without saving."""
        self._gate.shut()
        self._send(Drop(run=run))

    def fetched(self, digest: str) -> None:
        """Tell the child that a blob it waits for is there."""
        self._send(Fetched(digest=digest))

    def lost(self, digest: str, error: GridschedError) -> None:
        """Tell the child that a blob it waits for can never be had: without a continuation it begins anew, else it gives up."""
        self._send(Lost(digest=digest, why=f"{type(error).__name__}: {error}"))

    def quit(self, *, within_s: float = 0.0) -> None:
        """Let the child save what it is at and end; with ``within_s``, wait that long and then kill it."""
        child, self._child = self._child, None
        if child is None:
            return
        self._gate.shut()
        with suppress(OSError):
            assert child.stdin is not None
            child.stdin.close()
        if within_s:
            try:
                child.wait(timeout=within_s)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def kill(self) -> None:
        """For a child that does not stop by itself; ends in ``on_exit`` like any other death."""
        if self._child is not None:
            self._child.kill()

    def _send(self, message: Order) -> None:
        if self._child is None:
            return
        with suppress(OSError):  # it is dying; on_exit tells
            assert self._child.stdin is not None
            self._child.stdin.write(line(message))
            self._child.stdin.flush()

    def _listen(self, child: "subprocess.Popen[bytes]", source: IO[bytes]) -> None:
        with source:
            for data in source:
                try:
                    message = event(data)
                except MessageError as error:
                    log.warning("%s", error, extra={"action": "worker_unreadable"})
                    continue
                if child is self._child:
                    self._on_event(message)
        code = child.wait()
        with suppress(OSError):
            assert child.stdin is not None
            child.stdin.close()
        if child is self._child:
            self._child = None
            self._on_exit(f"{_manner(code)}{_last_line(self._home.worker_log)}")


def _manner(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"ended with code {code}"


def _last_line(log_file: Path) -> str:
    with suppress(OSError):
        words = log_file.read_text(errors="replace").strip().splitlines()
        return f": {words[-1][:300]}" if words else ""
    return ""
