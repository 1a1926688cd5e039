"""Data that nodes hold for themselves: who takes part in a round, and that nobody else does their units."""

import math
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from gridsched.core.consent import Consent
from gridsched.core.errors import MessageError
from gridsched.core.fleet import LocalData, held_out
from gridsched.core.job import Job, JobState
from gridsched.core.lease import Lease
from gridsched.core.method import Method, NotFinite
from gridsched.core.round import Round
from gridsched.core.work import UnitState, WorkUnit
from gridsched.flow import admit, advance, assign, collect, quarantine
from gridsched.flow.collect import Checked
from gridsched.wire import ConsentChoice, Hello, UpdateNotice, decode
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


def test_who_has_other_work_to_do_passes_a_holders_unit_by(house: House) -> None:
    holder(house, "cellar")
    house.join("attic-pc")  # first by name, so it chooses first
    house.job(local="steps", method=METHOD, test_dataset=None, test_samples=0)
    house.job("other")
    house.surplus(1000)
    house.tick()
    assert {lease.node_id: lease.job_id for lease in house.rows(Lease)} == {"cellar": "j", "attic-pc": "other"}


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
    with house.store.read() as tx:
        assert advance.ready_to_merge(tx) == [], "an epoch of nobody is none"
    greet(house, "attic", STEPS["attic"])
    assert [unit.unit_id for unit in house.rows(WorkUnit, state=UnitState.OPEN)] == ["j.r0.u2"], "those that come first"


def ends_in_nan(house: House, node_id: str) -> None:
    """The holder's unit, each time that it is tried."""
    for _ in range(2):
        house.surplus(1000)
        house.tick()
        lease = house.held(node_id)
        bad = UpdateNotice(
            instance="one",
            lease_id=lease.lease_id,
            generation=lease.generation,
            update="7" * 64,
            steps_executed=5,
            metrics={"loss": math.nan},
        )
        house.do(partial(collect.update, node_id=node_id, message=bad, checked=Checked(norm=1.0), rules=house.rules))


@pytest.mark.parametrize(("samples", "alone"), [(33, True), (34, False)])
def test_a_lone_last_sample_is_named_where_a_holders_unit_ends_in_nan(house: House, samples: int, alone: bool) -> None:
    house.join("attic")
    greet(house, "attic", LocalData(digest="d" * 64, samples=samples))
    house.job(local="steps", method=replace(METHOD, batch_size=32), test_dataset=None, test_samples=0)
    ends_in_nan(house, "attic")
    reason = house.rows(Job)[0].reason
    assert "lower the learning rate" in reason
    assert ("33 samples in batches of 32 end in a batch of one, which batch normalisation turns into NaN" in reason) is alone


def test_a_round_whose_holders_were_skipped_is_merged_and_not_begun_again(house: House) -> None:
    holder(house, "attic")
    method = replace(METHOD, not_finite=NotFinite.SKIP)
    house.job(local="steps", method=method, test_dataset=None, test_samples=0)
    ends_in_nan(house, "attic")
    sweep(house)
    assert len(units(house)) == 1
    with house.store.read() as tx:
        assert [rnd.round_id for rnd in advance.ready_to_merge(tx)] == ["j.r0"]


def _accepted(unit: WorkUnit) -> WorkUnit:
    return replace(unit, state=UnitState.ACCEPTED, update="7" * 64, accepted_lease="j.r0.u0.l1")


def sweep(house: House) -> None:
    house.do(partial(assign.sweep, rules=house.rules))


def test_a_holder_that_was_only_silent_when_a_round_opened_is_in_it_once_it_is_heard_again(house: House) -> None:
    holder(house, "attic")
    house.clock.advance(timedelta(minutes=5))
    sweep(house)
    house.job(local="steps", method=METHOD, test_dataset=None, test_samples=0)
    assert units(house) == []
    house.sync("attic")
    sweep(house)
    assert [unit[1] for unit in units(house)] == ["attic"]


