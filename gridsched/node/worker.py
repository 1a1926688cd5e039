"""The training child: ``python -m gridsched.node.worker HOME``. It runs units one after another, and stops when told or orphaned.

It has no network: what it lacks it asks its parent for. The gate is looked at before every step. Standard output carries
the lines of `gridsched.node.pipe` and nothing else; its end of file on standard input means that the agent is gone.
"""

import argparse
import hashlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from gridsched.core.errors import BlobCorrupt, DatasetError, GridschedError, InvalidInput, NotFound, OutOfMemory, StorageFull
from gridsched.core.work import UnitKind, UnitSpec
from gridsched.node.files import Write, write_durable
from gridsched.node.mailbox import Mailbox
from gridsched.node.pipe import Done, Event, Failed, Gate, Need, Progress, Ready, Train, line
from gridsched.node.runtimes import RUNTIMES, MakeRuntime, choose
from gridsched.node.saver import Saver
from gridsched.node.settings import Priority
from gridsched.node.state import Home
from gridsched.train import codec, program
from gridsched.train.checkpoint import load_continuation, save_continuation
from gridsched.train.dataset import Dataset, DatasetManifest
from gridsched.train.tensors import file_digest
from gridsched.train.unit import Continuation, Runtime, UnitRun, summary
from gridsched.train.version import read_version

__all__ = ["Ended", "Worker", "main"]

log = logging.getLogger(__name__)

_TELL_EVERY_S = 0.1
_RETRY_S = 1.0
_SAY_AGAIN_S = 10.0


class Ended(Exception):
    """The run was dropped, or the agent is gone."""


