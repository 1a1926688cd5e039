import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from gridsched import AdapterError, ConfigError, Quality
from tests.adapters.fake_http import FakeHttp
from tests.adapters.load import adapter, recorded
from tests.adapters.payloads import watttime

NOW = datetime(2026, 6, 1, 10, 5, tzinfo=UTC)
TABLE: Mapping[str, object] = {"zone": "caiso", "username": "ada", "password": "lovelace", "region": "CAISO_NORTH"}
LOGIN = {"/login": b'{"token": "T0ken"}'}


def test_the_forecast_is_asked_for_with_the_token_of_a_login() -> None:
    http = FakeHttp(watttime(NOW, [0.0, 1000.0]), also=LOGIN)
    batch = adapter("watttime", TABLE).fetch(http, NOW)
    params = {"region": "CAISO_NORTH", "signal_type": "co2_moer", "horizon_hours": 24}
    assert http.asked == [("https://api.watttime.org/login", {}), ("https://api.watttime.org/v3/forecast", params)]
    assert http.sent_headers == {"Authorization": "Bearer T0ken"}
    assert [(r.value, r.quality) for r in batch] == [(0.0, Quality.FORECAST), (pytest.approx(453.59237), Quality.FORECAST)]
    assert batch.readings[1].end - batch.readings[1].start == timedelta(minutes=5)


def test_the_login_is_basic() -> None:
    http = FakeHttp(b"{}")
    with pytest.raises(AdapterError, match="gave no token"):
        adapter("watttime", TABLE).fetch(http, NOW)
    assert http.sent_headers == {"Authorization": "Basic YWRhOmxvdmVsYWNl"}


def test_a_token_is_kept_while_it_is_good() -> None:
    source = adapter("watttime", TABLE)
    http = FakeHttp(watttime(NOW, [5.0] * 100), also=LOGIN)
    logins = []
    for minutes in (0, 15, 28, 30, 45):
        source.fetch(http, NOW + timedelta(minutes=minutes))
        logins.append(sum(url.endswith("/login") for url, _ in http.asked))
    assert logins == [1, 1, 1, 2, 2]


def test_a_token_that_is_refused_is_not_used_again() -> None:
    source = adapter("watttime", TABLE)
    http = FakeHttp(watttime(NOW, [5.0]), also=LOGIN)
    with pytest.raises(AdapterError, match="refuses access"):
        source.fetch(FakeHttp(status=401, also=LOGIN), NOW)
    source.fetch(http, NOW)
    assert [url.rpartition("/")[2] for url, _ in http.asked] == ["login", "forecast"]


def test_a_wrong_password_is_refused_at_the_login() -> None:
    with pytest.raises(AdapterError, match="watttime/login refuses access") as caught:
        adapter("watttime", TABLE).fetch(FakeHttp(status=401), NOW)
    assert caught.value.kind == "refused"
    assert "lovelace" not in str(caught.value)


@pytest.mark.parametrize(
    ("meta", "kind"),
    [
        ({"units": "percentile"}, "wrong_unit"),
        ({"units": None}, "wrong_unit"),
        ({"region": "PJM_DC"}, "malformed"),
        ({"signal_type": "health_damage"}, "malformed"),
        ({"data_point_period_seconds": 3600}, "malformed"),
    ],
)
def test_an_answer_about_something_else_is_refused(meta: dict[str, object], kind: str) -> None:
    with pytest.raises(AdapterError) as caught:
        adapter("watttime", TABLE).parse(watttime(NOW, [5.0], **meta), now=NOW)
    assert caught.value.kind == kind


def test_a_horizon_beyond_three_days_is_told_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match="from 1 to 72, got 96"):
        adapter("watttime", {**TABLE, "horizon_hours": 96})


def test_the_recorded_answer_is_read_in_grams() -> None:
    payload = recorded("api", "watttime", "watttime-forecast-response-example.json").read_bytes()
    (reading,) = adapter("watttime", TABLE).parse(payload, now=datetime(2026, 4, 1, tzinfo=UTC))
    assert reading.value == pytest.approx(412.5 * 0.45359237)


def test_a_recorded_forecast_of_an_hour_has_a_slot_for_each_five_minutes() -> None:
    history = json.loads(recorded("api", "watttime", "region-data_historical_forecast.json").read_text())
    meta = {"region": "CAISO_NORTH", "signal_type": "co2_moer", "units": "lbs_co2_per_mwh"}
    payload = json.dumps({"data": history["data"][0]["forecast"], "meta": meta}).encode()
    batch = adapter("watttime", TABLE).parse(payload, now=datetime(2024, 3, 5, tzinfo=UTC))
    assert len(batch) == len(history["data"][0]["forecast"])
    assert batch.readings[0].value == pytest.approx(779.8 * 0.45359237)