def test_the_time_of_grace_begins_when_somebody_comes(house: House) -> None:
    holder(house, "attic", opt_in=False)
    holder(house, "cellar", opt_in=False)
    house.job(local="steps", method=replace(METHOD, grace_s=60.0), test_dataset=None, test_samples=0)
    house.clock.advance(timedelta(seconds=50))
    for name in STEPS:
        consent = house.rows(Consent, node_id=name)[0]
        with house.store.write() as tx:
            tx.put(replace(consent, opted_in=True))
    sweep(house)
    first, second = house.rows(WorkUnit, order="index")
    with house.store.write() as tx:
        tx.put(_accepted(first))
    house.clock.advance(timedelta(seconds=50))
    sweep(house)
    assert house.rows(WorkUnit, unit_id=second.unit_id)[0].state is UnitState.OPEN
    house.clock.advance(timedelta(seconds=10))
    sweep(house)
    assert house.rows(WorkUnit, unit_id=second.unit_id)[0].state is UnitState.ABANDONED


def test_nobody_waits_for_a_holder_that_is_shut_out(house: House) -> None:
    holder(house, "attic")
    holder(house, "cellar")
    house.job(local="steps", method=METHOD, test_dataset=None, test_samples=0)
    house.surplus(1000)
    house.tick()
    house.do(partial(admit.revoke_node, node_id="attic"))
    assert {unit.only_node: unit.state for unit in house.rows(WorkUnit)} == {"attic": UnitState.ABANDONED, "cellar": UnitState.LEASED}
    house.do(partial(quarantine.quarantine, node_id="cellar", unit_id="k.r0.u0", why="its answer is wrong"))
    assert {unit.state for unit in house.rows(WorkUnit)} == {UnitState.ABANDONED}
    assert not [lease for lease in house.rows(Lease) if lease.live or not lease.settled]


def test_what_a_shut_out_holder_has_finished_is_not_merged_and_not_waited_for(house: House) -> None:
    holder(house, "attic")
    holder(house, "cellar")
    house.job(local="steps", method=METHOD, test_dataset=None, test_samples=0)
    house.surplus(1000)
    house.tick()
    lease = house.held("attic")
    done = UpdateNotice(instance="one", lease_id=lease.lease_id, generation=1, update="7" * 64, steps_executed=5, metrics={"loss": 1.0})
    house.do(partial(collect.update, node_id="attic", message=done, checked=Checked(norm=1.0), rules=house.rules))
    house.do(partial(quarantine.quarantine, node_id="attic", unit_id="k.r0.u0", why="its answer is wrong"))
    assert {unit.only_node: unit.state for unit in house.rows(WorkUnit)} == {"attic": UnitState.ABANDONED, "cellar": UnitState.LEASED}


UNABLE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "memory": ({"memory_bytes": 10**6}, {"memory_bytes": 10}),
    "the program": ({"wasm_lacks": "aten.conv3d.default"}, {"runtime": "wasm-0123abcd"}),
    "the owner": ({"runtime": "torch-x"}, {"runtime": "torch-arm"}),
}
"""What a job asks for, and a holder that has not got it."""


@pytest.mark.parametrize("why", UNABLE)
def test_a_holder_that_cannot_run_the_job_is_not_in_the_round(house: House, why: str) -> None:
    asks, has = UNABLE[why]
    holder(house, "attic")
    holder(house, "cellar")
    tell(house, "cellar", **has)
    house.job(local="steps", method=METHOD, test_dataset=None, test_samples=0, **asks)
    assert [unit[1] for unit in units(house)] == ["attic"]


@pytest.mark.parametrize("why", UNABLE)
def test_nobody_waits_for_a_holder_that_can_no_longer_run_the_job(house: House, why: str) -> None:
    asks, has = UNABLE[why]
    holder(house, "attic")
    holder(house, "cellar")
    house.job(local="steps", method=METHOD, test_dataset=None, test_samples=0, **asks)
    house.surplus(1000)
    house.tick()
    tell(house, "cellar", **has)
    assert {unit.only_node: unit.state for unit in house.rows(WorkUnit)} == {"attic": UnitState.LEASED, "cellar": UnitState.ABANDONED}
    assert house.lease("cellar") is None


