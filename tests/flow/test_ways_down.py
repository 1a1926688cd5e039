"""The way from an older version to the one a unit begins with: told with the offer, and kept as long as it may be asked for."""

from functools import partial
from hashlib import sha256

import pytest

from gridsched.core.round import CHAIN, Version, way
from gridsched.flow import advance
from gridsched.flow.orders import orders_for
from gridsched.flow.retain import named
from gridsched.wire import Order
from tests.flow.conftest import A, House
from tests.flow.test_updates_and_books import finish_round

WHOLE = 1000


def name(what: str, number: int) -> str:
    return sha256(f"{what} {number}".encode()).hexdigest()


def version(number: int) -> str:
    return A if number == 0 else name("version", number)


@pytest.fixture
def house(house: House) -> House:
    house.job(samples=128 * 16, test_dataset=None, test_samples=0)
    house.working()
    return house


def merge(house: House, rounds: int, *, step_bytes: int) -> None:
    for number in range(rounds):
        finish_round(house)
        journal = partial(advance.merged, round_id=f"j.r{number}", digest=version(number + 1), size_bytes=WHOLE, step_bytes=step_bytes)
        house.do(partial(journal, outer=name("outer", number + 1), step=name("step", number + 1)))


def offered(house: House) -> Order:
    house.surplus(1000)
    house.tick()
    with house.store.read() as tx:
        order = orders_for(tx, house.clock.now(), "pc", rules=house.rules).order
    assert order is not None
    return order


@pytest.mark.parametrize(("step_bytes", "told"), [(WHOLE - 1, 1), (WHOLE, 0), (WHOLE // 3, 3), (WHOLE // 3 + 1, 2), (10, 3)])
def test_an_offer_tells_the_steps_to_its_version_where_they_are_shorter_than_its_file(house: House, step_bytes: int, told: int) -> None:
    merge(house, 3, step_bytes=step_bytes)
    order = offered(house)
    assert order.unit.base == version(3)
    assert order.steps == [(version(number), name("step", number + 1)) for number in range(3)][3 - told :]


def test_no_more_steps_are_told_than_are_kept(house: House) -> None:
    merge(house, CHAIN + 2, step_bytes=1)
    steps = offered(house).steps
    assert [base for base, _ in steps] == [version(number) for number in range(2, CHAIN + 2)]
    with house.store.read() as tx:
        assert {step for _, step in steps} <= named(tx)
        assert name("step", 2) not in named(tx)


def test_a_node_at_work_is_not_told_again(house: House) -> None:
    merge(house, 2, step_bytes=10)
    assert offered(house).steps
    house.sync()
    orders, _ = house.sync()
    assert orders.order is not None
    assert orders.order.steps == []


def test_only_the_newest_outer_state_is_kept_and_none_of_a_job_that_is_over(house: House) -> None:
    merge(house, 2, step_bytes=10)
    with house.store.read() as tx:
        assert {name("outer", 2)} == named(tx) & {name("outer", 1), name("outer", 2)}
    house.do(partial(advance.cancel, job_id="j"))
    with house.store.read() as tx:
        assert not named(tx) & {name("outer", 1), name("outer", 2)}


def test_a_version_that_came_whole_ends_the_way(house: House) -> None:
    merge(house, 3, step_bytes=10)
    rows = sorted(house.rows(Version), key=lambda row: row.number)
    assert len(way(rows[1:])) == 3
    assert len(way(rows)) == 3  # version 0 was not reached by a step
