"""Data that nodes hold for themselves: who takes part in a round, and that nobody else does their units."""

from dataclasses import replace
from functools import partial

from gridsched.core.fleet import LocalData
from gridsched.core.job import Job, JobState
from gridsched.core.lease import Lease
from gridsched.core.method import Method
from gridsched.core.round import Round
from gridsched.core.work import UnitState, WorkUnit
from gridsched.flow import advance, collect
from gridsched.wire import ConsentChoice, Hello
from tests.flow.conftest import House

STEPS = {"attic": LocalData(digest="d" * 64, samples=40), "cellar": LocalData(digest="e" * 64, samples=24)}
METHOD = Method(epochs=2, batch_size=8, samples_per_unit=0, units_per_round=0)


def holder(house: House, node_id: str, *, opt_in: bool = True) -> None:
    house.join(node_id, opt_in=opt_in)
    greet(house, node_id, STEPS[node_id])


def greet(house: House, node_id: str, data: LocalData | None) -> None:
    hello = Hello(instance="one", runtime="torch-x", data={} if data is None else {"steps": data})
    house.do(partial(collect.hello, node_id=node_id, message=hello, rules=house.rules))


def units(house: House) -> list[tuple[str, str, str, int]]:
    found = sorted(house.rows(WorkUnit, job_id="j"), key=lambda unit: unit.unit_id)
    return [(unit.unit_id, unit.only_node, unit.spec.dataset[0], unit.spec.samples) for unit in found]


def test_a_round_has_one_unit_for_each_present_and_willing_holder(house: House) -> None:
    holder(house, "cellar")
    holder(house, "attic")
    house.join("desk")
    house.job(local="steps", method=METHOD, test_dataset=None, test_samples=0)
    assert units(house) == [("j.r0.u0", "attic", "d", 40), ("j.r0.u1", "cellar", "e", 24)]


def test_nobody_else_is_given_a_holders_unit(house: House) -> None:
    holder(house, "attic")
    house.join("desk")
    house.job(local="steps", method=METHOD, test_dataset=None, test_samples=0)
    house.surplus(1000)
    house.tick()
    assert [lease.node_id for lease in house.rows(Lease)] == ["attic"]


def test_a_holder_that_has_not_said_yes_is_not_in_the_round(house: House) -> None:
    holder(house, "attic")
    holder(house, "cellar", opt_in=False)
    house.job(local="steps", method=METHOD, test_dataset=None, test_samples=0)
    assert [unit[1] for unit in units(house)] == ["attic"]


def test_a_round_without_holders_waits_is_not_merged_and_takes_the_first_that_come(house: House) -> None:
    holder(house, "cellar", opt_in=False)
    house.job(local="steps", method=METHOD, test_dataset=None, test_samples=0)
    with house.store.read() as tx:
        assert advance.ready_to_merge(tx) == []
    house.do(partial(collect.choose, node_id="cellar", message=ConsentChoice(opted_in=True), rules=house.rules))
    assert [unit[1] for unit in units(house)] == ["cellar"]
    holder(house, "attic")
    assert [unit[1] for unit in units(house)] == ["cellar"], "who takes part is settled"


def test_the_next_round_asks_anew_who_holds_data(house: House) -> None:
    holder(house, "attic")
    house.job(local="steps", method=METHOD, test_dataset=None, test_samples=0)
    holder(house, "cellar")
    (unit,) = house.rows(WorkUnit)
    with house.store.write() as tx:
        tx.put(_accepted(unit))
    house.do(partial(advance.merged, round_id="j.r0", digest="9" * 64, size_bytes=1))
    assert [unit[:2] for unit in units(house)] == [("j.r0.u0", "attic"), ("j.r1.u0", "attic"), ("j.r1.u1", "cellar")]
    assert [rnd.epoch for rnd in sorted(house.rows(Round), key=lambda rnd: rnd.number)] == [0, 1]
    assert house.rows(Job)[0].state is JobState.RUNNING


def test_data_that_was_removed_is_forgotten(house: House) -> None:
    holder(house, "attic")
    greet(house, "attic", None)
    house.job(local="steps", method=METHOD, test_dataset=None, test_samples=0)
    assert units(house) == []


def test_nobody_waits_for_a_holder_that_removed_its_data(house: House) -> None:
    holder(house, "attic")
    holder(house, "cellar")
    house.job(local="steps", method=METHOD, test_dataset=None, test_samples=0)
    house.surplus(1000)
    house.tick()
    greet(house, "attic", None)
    states = {unit.only_node: unit.state for unit in house.rows(WorkUnit)}
    assert states == {"attic": UnitState.ABANDONED, "cellar": UnitState.LEASED}
    assert [lease.node_id for lease in house.rows(Lease) if lease.live] == ["cellar"]
    greet(house, "cellar", None)
    greet(house, "attic", STEPS["attic"])
    assert [unit.unit_id for unit in house.rows(WorkUnit, state=UnitState.OPEN)] == ["j.r0.u2"], "those that come first"


def _accepted(unit: WorkUnit) -> WorkUnit:
    return replace(unit, state=UnitState.ACCEPTED, update="7" * 64, accepted_lease="j.r0.u0.l1")
