"""When to work: against every other way of doing it, and drawn as small pictures."""

from datetime import timedelta
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsched.core.errors import InvalidInput
from gridsched.core.forecast import Chain
from gridsched.core.schedule import FORBIDDEN, SHORT, Coming, Effort, Standing, end_of_time, foresee, solve

HOUR = timedelta(hours=1)
QUARTER = timedelta(minutes=15)


def drawn(costs: list[float], **effort: int) -> str:
    """The schedule as one sign a slot: ``#`` works, ``.`` rests."""
    return "".join(".#"[int(run)] for run in solve(np.array(costs), Effort(**effort)).run)


def price_of(runs: tuple[bool, ...], costs: list[float], effort: Effort, standing: Standing) -> float:
    """What a way through the slots costs, told step by step; infinite where it breaks a rule."""
    left, total = effort.work, 0.0
    for run, cost in zip(runs, costs, strict=True):
        if left == 0:
            break
        if run != standing.on and standing.slots < (effort.min_on if standing.on else effort.min_off):
            return np.inf
        if run:
            age = standing.slots if standing.on else 0
            useful = min(effort.done(age), left) / effort.per_slot
            waste = 1 - effort.done(age) / effort.per_slot
            total += cost * useful + max(cost, 0) * waste
            left -= min(effort.done(age), left)
        standing = standing.after(run)
    return total + SHORT * left


@pytest.mark.parametrize(
    ("costs", "effort", "picture"),
    [
        ([9, 1, 9, 1, 9], {"work": 2}, ".#.#."),
        ([9, 1, 2, 1, 9], {"work": 8, "per_slot": 4, "waste": 1}, ".###."),  # one start: three quarters, a whole, and the last quarter
        ([9, 1, 9, 1, 9], {"work": 6, "per_slot": 4, "waste": 1}, ".#.#."),  # two starts of three quarters each
        ([5, 5, 5, 5, 5], {"work": 2}, "##..."),  # where all is equal, the earlier the better
        ([5, -9, 5, -9, 5], {"work": 1}, ".#..."),
        ([0, 0, 0, 0, 0], {"work": 5}, "#####"),
        ([4000, -500, 0, 4000, 1], {"work": 3}, ".##.#"),
        ([-9, -9, -9, -9, -9, -9], {"work": 8, "per_slot": 4, "waste": 2}, "###..."),  # nobody is paid for starting again and again
        ([1, 9, 9, 1, 9, 1], {"work": 2, "min_off": 2}, "#..#.."),
        ([1, 9, 1, 9, 9, 9], {"work": 2, "min_off": 2}, "##...."),
        ([9, 1, 9, 9, 9, 1], {"work": 2, "min_on": 2}, "##...."),
        ([1, 2, 3], {"work": 0}, "..."),
        ([1, FORBIDDEN, 3], {"work": 3}, "#.#"),  # better late than against the policy
    ],
)
def test_the_cheapest_way(costs: list[float], effort: dict[str, int], picture: str) -> None:
    assert drawn(costs, **effort) == picture


efforts = st.builds(
    Effort,
    work=st.integers(0, 9),
    per_slot=st.integers(1, 3),
    waste=st.integers(0, 4),
    min_on=st.integers(1, 3),
    min_off=st.integers(1, 3),
)
prices = st.lists(st.sampled_from([-500.0, -1.0, 0.0, 1.5, 40.0, 4000.0]), min_size=1, max_size=8)
standings = st.builds(Standing, on=st.booleans(), slots=st.integers(1, 4))


@given(costs=prices, effort=efforts, standing=standings)
@settings(deadline=None)
def test_no_other_way_is_cheaper(costs: list[float], effort: Effort, standing: Standing) -> None:
    found = solve(np.array(costs), effort, standing=standing)
    best = min(price_of(runs, costs, effort, standing) for runs in product([False, True], repeat=len(costs)))
    assert found.expected == pytest.approx(best)
    assert price_of(tuple(map(bool, found.run)), costs, effort, standing) == pytest.approx(best)
    assert found.cost + SHORT * found.left == pytest.approx(best)


@given(costs=prices, effort=efforts, standing=standings, cut=st.integers(0, 8))
@settings(deadline=None)
def test_planning_again_on_the_way_changes_nothing(costs: list[float], effort: Effort, standing: Standing, cut: int) -> None:
    """Minimum times and the work done so far are carried across."""
    whole = solve(np.array(costs), effort, standing=standing)
    cut = min(cut, len(costs))
    left = effort.work
    for run in whole.run[:cut]:
        if run:
            left -= min(effort.done(standing.slots if standing.on else 0), left)
        standing = standing.after(bool(run))
    rest = Effort(work=left, per_slot=effort.per_slot, waste=effort.waste, min_on=effort.min_on, min_off=effort.min_off)
    again = solve(np.array(costs[cut:]), rest, standing=standing)
    assert list(again.run) == list(whole.run[cut:])


