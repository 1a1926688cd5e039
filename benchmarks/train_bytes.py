"""Bytes a node sends and receives to reach a loss, against synchronous data parallel: same network, samples and order of magnitude of work.

    python benchmarks/train_bytes.py [--seeds 5] [--epochs 10] [--method '{"codec": "int8"}']

Fashion-MNIST, 784 -> 200 -> 200 -> 10 (199,210 parameters), four workers with batches of 32. Data parallel is what anybody would
write: one optimizer over batches of 4 x 32; every worker sends its gradient and receives the sum in float32 at every step, and
nothing else is counted. Ours is the preset ``diloco`` (``--method`` changes it) on the product's own path in one process: units cut
by ``core.cut`` and run by ``unit.run``, updates as they are sent, versions and steps as they are merged; counted are the files,
headers and scales and all, that a node moves which is there from the beginning. Both download version 0. Both see every sample
once per epoch, and the test loss after the last epoch counts. It is reached where the mean over the seeds is not above data
parallel's by more than one standard deviation of data parallel's over the seeds. The last line is one JSON object.
"""

import argparse
import json
import os
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import torch
from torch import nn
from torch.nn import functional

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from gridsched.core.cut import evaluation_unit, open_round, total_rounds, units_of  # noqa: E402 - after the path, to run from a checkout
from gridsched.core.job import JobSpec  # noqa: E402
from gridsched.core.method import Method  # noqa: E402
from gridsched.core.round import Version as Row  # noqa: E402
from gridsched.train.codec import encode_update  # noqa: E402
from gridsched.train.dataset import Dataset, write_dataset  # noqa: E402
from gridsched.train.export import export  # noqa: E402
from gridsched.train.images import Fields, fashion_mnist  # noqa: E402
from gridsched.train.jobfile import method_from  # noqa: E402
from gridsched.train.merge import merge_version  # noqa: E402
from gridsched.train.tensors import version_digest  # noqa: E402
from gridsched.train.torch_runtime import TorchRuntime  # noqa: E402
from gridsched.train.unit import run  # noqa: E402
from gridsched.train.version import initial_version, read_version  # noqa: E402

GOAL = 2000
WORKERS, BATCH = 4, 32
NOW = datetime(2026, 1, 1, tzinfo=UTC)  # nothing here depends on when it is done
UNUSED = "0" * 64


def network(seed: int) -> nn.Module:
    """Version 0."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10))


def loss(outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross entropy."""
    return functional.cross_entropy(outputs, batch["y"])


def data_parallel(seed: int, method: Method, train: Fields, test: Fields) -> tuple[float, int]:
    """Test loss at the end, and the bytes that one of the workers has moved."""
    model, inner = network(seed), method.inner
    kind = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[inner.name]
    settings = {"betas": (inner.beta1, inner.beta2), "eps": inner.eps} if inner.name == "adamw" else {"momentum": inner.momentum}
    optimizer = kind(model.parameters(), lr=inner.lr, weight_decay=inner.weight_decay, **settings)  # type: ignore[arg-type]
    x, y = torch.from_numpy(train["input"]), torch.from_numpy(train["y"])
    model_bytes, moved = sum(4 * parameter.numel() for parameter in model.parameters()), 0
    for _ in range(method.epochs):
        for chosen in torch.randperm(len(y)).split(WORKERS * BATCH):
            optimizer.zero_grad()
            loss(model(x[chosen]), {"y": y[chosen]}).backward()  # the mean over all workers' samples, as their summed gradients give
            optimizer.step()
            moved += 2 * model_bytes
    with torch.no_grad():
        found = loss(model(torch.from_numpy(test["input"])), {"y": torch.from_numpy(test["y"])}).item()
    return found, model_bytes + moved


