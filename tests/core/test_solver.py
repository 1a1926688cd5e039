"""HiGHS as the judge: the selection and the timetable stay within a hundredth of what it proves to be the best."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsched.core.horizon import Transport, bound, plan_horizon
from gridsched.core.selection import Slot, select
from gridsched.solver import select_exactly, solve_transport
from tests.core.test_horizon import assert_obeys, horizon, shuffled
from tests.core.test_selection import by_trying_all
from tests.core.test_selection import rows as slots_rows
from tests.core.test_selection import slot as slot_of


def drawn(seed: int, nodes: int, count: int) -> Slot:
    rng = np.random.default_rng(seed)
    least_j = rng.uniform(100, 900, nodes)
    return Slot(
        domain=rng.integers(0, 5, nodes),
        least_j=least_j,
        most_j=least_j * rng.uniform(1, 5, nodes),
        value_per_j=rng.lognormal(0, 0.6, nodes),
        energy_j=rng.uniform(0, 300, 5) * nodes,
        fewest=count,
        most=count,
    )


@pytest.mark.parametrize("count", [6, 20, 40])
@pytest.mark.parametrize("seed", range(4))
def test_a_selection_is_there_where_the_programme_has_one_and_within_a_hundredth_of_it(seed: int, count: int) -> None:
    one = drawn(seed, 60, count)
    best, selection = select_exactly(one, longest_s=10.0), select(one)
    assert (best is None) == (selection is None)
    if best is None or selection is None:
        return
    optimum = select(one, exact=lambda _: best, good_enough=np.inf)
    assert optimum is not None
    assert 0.99 * optimum.value <= selection.value <= optimum.bound * (1 + 1e-9)


@settings(max_examples=30, deadline=None)
@given(slots_rows, st.integers(0, 4), st.integers(0, 2))
def test_the_programme_says_what_trying_all_sets_says(drawn_rows: list[tuple[int, float, float, float]], fewest: int, more: int) -> None:
    one = slot_of(drawn_rows, fewest=fewest, most=fewest + more)
    best, chosen = by_trying_all(one), select_exactly(one)
    assert (best is None) == (chosen is None)
    if best is None:
        return
    selection = select(one, exact=select_exactly, good_enough=1.0)
    assert selection is not None
    assert selection.value == pytest.approx(best, rel=1e-6, abs=1e-6)


def test_a_transport_problem_and_its_prices() -> None:
    given_w, price = solve_transport(
        Transport(
            value=np.array([[3.0, 3.0], [2.0, 2.0]]),
            most=np.array([[10.0, 10.0], [10.0, 0.0]]),
            supply=np.array([10.0, 10.0]),
            cap=np.array([5.0, 20.0]),
        )
    )
    assert given_w.tolist() == [[0.0, 10.0], [5.0, 0.0]]
    assert price.tolist() == [2.0, 0.0]


def test_where_nothing_may_run_nothing_is_asked_of_the_solver() -> None:
    none = np.zeros((2, 3))
    given_w, price = solve_transport(Transport(value=none, most=none, supply=np.ones(2), cap=np.zeros(3)))
    assert (given_w.tolist(), price.tolist()) == (none.tolist(), [0.0] * 3)


@pytest.mark.parametrize(("nodes", "classes"), [(300, 512), (4000, 256)], ids=["a class for each node", "classes of many"])
@pytest.mark.parametrize("seed", range(3))
def test_a_timetable_reaches_99_percent_of_the_bound_and_beats_the_best_first(nodes: int, classes: int, seed: int) -> None:
    one = horizon(seed, nodes=nodes, slots=24)
    timetable = plan_horizon(one, solve=solve_transport, classes=classes)
    assert_obeys(one, timetable)
    most = bound(one, timetable.price)
    assert plan_horizon(one).value <= timetable.value <= most * (1 + 1e-9)
    assert timetable.value >= 0.985 * most


def test_a_timetable_does_not_depend_on_the_order_of_the_nodes_nor_on_chance() -> None:
    one = horizon(5, nodes=500, slots=24)
    order = np.random.default_rng(5).permutation(500)
    first, again, mixed = (plan_horizon(each, solve=solve_transport, classes=64) for each in (one, one, shuffled(one, order)))
    assert (first.runs == again.runs).all()
    assert (first.runs[:, order] == mixed.runs).all()
