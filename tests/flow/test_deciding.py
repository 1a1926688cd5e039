"""What a decision looks at: as little as it can, and never less than a look at everything would show."""

from datetime import datetime, timedelta
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsched.core.facts import ZoneObserved
from gridsched.core.policy import Reason
from gridsched.core.signal import Quality, Reading, SignalKind, snapshot
from gridsched.flow import decide, ingest
from gridsched.plugins import parse_policy
from gridsched.testing import ManualClock
from gridsched.testing.simulation import POLICY
from tests.flow.conftest import House, of

NOW = ManualClock().now()
MINUTES = st.integers(-1500, 60)
SLOTS = st.lists(st.tuples(MINUTES, st.sampled_from([1, 15, 60, 300]), st.sampled_from(list(Quality)), st.floats(0, 100)), max_size=12)


class Rows:
    """What `see` asks of a transaction."""

    def __init__(self, readings: list[Reading]) -> None:
        self._readings = readings

    def readings(self, _zone: str, signal: SignalKind, start: datetime, end: datetime, *, known_at: datetime) -> list[Reading]:
        return [r for r in self._readings if r.signal is signal and r.start < end and r.end > start and r.known_at <= known_at]

    def find(self, _kind: type[Reading], *, signal: SignalKind, **_how: object) -> list[Reading]:
        return [r for r in self._readings if r.signal is signal]


@given(SLOTS)
def test_a_short_look_back_sees_what_a_long_one_sees(slots: list[tuple[int, int, Quality, float]]) -> None:
    readings = [
        Reading(
            zone="de-lu",
            signal=SignalKind.SURPLUS,
            start=NOW + timedelta(minutes=start),
            end=NOW + timedelta(minutes=start + length),
            value=value,
            quality=quality,
            source=f"s{number}",
            known_at=NOW,
        )
        for number, (start, length, quality, value) in enumerate(slots)
    ]
    policy = parse_policy(POLICY, "test")
    seen = decide.see(Rows(readings), NOW, policy)  # type: ignore[arg-type]
    lately = [r for r in readings if r.end > NOW - timedelta(hours=26)]
    assert seen == snapshot("de-lu", NOW, lately, policy.stale_limits)


@pytest.mark.parametrize(
    ("hours", "reason"), [(0.2, Reason.SURPLUS), (0.9, Reason.STALE_SIGNAL), (25, Reason.STALE_SIGNAL), (27, Reason.UNKNOWN_SIGNAL)]
)
def test_a_signal_that_has_fallen_silent_is_stale_for_a_day_and_then_unknown(house: House, hours: float, reason: Reason) -> None:
    house.surplus(500, minutes=1)
    house.clock.advance(timedelta(minutes=1, hours=hours))
    assert house.tick()[0].reason is reason


def test_a_tick_names_the_signals_that_the_policy_must_know_whether_they_have_come_or_not(house: House) -> None:
    def needed() -> tuple[str, ...]:
        (seen,) = of(house.tick()[1], ZoneObserved)
        house.clock.advance(timedelta(minutes=1))
        return seen.needed

    assert needed() == ("surplus",), "nobody waits for a limit, nor for an alarm that was never heard"
    for kind in (SignalKind.ALARM, SignalKind.LIMIT):
        start = house.clock.now()
        heard = Reading(
            zone="de-lu",
            signal=kind,
            start=start,
            end=start + timedelta(minutes=1),
            value=0.0,
            quality=Quality.MEASURED,
            source="t",
            known_at=start,
        )
        house.do(partial(ingest.store, readings=[heard], source="t"))
    assert needed() == ("alarm", "surplus"), "a limit binds only while there is one"
    house.policy = parse_policy(POLICY + "[alarm]\nrequired = true\n", "test")
    house.clock.advance(timedelta(hours=30))
    assert needed() == ("alarm", "surplus")
