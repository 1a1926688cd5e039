"""Rules of combination on members trained apart: on equal shares of the samples, and where each member saw two labels only.

    python benchmarks/train_ensemble.py [--data digits|fashion] [--samples 12000] [--epochs 30] [--seeds 3]

Five members, a network of two hidden layers of 200, on the handwritten digits of examples/image_cnn.py or the garments of fashion_mlp.py.
Garments of two labels tell so little of the other eight that no rule saves their members; digits of two labels tell enough. The members are
jobs as ``ensemble-bagging`` over a partition submits them, their units those that ``core.cut`` cuts, trained by ``train.unit.run``;
``train.predict`` combines the answers by every rule there is. Beside one another for the two kinds of shards: a single member, every rule,
one model trained on all the samples, and the rule to use. What is to be shown is that every rule works, that on equal shares it hardly
matters which, and that under label skew it matters more than anything else. Accuracies are means over seeds, each with shards of its own.
The last line is one JSON object.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean

BENCHMARKS = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS.parent)]

import fashion_mlp  # noqa: E402 - after the path, so that it runs from a checkout
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

from gridsched.core.cut import open_round, total_rounds, units_of  # noqa: E402
from gridsched.core.job import JobSpec  # noqa: E402
from gridsched.core.method import Method  # noqa: E402
from gridsched.train.dataset import Dataset, write_dataset  # noqa: E402
from gridsched.train.ensemble import Rule  # noqa: E402
from gridsched.train.export import export  # noqa: E402
from gridsched.train.jobfile import load_jobfile, method_from  # noqa: E402
from gridsched.train.partition import Partition, cut, reordered  # noqa: E402
from gridsched.train.predict import Predictor, quality  # noqa: E402
from gridsched.train.tensors import Array, version_digest  # noqa: E402
from gridsched.train.torch_runtime import TorchRuntime  # noqa: E402
from gridsched.train.unit import run  # noqa: E402

MEMBERS = 5
TEST_SAMPLES = 10_000
KINDS = {"equal shares": Partition(by="iid", parts=MEMBERS), "two labels each": Partition(by="label", parts=MEMBERS, labels=2)}
UNUSED = "0" * 64


def member_job(parts: Sequence[int], part: int, method: Method, seed: int) -> JobSpec:
    """The job of the member that learns from ``part``; from all the samples, where that is -1."""
    return JobSpec(
        job_id="bench",
        name="bench",
        program=UNUSED,
        dataset=UNUSED,
        samples=sum(parts),
        test_dataset=None,
        test_samples=0,
        initial=UNUSED,
        seed=seed,
        method=method,
        zone="bench",
        parts=tuple(parts) if part >= 0 else (),
        part=part,
        ensemble="bench",
        member=max(part, 0),
    )


def data(name: str, samples: int) -> tuple[dict[str, Array], dict[str, Array]]:
    """Training and test samples: ``input`` [n, pixels] float32 from 0 to 1 and ``y`` [n] int64."""
    if name == "fashion":
        return fashion_mlp.samples("train", samples), fashion_mlp.samples("t10k", TEST_SAMPLES)
    train, test = load_jobfile(BENCHMARKS.parent / "examples" / "image_cnn.py").dataset()
    flat = [{"input": (one["x"].reshape(len(one["x"]), -1) / 16).astype(np.float32), "y": one["y"]} for one in (train, test)]
    return flat[0], flat[1]


def network(pixels: int) -> nn.Module:
    """Version 0 of every member."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(pixels, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10))


def trained(spec: JobSpec, dataset: Dataset) -> TorchRuntime:
    """A runtime that holds the job's last version: its one unit a round is merged by adding what it changed."""
    batch = {name: torch.from_numpy(array) for name, array in dataset.batch(np.arange(2)).items()}
    program, tensors = export(network(batch["input"].shape[1]), batch, fashion_mlp.loss)
    runtime, version = TorchRuntime(program, tensors), dict(tensors)
    for number in range(total_rounds(spec)):
        (unit,) = units_of(spec, open_round(spec, number=number, base=UNUSED, now=datetime.now(UTC)))
        changed = run(unit.spec, runtime, dataset, version).delta
        version = {name: array + changed[name] for name, array in version.items()}
    runtime.load(version)
    return runtime


