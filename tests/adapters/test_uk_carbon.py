import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gridsched import AdapterError, ConfigError, Quality
from tests.adapters.fake_http import FakeHttp
from tests.adapters.load import adapter, recorded
from tests.adapters.payloads import uk_carbon

NOW = datetime(2026, 6, 1, 10, 5, tzinfo=UTC)
FIRST = datetime(2026, 6, 1, 10, tzinfo=UTC)


def test_the_day_that_is_still_revised_and_two_days_ahead_are_asked_for() -> None:
    http = FakeHttp(uk_carbon(FIRST, [100] * 96))
    adapter("uk_carbon", {"zone": "gb"}).fetch(http, NOW)
    assert http.asked == [("https://api.carbonintensity.org.uk/intensity/2026-05-31T10:05Z/2026-06-03T10:05Z", {})]


@pytest.mark.parametrize(
    ("place", "path"),
    [({"postcode": "RG10"}, "fw48h/postcode/RG10"), ({"region_id": 13}, "fw48h/regionid/13")],
)
def test_a_region_has_a_path_of_its_own_and_is_forecast_only(place: dict[str, Any], path: str) -> None:
    http = FakeHttp(uk_carbon(FIRST, [30, 31], region={"regionid": 13, "postcode": "RG10"}))
    batch = adapter("uk_carbon", {"zone": "gb", **place}).fetch(http, NOW)
    assert http.asked[0][0] == f"https://api.carbonintensity.org.uk/regional/intensity/2026-06-01T10:05Z/{path}"
    assert [(r.value, r.quality) for r in batch] == [(30, Quality.FORECAST), (31, Quality.FORECAST)]


def test_a_region_inside_a_list_of_one_reads_the_same() -> None:
    document = json.loads(uk_carbon(FIRST, [0], region={"regionid": 1}))
    document["data"] = [document["data"]]
    (reading,) = adapter("uk_carbon", {"zone": "gb", "region_id": 1}).parse(json.dumps(document).encode(), now=NOW)
    assert reading.value == 0


def test_another_region_than_the_one_asked_for_is_refused() -> None:
    payload = uk_carbon(FIRST, [30], region={"regionid": 7})
    with pytest.raises(AdapterError, match="answered for regionid 7, not 13"):
        adapter("uk_carbon", {"zone": "gb", "region_id": 13}).parse(payload, now=NOW)


def test_what_was_measured_stands_and_what_was_not_is_forecast() -> None:
    payload = uk_carbon(FIRST - timedelta(hours=1), [90, 95, 100, 105], [80, 0, None])
    batch = adapter("uk_carbon", {"zone": "gb"}).parse(payload, now=NOW)
    assert [(r.value, r.quality.value) for r in batch] == [(80, "measured"), (0, "measured"), (100, "forecast"), (105, "forecast")]


def test_the_first_slot_begins_before_the_moment_asked_for() -> None:
    batch = adapter("uk_carbon", {"zone": "gb"}).parse(uk_carbon(FIRST, [100]), now=NOW)
    assert (batch.readings[0].start, batch.readings[0].end) == (FIRST, FIRST + timedelta(minutes=30))


def test_the_same_half_hour_twice_counts_once() -> None:
    document = json.loads(uk_carbon(FIRST, [100, 110]))
    document["data"].append(document["data"][1])
    batch = adapter("uk_carbon", {"zone": "gb"}).parse(json.dumps(document).encode(), now=NOW)
    assert [r.value for r in batch] == [100, 110]
    assert batch.dropped == ()


def test_a_slot_of_another_length_costs_only_itself() -> None:
    payload = uk_carbon(FIRST, [100, 110]).replace(b'"to": "2026-06-01T10:30Z"', b'"to": "2026-06-01T12:00Z"')
    batch = adapter("uk_carbon", {"zone": "gb"}).parse(payload, now=NOW)
    assert [r.value for r in batch] == [110]
    assert [d.row for d in batch.dropped] == ["data[0]"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{}", "malformed"),
        (b'{"data": []}', "not_published"),
        (b'{"error": {"code": "400 Bad Request", "message": "Please enter a valid date"}}', "malformed"),
        (b'{"data": [{"from": "2026-06-01T10:00Z", "to": "2026-06-01T10:30Z", "intensity": {"forecast": 1', "truncated"),
        (uk_carbon(FIRST, [None]), "not_published"),
    ],
)
def test_a_success_without_data_is_no_success(body: bytes, kind: str) -> None:
    with pytest.raises(AdapterError) as caught:
        adapter("uk_carbon", {"zone": "gb"}).fetch(FakeHttp(body), NOW)
    assert caught.value.kind == kind


def test_trouble_told_in_json_is_trouble() -> None:
    http = FakeHttp(b'{"error": {"code": "500 Internal Server Error", "message": "There was an internal error"}}', status=500)
    with pytest.raises(AdapterError) as caught:
        adapter("uk_carbon", {"zone": "gb"}).fetch(http, NOW)
    assert caught.value.kind == "unavailable"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"postcode": "RG10", "region_id": 3}, "postcode or region_id, not both"),
        ({"postcode": "RG10 9XY"}, "not the first half of one, in capitals, such as RG10"),
        ({"region_id": 18}, "from 1 to 17"),
    ],
)
def test_a_wrong_place_is_told_before_anything_runs(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        adapter("uk_carbon", {"zone": "gb", **wrong})


def test_a_recorded_day_of_forecasts_reads_whole() -> None:
    payload = recorded("api", "uk_carbon_intensity", "intensity_fw24h_2020-05-24.json").read_bytes()
    batch = adapter("uk_carbon", {"zone": "gb"}).parse(payload, now=datetime(2020, 5, 24, 20, 40, tzinfo=UTC))
    assert batch.dropped == ()
    assert len(batch) == len(json.loads(payload)["data"])
    assert (batch.readings[0].start, batch.readings[0].value) == (datetime(2020, 5, 24, 20, 30, tzinfo=UTC), 146)


@pytest.mark.parametrize(
    ("name", "value", "quality"),
    [("bridge_sample_intensity_null_actual.json", 72, "forecast"), ("bridge_sample_intensity_response.json", 68, "measured")],
)
def test_a_recorded_half_hour_is_measured_once_it_has_an_actual_value(name: str, value: float, quality: str) -> None:
    payload = recorded("api", "uk_carbon_intensity", name).read_bytes()
    (reading,) = adapter("uk_carbon", {"zone": "gb"}).parse(payload, now=datetime(2026, 4, 6, 9, 45, tzinfo=UTC))
    assert (reading.value, reading.quality) == (value, quality)
