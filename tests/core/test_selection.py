"""Node selection for one slot: no domain is overdrawn, a choice is found wherever there is one, and it is nearly the best."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsched.core.errors import InvalidInput
from gridsched.core.selection import Mask, Selection, Slot, select

Row = tuple[int, float, float, float]  # domain, least J, most J, value per J
ENERGY_J = (1000.0, 300.0, 0.0)


def slot(rows: Sequence[Row], *, fewest: int, most: int | None = None, energy_j: Sequence[float] = ENERGY_J) -> Slot:
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return Slot(
        domain=table[:, 0].astype(np.intp),
        least_j=table[:, 1],
        most_j=table[:, 2],
        value_per_j=table[:, 3],
        energy_j=np.array(energy_j),
        fewest=fewest,
        most=fewest if most is None else most,
    )


def found(one: Slot) -> Selection:
    selection = select(one)
    assert selection is not None
    return selection


def by_trying_all(one: Slot) -> float | None:
    """The best value of all sets; a set's energy is shared out by price: what a joule is worth, dearest first."""
    n, best = len(one.domain), None
    for size in range(one.fewest, min(one.most, n) + 1):
        for some in combinations(range(n), size):
            left_j = one.energy_j.copy()
            for i in some:
                left_j[one.domain[i]] -= one.least_j[i]
            if (left_j < 0).any():
                continue
            value = sum(one.least_j[i] * one.value_per_j[i] for i in some)
            for i in sorted(some, key=lambda i: -one.value_per_j[i]):
                more_j = min(one.most_j[i] - one.least_j[i], left_j[one.domain[i]])
                left_j[one.domain[i]] -= more_j
                value += more_j * one.value_per_j[i]
            best = value if best is None else max(best, value)
    return best


watts = st.integers(0, 600).map(float)
rows = st.lists(
    st.tuples(st.integers(0, 2), watts, watts, st.integers(0, 40).map(lambda v: v / 10)).map(
        lambda r: (r[0], min(r[1], r[2]), max(r[1], r[2]), r[3])
    ),
    max_size=7,
)


@settings(max_examples=100, deadline=None)
@given(rows, st.integers(0, 4), st.integers(0, 3))
def test_a_choice_is_found_wherever_there_is_one_and_nearly_the_best(drawn: list[Row], fewest: int, more: int) -> None:
    one = slot(drawn, fewest=fewest, most=fewest + more)
    best, selection = by_trying_all(one), select(one)
    assert (selection is None) == (best is None)
    if selection is None or best is None:
        return
    assert fewest <= selection.chosen.sum() <= fewest + more
    assert (selection.energy_j >= np.where(selection.chosen, one.least_j, 0.0) - 1e-6).all()
    assert (selection.energy_j <= np.where(selection.chosen, one.most_j, 0.0) + 1e-6).all()
    assert (np.bincount(one.domain, selection.energy_j, 3) <= one.energy_j + 1e-6).all()
    assert selection.value == pytest.approx(float(selection.energy_j @ one.value_per_j))
    assert 0.9 * best - 1e-6 <= selection.value <= best + 1e-6 <= selection.bound + 2e-6


@settings(max_examples=30, deadline=None)
@given(rows, st.integers(0, 4), st.randoms(use_true_random=False))
def test_the_order_of_the_nodes_does_not_matter(drawn: list[Row], fewest: int, random: object) -> None:
    shuffled = list(drawn)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = (select(slot(order, fewest=fewest, most=fewest + 2)) for order in (drawn, shuffled))
    if one is None or other is None:
        assert one is other
        return
    taken = [sorted(row for row, yes in zip(order, s.chosen, strict=True) if yes) for order, s in ((drawn, one), (shuffled, other))]
    assert taken[0] == taken[1]
    assert one.value == other.value


def test_the_most_valuable_gets_what_the_least_needs_of_the_others_leave() -> None:
    selection = found(slot([(0, 100, 900, 2.0), (0, 200, 900, 1.0)], fewest=2))
    assert selection.energy_j.tolist() == [800.0, 200.0]


def test_a_greedy_node_is_left_out_where_it_would_leave_too_few() -> None:
    selection = found(slot([(0, 900, 900, 9.0), (0, 300, 400, 1.0), (0, 300, 400, 1.0)], fewest=2))
    assert selection.chosen.tolist() == [False, True, True]


