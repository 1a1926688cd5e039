import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gridsched import AdapterError, ConfigError, Quality, SignalKind
from gridsched.core.signal import Series
from tests.adapters.fake_http import FakeHttp
from tests.adapters.load import adapter, recorded
from tests.adapters.payloads import electricity_maps

NOW = datetime(2026, 6, 1, 10, 5, tzinfo=UTC)
HOUR = datetime(2026, 6, 1, 10, tzinfo=UTC)
TABLE: Mapping[str, object] = {"zone": "dk2", "area": "DK-DK2", "token": "T0ken"}
MEASURED = {"isEstimated": False}
ESTIMATED = {"isEstimated": True, "estimationMethod": "FORECASTS_HIERARCHY"}


def carbon(start: datetime, values: list[float], **changes: Any) -> bytes:
    return electricity_maps(start, values, **{"field": "carbonIntensity", "key": "history", **changes})


def test_the_last_day_and_the_forecast_are_joined_without_asking_for_the_callers_own_place() -> None:
    http = FakeHttp(
        also={"/history": carbon(HOUR, [75.0], row=ESTIMATED), "/forecast": carbon(HOUR, [70.0, 60.0], key="forecast")},
    )
    batch = adapter("electricity_maps", TABLE).fetch(http, NOW)
    base = {"zone": "DK-DK2", "temporalGranularity": "hourly", "disableCallerLookup": "true"}
    assert http.asked == [
        ("https://api.electricitymaps.com/v4/carbon-intensity/history", base),
        ("https://api.electricitymaps.com/v4/carbon-intensity/forecast", {**base, "horizonHours": 24}),
    ]
    assert http.sent_headers == {"auth-token": "T0ken"}
    assert [(r.value, r.quality.value) for r in batch] == [(75, "estimated"), (60, "forecast")]


def test_a_plan_without_forecasts_asks_for_none() -> None:
    http = FakeHttp(carbon(HOUR, [75.0]))
    adapter("electricity_maps", {**TABLE, "forecast": False}).fetch(http, NOW)
    assert [url.rpartition("/")[2] for url, _ in http.asked] == ["history"]


@pytest.mark.parametrize(
    ("signal", "payload", "value"),
    [
        ("carbon", electricity_maps(HOUR, [216], key="latest", field="carbonIntensity"), 216),
        ("renewable_share", electricity_maps(HOUR, [97], key="latest", row={"unit": "%"}), 0.97),
        ("carbon", electricity_maps(HOUR, [246], key="history", field="carbonIntensity"), 246),
        ("carbon", electricity_maps(HOUR, [77], key="forecast", field="carbonIntensity"), 77),
        ("residual_load", electricity_maps(HOUR, [-445.5], row={"unit": "MW"}), -445.5e6),
        ("price", electricity_maps(HOUR, [-12.5], row={"unit": "EUR/MWh", "source": "nordpool.com"}), -12.5),
    ],
)
def test_each_shape_is_read_in_its_unit(signal: str, payload: bytes, value: float) -> None:
    (reading,) = adapter("electricity_maps", {**TABLE, "signal": signal}).parse(payload, now=NOW)
    assert (reading.signal, reading.value, reading.end - reading.start) == (SignalKind(signal), value, timedelta(hours=1))


@pytest.mark.parametrize(
    ("row", "hours_ago", "quality"),
    [
        (MEASURED, 2, "measured"),
        (ESTIMATED, 2, "estimated"),
        ({}, 2, "forecast"),
        (MEASURED, 0, "estimated"),  # the hour is not over
        (MEASURED, -3, "forecast"),  # as their net load says of hours to come
        (ESTIMATED, -3, "forecast"),
    ],
)
def test_a_value_is_no_better_than_its_time_allows(row: dict[str, object], hours_ago: int, quality: str) -> None:
    payload = electricity_maps(HOUR - timedelta(hours=hours_ago), [400], row={"unit": "MW", **row})
    (reading,) = adapter("electricity_maps", {**TABLE, "signal": "residual_load"}).parse(payload, now=NOW)
    assert reading.quality == quality


@pytest.mark.parametrize(
    ("source", "quality"), [("nordpool.com", "measured"), ("Electricity Maps price model", "forecast"), (None, "forecast")]
)
def test_a_price_from_an_exchange_is_settled_and_one_from_a_model_is_forecast(source: str | None, quality: str) -> None:
    http = FakeHttp(electricity_maps(HOUR + timedelta(hours=5), [20.0], row={"unit": "EUR/MWh", "source": source}))
    (reading,) = adapter("electricity_maps", {**TABLE, "signal": "price"}).fetch(http, NOW)
    assert reading.quality == quality
    assert [url.rpartition("v4/")[2] for url, _ in http.asked] == ["price-day-ahead/combined"]


