"""What a work unit costs over a plain PyTorch loop: same model, data, optimizer and thread, interleaved pairs, median ratio.

    python benchmarks/train_unit_loop.py [PAIRS]

Two networks: the digits CNN (examples/image_cnn.py), and a perceptron of 203,530 parameters whose steps take half a
millisecond, so that whatever a unit adds to a step shows. The plain loop is what anybody would write: ``zero_grad``, forward,
loss, ``backward``, ``torch.optim.SGD.step``, with the batch cut from tensors in memory, and the loss summed up. Our side does the
same steps through ``unit.run``, from loading the version to the delta: exported program, lazily opened shards on disk, a shared byte
asked before every step, a sha256 of all parameters every 20 steps. The last line is one JSON object.
"""

import json
import multiprocessing.sharedctypes
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from gridsched.core.method import InnerOptimizer  # noqa: E402 - after the path, so that it runs from a checkout
from gridsched.core.work import UnitKind, UnitSpec  # noqa: E402
from gridsched.train.dataset import Dataset, write_dataset  # noqa: E402
from gridsched.train.export import export  # noqa: E402
from gridsched.train.jobfile import load_jobfile  # noqa: E402
from gridsched.train.tensors import version_digest  # noqa: E402
from gridsched.train.torch_runtime import TorchRuntime  # noqa: E402
from gridsched.train.unit import run  # noqa: E402

GOAL = 1.01
PAIRS = 31
UNUSED = "0" * 64
INNER = InnerOptimizer(lr=0.01, momentum=0.9)


@dataclass(frozen=True)
class Net:
    """A network, its loss and its samples; ``batch_size`` of them make a step."""

    name: str
    model: Callable[[], nn.Module]
    loss: Callable[..., torch.Tensor]
    example: Mapping[str, torch.Tensor]
    fields: Mapping[str, np.ndarray]
    batch_size: int


def digits_cnn() -> Net:
    job = load_jobfile(ROOT / "examples" / "image_cnn.py")
    return Net("CNN, 21,578 parameters", job.model, job.loss, job.example_batch(), job.dataset()[0], job.method.batch_size)


def perceptron() -> Net:
    """[batch, 784] -> 256 -> 10 logits, on noise: what the samples are does not change the time."""
    draw = np.random.default_rng(0)
    fields = {"input": draw.normal(size=(12_800, 784)).astype(np.float32), "y": draw.integers(0, 10, 12_800)}
    example = {"input": torch.zeros(2, 784), "y": torch.zeros(2, dtype=torch.int64)}

    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))

    return Net("MLP, 203,530 parameters", model, lambda outputs, batch: functional.cross_entropy(outputs, batch["y"]), example, fields, 32)


def plain_loop(net: Net) -> Callable[[], float]:
    """One epoch of plain PyTorch; returns its seconds."""
    fields = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in net.fields.items()}
    (given,) = [name for name in fields if name != "y"]
    model = net.model()
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=INNER.lr, momentum=INNER.momentum)

    def epoch() -> float:
        began = time.perf_counter()
        chosen = torch.randperm(len(fields["y"]))
        total = 0.0
        for start in range(0, len(chosen), net.batch_size):
            picked = chosen[start : start + net.batch_size]
            batch = {name: field[picked] for name, field in fields.items()}
            optimizer.zero_grad()
            loss = net.loss(model(batch[given]), batch)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(picked)
        return time.perf_counter() - began

    return epoch


def unit_loop(net: Net, folder: Path) -> Callable[[], float]:
    """One epoch as one work unit, from loading the version to the delta; returns its seconds."""

    def put(data: bytes) -> str:
        digest = version_digest(data)
        (folder / digest).write_bytes(data)
        return digest

    dataset = Dataset(write_dataset(dict(net.fields), name="samples", shard_samples=4096, put=put), lambda digest: folder / digest)
    program, tensors = export(net.model(), net.example, net.loss)
    runtime = TorchRuntime(program, tensors)
    go_on = multiprocessing.sharedctypes.RawValue("b", 1)
    spec = UnitSpec(
        unit_id="unit",
        job_id="job",
        kind=UnitKind.TRAIN,
        program=UNUSED,
        dataset=UNUSED,
        base=UNUSED,
        version=0,
        epoch=0,
        start=0,
        stop=dataset.samples,
        batch_size=net.batch_size,
        passes=1,
        seed=0,
        inner=INNER,
    )

    def epoch() -> float:
        began = time.perf_counter()
        run(spec, runtime, dataset, tensors, may_go_on=lambda: go_on.value == 1)
        return time.perf_counter() - began

    return epoch


def ratios(net: Net, pairs: int) -> list[float]:
    """Ours to plain, pair by pair; whoever goes second finds warmer caches, so they take turns."""
    with tempfile.TemporaryDirectory() as folder:
        plain, ours = plain_loop(net), unit_loop(net, Path(folder))
        plain(), ours()  # warm up both
        found = []
        for index in range(pairs):
            first, second = (plain, ours) if index % 2 == 0 else (ours, plain)
            times = {first: first(), second: second()}
            found.append(times[ours] / times[plain])
            print(f"{net.name}, pair {index + 1:2}/{pairs}: plain {times[plain]:.3f} s, unit {times[ours]:.3f} s, ratio {found[-1]:.3f}")
    return found


def main() -> None:
    """Time the pairs and print the verdict."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS
    torch.set_num_threads(1)
    runs = {net.name: ratios(net, pairs) for net in (digits_cnn(), perceptron())}
    medians = {name: round(statistics.median(found), 4) for name, found in runs.items()}
    worst = max(medians.values())
    print(
        json.dumps(
            {
                "name": "train_unit_loop",
                "value": worst,
                "unit": "ratio to a plain PyTorch loop, the worse of two networks",
                "goal": GOAL,
                "reached": worst <= GOAL,
                "medians": medians,
                "load_at_the_end": round(os.getloadavg()[0], 2),
                "peers": {"plain PyTorch loop": 1.0},
                "runs": {name: [round(value, 4) for value in found] for name, found in runs.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
