"""What a work unit costs over a plain PyTorch loop: same model, data, optimizer and thread, interleaved pairs, median ratio.

    python benchmarks/trainer_overhead.py [PAIRS]

Both sides train one epoch of the digits network (examples/image_cnn.py). The plain loop is what anybody would write:
``zero_grad``, forward, loss, ``backward``, ``torch.optim.SGD.step``, with the batch cut from tensors in memory, and the loss
summed up. Our side does the same steps through ``unit.run``: exported program, lazily opened shards on disk, a shared byte
asked before every step, a digest of all parameters every 20 steps. The last line is one JSON object.
"""

import json
import multiprocessing.sharedctypes
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from gridsched.core.work import UnitKind, UnitSpec  # noqa: E402 - after the path, so that it runs from a checkout
from gridsched.train.dataset import Dataset, write_dataset  # noqa: E402
from gridsched.train.export import export  # noqa: E402
from gridsched.train.jobfile import JobFile, load_jobfile  # noqa: E402
from gridsched.train.tensors import version_digest  # noqa: E402
from gridsched.train.torch_runtime import TorchRuntime  # noqa: E402
from gridsched.train.unit import run  # noqa: E402

GOAL = 1.02


def plain_loop(job: JobFile) -> Callable[[], float]:
    """One epoch of plain PyTorch; returns its seconds."""
    train, _ = job.dataset()
    fields = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in train.items()}
    model, inner = job.model(), job.method.inner
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=inner.lr, momentum=inner.momentum, weight_decay=inner.weight_decay)
    size = job.method.batch_size

    def epoch() -> float:
        began = time.perf_counter()
        chosen = torch.randperm(len(fields["y"]))
        total = 0.0
        for start in range(0, len(chosen), size):
            picked = chosen[start : start + size]
            batch = {name: field[picked] for name, field in fields.items()}
            optimizer.zero_grad()
            loss = job.loss(model(batch["x"]), batch)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(picked)
        return time.perf_counter() - began

    return epoch


def unit_loop(job: JobFile, folder: Path) -> Callable[[], float]:
    """One epoch as one work unit, from loading the version to the delta; returns its seconds."""

    def put(data: bytes) -> str:
        digest = version_digest(data)
        (folder / digest).write_bytes(data)
        return digest

    train, _ = job.dataset()
    manifest = write_dataset(dict(train), name="digits", shard_samples=512, put=put)
    dataset = Dataset(manifest, lambda digest: folder / digest)
    program, tensors = export(job.model(), job.example_batch(), job.loss)
    runtime = TorchRuntime(program, tensors)
    go_on = multiprocessing.sharedctypes.RawValue("b", 1)
    unused = "0" * 64
    spec = UnitSpec(
        unit_id="unit",
        job_id="job",
        kind=UnitKind.TRAIN,
        program=unused,
        dataset=unused,
        base=unused,
        version=0,
        epoch=0,
        start=0,
        stop=dataset.samples,
        batch_size=job.method.batch_size,
        passes=1,
        seed=0,
        inner=job.method.inner,
    )

    def epoch() -> float:
        began = time.perf_counter()
        run(spec, runtime, dataset, tensors, may_go_on=lambda: go_on.value == 1)
        return time.perf_counter() - began

    return epoch


def main() -> None:
    """Time the pairs and print the verdict."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 31
    torch.set_num_threads(1)
    job = load_jobfile(ROOT / "examples" / "image_cnn.py")
    with tempfile.TemporaryDirectory() as folder:
        plain, ours = plain_loop(job), unit_loop(job, Path(folder))
        plain(), ours()  # warm up both
        runs = []
        for index in range(pairs):
            # Whoever goes second finds warmer caches: take turns.
            first, second = (plain, ours) if index % 2 == 0 else (ours, plain)
            times = {first: first(), second: second()}
            runs.append(times[ours] / times[plain])
            print(f"pair {index + 1:2}/{pairs}: plain {times[plain]:.3f} s, unit {times[ours]:.3f} s, ratio {runs[-1]:.3f}", flush=True)
    ratio = round(statistics.median(runs), 4)
    print(
        json.dumps(
            {
                "name": "trainer_overhead",
                "value": ratio,
                "unit": "ratio to a plain PyTorch loop",
                "goal": GOAL,
                "reached": ratio <= GOAL,
                "peers": {"plain PyTorch loop": 1.0},
                "runs": [round(value, 4) for value in runs],
            }
        )
    )


if __name__ == "__main__":
    main()
