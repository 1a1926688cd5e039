"""What is left to do: counted in steps, weighed at the speed that was measured."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsched.core.cut import evaluation_unit, open_round, rounds_per_epoch, total_rounds, units_of
from gridsched.core.job import JobSpec
from gridsched.core.method import Method
from gridsched.core.round import Round, RoundState, Version
from gridsched.core.workload import SAFETY, Hand, stretch, total_steps, weigh, within
from tests.core.test_metrics import NOW

A = "a" * 64


def spec(samples: int = 100, tests: int = 0, **method: Any) -> JobSpec:
    return JobSpec(
        job_id="j", name="j", program=A, dataset=A, samples=samples, test_dataset=A if tests else None, test_samples=tests, initial=A,
        seed=1, method=Method(**method), zone="de",
    )  # fmt: skip


def counted(job: JobSpec, after: int) -> int:
    """The steps of every unit that is still to be made, one by one."""
    steps = 0
    for number in range(after, total_rounds(job)):
        rnd: Round = open_round(job, number=number, base=A, now=NOW)
        assert rnd.state is RoundState.OPEN
        steps += sum(unit.spec.steps for unit in units_of(job, rnd))
        if (number + 1) % rounds_per_epoch(job) == 0:
            version = Version(
                job_id="j", number=number + 1, digest=A, parent=A, round_id=None, epoch=rnd.epoch, updates=(), size_bytes=1, made_at=NOW
            )
            test = evaluation_unit(job, version=version)
            steps += test.spec.steps if test else 0
    return steps


@given(
    samples=st.integers(1, 300),
    tests=st.integers(0, 200),
    epochs=st.integers(1, 3),
    batch_size=st.integers(1, 40),
    samples_per_unit=st.integers(1, 90),
    units_per_round=st.integers(1, 4),
    passes=st.integers(1, 2),
    done=st.floats(0, 1),
)
def test_the_formula_counts_every_unit_to_come(samples: int, tests: int, done: float, **method: int) -> None:
    job = spec(samples, tests, **method)
    after = round(done * total_rounds(job))
    assert total_steps(job, after_round=after) == counted(job, after)


@pytest.mark.parametrize(
    ("speeds", "units", "longer"),
    [
        ([1.0], 4, 1.0),
        ([1.0, 1.0], 4, 1.0),
        ([1.0, 1.0], 3, 4 / 3),  # one of two nodes waits while the other does the third
        ([1.0, 0.1], 2, 10 * 1.1 / 2),  # the quick one waits for the slow one
        ([1.0, 0.1], 1, 1.1),
        ([1.0, 0.5], 2, 1.5),
        ([3.0], 100_000, 1.0),
    ],
)
def test_a_round_ends_with_its_last_unit(speeds: list[float], units: int, longer: float) -> None:
    assert stretch(speeds, units) == pytest.approx(longer)


def hands(*rows: tuple[str, float, float]) -> list[Hand]:
    return [Hand(node_id=name, power_w=watts, speed=speed) for name, watts, speed in rows]


def test_the_best_that_fit_are_counted_and_one_never_measured_is_a_usual_one() -> None:
    found = within(hands(("slow", 100, 1), ("quick", 100, 5), ("new", 100, 0)), watts=200, most=9)
    assert [(hand.node_id, hand.speed) for hand in found] == [("quick", 5), ("new", 3)]
    assert [hand.node_id for hand in within(hands(("a", 100, 1), ("b", 100, 1)), watts=500, most=1)] == ["a"]


def test_the_time_is_steps_by_speed_with_a_margin() -> None:
    job = spec(samples=100, epochs=1, batch_size=1, samples_per_unit=50, units_per_round=2)
    load = weigh(job, steps=100, hands=hands(("a", 100, 1), ("b", 100, 1), ("c", 100, 1)), watts=250)
    assert (load.speed, load.hands, load.room) == (2, 2, 2)
    assert load.time == timedelta(seconds=50 * SAFETY)
    roomy = weigh(job, steps=100, hands=hands(("a", 100, 1), ("b", 100, 1), ("c", 100, 1)), watts=300)
    assert (roomy.hands, roomy.room) == (2, 3), "a round has two units, so the third node is free for another job"


def test_before_anything_was_measured_the_time_is_not_known() -> None:
    assert weigh(spec(), steps=10, hands=hands(("a", 100, 0)), watts=500).time is None
    assert weigh(spec(), steps=10, hands=[], watts=500).time is None
    assert weigh(spec(), steps=10, hands=hands(("a", 100, 2)), watts=50).time is None
    assert weigh(spec(), steps=0, hands=[], watts=0).time == timedelta(0)
