"""Nodes that return something else than they were asked for: found out, shut out and unpaid, and the model is what honest nodes make."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gridsched.core.facts import AuditEnded, AuditOpened, Fact, JobEnded, NodeQuarantined, RewardReversed, UnitAccepted
from gridsched.core.fleet import Node, Presence
from gridsched.core.job import Job, JobState
from gridsched.core.lease import Lease, LeaseReason
from gridsched.core.ledger import Account, Transfer, TransferKind, node_account
from gridsched.core.method import Method
from gridsched.core.round import Epoch, Version
from gridsched.core.settings import Trust
from gridsched.core.work import UnitKind, UnitSpec, UnitState, WorkUnit
from gridsched.flow import quarantine
from gridsched.testing import Simulation, check_invariants
from gridsched.testing.node import Lie

TICKS = 400
METHOD = Method(epochs=3, batch_size=8, samples_per_unit=64, units_per_round=6)


def always(_: datetime) -> float:
    return 1000.0


def flipped(_: UnitSpec, returned: dict[str, Any]) -> dict[str, Any]:
    """The opposite of the honest update; an honest evaluation."""
    return {name: -value for name, value in returned.items()} if "loss" not in returned else returned


def noise(unit: UnitSpec, returned: dict[str, Any]) -> dict[str, Any]:
    if "loss" in returned:
        return returned
    rng = np.random.default_rng(unit.start)
    return {name: rng.normal(size=value.shape).astype(value.dtype) for name, value in returned.items()}


def boasting(_: UnitSpec, returned: dict[str, Any]) -> dict[str, Any]:
    """Every sample right."""
    return returned | {"correct": returned["samples"]} if "loss" in returned else returned


class Broken:
    """Memory that flips another bit each time."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, _: UnitSpec, returned: dict[str, Any]) -> dict[str, Any]:
        self.times += 1
        return {name: value + self.times for name, value in returned.items()} if "loss" not in returned else returned


def site(folder: Path, lies: dict[str, Lie], *, honest: int = 3, method: Method = METHOD, trust: Trust | None = None) -> Simulation:
    sim = Simulation(folder, trust=trust or Trust())
    for number in range(honest):
        sim.add_node(f"honest-{number}", power_w=50.0, steps_per_s=0.10)
    for name, lie in lies.items():
        sim.add_node(name, power_w=50.0, steps_per_s=0.10, lie=lie)
    sim.add_job(samples=768, method=method)
    return sim


def run(sim: Simulation) -> Simulation:
    def checked() -> None:
        with sim.daemon.store.read() as tx:
            check_invariants(tx, caps_w={"de-lu": 1000.0})

    sim.run(ticks=TICKS, surplus_w=always, each=checked)
    return sim


def of(sim: Simulation, kind: type[Fact]) -> list[Any]:
    return [fact for fact in sim.facts if isinstance(fact, kind)]


def find(sim: Simulation, look: Callable[[Any], Any]) -> Any:
    with sim.daemon.store.read() as tx:
        return look(tx)


def clean(folder: Path) -> str:
    """The digest that honest nodes end in without audits."""
    sim = run(site(folder / "clean", {}, trust=Trust(audits=False)))
    sim.close()
    return sim.final_digest()


def test_honest_nodes_are_audited_and_end_in_the_same_bits(folder: Path) -> None:
    sim = run(site(folder, {}))
    assert sim.final_digest() == clean(folder)
    ended = of(sim, AuditEnded)
    assert len(ended) >= 9
    assert {fact.result for fact in ended} == {"match"}
    assert min(find(sim, lambda tx: [p.verified for p in tx.find(Presence)])) >= 3
    assert not of(sim, NodeQuarantined)
    epochs = find(sim, lambda tx: tx.find(Epoch, order="number"))
    assert epochs[0].audit_j > epochs[-1].audit_j >= 0  # trust grows, and audits become rare
    assert all(epoch.audit_j <= epoch.wasted_j + 1e-6 for epoch in epochs)
    units = find(sim, lambda tx: tx.find(WorkUnit, state=UnitState.ACCEPTED))
    merged = {unit_id for version in find(sim, lambda tx: tx.find(Version)) for unit_id, _, _ in version.updates}
    assert {unit.unit_id for unit in units if unit.audits}.isdisjoint(merged)
    sim.close()


@pytest.mark.parametrize("lie", [flipped, noise])
def test_a_liar_is_found_shut_out_and_unpaid_and_leaves_no_trace(folder: Path, lie: Lie) -> None:
    sim = run(site(folder, {"liar": lie}))
    assert sim.final_digest() == clean(folder)
    (caught,) = of(sim, NodeQuarantined)
    assert caught.node_id == "liar"
    assert caught.versions == ()  # it had not got into any
    node = find(sim, lambda tx: tx.must(Node, "liar"))
    assert node.quarantined_at is not None
    assert find(sim, lambda tx: tx.get(Account, node_account("liar"))).balance_micro == 0
    reversed_, leases = of(sim, RewardReversed), find(sim, lambda tx: tx.find(Lease, node_id="liar"))
    assert {fact.node_id for fact in reversed_} == {"liar"}
    assert reversed_[0].reason == node.quarantine_reason
    assert all(not lease.live for lease in leases)
    assert max(lease.offered_at for lease in leases) <= node.quarantined_at
    backs = find(sim, lambda tx: tx.find(Transfer, kind=TransferKind.REVERSE))
    assert {(back.debit, back.lease_id) for back in backs} == {(node_account("liar"), fact.lease_id) for fact in reversed_}
    assert len(backs) == len(reversed_)
    sim.close()


