"""The whole daemon and three nodes under faults: safety after every tick, then progress, and the same bits as in peace."""

import shutil
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gridsched.core.facts import Fact, LeaseEnded, LeasePaused, LeaseResumed, RewardPosted
from gridsched.core.lease import Lease
from gridsched.core.ledger import OPERATOR, Account
from gridsched.core.method import Method
from gridsched.core.round import Epoch, Version
from gridsched.core.settings import Control
from gridsched.core.units import micro_from_rate
from gridsched.daemon import Daemon
from gridsched.testing import FaultPlan, Simulation, check_invariants
from tests.sim.conftest import fast_folder

TICKS = 600


def always(_: datetime) -> float:
    return 1000.0


def windows(now: datetime) -> float:
    """Surplus for six minutes, none for four; never enough for all three."""
    return 260.0 if now.minute % 10 < 6 else 0.0


def site(folder: Path, faults: FaultPlan | None = None, *, step: timedelta = timedelta(minutes=1)) -> Simulation:
    sim = Simulation(folder, faults=faults, step=step)
    sim.add_node("pc", power_w=180.0, steps_per_s=0.10)
    sim.add_node("old", power_w=110.0, steps_per_s=0.05)
    sim.add_node("pi", power_w=12.0, steps_per_s=0.01)
    sim.add_job(method=Method(epochs=2, batch_size=8, samples_per_unit=64, units_per_round=4))
    return sim


def checked(sim: Simulation) -> None:
    with sim.daemon.store.read() as tx:
        check_invariants(tx, caps_w={"de-lu": 1000.0})


def peace(folder: Path) -> str:
    sim = site(folder)
    sim.run(ticks=TICKS, surplus_w=always)
    digest = sim.final_digest()
    sim.close()
    return digest


@pytest.fixture(scope="module")
def quiet() -> Iterator[str]:
    made = fast_folder()
    yield peace(made)
    shutil.rmtree(made)


def of(facts: list[Fact], kind: type[Fact]) -> list[Fact]:
    return [fact for fact in facts if isinstance(fact, kind)]


def test_a_job_in_peace_ends_with_balanced_books(folder: Path) -> None:
    sim = site(folder)
    sim.run(ticks=TICKS, surplus_w=always, each=lambda: checked(sim))
    sim.run_once(0.0)  # whoever did a unit that another finished first has its last words
    with sim.daemon.store.read() as tx:
        versions, epochs = tx.find(Version, order="number"), tx.find(Epoch, order="number")
        operator = tx.must(Account, OPERATOR)
    assert [v.number for v in versions] == [0, 1, 2, 3, 4]
    assert [e.accuracy for e in epochs] == [0.5, 0.5]
    assert all(e.useful_j > 0 and e.ended_at for e in epochs)
    paid = sum(f.amount_micro for f in of(sim.facts, RewardPosted))  # type: ignore[attr-defined]
    assert operator.debits_posted == paid == sum(e.reward_micro for e in epochs) > 0
    assert operator.debits_pending == 0
    sim.close()


def test_starts_are_spread_at_the_onset_and_not_from_round_to_round(folder: Path) -> None:
    minute = timedelta(minutes=1)
    pace = Control(every=minute, sync_every=minute, lease_ttl=4 * minute, absent_after=3 * minute, start_jitter=minute)
    sim = Simulation(folder, step=minute, control=pace)
    sim.add_node("pc", power_w=180.0, steps_per_s=0.10)
    sim.add_node("old", power_w=110.0, steps_per_s=0.10)
    sim.add_job(method=Method(epochs=2, batch_size=8, samples_per_unit=64, units_per_round=2))
    sim.run(ticks=TICKS, surplus_w=always)
    with sim.daemon.store.read() as tx:
        waits = {(lease.unit_id.split(".")[1], lease.node_id): lease.not_before - lease.offered_at for lease in tx.find(Lease)}
    sim.close()
    first = {node: wait for (round_, node), wait in waits.items() if round_ == "r0"}
    assert len(set(first.values())) == len(first) == 2
    assert {wait for (round_, _), wait in waits.items() if round_ in ("r1", "r2", "r3")} == {timedelta(0)}


def test_surplus_windows_pause_and_resume_and_change_no_bit(folder: Path, quiet: str) -> None:
    sim = site(folder)
    sim.run(ticks=TICKS, surplus_w=windows, each=lambda: checked(sim))
    assert len(of(sim.facts, LeasePaused)) >= 3
    assert len(of(sim.facts, LeaseResumed)) >= 3
    assert sim.final_digest() == quiet
    sim.close()


