import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from gridsched import AdapterError, Batch, ConfigError, Quality, SignalKind
from tests.adapters.fake_http import FakeHttp
from tests.adapters.load import adapter, recorded
from tests.adapters.payloads import energy_charts
from tests.adapters.payloads_europe import green_forecast, states

NOW = datetime(2026, 6, 1, 10, 7, 30, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
LATER = "2026-06-01T14:00:00+02:00"


def made(**options: Any) -> Any:
    return adapter("stromgedacht", {"zone": "bw", "zip": "70173", **options})


def parse(payload: bytes, now: datetime = NOW, **options: Any) -> Batch:
    batch: Batch = made(**options).parse(payload, now=now)
    return batch


def test_states_are_asked_for_two_days_ahead() -> None:
    http = FakeHttp(states(("2026-06-01T12:07:30.9894703+02:00", LATER, 1)))
    made().fetch(http, NOW)
    asked = {"zip": "70173", "hoursInFuture": "48", "hoursInPast": "0"}
    assert http.asked == [("https://api.stromgedacht.de/v1/statesRelative", asked)]


def test_a_forecast_is_asked_for_from_the_running_quarter_hour_on() -> None:
    http = FakeHttp(green_forecast(NOW, [1], [1]))
    made(series="forecast").fetch(http, NOW)
    asked = {"zip": "70173", "from": "2026-06-01T10:00:00Z", "to": "2026-06-03T10:00:00Z"}
    assert http.asked == [("https://api.stromgedacht.de/v1/forecast", asked)]


def test_a_run_that_starts_at_the_moment_of_asking_is_cut_into_quarter_hours_of_the_clock() -> None:
    batch = parse(states(("2026-06-01T12:07:30.9894703+02:00", "2026-06-01T13:00:00+02:00", 4), ("2026-06-01T13:00:00+02:00", LATER, 1)))
    assert batch.readings[0].start == datetime(2026, 6, 1, 10, tzinfo=UTC)
    assert [r.value for r in batch] == [1.0] * 4 + [0.0] * 4
    assert {r.end - r.start for r in batch} == {QUARTER}
    assert {r.quality for r in batch} == {Quality.FORECAST}


def test_asking_again_a_little_later_speaks_of_the_same_slots_so_that_an_alarm_can_be_taken_back() -> None:
    red = parse(states(("2026-06-01T12:07:30.98+02:00", LATER, 4)))
    green = parse(states(("2026-06-01T12:09:00.01+02:00", LATER, 1)), now=NOW + timedelta(minutes=2))
    assert [(r.start, r.end) for r in red] == [(r.start, r.end) for r in green]


def test_of_two_states_in_one_quarter_hour_the_worse_counts() -> None:
    for order in (1, -1):
        runs = [
            ("2026-06-01T12:00:00+02:00", "2026-06-01T12:20:00+02:00", 4),
            ("2026-06-01T12:20:00+02:00", "2026-06-01T12:45:00+02:00", -1),
        ]
        assert [r.value for r in parse(states(*runs[::order]))] == [1.0, 1.0, 0.0]


def test_only_red_is_an_alarm_unless_the_site_is_more_careful() -> None:
    payload = states(*((f"2026-06-01T{12 + n}:00:00+02:00", f"2026-06-01T{12 + n}:15:00+02:00", s) for n, s in enumerate((-1, 1, 2, 3, 4))))
    assert [r.value for r in parse(payload)] == [0, 0, 0, 0, 1]
    assert [r.value for r in parse(payload, alarm_from=3)] == [0, 0, 0, 1, 1]


def test_minus_one_is_the_best_state_here_and_the_worst_at_energy_charts() -> None:
    here = parse(states(("2026-06-01T12:00:00+02:00", LATER, -1)))
    there = adapter("energy_charts", {"zone": "de", "series": "signal"}).parse(
        energy_charts(NOW, {"share": [90.0], "signal": [-1]}, endpoint="signal", unit="%"), now=NOW
    )
    assert {r.value for r in here} == {0.0}
    assert [r.value for r in there if r.signal is SignalKind.ALARM] == [1.0]


def test_a_run_across_the_repeated_hour_has_no_gap() -> None:
    batch = parse(states(("2026-10-25T01:00:00+02:00", "2026-10-25T04:00:00+01:00", 1)), now=datetime(2026, 10, 24, 23, tzinfo=UTC))
    assert len(batch) == 16
    assert all(a.end == b.start for a, b in pairwise(batch.readings))


@pytest.mark.parametrize(
    "bad",
    [
        ("2026-06-01T12:00:00+02:00", LATER, 0),
        ("2026-06-01T12:00:00+02:00", LATER, None),
        ("2026-06-01T12:00:00+02:00", LATER, "red"),
        ("2026-06-01T12:00:00", LATER, 1),
        ("2026-06-01T12:00:00+02:00", "2026-06-01T11:00:00+02:00", 1),
        ("2026-06-01T12:00:00+02:00", "2026-07-01T11:00:00+02:00", 1),
    ],
)
def test_a_bad_run_costs_only_itself(bad: tuple[str, str, object]) -> None:
    batch = parse(states(bad, ("2026-06-01T12:00:00+02:00", "2026-06-01T12:30:00+02:00", 1)))
    assert len(batch) == 2
    assert len(batch.dropped) == 1


def test_surplus_is_how_far_the_residual_load_lies_below_the_threshold() -> None:
    batch = parse(green_forecast(NOW, [-200, 300, None, 10, "x"], [500, 100, "y", None, 5]), series="forecast")
    assert [r.value for r in batch if r.signal is SignalKind.SURPLUS] == [700e6, -200e6]
    assert [r.value for r in batch if r.signal is SignalKind.RESIDUAL_LOAD] == [-200e6, 300e6, 10e6]
    assert {r.quality for r in batch} == {Quality.FORECAST}
    assert [d.row for d in batch.dropped] == ["residualLoad[4]", "superGreenThreshold[2]"]


def test_states_of_the_past_are_stale() -> None:
    payload = states(("2026-06-01T08:00:00+02:00", "2026-06-01T12:00:00+02:00", 1))
    with pytest.raises(AdapterError, match="still serves old data") as caught:
        parse(payload)
    assert caught.value.kind == "stale"


@pytest.mark.parametrize("body", [{"detail": "Die PLZ 10115 liegt nicht in Baden-Württemberg"}, {"title": "Die PLZ 10115 ist unbekannt"}])
def test_another_postcode_is_refused_with_what_the_service_says(body: dict[str, str]) -> None:
    http = FakeHttp(json.dumps({"status": 400, **body}).encode(), status=400, content_type="application/problem+json")
    with pytest.raises(AdapterError, match=r"Die PLZ 10115.*check zip") as caught:
        made(zip="10115").fetch(http, NOW)
    assert caught.value.kind == "refused"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'"no"'])