def test_the_nodes_that_need_least_are_found_however_little_they_are_worth() -> None:
    rows = [(0, 101.0, 101.0, 1.0), (0, 100.0, 100.0, 0.0), (0, 101.0, 101.0, 1.0), (0, 100.0, 100.0, 0.0)]
    assert found(slot(rows, fewest=2, energy_j=[200.0])).chosen.tolist() == [False, True, False, True]


def test_a_pair_that_no_price_ranks_first_is_found_by_exchange() -> None:
    rows = [(0, 700.0, 900.0, 7.0), (0, 100.0, 100.0, 6.0), (0, 100.0, 400.0, 2.0), (0, 500.0, 600.0, 7.0), (0, 300.0, 600.0, 1.0)]
    one = slot(rows, fewest=2, energy_j=[1000.0])
    assert (found(one).value, by_trying_all(one)) == (6900.0, 6900.0)


@pytest.mark.parametrize(
    ("rows", "fewest", "most", "best"),
    [
        ([(0, 0.0, 0.0, 0.0), (0, 0.0, 23.0, 0.3), (0, 150.0, 150.0, 0.4), (0, 151.0, 151.0, 0.4)], 0, 2, 151 * 0.4 + 23 * 0.3),
        ([(0, 100, 500, 1.0), (0, 150, 450, 2.0), (0, 300, 350, 7.0), (0, 150, 150, 1.0), (0, 50, 200, 1.0)], 2, 4, 250 * 2.0 + 50),
    ],
    ids=["one more beside a good set of fewer", "one less of a good set of more"],
)
def test_a_set_that_no_price_ranks_first_is_found_from_its_neighbours(rows: list[Row], fewest: int, most: int, best: float) -> None:
    one = slot(rows, fewest=fewest, most=most, energy_j=[300.0])
    assert found(one).value == by_trying_all(one) == pytest.approx(best)


def test_a_node_that_fits_nowhere_leaves_no_doubt_of_the_choice() -> None:
    selection = found(slot([(0, 400.0, 500.0, 9.0), (0, 100.0, 200.0, 1.0)], fewest=0, most=1, energy_j=[300.0]))
    assert selection.value == selection.bound == pytest.approx(200.0)


def test_an_empty_domain_serves_who_needs_nothing_and_nobody_else() -> None:
    assert select(slot([(2, 1.0, 5.0, 1.0)], fewest=1)) is None
    assert found(slot([(2, 0.0, 5.0, 1.0)], fewest=1)).energy_j.tolist() == [0.0]


class Asked:
    """An exact solver that was asked for these slots and always says ``answer``."""

    def __init__(self, answer: list[bool]) -> None:
        self.answer, self.slots = np.array(answer), list[Slot]()

    def __call__(self, one: Slot) -> Mask:
        self.slots.append(one)
        return self.answer


DOUBTFUL = slot([(0, 400, 400, 1.0), (0, 400, 400, 1.0), (0, 700, 700, 1.0)], fewest=1, most=2)


@pytest.mark.parametrize(("good_enough", "times"), [(0.5, 0), (0.999, 1)])
def test_an_exact_solver_is_asked_only_where_the_bound_leaves_doubt(good_enough: float, times: int) -> None:
    exact = Asked([True, True, False])
    selection = select(DOUBTFUL, exact=exact, good_enough=good_enough)
    assert selection is not None
    assert (selection.value, round(selection.bound, 6), len(exact.slots)) == (800.0, 1000.0, times)


@pytest.mark.parametrize("answer", [[True, False, True], [True, True, True], [False, False, False]])
def test_a_set_that_overdraws_or_miscounts_is_not_taken_from_a_solver_either(answer: list[bool]) -> None:
    selection = select(DOUBTFUL, exact=Asked(answer), good_enough=1.0)
    assert selection is not None
    assert selection.chosen.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("row", "says"),
    [((9, 1, 2, 1), "domain"), ((0, 3, 2, 1), "least"), ((0, 1, float("inf"), 1), "finite"), ((0, 1, 2, -1), "worth")],
)
def test_what_cannot_be_is_refused(row: Row, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        slot([row], fewest=1)
