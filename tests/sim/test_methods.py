"""Every method under seeded churn: those whose rounds wait for all end in the bits of a plain loop, and streams lose and double nothing.

Training is real here for the exact methods: a network with dropout and batch norm, whose units are stopped and taken up again from
their continuations as often as the plan's seed says, besides all that befalls their nodes.
"""

import functools
import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gridsched.core.cut import open_round, total_rounds, units_of
from gridsched.core.facts import JobEnded, RoundCutShort, UnitSkipped, UnitStale
from gridsched.core.job import JobSpec
from gridsched.core.method import Codec, InnerOptimizer, MergeRule, Method, NotFinite, OuterOptimizer
from gridsched.core.round import Version
from gridsched.core.settings import Control
from gridsched.core.work import UnitKind, UnitSpec, UnitState, WorkUnit
from gridsched.flow import admit
from gridsched.replay import Outcome, replay
from gridsched.testing import FaultPlan, Simulation, check_invariants
from gridsched.testing.node import Lie
from gridsched.testing.simulation import ZONE
from gridsched.train.codec import encode
from gridsched.train.dataset import Dataset, write_dataset
from gridsched.train.merge import merge_version
from gridsched.train.program import to_bytes
from gridsched.train.tensors import version_digest
from gridsched.train.unit import Continuation, run
from gridsched.train.version import initial_version, read_version
from tests.train.builders import SAMPLES, dataset_of, hard_net, hard_runtime, samples

