"""Fashion-MNIST held by ten clients who each see other labels: averaging against Flower's FedAvg, and members where averaging gives way.

    python benchmarks/train_noniid.py --flower PYTHON [--samples 6000] [--rounds 8] [--passes 3] [--batch 16]
                                      [--columns KEY ...] [--ways NAME ...] [--state FOLDER]

Flower's ``niid_bench`` (Li et al. 2022, arXiv:2102.02079): its network, optimizer and five partitions, all clients in every round. The
published figures are 50 rounds of 10 passes over 60,000 samples in batches of 64, a day on one core for both sides. A smaller scale with
Flower beside it tells who is better: same partitions, version 0 and number of samples seen; the batches are smaller too, so that there are
steps enough. Ours is the product's own path in one process: a program, parts and units cut by ``core.cut``, encoded updates, merged
versions. Flower's is flower_noniid.py, run by PYTHON, the interpreter of an environment that holds flwr and torch. Three ways of ours:

fedavg    federated averaging, as the peer does it
often     a round after every pass, outer momentum 0.9 (FedAvgM, Hsu et al. 2019, arXiv:1909.06335), updates as int8 blocks: as many
          samples, and PASSES / 4 times the bytes sent up
members   another method: each label has a density model (examples/one_class.py), averaged over those who hold the label and never across
          labels, and the label whose member scores highest is the answer. Its goals are absolute: it learns from all 60,000 samples

The best of ROUNDS looks at each run counts, as in the published table; the last one is printed beside it. ``--state`` keeps figures and
versions, and a run that was stopped goes on. The last line is one JSON object.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

BENCHMARKS = Path(__file__).parent
ROOT = BENCHMARKS.parent
sys.path.insert(0, str(ROOT))

from gridsched.core.cut import open_round, total_rounds, units_of  # noqa: E402 - after the path, so that it runs from a checkout
from gridsched.core.job import JobSpec  # noqa: E402
from gridsched.core.method import Codec, Method, OuterOptimizer  # noqa: E402
from gridsched.train.codec import encode  # noqa: E402
from gridsched.train.dataset import Dataset, write_dataset  # noqa: E402
from gridsched.train.ensemble import by_scores, labels_of  # noqa: E402
from gridsched.train.export import export  # noqa: E402
from gridsched.train.jobfile import JobFile, load_jobfile  # noqa: E402
from gridsched.train.merge import merge_version  # noqa: E402
from gridsched.train.partition import Partition, cut, reordered  # noqa: E402
from gridsched.train.tensors import Array, version_digest  # noqa: E402
from gridsched.train.torch_runtime import TorchRuntime  # noqa: E402
from gridsched.train.unit import run  # noqa: E402
from gridsched.train.version import initial_version, read_version  # noqa: E402

Samples = Mapping[str, Array]
NOW = datetime(2026, 1, 1, tzinfo=UTC)  # nothing here depends on when it is done
UNUSED = "0" * 64
FLOWER, MEMBERS = "flower", "members"
AVERAGING = ("fedavg", "often")
WAYS = (FLOWER, *AVERAGING, MEMBERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One partition; ``published`` is FedAvg's accuracy there in percent, ``goal`` the one to reach, by whatever way."""

    key: str
    title: str
    how: Partition
    published: float
    goal: float | None = None