@pytest.mark.parametrize(
    ("useful", "slot", "waste", "work", "per_slot", "wasted"),
    [
        (42 * HOUR, HOUR, QUARTER, 168, 4, 1),
        (42 * HOUR, HOUR, 2 * QUARTER, 84, 2, 1),
        (42 * HOUR, HOUR, 0 * HOUR, 42, 1, 0),
        (42 * HOUR, QUARTER, QUARTER, 168, 1, 1),
        (42 * HOUR, QUARTER, 2 * QUARTER, 168, 1, 2),
        (HOUR, HOUR, timedelta(minutes=5), 12, 12, 1),
        (HOUR, HOUR, timedelta(minutes=7), 12, 12, 1),  # to the nearest twelfth
        (timedelta(minutes=1), QUARTER, 0 * HOUR, 1, 1, 0),
    ],
)
def test_work_and_waste_become_whole_grains(
    useful: timedelta, slot: timedelta, waste: timedelta, work: int, per_slot: int, wasted: int
) -> None:
    effort = Effort.of(useful, slot=slot, waste=waste)
    assert (effort.work, effort.per_slot, effort.waste) == (work, per_slot, wasted)


def test_too_much_work_for_one_plan_is_refused() -> None:
    with pytest.raises(InvalidInput, match="shorter horizon"):
        Effort(work=1_000_000)


def chain_of(*days: list[float]) -> Chain:
    """Days that are all equally plausible, one after another."""
    deviations = np.array(days, dtype=float)
    n = len(days)
    return Chain(
        profiles=np.zeros((3, deviations.shape[1])),
        deviations=deviations,
        first_deviations=deviations,
        first=np.full(n, 1 / n),
        moves=np.full((n, n), 1 / n),
    )


def coming(days: int, slots: int, ceiling: float | None = None) -> list[Coming]:
    return [Coming(kind=0, columns=np.arange(slots), ceiling=ceiling)] * days


def test_the_spread_of_days_is_worth_waiting_for_though_their_mean_is_not() -> None:
    """Tomorrow each hour is 40 on average; but one of its hours is free, and by tomorrow we shall know which."""
    effort = Effort(work=1)
    spread = chain_of([0.0, 80.0], [80.0, 0.0])
    flat = chain_of([40.0, 40.0], [40.0, 40.0])
    today = np.array([30.0])
    assert not solve(today, effort, end=foresee(spread, coming(1, 2), effort)).run.any()
    assert solve(today, effort, end=foresee(flat, coming(1, 2), effort)).run.all()


def test_what_is_foreseen_is_the_mean_of_what_each_day_would_allow() -> None:
    effort = Effort(work=1)
    ahead = foresee(chain_of([10.0, 70.0], [90.0, 30.0]), coming(1, 2), effort)
    assert ahead[0, 1] == pytest.approx((10 + 30) / 2)
    assert ahead[0, 0] == 0
    two_days = foresee(chain_of([10.0, 70.0], [90.0, 30.0]), coming(2, 2), effort)
    assert two_days[0, 1] == pytest.approx((10 + 20) / 2), "on the dear day one waits for the mean of the next"


def test_above_the_ceiling_nothing_is_planned() -> None:
    ahead = foresee(chain_of([10.0, 70.0]), coming(1, 2, ceiling=20.0), Effort(work=2))
    assert ahead[0, 2] == pytest.approx(10 + SHORT)


def test_the_last_day_before_the_deadline_has_no_future() -> None:
    effort = Effort(work=3)
    assert np.array_equal(foresee(chain_of([1.0]), [], effort), end_of_time(effort))


def test_of_the_present_slot_only_what_is_left_counts() -> None:
    """Ten minutes are left of a cheap hour: they hold a sixth of the work, so the rest needs another hour."""
    costs, effort = np.array([1.0, 9.0, 2.0]), Effort(work=6, per_slot=6)
    assert list(solve(costs, effort).run) == [True, False, False]
    late = solve(costs, effort, part=1 / 6)
    assert list(late.run) == [True, False, True]
    assert late.cost == pytest.approx(1 / 6 + 2 * 5 / 6)
