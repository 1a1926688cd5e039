"""What the tests of training share: a small network with everything that makes resuming hard, its data, and specs."""

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from gridsched.core.method import InnerOptimizer
from gridsched.core.work import UnitKind, UnitSpec
from gridsched.train.dataset import Dataset, write_dataset
from gridsched.train.export import export
from gridsched.train.jobfile import JobFile, load_jobfile
from gridsched.train.program import Program, from_bytes, to_bytes
from gridsched.train.tensors import Array, version_digest
from gridsched.train.torch_runtime import TorchRuntime
from gridsched.train.unit import Outcome

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SAMPLES = 70
UNUSED = "0" * 64


class HardNet(nn.Module):
    """[batch, 1, 4, 4] -> [batch, 3]: draws at random, and keeps statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.3)
        self.out = nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.drop(functional.relu(self.norm(self.conv(x))).flatten(1))
        outputs: torch.Tensor = self.out(hidden)
        return outputs


def cross_entropy(outputs: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return functional.cross_entropy(outputs, batch["y"])


@functools.cache
def hard_net() -> tuple[Program, dict[str, Array]]:
    """``HardNet`` exported, written and read back."""
    torch.manual_seed(3)
    batch = {"x": torch.zeros(2, 1, 4, 4), "y": torch.zeros(2, dtype=torch.int64)}
    return from_bytes(to_bytes(*export(HardNet(), batch, cross_entropy)))


def hard_runtime() -> TorchRuntime:
    return TorchRuntime(*hard_net())


def samples() -> dict[str, Array]:
    draw = np.random.default_rng(5)
    return {"x": draw.normal(size=(SAMPLES, 1, 4, 4)).astype(np.float32), "y": draw.integers(0, 3, SAMPLES)}


def dataset_of(fields: Mapping[str, Array], *, shard_samples: int = 32) -> Dataset:
    stored: dict[str, bytes] = {}

    def put(data: bytes) -> str:
        digest = version_digest(data)
        stored[digest] = data
        return digest

    return Dataset(write_dataset(fields, name="samples", shard_samples=shard_samples, put=put), stored.__getitem__)


def unit_spec(**changes: Any) -> UnitSpec:
    spec = UnitSpec(
        unit_id="u1",
        job_id="job",
        kind=UnitKind.TRAIN,
        program=UNUSED,
        dataset=UNUSED,
        base=UNUSED,
        version=0,
        epoch=2,
        start=5,
        stop=60,
        batch_size=8,
        passes=2,
        seed=11,
        inner=InnerOptimizer(lr=0.05, momentum=0.9),
        digest_every=4,
    )
    return replace(spec, **changes)


@functools.cache
def example(name: str) -> JobFile:
    return load_jobfile(EXAMPLES / f"{name}.py")


@functools.cache
def exported_example(name: str) -> tuple[Program, dict[str, Array]]:
    """An example's program, written and read back; tracing takes seconds, so once."""
    job = example(name)
    return from_bytes(to_bytes(*export(job.model(), job.example_batch(), job.loss)))


def outcome_bits(outcome: Outcome) -> tuple[object, ...]:
    """All that must be equal between two runs of one unit."""
    delta = {name: (array.dtype.name, array.shape, array.tobytes()) for name, array in outcome.delta.items()}
    return outcome.finished, outcome.metrics, outcome.digests, delta