COLUMNS = (
    Column(key="iid", title="IID", how=Partition(by="iid"), published=89.23),
    Column(key="dirichlet", title="Dirichlet 0.5", how=Partition(by="dirichlet"), published=88.09),
    Column(key="one", title="one label", how=Partition(by="label", labels=1), published=28.39, goal=80),
    Column(key="two", title="two labels", how=Partition(by="label", labels=2), published=78.10, goal=84),
    Column(key="three", title="three labels", how=Partition(by="label", labels=3), published=82.43),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is trained: ``rounds`` of ``passes`` over the first ``samples`` of the training set, in batches of ``batch``."""

    samples: int
    rounds: int
    passes: int
    batch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Training samples part by part, and the test samples."""

    train: Samples
    parts: tuple[int, ...]
    test: Samples

    def of_label(self, label: int) -> "Held":
        """The samples of one label, cut into what each of those who hold some has of it."""
        borders = np.cumsum([0, *self.parts])
        mine = [start + np.flatnonzero(self.train["y"][start:stop] == label) for start, stop in pairwise(borders)]
        train, parts = reordered(self.train, [part for part in mine if len(part)])
        return Held(train=train, parts=parts, test=self.test)


class Training:
    """A job over a dataset in parts, round by round as nodes and daemon do it; looked at and saved every ``look_every`` rounds."""

    def __init__(self, file: JobFile, method: Method, held: Held, path: Path, *, look_every: int = 1) -> None:
        program, tensors = export(file.model(), file.example_batch(), file.loss)
        self._runtime = TorchRuntime(program, tensors)
        self._classes = program.target
        self._train, self._test = _stored(held.train), held.test
        self._path, self._look_every = path, look_every
        self.spec = _job(method, held, path.name)
        self.figures: list[float] = json.loads(path.read_text()) if path.is_file() else []
        self._version = self._saved("version").read_bytes() if self.figures else initial_version(program, tensors).to_bytes()
        self._outer = self._saved("outer").read_bytes() if self._saved("outer").is_file() else None

    def _saved(self, what: str, back: int = 0) -> Path:
        return self._path.with_suffix(f".{what}{len(self.figures) - back}")

    def to_the_end(self) -> None:
        """Train the rounds that have not been; a figure for each look: the test accuracy, or the loss of a model without labels."""
        whole = total_rounds(self.spec)
        for number in range(len(self.figures) * self._look_every, whole):
            loss = self._round(number)
            if (number + 1) % self._look_every == 0:
                self.figures.append(loss if self._classes is None else accuracy(self.answers(), self._test["y"]))
                self._save()
                print(f"  {self._path.stem}, round {number + 1}/{whole}: {self.figures[-1]:.4f}", flush=True)

    def _round(self, number: int) -> float:
        rnd = open_round(self.spec, number=number, base=version_digest(self._version), now=NOW)
        base = read_version(self._version).tensors
        updates, losses = [], []
        for unit in units_of(self.spec, rnd):
            outcome = run(unit.spec, self._runtime, self._train, base)
            updates.append((unit.unit_id, float(unit.spec.samples), encode(outcome.delta, unit.spec.codec)))
            losses.append(outcome.metrics.loss)
        merged = merge_version(self._version, updates, self.spec.method, self._outer)
        self._version, self._outer = bytes(merged.version), bytes(merged.outer) if merged.outer is not None else None
        return float(np.average(losses, weights=[weight for _, weight, _ in updates]))

    def answers(self) -> Array:
        """The model's outputs on the test samples."""
        self._runtime.load(read_version(self._version).tensors)
        cuts = np.array_split(np.arange(len(self._test["y"])), 10)
        return np.concatenate([self._runtime.answer({name: array[some] for name, array in self._test.items()})[1] for some in cuts])

    def _save(self) -> None:
        self._saved("version").write_bytes(self._version)
        if self._outer is not None:
            self._saved("outer").write_bytes(self._outer)
        aside = self._path.with_suffix(".aside")
        aside.write_text(json.dumps(self.figures))
        aside.replace(self._path)
        for what in ("version", "outer"):
            self._saved(what, 1).unlink(missing_ok=True)


def _stored(fields: Samples) -> Dataset:
    shards: dict[str, bytes] = {}

    def put(data: bytes) -> str:
        digest = version_digest(data)
        shards[digest] = data
        return digest

    return Dataset(write_dataset(fields, name="fashion-mnist", shard_samples=len(fields["y"]), put=put), shards.__getitem__)


def _job(method: Method, held: Held, name: str) -> JobSpec:
    return JobSpec(
        job_id="noniid",
        name=name,
        program=UNUSED,
        dataset=UNUSED,
        samples=sum(held.parts),
        parts=held.parts,
        test_dataset=None,
        test_samples=0,
        initial=UNUSED,
        seed=0,
        method=method,
        zone="bench",
    )


def accuracy(outputs: Array, y: Array) -> float:
    """The share of samples whose highest output is their own label's."""
    return float((outputs.argmax(axis=1) == y).mean())


def averaged(way: str, scale: Scale, held: Held, path: Path) -> list[float]:
    """Accuracy of one of our ways of averaging, wherever the peer has ended a round."""
    file = load_jobfile(BENCHMARKS / "small_cnn.py")
    method = replace(file.method, epochs=scale.rounds, passes=scale.passes, batch_size=scale.batch)
    if way == "often":
        outer = OuterOptimizer(momentum=0.9)
        method = replace(method, epochs=scale.rounds * scale.passes, passes=1, codec=Codec.INT8, outer=outer)
    training = Training(file, method, held, path, look_every=method.epochs // scale.rounds)
    training.to_the_end()
    return training.figures


def by_members(held: Held, path: Path) -> list[float]:
    """Accuracy of one member per label, each averaged after every pass over those who hold the label.

    Where more hold it there are more rounds, so that all members make as many steps: scores of some that learned less would be lower.
    """
    file = load_jobfile(ROOT / "examples" / "one_class.py")
    scores = []
    for label in np.unique(held.train["y"]):
        own = held.of_label(int(label))
        method = replace(file.method, epochs=file.method.epochs * len(own.parts), units_per_round=0)
        member = Training(file, method, own, path.with_name(f"{path.stem}-{label}.json"))
        member.to_the_end()
        scores.append(member.answers())
    return [float((labels_of(by_scores(np.stack(scores))) == held.test["y"]).mean())]


def by_flower(python: str, scale: Scale, held: Held, path: Path) -> list[float]:
    """Accuracy after every round of Flower's FedAvg, from the same version 0."""
    file = load_jobfile(BENCHMARKS / "small_cnn.py")
    _, tensors = export(file.model(), file.example_batch(), file.loss)
    column, state = path.with_suffix(".column.npz"), path.with_suffix(".npz")
    arrays: dict[str, Any] = {**held.train, "test_x": held.test["x"], "test_y": held.test["y"], "parts": np.array(held.parts), **tensors}
    np.savez(column, **arrays)
    numbers = map(str, (scale.rounds, scale.passes, scale.batch))
    subprocess.run([python, str(BENCHMARKS / "flower_noniid.py"), str(column), str(state), *numbers], check=True)
    column.unlink()
    return [float(value) for value in np.load(state)["accuracy"]]


def figures_of(column: Column, way: str, scale: Scale, train: Samples, test: Samples, folder: Path, python: str) -> list[float]:
    """Accuracies of one way in one column, from the state where it was done before."""
    some = train if way == MEMBERS else {name: array[: scale.samples] for name, array in train.items()}
    fields, parts = reordered(some, cut(some, column.how, seed=0))
    held = Held(train=fields, parts=parts, test=test)
    if way == MEMBERS:
        return by_members(held, folder / f"{column.key}-{way}.json")
    path = folder / f"{column.key}-{way}-{scale.samples}-{scale.rounds}x{scale.passes}-{scale.batch}.json"
    return by_flower(python, scale, held, path) if way == FLOWER else averaged(way, scale, held, path)


def row(column: Column, found: Mapping[str, Sequence[float]]) -> str:
    """A row of the table: percent, the best round's and, in brackets, the last one's."""
    cells = [f"{100 * max(found[way]):.2f} ({100 * found[way][-1]:.2f})" if way in found else "-" for way in WAYS]
    return f"| {column.title} | {column.published:.2f} | {' | '.join(cells)} |"


def verdict(column: Column, found: Mapping[str, Sequence[float]]) -> dict[str, object]:
    """A column's best figures in percent, and whether averaging is not below Flower's and the column's own goal is reached."""
    best = {way: round(100 * max(values), 2) for way, values in found.items()}
    ours = max((best[way] for way in AVERAGING if way in best), default=0.0)
    reached = ours >= best.get(FLOWER, math.inf) and max(best.values(), default=0.0) >= (column.goal or 0.0)
    return {"published": column.published, "goal": column.goal, **best, "reached": reached}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Averaging and members on data that is not identically distributed, beside Flower.")
    parser.add_argument("--flower", default="", help="the interpreter of an environment with flwr and torch")
    parser.add_argument("--samples", type=int, default=6_000)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--columns", nargs="+", choices=[column.key for column in COLUMNS], default=[column.key for column in COLUMNS])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    return parser.parse_args()


def main() -> None:
    """Train what is asked for and print the table and the verdict."""
    asked = arguments()
    ways = [way for way in asked.ways if way != FLOWER or asked.flower]
    scale = Scale(samples=asked.samples, rounds=asked.rounds, passes=asked.passes, batch=asked.batch)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as aside:
        folder = asked.state or Path(aside)
        folder.mkdir(parents=True, exist_ok=True)
        began, table = time.monotonic(), {}
        train, test = load_jobfile(BENCHMARKS / "small_cnn.py").dataset()
        for column in COLUMNS:
            if column.key in asked.columns:
                table[column] = {way: figures_of(column, way, scale, train, test, folder, asked.flower) for way in ways}
    print(f"\n{scale.rounds} rounds of {scale.passes} passes over {scale.samples} samples, batch {scale.batch}: percent, best (last)\n")
    print(f"| partition | published | {' | '.join(WAYS)} |\n|---|---{'|---' * len(WAYS)}|")
    for column, found in table.items():
        print(row(column, found))
    verdicts = {column.key: verdict(column, found) for column, found in table.items()}
    print(
        json.dumps(
            {
                "name": "train_noniid",
                "unit": "percent accuracy, best round",
                "scale": asdict(scale),
                "columns": verdicts,
                "reached": all(value["reached"] for value in verdicts.values()),
                "seconds": round(time.monotonic() - began),
            }
        )
    )


if __name__ == "__main__":
    main()
