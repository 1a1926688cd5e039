import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from gridsched import AdapterError, ConfigError, Quality, SignalKind
from tests.adapters.fake_http import FakeHttp
from tests.adapters.load import adapter, recorded
from tests.adapters.payloads import energi_data_service

DENMARK = ZoneInfo("Europe/Copenhagen")
TODAY = datetime(2026, 6, 1, tzinfo=DENMARK)
NOON = datetime(2026, 6, 1, 10, tzinfo=UTC)
CARBON = {"zone": "dk2", "area": "DK2", "series": "carbon"}


def test_the_danish_today_and_tomorrow_are_asked_for_in_one_area() -> None:
    http = FakeHttp(energi_data_service(TODAY, [1.0] * 96))
    adapter("energi_data_service", {"zone": "dk1"}).fetch(http, datetime(2026, 5, 31, 22, 30, tzinfo=UTC))
    ((url, params),) = http.asked
    assert url == "https://api.energidataservice.dk/dataset/DayAheadPrices"
    assert params == {"start": "2026-06-01", "end": "2026-06-03", "filter": '{"PriceArea":["DK1"]}', "sort": "TimeUTC asc", "limit": 0}


def test_stamps_without_z_are_utc() -> None:
    batch = adapter("energi_data_service", {"zone": "dk1"}).parse(energi_data_service(TODAY, [-3.5, 0.0] * 48), now=NOON)
    assert batch.readings[0].start == datetime(2026, 5, 31, 22, tzinfo=UTC)
    assert [r.value for r in batch][:2] == [-3.5, 0.0]
    assert {r.quality for r in batch} == {Quality.MEASURED}


@pytest.mark.parametrize(("day", "slots"), [(datetime(2026, 3, 29, tzinfo=DENMARK), 92), (datetime(2026, 10, 25, tzinfo=DENMARK), 100)])
def test_clock_change_days_are_seamless(day: datetime, slots: int) -> None:
    batch = adapter("energi_data_service", {"zone": "dk1"}).parse(energi_data_service(day, [1.0] * slots), now=day)
    assert len(batch) == slots
    assert all(a.end == b.start for a, b in pairwise(batch.readings))
    assert batch.readings[-1].end == (day + timedelta(days=1)).astimezone(UTC)


def test_the_carbon_of_the_next_hours_is_a_forecast_by_five_minutes() -> None:
    http = FakeHttp(energi_data_service(NOON, [107.0, 106.5], area="DK2", carbon=True))
    source = adapter("energi_data_service", CARBON)
    batch = source.fetch(http, NOON)
    assert source.every == timedelta(minutes=15)
    assert http.asked[0][0].endswith("/dataset/CO2EmisProg")
    assert [(r.signal, r.value, r.quality) for r in batch] == [
        (SignalKind.CARBON, 107, Quality.FORECAST),
        (SignalKind.CARBON, 106.5, Quality.FORECAST),
    ]
    assert batch.readings[0].end - batch.readings[0].start == timedelta(minutes=5)


def test_the_other_side_of_the_belt_is_passed_over() -> None:
    document = json.loads(energi_data_service(TODAY, [1.0] * 96))
    document["records"] += json.loads(energi_data_service(TODAY, [2.0] * 96, area="DK2"))["records"]
    batch = adapter("energi_data_service", {"zone": "dk2", "area": "DK2"}).parse(json.dumps(document).encode(), now=NOON)
    assert {r.value for r in batch} == {2.0}
    assert batch.dropped == ()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{}", "malformed"),
        (b'{"dataset": "DayAheadPrices", "records": []}', "not_published"),
        (energi_data_service(TODAY, [None] * 96), "not_published"),
        (energi_data_service(TODAY, [1.0] * 96, area="DK2"), "not_published"),
        (energi_data_service(TODAY, [1.0] * 96, carbon=True), "malformed"),
        (energi_data_service(TODAY - timedelta(days=1), [1.0] * 96), "stale"),
    ],
)
def test_what_is_wrong_with_an_answer_is_named(body: bytes, kind: str) -> None:
    with pytest.raises(AdapterError) as caught:
        adapter("energi_data_service", {"zone": "dk1"}).fetch(FakeHttp(body), NOON)
    assert caught.value.kind == kind


def test_one_request_a_minute_for_a_dataset_is_never_exceeded() -> None:
    price, carbon = adapter("energi_data_service", {"zone": "dk1"}), adapter("energi_data_service", CARBON)
    assert min(price.every, price.publishes.every, carbon.every) > timedelta(minutes=1)


def test_an_area_that_is_not_danish_is_told_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match="'SE4' is none of DK1, DK2"):
        adapter("energi_data_service", {"zone": "dk1", "area": "SE4"})


def elspot(**changes: Any) -> bytes:
    """The recorded last answer of the dataset that ended, with its fields called as the new one calls them."""
    text = recorded("api", "energidataservice", "Elspotprices_last_hours.json").read_text()
    document = json.loads(text.replace("HourUTC", "TimeUTC").replace("SpotPriceEUR", "DayAheadPriceEUR"))
    return json.dumps({**document, **changes}).encode()


def test_a_dataset_that_ended_and_still_answers_is_stale() -> None:
    payload = elspot(dataset="DayAheadPrices")
    source = adapter("energi_data_service", {"zone": "dk1"})
    assert source.parse(payload, now=datetime(2025, 9, 30, 20, tzinfo=UTC)).readings[-1].value == 92.540001
    with pytest.raises(AdapterError, match="newest slot ended 2025-09-30 21:15 UTC") as caught:
        source.parse(payload, now=datetime(2025, 10, 20, tzinfo=UTC))
    assert caught.value.kind == "stale"


def test_another_dataset_than_the_one_asked_for_is_refused() -> None:
    with pytest.raises(AdapterError, match="dataset 'Elspotprices', not 'DayAheadPrices'"):
        adapter("energi_data_service", {"zone": "dk1"}).parse(elspot(), now=datetime(2025, 9, 30, 20, tzinfo=UTC))