def test_a_400_without_explanation_is_refused_too(body: bytes) -> None:
    with pytest.raises(AdapterError, match="HTTP 400") as caught:
        made().fetch(FakeHttp(body, status=400), NOW)
    assert caught.value.kind == "refused"


@pytest.mark.parametrize(
    ("document", "series", "kind"),
    [
        ({"states": []}, "states", "not_published"),
        ({"states": {}}, "states", "malformed"),
        ({"states": [5]}, "states", "not_published"),
        ({"residualLoad": []}, "forecast", "malformed"),
        ({"residualLoad": [], "superGreenThreshold": []}, "forecast", "not_published"),
        ({"residualLoad": [5], "superGreenThreshold": [{}]}, "forecast", "not_published"),
    ],
)
def test_what_is_wrong_with_an_answer_is_named(document: object, series: str, kind: str) -> None:
    with pytest.raises(AdapterError) as caught:
        parse(json.dumps(document).encode(), series=series)
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"zip": "7017"}, "zip '7017' is not a postcode"),
        ({"zip": 70173}, "not a str"),
        ({"alarm_from": 5}, "none of -1 (supergreen), 1 (green)"),
    ],
)
def test_a_wrong_option_is_told_with_the_right_ones(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made(**wrong)
    assert said in str(caught.value)


def test_recorded_states_read_whole_and_seamless() -> None:
    batch = parse(recorded("api", "stromgedacht", "statesRelative_70173.json").read_bytes(), now=datetime(2025, 9, 15, 21, 32, tzinfo=UTC))
    assert batch.dropped == ()
    assert batch.readings[0].start == datetime(2025, 9, 15, 21, 30, tzinfo=UTC)
    assert batch.readings[-1].end == datetime(2025, 9, 16, 21, 45, tzinfo=UTC)
    assert all(a.end == b.start for a, b in pairwise(batch.readings))
    assert {r.value for r in batch} == {0.0}


def test_a_recorded_forecast_without_residual_load_is_named() -> None:
    payload = recorded("api", "stromgedacht", "forecast_70173_from_2025-09-14.json").read_bytes()
    with pytest.raises(AdapterError, match="without a list of residualLoad"):
        parse(payload, series="forecast")