NODES = ["pc", "old", "pi"]
TICKS = 800
NOON = datetime(2018, 5, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NO_COPIES = Control(every=MINUTE, sync_every=MINUTE, lease_ttl=4 * MINUTE, absent_after=3 * MINUTE, start_jitter=timedelta(0), copies=0.0)
"""Nobody does the slow node's units beside it, so that what becomes of a round that waits for it can be seen."""
ADAMW = InnerOptimizer(name="adamw", lr=1e-2, weight_decay=0.1)

EXACT = {
    "single": Method(epochs=1, batch_size=8, samples_per_unit=0, units_per_round=1, inner=InnerOptimizer(momentum=0.9)),
    "sync": Method(epochs=1, batch_size=8, samples_per_unit=8, units_per_round=3, outer=OuterOptimizer(momentum=0.9)),
    "fedavg": Method(epochs=2, batch_size=8, samples_per_unit=0, units_per_round=0),
    "local-sgd": Method(epochs=1, batch_size=4, samples_per_unit=20, units_per_round=2, passes=2, codec=Codec.INT8),
    "diloco": Method(
        epochs=1,
        batch_size=6,
        samples_per_unit=24,
        units_per_round=2,
        inner=ADAMW,
        outer=OuterOptimizer(name="nesterov", lr=0.7, momentum=0.9),
        codec=Codec.INT8,
        down=Codec.INT8,
    ),
    "robust": Method(epochs=1, batch_size=8, samples_per_unit=18, units_per_round=4, merge=MergeRule.TRIMMED_MEAN, bad_share=0.25),
}
PARTS = {"fedavg": (20, 5, 30, 15)}

STREAMS = {
    "async": Method(epochs=2, batch_size=8, samples_per_unit=48, units_per_round=4, quorum=1, outer=OuterOptimizer(lr=0.5)),
    "buffered": Method(epochs=2, batch_size=8, samples_per_unit=32, units_per_round=5, quorum=3),
    "soon stale": Method(epochs=2, batch_size=8, samples_per_unit=48, units_per_round=4, quorum=1, max_staleness=1),
    "cut to measure": Method(
        epochs=2, batch_size=4, samples_per_unit=96, units_per_round=3, quorum=2, unit_seconds=90.0, max_staleness=20, codec=Codec.INT8
    ),
    "parts": Method(epochs=2, batch_size=8, samples_per_unit=0, units_per_round=4, quorum=2, unit_seconds=200.0, passes=2),
}


def drawn(names: Iterable[str], *, quick: tuple[str, ...], seeds: int = 12) -> list[Any]:
    """Every name with every seed; in `make test` only the ``quick`` ones with the first, the rest in `make long`."""
    cases = [(name, seed) for name in names for seed in range(seeds)]
    return [pytest.param(*case, marks=() if case in [(name, 0) for name in quick] else pytest.mark.long) for case in cases]


def windows(now: datetime) -> float:
    """Surplus for twenty minutes, none for ten; never enough for all three."""
    return 260.0 if now.minute % 30 < 20 else 0.0


def always(_: datetime) -> float:
    return 1000.0


def churn(seed: int, *, steps: int, calls: int) -> FaultPlan:
    """Faults that a short job lives to see: at its nodes' first ``steps``, and within the daemon's first ``calls``."""
    return FaultPlan.random(seed, nodes=NODES, steps=steps, rounds=4, calls=calls, faults=12)


def add_nodes(sim: Simulation, *, slowest: float = 0.02, lies: dict[str, Lie] | None = None) -> None:
    for node_id, power_w, steps_per_s in (("pc", 180.0, 0.10), ("old", 110.0, 0.05), ("pi", 12.0, slowest)):
        sim.add_node(node_id, power_w=power_w, steps_per_s=steps_per_s, lie=(lies or {}).get(node_id))


def checked(sim: Simulation) -> None:
    with sim.daemon.store.read() as tx:
        check_invariants(tx, caps_w={ZONE: 1000.0})


def replayed(sim: Simulation) -> list[Outcome]:
    return [made.outcome for made in replay(sim.daemon.store, sim.daemon.blobs, "sim")]


# -- exact methods, with real training


class Training(Simulation):
    """Units are trained, and stopped at steps that the plan's seed draws; what is taken up again was written and read."""

    def train(self, unit: UnitSpec, lie: Lie | None = None) -> tuple[str | None, dict[str, float]]:
        """The unit's update, from as many continuations as it takes."""
        assert lie is None
        draw, saved = random.Random(f"{self.faults.seed} {unit.unit_id}"), None
        base = read_version(self.daemon.blobs.path(unit.base)).tensors
        while True:
            outcome = run(unit, hard_runtime(), small_data(), base, may_go_on=lambda: draw.random() > 0.2, continuation=saved)
            if outcome.finished:
                return self.daemon.blobs.put(encode(outcome.delta, unit.codec)), {"loss": 1.0}
            assert outcome.continuation is not None
            saved = Continuation.from_bytes(outcome.continuation.to_bytes())


@functools.cache
def small_data() -> Dataset:
    return dataset_of(samples())


def submit(sim: Simulation, name: str) -> None:
    program, tensors = hard_net()
    blobs = sim.daemon.blobs
    manifest = write_dataset(samples(), name="samples", shard_samples=32, put=blobs.put)
    initial = initial_version(program, tensors).to_bytes()
    job = spec_of(name, program=blobs.put(to_bytes(program, tensors)), dataset=blobs.put(manifest.to_bytes()), initial=blobs.put(initial))
    sim.call(partial(admit.submit, spec=job, initial_bytes=len(initial)))


def spec_of(name: str, *, program: str, dataset: str, initial: str) -> JobSpec:
    return JobSpec(
        job_id="sim",
        name=name,
        program=program,
        dataset=dataset,
        samples=SAMPLES,
        test_dataset=None,
        test_samples=0,
        initial=initial,
        seed=4,
        method=EXACT[name],
        zone=ZONE,
        parts=PARTS.get(name, ()),
    )


@functools.cache
def in_peace(name: str) -> str:
    """The digest of the last version, by a loop that knows no daemon: round after round, unit after unit, each without a pause."""
    model: bytes | memoryview = initial_version(*hard_net()).to_bytes()
    outer: memoryview | None = None
    job = spec_of(name, program="0" * 64, dataset="0" * 64, initial=version_digest(model))
    for number in range(total_rounds(job)):
        base = read_version(model).tensors
        rnd = open_round(job, number=number, base=version_digest(model), now=NOON)
        updates = []
        for unit in units_of(job, rnd):
            delta = run(unit.spec, hard_runtime(), small_data(), base).delta
            updates.append((unit.unit_id, float(unit.spec.samples), encode(delta, unit.spec.codec)))
        made = merge_version(model, updates, job.method, outer)
        model, outer = made.version, made.outer
    return version_digest(model)


@pytest.mark.parametrize(("name", "seed"), drawn(EXACT, quick=("sync", "fedavg", "diloco")))
def test_a_method_whose_rounds_wait_for_all_ends_in_the_bits_of_a_plain_loop(folder: Path, name: str, seed: int) -> None:
    plan = churn(1000 * list(EXACT).index(name) + seed, steps=4, calls=60)
    sim = Training(folder, faults=plan)
    add_nodes(sim)
    submit(sim, name)
    sim.run(ticks=TICKS, surplus_w=windows, each=lambda: checked(sim))
    assert plan.fired
    assert sim.final_digest() == in_peace(name)
    assert set(replayed(sim)) == {Outcome.SAME}
    sim.close()


# -- streams


def stream(folder: Path, name: str, plan: FaultPlan | None = None, *, slowest: float = 0.01) -> Simulation:
    sim = Simulation(folder, faults=plan)
    add_nodes(sim, slowest=slowest)
    sim.add_job(samples=384, method=STREAMS[name], parts=(100, 40, 120, 60, 64) if name == "parts" else ())
    return sim


@pytest.mark.parametrize(("name", "seed"), drawn(STREAMS, quick=("async", "cut to measure", "parts")))
def test_a_stream_merges_every_sample_once_per_epoch_under_churn_and_its_journal_makes_the_same_versions(
    folder: Path, name: str, seed: int
) -> None:
    plan = churn(1000 * list(STREAMS).index(name) + seed, steps=8, calls=250)
    sim = stream(folder, name, plan)
    sim.run(ticks=TICKS, surplus_w=windows, each=lambda: checked(sim))
    assert plan.fired
    assert [fact.state for fact in sim.facts if isinstance(fact, JobEnded)] == ["done"]
    outcomes = replayed(sim)
    assert set(outcomes) == {Outcome.SAME}
    with sim.daemon.store.read() as tx:
        versions = tx.find(Version, job_id="sim", order="number")
        merged = sum(samples for version in versions for _, _, samples in version.updates)
        behind = {staleness for version in versions for staleness in version.staleness}
    assert merged == 2 * 384
    assert max(behind, default=0) <= STREAMS[name].max_staleness
    assert any(behind), "nothing was ever stale: this is not the stream that it is meant to be"
    sim.close()


def test_a_stream_does_not_wait_for_its_slowest_node(folder: Path) -> None:
    """The same units on the same nodes: waiting for the slow one each round takes far longer than merging what has come."""
    took = {}
    for name, method in (("stream", STREAMS["buffered"]), ("rounds", replace(STREAMS["buffered"], quorum=0))):
        sim = Simulation(folder / name, control=NO_COPIES)
        add_nodes(sim, slowest=0.002)
        sim.add_job(samples=384, method=replace(method, epochs=1), test_samples=0)
        took[name] = sim.run(ticks=TICKS, surplus_w=always)
        sim.close()
    assert took["stream"] < 0.8 * took["rounds"], took


def test_slow_nodes_are_given_shorter_units_and_stale_ones_are_trained_again(folder: Path) -> None:
    sim = stream(folder / "cut", "cut to measure")
    sim.run(ticks=TICKS, surplus_w=always, each=lambda: checked(sim))
    with sim.daemon.store.read() as tx:
        sizes = {unit.spec.samples for unit in tx.find(WorkUnit, kind=UnitKind.TRAIN, state=UnitState.ACCEPTED)}
    assert min(sizes) == 4, "a batch at a time for the slowest"
    assert max(sizes) >= 32
    sim.close()
    stale = stream(folder / "stale", "soon stale")
    stale.run(ticks=TICKS, surplus_w=always, each=lambda: checked(stale))
    assert any(isinstance(fact, UnitStale) for fact in stale.facts)
    assert set(replayed(stale)) == {Outcome.SAME}
    stale.close()


# -- grace and NaN


def test_a_time_of_grace_ends_the_wait_for_a_node_that_is_gone_and_for_a_kill_of_the_daemon_too(folder: Path) -> None:
    plan = FaultPlan().kill_daemon(call=40)
    method = Method(epochs=1, batch_size=8, samples_per_unit=64, units_per_round=3, grace_s=600.0)
    sim = Simulation(folder, faults=plan, control=NO_COPIES)
    add_nodes(sim, slowest=0.0005)
    sim.add_job(samples=384, method=method)
    sim.run(ticks=TICKS, surplus_w=always, each=lambda: checked(sim))
    plan.assert_all_fired()
    short = [fact for fact in sim.facts if isinstance(fact, RoundCutShort)]
    with sim.daemon.store.read() as tx:
        merged = sum(n for version in tx.find(Version, job_id="sim") for _, _, n in version.updates)
    assert short
    assert merged + sum(fact.samples for fact in short) == 384
    assert set(replayed(sim)) == {Outcome.SAME}
    sim.close()


def bad_samples(unit: UnitSpec, honest: dict[str, Any]) -> dict[str, Any]:
    """On whichever node, the positions from 64 to 128 end in NaN."""
    if unit.kind is UnitKind.EVALUATE or unit.start != 64:
        return honest
    return {name: np.full_like(array, np.nan) for name, array in honest.items()}


@pytest.mark.parametrize(("policy", "state"), [(NotFinite.STOP, "failed"), (NotFinite.SKIP, "done")])
@pytest.mark.parametrize("quorum", [0, 2])
def test_samples_that_end_in_nan_everywhere_stop_the_job_or_are_left_out_and_no_node_tries_for_ever(
    folder: Path, policy: NotFinite, state: str, quorum: int
) -> None:
    method = Method(epochs=1, batch_size=8, samples_per_unit=64, units_per_round=3, quorum=quorum, not_finite=policy)
    sim = Simulation(folder)
    add_nodes(sim, lies=dict.fromkeys(NODES, bad_samples))
    sim.add_job(samples=384, test_samples=0, method=method)
    sim.run(ticks=TICKS, surplus_w=always, each=lambda: checked(sim))
    (ended,) = [fact for fact in sim.facts if isinstance(fact, JobEnded)]
    assert ended.state == state
    skipped = [(fact.epoch, fact.samples) for fact in sim.facts if isinstance(fact, UnitSkipped)]
    assert skipped == ([(0, 64)] if policy is NotFinite.SKIP else [])
    if policy is NotFinite.STOP:
        assert "(positions 64 to 128 of the order of epoch 0)" in ended.reason
    assert set(replayed(sim)) <= {Outcome.SAME}
    sim.close()
