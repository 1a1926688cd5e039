"""Nodes over many slots: no cap, budget or floor is ever broken, the order does not matter, and no timetable beats the bound."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsched.core.errors import InvalidInput
from gridsched.core.horizon import Floats, Horizon, Timetable, Transport, bound, plan_horizon

SLOT_S = 900.0


def horizon(seed: int, *, nodes: int, zones: int = 2, slots: int = 6, unlike: bool = True) -> Horizon:
    """A horizon drawn from ``seed``; not ``unlike``: many nodes are each other's twins."""
    rng = np.random.default_rng(seed)
    power_w = rng.choice([5.0, 60.0, 250.0], nodes) * (rng.uniform(0.8, 1.2, nodes) if unlike else 1.0)
    return Horizon(
        zone=rng.integers(0, zones, nodes),
        power_w=power_w,
        merit=rng.lognormal(0, 0.4, nodes) if unlike else rng.choice([0.5, 1.0], nodes),
        budget_j=np.where(rng.random(nodes) < 0.1, np.inf, power_w * SLOT_S * rng.integers(0, slots + 2, nodes)),
        floor=rng.integers(0, 10, nodes).astype(np.float64),
        cap_w=rng.uniform(0, 0.8, (zones, slots)) * power_w.sum() / zones * (rng.random((zones, slots)) < 0.8),
        reward=rng.integers(0, 12, (zones, slots)).astype(np.float64),
        worth=rng.choice([1.0, 1.5], (zones, slots)),
        slot_s=SLOT_S,
    )


def shuffled(one: Horizon, order: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Horizon:
    columns = {name: getattr(one, name)[order] for name in ("zone", "power_w", "merit", "budget_j", "floor")}
    tables = {name: getattr(one, name) for name in ("cap_w", "reward", "worth", "slot_s")}
    return Horizon(**columns, **tables)


def share_alike(problem: Transport) -> tuple[Floats, Floats]:
    """A solver that knows little: every class gets the same share of every slot; no prices."""
    wanted = problem.most.sum(axis=0)
    share = np.minimum(np.divide(problem.cap, wanted, out=np.zeros_like(wanted), where=wanted > 0), 1.0)
    given = problem.most * share
    rows = np.maximum(given.sum(axis=1), 1e-300)
    return given * np.minimum(problem.supply / rows, 1.0)[:, None], np.zeros(len(wanted))


def ask_too_much(problem: Transport) -> tuple[Floats, Floats]:
    """A solver that is broken: everything for everybody."""
    return problem.most * 9.0, np.zeros(len(problem.cap))


def assert_obeys(one: Horizon, timetable: Timetable) -> None:
    runs = timetable.runs
    assert runs.shape == (one.cap_w.shape[1], len(one.zone))
    for zone, caps in enumerate(one.cap_w):
        mine = one.zone == zone
        assert (runs[:, mine] @ one.power_w[mine] <= caps * (1 + 1e-9)).all()
    assert (runs.sum(axis=0) * one.power_w * one.slot_s <= one.budget_j * (1 + 1e-9)).all()
    assert (one.reward[one.zone].T[runs] >= np.broadcast_to(one.floor, runs.shape)[runs]).all()
    earned = one.worth[one.zone].T * one.merit * one.power_w * one.slot_s
    assert timetable.value == pytest.approx(float(earned[runs].sum()))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 120), st.sampled_from([None, share_alike, ask_too_much]), st.booleans(), st.integers(1, 40))
def test_no_cap_budget_or_floor_is_broken_whatever_the_solver_says(
    seed: int, nodes: int, solve: object, unlike: bool, classes: int
) -> None:
    one = horizon(seed, nodes=nodes, unlike=unlike)
    timetable = plan_horizon(one, solve=solve, classes=classes)  # type: ignore[arg-type]
    assert_obeys(one, timetable)
    prices = np.random.default_rng(seed).exponential(1.0, one.cap_w.shape)
    assert timetable.value <= bound(one, prices) * (1 + 1e-9), "no prices, however wrong, give a bound that can be beaten"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([None, share_alike]), st.booleans())
def test_the_order_of_the_nodes_does_not_matter(seed: int, solve: object, unlike: bool) -> None:
    one = horizon(seed, nodes=60, unlike=unlike)
    order = np.random.default_rng(seed).permutation(60)
    plain, mixed = (plan_horizon(each, solve=solve, classes=12) for each in (one, shuffled(one, order)))  # type: ignore[arg-type]
    assert plain.value == mixed.value
    if unlike:
        assert (plain.runs[:, order] == mixed.runs).all()


def test_without_a_solver_the_best_that_may_still_run_fill_each_slot() -> None:
    one = Horizon(
        zone=np.zeros(3, dtype=np.intp),
        power_w=np.array([100.0, 100.0, 100.0]),
        merit=np.array([1.0, 3.0, 2.0]),
        budget_j=np.array([np.inf, SLOT_S * 100.0, np.inf]),
        floor=np.array([0.0, 0.0, 5.0]),
        cap_w=np.array([[100.0, 100.0, 250.0]]),
        reward=np.array([[9.0, 2.0, 1.0]]),
        worth=np.ones((1, 3)),
        slot_s=SLOT_S,
    )
    assert plan_horizon(one).runs.tolist() == [[False, True, False], [True, False, False], [True, False, False]]


def test_equal_nodes_share_a_class_and_run_every_slot_of_its_quota() -> None:
    """Two hundred twins, two turns each, four slots for a hundred of them: dealt out without a remainder."""
    one = Horizon(
        zone=np.zeros(200, dtype=np.intp),
        power_w=np.full(200, 10.0),
        merit=np.ones(200),
        budget_j=np.full(200, 2 * 10.0 * SLOT_S),
        floor=np.zeros(200),
        cap_w=np.full((1, 4), 1000.0),
        reward=np.ones((1, 4)),
        worth=np.ones((1, 4)),
        slot_s=SLOT_S,
    )
    runs = plan_horizon(one, solve=share_alike, classes=1).runs
    assert (runs.sum(axis=0) == 2).all()
    assert (runs.sum(axis=1) == 100).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"zone": np.array([7])}, "zone"),
        ({"power_w": np.array([0.0])}, "power"),
        ({"merit": np.array([-1.0])}, "merit"),
        ({"budget_j": np.array([-1.0])}, "budget"),
        ({"floor": np.array([np.nan])}, "floors"),
        ({"cap_w": np.array([[np.inf]])}, "cap"),
        ({"worth": np.ones((1, 2))}, "shape"),
        ({"merit": np.ones(2)}, "length"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, object], says: str) -> None:
    table = np.ones((1, 1))
    rows: dict[str, object] = {"zone": np.array([0]), **{name: np.ones(1) for name in ("power_w", "merit", "budget_j", "floor")}}
    with pytest.raises(InvalidInput, match=says):
        Horizon(**{**rows, "cap_w": table, "reward": table, "worth": table, "slot_s": SLOT_S, **change})  # type: ignore[arg-type]
