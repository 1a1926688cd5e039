"""What counts of a signal at a moment, and how old it is."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsched.core.errors import InvalidInput, StaleSignal
from gridsched.core.signal import FORECAST_TRUST, UNIT, Quality, Reading, Series, SignalKind, plausible, snapshot, why_stale

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
SLOT = timedelta(minutes=15)
LATER = timedelta(seconds=1)


def reading(
    value: float = 1.0,
    *,
    start: datetime = NOON,
    length: timedelta = SLOT,
    known_at: datetime | None = None,
    signal: SignalKind = SignalKind.SURPLUS,
    quality: Quality = Quality.MEASURED,
    zone: str = "demo",
    source: str = "test",
) -> Reading:
    return Reading(
        zone=zone,
        signal=signal,
        start=start,
        end=start + length,
        value=value,
        quality=quality,
        source=source,
        known_at=known_at or start,
    )


def test_every_kind_has_a_unit() -> None:
    assert set(UNIT) == set(SignalKind)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"start": datetime(2026, 6, 1, 12)}, "no UTC offset"),  # noqa: DTZ001 - the point
        ({"known_at": datetime(2026, 6, 1, 12)}, "no UTC offset"),  # noqa: DTZ001 - the point
        ({"length": timedelta(0)}, "must end later"),
        ({"length": -SLOT}, "must end later"),
        ({"value": float("nan")}, "leave an unknown slot out"),
        ({"value": float("inf")}, "leave an unknown slot out"),
        ({"signal": SignalKind.RENEWABLE_SHARE, "value": 44.0}, "not percent"),
    ],
)
def test_a_reading_that_cannot_be_is_refused_at_birth(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        reading(**wrong)  # type: ignore[arg-type]


def test_moments_are_kept_in_utc() -> None:
    in_berlin = datetime(2026, 6, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    assert reading(start=in_berlin).start == NOON
    assert reading(start=in_berlin).start.tzinfo is UTC


@pytest.mark.parametrize("price", [-500.0, -0.01, 0.0, 300.0, 4000.0, 9999.0])
def test_zero_negative_and_huge_prices_are_ordinary(price: float) -> None:
    assert plausible(reading(price, signal=SignalKind.PRICE)) is None


@pytest.mark.parametrize(
    ("signal", "value"),
    [
        (SignalKind.PRICE, 1e6),
        (SignalKind.CARBON, -1.0),
        (SignalKind.CARBON, 50_000.0),
        (SignalKind.CURTAILMENT, -5.0),
        (SignalKind.ALARM, 2.0),
        (SignalKind.SURPLUS, 1e15),
    ],
)
def test_an_implausible_value_is_named_with_its_unit(signal: SignalKind, value: float) -> None:
    assert UNIT[signal] in (plausible(reading(value, signal=signal)) or "")


class TestSeries:
    def test_the_end_of_a_slot_belongs_to_the_next(self) -> None:
        series = Series([reading(1), reading(2, start=NOON + SLOT)])
        first, second = series.at(NOON + SLOT - LATER), series.at(NOON + SLOT)
        assert first is not None
        assert second is not None
        assert (first.value, second.value) == (1, 2)

    def test_a_gap_is_unknown(self) -> None:
        series = Series([reading(1), reading(3, start=NOON + 2 * SLOT)])
        assert series.at(NOON + SLOT) is None
        assert series.at(NOON - LATER) is None

    def test_as_of_sees_only_what_was_known(self) -> None:
        first, revised = reading(1, known_at=NOON), reading(9, known_at=NOON + timedelta(hours=1))
        series = Series([revised, first])
        assert [r.value for r in series] == [9]
        assert [r.value for r in series.as_of(NOON)] == [1]
        assert list(series.as_of(NOON - LATER)) == []

    def test_a_forecast_rewritten_afterwards_does_not_replace_the_measurement(self) -> None:
        measured = reading(1, known_at=NOON + SLOT)
        rewritten = reading(2, known_at=NOON + 9 * SLOT, quality=Quality.FORECAST)
        assert [r.value for r in Series([measured, rewritten])] == [1]

    def test_the_finer_of_two_overlapping_slots_counts(self) -> None:
        hour, quarter = reading(60, length=timedelta(hours=1)), reading(15, start=NOON + SLOT)
        series = Series([hour, quarter])
        assert [r.value for moment in (NOON, NOON + SLOT, NOON + 2 * SLOT) if (r := series.at(moment))] == [60, 15, 60]

    def test_the_last_of_the_best_is_what_counts_at_any_moment(self) -> None:
        quarter = SLOT / 4
        rows = [
            reading(1.0, length=SLOT, quality=Quality.FORECAST),
            reading(2.0, length=SLOT, quality=Quality.ESTIMATED, source="b"),
            reading(3.0, start=NOON + quarter, length=quarter, quality=Quality.ESTIMATED),
            reading(4.0, start=NOON + 2 * quarter, length=quarter, quality=Quality.FORECAST),
        ]
        series = Series(rows)
        for moment in (NOON, NOON + quarter, NOON + 2 * quarter, NOON + 3 * quarter):
            assert [r for r in series.best_last() if r.start <= moment < r.end][-1] == series.at(moment)
        assert [r.value for r in series.best_last()][-2:] == [2.0, 3.0]

    def test_between_takes_slots_that_overlap(self) -> None:
        series = Series([reading(i, start=NOON + i * SLOT) for i in range(4)])
        assert [r.value for r in series.between(NOON + SLOT / 2, NOON + 2 * SLOT)] == [0, 1]
        assert series.between(NOON + 4 * SLOT, NOON + 5 * SLOT) == ()

    def test_two_signals_do_not_make_a_series(self) -> None:
        with pytest.raises(InvalidInput, match="one signal of one zone"):
            Series([reading(), reading(signal=SignalKind.PRICE)])

    @given(st.permutations(range(6)))
    def test_the_order_of_arrival_does_not_matter(self, order: list[int]) -> None:
        rows = [
            reading(1),
            reading(2, known_at=NOON + LATER),
            reading(3, known_at=NOON + LATER, source="other"),
            reading(4, start=NOON + SLOT, quality=Quality.FORECAST),
            reading(5, start=NOON + SLOT, quality=Quality.ESTIMATED),
            reading(6, length=timedelta(hours=1)),
        ]
        assert list(Series(rows[i] for i in order)) == list(Series(rows))
        moment = NOON + SLOT / 2
        assert snapshot("demo", moment, [rows[i] for i in order]) == snapshot("demo", moment, rows)


class TestAge:
    """A value holds for its slot and ages from the slot's end, however late or early it was learned."""

    def test_a_day_ahead_price_is_not_stale_in_its_slot(self) -> None:
        price = reading(40, signal=SignalKind.PRICE, known_at=NOON - timedelta(hours=23))
        snap = snapshot("demo", NOON + SLOT - LATER, [price])
        assert snap.value(SignalKind.PRICE) == 40
        assert snap.states[SignalKind.PRICE].age_s == 0

    def test_a_price_does_not_outlive_its_slot(self) -> None:
        snap = snapshot("demo", NOON + SLOT, [reading(40, signal=SignalKind.PRICE)])
        with pytest.raises(StaleSignal, match="price in demo from test"):
            snap.value(SignalKind.PRICE)

    @pytest.mark.parametrize(("after_end", "fresh"), [(-LATER, True), (timedelta(0), True), (SLOT, True), (SLOT + LATER, False)])
    def test_a_measurement_is_fresh_up_to_and_at_stale_after(self, after_end: timedelta, fresh: bool) -> None:
        state = snapshot("demo", NOON + SLOT + after_end, [reading(5)], {SignalKind.SURPLUS: SLOT}).get(SignalKind.SURPLUS)
        assert state is not None
        assert state.fresh is fresh
        assert state.age_s == max(0.0, after_end.total_seconds())

    def test_arriving_late_does_not_make_it_younger(self) -> None:
        now = NOON + SLOT + timedelta(minutes=20)
        state = snapshot("demo", now, [reading(5, known_at=now)]).get(SignalKind.SURPLUS)
        assert state is not None
        assert state.age_s == 20 * 60
        assert not state.fresh

    @pytest.mark.parametrize(("learned_before", "fresh"), [(FORECAST_TRUST, True), (FORECAST_TRUST + LATER, False)])
    def test_a_forecast_learned_too_long_ago_is_stale_even_in_its_slot(self, learned_before: timedelta, fresh: bool) -> None:
        forecast = reading(0.9, signal=SignalKind.RENEWABLE_SHARE, quality=Quality.FORECAST, known_at=NOON - learned_before)
        state = snapshot("demo", NOON, [forecast]).get(SignalKind.RENEWABLE_SHARE)
        assert state is not None
        assert state.fresh is fresh

    def test_what_is_stale_says_whether_it_ended_or_was_learned_too_long_ago(self) -> None:
        share = SignalKind.RENEWABLE_SHARE
        forecast = reading(0.9, signal=share, quality=Quality.FORECAST, known_at=NOON - FORECAST_TRUST - LATER)
        with pytest.raises(StaleSignal, match="a forecast that was learned too long ago, at 2026-05-30 23:59 UTC; check that source"):
            snapshot("demo", NOON, [forecast]).value(share)
        assert why_stale(reading(0.9, signal=share), NOON + timedelta(hours=3)) == "its slot ended at 2026-06-01 12:15 UTC"

    @pytest.mark.parametrize(("after_end", "fresh"), [(timedelta(minutes=15), True), (timedelta(minutes=15) + LATER, False)])
    def test_a_limit_is_obeyed_a_little_longer_than_it_was_said(self, after_end: timedelta, fresh: bool) -> None:
        state = snapshot("demo", NOON + SLOT + after_end, [reading(300.0, signal=SignalKind.LIMIT)]).get(SignalKind.LIMIT)
        assert state is not None
        assert state.fresh is fresh

    def test_a_limit_that_is_lifted_is_lifted_at_once(self) -> None:
        limit = reading(300.0, signal=SignalKind.LIMIT)
        none = reading(1e12, signal=SignalKind.LIMIT, start=NOON + SLOT)
        assert snapshot("demo", NOON + SLOT, [limit, none]).value(SignalKind.LIMIT) == 1e12


