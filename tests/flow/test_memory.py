"""What a policy remembers from one tick to the next, and what it forgets where nobody looked for a while."""

from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

from gridsched.core.policy import Decision, Reason
from gridsched.core.signal import Quality, Reading, SignalKind
from gridsched.flow import decide
from gridsched.plugins import parse_policy
from gridsched.testing.simulation import POLICY
from tests.flow.conftest import House

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
PATIENT = POLICY.replace("stop = 0", 'stop = 0, for = "10m"')
CHEAP = """
zone = "de-lu"
[when]
any = [{ signal = "price", below = 20, stop = 25 }]
[draw]
watts = 400
"""


def decided(house: House, *, clock_speed: float = 1.0, **known: float) -> Decision:
    """What is decided now that these signals have such values for a minute."""
    now = house.clock.now()
    readings = [
        Reading(
            zone="de-lu", signal=SignalKind(kind), start=now, end=now + MINUTE, value=value, quality=Quality.MEASURED, source="t",
            known_at=now,
        )
        for kind, value in known.items()
    ]  # fmt: skip
    with house.store.write() as tx:
        tx.store_readings(readings)
    rules = replace(house.rules, clock_speed=clock_speed)
    decision: Decision = house.do(partial(decide.zone, policy=house.policy, rules=rules))[0]
    return decision


def test_after_hours_in_which_nobody_looked_a_delay_begins_anew(house: House) -> None:
    house.policy = parse_policy(PATIENT, "test")
    assert decided(house, surplus=500).reason is Reason.WAITING_START_DELAY
    house.clock.advance(3 * HOUR)
    for _ in range(10):
        assert decided(house, surplus=500).reason is Reason.WAITING_START_DELAY
        house.clock.advance(MINUTE)
    assert decided(house, surplus=500).reason is Reason.SURPLUS


@pytest.mark.parametrize(("away", "clock_speed"), [(10 * MINUTE, 1.0), (3 * HOUR, 600.0)])
def test_a_daemon_that_is_back_soon_goes_on_where_it_was(house: House, away: timedelta, clock_speed: float) -> None:
    house.policy = parse_policy(PATIENT, "test")
    decided(house, surplus=500)
    house.clock.advance(away)
    assert decided(house, surplus=500, clock_speed=clock_speed).reason is Reason.SURPLUS


def test_after_days_in_which_nobody_looked_the_start_threshold_counts_again(house: House) -> None:
    house.policy = parse_policy(CHEAP, "test")
    assert decided(house, price=18).target_w == 400
    house.clock.advance(MINUTE)
    assert decided(house, price=24).target_w == 400, "it stops at 25"
    house.clock.advance(48 * HOUR)
    assert decided(house, price=24).target_w == 0
    house.clock.advance(MINUTE)
    assert decided(house, price=18).target_w == 400


def test_an_alarm_that_held_must_be_seen_clear_for_its_whole_time_all_the_same(house: House) -> None:
    assert decided(house, surplus=500, alarm=1).reason is Reason.ALARM
    house.clock.advance(MINUTE)
    assert decided(house, surplus=500, alarm=0).reason is Reason.ALARM
    house.clock.advance(3 * HOUR)
    for _ in range(5):
        assert decided(house, surplus=500, alarm=0).reason is Reason.ALARM
        house.clock.advance(MINUTE)
    assert decided(house, surplus=500, alarm=0).reason is Reason.SURPLUS