def stored(fields: Mapping[str, Array]) -> Dataset:
    """The samples as a node would have them."""
    blobs: dict[str, bytes] = {}

    def put(data: bytes) -> str:
        digest = version_digest(data)
        blobs[digest] = data
        return digest

    return Dataset(write_dataset(fields, name="bench", shard_samples=4096, put=put), blobs.__getitem__)


def accuracies(train: Mapping[str, Array], test: Mapping[str, Array], how: Partition, method: Method, seed: int) -> dict[str, float]:
    """Test accuracy of a single member (the mean of five), of every rule over the five, and of one model on all samples."""
    fields, parts = reordered(train, cut(train, how, seed=seed))
    dataset = stored(fields)
    members = [trained(member_job(parts, part, method, seed), dataset) for part in range(len(parts))]
    predictor = Predictor(members)
    answers = predictor.answers(test)
    single = [quality(Predictor([member]).predict(test), test["y"]).accuracy for member in members]
    found = {"single member": mean(single)}
    found |= {rule.value: quality(predictor.combine(answers, rule), test["y"]).accuracy for rule in Rule}
    whole = trained(member_job(parts, -1, method, seed), dataset)
    return found | {"one model on all": quality(Predictor([whole]).predict(test), test["y"]).accuracy}


def best(found: Mapping[str, float]) -> str:
    """The rule to use."""
    return max((rule.value for rule in Rule), key=lambda rule: found[rule])


def reached(found: Mapping[str, Mapping[str, float]]) -> bool:
    """On equal shares sum, product and majority beat a single member; under skew max and product beat every rule that counts heads."""
    shares, skewed = found["equal shares"], found["two labels each"]
    better = all(shares[rule] > shares["single member"] for rule in (Rule.SUM, Rule.PRODUCT, Rule.MAJORITY))
    heads = max(skewed[rule] for rule in (Rule.MAJORITY, Rule.MEDIAN))
    return better and min(skewed[Rule.MAX], skewed[Rule.PRODUCT]) > heads > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("digits", "fashion"), default="digits")
    parser.add_argument("--samples", type=int, default=12_000, help="Of the garments; the digits are 1,438.")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    told = parser.parse_args()
    settings = {"name": "ensemble-bagging", "epochs": told.epochs, "batch_size": 50, "inner": {"lr": 0.05, "momentum": 0.9}}
    method, begun = method_from(settings, "bench"), time.perf_counter()
    train, test = data(told.data, told.samples)
    found = {}
    for kind, how in KINDS.items():
        rows = []
        for seed in range(told.seeds):
            rows.append(accuracies(train, test, how, method, seed))
            print(f"{kind}, seed {seed}: " + ", ".join(f"{name} {value:.4f}" for name, value in rows[-1].items()), flush=True)
        found[kind] = {name: mean(row[name] for row in rows) for name in rows[0]}
        spread = {name: float(np.ptp([row[name] for row in rows])) for name in rows[0]}
        print(f"{kind}: the one to use is {best(found[kind])}; greatest spread over seeds {max(spread.values()):.4f}")
    print(f"\n| answer | {' | '.join(found)} |\n|---|{'---|' * len(found)}")
    for name in found["equal shares"]:
        print(f"| {name} | {' | '.join(f'{found[kind][name]:.4f}' for kind in found)} |")
    result = {
        "bench": "train_ensemble",
        "data": told.data,
        "samples": len(train["y"]),
        "epochs": told.epochs,
        "seeds": told.seeds,
        "accuracy": {kind: {name: round(value, 4) for name, value in row.items()} for kind, row in found.items()},
        "use": {kind: best(row) for kind, row in found.items()},
        "seconds": round(time.perf_counter() - begun, 1),
        "load": os.getloadavg()[0],
        "goal": "every rule reproduced, the one to use named for each case",
        "reached": reached(found),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
