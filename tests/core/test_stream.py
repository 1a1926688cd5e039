"""Streams cut an epoch into units one after another, cut them smaller or train them again, and never lose or double a sample."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsched.core.cut import open_round, rounds_per_epoch, units_per_epoch
from gridsched.core.errors import InvalidInput
from gridsched.core.job import JobSpec
from gridsched.core.method import METHODS, Method
from gridsched.core.round import Round
from gridsched.core.stream import again, cut, rebased, split, weight
from gridsched.core.work import WorkUnit

NOW = datetime(2018, 5, 1, tzinfo=UTC)
A, B = "a" * 64, "b" * 64


def stream(samples: int = 1000, *, per_unit: int = 256, quorum: int = 2, batch_size: int = 32, passes: int = 1) -> JobSpec:
    method = Method(samples_per_unit=per_unit, units_per_round=4, quorum=quorum, batch_size=batch_size, passes=passes)
    return JobSpec(
        job_id="j",
        name="j",
        program=A,
        dataset=B,
        samples=samples,
        test_dataset=None,
        test_samples=0,
        initial=A,
        seed=7,
        method=method,
        zone="de-lu",
    )


def opened(job: JobSpec, number: int = 0, *, base: str = A, epoch: int = 0) -> Round:
    return open_round(job, number=number, base=base, now=NOW, epoch=epoch)


def span(unit: WorkUnit) -> tuple[int, int]:
    return unit.spec.start, unit.spec.stop


def test_an_epoch_is_cut_one_unit_after_another_under_ids_of_its_own() -> None:
    job = stream()
    units = [cut(job, opened(job, 3, epoch=1), place) for place in range(units_per_epoch(job))]
    assert [(u.unit_id, u.index, *span(u)) for u in units] == [
        ("j.e1.u0", 0, 0, 256),
        ("j.e1.u1", 1, 256, 512),
        ("j.e1.u2", 2, 512, 768),
        ("j.e1.u3", 3, 768, 1000),
    ]
    assert {(u.spec.version, u.spec.base, u.spec.epoch, u.round_id) for u in units} == {(3, A, 1, "j.r3")}
    assert rounds_per_epoch(job) == 2


def test_a_stream_over_parts_takes_them_in_the_order_drawn_for_its_epoch() -> None:
    job = replace(stream(20), parts=tuple([1] * 20), method=Method(samples_per_unit=0, units_per_round=4, quorum=2))
    orders = [[cut(job, opened(job, epoch=epoch), place).spec.first for place in range(20)] for epoch in (0, 1)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(20))
    assert orders[0] != orders[1]


def test_what_no_node_has_seen_takes_the_new_base_and_keeps_its_id() -> None:
    job = stream()
    unit = cut(job, opened(job), 1)
    moved = rebased(unit, opened(job, 4, base=B))
    assert (moved.unit_id, moved.spec.version, moved.spec.base, moved.round_id, span(moved)) == ("j.e0.u1", 4, B, "j.r4", span(unit))
    with pytest.raises(AssertionError, match="under a new id"):
        rebased(replace(unit, leases=1), opened(job, 4))


def test_a_range_trained_again_is_a_new_unit_with_nothing_of_the_old_one() -> None:
    job = stream()
    old = replace(cut(job, opened(job), 1), leases=3, continuation=B, continuation_step=5)
    first = again(old, opened(job, 9, base=B))
    second = again(first, opened(job, 20, base=A))
    assert [first.unit_id, second.unit_id] == ["j.e0.u1.v9", "j.e0.u1.v20"]
    assert (first.leases, first.continuation, first.continuation_step, span(first), first.index) == (0, None, 0, span(old), 1)
    assert (first.spec.base, first.spec.version, second.spec.base, second.spec.version) == (B, 9, A, 20)


@pytest.mark.parametrize(("speed", "cut_at"), [(0.0, None), (1.07, None), (1.0, 416), (0.5, 320), (0.01, 288)])
def test_a_unit_is_cut_at_a_batch_where_the_node_would_take_half_longer_than_wished(speed: float, cut_at: int | None) -> None:
    job = stream()
    pieces = split(cut(job, opened(job), 1), speed=speed, seconds=5.0)
    assert (None if pieces is None else pieces[0].spec.stop) == cut_at
    if pieces is not None and cut_at == 320:
        assert [p.unit_id for p in pieces] == ["j.e0.u1.256-320", "j.e0.u1.320-512"]


@given(st.integers(1, 600), st.integers(1, 64), st.integers(1, 3), st.lists(st.floats(0.01, 5.0), min_size=1, max_size=6), st.booleans())
def test_pieces_of_pieces_hold_every_sample_once_in_whole_batches(
    samples: int, batch_size: int, passes: int, speeds: list[float], anew: bool
) -> None:
    job = stream(samples, per_unit=600, batch_size=batch_size, passes=passes)
    whole = cut(job, opened(job), 0)
    done, rest = [], again(whole, opened(job, 5)) if anew else whole
    for speed in speeds:
        pieces = split(rest, speed=speed, seconds=4.0)
        if pieces is None:
            continue
        assert pieces[0].spec.steps / speed <= max(4.0, passes / speed) + 1e-9
        done.append(pieces[0])
        rest = pieces[1]
    spans = [span(unit) for unit in [*done, rest]]
    assert (spans[0][0], spans[-1][1]) == (0, samples)
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    assert all(start % batch_size == 0 for start, _ in spans)
    ids = [unit.unit_id for unit in [*done, rest]]
    assert len(set(ids)) == len(ids)
    assert all(unit_id.endswith(".v5") == anew for unit_id in ids)


def test_weights_fall_with_staleness_and_are_the_samples_without_it() -> None:
    assert weight(64, staleness=0, power=0.5) == 64.0
    assert weight(64, staleness=3, power=0.5) == 32.0
    assert weight(64, staleness=7, power=0.0) == 64.0
    weights = [weight(1, staleness=s, power=0.5) for s in range(20)]
    assert weights == sorted(weights, reverse=True)
    assert (weights[1] * 2**32).is_integer(), "no bit of a C library's power is left in it"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"quorum": 5, "units_per_round": 4}, "can never be reached"),
        ({"unit_seconds": 60.0}, "needs a quorum"),
        ({"unit_seconds": 60.0, "grace_s": 60.0}, "needs a quorum"),
        ({"quorum": 2, "grace_s": 60.0}, "leave one out"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(changes: dict[str, float], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        Method(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["async", "buffered"])
def test_the_presets_with_a_quorum_give_exactness_up_and_say_so(name: str) -> None:
    assert Method(quorum=METHODS[name]["quorum"], units_per_round=METHODS[name]["units_per_round"]).exact_is_given_up
