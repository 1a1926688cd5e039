"""What a register may say, and what a lease earns: paid <= metered <= leased power x time + tolerance."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsched.core.lease import Lease, LeaseReason, LeaseState, end, grant, pause
from gridsched.core.meter import TOLERANCE, MeterRefusal, refusal
from gridsched.core.reward import carried_on, due_micro, most_micro, paid_energy_j
from tests.core.test_lease import NOW, offered

AT = datetime(2018, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("before_j", "register_j", "after_s", "why"),
    [
        (None, 5e9, 0, None),
        (100.0, 100.0, 60, None),
        (100.0, 100.0 + 100 * 60, 60, None),
        (100.0, 99.9, 60, MeterRefusal.RUNS_BACKWARDS),
        (100.0, 100.0 + 100 * 60 * 1.9, 60, None),
        (100.0, 100.0 + 100 * 60 * 2.1, 60, MeterRefusal.TOO_MUCH_POWER),
        (100.0, float("nan"), 60, MeterRefusal.NOT_FINITE),
        (100.0, float("inf"), 60, MeterRefusal.NOT_FINITE),
        (100.0, 100.0, -1, MeterRefusal.FROM_THE_FUTURE),
    ],
    ids=["first sets it", "no draw", "full draw", "backwards", "a late one before it", "twice as much", "nan", "inf", "from the future"],
)
def test_register(before_j: float | None, register_j: float, after_s: float, why: MeterRefusal | None) -> None:
    at = AT + timedelta(seconds=60)
    now = at if after_s >= 0 else at - timedelta(seconds=1)
    said = refusal(before_j=before_j, before_at=None if before_j is None else AT, register_j=register_j, at=at, now=now, registered_w=100.0)
    assert said is why


def worked(energy_j: float, seconds: float, how: LeaseState = LeaseState.RELEASED) -> int:
    lease = replace(grant(offered(), NOW), energy_j=energy_j)
    return due_micro(end(lease, how, LeaseReason.FINISHED, NOW + timedelta(seconds=seconds)))


def test_an_hour_at_full_power_pays_the_rate_and_the_bonus() -> None:
    assert worked(150 * 3600, 3600) == int(0.15 * 250_000) + 10


def test_who_handed_over_is_paid_for_energy_but_not_for_finishing() -> None:
    assert worked(150 * 3600, 3600, LeaseState.HANDED_OVER) == int(0.15 * 250_000)


def test_energy_above_what_the_lease_allowed_is_not_paid() -> None:
    assert worked(150 * 3600 * 5, 3600) == int(0.15 * (1 + TOLERANCE) * 250_000) + 10


def test_time_paused_earns_nothing() -> None:
    lease = pause(replace(grant(offered(), NOW), energy_j=1e9), LeaseReason.NO_SURPLUS, NOW + timedelta(seconds=60))
    over = end(lease, LeaseState.EXPIRED, LeaseReason.NODE_SILENT, NOW + timedelta(hours=3))
    assert paid_energy_j(over) == pytest.approx(150 * 60 * (1 + TOLERANCE))


@given(st.floats(0, 1e12), st.integers(0, 6 * 3600))
def test_due_never_exceeds_what_was_reserved(energy_j: float, seconds: int) -> None:
    assert 0 <= worked(energy_j, seconds) <= most_micro(offered())


def ended(energy_j: float, *, carried_micro: float = 0.0, how: LeaseState = LeaseState.RELEASED) -> Lease:
    lease = replace(grant(replace(offered(), reward_micro_per_unit=0), NOW), energy_j=energy_j, carried_micro=carried_micro)
    return end(lease, how, LeaseReason.FINISHED, NOW + timedelta(hours=1))


@given(st.lists(st.floats(0, 100), min_size=1, max_size=60))
def test_many_short_leases_earn_what_one_long_lease_would(energies_j: list[float]) -> None:
    carried, paid = 0.0, 0
    for energy_j in energies_j:
        lease = ended(energy_j, carried_micro=carried)
        paid, carried = paid + due_micro(lease), carried_on(lease)
        assert 0 <= carried < 1
    assert paid + carried == pytest.approx(sum(energies_j) * 250_000 / 3.6e6, abs=1e-6)


def test_the_reserve_of_the_shortest_lease_has_room_for_what_is_carried_into_it() -> None:
    lease = replace(ended(1e9, carried_micro=0.999), ends_at=NOW + timedelta(seconds=1), active_s=1.0)
    assert due_micro(lease) + carried_on(lease) == pytest.approx(150 * (1 + TOLERANCE) * 250_000 / 3.6e6 + 0.999)


def test_a_quarantined_node_is_paid_nothing_and_keeps_what_it_was_owed_before() -> None:
    lease = replace(ended(1e6, carried_micro=0.25, how=LeaseState.REVOKED), reason=LeaseReason.QUARANTINED)
    assert (due_micro(lease), carried_on(lease)) == (0, 0.25)
