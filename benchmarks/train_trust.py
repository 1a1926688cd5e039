"""Liars among honest nodes: after how many lies each is found out, what looking costs, and what is left of it in the model.

    python benchmarks/train_trust.py [liars | honest [UNITS]]

A whole site in one process (the product's own verbs, store, merges, audits and screens; only time and the network are played), and real
training: federated averaging of a small perceptron on Fashion-MNIST by ten nodes. Three of the ten lie, all in the same way, from their
first unit on or after 20 honest ones:

lazy: half of the samples; free rider: nothing changed; scaled: twice the update; flipped: its negative; random: noise as long;
replay: its own first update again; copy: what another node sent last; at times: every fourth update flipped; faint: a hundredth part is
noise, a lie that no screen can see and that does no harm: how long it takes by chance alone, and not part of the goal.

How often the screens alone see each lie is measured apart, on rounds of seven honest updates and three lies; from that and the draws
follows how many liars are found within ten units, by the share of units that is audited. Then UNITS (10,000) units by honest nodes alone:
half of them on samples in any order, half on parts with two labels each, where honest updates differ most.
The last line is one JSON object.
"""

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from gridsched.core.cut import open_round, units_of  # noqa: E402 - after the path, so that it runs from a checkout
from gridsched.core.facts import AuditOpened, NodeQuarantined, UnitAccepted  # noqa: E402
from gridsched.core.job import JobSpec  # noqa: E402
from gridsched.core.lease import Lease  # noqa: E402
from gridsched.core.method import InnerOptimizer, Method  # noqa: E402
from gridsched.core.round import Epoch  # noqa: E402
from gridsched.core.settings import Trust  # noqa: E402
from gridsched.core.trust import Auditing, drawn  # noqa: E402
from gridsched.core.work import UnitKind, UnitSpec, WorkUnit  # noqa: E402
from gridsched.flow import admit  # noqa: E402
from gridsched.testing import Simulation  # noqa: E402
from gridsched.testing.node import Lie  # noqa: E402
from gridsched.testing.simulation import ZONE  # noqa: E402
from gridsched.train.codec import decode, encode  # noqa: E402
from gridsched.train.dataset import Dataset, write_dataset  # noqa: E402
from gridsched.train.export import export  # noqa: E402
from gridsched.train.images import fashion_mnist  # noqa: E402
from gridsched.train.merge import merge_version  # noqa: E402
from gridsched.train.program import to_bytes  # noqa: E402
from gridsched.train.screen import MOST_TRACES, Trace, suspicions, trace  # noqa: E402
from gridsched.train.tensors import Array, version_digest  # noqa: E402
from gridsched.train.torch_runtime import TorchRuntime  # noqa: E402
from gridsched.train.unit import run  # noqa: E402
from gridsched.train.version import initial_version, read_version  # noqa: E402

UNITS = 10_000
NODES, LIARS = 10, 3
SAMPLES, TEST_SAMPLES, LABELS = 6_000, 2_000, 10
UNIT_SAMPLES, STEPS = 200, 10
EARNS = 20
EPOCHS = {0: 3, EARNS: 9}
"""How long the job is where liars begin at once, and where they earn trust first: 30 units an epoch."""

WITHIN, MOST_SHARE, MOST_LOSS = 10, 0.10, 0.01
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
METHOD = Method(
    epochs=12,
    batch_size=UNIT_SAMPLES // STEPS,
    samples_per_unit=UNIT_SAMPLES,
    units_per_round=NODES,
    inner=InnerOptimizer(lr=0.05, momentum=0.9),
)
SEED = 7


def network() -> nn.Module:
    """784 -> 16 -> 10: 12,730 parameters."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, LABELS))


def loss(outputs: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Cross entropy with the true kind of garment."""
    return functional.cross_entropy(outputs, batch["y"])


