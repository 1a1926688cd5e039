from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gridsched import AdapterError, ConfigError, Quality, SignalKind
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
    assert {r.signal: r.value for r in batch} == {SignalKind.SURPLUS: 6e9, SignalKind.RENEWABLE_SHARE: pytest.approx(0.915)}


def test_a_red_light_is_an_alarm_and_only_that() -> None:
    payload = energy_charts(TODAY, {"share": [44.0, 88.0, 12.0], "signal": [0, 2, -1]}, endpoint="signal", unit="%")
    batch = adapter("energy_charts", {"zone": "de", "series": "signal"}).parse(payload, now=TODAY)
    assert [r.value for r in batch if r.signal is SignalKind.ALARM] == [0, 0, 1]
    assert [r.value for r in batch if r.signal is SignalKind.RENEWABLE_SHARE] == [0.44, 0.88, 0.12]
    assert {r.quality for r in batch} == {Quality.FORECAST}


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
    with pytest.raises(ConfigError, match="'prise' is none of price, power, signal"):
        adapter("energy_charts", {"zone": "de", "series": "prise"})


def test_a_recorded_answer_of_v2_reads_whole() -> None:
    payload = recorded("api", "energy_charts", "v2_price_DE-LU_2026-08-24_first96.json").read_bytes()
    batch = adapter("energy_charts", {"zone": "de"}).parse(payload, now=datetime(2026, 8, 24, 9, tzinfo=UTC))
    assert len(batch) == 96
    assert batch.dropped == ()
    assert batch.readings[0].value == 164.69
    assert batch.readings[0].start == datetime(2026, 8, 23, 22, tzinfo=UTC)


def test_a_recorded_answer_of_another_endpoint_is_refused() -> None:
    payload = recorded("api", "energy_charts", "v2_cbpf_ua_2026-08-06_trimmed.json").read_bytes()
    with pytest.raises(AdapterError, match="answered for country 'ua', not 'de'"):
        adapter("energy_charts", {"zone": "de", "series": "power"}).parse(payload, now=datetime(2026, 8, 6, 19, tzinfo=UTC))
