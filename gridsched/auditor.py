"""An accepted unit computed once more, by anybody, and held against what was accepted.

What the wasm runtime has done has the same bits on every machine, so its update must come out with the same digest, byte for byte.
What PyTorch has done is compared as exactly where this machine is of the same hardware class; of another class of PyTorch, a short
unit's update may differ by rounding, and a long one's drifts apart for good reasons (see `gridsched.flow.audit`).
"""

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

from gridsched import config
from gridsched.clock import SystemClock
from gridsched.core.errors import GridschedError, OtherRelease
from gridsched.core.job import kind_of_runtime
from gridsched.core.work import UnitKind, UnitState
from gridsched.flow.audit import LONGEST_ACROSS, answer_of
from gridsched.flow.case import Case, case_of
from gridsched.node.runtimes import choose
from gridsched.remote import Operator
from gridsched.screening import SAME_BUT_FOR_ROUNDING
from gridsched.store.blobs import FileBlobs
from gridsched.store.sql import SqlStore
from gridsched.train import codec
from gridsched.train.dataset import Dataset, DatasetManifest
from gridsched.train.program import from_bytes
from gridsched.train.screen import differ
from gridsched.train.unit import UnitRun, summary
from gridsched.train.version import read_version

__all__ = ["Audited", "Outcome", "Step", "audit", "audit_at", "audit_site"]

Step = Callable[[int, int], None]
Fetch = Callable[[str], Path]


class Outcome(StrEnum):
    """``same``: what was accepted. ``differs``: something else. ``cannot``: nobody can say from here, and ``detail`` says why."""

    SAME = "same"
    DIFFERS = "differs"
    CANNOT = "cannot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """``runtime`` is the hardware class that the unit was computed in here; "" where it was not."""

    unit_id: str
    outcome: Outcome
    detail: str
    runtime: str = ""


def audit_site(folder: Path, unit_id: str, *, runtime: str = "", on_step: Step = lambda *_: None) -> Audited:
    """`audit` over a site's own files; its daemon may run or not. Raises `NotFound` for a unit that the site does not have."""
    settings = config.load(folder)
    blobs = FileBlobs(settings.site.data / "blobs", quota_bytes=settings.blobs.quota_bytes, clock=SystemClock())
    with closing(SqlStore(settings.store.url)) as store, store.read() as tx:
        case = case_of(tx, unit_id)
    return audit(case, blobs.verified, runtime=runtime, on_step=on_step)


def audit_at(operator: Operator, unit_id: str, *, runtime: str = "", on_step: Step = lambda *_: None) -> Audited:
    """`audit` of a daemon's unit, whose files are fetched for the time it takes. Raises as `Operator`, and `OtherRelease`."""
    try:
        case = msgspec.convert(operator.get(f"/v1/units/{unit_id}"), Case)
    except msgspec.ValidationError as error:
        raise OtherRelease(f"{operator.url} describes unit {unit_id} in another way ({error}); use the daemon's release here") from error
    with tempfile.TemporaryDirectory(prefix="gridsched-audit-") as folder:

        def fetch(digest: str) -> Path:
            path = Path(folder) / digest
            if not path.exists():
                path.write_bytes(operator.get_blob(digest))
            return path

        return audit(case, fetch, runtime=runtime, on_step=on_step)


