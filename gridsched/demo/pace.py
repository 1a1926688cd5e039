"""How fast this machine trains, so that the demo's three machines keep to their parts of the day on any machine."""

import time
from collections.abc import Mapping
from dataclasses import replace
from statistics import median

from gridsched.core.job import InnerOptimizer, Method
from gridsched.core.work import UnitKind, UnitSpec
from gridsched.demo.site import SPEED
from gridsched.train.dataset import Dataset, write_dataset
from gridsched.train.graph import Program
from gridsched.train.jobfile import JobFile
from gridsched.train.tensors import Array
from gridsched.train.torch_runtime import TorchRuntime
from gridsched.train.unit import UnitRun

__all__ = ["METHOD", "for_demo", "pace_of", "step_s"]

METHOD = Method(
    epochs=8,
    batch_size=16,
    samples_per_unit=240,
    units_per_round=6,
    passes=8,
    inner=InnerOptimizer(name="sgd", lr=0.003, momentum=0.9, weight_decay=1e-4),
)
"""Federated averaging with one round an epoch: six units, so that a fast node does three while a slow one does one."""

REFERENCE_STEP_S = 0.0045
_WARM, _STEPS = 5, 25


def for_demo(job: JobFile) -> JobFile:
    """The example's network and data, trained in units long enough to be interrupted in the middle."""
    return replace(job, method=METHOD)


def pace_of(seconds: float, speed: float) -> float:
    """How much more of a processor the machines need than their profiles say: for a slower machine, or a faster day."""
    return seconds / REFERENCE_STEP_S * speed / SPEED


def step_s(program: Program, tensors: Mapping[str, Array], samples: Mapping[str, Array]) -> float:
    """Processor seconds of one training step of the demo's job, here."""
    blobs: dict[str, bytes] = {}

    def put(data: bytes) -> str:
        name = str(len(blobs))
        blobs[name] = data
        return name

    dataset = Dataset(write_dataset(samples, name="pace", shard_samples=512, put=put), blobs.__getitem__)
    unit = UnitSpec(
        unit_id="pace",
        job_id="pace",
        kind=UnitKind.TRAIN,
        program="",
        dataset="",
        base="",
        version=0,
        epoch=0,
        start=0,
        stop=METHOD.samples_per_unit,
        batch_size=METHOD.batch_size,
        passes=METHOD.passes,
        seed=0,
        inner=METHOD.inner,
    )
    run = UnitRun(unit, TorchRuntime(program, tensors), dataset, tensors)
    taken = []
    for _ in range(_WARM + _STEPS):
        begun = time.process_time()
        run.step()
        taken.append(time.process_time() - begun)
    return median(taken[_WARM:])
