"""A job whose files are stored, small and real, for a house on a real socket."""

from dataclasses import replace
from typing import Any

from gridsched.core.job import JobSpec
from gridsched.core.method import InnerOptimizer, Method
from gridsched.train.dataset import write_dataset
from gridsched.train.program import to_bytes
from gridsched.train.version import initial_version
from tests.train.builders import SAMPLES, hard_net, samples
from tests.web.conftest import ZONE, House

__all__ = ["INNER", "job_of"]

INNER = InnerOptimizer(lr=0.1, momentum=0.9)


def job_of(house: House, **changes: Any) -> JobSpec:
    """A job that may run."""
    blobs = house.daemon.blobs
    program, tensors = hard_net()
    manifest = write_dataset(samples(), name="train", shard_samples=32, put=blobs.put)
    spec = JobSpec(
        job_id="j", name="j", program=blobs.put(to_bytes(program, tensors)), dataset=blobs.put(manifest.to_bytes()), samples=SAMPLES,
        test_dataset=None, test_samples=0, initial=blobs.put(initial_version(program, tensors).to_bytes()), seed=1,
        method=Method(batch_size=8, inner=INNER), zone=ZONE,
    )  # fmt: skip
    return replace(spec, **changes)