def audit(case: Case, fetch: Fetch, *, runtime: str = "", on_step: Step = lambda *_: None) -> Audited:
    """Compute the unit again and compare. ``runtime`` (torch or wasm) goes before the one that it was done with."""
    unit_id = case.spec.unit_id
    if why := _closed(case):
        return Audited(unit_id=unit_id, outcome=Outcome.CANNOT, detail=why)
    wanted = runtime or ("wasm" if case.classes and all(name.startswith("wasm-") for name in case.classes) else "torch")
    try:
        chosen = choose(wanted, device="cpu", threads=_threads(case.classes))
        program, tensors = from_bytes(fetch(case.spec.program).read_bytes())
        samples = Dataset(DatasetManifest.from_bytes(fetch(case.spec.dataset).read_bytes()), fetch)
        base = read_version(fetch(case.spec.base))
        unit = UnitRun(case.spec, chosen.make(program, tensors), samples, base.tensors, buffers=base.buffers)
        while not unit.done:
            unit.step()
            on_step(unit.position, case.spec.steps)
    except GridschedError as error:
        return Audited(unit_id=unit_id, outcome=Outcome.CANNOT, detail=f"it cannot be computed again: {error}")
    exact = case.classes == (chosen.hardware_class,)
    outcome, detail = _same_bits(case, unit) if exact else _nearly(case, unit, chosen.hardware_class, fetch)
    return Audited(unit_id=unit_id, outcome=outcome, detail=detail, runtime=chosen.hardware_class)


def _closed(case: Case) -> str:
    """Why there is nothing to compare, or nothing to compute it from."""
    if case.state is not UnitState.ACCEPTED:
        return f"it is {case.state}, so there is no accepted result to compare with"
    if case.spec.local:
        return f"it was trained on data {case.spec.local!r} that never left its node"
    return ""


def _threads(classes: Sequence[str]) -> int:
    """The thread count that is part of a torch class on a processor; 1 where none is."""
    ends = {name.rpartition("-")[2] for name in classes}
    end = ends.pop() if len(ends) == 1 else ""
    return int(end[:-1]) if end[-1:] == "t" and end[:-1].isdigit() else 1


def _result(unit: UnitRun) -> bytes | None:
    if unit.spec.kind is not UnitKind.TRAIN:
        return None
    return codec.encode_update(unit.delta(), unit.spec, buffers=unit.buffers)


def _same_bits(case: Case, unit: UnitRun) -> tuple[Outcome, str]:
    every = case.spec.digest_every
    known = dict(case.digests)
    for step, digest in enumerate(unit.digests, start=1):
        if known.get(step * every, digest) != digest:
            first, told = (step - 1) * every + 1, known[step * every]
            return Outcome.DIFFERS, (
                f"its parameters differ first between steps {first} and {step * every}: accepted {told[:12]}, computed {digest[:12]}"
            )
    update = _result(unit)
    computed = answer_of(None if update is None else hashlib.sha256(update).hexdigest(), summary(unit.metrics))
    if computed != case.answer:
        agreed = f"its {len(known)} digests along the way are right and its result is not" if known else "its result is another"
        return Outcome.DIFFERS, f"{agreed}: accepted {_short(case.answer)}, computed {_short(computed)}"
    points = f" and {len(known)} digests along the way" if known else ""
    return Outcome.SAME, f"the same {'update' if case.update else 'figures'}{points}, bit for bit"


def _nearly(case: Case, unit: UnitRun, here: str, fetch: Fetch) -> tuple[Outcome, str]:
    """Another hardware class than here, or several: equal bits are luck, and rounding is told from lying in short units alone."""
    there = " and ".join(case.classes) or "a class that is not known any more"
    if any(kind_of_runtime(name) != kind_of_runtime(here) for name in case.classes):
        return Outcome.CANNOT, f"it was done by {there} and computed here by {here}, which draws other random numbers; choose --runtime"
    if case.update is None or case.spec.steps > LONGEST_ACROSS:
        return Outcome.CANNOT, f"it was done by {there}, here is {here}, and in {case.spec.steps} steps honest results of both drift apart"
    update = _result(unit)
    assert update is not None
    try:
        apart = differ(fetch(case.update), update, buffers=unit.buffers)
    except GridschedError as error:
        return Outcome.CANNOT, f"it was done by {there}, and its update cannot be read to be compared: {error}"
    told = (
        f"it was done by {there}; computed here by {here}, its update lies {apart:.1e} apart (rounding is below {SAME_BUT_FOR_ROUNDING:g})"
    )
    return (Outcome.SAME if apart <= SAME_BUT_FOR_ROUNDING else Outcome.DIFFERS), told


def _short(answer: str) -> str:
    return answer if answer.startswith("{") else answer[:12]