def test_an_opt_out_in_the_middle_hands_the_unit_over(folder: Path, quiet: str) -> None:
    plan = FaultPlan().opt_out("old", step=3, round=1)
    sim = site(folder, plan)
    sim.run(ticks=TICKS, surplus_w=always, each=lambda: checked(sim))
    plan.assert_all_fired()
    ends = [f for f in of(sim.facts, LeaseEnded) if f.state == "handed_over"]  # type: ignore[attr-defined]
    assert [(f.node_id, f.step) for f in ends] == [("old", 3)]  # type: ignore[attr-defined]
    next_lease = [f for f in of(sim.facts, LeaseEnded) if f.unit_id == ends[0].unit_id and f.state == "released"]  # type: ignore[attr-defined]
    assert next_lease, "another node finished the unit"
    assert sim.final_digest() == quiet
    sim.close()


def test_a_crash_costs_only_the_steps_since_the_continuation(folder: Path, quiet: str) -> None:
    plan = FaultPlan().crash("old", step=6, round=0)
    sim = site(folder, plan)
    sim.run(ticks=TICKS, surplus_w=always, each=lambda: checked(sim))
    plan.assert_all_fired()
    with sim.daemon.store.read() as tx:
        first = tx.must(Epoch, "sim", 0)
    assert first.wasted_j > 0
    assert sim.final_digest() == quiet
    sim.close()


@pytest.mark.parametrize("message", ["update", "hand_over"])
def test_a_message_heard_twice_counts_once(folder: Path, quiet: str, message: str) -> None:
    plan = FaultPlan().lose_answer(message, node="pc")
    if message == "hand_over":
        plan.opt_out("pc", step=2)
    sim = site(folder, plan)
    sim.run(ticks=TICKS, surplus_w=always, each=lambda: checked(sim))
    plan.assert_all_fired()
    assert sim.final_digest() == quiet
    sim.close()


def mostly_long(values: Iterable[int], *, quick: int) -> list[Any]:
    """The first ``quick`` values in `make test`, the rest in `make long`."""
    return [value if place < quick else pytest.param(value, marks=pytest.mark.long) for place, value in enumerate(values)]


@pytest.mark.parametrize("call", mostly_long([25, 61, *range(20, 140, 3)], quick=2))
def test_the_daemon_killed_before_any_verb_loses_nothing(folder: Path, quiet: str, call: int) -> None:
    plan = FaultPlan().kill_daemon(call=call)
    sim = site(folder, plan)
    sim.run(ticks=TICKS, surplus_w=always, each=lambda: checked(sim))
    plan.assert_all_fired()
    assert sim.restarts == 1
    assert sim.final_digest() == quiet
    sim.close()


@pytest.mark.parametrize("seed", mostly_long(range(40), quick=2))
def test_any_seeded_churn_ends_in_the_quiet_run_s_bits(folder: Path, quiet: str, seed: int) -> None:
    plan = FaultPlan.random(seed, nodes=["pc", "old", "pi"], steps=8, rounds=4, calls=300, faults=10)
    sim = site(folder, plan)
    sim.run(ticks=TICKS, surplus_w=windows, each=lambda: checked(sim))
    assert plan.fired
    assert sim.final_digest() == quiet
    sim.close()


def test_reward_is_metered_energy_at_the_shown_rate(folder: Path) -> None:
    sim = site(folder)
    sim.run(ticks=TICKS, surplus_w=always)
    for fact in of(sim.facts, RewardPosted):
        assert isinstance(fact, RewardPosted)
        energy = micro_from_rate(fact.energy_j, 250_000)
        assert fact.amount_micro in (energy, energy + 1000), "energy at 0.25 EUR/kWh, plus the bonus for finishing"
    sim.close()


def test_metrics_name_the_policy_and_a_signal_that_was_lost_before_a_restart(folder: Path) -> None:
    sim = Simulation(folder)
    sim.run_once(1000.0)
    sim.close()
    sim.clock.advance(timedelta(hours=1))
    daemon = Daemon(sim.settings, clock=sim.clock, executor=sim.heavy)
    daemon.start()
    shown = daemon.metrics.registry.get_sample_value
    digest = daemon.policies.by_zone["de-lu"].digest
    assert shown("gridsched_policy_info", {"zone": "de-lu", "policy": "policy", "digest": digest}) == 1
    for age_s in (0.0, 1200.0):
        daemon.control("de-lu")
        assert shown("gridsched_signal_age_seconds", {"zone": "de-lu", "signal": "surplus"}) == age_s
        sim.clock.advance(timedelta(minutes=20))
    daemon.close()
