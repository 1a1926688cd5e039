"""Rounds cut every epoch into units so that each sample is trained exactly once."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsched.core.cut import evaluation_unit, lone_sample, open_round, rounds_per_epoch, seed_of, total_rounds, units_of
from gridsched.core.errors import IllegalMove, InvalidInput
from gridsched.core.job import JobSpec
from gridsched.core.method import Method
from gridsched.core.round import RoundState, Version, close

NOW = datetime(2018, 5, 1, tzinfo=UTC)
A, B, C = "a" * 64, "b" * 64, "c" * 64


def spec(samples: int = 1000, *, per_unit: int = 256, per_round: int = 2, epochs: int = 3, test: int = 100) -> JobSpec:
    return JobSpec(
        job_id="digits",
        name="digits",
        program=A,
        dataset=B,
        samples=samples,
        test_dataset=C if test else None,
        test_samples=test,
        initial=A,
        seed=7,
        method=Method(epochs=epochs, samples_per_unit=per_unit, units_per_round=per_round),
        zone="de-lu",
    )


@given(st.integers(1, 5000), st.integers(1, 700), st.integers(1, 9), st.integers(1, 3))
def test_every_sample_is_in_exactly_one_unit_of_every_epoch(samples: int, per_unit: int, per_round: int, epochs: int) -> None:
    job = spec(samples, per_unit=per_unit, per_round=per_round, epochs=epochs)
    for epoch in range(epochs):
        seen: list[tuple[int, int]] = []
        for number in range(total_rounds(job)):
            rnd = open_round(job, number=number, base=A, now=NOW)
            if rnd.epoch == epoch:
                seen += [(u.spec.start, u.spec.stop) for u in units_of(job, rnd)]
                assert all(u.spec.epoch == epoch and u.spec.version == number for u in units_of(job, rnd))
        assert (seen[0][0], seen[-1][1]) == (0, samples)
        assert all(before[1] == after[0] for before, after in pairwise(seen))


def test_a_thousand_samples_make_two_rounds_of_two_units() -> None:
    job = spec()
    assert (rounds_per_epoch(job), total_rounds(job)) == (2, 6)
    last = units_of(job, open_round(job, number=1, base=A, now=NOW))
    assert [(u.unit_id, u.spec.start, u.spec.stop, u.spec.steps) for u in last] == [
        ("digits.r1.u0", 512, 768, 8),
        ("digits.r1.u1", 768, 1000, 8),
    ]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.integers(0, 15), st.integers(1, 3))
def test_every_part_is_one_unit_of_every_epoch(parts: list[int], per_round: int, epochs: int) -> None:
    method = Method(epochs=epochs, samples_per_unit=0, units_per_round=per_round)
    job = replace(spec(sum(parts)), parts=tuple(parts), method=method)
    stretches = [(sum(parts[:k]), size, 0, size) for k, size in enumerate(parts)]
    for epoch in range(epochs):
        rounds = [open_round(job, number=number, base=A, now=NOW) for number in range(total_rounds(job))]
        units = [unit.spec for rnd in rounds if rnd.epoch == epoch for unit in units_of(job, rnd)]
        assert sorted((u.first, u.of, u.start, u.stop) for u in units) == stretches


def test_parts_come_in_another_order_each_epoch() -> None:
    job = replace(spec(20), parts=(1,) * 20, method=Method(epochs=2, samples_per_unit=0, units_per_round=1))
    firsts = [units_of(job, open_round(job, number=number, base=A, now=NOW))[0].spec.first for number in range(40)]
    assert firsts[:20] != firsts[20:]
    assert sorted(firsts[:20]) == sorted(firsts[20:]) == list(range(20))


def test_a_job_on_one_part_sees_that_part_alone() -> None:
    job = replace(spec(1000, per_unit=200), parts=(300, 700), part=1)
    units = [u.spec for n in range(2) for u in units_of(job, open_round(job, number=n, base=A, now=NOW))]
    assert [(u.first, u.of, u.start, u.stop) for u in units] == [(300, 700, a, min(a + 200, 700)) for a in (0, 200, 400, 600)]


@pytest.mark.parametrize(("parts", "part"), [((3, 4), -1), ((), 0), ((500, 500), 2), ((0, 1000), -1)])
def test_parts_that_do_not_fit_the_dataset_are_refused(parts: tuple[int, ...], part: int) -> None:
    with pytest.raises(InvalidInput, match="part"):
        replace(spec(1000), parts=parts, part=part)


def test_a_round_closes_once() -> None:
    merged = close(open_round(spec(), number=0, base=A, now=NOW), RoundState.MERGED, NOW)
    with pytest.raises(IllegalMove, match=r"digits\.r0 is already merged"):
        close(merged, RoundState.ABANDONED, NOW)


def test_a_job_without_held_out_samples_has_no_evaluation() -> None:
    version = Version(job_id="digits", number=2, digest=B, parent=A, round_id="digits.r1", epoch=0, updates=(), size_bytes=1, made_at=NOW)
    assert evaluation_unit(spec(test=0), version=version) is None
    unit = evaluation_unit(spec(test=100), version=version)
    assert unit is not None
    assert (unit.unit_id, unit.spec.stop, unit.spec.base) == ("digits.v2.e0", 100, B)


@pytest.mark.parametrize(("batch_size", "micro_batch"), [(1, 0), (8, 0), (256, 0), (256, 16)])
def test_an_evaluation_computes_no_more_samples_at_once_than_memory_was_measured_for(batch_size: int, micro_batch: int) -> None:
    version = Version(job_id="digits", number=2, digest=B, parent=A, round_id="digits.r1", epoch=0, updates=(), size_bytes=1, made_at=NOW)
    method = Method(batch_size=batch_size, micro_batch=micro_batch)
    unit = evaluation_unit(replace(spec(test=1000), method=method), version=version)
    assert unit is not None
    assert (unit.spec.batch_size, unit.spec.micro_batch) == (batch_size, micro_batch)


@pytest.mark.parametrize(
    ("samples", "per_unit", "batch_size", "found"),
    [(70, 33, 32, 33), (100, 34, 32, 0), (97, 32, 32, 1), (33, 256, 32, 33), (64, 256, 1, 64), (64, 256, 64, 0)],
)
def test_a_unit_that_ends_in_a_lone_sample_is_found(samples: int, per_unit: int, batch_size: int, found: int) -> None:
    job = replace(spec(samples), method=Method(batch_size=batch_size, samples_per_unit=per_unit))
    assert lone_sample(job) == found
    units = [unit.spec for n in range(rounds_per_epoch(job)) for unit in units_of(job, open_round(job, number=n, base=A, now=NOW))]
    assert [unit.samples for unit in units if unit.last_batch == 1][:1] == ([found] if found else [])
    assert lone_sample(replace(job, local="own")) == 0


def test_parts_and_a_member_s_part_are_looked_at_for_a_lone_sample() -> None:
    job = replace(spec(100), parts=(34, 33, 33), method=Method(batch_size=32))
    assert lone_sample(job) == 33
    assert [lone_sample(replace(job, part=part)) for part in range(3)] == [0, 33, 33]


def test_seeds_depend_on_every_part_and_its_place() -> None:
    assert len({seed_of(1, 23), seed_of(12, 3), seed_of(1, 2, 3), seed_of(123)}) == 4
    assert seed_of(1, 2) == seed_of(1, 2)
    assert 0 <= seed_of("x") < 2**63