def test_a_lying_page_among_torch_and_wasm_nodes_is_found_by_those_whose_bits_are_its_own(folder: Path) -> None:
    kernels = "wasm-0123abcd"
    sim = Simulation(folder, trust=Trust())
    for number in range(2):
        sim.add_node(f"torch-{number}", power_w=50.0, steps_per_s=0.10)
    for number in range(3):
        sim.add_node(f"wasm-{number}", power_w=50.0, steps_per_s=0.10, runtime=kernels)
    sim.add_node("page", power_w=50.0, steps_per_s=0.10, runtime=kernels, lie=flipped)
    sim.add_job(samples=768, method=METHOD)
    run(sim)
    assert sim.final_digest() == clean(folder)
    assert [fact.node_id for fact in of(sim, NodeQuarantined)] == ["page"]
    classes = find(sim, lambda tx: {node.node_id: node.runtime for node in tx.find(Node)})
    done_by = {fact.unit_id: fact.node_id for fact in sim.facts if isinstance(fact, UnitAccepted)}
    asked = [(done_by[fact.unit_id], fact.node_id) for fact in of(sim, AuditOpened) if fact.unit_id in done_by]
    assert {classes[worker] for worker, _ in asked} == {"torch-sim", kernels}
    assert all(classes[worker] == classes[auditor] for worker, auditor in asked)
    sim.close()


def test_what_a_liar_holds_when_it_is_found_is_taken_away_and_not_paid(folder: Path) -> None:
    sim = run(site(folder, {"liar": flipped}, method=replace(METHOD, units_per_round=12)))
    taken = [lease for lease in find(sim, lambda tx: tx.find(Lease, node_id="liar")) if lease.reason is LeaseReason.QUARANTINED]
    assert taken
    posted = {transfer.lease_id for transfer in find(sim, lambda tx: tx.find(Transfer, kind=TransferKind.POST))}
    assert posted.isdisjoint(lease.lease_id for lease in taken)
    sim.close()


def test_two_alike_liars_among_six_accuse_nobody_and_are_both_found(folder: Path) -> None:
    sim = run(site(folder, {"liar-a": flipped, "liar-b": flipped}, honest=4))
    assert {fact.node_id for fact in of(sim, NodeQuarantined)} == {"liar-a", "liar-b"}
    sim.close()


@pytest.mark.long
def test_a_liar_that_was_trusted_first_is_named_with_the_versions_it_is_in(folder: Path) -> None:
    def later(unit: UnitSpec, returned: dict[str, Any]) -> dict[str, Any]:
        return flipped(unit, returned) if unit.version >= 2 else returned

    sim = run(site(folder, {"liar": later}, trust=Trust(share=1.0)))
    (caught,) = of(sim, NodeQuarantined)
    assert caught.node_id == "liar"
    assert caught.versions == ("sim.v1", "sim.v2")
    assert sim.final_digest() == clean(folder)
    sim.close()


def test_alone_there_is_nobody_to_ask_and_nothing_waits(folder: Path) -> None:
    sim = run(site(folder, {}, honest=1))
    assert not of(sim, AuditOpened)
    assert {fact.result for fact in of(sim, AuditEnded)} == {"unauditable"}
    sim.close()


def test_two_nodes_that_disagree_accuse_nobody_and_the_job_ends_with_a_reason(folder: Path) -> None:
    sim = run(site(folder, {"liar": flipped}, honest=1))
    assert not of(sim, NodeQuarantined)
    (ended,) = of(sim, JobEnded)
    assert ended.state == "failed"
    assert "honest-0 and liar have disagreed" in ended.reason
    assert "let another node of their class join" in ended.reason
    assert [fact.result for fact in of(sim, AuditEnded)].count("undecided") >= 3
    sim.close()


@pytest.mark.long
def test_a_slip_between_two_nodes_is_done_again_and_forgotten(folder: Path) -> None:
    slips = iter([True])

    def once(unit: UnitSpec, returned: dict[str, Any]) -> dict[str, Any]:
        return flipped(unit, returned) if next(slips, False) else returned

    sim = run(site(folder, {"slips": once}, honest=1))
    assert [fact.result for fact in of(sim, AuditEnded)].count("undecided") == 1
    assert not of(sim, NodeQuarantined)
    assert sim.final_digest() == clean(folder)
    sim.close()


def test_an_evaluation_that_boasts_is_corrected(folder: Path) -> None:
    sim = run(site(folder, {"liar": boasting}, trust=Trust(share=1.0)))
    assert {epoch.accuracy for epoch in find(sim, lambda tx: tx.find(Epoch))} == {0.5}
    tests = find(sim, lambda tx: tx.find(WorkUnit, kind=UnitKind.EVALUATE))
    assert any(unit.audits for unit in tests)
    assert find(sim, lambda tx: tx.must(Job, "sim")).state is JobState.DONE
    sim.close()


def test_a_pardoned_node_begins_as_a_newcomer(folder: Path) -> None:
    sim = site(folder, {"liar": flipped})
    while not of(sim, NodeQuarantined):
        sim.run_once(1000.0)
    sim.call(lambda tx, now: quarantine.pardon(tx, now, "liar"))
    assert find(sim, lambda tx: tx.must(Node, "liar")).quarantined_at is None
    assert find(sim, lambda tx: tx.must(Presence, "liar")).verified == 0
    run(sim)
    assert len(of(sim, NodeQuarantined)) >= 2  # it still lies, and is still found
    sim.close()
