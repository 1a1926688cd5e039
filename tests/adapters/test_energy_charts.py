import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from gridsched import AdapterError, Batch, ConfigError, Quality, Response, SignalKind
from tests.adapters.fake_http import FakeHttp
from tests.adapters.load import adapter, recorded
from tests.adapters.payloads import BERLIN, energy_charts

TODAY = datetime(2026, 6, 1, tzinfo=BERLIN)
NOON = datetime(2026, 6, 1, 10, tzinfo=UTC)


def test_prices_are_asked_for_today_and_tomorrow_of_the_local_day() -> None:
    http = FakeHttp(energy_charts(TODAY, {"day_ahead_price": [1.0] * 96}))
    adapter("energy_charts", {"zone": "de"}).fetch(http, datetime(2026, 5, 31, 22, 30, tzinfo=UTC))
    assert http.asked == [("https://api.energy-charts.info/v2/price", {"bzn": "DE-LU", "start": "2026-06-01", "end": "2026-06-02"})]


def test_slots_not_published_yet_are_unknown_not_zero() -> None:
    payload = energy_charts(TODAY, {"day_ahead_price": [-12.5, 0.0, *[80.0] * 94, *[None] * 96]})
    batch = adapter("energy_charts", {"zone": "de"}).parse(payload, now=NOON)
    assert len(batch) == 96
    assert [r.value for r in batch][:3] == [-12.5, 0.0, 80.0]
    assert batch.readings[0].start == datetime(2026, 5, 31, 22, tzinfo=UTC)
    assert {r.known_at for r in batch} == {NOON}


@pytest.mark.parametrize(("day", "slots"), [(datetime(2026, 3, 29, tzinfo=BERLIN), 92), (datetime(2026, 10, 25, tzinfo=BERLIN), 100)])
def test_clock_change_days_are_seamless(day: datetime, slots: int) -> None:
    batch = adapter("energy_charts", {"zone": "de"}).parse(energy_charts(day, {"day_ahead_price": [1.0] * slots}), now=day)
    assert len(batch) == slots
    assert batch.readings[-1].end - batch.readings[0].start == slots * timedelta(minutes=15)
    assert batch.readings[-1].end == (day + timedelta(days=1)).astimezone(UTC)


def test_a_per_cent_series_inside_an_answer_in_megawatts_keeps_its_own_unit() -> None:
    series = {"residual_load": [4000.0, None], "load": [50_000.0, None], "renewable_share_of_generation|%": [91.5, None]}
    payload = energy_charts(TODAY, series, endpoint="public_power", unit="MW")
    power = adapter("energy_charts", {"zone": "de", "series": "power", "surplus_below_residual": 10_000})
    batch = power.parse(payload, now=TODAY + timedelta(hours=1))
    assert {r.signal: r.value for r in batch} == {
        SignalKind.SURPLUS: 6e9,
        SignalKind.RESIDUAL_LOAD: 4e9,
        SignalKind.RENEWABLE_SHARE: pytest.approx(0.915),
    }
    assert {r.quality for r in batch} == {Quality.MEASURED}


def ahead(unit: str = "MW", **columns: list[float | None]) -> bytes:
    return energy_charts(TODAY, columns, endpoint="public_power_forecast", unit=unit)


def forecast(*payloads: bytes, now: datetime = TODAY, **options: Any) -> Batch:
    batch: Batch = adapter("energy_charts", {"zone": "de", "series": "forecast", **options}).parse(*payloads, now=now)
    return batch


def of(batch: Batch, signal: SignalKind) -> list[float]:
    return [r.value for r in batch if r.signal is signal]


def test_a_forecast_is_load_less_wind_and_sun_in_three_requests() -> None:
    asked = []

    class Http(FakeHttp):
        def get(self, url: str, *, params: Any = None, headers: Any = None) -> Response:
            asked.append((url.rpartition("/")[2], dict(params)))
            values = {"load": [50_000.0, 40_000.0], "solar": [0.0, 35_000.0], "wind": [10_000.0, 25_000.0]}[params["production_type"]]
            body = energy_charts(TODAY, {params["production_type"]: values}, endpoint="public_power_forecast", unit="MW")
            return Response(status=200, body=body, headers={}, content_type="application/json")

    batch = adapter("energy_charts", {"zone": "de", "series": "forecast"}).fetch(Http(), TODAY)
    common = {"country": "de", "forecast_type": "day-ahead", "start": "2026-06-01", "end": "2026-06-02"}
    assert asked == [("public_power_forecast", {**common, "production_type": kind}) for kind in ("load", "solar", "wind")]
    assert of(batch, SignalKind.RESIDUAL_LOAD) == [40e9, -20e9]
    assert of(batch, SignalKind.RENEWABLE_SHARE) == [0.2, 1.0]
    assert {r.quality for r in batch} == {Quality.FORECAST}


