"""What a decision looks at: as little as it can, and never less than a look at everything would show."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsched.core.policy import Reason
from gridsched.core.signal import Quality, Reading, SignalKind, snapshot
from gridsched.flow import decide
from gridsched.plugins import parse_policy
from gridsched.testing import ManualClock
from gridsched.testing.simulation import POLICY
from tests.flow.conftest import House

NOW = ManualClock().now()
MINUTES = st.integers(-1500, 60)
SLOTS = st.lists(st.tuples(MINUTES, st.sampled_from([1, 15, 60, 300]), st.sampled_from(list(Quality)), st.floats(0, 100)), max_size=12)


class Rows:
    """The one question that `see` asks of a transaction."""

    def __init__(self, readings: list[Reading]) -> None:
        self._readings = readings

    def readings(self, _zone: str, signal: SignalKind, start: datetime, end: datetime, *, known_at: datetime) -> list[Reading]:
        return [r for r in self._readings if r.signal is signal and r.start < end and r.end > start and r.known_at <= known_at]


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
