"""Nodes that vanish while others are idle: their units are taken up at once, every promise holds, and no bit is different."""

from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from gridsched.core.facts import LeaseEnded, LeaseOffered, NodeCut, UnitAccepted
from gridsched.core.method import Method
from gridsched.core.settings import Control
from gridsched.flow import sync
from gridsched.testing import FaultPlan, Simulation, check_invariants

MINUTE = timedelta(minutes=1)
NODES = ("n1", "n2", "n3", "n4")


def site(folder: Path, faults: FaultPlan | None = None, *, copies: float = 0.5) -> Simulation:
    """Four nodes alike, and rounds of two units: two nodes are idle at any time."""
    pace = {"every": MINUTE, "sync_every": MINUTE, "lease_ttl": 10 * MINUTE, "absent_after": 9 * MINUTE, "start_jitter": 0 * MINUTE}
    control = Control(**pace, copies=copies)
    sim = Simulation(folder, faults=faults, control=control)
    for name in NODES:
        sim.add_node(name, power_w=100.0, steps_per_s=0.05)
    sim.add_job(samples=512, method=Method(epochs=2, batch_size=8, samples_per_unit=128, units_per_round=2))
    return sim


def run(sim: Simulation) -> int:
    def each() -> None:
        gone = {node.node_id: sim.clock.now() for node in sim.nodes if node.down_until is not None}
        if gone:
            sim.call(partial(sync.cut, lines=gone))  # as their lines break
        with sim.daemon.store.read() as tx:
            check_invariants(tx, caps_w={"de-lu": 1000.0})

    return sim.run(ticks=400, surplus_w=lambda _: 1000.0, each=each)


def quiet(folder: Path) -> tuple[str, int]:
    sim = site(folder / "quiet")
    ticks = run(sim)
    assert not [fact for fact in sim.facts if isinstance(fact, LeaseEnded) and fact.reason == "outrun"], "in peace nothing is done twice"
    digest = sim.final_digest()
    sim.close()
    return digest, ticks


@pytest.mark.parametrize("copies", [0.5, 0.0])
def test_a_crashed_node_s_unit_is_taken_up_by_an_idle_one(folder: Path, copies: float) -> None:
    digest, ticks = quiet(folder)
    plan = FaultPlan().crash("n1", step=4, round=0)
    sim = site(folder / "struck", plan, copies=copies)
    took = run(sim)
    plan.assert_all_fired()
    assert sim.final_digest() == digest
    copied = [fact for fact in sim.facts if isinstance(fact, LeaseOffered) and fact.reason == "holder_cut"]
    assert len(copied) == (1 if copies else 0)
    if copies:
        (cut,) = [fact for fact in sim.facts if isinstance(fact, NodeCut)]
        assert copied[0].at - cut.at <= MINUTE, "not a lease's time to live"
        (done,) = [fact for fact in sim.facts if isinstance(fact, UnitAccepted) and fact.unit_id == copied[0].unit_id]
        assert done.lease_id == copied[0].lease_id
        assert took <= ticks + 4, "what the node had done, and a tick or two"
    sim.close()


@pytest.mark.parametrize("seed", range(4))
def test_whatever_goes_wrong_while_units_are_under_way_twice_the_bits_are_those_of_peace(folder: Path, seed: int) -> None:
    digest, _ = quiet(folder)
    plan = FaultPlan.random(seed, nodes=list(NODES), steps=14, rounds=4, calls=150, faults=12)
    sim = site(folder / "struck", plan, copies=1.0)
    run(sim)
    assert len(plan.fired) >= 3
    assert sim.final_digest() == digest
    sim.close()
