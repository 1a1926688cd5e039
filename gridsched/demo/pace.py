"""How fast this machine trains, so that the demo's three machines keep to their parts of the day on any machine."""

import time
from collections.abc import Mapping
from statistics import median

import psutil

from gridsched.clock import SystemClock
from gridsched.core.cut import open_round, units_of
from gridsched.core.method import InnerOptimizer
from gridsched.demo.site import SPEED
from gridsched.owner import Submission
from gridsched.train.dataset import Dataset, DatasetManifest
from gridsched.train.program import from_bytes
from gridsched.train.torch_runtime import TorchRuntime
from gridsched.train.unit import UnitRun

__all__ = ["CHANGES", "free_cores", "pace_of", "speed_for", "step_s"]

_WARM, _STEPS = 5, 25
_NEEDED_CORES, _LOOK_S = 1.5, 1.0
CHANGES: Mapping[str, object] = {
    "epochs": 8,
    "batch_size": 8,
    "samples_per_unit": 240,
    "units_per_round": 6,
    "passes": 4,
    "inner": InnerOptimizer(name="sgd", lr=0.01, momentum=0.9, weight_decay=1e-4),
}
"""What the demo changes in the example's method: units long enough to be interrupted in the middle, six to a round and one round an epoch,
so that a fast node does three while a slow one does one."""

REFERENCE_STEP_S = 0.0035


def speed_for(free_cores: float) -> float:
    """How fast the day may pass where so much of the machine is free: at `SPEED` the demo needs one core and a half."""
    return max(SPEED * min(free_cores / _NEEDED_CORES, 1.0), SPEED / 3)


def free_cores() -> float:
    """Processor cores that nothing else is using now."""
    count = psutil.cpu_count() or 1
    return count * (1 - psutil.cpu_percent(interval=_LOOK_S) / 100)


def pace_of(seconds: float, speed: float) -> float:
    """How much more of a processor the machines need than their profiles say: for a slower machine, or a faster day."""
    return seconds / REFERENCE_STEP_S * speed / SPEED


def step_s(job: Submission) -> float:
    """Processor seconds of one training step of ``job``, here."""
    spec = job.spec
    program, tensors = from_bytes(job.blobs[spec.program])
    dataset = Dataset(DatasetManifest.from_bytes(job.blobs[spec.dataset]), job.blobs.__getitem__)
    first = open_round(spec, number=0, base=spec.initial, now=SystemClock().now())
    run = UnitRun(units_of(spec, first)[0].spec, TorchRuntime(program, tensors), dataset, tensors)
    taken = []
    for _ in range(_WARM + _STEPS):
        begun = time.process_time()
        run.step()
        taken.append(time.process_time() - begun)
    return median(taken[_WARM:])