class World:
    """What all sites share: the samples in two orders (as they come, and sorted into parts of two labels), the program, the runtime."""

    def __init__(self) -> None:
        train, test = fashion_mnist()
        cut = {"input": train["x"][:SAMPLES].reshape(SAMPLES, -1), "y": train["y"][:SAMPLES].astype(np.int64)}
        held = {"input": test["x"][:TEST_SAMPLES].reshape(TEST_SAMPLES, -1), "y": test["y"][:TEST_SAMPLES].astype(np.int64)}
        example = {"input": torch.zeros(2, 784), "y": torch.zeros(2, dtype=torch.int64)}
        self.program, self.tensors = export(network(), example, loss)
        self.runtime = TorchRuntime(self.program, self.tensors)
        shards = np.array_split(np.argsort(cut["y"], kind="stable"), 2 * NODES)  # two shards each, as McMahan et al. 2017 do
        places = np.random.default_rng(SEED).permutation(2 * NODES)
        skewed = np.concatenate([np.concatenate([shards[a], shards[b]]) for a, b in places.reshape(NODES, 2)])
        self.data = {
            "even": _dataset(cut),
            "skewed": _dataset({name: array[skewed] for name, array in cut.items()}),
            "test": _dataset(held),
        }


def _dataset(fields: Mapping[str, Array]) -> Dataset:
    stored: dict[str, bytes] = {}

    def put(data: bytes) -> str:
        stored[version_digest(data)] = data
        return version_digest(data)

    return Dataset(write_dataset(fields, name="fashion", shard_samples=len(fields["y"]), put=put), stored.__getitem__)


class Fleet(Simulation):
    """A site whose nodes really train."""

    def __init__(self, folder: Path, world: World, *, data: str = "even", trust: Trust) -> None:
        super().__init__(folder, trust=trust)
        self.world, self.samples = world, world.data[data]

    def submit(self, method: Method, *, parts: tuple[int, ...] = ()) -> JobSpec:
        """The job over all samples."""
        blobs, initial = self.daemon.blobs, initial_version(self.world.program, self.world.tensors).to_bytes()
        spec = JobSpec(
            job_id="fashion",
            name="fashion",
            program=blobs.put(to_bytes(self.world.program, self.world.tensors)),
            dataset=blobs.put(self.samples.manifest.to_bytes()),
            samples=SAMPLES,
            test_dataset=blobs.put(self.world.data["test"].manifest.to_bytes()),
            test_samples=TEST_SAMPLES,
            initial=blobs.put(initial),
            seed=SEED,
            method=method,
            zone=ZONE,
            parts=parts,
        )
        self.call(partial(admit.submit, spec=spec, initial_bytes=len(initial)))
        return spec

    def learn(self, unit: UnitSpec) -> dict[str, Array]:
        """The honest update."""
        return dict(run(unit, self.world.runtime, self.samples, self._base(unit)).delta)

    def train(self, unit: UnitSpec, lie: Lie | None = None) -> tuple[str | None, dict[str, float]]:
        """The unit as it is asked for, or what a liar makes of it; evaluations are honest."""
        if unit.kind is UnitKind.EVALUATE:
            found = run(unit, self.world.runtime, self.world.data["test"], self._base(unit)).metrics
            return None, {"loss": found.loss, "samples": float(found.samples), "correct": float(found.correct), "count": float(found.count)}
        returned = self.learn(unit) if lie is None else lie(unit, {})
        return self.daemon.blobs.put(encode(returned, unit.codec)), {"loss": 1.0, "samples": float(unit.samples)}

    def _base(self, unit: UnitSpec) -> Mapping[str, Array]:
        return read_version(self.daemon.blobs.path(unit.base)).tensors


# -- lies


@dataclass
class Liar:
    """A node that is honest for its first ``earns`` units, and then returns what ``make`` makes."""

    fleet: "Fleet | _Bench"
    kind: str
    earns: int
    done: int = 0
    lies: set[str] = field(default_factory=set)
    first: dict[str, Array] | None = None

    def __call__(self, unit: UnitSpec, _: dict[str, Any]) -> dict[str, Any]:
        """What the node returns for a unit; of evaluations it is not asked."""
        self.done += 1
        turn = self.done - self.earns
        if turn <= 0 or (self.kind == "at times" and turn % 4) or (self.kind == "replay" and self.first is None):
            made = self.fleet.learn(unit)
            self.first = self.first or made
            return made
        self.lies.add(unit.unit_id)
        return LIES["flipped" if self.kind == "at times" else self.kind](self, unit)


