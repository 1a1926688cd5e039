"""An owner's wishes: they move a job in time, and never touch its bits or its id."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from gridsched.core.errors import Conflict, InvalidInput
from gridsched.core.facts import JobSubmitted, WishesChanged
from gridsched.core.job import Job, JobSpec
from gridsched.core.method import Method
from gridsched.flow import admit
from gridsched.owner import _id_of
from tests.flow.conftest import House, of

HOUR = timedelta(hours=1)


def test_an_id_follows_from_what_decides_the_bits_alone(house: House) -> None:
    """The first release gave this one; a job submitted then is still the same job."""
    spec = JobSpec(
        job_id="pending", name="x", program="a" * 64, dataset="b" * 64, samples=10, test_dataset=None, test_samples=0, initial="c" * 64,
        seed=1, method=Method(), zone="de",
    )  # fmt: skip
    assert _id_of(spec) == "x-c95878"
    late = house.clock.now() + HOUR
    assert _id_of(replace(spec, priority=3, deadline=late, top_up=False, top_up_below_eur_mwh=60.0)) == "x-c95878"
    assert _id_of(replace(spec, seed=2)) != "x-c95878"


def submitted(house: House, spec: JobSpec, **wishes: Any) -> list[Any]:
    return house.do(partial(admit.submit, spec=replace(spec, **wishes), initial_bytes=1))[1]


def test_submitting_again_moves_the_deadline_and_nothing_else(house: House) -> None:
    spec = house.job()
    due = house.clock.now() + HOUR
    assert submitted(house, spec) == []
    facts = submitted(house, spec, deadline=due, priority=2)
    assert [(f.deadline, f.priority, f.top_up) for f in of(facts, WishesChanged)] == [(due, 2, True)]
    assert of(facts, JobSubmitted) == []
    [job] = house.rows(Job)
    assert (job.spec.deadline, job.version, job.submitted_at) == (due, 0, house.clock.now())
    assert submitted(house, spec, deadline=due, priority=2) == []


def test_what_decides_the_bits_cannot_be_changed_on_the_way(house: House) -> None:
    with pytest.raises(Conflict, match="under a new id"):
        submitted(house, house.job(), seed=2)


def test_a_deadline_that_is_over_is_refused(house: House) -> None:
    spec = house.job(deadline=house.clock.now() + HOUR)
    with pytest.raises(InvalidInput, match="give a later one"):
        submitted(house, spec, job_id="late", deadline=house.clock.now())
    with pytest.raises(InvalidInput, match="give a later one"):
        submitted(house, spec, deadline=house.clock.now() - HOUR)
    house.clock.advance(2 * HOUR)
    assert submitted(house, spec) == [], "the same again is still the same job"


def test_a_price_limit_is_a_number(house: House) -> None:
    with pytest.raises(InvalidInput, match="finite price"):
        house.job(deadline=house.clock.now() + HOUR, top_up_below_eur_mwh=float("nan"))
