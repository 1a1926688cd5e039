"""Robust merging: the papers' rules against plain numpy, and what lying units cannot do."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsched.core.method import Codec, MergeRule, Method, OuterOptimizer
from gridsched.train import robust
from gridsched.train.codec import BLOCK, encode
from gridsched.train.merge import merge_version
from gridsched.train.robust import bad_units
from gridsched.train.tensors import Array
from gridsched.train.version import Version, read_version

SIZE = 2 * BLOCK + 31
RULES = [MergeRule.NORM_BOUND, MergeRule.MEDIAN, MergeRule.TRIMMED_MEAN, MergeRule.KRUM]
Delta = dict[str, Array]


def zeros() -> Delta:
    return {
        "w": np.zeros(SIZE, np.float32),
        "wide": np.zeros((3, 5), np.float64),
        "running_var": np.zeros(4, np.float32),
        "tracked": np.array(0, np.int64),
    }


def honest(seed: int) -> Delta:
    draw = np.random.default_rng(seed)
    return {
        "w": (1 + 0.1 * draw.normal(size=SIZE)).astype(np.float32),
        "wide": 1 + 0.1 * draw.normal(size=(3, 5)),
        "running_var": (1 + draw.random(4)).astype(np.float32),
        "tracked": np.array(10 + seed, np.int64),
    }


def scaled(delta: Delta) -> Delta:
    return {name: array * 1000 for name, array in delta.items()}


def flipped(delta: Delta) -> Delta:
    return {name: -array for name, array in delta.items()}


def random(delta: Delta) -> Delta:
    draw = np.random.default_rng(99)
    return {name: (50 * draw.normal(size=array.shape)).astype(array.dtype) for name, array in delta.items()}


def lazy(delta: Delta) -> Delta:
    return zeros()


LIES = [scaled, flipped, random, lazy]


def merged(deltas: Sequence[Delta], method: Method, weights: Sequence[float] | None = None) -> Mapping[str, Array]:
    base = Version(tensors=zeros(), buffers=frozenset({"running_var"})).to_bytes()
    sent = [(f"u{place:03}", weights[place] if weights else 1.0, encode(delta, Codec.RAW)) for place, delta in enumerate(deltas)]
    return read_version(merge_version(base, sent, method).version).tensors


def stacked(deltas: Sequence[Delta], name: str) -> Array:
    return np.stack([delta[name].astype(np.float64) for delta in deltas])


# Against the formulas.


def plain_median(deltas: Sequence[Delta], name: str, bad: int) -> Array:
    found: Array = np.median(stacked(deltas, name), axis=0)
    return found


def plain_trimmed(deltas: Sequence[Delta], name: str, bad: int) -> Array:
    found: Array = np.sort(stacked(deltas, name), axis=0)[bad : len(deltas) - bad].mean(axis=0)
    return found


@given(count=st.integers(1, 13), share=st.floats(0, 0.49), seed=st.integers(0, 50))
@pytest.mark.parametrize(("rule", "plain"), [(MergeRule.MEDIAN, plain_median), (MergeRule.TRIMMED_MEAN, plain_trimmed)])
def test_coordinate_rules_are_the_papers(
    rule: MergeRule, plain: Callable[[Sequence[Delta], str, int], Array], count: int, share: float, seed: int
) -> None:
    deltas = [honest(seed + place) for place in range(count)]
    found = merged(deltas, Method(merge=rule, bad_share=share))
    for name in ("w", "wide", "running_var"):
        np.testing.assert_allclose(found[name], plain(deltas, name, bad_units(share, count)), rtol=1e-6)
    assert found["tracked"] == np.rint(plain(deltas, "tracked", bad_units(share, count)))


def norms(deltas: Sequence[Delta]) -> list[float]:
    return [float(np.sqrt(sum(np.sum(delta[name].astype(np.float64) ** 2) for name in ("w", "wide")))) for delta in deltas]


@given(count=st.integers(1, 9), seed=st.integers(0, 50))
def test_the_norm_bound_scales_what_is_longer_than_the_median_down_to_it_and_keeps_the_weights(count: int, seed: int) -> None:
    deltas = [honest(seed + place) for place in range(count)]
    deltas[0] = scaled(deltas[0])
    weights = [float(1 + place) for place in range(count)]
    found = merged(deltas, Method(merge=MergeRule.NORM_BOUND), weights)
    factors = np.minimum(1.0, np.median(norms(deltas)) / np.array(norms(deltas)))
    for name in ("w", "wide"):
        expected = np.tensordot(np.array(weights) * factors / sum(weights), stacked(deltas, name), axes=1)
        np.testing.assert_allclose(found[name], expected, rtol=1e-5)
    np.testing.assert_allclose(found["running_var"], plain_median(deltas, "running_var", 0), rtol=1e-6)


def plain_krum(deltas: Sequence[Delta], bad: int) -> int:
    flat = np.stack([np.concatenate([delta["w"].astype(np.float64), delta["wide"].ravel()]) for delta in deltas])
    apart = ((flat[:, None] - flat[None]) ** 2).sum(axis=2)
    near = max(len(deltas) - bad - 2, 1)
    return int(np.argmin([np.sort(np.delete(row, place))[:near].sum() for place, row in enumerate(apart)]))


@given(count=st.integers(2, 9), share=st.floats(0, 0.49), seed=st.integers(0, 50))
def test_krum_takes_the_update_nearest_to_its_neighbours_whole(count: int, share: float, seed: int) -> None:
    deltas = [honest(seed + place) for place in range(count)]
    chosen = deltas[plain_krum(deltas, bad_units(share, count))]
    found = merged(deltas, Method(merge=MergeRule.KRUM, bad_share=share))
    assert {name: array.tobytes() for name, array in found.items()} == {name: array.tobytes() for name, array in chosen.items()}


def test_of_two_equally_near_updates_krum_takes_the_first() -> None:
    """Every distance is the same, so the order of the unit ids decides."""
    deltas = [zeros() | {"tracked": np.array(place)} for place in range(4)]
    for place, delta in enumerate(deltas):
        delta["w"][place] = 1.0
    assert merged(deltas, Method(merge=MergeRule.KRUM))["tracked"] == 0


@pytest.mark.parametrize("rule", [MergeRule.MEDIAN, MergeRule.TRIMMED_MEAN, MergeRule.KRUM])
def test_a_liar_gains_nothing_by_claiming_many_samples(rule: MergeRule) -> None:
    deltas = [honest(place) for place in range(5)]
    method = Method(merge=rule)
    plain, weighed = merged(deltas, method), merged(deltas, method, [1e9, 1.0, 1.0, 1.0, 1.0])
    assert all(np.array_equal(plain[name], weighed[name]) for name in plain)


@pytest.mark.parametrize("rule", RULES)
def test_one_update_alone_is_merged_as_it_is(rule: MergeRule) -> None:
    found = merged([honest(0)], Method(merge=rule))
    np.testing.assert_array_equal(found["w"], honest(0)["w"])


# What lies cannot do.


@pytest.mark.parametrize(
    ("share", "count", "bad"), [(0.2, 4, 1), (0.2, 10, 2), (0.1, 30, 3), (0.3, 10, 3), (0.49, 2, 0), (0.49, 3, 1), (0, 9, 0)]
)
def test_a_share_is_rounded_up_to_units_but_stays_a_minority(share: float, count: int, bad: int) -> None:
    assert bad_units(share, count) == bad


@given(
    count=st.integers(3, 12),
    share=st.sampled_from([0.1, 0.2, 0.3, 0.4]),
    lie=st.sampled_from(LIES),
    codec=st.sampled_from([Codec.RAW, Codec.INT8]),
    data=st.data(),
)
@pytest.mark.parametrize("rule", [MergeRule.MEDIAN, MergeRule.TRIMMED_MEAN])
def test_as_many_lies_as_are_provided_for_leave_every_coordinate_among_the_honest_ones(
    rule: MergeRule, count: int, share: float, lie: Callable[[Delta], Delta], codec: Codec, data: st.DataObject
) -> None:
    liars = set(data.draw(st.permutations(range(count)))[: bad_units(share, count)])
    deltas = [lie(honest(place)) if place in liars else honest(place) for place in range(count)]
    found = merged(deltas, Method(merge=rule, bad_share=share, codec=codec))
    for name in zeros():
        truths = stacked([delta for place, delta in enumerate(deltas) if place not in liars], name)
        slack = 1e-5 * np.abs(truths).max()
        assert (found[name] >= truths.min(axis=0) - slack).all()
        assert (found[name] <= truths.max(axis=0) + slack).all()


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize(("count", "liars"), [(5, 1), (9, 3), (13, 5)])
def test_krum_never_takes_a_lie(lie: Callable[[Delta], Delta], count: int, liars: int) -> None:
    """With ``2 * f + 2`` below n, as its paper asks."""
    deltas = [lie(honest(place)) if place < liars else honest(place) for place in range(count)]
    found = merged(deltas, Method(merge=MergeRule.KRUM, bad_share=liars / count))
    assert int(found["tracked"]) in [10 + place for place in range(liars, count)]


@given(count=st.integers(3, 9), lie=st.sampled_from(LIES))
def test_a_minority_of_lies_makes_no_step_longer_than_the_longest_honest_one(count: int, lie: Callable[[Delta], Delta]) -> None:
    liars = (count - 1) // 2
    deltas = [lie(honest(place)) if place < liars else honest(place) for place in range(count)]
    found = dict(merged(deltas, Method(merge=MergeRule.NORM_BOUND)))
    assert norms([found])[0] <= max(norms(deltas[liars:])) * (1 + 1e-5)


@pytest.mark.parametrize("lie", [scaled, random])
def test_the_plain_mean_is_moved_by_a_single_lie(lie: Callable[[Delta], Delta]) -> None:
    """So the tests above do test something."""
    found = merged([lie(honest(0)), *(honest(place) for place in range(1, 9))], Method())
    assert np.abs(found["w"]).max() > 3


# How they work.


@pytest.mark.parametrize("rule", RULES)
def test_a_smaller_block_of_all_updates_changes_no_bit(rule: MergeRule, monkeypatch: pytest.MonkeyPatch) -> None:
    deltas = [honest(place) for place in range(7)]
    whole = merged(deltas, Method(merge=rule))
    monkeypatch.setattr(robust, "_ROWS", 1)
    pieces = merged(deltas, Method(merge=rule))
    assert {name: array.tobytes() for name, array in whole.items()} == {name: array.tobytes() for name, array in pieces.items()}


@pytest.mark.parametrize("rule", [MergeRule.MEDIAN, MergeRule.TRIMMED_MEAN])
@pytest.mark.parametrize("signs", [(1, -1, 1), (-1, 1, -1), (-1, -1, -1)])
def test_a_negative_zero_is_the_zero_it_equals(rule: MergeRule, signs: tuple[int, ...]) -> None:
    """Which of the two is the lesser differs between machines, and a version of negative zeros would show it."""
    base = Version(tensors={"w": np.full(SIZE, -0.0, np.float32)}).to_bytes()
    sent = [(f"u{place}", 1.0, encode({"w": np.full(SIZE, sign * 0.0, np.float32)}, Codec.RAW)) for place, sign in enumerate(signs)]
    found = read_version(merge_version(base, sent, Method(merge=rule)).version).tensors["w"]
    assert not np.signbit(found).any()


@pytest.mark.parametrize("rule", RULES)
def test_the_outer_step_comes_after_the_rule(rule: MergeRule) -> None:
    deltas = [honest(place) for place in range(5)]
    plain = merged(deltas, Method(merge=rule))
    doubled = merged(deltas, replace(Method(merge=rule), outer=OuterOptimizer(lr=2.0)))
    np.testing.assert_allclose(doubled["w"], 2 * plain["w"], rtol=1e-6)
    np.testing.assert_array_equal(doubled["running_var"], plain["running_var"])


def test_sorting_networks_sort_every_pattern_of_zeros_and_ones() -> None:
    """What sorts those sorts anything (Knuth, volume 3, theorem 5.3.4Z)."""
    for count in range(1, 11):
        rows = [((np.arange(2**count) >> bit) & 1) for bit in range(count)]
        ones = np.sum(rows, axis=0)
        for first, last in [(0, count), ((count - 1) // 2, count // 2 + 1)]:
            sorting = list(rows)
            for low, high in robust._network(count, first, last):
                sorting[low], sorting[high] = np.minimum(sorting[low], sorting[high]), np.maximum(sorting[low], sorting[high])
            for place in range(first, last):
                assert np.array_equal(sorting[place], np.where(ones >= count - place, 1, 0))