def test_a_revised_estimate_gives_way_to_what_was_measured() -> None:
    source = adapter("electricity_maps", TABLE)
    first = source.parse(carbon(HOUR - timedelta(hours=2), [75.0], row=ESTIMATED), now=NOW)
    later = source.parse(carbon(HOUR - timedelta(hours=2), [81.0], row=MEASURED), now=NOW + timedelta(minutes=30))
    both = Series([*later, *first])
    (counts,) = both
    assert (counts.value, counts.quality) == (81, Quality.MEASURED)
    (counts_then,) = both.as_of(NOW)
    assert counts_then.value == 75


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (carbon(HOUR, [75.0], area="DE"), "malformed"),
        (b'{"status": "no-data", "countryCode": "DE", "data": {}}', "not_published"),
        (b'{"message": "no Route matched with those values"}', "malformed"),
        (b'{"zone": "DK-DK2", "history": []}', "not_published"),
        (b'{"zone": "DK-DK2", "history": {}}', "malformed"),
        (b'{"zone": "DK-DK2"}', "not_published"),
        (b"[]", "malformed"),
    ],
)
def test_success_without_the_right_data_is_no_success(body: bytes, kind: str) -> None:
    with pytest.raises(AdapterError) as caught:
        adapter("electricity_maps", TABLE).fetch(FakeHttp(body), NOW)
    assert caught.value.kind == kind


def test_another_place_is_named() -> None:
    with pytest.raises(AdapterError, match="answered not for 'DK-DK2' but with \"zone 'DE'\""):
        adapter("electricity_maps", TABLE).parse(carbon(HOUR, [75.0], area="DE"), now=NOW)


@pytest.mark.parametrize(("status", "kind"), [(401, "refused"), (403, "refused"), (404, "not_published"), (429, "rate_limited")])
def test_a_bad_status_says_which_part_was_refused(status: int, kind: str) -> None:
    http = FakeHttp(b'{"message": "You do not have access"}', status=status, also={"/history": carbon(HOUR, [75.0])})
    with pytest.raises(AdapterError, match="electricity_maps/forecast") as caught:
        adapter("electricity_maps", TABLE).fetch(http, NOW)
    assert caught.value.kind == kind


@pytest.mark.parametrize("unit", ["GBP/MWh", None])
def test_a_price_in_no_known_unit_is_refused(unit: str | None) -> None:
    with pytest.raises(AdapterError) as caught:
        adapter("electricity_maps", {**TABLE, "signal": "price"}).parse(electricity_maps(HOUR, [9.0], row={"unit": unit}), now=NOW)
    assert caught.value.kind == "wrong_unit"


def test_values_of_another_resolution_are_refused() -> None:
    with pytest.raises(AdapterError, match="'hourly' values, not '15_minutes'"):
        adapter("electricity_maps", {**TABLE, "resolution": "15m"}).parse(carbon(HOUR, [75.0]), now=NOW)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"signal": "surplus"}, "'surplus' is none of carbon, renewable_share, residual_load, price"),
        ({"resolution": "30m"}, "none of 5m, 15m, 1h"),
        ({"signal": "residual_load", "horizon_hours": 72}, "forecast for 24 hours, not 72"),
    ],
)
def test_a_wrong_option_is_told_before_anything_runs(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        adapter("electricity_maps", {**TABLE, **wrong})


def unwrapped(path: Path) -> bytes:
    """What was answered, without the recorder's wrapping."""
    return json.dumps(json.loads(path.read_text())["body"]).encode()


@pytest.mark.parametrize(
    ("name", "signal", "count", "last", "quality"),
    [
        ("v4_carbon-intensity__latest", "carbon", 1, 75, "estimated"),
        ("v4_renewable-energy__latest", "renewable_share", 1, 0.97, "estimated"),
        ("v4_carbon-intensity__history", "carbon", 24, 75, "estimated"),
        ("v4_carbon-intensity__forecast", "carbon", 25, None, "forecast"),
    ],
)
def test_recorded_answers_of_v4_read_whole(name: str, signal: str, count: int, last: float | None, quality: str) -> None:
    payload = unwrapped(recorded("api", "electricitymaps", f"{name}.json"))
    batch = adapter("electricity_maps", {**TABLE, "signal": signal}).parse(payload, now=datetime(2026, 8, 22, 17, 34, tzinfo=UTC))
    assert len(batch) == count
    assert batch.dropped == ()
    assert batch.readings[-1].quality == quality
    if last is not None:
        assert batch.readings[-1].value == last


def test_the_recorded_last_day_is_measured_first_and_estimated_towards_its_end() -> None:
    payload = unwrapped(recorded("api", "electricitymaps", "v4_carbon-intensity__history.json"))
    batch = adapter("electricity_maps", TABLE).parse(payload, now=datetime(2026, 8, 22, 17, 34, tzinfo=UTC))
    qualities = [r.quality for r in batch]
    assert qualities == sorted(qualities, reverse=True)  # measured, then estimated
    assert set(qualities) == {Quality.MEASURED, Quality.ESTIMATED}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("no-data-response.json", "not_published"), ("unknown-response.json", "malformed"), ("error_404_no_route.json", "malformed")],
)
def test_recorded_answers_without_data_are_refused(name: str, kind: str) -> None:
    with pytest.raises(AdapterError) as caught:
        adapter("electricity_maps", TABLE).parse(recorded("api", "electricitymaps", name).read_bytes(), now=NOW)
    assert caught.value.kind == kind