@pytest.mark.parametrize("unknown", ["load", "solar", "wind"])
def test_a_null_in_a_forecast_is_unknown_and_neither_dark_nor_calm(unknown: str) -> None:
    columns: dict[str, list[float | None]] = {"load": [50.0] * 3, "solar": [0.0] * 3, "wind": [5.0] * 3}
    columns[unknown][1] = None
    batch = forecast(*(energy_charts(TODAY, {kind: values}, endpoint="x", unit="MW") for kind, values in columns.items()))
    assert [r.start - TODAY for r in batch if r.signal is SignalKind.RESIDUAL_LOAD] == [timedelta(0), timedelta(minutes=30)]


def test_a_forecast_of_nothing_but_nulls_is_not_published() -> None:
    with pytest.raises(AdapterError) as caught:
        forecast(ahead(load=[50.0] * 96), ahead(solar=[None] * 96), ahead(wind=[5.0] * 96))
    assert caught.value.kind == "not_published"


def test_a_forecast_that_lacks_a_kind_is_refused() -> None:
    with pytest.raises(AdapterError, match="has no series 'wind', only load") as caught:
        forecast(ahead(load=[50.0] * 96), ahead(solar=[1.0] * 96))
    assert caught.value.kind == "malformed"


def test_forecasts_of_different_units_and_lengths_meet_at_the_finer() -> None:
    hourly = ahead(unit="GW", load=[0.05]).replace(b'"interval_minutes": 15', b'"interval_minutes": 60')
    batch = forecast(hourly, ahead(solar=[0.0, 10.0, 20.0, 30.0, 40.0]), ahead(wind=[0.0] * 5))
    assert of(batch, SignalKind.RESIDUAL_LOAD) == pytest.approx([50e6, 40e6, 30e6, 20e6])


def test_a_forecast_that_ends_before_now_is_stale_at_once() -> None:
    payload = ahead(load=[50.0] * 96, solar=[1.0] * 96, wind=[1.0] * 96)
    assert len(forecast(payload, now=TODAY + timedelta(hours=23, minutes=59))) == 192
    with pytest.raises(AdapterError, match="still serves old data"):
        forecast(payload, now=TODAY + timedelta(hours=24))


def test_no_load_has_no_share_of_it() -> None:
    batch = forecast(ahead(load=[0.0], solar=[1.0], wind=[1.0]))
    assert [r.signal for r in batch] == [SignalKind.RESIDUAL_LOAD]


def test_a_forecast_is_asked_for_once_an_hour() -> None:
    assert adapter("energy_charts", {"zone": "de", "series": "forecast"}).every == timedelta(hours=1)
    assert adapter("energy_charts", {"zone": "de"}).every == timedelta(minutes=15)


def test_values_count_from_when_we_fetched_them_not_from_when_the_answer_was_made() -> None:
    payload = energy_charts(TODAY, {"day_ahead_price": [1.0] * 96}, generated_at="2030-01-01T00:00:00+00:00")
    assert {r.known_at for r in adapter("energy_charts", {"zone": "de"}).parse(payload, now=NOON)} == {NOON}
    old = energy_charts(TODAY - timedelta(days=1), {"day_ahead_price": [1.0] * 96}, generated_at=NOON.isoformat())
    with pytest.raises(AdapterError, match="still serves old data"):
        adapter("energy_charts", {"zone": "de"}).parse(old, now=NOON)


def test_an_answer_wider_than_asked_is_kept_as_it_is() -> None:
    week = energy_charts(TODAY - timedelta(days=3), {"day_ahead_price": [1.0] * 7 * 96})
    assert len(adapter("energy_charts", {"zone": "de"}).parse(week, now=NOON)) == 7 * 96


def test_a_red_light_is_an_alarm_and_only_that() -> None:
    payload = energy_charts(TODAY, {"share": [44.0, 88.0, 12.0], "signal": [0, 2, -1]}, endpoint="signal", unit="%")
    batch = adapter("energy_charts", {"zone": "de", "series": "signal"}).parse(payload, now=TODAY)
    assert [r.value for r in batch if r.signal is SignalKind.ALARM] == [0, 0, 1]
    assert [r.value for r in batch if r.signal is SignalKind.RENEWABLE_SHARE] == [0.44, 0.88, 0.12]
    assert {r.quality for r in batch} == {Quality.FORECAST}