def _half(liar: Liar, unit: UnitSpec) -> dict[str, Array]:
    return liar.fleet.learn(replace(unit, stop=unit.start + unit.samples // 2))


def _scaled(liar: Liar, unit: UnitSpec, factor: float) -> dict[str, Array]:
    return {name: np.float32(factor) * array for name, array in liar.fleet.learn(unit).items()}


def _noise(liar: Liar, unit: UnitSpec, *, share: float) -> dict[str, Array]:
    rng = np.random.default_rng([liar.done, unit.start, unit.version])
    honest = liar.fleet.learn(unit)
    noise = {name: rng.normal(size=array.shape).astype(np.float32) for name, array in honest.items()}
    length = {name: float(np.linalg.norm(array)) / max(float(np.linalg.norm(noise[name])), 1e-30) for name, array in honest.items()}
    return {name: (np.float32(1 - share) * array + np.float32(share * length[name]) * noise[name]) for name, array in honest.items()}


def _copy(liar: Liar, unit: UnitSpec) -> dict[str, Array]:
    assert isinstance(liar.fleet, Fleet)
    with liar.fleet.daemon.store.read() as tx:
        sent = [one for one in tx.find(WorkUnit, job_id=unit.job_id, version=unit.version, kind=UnitKind.TRAIN, audits="") if one.update]
        mine = {one.unit_id for one in sent if one.accepted_lease and tx.must(Lease, one.accepted_lease).node_id.startswith("liar")}
    others = sorted((one for one in sent if one.unit_id not in mine), key=lambda one: (one.accepted_at, one.unit_id))
    if not others:
        return liar.fleet.learn(unit)  # nobody has sent anything yet
    return decode(liar.fleet.daemon.blobs.path(others[-1].update or ""))


LIES: Mapping[str, Callable[[Liar, UnitSpec], dict[str, Array]]] = {
    "lazy": _half,
    "free rider": lambda liar, unit: _scaled(liar, unit, 0.0),
    "scaled": lambda liar, unit: _scaled(liar, unit, 2.0),
    "flipped": lambda liar, unit: _scaled(liar, unit, -1.0),
    "random": lambda liar, unit: _noise(liar, unit, share=1.0),
    "replay": lambda liar, _: dict(liar.first or {}),
    "copy": _copy,
    "faint": lambda liar, unit: _noise(liar, unit, share=0.01),
}
KINDS = (*LIES, "at times")


# -- runs


@dataclass(frozen=True)
class Story:
    """What came of a run: units accepted, recomputed share of energy, accuracy, and for each liar the lies until it was found."""

    units: int
    share: float
    accuracy: float
    until_caught: tuple[int | None, ...]
    accused: int
    suspected: Mapping[str, int]


def play(world: World, *, kind: str = "", earns: int = 0, epochs: int, data: str = "even", trust: Trust | None = None) -> Story:
    """One job from its first unit to its last."""
    folder = Path(tempfile.mkdtemp(prefix="gridsched-trust-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    fleet = Fleet(folder, world, data=data, trust=trust or Trust())
    liars = {f"liar-{number}": Liar(fleet, kind, earns) for number in range(LIARS if kind else 0)}
    for number in range(NODES):
        name = f"liar-{number}" if f"liar-{number}" in liars else f"node-{number}"
        fleet.add_node(name, power_w=90.0, steps_per_s=1.0, lie=liars.get(name))
    parts = tuple([SAMPLES // NODES] * NODES) if data == "skewed" else ()
    method = replace(METHOD, epochs=epochs)
    if parts:
        method = replace(method, samples_per_unit=0, batch_size=parts[0] // STEPS)
    caught_after: dict[str, int] = {}

    def watch() -> None:
        for fact in fleet.facts:
            if isinstance(fact, NodeQuarantined) and fact.node_id in liars and fact.node_id not in caught_after:
                caught_after[fact.node_id] = len(liars[fact.node_id].lies)

    fleet.submit(method, parts=parts)
    fleet.run("fashion", ticks=100_000, surplus_w=lambda _: 1000.0, each=watch)
    story = _told(fleet, liars, caught_after)
    fleet.close()
    shutil.rmtree(folder)
    return story


def _told(fleet: Fleet, liars: Mapping[str, Liar], caught_after: Mapping[str, int]) -> Story:
    with fleet.daemon.store.read() as tx:
        epochs = tx.find(Epoch, job_id="fashion", order="number")
    quarantined = {fact.node_id for fact in fleet.facts if isinstance(fact, NodeQuarantined)}
    spent = sum(epoch.useful_j + epoch.wasted_j for epoch in epochs)
    return Story(
        units=sum(isinstance(fact, UnitAccepted) and fact.kind == "train" for fact in fleet.facts),
        share=sum(epoch.audit_j for epoch in epochs) / spent,
        accuracy=epochs[-1].accuracy or 0.0,
        until_caught=tuple(caught_after.get(name) for name in liars),
        accused=len(quarantined - set(liars)),
        suspected=Counter(fact.reason for fact in fleet.facts if isinstance(fact, AuditOpened)),
    )


# -- the screens alone


def screened(world: World, *, rounds: int) -> tuple[dict[str, float], float]:
    """The share of each kind's lies that the screens see, and of honest updates that they take for lies, in rounds of seven and three."""
    seen: Counter[str] = Counter()
    honest_odd = honest = 0
    version = initial_version(world.program, world.tensors).to_bytes()
    bench = _Bench(world)
    before: list[Trace] = []
    firsts: list[dict[str, Array]] = []
    for number in range(rounds):
        units = [bench.unit(version, number, place) for place in range(NODES)]
        updates = [bench.learn(unit) for unit in units]
        firsts = firsts or updates
        traces = [bench.trace(unit, update) for unit, update in zip(units, updates, strict=True)]
        honest += NODES
        honest_odd += len(suspicions(traces, before))
        for kind in LIES:
            liars = list(zip(units, updates, firsts, strict=True))[-LIARS:]
            told = [bench.trace(unit, bench.lie(kind, unit, update, first, updates[0])) for unit, update, first in liars]
            seen[kind] += sum(one.unit_id in suspicions([*traces[:-LIARS], *told], before) for one in told)
        before = [*before, *traces][-MOST_TRACES:]
        encoded = [(unit.unit_id, 1.0, encode(update, unit.codec)) for unit, update in zip(units, updates, strict=True)]
        version = bytes(merge_version(version, encoded, METHOD).version)
    return {kind: seen[kind] / (LIARS * rounds) for kind in LIES}, honest_odd / honest


class _Bench:
    """Units without a site: what each kind of lie looks like next to honest updates."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.base: Mapping[str, Array] = world.tensors
        self.known: dict[str, dict[str, Array]] = {}

    def unit(self, version: bytes, number: int, place: int) -> UnitSpec:
        """Unit ``place`` of round ``number``."""
        self.base = read_version(version).tensors
        spec = JobSpec(
            job_id="fashion", name="fashion", program="0" * 64, dataset="0" * 64, samples=SAMPLES, test_dataset=None, test_samples=0,
            initial="0" * 64, seed=SEED, method=replace(METHOD, epochs=1_000), zone=ZONE,
        )  # fmt: skip
        rnd = open_round(spec, number=number, base="0" * 64, now=datetime(2018, 1, 1, tzinfo=UTC))
        return units_of(spec, rnd)[place].spec

    def learn(self, unit: UnitSpec) -> dict[str, Array]:
        """The honest update."""
        return self.known.get(unit.unit_id) or dict(run(unit, self.world.runtime, self.world.data["even"], self.base).delta)

    def trace(self, unit: UnitSpec, update: Mapping[str, Array]) -> Trace:
        """What the screens look at."""
        norm = float(np.sqrt(sum(float(np.square(array).sum()) for array in update.values())))
        data = encode(update, unit.codec)
        return trace(data, unit_id=unit.unit_id, number=unit.version, steps=unit.steps, norm=norm, buffers=(), seed=SEED)

    def lie(
        self, kind: str, unit: UnitSpec, update: dict[str, Array], first: dict[str, Array], other: dict[str, Array]
    ) -> dict[str, Array]:
        """``update`` as a liar of this kind would have it."""
        if kind == "copy":
            return other
        self.known = {unit.unit_id: update} if kind != "lazy" else {}
        return LIES[kind](Liar(fleet=self, kind=kind, earns=0, done=unit.version, first=first), unit)


def by_share(seen: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """For each floor of the audited share: liars of each kind found within ten units of turning bad, as trusted as can be."""
    table: dict[str, dict[str, float]] = {}
    for share in SHARES:
        auditing = Auditing(share=share, secret=b"benchmark")
        by_chance = [[drawn(f"liar-{liar}.u{unit}", share, auditing) for unit in range(WITHIN)] for liar in range(2000)]
        rng = np.random.default_rng(SEED)
        found = {"chance alone": statistics.mean(any(draws) for draws in by_chance)}
        for kind, rate in seen.items():
            looks = rng.random((len(by_chance), WITHIN)) < rate
            found[kind] = float(np.mean(np.array(by_chance).any(axis=1) | looks.any(axis=1)))
        table[f"{share:g}"] = {kind: round(value, 3) for kind, value in found.items()}
    return table


# -- figures


def liars(world: World) -> dict[str, Any]:
    """Every kind, from its first unit on and after earning trust; and the clean run beside them."""
    clean = {earns: play(world, epochs=epochs, trust=Trust(audits=False)).accuracy for earns, epochs in EPOCHS.items()}
    print(f"clean: accuracy {clean}", flush=True)
    rows: dict[str, Any] = {}
    for kind in KINDS:
        for earns, epochs in EPOCHS.items():
            began = time.perf_counter()
            story = play(world, kind=kind, earns=earns, epochs=epochs)
            rows[f"{kind}, {'trusted first' if earns else 'from the start'}"] = row = {
                "lies until caught": list(story.until_caught),
                "honest accused": story.accused,
                "audited share": round(story.share, 3),
                "accuracy": round(story.accuracy, 4),
                "against clean": round(story.accuracy - clean[earns], 4),
                "audits": dict(story.suspected),
            }
            print(f"{kind:10} earns {earns:2}: {row} ({time.perf_counter() - began:.0f} s)", flush=True)
    seen, mistaken = screened(world, rounds=12)
    print(f"seen by the screens alone: {seen}; honest taken for lies: {mistaken:.4f}")
    table = by_share(seen)
    for share, found in table.items():
        print(f"share {share:>5}: {found}")
    told = {name: row for name, row in rows.items() if not name.startswith("faint")}
    return {
        "kinds": rows,
        "seen_by_screens": {kind: round(rate, 3) for kind, rate in seen.items()},
        "honest_odd_share": round(mistaken, 4),
        "caught_within_10_by_share": table,
        "reached_liars": all(
            None not in row["lies until caught"]
            and max(row["lies until caught"]) <= WITHIN
            and not row["honest accused"]
            and row["against clean"] >= -MOST_LOSS
            for row in told.values()
        ),
    }


def honest(world: World, units: int) -> dict[str, Any]:
    """Honest nodes alone, on even and on skewed samples."""
    found: dict[str, Any] = {}
    for data in ("even", "skewed"):
        per_epoch = SAMPLES // UNIT_SAMPLES if data == "even" else NODES
        began = time.perf_counter()
        story = play(world, epochs=-(-units // 2 // per_epoch), data=data)
        found[data] = {
            "units": story.units,
            "accused": story.accused,
            "audited share": round(story.share, 4),
            "audits": dict(story.suspected),
        }
        print(f"honest, {data}: {found[data]}, accuracy {story.accuracy:.4f} ({time.perf_counter() - began:.0f} s)", flush=True)
    reached = all(not row["accused"] and row["audited share"] <= MOST_SHARE for row in found.values())
    return {"honest": found, "reached_honest": reached}


def main(only: str, units: int) -> None:
    """Both halves, or the one that is asked for."""
    torch.set_num_threads(1)
    world = World()
    figures: dict[str, Any] = {
        "benchmark": "train_trust",
        "nodes": NODES,
        "liars": LIARS,
        "load": [round(load, 2) for load in os.getloadavg()],
    }
    if only in ("", "liars"):
        figures |= liars(world)
    if only in ("", "honest"):
        figures |= honest(world, units)
    figures["goal"] = {"lies": WITHIN, "audited share": MOST_SHARE, "honest accused": 0, "accuracy lost": MOST_LOSS}
    figures["reached"] = all(figures.get(name, True) for name in ("reached_liars", "reached_honest"))
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "", int(sys.argv[2]) if len(sys.argv) > 2 else UNITS)
