"""What a register may say, and what a lease earns: paid <= metered <= leased power x time + tolerance."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsched.core.lease import LeaseReason, LeaseState, end, grant, pause
from gridsched.core.meter import TOLERANCE, MeterRefusal, refusal
from gridsched.core.reward import due_micro, most_micro, paid_energy_j
from tests.core.test_lease import NOW, offered

AT = datetime(2018, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("before_j", "register_j", "after_s", "why"),
    [
        (None, 5e9, 0, None),
        (100.0, 100.0, 60, None),
        (100.0, 100.0 + 100 * 60, 60, None),
        (100.0, 99.9, 60, MeterRefusal.RUNS_BACKWARDS),
        (100.0, 100.0 + 100 * 60 * 1.2, 60, MeterRefusal.TOO_MUCH_POWER),
        (100.0, float("nan"), 60, MeterRefusal.NOT_FINITE),
        (100.0, float("inf"), 60, MeterRefusal.NOT_FINITE),
        (100.0, 100.0, -1, MeterRefusal.FROM_THE_FUTURE),
    ],
    ids=["first sets it", "no draw", "full draw", "backwards", "a fifth too much", "nan", "inf", "from the future"],
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
    ended = end(lease, LeaseState.EXPIRED, LeaseReason.NODE_SILENT, NOW + timedelta(hours=3))
    assert paid_energy_j(ended) == pytest.approx(150 * 60 * (1 + TOLERANCE))


@given(st.floats(0, 1e12), st.integers(0, 6 * 3600))
def test_due_never_exceeds_what_was_reserved(energy_j: float, seconds: int) -> None:
    assert 0 <= worked(energy_j, seconds) <= most_micro(offered())