def ours(seed: int, method: Method, train: Dataset, test: Dataset) -> tuple[float, int]:
    """The same of a node that does one unit of every round."""
    example = {"input": torch.zeros(2, 784), "y": torch.zeros(2, dtype=torch.int64)}
    program, tensors = export(network(seed), example, loss)
    runtime = TorchRuntime(program, tensors)
    spec = job(seed, method, train.samples, test.samples)
    version, outer = initial_version(program, tensors).to_bytes(), None
    moved = float(len(version))
    for number in range(total_rounds(spec)):
        units = units_of(spec, open_round(spec, number=number, base=version_digest(version), now=NOW))
        base = read_version(version)
        deltas = [run(unit.spec, runtime, train, base.tensors).delta for unit in units]
        sent = [encode_update(delta, unit.spec, buffers=base.buffers) for delta, unit in zip(deltas, units, strict=True)]
        updates = [(unit.unit_id, float(unit.spec.samples), update) for unit, update in zip(units, sent, strict=True)]
        made = merge_version(version, updates, method, outer)
        version, outer = bytes(made.version), made.outer
        moved += statistics.mean(map(len, sent)) + len(version if made.step is None else made.step)
    row = Row(job_id=spec.job_id, number=1, digest=UNUSED, parent=None, round_id=None, epoch=0, updates=(), size_bytes=0, made_at=NOW)
    judge = evaluation_unit(spec, version=row)
    assert judge is not None
    return run(judge.spec, runtime, test, read_version(version).tensors).metrics.loss, round(moved)


def job(seed: int, method: Method, samples: int, test_samples: int) -> JobSpec:
    """What an owner would submit."""
    return JobSpec(
        job_id="bytes",
        name="bytes",
        program=UNUSED,
        dataset=UNUSED,
        samples=samples,
        test_dataset=UNUSED,
        test_samples=test_samples,
        initial=UNUSED,
        seed=seed,
        method=method,
        zone="bench",
    )


def stored(fields: Fields) -> Dataset:
    """The samples as a dataset in memory."""
    shards: dict[str, bytes] = {}

    def put(data: bytes) -> str:
        shards[version_digest(data)] = data
        return version_digest(data)

    return Dataset(write_dataset(fields, name="fashion-mnist", shard_samples=4096, put=put), shards.__getitem__)


def main() -> None:
    """Train both for every seed and print the verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--method", default="{}", help="other settings than the preset's, as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    method = method_from({"name": "diloco", "batch_size": BATCH, "epochs": options.epochs} | json.loads(options.method), "--method")
    train, test = ({"input": half["x"].reshape(-1, 784), "y": half["y"]} for half in fashion_mnist())
    ours_train, ours_test = stored(train), stored(test)
    runs: dict[str, list[tuple[float, int]]] = {"data parallel": [], "ours": []}
    for seed in range(options.seeds):
        began = time.perf_counter()
        runs["data parallel"].append(data_parallel(seed, method, train, test))
        runs["ours"].append(ours(seed, method, ours_train, ours_test))
        shown = ", ".join(f"{name} loss {found[-1][0]:.4f} after {found[-1][1] / 1e6:.3f} MB" for name, found in runs.items())
        print(f"seed {seed}: {shown} ({time.perf_counter() - began:.0f} s, load {os.getloadavg()[0]:.1f})", flush=True)
    print(json.dumps(verdict(runs, method)))


def verdict(runs: dict[str, list[tuple[float, int]]], method: Method) -> dict[str, object]:
    """How many times fewer the bytes are, and whether the loss is as good."""
    losses = {name: [found for found, _ in of] for name, of in runs.items()}
    moved = {name: statistics.mean(count for _, count in of) for name, of in runs.items()}
    spread = {name: statistics.stdev(of) if len(of) > 1 else 0.0 for name, of in losses.items()}
    mean = {name: statistics.mean(of) for name, of in losses.items()}
    ratio = moved["data parallel"] / moved["ours"]
    as_good = mean["ours"] <= mean["data parallel"] + spread["data parallel"]
    return {
        "name": "train_bytes",
        "value": round(ratio),
        "unit": "times fewer bytes than synchronous data parallel",
        "goal": GOAL,
        "reached": ratio >= GOAL and as_good,
        "as_good": as_good,
        "loss": {name: round(value, 4) for name, value in mean.items()},
        "standard_deviation": {name: round(value, 4) for name, value in spread.items()},
        "bytes": {name: round(value) for name, value in moved.items()},
        "peers": {"synchronous data parallel": 1},
        "method": msgspec.to_builtins(method),
        "runs": {name: [round(value, 4) for value in of] for name, of in losses.items()},
    }


if __name__ == "__main__":
    main()
