"""The daemon's heavy work on tensors, done in its executor: checking an update, and merging a round into a version.

Neither runs a model; both read blobs and answer with a digest or a reason. A round is merged by content: doing it twice,
or again after a crash, gives the same bytes and so the same digest. Every file is held against its digest first: what a disk
has damaged would otherwise go into the model unseen. A lost update is trained again; a job that has lost its version, or the state
of its outer optimizer, ends.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from gridsched.core.errors import BlobCorrupt, GridschedError, InvalidInput, NotFound, UpdateRefused
from gridsched.core.job import Job
from gridsched.core.method import Method
from gridsched.core.round import Round, Version
from gridsched.core.stream import weight
from gridsched.core.work import Refusal, UnitKind, WorkUnit
from gridsched.flow import advance
from gridsched.flow.collect import Checked
from gridsched.ports import Blobs, Store, Writer
from gridsched.screening import Screen
from gridsched.train.merge import Merged, check_update, merge_version, tensor_spec
from gridsched.train.version import read_version

__all__ = ["Merger"]

_log = logging.getLogger(__name__)

_Spec = tuple[dict[str, tuple[str, tuple[int, ...]]], frozenset[str]]


@dataclass(slots=True, kw_only=True)
class Merger:
    """Turns stored updates into versions. ``max_norm`` bounds an update's L2 norm; ``screen`` looks at them first, where a site audits."""

    store: Store
    writer: Writer
    blobs: Blobs
    max_norm: float
    screen: Screen | None = None
    _specs: dict[str, _Spec] = field(default_factory=dict, init=False)
    _stuck: dict[str, str] = field(default_factory=dict, init=False)

    def check(self, unit: WorkUnit, update: str | None) -> Checked:
        """Whether the stored ``update`` may be merged into the unit's version; the reason where not.

        Raises `NotFound` where that version is lost, which is no fault of the update: its job ends.
        """
        if unit.spec.kind is UnitKind.EVALUATE or update is None:
            return Checked()
        spec, buffers = self._base(unit)
        try:
            norm = check_update(self.blobs.path(update), spec, self.max_norm, buffers=buffers)
            return Checked(norm=norm, agrees=self.screen.twins(unit, update, buffers) if self.screen is not None else ())
        except UpdateRefused as error:
            return Checked(refusal=Refusal(error.reason), detail=str(error))
        except GridschedError as error:
            return Checked(refusal=Refusal.UNREADABLE, detail=str(error))

    def _base(self, unit: WorkUnit) -> _Spec:
        try:
            return self._spec(unit.spec.base)
        except (NotFound, BlobCorrupt, InvalidInput) as error:
            reason = f"version {unit.spec.version} of job {unit.spec.job_id} is lost: {error}"
            self._fail(unit.spec.job_id, reason)
            raise NotFound(reason) from error

    def _spec(self, version: str) -> _Spec:
        if version not in self._specs:
            if len(self._specs) > 64:
                self._specs.clear()
            base = read_version(self.blobs.verified(version))
            self._specs[version] = tensor_spec(base.tensors), base.buffers
        return self._specs[version]

    def merge(self, rnd: Round) -> str | None:
        """Merge a complete round, journal the version, and return its digest.

        None where an update is lost and trained again, or odd and done again elsewhere.

        Raises `NotFound` or `BlobCorrupt` where the version it starts from is lost, or what the outer optimizer remembers of it.
        """
        with self.store.read() as tx:
            method = tx.must(Job, rnd.job_id).spec.method
            before = tx.must(Version, rnd.job_id, rnd.number)
            units = advance.taken(tx, rnd.round_id)
        base = self.blobs.verified(rnd.base)
        outer = self.blobs.verified(before.outer) if before.outer is not None else None
        updates, lost = self._updates(units)
        if lost:
            self.writer.submit(partial(advance.redo, round_id=rnd.round_id, lost=lost)).result()
            return None
        if self.screen is not None and self.screen.holds_up(rnd, units):
            return None
        if units:
            weighed = [(unit.unit_id, _weight(rnd, unit, method), update) for unit, update in zip(units, updates, strict=True)]
            become = self._store(merge_version(base, weighed, method, outer))
        else:  # all were skipped
            become = {"digest": before.digest, "size_bytes": before.size_bytes, "outer": before.outer}
        made_of = [(unit.unit_id, unit.update) for unit in units]
        self.writer.submit(partial(advance.merged, round_id=rnd.round_id, made_of=made_of, **become)).result()
        return str(become["digest"])

    def _store(self, made: Merged) -> dict[str, Any]:
        """What the journal says of the files, once they are durable."""
        return {
            "digest": self.blobs.put(made.version),
            "size_bytes": len(made.version),
            "outer": None if made.outer is None else self.blobs.put(made.outer),
            "step": None if made.step is None else self.blobs.put(made.step),
            "step_bytes": 0 if made.step is None else len(made.step),
        }

    def merge_ready(self) -> list[str]:
        """Merge every round that waits for it; what a crash left undone is found the same way."""
        with self.store.read() as tx:
            ready = advance.ready_to_merge(tx)
        self._stuck = {rnd.round_id: self._stuck[rnd.round_id] for rnd in ready if rnd.round_id in self._stuck}
        return [digest for rnd in ready if (digest := self._merge_alone(rnd)) is not None]

    def _merge_alone(self, rnd: Round) -> str | None:
        """One round that cannot be merged holds up no other. What the same bytes would do again ends the job; the rest is tried again."""
        try:
            return self.merge(rnd)
        except (NotFound, BlobCorrupt, InvalidInput) as error:
            self._fail(rnd.job_id, f"round {rnd.round_id} cannot be merged: {error}")
        except Exception as error:  # noqa: BLE001 - whatever it is, the other rounds must not wait for it
            if self._stuck.get(rnd.round_id) != str(error):
                _log.exception("round %s is not merged yet", rnd.round_id, extra={"action": "merge_failed", "round": rnd.round_id})
            self._stuck[rnd.round_id] = str(error)
        return None

    def _fail(self, job_id: str, reason: str) -> None:
        _log.error("%s", reason, extra={"action": "job_failed", "job": job_id})
        self.writer.submit(partial(advance.fail, job_id=job_id, reason=reason)).result()

    def _updates(self, units: Sequence[WorkUnit]) -> tuple[list[Path], dict[str, str]]:
        """The files of the units' updates, and what is wrong with those that cannot be read back, by unit."""
        files: list[Path] = []
        lost: dict[str, str] = {}
        for unit in units:
            try:
                files.append(self.blobs.verified(unit.update or ""))
            except (NotFound, BlobCorrupt) as error:
                lost[unit.unit_id] = str(error)
        return files, lost


def _weight(rnd: Round, unit: WorkUnit, method: Method) -> float:
    return weight(unit.spec.samples, staleness=rnd.number - unit.spec.version, power=method.staleness_power)
