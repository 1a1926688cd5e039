"""What is looked at before a job or a dataset is taken in: everything it names must be stored, readable and fit together."""

import logging
import math
from collections.abc import Mapping

from gridsched.core.errors import DatasetError, GridschedError, InvalidInput, NotFound
from gridsched.core.job import WASM, Dataset, JobSpec, is_digest
from gridsched.core.method import Precision
from gridsched.ports import Blobs
from gridsched.train.dataset import DatasetManifest
from gridsched.train.graph import Program, model_tensors
from gridsched.train.merge import tensor_spec
from gridsched.train.plan import plan_of
from gridsched.train.program import from_bytes
from gridsched.train.version import read_version

__all__ = ["LONGEST_UNIT", "check_dataset", "check_job", "wasm_lacks"]

log = logging.getLogger(__name__)

LONGEST_UNIT = 2_000_000
"""Steps. A unit is handed in with a parameter digest for every few of them, all in one message that must have an end."""

_MOST = 10**9
_LONGEST_S = 10 * 365 * 24 * 3600
_STEEPEST = 4
_MOST_UNITS = 10_000  # a round's units are inserted in one transaction, while everybody else waits


def check_dataset(dataset: Dataset, blobs: Blobs) -> None:
    """Raise where the manifest or one of its shards is not stored, or the numbers do not agree."""
    _manifest(dataset.digest, blobs, what=f"dataset {dataset.name}", samples=dataset.samples)


def check_job(spec: JobSpec, blobs: Blobs) -> int:
    """Raise, by name, where the job could not run; the size of its initial version in bytes."""
    what = f"job {spec.job_id}"
    _check_numbers(spec, what)
    _check_length(spec, what)
    program, _ = from_bytes(_stored(spec.program, blobs, what=f"{what}: program"))
    train = _manifest(spec.dataset, blobs, what=f"{what}: dataset", samples=spec.samples)
    _check_fields(train, program, f"{what}: dataset")
    if spec.test_dataset is not None:
        test = _manifest(spec.test_dataset, blobs, what=f"{what}: test dataset", samples=spec.test_samples)
        _check_fields(test, program, f"{what}: test dataset")
    data = _stored(spec.initial, blobs, what=f"{what}: initial version")
    _check_initial(data, program, what)
    return len(data)


def wasm_lacks(spec: JobSpec, blobs: Blobs) -> str:
    """What the wasm runtime lacks for a job that `check_job` has let pass, in a sentence; "" where it covers it.

    Raises `InvalidInput` where the owner asks for that runtime and it does not.
    """
    lacking = "it computes in float32 alone, and the job in mixed precision" if spec.method.precision is Precision.MIXED else ""
    lacking = lacking or _cannot_plan(spec, blobs)
    if lacking and spec.runtime and spec.runtime.startswith(WASM.rstrip("-")):
        raise InvalidInput(f"job {spec.job_id} asks for the runtime {spec.runtime}, which does not cover it: {lacking}")
    return lacking


def _cannot_plan(spec: JobSpec, blobs: Blobs) -> str:
    """Planning is what shows: every operator, and whether all of it fits into the 4 GiB that WebAssembly has."""
    method = spec.method
    try:
        program, _ = from_bytes(blobs.get(spec.program))
        for kind in ("train", "evaluate"):
            plan_of(program, kind=kind, batch=method.micro_batch or method.batch_size, inner=method.inner)
    except GridschedError as error:
        return str(error)
    except Exception:  # a planner's bug must not keep a job from the runtime that can train it
        log.exception("job %s could not be planned for the wasm runtime", spec.job_id, extra={"action": "plan_failed", "job": spec.job_id})
        return "its plan could not be made; the daemon's log has the story"
    return ""


def _check_numbers(spec: JobSpec, what: str) -> None:
    method = spec.method
    bounds: Mapping[str, tuple[int, int]] = {
        "samples": (spec.samples, _MOST),
        "test_samples": (spec.test_samples, _MOST),
        "epochs": (method.epochs, _MOST),
        "batch_size": (method.batch_size, _MOST),
        "samples_per_unit": (method.samples_per_unit, _MOST),
        "passes": (method.passes, _MOST),
        "units_per_round": (method.units_per_round, _MOST_UNITS),
        "quorum": (method.quorum, _MOST_UNITS),
        "max_staleness": (method.max_staleness, _MOST),
        "micro_batch": (method.micro_batch, _MOST),
        "parts": (len(spec.parts), _MOST_UNITS),
        "member": (spec.member, _MOST),
        "seed": (spec.seed, 2**63 - 1),
        "memory_bytes": (spec.memory_bytes, 2**62),
    }
    for name, (value, most) in bounds.items():
        if not 0 <= value <= most:
            raise InvalidInput(f"{what}: {name} must lie between 0 and {most}, got {value}")
    _check_waits(spec, what)
    for name in ("part", "bag"):
        if not -1 <= getattr(spec, name) <= _MOST:
            raise InvalidInput(f"{what}: {name} must lie between 0 and {_MOST}, or be -1 for none, got {getattr(spec, name)}")
    if abs(spec.priority) > _MOST:
        raise InvalidInput(f"{what}: priority must lie between {-_MOST} and {_MOST}, got {spec.priority}")
    if spec.deadline is not None and spec.deadline.tzinfo is None:
        raise InvalidInput(f"{what}: deadline {spec.deadline.isoformat()} has no UTC offset; add Z or +01:00")