def test_what_is_no_light_is_set_aside_and_never_taken_for_green() -> None:
    lights: list[Any] = ["-1", "x", -1, 7, None, 0.5, True, 2]
    document = json.loads(energy_charts(TODAY, {"share": [50.0] * 9, "signal": [*lights, 0]}, endpoint="signal", unit="%"))
    del document["data"][8]["values"]
    batch = adapter("energy_charts", {"zone": "de", "series": "signal"}).parse(json.dumps(document).encode(), now=TODAY)
    alarms = {(r.start - TODAY) // timedelta(minutes=15): r.value for r in batch if r.signal is SignalKind.ALARM}
    assert alarms == {0: 1, 2: 1, 7: 0}
    told = {d.row: d.reason for d in batch.dropped}
    assert set(told) == {"data[1]", "data[3]", "data[5]", "data[6]", "data[8]"}
    assert told["data[3]"] == "7 is no light; there are -1, 0, 1, 2"


def test_a_share_above_the_whole_load_is_all_of_it_and_one_below_nothing_is_set_aside() -> None:
    shares: list[Any] = [104.2, 100.0, "101,5", -0.1, None]
    payload = energy_charts(TODAY, {"share": shares, "signal": [2] * 5}, endpoint="signal", unit="%")
    batch = adapter("energy_charts", {"zone": "de", "series": "signal"}).parse(payload, now=TODAY)
    assert of(batch, SignalKind.RENEWABLE_SHARE) == [1.0, 1.0, 1.0]
    assert [d.row for d in batch.dropped] == ["data[3]"]


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"unit": "g/kWh"}, "wrong_unit"),
        ({"bidding_zone": "AT"}, "malformed"),
        ({"interval_minutes": 0}, "malformed"),
        ({"series": []}, "malformed"),
        ({"data": None}, "malformed"),
        ({"data": []}, "not_published"),
    ],
)
def test_what_is_wrong_with_an_answer_is_named(changes: dict[str, Any], kind: str) -> None:
    payload = energy_charts(TODAY, {"day_ahead_price": [1.0] * 96}, **changes)
    with pytest.raises(AdapterError) as caught:
        adapter("energy_charts", {"zone": "de"}).parse(payload, now=NOON)
    assert caught.value.kind == kind


def test_a_window_of_nulls_is_not_published() -> None:
    with pytest.raises(AdapterError, match="no value for any slot"):
        adapter("energy_charts", {"zone": "de"}).parse(energy_charts(TODAY, {"day_ahead_price": [None] * 96}), now=NOON)


def test_the_old_shape_is_refused_with_a_hint() -> None:
    with pytest.raises(AdapterError, match="is this API v2"):
        adapter("energy_charts", {"zone": "de"}).parse(b'{"unix_seconds": [1], "price": [1.0]}', now=NOON)


def test_a_wrong_option_names_the_right_ones() -> None:
    with pytest.raises(ConfigError, match="'prise' is none of price, power, forecast, signal"):
        adapter("energy_charts", {"zone": "de", "series": "prise"})


def test_a_recorded_answer_of_v2_reads_whole() -> None:
    payload = recorded("api", "energy_charts", "v2_price_DE-LU_2026-08-24_first96.json").read_bytes()
    batch = adapter("energy_charts", {"zone": "de"}).parse(payload, now=datetime(2026, 8, 24, 9, tzinfo=UTC))
    assert len(batch) == 96
    assert batch.dropped == ()
    assert batch.readings[0].value == 164.69
    assert batch.readings[0].start == datetime(2026, 8, 23, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "resolution", "slots"),
    [
        ("price_bzn_AT_start_2025-09-30.json", "1h", 24),
        ("price_bzn_AT_start_2025-10-01.json", "15m", 96),
        ("price_bzn_AT_start_2025-10-26.json", "15m", 100),
        ("price_bzn_AT_start_2026-04-26.json", "15m", 96),
    ],
)
def test_recorded_days_of_the_old_shape_read_whole_by_configuration_alone(name: str, resolution: str, slots: int) -> None:
    table = {"zone": "at", "url": "https://x.example", "signal": "price", "resolution": resolution, "unit": "EUR / MWh"}
    old = adapter("http_json", {**table, "time": "unix_seconds", "time_format": "epoch_s", "value": "price"})
    batch = old.parse(recorded("api", "energy_charts", name).read_bytes(), now=datetime(2025, 1, 1, tzinfo=UTC))
    assert (len(batch), batch.dropped) == (slots, ())
    assert all(a.end == b.start for a, b in pairwise(batch.readings))


def test_a_recorded_answer_of_another_endpoint_is_refused() -> None:
    payload = recorded("api", "energy_charts", "v2_cbpf_ua_2026-08-06_trimmed.json").read_bytes()
    with pytest.raises(AdapterError, match="answered for country 'ua', not 'de'"):
        adapter("energy_charts", {"zone": "de", "series": "power"}).parse(payload, now=datetime(2026, 8, 6, 19, tzinfo=UTC))
