"""Every version of a job made again from version 0, the journal's rows and the stored updates, and its digest compared.

This is the audit that anybody with the site's files can do: nothing is trained and nothing is believed but the updates. A version is
made from the one *recomputed* before it, so a first difference says which row, file or merge is not what was journaled.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path

from gridsched import config
from gridsched.clock import SystemClock
from gridsched.core.errors import BlobCorrupt, InvalidInput, NotFound
from gridsched.core.job import Job
from gridsched.core.method import Method
from gridsched.core.round import Version
from gridsched.core.stream import weight
from gridsched.ports import Blobs, Store
from gridsched.store.blobs import FileBlobs
from gridsched.store.sql import SqlStore
from gridsched.train.merge import merge_version
from gridsched.train.tensors import Source, version_digest

__all__ = ["Outcome", "Replayed", "replay", "replay_site"]


class Outcome(StrEnum):
    """``same``: the journaled digests. ``differs``: others. ``lost``: a file that it takes is no longer there, or not what it was."""

    SAME = "same"
    DIFFERS = "differs"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What came of making version ``number`` again; ``detail`` says what differs or is lost."""

    number: int
    digest: str
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Model:
    """A version and its outer optimizer's state, as files or bytes."""

    tensors: Source
    outer: Source | None


def replay_site(folder: Path, job_id: str) -> Iterator[Replayed]:
    """`replay` over a site's own files; its daemon may run or not. Raises `NotFound` for a job that the site does not have."""
    settings = config.load(folder)
    store = SqlStore(settings.store.url)
    blobs = FileBlobs(settings.site.data / "blobs", quota_bytes=settings.blobs.quota_bytes, clock=SystemClock())
    try:
        yield from replay(store, blobs, job_id)
    finally:
        store.close()


def replay(store: Store, blobs: Blobs, job_id: str) -> Iterator[Replayed]:
    """Make every version again, in order, until one differs.

    Where updates are lost, as after a retention that keeps only the newest, that version is said to be lost, and the stored one is
    taken for the next.
    """
    with store.read() as tx:
        job = tx.get(Job, job_id)
        if job is None:
            raise NotFound(f"there is no job {job_id}; see gridsched job list, and of an ensemble replay each member, such as {job_id}-m0")
        method = job.spec.method
        rows = tx.find(Version, job_id=job_id, order="number")
    model: _Model | None = None
    for before, row in pairwise(rows):
        try:
            model = model or _stored(blobs, before)
            made, found = _make(blobs, row, method, model)
        except (NotFound, BlobCorrupt, InvalidInput) as error:
            yield Replayed(number=row.number, digest=row.digest, outcome=Outcome.LOST, detail=str(error))
            model = None
            continue
        differing = [name for name, digest in found.items() if digest != getattr(row, name)]
        if differing:
            told = ", ".join(f"{name} is {found[name] or 'none'}, journaled {getattr(row, name) or 'none'}" for name in differing)
            yield Replayed(number=row.number, digest=row.digest, outcome=Outcome.DIFFERS, detail=told)
            return
        yield Replayed(number=row.number, digest=row.digest, outcome=Outcome.SAME)
        model = made


def _stored(blobs: Blobs, row: Version) -> _Model:
    return _Model(blobs.verified(row.digest), None if row.outer is None else blobs.verified(row.outer))


def _make(blobs: Blobs, row: Version, method: Method, model: _Model) -> tuple[_Model, dict[str, str | None]]:
    """The version after ``model`` by the journal's ``row``, and the digests of its files by their names in the row."""
    if not row.updates:  # all of its units were skipped: the version before it under the next number
        return model, {"digest": row.parent, "outer": row.outer}
    staleness = row.staleness or (0,) * len(row.updates)
    updates: list[tuple[str, float, Source]] = [
        (unit_id, weight(samples, staleness=behind, power=method.staleness_power), blobs.verified(update))
        for (unit_id, update, samples), behind in zip(row.updates, staleness, strict=True)
    ]
    made = merge_version(model.tensors, updates, method, model.outer)
    digests = {"digest": made.version, "outer": made.outer, "step": made.step}
    return _Model(made.version, made.outer), {name: None if data is None else version_digest(data) for name, data in digests.items()}
