"""A model owner's side: from a job file to a submitted job, and from a job's version back to the owner's module.

The owner's Python runs here and only here. What leaves is a program (a graph from an allow-list), a dataset and numbers.
"""

import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from gridsched.clock import SystemClock
from gridsched.core.errors import DatasetError, InvalidInput, ProgramError
from gridsched.core.job import Dataset, JobSpec
from gridsched.core.method import Method
from gridsched.remote import Operator
from gridsched.train.dataset import DatasetManifest, write_dataset
from gridsched.train.jobfile import JobFile, load_jobfile
from gridsched.train.program import from_bytes, to_bytes
from gridsched.train.tensors import Array, tensors_to_bytes
from gridsched.train.version import initial_version, owner_tensors, read_version

__all__ = ["Submission", "add_dataset", "fetch", "prepare", "read_table", "submit"]

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
Put = Callable[[bytes], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a job file came to; ``blobs`` by digest are what the daemon must hold before it takes ``spec``."""

    spec: JobSpec
    blobs: Mapping[str, bytes]


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
    wishes, that job gets those. Needs torch.
    """
    job = load_jobfile(path)
    method = replace(job.method, **_given(changes or {}))
    blobs: dict[str, bytes] = {}

    def put(data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return digest

    train, test = job.dataset()
    program, initial, needed_bytes = _export(job, method, train, put)
    manifest = _store_dataset(train, f"{job.name}-train", job.attribution, put)
    held_out = _store_dataset(test, f"{job.name}-test", job.attribution, put) if test else None
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
        **(wishes or {}),
    )
    return Submission(spec=replace(spec, job_id=_id_of(spec)), blobs=blobs)


def _given(changes: Mapping[str, object]) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if value is not None}


def _export(job: JobFile, method: Method, train: Mapping[str, Array], put: Put) -> tuple[str, str, int]:
    """Digests of the program and of version 0, and the bytes of memory that a node needs for a unit."""
    try:
        from gridsched.train.export import export, unit_bytes  # torch, which only owners and nodes have
    except ImportError as error:
        raise ProgramError("tracing a model needs PyTorch; install it with: pip install 'gridsched[train]'") from error
    program, tensors = export(job.model(), job.example_batch(), job.loss)
    size = method.micro_batch or method.batch_size
    batch = {field.name: np.ascontiguousarray(np.resize(train[field.name][:size], (size, *field.shape))) for field in program.fields}
    needed = unit_bytes(program, tensors, batch, method.inner)
    return put(to_bytes(program, tensors)), put(initial_version(program, tensors).to_bytes()), needed


def _store_dataset(fields: Mapping[str, Array], name: str, attribution: str, put: Put) -> DatasetManifest:
    return write_dataset(fields, name=name, shard_samples=_SHARD_SAMPLES, put=put, attribution=attribution)


def _id_of(spec: JobSpec) -> str:
    """From what decides the bits alone; what came after the first release counts where it is set, so that ids stay what they were."""
    content = _without_defaults(msgspec.to_builtins(spec.without_wishes))
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
    """Store what the daemon lacks, then hand the job in. ``progress`` is told the bytes of each stored blob."""
    for data in submission.blobs.values():
        operator.put_blob(data)
        if progress is not None:
            progress(len(data))
    operator.post("/v1/jobs", submission.spec)
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


def fetch(operator: Operator, job_id: str, *, number: int | None = None) -> tuple[bytes, dict[str, Any]]:
    """A version (the newest unless ``number`` is given) as safetensors with the names of ``module.state_dict()``, and its journal row."""
    versions = operator.get(f"/v1/jobs/{job_id}/versions")
    chosen = [v for v in versions if number is None or v["number"] == number]
    if not chosen:
        raise InvalidInput(f"job {job_id} has no version {number}; it has 0 to {len(versions) - 1}")
    row: dict[str, Any] = max(chosen, key=lambda v: v["number"])
    program, _ = from_bytes(operator.get_blob(operator.get(f"/v1/jobs/{job_id}")["spec"]["program"]))
    version = read_version(operator.get_blob(str(row["digest"])))
    return tensors_to_bytes(owner_tensors(program, version)), row


def read_table(path: Path, *, label: str) -> dict[str, Array]:
    """Fields of a dataset from a file: ``.npz`` arrays by name, or a CSV (``.gz`` too) as ``x`` float32 and ``y`` from column ``label``."""
    if not path.is_file():
        raise DatasetError(f"there is no file {path}")
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    names, rows = _csv(path)
    if label not in names:
        raise DatasetError(f"{path} has no column {label!r}; name the label with --label, one of {', '.join(names[-5:])}")
    columns = {name: _numbers([row[place] for row in rows], f"{path}: column {name!r}") for place, name in enumerate(names)}
    labels = columns.pop(label)
    return {"x": np.stack(list(columns.values()), axis=1).astype(np.float32), "y": labels}


def _csv(path: Path) -> tuple[list[str], list[list[str]]]:
    """The header and the rows, every row as long as the header."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
        names, *rows = csv.reader(io.StringIO(text, newline=""))
    except (ValueError, OSError, EOFError, zlib.error, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read as CSV: {error}") from error
    rows = [row for row in rows if row]
    ragged = next((number for number, row in enumerate(rows, start=1) if len(row) != len(names)), None)
    if ragged or len(set(names)) != len(names) or len(names) < 2 or not rows:
        what = f"row {ragged} is not as long as the header" if ragged else "it needs rows below a header of two or more distinct names"
        raise DatasetError(f"{path} cannot be read as a table: {what}")
    return names, rows


def _numbers(cells: Sequence[str], where: str) -> Array:
    """Whole numbers as int64, others as float32."""
    try:
        if all(cell.strip().lstrip("+-").isdecimal() for cell in cells):
            return np.array([int(cell) for cell in cells], dtype=np.int64)
        values = np.array([float(cell) for cell in cells], dtype=np.float32)
    except (ValueError, OverflowError) as error:
        raise DatasetError(f"{where} has text or gaps; a dataset needs numbers in every row") from error
    if not np.isfinite(values).all():
        raise DatasetError(f"{where} has text or gaps; a dataset needs numbers in every row")
    return values
