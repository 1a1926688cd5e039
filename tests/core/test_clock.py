"""The two clocks, driven by a wall clock and a monotonic counter that this file turns by hand."""

import logging
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsched.clock import ScaledClock, SystemClock

START = datetime(2018, 10, 28, 0, 30, tzinfo=UTC)


class Machine:
    """A wall clock that can be stepped, and a monotonic counter that cannot."""

    def __init__(self) -> None:
        self.wall = START
        self.monotonic_s = 1000.0
        self.slept_s: list[float] = []

    def clock(self) -> SystemClock:
        return SystemClock(wall=lambda: self.wall, monotonic=lambda: self.monotonic_s, pause=self.slept_s.append)

    def run(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.monotonic_s += seconds

    def step(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_the_machines_time_is_aware_utc() -> None:
    assert SystemClock().now().utcoffset() == timedelta(0)


def test_an_undisturbed_clock_follows_the_wall(machine: Machine) -> None:
    clock = machine.clock()
    machine.run(61.5)
    assert clock.now() == machine.wall
    assert clock.speed == 1.0


def test_a_step_back_slows_the_clock_to_half_until_the_wall_has_caught_up(machine: Machine) -> None:
    clock = machine.clock()
    machine.step(-3600)
    assert clock.now() == START
    machine.run(3600)
    assert clock.now() == START + timedelta(minutes=30)
    assert clock.ahead_s == 1800
    machine.run(3600)
    assert clock.now() == machine.wall
    machine.run(10)
    assert clock.now() == machine.wall


def test_a_step_forward_is_followed_at_once(machine: Machine) -> None:
    clock = machine.clock()
    machine.step(3600)
    assert clock.now() == machine.wall


def test_each_step_is_logged_once_and_a_slew_not_at_all(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    clock = machine.clock()
    with caplog.at_level(logging.WARNING, logger="gridsched.clock"):
        for step_s in (0.2, -0.2, -7200, 300):
            machine.step(step_s)
            for _ in range(3):
                machine.run(1)
                clock.now()
    assert [record.__dict__["action"] for record in caplog.records] == ["clock_stepped_back", "clock_stepped_forward"]
    assert [round(record.__dict__["step_s"]) for record in caplog.records] == [-7200, 300]


moves = st.lists(st.tuples(st.floats(-1e5, 1e5), st.floats(0.001, 1e4)), max_size=30)


@given(moves)
def test_no_sequence_of_steps_turns_it_back(moves: list[tuple[float, float]]) -> None:
    machine = Machine()
    clock = machine.clock()
    before = clock.now()
    for step_s, run_s in moves:
        machine.step(step_s)
        machine.run(run_s)
        now = clock.now()
        assert now >= machine.wall
        assert now - before >= timedelta(seconds=run_s) / 2 - timedelta(microseconds=2)
        before = now


def test_sleeping_waits_for_the_seconds_and_nothing_is_no_wait(machine: Machine) -> None:
    clock = machine.clock()
    for seconds in (2.5, 0, -1):
        clock.sleep(seconds)
    assert machine.slept_s == [2.5]


def test_a_day_passes_in_two_minutes_at_speed_720(machine: Machine) -> None:
    clock = ScaledClock(START, 720, real=machine.clock())
    assert clock.now() == START
    machine.run(120)
    assert clock.now() == START + timedelta(days=1)
    assert clock.speed == 720


def test_a_scaled_clock_runs_through_the_clock_change_night_in_utc(machine: Machine) -> None:
    clock = ScaledClock(START, 3600, real=machine.clock())
    machine.run(1)
    assert clock.now() == datetime(2018, 10, 28, 1, 30, tzinfo=UTC)


def test_a_scaled_sleep_is_shorter_on_the_wall(machine: Machine) -> None:
    ScaledClock(START, 720, real=machine.clock()).sleep(900)
    assert machine.slept_s == [1.25]


@pytest.mark.parametrize("speed", [0, -1, float("nan"), float("inf")])
def test_a_speed_that_is_no_speed_is_refused(speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        ScaledClock(START, speed)


def test_a_naive_start_is_refused() -> None:
    with pytest.raises(ValueError, match="aware UTC"):
        ScaledClock(START.replace(tzinfo=None), 1)