@pytest.mark.parametrize("why", UNABLE)
def test_nobody_waits_for_a_holder_that_the_owner_s_new_wishes_leave_out(house: House, why: str) -> None:
    asks, has = UNABLE[why]
    holder(house, "attic")
    holder(house, "cellar")
    tell(house, "cellar", **has)
    spec = house.job(local="steps", method=METHOD, test_dataset=None, test_samples=0)
    wishes = {name: value for name, value in asks.items() if name != "wasm_lacks"}
    lacks = asks.get("wasm_lacks", "")
    house.do(partial(admit.submit, spec=replace(spec, **wishes), initial_bytes=1, wasm_lacks=lacks))
    assert {unit.only_node: unit.state for unit in house.rows(WorkUnit)} == {"attic": UnitState.OPEN, "cellar": UnitState.ABANDONED}


def tell(house: House, node_id: str, *, runtime: str = "torch-x", memory_bytes: int | None = None) -> None:
    """``node_id`` greets with what it has now."""
    hello = Hello(instance="one", runtime=runtime, memory_bytes=memory_bytes, data={"steps": STEPS[node_id]})
    house.do(partial(collect.hello, node_id=node_id, message=hello, rules=house.rules))


@pytest.mark.parametrize("said", ['"samples":0', '"samples":-5', '"samples":1000000001', '"digest":"x"'])
def test_data_that_cannot_be_is_a_bad_message(said: str) -> None:
    """A weight of 0 or less would end a whole job where its updates are merged."""
    good = '{"instance":"one","runtime":"torch-x","data":{"steps":{"digest":"DIGEST","samples":40}}}'.replace("DIGEST", "d" * 64)
    assert decode(good, Hello).data["steps"].samples == 40
    bad = good.replace('"samples":40' if "samples" in said else '"digest":"' + "d" * 64 + '"', said)
    with pytest.raises(MessageError, match="data"):
        decode(bad, Hello)


# -- who may not work is not waited for


def holds(house: House, node_id: str, *, power_w: float = 100.0) -> None:
    house.join(node_id, power_w=power_w)
    greet(house, node_id, STEPS["attic"])


def taking_part(house: House) -> list[str]:
    """Who is in a round that opens now."""
    house.job(local="steps", method=METHOD, test_dataset=None, test_samples=0)
    return [unit.only_node for unit in house.rows(WorkUnit, order="index")]


def test_a_holder_that_its_owner_lets_draw_nothing_is_not_in_the_round(house: House) -> None:
    holds(house, "attic")
    holds(house, "cellar")
    with house.store.write() as tx:
        tx.put(*(replace(consent, max_w=0.0) for consent in tx.find(Consent, node_id="cellar")))
    assert taking_part(house) == ["attic"]


def test_a_holder_that_is_held_out_today_is_not_in_the_round(house: House) -> None:
    house.policy = replace(house.policy, hold_out_share=0.5)
    by_lot: dict[bool, list[str]] = {True: [], False: []}
    for number in range(50):
        by_lot[held_out(f"n{number}", share=0.5, day=f"{house.clock.now():%Y-%m-%d}")].append(f"n{number}")
    holds(house, by_lot[True][0])
    holds(house, by_lot[False][0])
    house.surplus(1000)
    house.tick()
    assert taking_part(house) == [by_lot[False][0]]


def test_a_holder_that_draws_more_than_there_is_is_not_in_the_round(house: House) -> None:
    holds(house, "attic")
    holds(house, "server", power_w=500.0)
    house.surplus(200)
    house.tick()
    assert taking_part(house) == ["attic"]


def test_while_surplus_comes_or_goes_whoever_is_no_larger_than_those_who_have_worked_for_the_job_is_in_the_round(house: House) -> None:
    holds(house, "attic")
    holds(house, "server", power_w=500.0)
    house.surplus(1000)
    house.tick()
    assert taking_part(house) == ["attic", "server"]
    house.tick()
    house.clock.advance(timedelta(minutes=20))
    house.surplus(50)
    house.tick()
    with house.store.write() as tx:
        tx.put(*map(_accepted, tx.find(WorkUnit)))
    house.do(partial(advance.merged, round_id="j.r0", digest="9" * 64, size_bytes=1))
    assert [unit.only_node for unit in house.rows(WorkUnit, round_id="j.r1")] == ["attic", "server"]
