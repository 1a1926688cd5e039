"""A model owner's way in: from a job file to a submitted job, or to the jobs of an ensemble's members.

The owner's Python runs here and only here. What leaves is a program (a graph from an allow-list), a dataset and numbers.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from gridsched.clock import SystemClock
from gridsched.core.cut import lone_sample
from gridsched.core.errors import DatasetError, ProgramError
from gridsched.core.job import Dataset, JobSpec
from gridsched.core.method import Method, NotFinite
from gridsched.remote import Operator
from gridsched.train.dataset import DatasetManifest, write_dataset
from gridsched.train.draws import draw_key
from gridsched.train.jobfile import BAGGING, ONE_CLASS, JobFile, load_jobfile
from gridsched.train.partition import Partition, cut, reordered
from gridsched.train.program import from_bytes, to_bytes
from gridsched.train.tensors import Array
from gridsched.train.version import initial_version

__all__ = ["Submission", "add_dataset", "prepare", "submit"]

_SHARD_SAMPLES = 4096
_LATER: Mapping[str, Mapping[str, object]] = {
    "": {"top_up": True, "top_up_below_eur_mwh": None, "parts": (), "part": -1, "bag": -1, "local": "", "ensemble": "", "member": 0},
    "method": {
        "name": "",
        "down": "raw",
        "merge": "mean",
        "bad_share": 0.2,
        "quorum": 0,
        "max_staleness": 8,
        "staleness_power": 0.5,
        "unit_seconds": 0.0,
        "grace_s": 0.0,
        "micro_batch": 0,
        "precision": "float32",
        "not_finite": "stop",
    },
    "method.inner": {"prox": 0.0},
    "method.outer": {"beta1": 0.9, "beta2": 0.99, "eps": 1e-3},
}
"""What came after the first release, and the value that means what was before."""
_FIRST_RUNTIME = "torch"
"""What every job's runtime was when ids began to follow from it."""
Put = Callable[[bytes], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a job file came to: one job, or one for each member of an ensemble. ``blobs`` by digest must be stored before them."""

    specs: tuple[JobSpec, ...]
    blobs: Mapping[str, bytes]

    @property
    def spec(self) -> JobSpec:
        """The job, or the first member's."""
        return self.specs[0]

    @property
    def name(self) -> str:
        """What to watch, fetch or cancel: the ensemble, or the job."""
        return self.spec.ensemble or self.spec.job_id


def prepare(
    path: Path,
    *,
    zone: str,
    name: str = "",
    seed: int = 0,
    changes: Mapping[str, object] | None = None,
    wishes: Mapping[str, Any] | None = None,
) -> Submission:
    """Run the job file, trace its model, cut its dataset. ``changes`` override settings of its method; ``wishes`` are those of `JobSpec`.

    The job's id follows from all that decides its bits, so submitting the same thing again is the same job; with other
    wishes, that job gets those. So it is with an ensemble and its members. Needs torch.
    """
    job = load_jobfile(path)
    method = replace(job.method, **_given(changes or {}))
    blobs: dict[str, bytes] = {}

    def put(data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return digest

    train, test = job.dataset()
    train, parts = _in_parts(job, train, seed)
    program, initial, needed_bytes = _export(job, method, train, put)
    manifest = _store_dataset(train, f"{job.name}-train", job.attribution, put)
    tests = _tests(job, test, put)
    held_out = replace(tests[0], shards=tuple(shard for one in tests for shard in one.shards)) if tests else None
    spec = JobSpec(
        job_id="pending",
        name=name or job.name,
        program=program,
        dataset=put(manifest.to_bytes()),
        samples=manifest.samples,
        test_dataset=put(held_out.to_bytes()) if held_out else None,
        test_samples=held_out.samples if held_out else 0,
        initial=initial,
        seed=seed,
        method=method,
        zone=zone,
        memory_bytes=needed_bytes,
        parts=parts,
        local=job.local,
        **(wishes or {}),
    )
    specs: tuple[JobSpec, ...] = (replace(spec, job_id=_id_of(spec)),)
    if method.name in (BAGGING, ONE_CLASS):
        specs = _members(spec, job.members)
    if method.name == ONE_CLASS and tests:
        specs = _on_own_tests(specs, tests, put)
    _refuse_lone_samples(specs, blobs, train)
    return Submission(specs=specs, blobs=blobs)


def _refuse_lone_samples(specs: Sequence[JobSpec], blobs: Mapping[str, bytes], train: Mapping[str, Array]) -> None:
    """Raise where a unit would end in a batch of one sample, and the program cannot normalise over one."""
    method, size = specs[0].method, next(filter(None, map(lone_sample, specs)), 0)
    if not size or method.not_finite is NotFinite.SKIP:
        return
    from gridsched.train.export import breaks_alone  # torch, without which nothing has come as far as this

    program, tensors = from_bytes(blobs[specs[0].program])
    two = {field.name: np.ascontiguousarray(np.resize(train[field.name][:2], (2, *field.shape))) for field in program.fields}
    if name := breaks_alone(program, tensors, two):
        raise ProgramError(
            f"a unit of {size} samples in batches of {method.batch_size} ends in a batch of one, of which no variance can be taken: "
            f"{name} would become NaN; choose another batch_size or samples_per_unit, or not_finite = skip to go on without such units"
        )


def _in_parts(job: JobFile, train: Mapping[str, Array], seed: int) -> tuple[Mapping[str, Array], tuple[int, ...]]:
    """The samples with those of each part next to one another, and the parts' sizes; as they are, where the job has no partition."""
    if job.partition is None:
        return train, ()
    chosen = cut(train, job.partition, seed=seed) if isinstance(job.partition, Partition) else job.partition(train)
    if job.method.name == ONE_CLASS:
        _demand_classes(train["y"])
    if isinstance(job.partition, Partition) and job.partition.by == "owner" and job.partition.field not in job.example_batch():
        train = {name: array for name, array in train.items() if name != job.partition.field}  # whose it is concerns nobody further
    return reordered(train, chosen)


def _demand_classes(y: Array) -> None:
    labels = np.unique(y)
    if not np.array_equal(labels, np.arange(len(labels))):
        raise DatasetError(f"{ONE_CLASS} needs labels from 0 without a gap in field y, since class c is member c's; got {labels[:20]}")


def _tests(job: JobFile, test: Mapping[str, Array], put: Put) -> list[DatasetManifest]:
    """The held-out samples; label by label, where each member knows one and is to be tried on that alone. None, if there are none."""
    if not test:
        return []
    name = f"{job.name}-test"
    if job.method.name != ONE_CLASS:
        return [_store_dataset(test, name, job.attribution, put)]
    _demand_classes(test["y"])
    of_label = [test["y"] == label for label in np.unique(test["y"])]
    return [_store_dataset({field: array[own] for field, array in test.items()}, name, job.attribution, put) for own in of_label]


def _on_own_tests(members: Sequence[JobSpec], tests: Sequence[DatasetManifest], put: Put) -> tuple[JobSpec, ...]:
    if len(tests) != len(members):
        raise DatasetError(f"the training samples have {len(members)} labels and the test {len(tests)}; they need the same ones")
    of_each = zip(members, tests, strict=True)
    return tuple(replace(member, test_dataset=put(one.to_bytes()), test_samples=one.samples) for member, one in of_each)


def _members(spec: JobSpec, bags: int) -> tuple[JobSpec, ...]:
    """A job for each member: on samples of the whole drawn with replacement, or on a part of its own.

    The ensemble's name does not depend on how many draw, so that one with more of them goes on from those that are there.
    """
    ensemble = _id_of(spec)
    return tuple(
        replace(
            spec,
            job_id=f"{ensemble}-m{member}",
            ensemble=ensemble,
            member=member,
            part=-1 if bags else member,
            bag=member if bags else -1,
            seed=draw_key("member", spec.seed, member),
        )
        for member in range(bags or len(spec.parts))
    )


def _given(changes: Mapping[str, object]) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if value is not None}


def _export(job: JobFile, method: Method, train: Mapping[str, Array], put: Put) -> tuple[str, str, int]:
    """Digests of the program and of version 0, and the bytes of memory that a node needs for a unit."""
    try:
        from gridsched.train.export import export, unit_bytes  # torch, which only owners and nodes have
    except ImportError as error:
        raise ProgramError("tracing a model needs PyTorch; install it with: pip install 'gridsched[train]'") from error
    # One score is no choice among classes, though it may have the shape of one.
    program, tensors = export(job.model(), job.example_batch(), job.loss, target="" if method.name == ONE_CLASS else "y")
    size = method.batch_size
    batch = {field.name: np.ascontiguousarray(np.resize(train[field.name][:size], (size, *field.shape))) for field in program.fields}
    needed = unit_bytes(program, tensors, batch, method)
    return put(to_bytes(program, tensors)), put(initial_version(program, tensors).to_bytes()), needed


def _store_dataset(fields: Mapping[str, Array], name: str, attribution: str, put: Put) -> DatasetManifest:
    return write_dataset(fields, name=name, shard_samples=_SHARD_SAMPLES, put=put, attribution=attribution)


def _id_of(spec: JobSpec) -> str:
    """From what decides the bits alone; what came after the first release counts where it is set, so that ids stay what they were."""
    content = _without_defaults(msgspec.to_builtins(spec.without_wishes)) | {"runtime": _FIRST_RUNTIME}
    digest = hashlib.sha256(msgspec.json.encode(content)).hexdigest()
    return f"{spec.name[:50]}-{digest[:6]}"


def _without_defaults(content: dict[str, Any]) -> dict[str, Any]:
    for part, names in _LATER.items():
        record = content
        for step in filter(None, part.split(".")):
            record = record[step]
        for name, default in names.items():
            if record[name] == default:
                del record[name]
    return content


def submit(operator: Operator, submission: Submission, *, progress: Callable[[int], None] | None = None) -> JobSpec:
    """Store what the daemon lacks, then hand the job in, or all members. ``progress`` is told the bytes of each stored blob."""
    for data in submission.blobs.values():
        operator.put_blob(data)
        if progress is not None:
            progress(len(data))
    for spec in submission.specs:
        operator.post("/v1/jobs", spec)
    return submission.spec


def add_dataset(operator: Operator, name: str, fields: Mapping[str, Array], *, attribution: str = "") -> Dataset:
    """Store ``fields`` as shards and give them a name at the daemon."""
    blobs: list[int] = []

    def put(data: bytes) -> str:
        blobs.append(len(data))
        return operator.put_blob(data)

    manifest = write_dataset(fields, name=name, shard_samples=_SHARD_SAMPLES, put=put, attribution=attribution)
    digest = put(manifest.to_bytes())
    dataset = Dataset(
        name=name, digest=digest, samples=manifest.samples, size_bytes=sum(blobs), added_at=SystemClock().now(), attribution=attribution
    )
    operator.post("/v1/datasets", dataset)
    return dataset
