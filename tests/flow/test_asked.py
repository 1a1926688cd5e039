"""Somebody asks how good a version is: one more unit, which ends no epoch, holds up no job and changes no bit."""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from gridsched.core.errors import Conflict, InvalidInput, NotFound
from gridsched.core.job import Job, JobState
from gridsched.core.method import Method
from gridsched.core.round import Epoch, Version
from gridsched.core.work import UnitKind, UnitState, WorkUnit
from gridsched.flow import advance, ask, collect
from gridsched.flow.collect import Checked
from gridsched.testing import Simulation
from gridsched.wire import UpdateNotice
from tests.flow.conftest import House
from tests.sim.conftest import fast_folder


def asked(house: House, number: int = 0) -> None:
    house.do(partial(ask.evaluate, job_id="j", number=number))


def test_asking_opens_one_unit_however_often_one_asks(house: House) -> None:
    house.job()
    asked(house)
    asked(house)
    (unit,) = [unit for unit in house.rows(WorkUnit) if unit.spec.kind is UnitKind.EVALUATE]
    assert (unit.unit_id, unit.spec.version, unit.spec.stop, unit.state) == ("j.v0.e1", 0, 10, UnitState.OPEN)


def test_the_answer_is_the_version_s_and_not_the_epoch_s(house: House) -> None:
    house.job()
    asked(house)
    (unit,) = house.rows(WorkUnit, unit_id="j.v0.e1")
    with house.store.write() as tx:
        tx.put(replace(unit, state=UnitState.ACCEPTED))
    house.do(partial(advance.evaluated, unit=unit, metrics={"loss": 0.5, "samples": 10, "correct": 4, "count": 10}))
    (version,), (epoch,) = house.rows(Version), house.rows(Epoch)
    assert (version.loss, version.accuracy, version.test_samples) == (0.5, 0.4, 10)
    assert (epoch.loss, epoch.accuracy, epoch.ended_at) == (None, None, None)
    assert house.rows(Job)[0].state is JobState.RUNNING
    asked(house)
    assert len(house.rows(WorkUnit, unit_id="j.v0.e1", state=UnitState.OPEN)) == 0, "it is known by now"


def test_what_is_being_evaluated_anyway_is_not_evaluated_twice(house: House) -> None:
    house.job()
    asked(house)
    (unit,) = house.rows(WorkUnit, unit_id="j.v0.e1")
    with house.store.write() as tx:
        tx.delete(WorkUnit, unit_id=unit.unit_id)
        tx.insert(replace(unit, spec=replace(unit.spec, unit_id="j.v0.e0")))
    asked(house)
    assert [unit.unit_id for unit in house.rows(WorkUnit) if unit.spec.kind is UnitKind.EVALUATE] == ["j.v0.e0"]


@pytest.mark.parametrize(("loss", "tries"), [(math.nan, 2), (0.5, 5)])
def test_an_answer_that_cannot_be_had_ends_no_job(house: House, loss: float, tries: int) -> None:
    house.join()
    house.job()
    asked(house)
    with house.store.write() as tx:
        for unit in tx.find(WorkUnit, kind=UnitKind.TRAIN):
            tx.put(replace(unit, only_node="away"))
    for _ in range(tries):
        house.surplus(1000.0)
        house.tick()
        lease = house.held()
        metrics = {"loss": loss, "samples": 10**6}
        message = UpdateNotice(
            instance="one", lease_id=lease.lease_id, generation=lease.generation, update=None, steps_executed=1, metrics=metrics
        )
        house.do(partial(collect.update, node_id="pc", message=message, checked=Checked(), rules=house.rules))
    assert house.rows(WorkUnit, unit_id="j.v0.e1")[0].state is UnitState.ABANDONED
    assert house.rows(Job)[0].state is JobState.RUNNING


def test_what_cannot_be_asked_is_told(house: House) -> None:
    house.job()
    with pytest.raises(NotFound, match="no version 3; it has 0 to 0"):
        asked(house, 3)
    house.do(partial(advance.cancel, job_id="j"))
    with pytest.raises(Conflict, match="is cancelled, so no node works for it; evaluate it here"):
        asked(house)
    house.job("k", test_dataset=None, test_samples=0)
    with pytest.raises(InvalidInput, match="without test samples"):
        house.do(partial(ask.evaluate, job_id="k", number=0))


@pytest.fixture
def folder() -> Iterator[Path]:
    import shutil

    made = fast_folder()
    yield made
    shutil.rmtree(made)


def test_a_node_evaluates_it_and_the_job_ends_in_the_same_bits(folder: Path) -> None:
    digests = []
    for number, curious in enumerate((False, True)):
        (folder / str(number)).mkdir()
        sim = Simulation(folder / str(number))
        sim.add_node("pc", power_w=180.0, steps_per_s=0.5)
        sim.add_job(method=Method(epochs=1, batch_size=8, samples_per_unit=64, units_per_round=2))
        for _ in range(3):
            sim.run_once(1000.0)
        if curious:
            sim.call(partial(ask.evaluate, job_id="sim", number=0))
        sim.run(ticks=200, surplus_w=lambda _: 1000.0)
        with sim.daemon.store.read() as tx:
            assert tx.must(Job, "sim").state is JobState.DONE
            assert (tx.must(Version, "sim", 0).loss is not None) is curious
        digests.append(sim.final_digest())
        sim.close()
    assert digests[0] == digests[1]