def _check_length(spec: JobSpec, what: str) -> None:
    """How long a unit over a node's own data is, that node alone knows; it is handed in without its digests where they are too many."""
    method = spec.method
    samples = max(spec.parts) if spec.parts and spec.part < 0 else min(spec.unit_samples, spec.epoch_samples)
    steps = math.ceil(samples / method.batch_size) * method.passes
    if steps > LONGEST_UNIT and not spec.local:
        raise InvalidInput(
            f"{what}: a unit of {steps} steps is longer than the {LONGEST_UNIT} that can be handed in; "
            "lower passes or samples_per_unit, or raise batch_size or units_per_round"
        )


def _check_waits(spec: JobSpec, what: str) -> None:
    """What bounds how long a round waits must be a time, and fit the data."""
    method = spec.method
    for name in ("unit_seconds", "grace_s"):
        if getattr(method, name) > _LONGEST_S:
            raise InvalidInput(f"{what}: {name} must be at most {_LONGEST_S} s, got {getattr(method, name):g}")
    if method.staleness_power > _STEEPEST:
        raise InvalidInput(f"{what}: staleness_power must be at most {_STEEPEST}, beyond which a late update counts for nothing")
    if method.quorum and spec.local:
        raise InvalidInput(f"{what}: a round over nodes' own data takes one unit of each; leave quorum out, and bound the wait by grace_s")


def _check_fields(manifest: DatasetManifest, program: Program, what: str) -> None:
    fields = {field.name: (field.dtype, field.shape) for field in manifest.fields}
    for needed in program.fields:
        if needed.name not in fields:
            raise DatasetError(f"{what} has no field {needed.name!r}, which the program reads; it has {', '.join(sorted(fields))}")
        dtype, shape = fields[needed.name]
        if (dtype, shape) != (needed.dtype, needed.shape):
            raise DatasetError(f"{what}: field {needed.name!r} is {dtype} of {shape}, the program wants {needed.dtype} of {needed.shape}")


def _check_initial(data: bytes, program: Program, what: str) -> None:
    version = read_version(data)
    wanted = {name: program.spec(name) for name in model_tensors(program)}
    if odd := set(version.tensors) ^ set(wanted):
        raise InvalidInput(f"{what}: the initial version and the program differ in tensor {min(odd)!r}; submit both from one export")
    for name, (dtype, shape) in tensor_spec(version.tensors).items():
        if (wanted[name].dtype, wanted[name].shape) != (dtype, shape):
            raise InvalidInput(
                f"{what}: tensor {name!r} is {dtype} of {shape}, the program wants {wanted[name].dtype} of {wanted[name].shape}"
            )
    if version.buffers != frozenset(program.names("buffer")):
        raise InvalidInput(f"{what}: the initial version and the program differ in which tensors are buffers; submit both from one export")


def _manifest(digest: str, blobs: Blobs, *, what: str, samples: int) -> DatasetManifest:
    manifest = DatasetManifest.from_bytes(_stored(digest, blobs, what=what))
    missing = [shard.digest for shard in manifest.shards if not blobs.has(shard.digest)]
    if missing:
        raise DatasetError(f"{what}: {len(missing)} of {len(manifest.shards)} shards are not stored, first {missing[0]}; upload them first")
    if manifest.samples != samples:
        raise DatasetError(f"{what} is said to have {samples} samples, its manifest has {manifest.samples}")
    return manifest


def _stored(digest: str, blobs: Blobs, *, what: str) -> bytes:
    if not is_digest(digest):
        raise InvalidInput(f"{what}: {digest[:80]!r} is not a digest; a blob is named by its sha256 in lower-case hexadecimal")
    try:
        return blobs.get(digest)
    except NotFound as error:
        raise InvalidInput(f"{what} {digest[:12]} is not stored; upload it first") from error
