"""Stamps become slots in UTC, on ordinary days and on both clock-change days; bad rows are set aside and named."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsched.core.errors import InvalidInput
from gridsched.core.rows import Batch, Layout, Row, Stamp, StampFormat, number, read_rows
from gridsched.core.signal import Quality, SignalKind

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
QUARTER = timedelta(minutes=15)


def layout(**changes: object) -> Layout:
    fields: dict[str, object] = {"zone": "de", "signal": SignalKind.PRICE, "source": "test", "resolution": HOUR, **changes}
    return Layout(**fields)  # type: ignore[arg-type]


def read(rows: list[tuple[object, object]], **changes: object) -> Batch:
    labelled = [Row(label=f"row {i}", stamp=stamp, value=value) for i, (stamp, value) in enumerate(rows)]
    return read_rows(layout(**changes), labelled, known_at=NOW)


def local_day(first: str, last: str, skip: tuple[str, ...] = (), repeat: tuple[str, ...] = ()) -> list[tuple[object, object]]:
    """The naive local hours of a day, as a provider writes them."""
    stamps = []
    at, end = datetime.fromisoformat(first), datetime.fromisoformat(last)
    while at < end:
        text = at.isoformat()
        stamps += [] if text in skip else [text, text] if text in repeat else [text]
        at += HOUR
    return [(stamp, float(i)) for i, stamp in enumerate(stamps)]


class TestClockChange:
    def test_the_day_of_23_hours_is_seamless(self) -> None:
        rows = local_day("2026-03-29T00:00:00", "2026-03-30T00:00:00", skip=("2026-03-29T02:00:00",))
        batch = read(rows, timezone="Europe/Berlin")
        self.seamless(batch, 23, datetime(2026, 3, 28, 23, tzinfo=UTC))

    @pytest.mark.parametrize("newest_first", [False, True])
    def test_the_day_of_25_hours_is_seamless(self, newest_first: bool) -> None:
        rows = local_day("2026-10-25T00:00:00", "2026-10-26T00:00:00", repeat=("2026-10-25T02:00:00",))
        batch = read(rows[::-1] if newest_first else rows, timezone="Europe/Berlin")
        self.seamless(batch, 25, datetime(2026, 10, 24, 22, tzinfo=UTC))

    def test_the_day_of_100_quarters_is_seamless(self) -> None:
        start = datetime(2026, 10, 24, 22, tzinfo=UTC)
        stamps = [(start + i * QUARTER).timestamp() * 1000 for i in range(100)]
        batch = read([(s, i) for i, s in enumerate(stamps)], resolution=QUARTER, stamp_format=StampFormat.EPOCH_MS)
        self.seamless(batch, 100, start)

    def test_stamps_at_the_end_of_their_slot_are_moved(self) -> None:
        batch = read([("2026-03-29T03:00:00", 1.0)], timezone="Europe/Berlin", stamp=Stamp.END)
        assert batch.readings[0].start == datetime(2026, 3, 29, 0, tzinfo=UTC)

    def test_an_hour_that_does_not_exist_is_dropped(self) -> None:
        batch = read([("2026-03-29T02:00:00", 1.0), ("2026-03-29T03:00:00", 2.0)], timezone="Europe/Berlin")
        assert [r.value for r in batch] == [2.0]
        assert "does not exist" in batch.dropped[0].reason

    def test_an_hour_that_should_come_twice_and_comes_once_is_dropped(self) -> None:
        batch = read([("2026-10-25T01:00:00", 1.0), ("2026-10-25T02:00:00", 2.0)], timezone="Europe/Berlin")
        assert [r.value for r in batch] == [1.0]
        assert "summer or winter" in batch.dropped[0].reason

    def test_a_null_in_the_hour_that_comes_twice_leaves_the_other_known(self) -> None:
        batch = read([("2026-10-25T02:00:00", None), ("2026-10-25T02:00:00", 2.0)], timezone="Europe/Berlin")
        assert [(r.start.hour, r.value) for r in batch] == [(1, 2.0)]

    @staticmethod
    def seamless(batch: Batch, hours: int, start: datetime) -> None:
        assert len(batch) == hours
        assert batch.dropped == ()
        assert batch.readings[0].start == start
        assert all(a.end == b.start for a, b in zip(batch.readings, batch.readings[1:], strict=False))
        assert [r.value for r in batch] == list(range(hours))


class TestRows:
    def test_null_is_unknown_and_never_zero(self) -> None:
        batch = read([("2026-01-01T00:00Z", None), ("2026-01-01T01:00Z", ""), ("2026-01-01T02:00Z", "N.A."), ("2026-01-01T03:00Z", 0)])
        assert [(r.start.hour, r.value) for r in batch] == [(3, 0.0)]
        assert batch.dropped == ()

    def test_a_gap_stays_a_gap(self) -> None:
        batch = read([("2026-01-01T00:00Z", 1), ("2026-01-01T05:00Z", 2)])
        assert [(r.start.hour, r.end.hour) for r in batch] == [(0, 1), (5, 6)]

    def test_naive_stamps_are_refused_without_a_timezone(self) -> None:
        batch = read([("2026-01-01T00:00:00", 1)])
        assert len(batch) == 0
        assert "declare the timezone" in batch.dropped[0].reason

    @pytest.mark.parametrize("stamp", ["0001-01-01T00:00:00", "9999-12-31T23:00:00Z"])
    def test_a_stamp_at_the_edge_of_the_calendar_is_dropped(self, stamp: str) -> None:
        batch = read([(stamp, 1)], timezone="Europe/Berlin")
        assert len(batch.dropped) == 1

    def test_a_repeat_is_kept_once_and_a_contradiction_is_named(self) -> None:
        batch = read([("2026-01-01T00:00Z", 1), ("2026-01-01T01:00+01:00", 1), ("2026-01-01T00:00Z", 2)])
        assert [r.value for r in batch] == [1.0]
        assert [d.row for d in batch.dropped] == ["row 2"]
        assert "kept the first" in batch.dropped[0].reason

    def test_one_bad_row_costs_only_itself(self) -> None:
        rows: list[tuple[object, object]] = [
            ("yesterday", 1),
            (None, 1),
            ("2026-01-01T00:00Z", "cheap"),
            ("2026-01-01T01:00Z", True),
            ("2026-01-01T02:00Z", float("inf")),
            ("2026-01-01T03:00Z", [1]),
            ("2026-01-01T04:00Z", 5),
            ("0001-01-01T00:00+14:00", 5),
        ]
        batch = read(rows)
        assert [r.value for r in batch] == [5.0]
        assert [d.row for d in batch.dropped] == ["row 0", "row 1", "row 2", "row 3", "row 4", "row 5", "row 7"]

    def test_a_slot_that_ends_elsewhere_than_declared_is_dropped(self) -> None:
        ends = ["2026-01-01T01:00Z", "2026-01-01T01:15Z", "never", None]
        rows = [Row(label=f"row {i}", stamp=f"2026-01-01T0{i}:00Z", value=i, end=end) for i, end in enumerate(ends)]
        batch = read_rows(layout(), rows, known_at=NOW)
        assert [r.value for r in batch] == [0, 3]
        assert [d.row for d in batch.dropped] == ["row 1", "row 2"]
        assert "does not last 1:00:00" in batch.dropped[0].reason

    def test_a_row_may_be_of_another_quality_than_the_rest(self) -> None:
        rows = [
            Row(label="a", stamp="2026-01-01T00:00Z", value=1, quality=Quality.FORECAST),
            Row(label="b", stamp="2026-01-01T01:00Z", value=1),
        ]
        assert [r.quality for r in read_rows(layout(), rows, known_at=NOW)] == [Quality.FORECAST, Quality.MEASURED]

    @pytest.mark.parametrize(
        ("declared", "written", "value"),
        [
            ({"unit": "ct/kWh"}, "-1,5", -15.0),
            ({"unit": "EUR/MWh", "scale": -1.0, "offset": 100.0}, 30, 70.0),
            ({"signal": SignalKind.SURPLUS, "unit": "MWh", "resolution": QUARTER}, "63,0", 252e6),
            ({"signal": SignalKind.SURPLUS, "unit": "kW", "scale": -1.0}, -1.2, 1200.0),
            ({"signal": SignalKind.RENEWABLE_SHARE, "unit": "%"}, 44.3, 0.443),
        ],
    )
    def test_unit_scale_sign_and_offset(self, declared: dict[str, object], written: object, value: float) -> None:
        assert read([("2026-01-01T00:00Z", written)], **declared).readings[0].value == pytest.approx(value)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"unit": "g/kWh"},
            {"unit": "MWh"},
            {"resolution": timedelta(0)},
            {"timezone": "Berlin"},
            {"signal": SignalKind.SURPLUS, "unit": "V"},
        ],
    )
    def test_a_layout_that_cannot_be_meant_is_refused(self, wrong: dict[str, object]) -> None:
        with pytest.raises(InvalidInput):
            layout(**wrong)


anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=30), st.binary(max_size=3), st.lists(st.integers())
)
stamps = st.one_of(anything, st.datetimes().map(datetime.isoformat), st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat))


@given(st.lists(st.tuples(stamps, anything), max_size=8), st.sampled_from(StampFormat), st.sampled_from(["", "Europe/Berlin"]))
def test_rows_of_any_kind_give_readings_or_reasons(rows: list[tuple[object, object]], form: StampFormat, timezone: str) -> None:
    batch = read(rows, stamp_format=form, timezone=timezone)
    assert len(batch.readings) + len(batch.dropped) <= len(rows)
    assert [r.start for r in batch] == sorted({r.start for r in batch})


@given(st.one_of(anything))
def test_a_number_is_finite_or_none_or_refused(written: object) -> None:
    try:
        value = number(written)
    except InvalidInput:
        return
    assert value is None or abs(value) < float("inf")