class Worker:
    """One child's life. A program stays loaded from one unit to the next.

    ``effort`` is what an owner's limit is a share of: seconds of processor time, or plain seconds where the work is done elsewhere.
    """

    def __init__(
        self,
        home: Home,
        gate: Gate,
        mailbox: Mailbox,
        tell: Callable[[Event], None],
        make_runtime: MakeRuntime,
        *,
        save: Callable[[Path, Continuation], Path] = save_continuation,
        write: Write = write_durable,
        effort: Callable[[], float] = time.process_time,
    ) -> None:
        self._effort = effort
        self._home = home
        self._gate = gate
        self._mail = mailbox
        self._tell = tell
        self._make_runtime = make_runtime
        self._save = save
        self._write = write
        self._warm: tuple[str, Runtime] | None = None
        self._dataset: tuple[tuple[str, str], Dataset] | None = None
        self._run = 0

    def work(self) -> None:
        """Run what is asked for until the agent is gone."""
        while (train := self._mail.next()) is not None:
            self._run = train.run
            self._mail.share = train.share
            try:
                self._train(train)
            except Ended:
                continue
            except GridschedError as error:
                if isinstance(error, OutOfMemory):
                    self._warm = None  # what it holds may be what the next unit lacks
                self._tell(Failed(run=train.run, detail=f"{type(error).__name__}: unit {train.unit.unit_id}: {error}"))

    def _train(self, train: Train) -> None:
        runtime = self._runtime(train.unit.program)
        middles = self._home.middles(train.unit.unit_id, runtime.hardware_class)
        saver = Saver(middles, self._save, every_s=train.save_every_s)
        unit = self._prepare(train, runtime, saver, middles)
        pace = _Pace(first_step=unit.position)
        self._tell(self._progress(unit, saver, pace, paused=not self._gate.open))
        told_at = time.monotonic()
        while not unit.done:
            if not self._gate.open or self._mail.ended(train.run):
                self._rest(unit, saver, pace)
                told_at = time.monotonic()
                continue
            before, effort_before = time.monotonic(), self._effort()
            unit.step()
            now = time.monotonic()
            pace.worked_s += now - before
            if not unit.done:
                saver.offer(unit.save)
            if now - told_at >= _TELL_EVERY_S:
                self._tell(self._progress(unit, saver, pace))
                told_at = now
            if self._mail.share < 1:
                self._hold_back(train.run, pace, worked_s=now - before, effort_s=self._effort() - effort_before)
        saver.settle()
        self._finish(train, unit, saver, pace)

    def _rest(self, unit: UnitRun, saver: Saver, pace: "_Pace") -> None:
        """Save, then wait for the gate; the unit stays in memory. Raises `Ended` once dropped (unsaved) or orphaned (saved)."""
        if self._mail.ended(self._run) and not self._mail.orphaned:
            raise Ended
        saver.now(unit.save())
        self._tell(self._progress(unit, saver, pace, paused=True))
        while not self._mail.wait(_RETRY_S if saver.stuck else _SAY_AGAIN_S, lambda: self._gate.open or self._mail.ended(self._run)):
            if saver.stuck:
                saver.now(unit.save())
            self._tell(self._progress(unit, saver, pace, paused=True))
        if self._mail.ended(self._run):
            raise Ended
        self._tell(self._progress(unit, saver, pace))

    def _hold_back(self, run: int, pace: "_Pace", *, worked_s: float, effort_s: float) -> None:
        """Rest after a step, so that the mean draw keeps to the owner's limit. A step that had to wait for the processor has rested."""
        rest_s = max(effort_s / max(self._mail.share, 0.01) - worked_s, 0.0)
        self._mail.wait(rest_s, lambda: not self._gate.open or self._mail.ended(run))
        pace.worked_s += rest_s

    def _progress(self, unit: UnitRun, saver: Saver, pace: "_Pace", *, paused: bool = False) -> Progress:
        return Progress(
            run=self._run,
            paused=paused,
            step=unit.position,
            executed=unit.position - pace.first_step,
            saved_step=saver.step,
            worked_s=pace.worked_s,
            stuck=saver.stuck,
        )

    # Getting ready.

    def _prepare(self, train: Train, runtime: Runtime, saver: Saver, middles: Path) -> UnitRun:
        spec = train.unit
        samples, version = self._samples(spec.dataset, local=spec.local), read_version(self._blob(spec.base))
        unit = UnitRun(spec, runtime, samples, version.tensors, buffers=version.buffers)
        for found in self._saved(train, middles):
            try:
                unit.load(found)
            except InvalidInput as error:
                log.warning("a continuation is passed over: %s", error)
            else:
                saver.step = found.step
                break
        return unit

    def _saved(self, train: Train, middles: Path) -> Iterator[Continuation]:
        """The node's own continuation and the daemon's, where it is further: the furthest first.

        One that is damaged, or that nobody has any more, is passed over: steps can be run again. The node's own from before another
        release is not among them: the daemon would take all of the unit for the work of this one.
        """
        mine = None
        with suppress(GridschedError):
            mine = load_continuation(middles)
        if mine is not None and not _fits(mine, train.unit):
            mine = None
        if train.continuation is not None and (mine is None or mine.step < train.continuation_step):
            try:
                yield Continuation.from_bytes(self._blob(train.continuation).read_bytes())
            except GridschedError as error:
                log.warning("the continuation at step %d is passed over: %s", train.continuation_step, error)
        if mine is not None:
            yield mine

    def _runtime(self, digest: str) -> Runtime:
        if self._warm is None or self._warm[0] != digest:
            self._warm = None
            self._warm = (digest, self._make_runtime(*program.from_bytes(self._blob(digest).read_bytes())))
        return self._warm[1]

    def _samples(self, digest: str, *, local: str = "") -> Dataset:
        """The unit's samples. Those of the owner's own data ``local`` lie here or nowhere: the daemon is not asked for them."""
        if local and self._home.local.path(digest) is None:
            raise DatasetError(f"data {local!r} is not on this node any more; the unit cannot be done here")
        if self._dataset is None or self._dataset[0] != (digest, local):
            get = partial(self._own, local) if local else self._blob
            self._dataset = ((digest, local), Dataset(DatasetManifest.from_bytes(get(digest).read_bytes()), get))
        return self._dataset[1]

    def _blob(self, digest: str) -> Path:
        """A verified file of the cache; one that has rotted there is fetched anew."""
        path = self._home.blobs / digest
        for _ in range(2):
            if not path.exists() and not self._mail.ended(self._run):
                self._tell(Need(digest=digest))
                self._mail.wait(None, lambda: path.exists() or self._mail.ended(self._run) or bool(self._mail.lost(digest)))
            if self._mail.ended(self._run):
                raise Ended
            if not path.exists():
                raise NotFound(f"blob {digest[:12]} cannot be had: {self._mail.lost(digest)}")
            if file_digest(path) == digest:
                return path
            path.unlink(missing_ok=True)
        raise BlobCorrupt(f"blob {digest[:12]} is damaged on this disk each time it is written; check the disk")

    def _own(self, name: str, digest: str) -> Path:
        """A file of the owner's own data ``name``: nobody else has it."""
        path = self._home.local.path(digest)
        if path is None:
            raise DatasetError(f"file {digest[:12]} of data {name!r} is not on this node any more; add it again (gridsched node data)")
        if file_digest(path) != digest:
            raise BlobCorrupt(f"{path} has changed since data {name!r} was added; remove and add it again (gridsched node data)")
        return path

    # Being done.

    def _finish(self, train: Train, unit: UnitRun, saver: Saver, pace: "_Pace") -> None:
        update = None
        if train.unit.kind is UnitKind.TRAIN:
            data = codec.encode_update(unit.delta(), train.unit, buffers=unit.buffers)
            update = hashlib.sha256(data).hexdigest()
            self._keep(self._home.update_path(update), data, unit, saver, pace)
        every = train.unit.digest_every
        self._tell(
            Done(
                run=train.run,
                update=update,
                executed=unit.position - pace.first_step,
                metrics=summary(unit.metrics),
                digests=[((index + 1) * every, digest) for index, digest in enumerate(unit.digests)],
            )
        )

    def _keep(self, path: Path, data: bytes, unit: UnitRun, saver: Saver, pace: "_Pace") -> None:
        """Write the finished update, waiting for room where there is none: it cost too much to be thrown away."""
        while True:
            try:
                self._write(path, data)
            except StorageFull as error:
                saver.stuck = str(error)
                self._tell(self._progress(unit, saver, pace, paused=True))
                if self._mail.wait(_RETRY_S, lambda: self._mail.ended(self._run)):
                    raise Ended from error
            else:
                return


