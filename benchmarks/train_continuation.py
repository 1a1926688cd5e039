"""What saving costs the training, and how long a node takes from its start, or from an order, to its first step.

    python benchmarks/train_continuation.py [REPEATS]

**Saving.** Perceptrons of 0.2, 1.7 and 25 million parameters train under SGD with momentum and under AdamW. Again and again the
worker's own `Saver` takes one continuation and writes it durably in its thread; the steps from there until it is written, copy
included, are set against as many undisturbed ones right after them. The difference is what one continuation costs, and its share of
the time at an interval is that cost by the interval, or by the longer one that the saver keeps of itself where saving takes long.

**Starting.** A training process is started as its agent starts it, and given a unit of one step: until it is ready, and from the
order to the finished and stored update, cold and then warm with another unit. ``import torch`` alone, in turns with it, is the
yardstick. The last line is one JSON object.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from gridsched.core.method import InnerOptimizer  # noqa: E402 - after the path, so that it runs from a checkout
from gridsched.core.work import UnitKind, UnitSpec  # noqa: E402
from gridsched.node.pipe import Done, Event, Failed, Gate, Ready, Train, event, line  # noqa: E402
from gridsched.node.saver import MOST_OF_THE_TIME, Saver  # noqa: E402
from gridsched.node.state import Home  # noqa: E402
from gridsched.train.checkpoint import save_continuation  # noqa: E402
from gridsched.train.dataset import Dataset, DatasetManifest, write_dataset  # noqa: E402
from gridsched.train.export import export  # noqa: E402
from gridsched.train.program import Program, constants, to_bytes  # noqa: E402
from gridsched.train.tensors import Array, version_digest  # noqa: E402
from gridsched.train.torch_runtime import TorchRuntime  # noqa: E402
from gridsched.train.unit import Continuation, UnitRun  # noqa: E402
from gridsched.train.version import initial_version  # noqa: E402

GOAL_SHARE = 0.01
INTERVAL_S = 10.0
INTERVALS_S = (1.0, 5.0, INTERVAL_S)
WIDTHS = {"0.2 M": 256, "1.7 M": 1_000, "25 M": 4_660}
OPTIMIZERS = (InnerOptimizer(lr=0.01, momentum=0.9), InnerOptimizer(name="adamw", lr=1e-3))
SAMPLES, BATCH = 2_048, 32


def perceptron(width: int) -> tuple[Program, dict[str, Array]]:
    """[batch, 784] -> width (-> width, unless small) -> 10 logits, exported."""
    torch.manual_seed(0)
    inner = [nn.Linear(width, width), nn.ReLU()] if width > 256 else []
    model = nn.Sequential(nn.Linear(784, width), nn.ReLU(), *inner, nn.Linear(width, 10))
    example = {"input": torch.zeros(2, 784), "y": torch.zeros(2, dtype=torch.int64)}
    return export(model, example, lambda outputs, batch: functional.cross_entropy(outputs, batch["y"]))


def store(folder: Path, program: Program, tensors: dict[str, Array]) -> UnitSpec:
    """A unit of very many steps whose blobs lie in ``folder``; the samples are noise."""

    def put(data: bytes) -> str:
        (folder / version_digest(data)).write_bytes(data)
        return version_digest(data)

    draw = np.random.default_rng(0)
    fields = {"input": draw.normal(size=(SAMPLES, 784)).astype(np.float32), "y": draw.integers(0, 10, SAMPLES)}
    manifest = write_dataset(fields, name="noise", shard_samples=SAMPLES, put=put)
    return UnitSpec(
        unit_id="u0",
        job_id="job",
        kind=UnitKind.TRAIN,
        program=put(to_bytes(program, constants(program, tensors))),
        dataset=put(manifest.to_bytes()),
        base=put(initial_version(program, tensors).to_bytes()),
        version=0,
        epoch=0,
        start=0,
        stop=SAMPLES,
        batch_size=BATCH,
        passes=10_000,
        seed=0,
        inner=OPTIMIZERS[0],
        digest_every=10**9,
    )


def costs(name: str, inner: InnerOptimizer, repeats: int) -> dict[str, object]:
    """Seconds of the training that one continuation costs, and their share of the time at the intervals."""
    with tempfile.TemporaryDirectory() as folder:
        program, tensors = perceptron(WIDTHS[name])
        spec = replace(store(Path(folder), program, tensors), inner=inner)
        manifest = DatasetManifest.from_bytes((Path(folder) / spec.dataset).read_bytes())
        unit = UnitRun(spec, TorchRuntime(program, tensors), Dataset(manifest, lambda digest: Path(folder) / digest), tensors)
        for _ in range(5):
            unit.step()
        found = [_one(unit, Path(folder) / "work") for _ in range(repeats + 1)][1:]
    cost_s, copy_s, write_s, step_s = (statistics.median(column) for column in zip(*found, strict=True))
    shares = {f"{every_s:g} s": round(max(cost_s, 0.0) / max(every_s, (copy_s + write_s) / MOST_OF_THE_TIME), 5) for every_s in INTERVALS_S}
    told = {"step_s": step_s, "copy_s": copy_s, "write_processor_s": write_s, "cost_s": cost_s}
    print(f"{name}, {inner.name}: {', '.join(f'{what} {value:.4f}' for what, value in told.items())}, shares {shares}", flush=True)
    return {what: round(value, 5) for what, value in told.items()} | {"share_every": shares}


def _one(unit: UnitRun, folder: Path) -> tuple[float, float, float, float]:
    """Cost of one continuation, the copy and the processor time of the writing in it, and an undisturbed step; all in seconds."""
    writing: list[float] = []

    def save(folder: Path, saved: Continuation) -> Path:
        began = time.thread_time()
        path = save_continuation(folder, saved)
        writing.append(time.thread_time() - began)
        return path

    saver = Saver(folder, save, every_s=0.0)
    began = time.perf_counter()
    saver.offer(unit.save)
    copied = time.perf_counter()
    steps = 0
    while saver.busy or not steps:
        unit.step()
        steps += 1
    disturbed_s = time.perf_counter() - began
    began_again = time.perf_counter()
    for _ in range(steps):
        unit.step()
    peaceful_s = time.perf_counter() - began_again
    return disturbed_s - peaceful_s, copied - began, writing[0], peaceful_s / steps


class Child:
    """A training process, started as the agent does."""

    def __init__(self, home: Home) -> None:
        command = [sys.executable, "-m", "gridsched.node.worker", str(home.folder), "--priority", "normal"]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)

    def hear(self, *kinds: type[Event]) -> Event:
        """The next of these; what it says before is passed over."""
        while not isinstance(found := event(self._child.stdout.readline()), kinds):
            pass
        assert not isinstance(found, Failed), found
        return found

    def train(self, run: int, spec: UnitSpec) -> None:
        """Have a unit done."""
        self._child.stdin.write(line(Train(run=run, unit=spec)))
        self._child.stdin.flush()
        self.hear(Done, Failed)

    def end(self) -> None:
        """Let it end, and wait for that."""
        self._child.communicate()


def starts(repeats: int) -> dict[str, float]:
    """Median seconds of each part of a start."""
    found: dict[str, list[float]] = {"import torch alone": [], "start to ready": [], "cold order to update": [], "warm order to update": []}
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        home.make()
        home.blobs.mkdir()
        program, tensors = perceptron(WIDTHS["0.2 M"])
        spec = replace(store(home.blobs, program, tensors), stop=BATCH, passes=1)
        with Gate(home.gate, owner=True) as gate:
            gate.let()
            for _ in range(repeats):
                found["import torch alone"].append(_seconds(lambda: subprocess.run([sys.executable, "-c", "import torch"], check=True)))
                began = time.perf_counter()
                child = Child(home)
                child.hear(Ready)
                found["start to ready"].append(time.perf_counter() - began)
                found["cold order to update"].append(_seconds(lambda child=child: child.train(1, spec)))
                found["warm order to update"].append(_seconds(lambda child=child: child.train(2, replace(spec, unit_id="u1", seed=1))))
                child.end()
    medians = {name: round(statistics.median(values), 4) for name, values in found.items()}
    print(", ".join(f"{name} {value:.3f} s" for name, value in medians.items()), flush=True)
    return medians


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    torch.set_num_threads(1)
    saving = {f"{name}, {inner.name}": costs(name, inner, repeats) for name in WIDTHS for inner in OPTIMIZERS}
    worst = max(found["share_every"][f"{INTERVAL_S:g} s"] for found in saving.values())
    print(
        json.dumps(
            {
                "name": "train_continuation",
                "value": worst,
                "unit": f"share of training time that continuations every {INTERVAL_S:g} s cost, worst of {len(saving)}",
                "goal": GOAL_SHARE,
                "reached": worst <= GOAL_SHARE,
                "saving": saving,
                "starting_s": starts(max(repeats // 2, 1)),
                "load_at_the_end": round(os.getloadavg()[0], 2),
            }
        )
    )


if __name__ == "__main__":
    main()
