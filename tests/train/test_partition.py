"""Partitions: every sample in one part, the skew that was asked for, and the same parts from the same seed."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsched.core.errors import DatasetError, InvalidInput
from gridsched.train.partition import Partition, by_label, by_owner, cut, dirichlet, iid, reordered

Y = np.repeat(np.arange(10), 60)[np.random.default_rng(0).permutation(600)]


def labels_in(parts: list[np.ndarray]) -> list[set[int]]:
    return [set(Y[part].tolist()) for part in parts]


@settings(max_examples=60, deadline=None)
@given(
    y=st.lists(st.integers(-3, 3), min_size=12, max_size=80),
    how=st.sampled_from(
        [
            Partition(by="iid", parts=4),
            Partition(by="label", parts=7, labels=1),
            Partition(by="label", parts=9, labels=1),
            Partition(by="dirichlet", parts=3, smallest=1, alpha=0.5),
            Partition(by="owner"),
        ]
    ),
    seed=st.integers(0, 5),
)
def test_every_sample_is_in_exactly_one_part(y: list[int], how: Partition, seed: int) -> None:
    fields = {"y": np.array(y)}
    parts = cut(fields, how, seed=seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(y)))
    assert all((np.diff(part) > 0).all() for part in parts)


def test_the_same_seed_cuts_alike_and_another_differently() -> None:
    for how in (Partition(by="iid"), Partition(by="label", labels=2), Partition(by="dirichlet")):
        once, again, other = (cut({"y": Y}, how, seed=seed) for seed in (1, 1, 2))
        assert all(np.array_equal(a, b) for a, b in zip(once, again, strict=True))
        assert not all(np.array_equal(a, b) for a, b in zip(once, other, strict=True)), how.by


def test_iid_parts_are_as_equal_as_they_can_be_and_mixed() -> None:
    parts = iid(603, 10, seed=0)
    assert {len(part) for part in parts} == {60, 61}
    assert all(len(found) >= 8 for found in labels_in(iid(600, 10, seed=0)))


@pytest.mark.parametrize("labels", [1, 2, 3])
def test_ten_parts_hold_as_many_labels_as_asked(labels: int) -> None:
    held = labels_in(by_label(Y, 10, labels=labels, seed=3))
    assert [len(found) for found in held] == [labels] * 10
    assert all(part in found for part, found in enumerate(held)), "part i holds label i"


def test_few_parts_of_several_labels_share_none() -> None:
    held = labels_in(by_label(Y, 5, labels=2, seed=0))
    assert sum(map(len, held)) == 10
    assert set().union(*held) == set(range(10))


def test_a_label_is_shared_equally_by_those_who_hold_it() -> None:
    parts = by_label(Y, 20, labels=1, seed=0)
    assert {len(part) for part in parts} == {30}


def test_a_smaller_alpha_is_more_uneven() -> None:
    def unevenness(alpha: float) -> float:
        shares = [np.bincount(Y[part], minlength=10) / 60 for part in dirichlet(Y, 10, alpha=alpha, seed=0, smallest=1)]
        return float(np.stack(shares).std())

    assert unevenness(0.1) > 1.5 * unevenness(100.0)
    assert min(map(len, dirichlet(Y, 10, alpha=0.5, seed=0, smallest=20))) >= 20


def test_each_owner_has_a_part() -> None:
    owner = np.array(["kim", "ann", "kim", "bo"])
    assert [part.tolist() for part in by_owner(owner)] == [[1], [3], [0, 2]]


def test_reordered_puts_parts_next_to_one_another() -> None:
    fields = {"x": np.arange(6) * 10, "y": np.arange(6)}
    moved, sizes = reordered(fields, [[4, 1], [0, 5, 2]])
    assert sizes == (2, 3)
    assert moved["y"].tolist() == [4, 1, 0, 5, 2]
    assert moved["x"].tolist() == [40, 10, 0, 50, 20]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([[0, 1], [1, 2]], "two parts"),
        ([[0, 6]], "position 6"),
        ([[-1, 0]], "position -1"),
        ([[0], []], "none of them empty"),
        ([], "none of them empty"),
        ([[0.5]], "positions"),
        (5, "one list of positions for each part"),
    ],
)
def test_what_is_no_partition_is_refused(parts: Any, said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        reordered({"y": np.arange(6)}, parts)


def test_what_cannot_be_cut_so_is_refused() -> None:
    with pytest.raises(DatasetError, match="cannot hold 10 labels"):
        by_label(Y, 4, labels=2, seed=0)
    with pytest.raises(DatasetError, match="600 samples are not enough"):
        dirichlet(Y, 10, alpha=0.5, seed=0, smallest=61)
    with pytest.raises(DatasetError, match="no draw in 1000"):
        dirichlet(Y % 2, 10, alpha=0.01, seed=0, smallest=20)
    with pytest.raises(DatasetError, match="cut into 601 parts"):
        iid(600, 601, seed=0)
    with pytest.raises(DatasetError, match="needs field 'who'"):
        cut({"y": Y}, Partition(by="owner", field="who"), seed=0)
    with pytest.raises(DatasetError, match="one value per sample"):
        by_owner(np.zeros((4, 2)))


@pytest.mark.parametrize(
    "wrong", [{"by": "size"}, {"by": "iid", "parts": 0}, {"by": "label", "labels": 1.5}, {"by": "dirichlet", "alpha": 0}]
)
def test_a_partition_is_checked_at_birth(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="partition"):
        Partition(**wrong)  # type: ignore[arg-type]  # on purpose