class _Pace:
    """Where this run began, and the real seconds it has worked."""

    def __init__(self, *, first_step: int) -> None:
        self.first_step = first_step
        self.worked_s = 0.0


def _fits(saved: Continuation, spec: UnitSpec) -> bool:
    return saved.unit_id == spec.unit_id and 0 <= saved.step <= spec.steps


def _lower_priority(priority: Priority) -> None:
    """Stand behind everything else on the machine, as far as this system lets us."""
    if priority is Priority.NORMAL:
        return
    with suppress(OSError):
        os.nice(19)
    if priority is not Priority.IDLE:
        return
    if hasattr(os, "SCHED_IDLE"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    if hasattr(psutil, "IOPRIO_CLASS_IDLE"):
        with suppress(psutil.Error, OSError):
            psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)


def main(arguments: list[str] | None = None) -> None:
    """The child's entry."""
    parser = argparse.ArgumentParser(prog="gridsched.node.worker")
    parser.add_argument("home", type=Path)
    parser.add_argument("--runtime", choices=RUNTIMES, default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--priority", type=Priority, default=Priority.IDLE)
    options = parser.parse_args(arguments)
    _lower_priority(options.priority)
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints goes to the log, not into the protocol
    lock = threading.Lock()

    def tell(event: Event) -> None:
        with lock, suppress(BrokenPipeError):
            out.write(line(event))

    mailbox = Mailbox(sys.stdin.buffer)
    mailbox.start()
    try:
        chosen = choose(options.runtime, device=options.device, threads=options.threads)
    except GridschedError as error:
        sys.exit(str(error))  # the last line of what we say is what the agent shows
    tell(Ready(runtime=chosen.hardware_class, resident_bytes=psutil.Process().memory_info().rss))
    with Gate(options.home / "gate", owner=False) as gate:
        Worker(Home(options.home), gate, mailbox, tell, chosen.make, effort=chosen.effort).work()


if __name__ == "__main__":
    main()
