"""What is looked at before a job or a dataset is taken in: everything it names must be stored, readable and fit together."""

from gridsched.core.errors import DatasetError, InvalidInput, NotFound
from gridsched.core.job import Dataset, JobSpec
from gridsched.ports import Blobs
from gridsched.train.dataset import DatasetManifest
from gridsched.train.merge import tensor_spec
from gridsched.train.program import from_bytes, model_tensors
from gridsched.train.version import read_version

__all__ = ["check_dataset", "check_job"]


def check_dataset(dataset: Dataset, blobs: Blobs) -> None:
    """Raise where the manifest or one of its shards is not stored, or the numbers do not agree."""
    manifest = _manifest(dataset.digest, blobs, what=f"dataset {dataset.name}")
    if manifest.samples != dataset.samples:
        raise DatasetError(f"dataset {dataset.name} says {dataset.samples} samples, its manifest has {manifest.samples}")


def check_job(spec: JobSpec, blobs: Blobs) -> int:
    """Raise, by name, where the job could not run; the size of its initial version in bytes."""
    what = f"job {spec.job_id}"
    train = _manifest(spec.dataset, blobs, what=f"{what}: dataset")
    if train.samples != spec.samples:
        raise DatasetError(f"{what} says {spec.samples} samples, its dataset has {train.samples}")
    if spec.test_dataset is not None:
        test = _manifest(spec.test_dataset, blobs, what=f"{what}: test dataset")
        if test.samples != spec.test_samples:
            raise DatasetError(f"{what} says {spec.test_samples} test samples, its test dataset has {test.samples}")
    program, _ = from_bytes(_stored(spec.program, blobs, what=f"{what}: program"))
    data = _stored(spec.initial, blobs, what=f"{what}: initial version")
    model = tensor_spec(read_version(data).tensors)
    wanted = {name: program.spec(name) for name in model_tensors(program)}
    if set(read_version(data).tensors) != set(wanted):
        odd = min(set(read_version(data).tensors) ^ set(wanted))
        raise InvalidInput(f"{what}: the initial version and the program differ in tensor {odd!r}; submit both from one export")
    for name, (dtype, shape) in model.items():
        if (wanted[name].dtype, wanted[name].shape) != (dtype, shape):
            raise InvalidInput(
                f"{what}: tensor {name!r} is {dtype} of {shape}, the program wants {wanted[name].dtype} of {wanted[name].shape}"
            )
    return len(data)


def _manifest(digest: str, blobs: Blobs, *, what: str) -> DatasetManifest:
    manifest = DatasetManifest.from_bytes(_stored(digest, blobs, what=what))
    for shard in manifest.shards:
        if not blobs.has(shard.digest):
            raise DatasetError(f"{what}: shard {shard.digest[:12]} is not stored; upload it first")
    return manifest


def _stored(digest: str, blobs: Blobs, *, what: str) -> bytes:
    try:
        return blobs.get(digest)
    except NotFound as error:
        raise InvalidInput(f"{what} {digest[:12]} is not stored; upload it first") from error