class TestSnapshot:
    def test_unknown_is_not_zero(self) -> None:
        snap = snapshot("demo", NOON, [])
        assert snap.get(SignalKind.SURPLUS) is None
        with pytest.raises(StaleSignal, match="surplus in demo is unknown"):
            snap.value(SignalKind.SURPLUS)

    def test_other_zones_the_future_and_what_is_not_known_yet_are_passed_over(self) -> None:
        rows = [
            reading(1, zone="other"),
            reading(2, start=NOON + LATER, known_at=NOON),
            reading(3, known_at=NOON + LATER),
        ]
        assert snapshot("demo", NOON, rows).states == {}

    def test_the_slot_that_holds_now_wins_over_one_that_ended(self) -> None:
        ended = reading(1, start=NOON - SLOT)
        running = reading(2, quality=Quality.FORECAST)
        assert snapshot("demo", NOON, [ended, running]).value(SignalKind.SURPLUS) == 2


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("signal", "strict", "mild"),
    [(SignalKind.ALARM, 1.0, 0.0), (SignalKind.LIMIT, 500.0, 1e12), (SignalKind.LIMIT, 0.0, 500.0)],
)
def test_of_several_sources_the_strictest_alarm_and_limit_count(signal: SignalKind, strict: float, mild: float, turned: bool) -> None:
    """The one that knows of nothing speaks later, more finely and of better quality, and still hides nothing."""
    one = reading(strict, signal=signal, source="a", quality=Quality.FORECAST, length=4 * SLOT)
    other = reading(mild, signal=signal, source="b", known_at=NOON + LATER)
    seen = snapshot("demo", NOON + 2 * LATER, [other, one] if turned else [one, other])
    assert seen.value(signal) == strict


def test_a_source_takes_its_own_alarm_back() -> None:
    alarm, clear = (reading(v, signal=SignalKind.ALARM, known_at=NOON + n * LATER) for n, v in enumerate((1.0, 0.0)))
    assert snapshot("demo", NOON + LATER, [alarm, clear]).value(SignalKind.ALARM) == 0.0


def test_an_alarm_that_is_over_does_not_outlast_what_another_source_says_now() -> None:
    over = reading(1.0, signal=SignalKind.ALARM, source="a", start=NOON - SLOT)
    clear = reading(0.0, signal=SignalKind.ALARM, source="b")
    assert snapshot("demo", NOON + LATER, [over, clear]).value(SignalKind.ALARM) == 0.0
