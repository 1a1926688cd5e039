import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gridsched import AdapterError, Batch, ConfigError
from tests.adapters.fake_http import FakeHttp
from tests.adapters.load import adapter, recorded

NOW = datetime(2026, 6, 1, 12, 7, 30, tzinfo=UTC)
METER = {
    "zone": "site",
    "url": "http://meter.local/status",
    "signal": "surplus",
    "resolution": "1m",
    "value": "power.grid_w",
    "unit": "W",
    "scale": -1,
}
CARBON = {
    "zone": "gb",
    "url": "https://carbon.example/intensity/{start}/fw48h",
    "signal": "carbon",
    "resolution": "30m",
    "rows": "data",
    "time": "from",
    "value": "intensity.forecast",
    "unit": "g/kWh",
    "quality": "forecast",
}


def fetch(table: dict[str, Any], document: object, **answer: Any) -> Batch:
    batch: Batch = adapter("http_json", table).fetch(FakeHttp(json.dumps(document).encode(), **answer), NOW)
    return batch


def test_a_live_value_holds_for_one_resolution_from_now_and_its_sign_is_turned() -> None:
    (reading,) = fetch(METER, {"power": {"grid_w": -1250.5}})
    assert (reading.value, reading.start, reading.end - reading.start) == (1250.5, NOW, timedelta(minutes=1))


def test_a_live_value_that_is_null_is_unknown() -> None:
    with pytest.raises(AdapterError, match=r"nothing at 'power\.grid_w'"):
        fetch(METER, {"power": {"grid_w": None}})


def test_a_list_of_rows_with_paths() -> None:
    rows = [{"from": f"2026-06-01T{12 + i // 2}:{i % 2 * 30:02}Z", "intensity": {"forecast": 100 + i, "actual": None}} for i in range(4)]
    batch = fetch(CARBON, {"data": rows})
    assert [r.value for r in batch] == [100, 101, 102, 103]
    assert batch.readings[-1].end == datetime(2026, 6, 1, 14, tzinfo=UTC)


def test_parallel_lists_and_list_positions() -> None:
    table = {**CARBON, "rows": "answer.0", "time": "unix_seconds", "value": "g", "time_format": "epoch_s", "resolution": "1h"}
    first = int(NOW.timestamp())
    assert [r.value for r in fetch(table, {"answer": [{"unix_seconds": [first, first + 3600], "g": [5, None]}]})] == [5]


def test_the_window_is_written_into_the_url() -> None:
    http = FakeHttp(b'{"data": [{"from": "2026-06-01T12:00Z", "intensity": {"forecast": 1}}]}')
    url = "https://x.example/{start}/{end}?a={start_s}&b={end_ms}&c={start_date}"
    adapter("http_json", {**CARBON, "url": url, "before": "1h", "ahead": "1d", "headers": {"auth-token": "T"}}).fetch(http, NOW)
    first, last = NOW - timedelta(hours=1), NOW + timedelta(days=1)
    expected = f"2026-06-01T11:07:30Z/2026-06-02T12:07:30Z?a={int(first.timestamp())}&b={int(last.timestamp())}000&c=2026-06-01"
    assert http.asked == [(f"https://x.example/{expected}", {})]
    assert http.sent_headers == {"auth-token": "T"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"url": "https://x/{from}"}, "url has no place from; use one of end, end_date"),
        ({"url": "https://x/{start"}, "url 'https://x/{start'"),
        ({"unit": "lbs"}, "use g/kWh"),
        ({"headers": "auth"}, "headers"),
        ({"value": None}, "value"),
    ],
)
def test_a_wrong_option_is_told_before_anything_runs(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        adapter("http_json", {**CARBON, **wrong})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        ({}, "malformed"),
        ({"data": []}, "not_published"),
        ({"data": {"from": [1], "intensity": 5}}, "malformed"),
        ({"data": [{"from": "2026-05-31T12:00Z", "intensity": {"forecast": 9}}]}, "stale"),
    ],
)
def test_success_without_data_is_no_success(document: object, kind: str) -> None:
    with pytest.raises(AdapterError) as caught:
        fetch(CARBON, document)
    assert caught.value.kind == kind


def test_a_service_that_stopped_but_still_answers_is_stale() -> None:
    payload = recorded("api", "energidataservice", "Elspotprices_last_hours.json").read_bytes()
    table = {
        "zone": "dk1",
        "url": "https://api.energidataservice.dk/dataset/Elspotprices",
        "signal": "price",
        "resolution": "1h",
        "rows": "records",
        "time": "HourUTC",
        "value": "SpotPriceEUR",
        "unit": "EUR/MWh",
        "timezone": "UTC",
    }
    with pytest.raises(AdapterError) as caught:
        adapter("http_json", table).parse(payload, now=datetime(2025, 10, 20, tzinfo=UTC))
    assert caught.value.kind == "stale"
