"""How long what was heard counts: an alarm until it is heard again, a forecast while it is told, anything as long as its policy says."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from gridsched.core.policy import Reason
from gridsched.core.signal import Quality, Reading, SignalKind
from gridsched.plugins import parse_policy
from gridsched.testing.simulation import POLICY
from gridsched.web import views
from tests.flow.conftest import House

SLOT = timedelta(minutes=15)
HOUR = timedelta(hours=1)


def alarm(house: House, *values: float, after: timedelta = timedelta(0), slot: timedelta = SLOT, **changes: Any) -> None:
    """Alarms of the slots one after another from ``after`` on, learned now."""
    now = house.clock.now()
    first = Reading(
        zone="de-lu", signal=SignalKind.ALARM, start=now + after, end=now + after + slot, value=0.0, quality=Quality.MEASURED,
        source="grid", known_at=now,
    )  # fmt: skip
    rows = [replace(first, start=first.start + n * slot, end=first.end + n * slot, value=v, **changes) for n, v in enumerate(values)]
    with house.store.write() as tx:
        tx.store_readings(rows)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("hours", [1, 25, 27, 60, 400 * 24])
def test_an_alarm_that_was_heard_and_then_lost_pauses_until_it_is_heard_again(house: House, hours: int, value: float) -> None:
    alarm(house, 0.0, value)
    house.clock.advance(2 * SLOT)
    lost = house.clock.now()
    house.clock.advance(hours * HOUR)
    house.surplus(1000)
    decision, _ = house.tick()
    assert (decision.target_w, decision.reason) == (0.0, Reason.STALE_SIGNAL)
    assert f"alarm from grid is stale: its slot ended at {lost:%Y-%m-%d %H:%M} UTC; nothing is drawn until" in decision.detail
    house.clock.advance(timedelta(minutes=1))
    alarm(house, 0.0)
    assert house.tick()[0].target_w == 1000


def test_what_is_announced_for_later_hides_no_alarm_that_was_heard(house: House) -> None:
    alarm(house, 0.0)
    began = house.clock.now()
    house.clock.advance(60 * HOUR)
    alarm(house, 0.0, after=5 * HOUR)
    house.surplus(1000)
    decision, _ = house.tick()
    assert decision.reason is Reason.STALE_SIGNAL
    with house.store.read() as tx:
        told = views.decision_story(tx, decision.decision_id)["decision"]["inputs"]
    (seen,) = [seen for seen in told if seen["signal"] == "alarm"]
    assert datetime.fromisoformat(seen["reading"]["start"]) == began


def test_an_alarm_of_which_nothing_was_ever_heard_is_silent(house: House) -> None:
    alarm(house, 0.0, after=5 * HOUR)
    house.surplus(1000)
    assert house.tick()[0].target_w == 1000


def test_a_forecast_that_stands_still_is_believed_for_as_long_as_it_is_told(house: House) -> None:
    for _ in range(3 * 24):
        alarm(house, *[0.0] * 48, slot=HOUR, quality=Quality.FORECAST)
        house.clock.advance(HOUR)
    house.surplus(1000)
    assert house.tick()[0].target_w == 1000
    house.clock.advance(37 * HOUR)  # nothing more is told
    house.surplus(1000)
    decision, _ = house.tick()
    assert (decision.target_w, decision.reason) == (0.0, Reason.STALE_SIGNAL)
    assert "alarm from grid is stale: it is a forecast that was learned too long ago, at 2018-05-03" in decision.detail


@pytest.mark.parametrize(("hours", "reason"), [(29, Reason.SURPLUS), (30, Reason.SURPLUS), (30.1, Reason.UNKNOWN_SIGNAL)])
def test_a_signal_that_its_policy_believes_for_longer_is_looked_for_further_back(house: House, hours: float, reason: Reason) -> None:
    house.policy = parse_policy(POLICY.replace('"20m"', '"30h"'), "test")
    house.surplus(500, minutes=1)
    house.clock.advance(timedelta(minutes=1) + hours * HOUR)
    assert house.tick()[0].reason is reason
