"""Other providers' answers as they were recorded: what their stamps, order and numbers mean is declared, never guessed."""

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from gridsched import AdapterError, Batch
from tests.adapters.fake_http import FakeHttp
from tests.adapters.load import adapter, recorded

HOUR = timedelta(hours=1)
EIA = {
    "zone": "us",
    "signal": "residual_load",
    "resolution": "1h",
    "rows": "response.data",
    "time": "period",
    "value": "value",
    "unit": "MWh",
    "timezone": "UTC",
    "stamp": "end",
}
EASY_ENERGY = {
    "zone": "nl",
    "url": "https://easyenergy.example/",
    "signal": "price",
    "resolution": "15m",
    "rows": "prices",
    "time": "from",
    "value": "price",
    "unit": "EUR/kWh",
    "timezone": "Europe/Amsterdam",
}


def eia(name: str, now: datetime, **changes: Any) -> Batch:
    payload = recorded("api", "eia", name).read_bytes()
    batch: Batch = adapter("http_json", {**EIA, "url": "https://api.eia.gov/", **changes}).fetch(FakeHttp(payload), now)
    return batch


class TestHourEnding:
    """EIA's stamps name the end of the hour."""

    def test_a_service_that_names_the_end_of_the_hour(self) -> None:
        batch = eia("US-FLA-FPC_US-FLA-FPL_exchange.json", datetime(2020, 1, 7, 7, tzinfo=UTC))
        assert (batch.readings[0].start, batch.readings[0].end) == (
            datetime(2020, 1, 6, 5, tzinfo=UTC),
            datetime(2020, 1, 6, 6, tzinfo=UTC),
        )
        assert batch.readings[0].value == -329e6
        assert len(batch) == 25
        assert all(a.end == b.start for a, b in pairwise(batch.readings))

    def test_a_file_that_names_the_end_of_the_hour(self) -> None:
        path = recorded("api", "eia", "US_NW_BPAT-wind.json")
        replay = adapter("file", {**EIA, "path": path.name, "known": "end", "lookback": "3h"}, site=path.parent)
        assert [r.value for r in replay.fetch(FakeHttp(), datetime(2022, 10, 31, 11, 59, tzinfo=UTC))] == [20e6]
        later = replay.fetch(FakeHttp(), datetime(2022, 10, 31, 12, tzinfo=UTC))
        assert [(r.start.hour, r.value) for r in later] == [(10, 20e6), (11, 40e6)]

    def test_the_newest_hour_first_comes_out_in_order(self) -> None:
        batch = eia("US_NW_BPAT-consumption.json", datetime(2023, 5, 1, 11, tzinfo=UTC))
        assert [(r.start.hour, r.value) for r in batch] == [(9, 4792e6), (10, 6215e6)]

    def test_an_hour_that_is_null_is_unknown(self) -> None:
        batch = eia("US-NW-PGE-with-nulls.json", datetime(2022, 10, 31, 12, tzinfo=UTC))
        assert [(r.start.hour, r.value) for r in batch] == [(11, 400e6)]

    @pytest.mark.parametrize(("name", "kind"), [("US_CAR_SC-nuclear.json", "not_published"), ("error_404.json", "malformed")])
    def test_nothing_is_nothing(self, name: str, kind: str) -> None:
        with pytest.raises(AdapterError) as caught:
            eia(name, datetime(2022, 10, 31, 12, tzinfo=UTC))
        assert caught.value.kind == kind


class TestLocalStamps:
    """easyEnergy's stamps are local and do not say so."""

    @pytest.mark.parametrize(
        ("name", "resolution", "first", "value"),
        [
            ("energy.json", "1h", datetime(2026, 4, 18, 22, tzinfo=UTC), 115.49),
            ("energy_quarter.json", "15m", datetime(2026, 4, 19, 12, tzinfo=UTC), -2.1),
        ],
    )
    def test_they_are_read_in_the_timezone_declared(self, name: str, resolution: str, first: datetime, value: float) -> None:
        payload = recorded("api", "easyenergy", name).read_bytes()
        batch = adapter("http_json", {**EASY_ENERGY, "resolution": resolution}).parse(payload, now=datetime(2026, 4, 19, 13, tzinfo=UTC))
        assert batch.dropped == ()
        assert (batch.readings[0].start, batch.readings[0].value) == (first, pytest.approx(value))
        assert all(a.end == b.start for a, b in pairwise(batch.readings))

    def test_the_hour_that_comes_twice_is_told_apart_by_its_order(self) -> None:
        first = datetime(2026, 10, 25, 0, tzinfo=UTC)
        quarters = [f"2026-10-25T02:{minute:02}:00.0000000" for minute in (0, 15, 30, 45)] * 2
        payload = json.dumps({"prices": [{"from": stamp, "price": i} for i, stamp in enumerate(quarters)]}).encode()
        batch = adapter("http_json", EASY_ENERGY).parse(payload, now=first)
        assert [r.start for r in batch] == [first + i * timedelta(minutes=15) for i in range(8)]
        assert [r.value for r in batch] == [i * 1000 for i in range(8)]

    def test_one_of_the_two_alone_is_dropped_and_not_guessed(self) -> None:
        payload = json.dumps({"prices": [{"from": f"2026-10-25T0{hour}:00:00", "price": hour} for hour in (1, 2, 3)]}).encode()
        batch = adapter("http_json", EASY_ENERGY).parse(payload, now=datetime(2026, 10, 25, tzinfo=UTC))
        assert [r.value for r in batch] == [1000, 3000]
        assert "could be summer or winter time" in batch.dropped[0].reason


@pytest.mark.parametrize(
    ("name", "midnight", "missing"),
    [
        ("marketdata_at_start_1635631200000_2021-10-31.json", datetime(2021, 10, 31, 23, tzinfo=UTC), HOUR),
        ("marketdata_at_start_1711839600000_2024-03-31.json", datetime(2024, 3, 31, 22, tzinfo=UTC), -HOUR),
    ],
)
def test_24_rows_on_a_day_that_has_not_24_hours_are_taken_by_their_stamps(name: str, midnight: datetime, missing: timedelta) -> None:
    payload = recorded("api", "awattar", name).read_bytes()
    batch = adapter("awattar", {"zone": "at", "country": "at"}).parse(payload, now=midnight - timedelta(days=1))
    assert len(batch) == 24
    assert batch.readings[-1].end == midnight - missing  # the 25th hour stays unknown; on the short day the next day begins


def test_numbers_in_text_and_another_currency_are_declared() -> None:
    payload = recorded("api", "nordpool", "expektra_2020-05-24.json").read_bytes()
    table = {
        "zone": "dk",
        "url": "https://expektra.example/",
        "signal": "price",
        "resolution": "1h",
        "rows": "data",
        "time": "utc",
        "value": "value",
        "unit": "EUR/MWh",
        "scale": 0.134,  # what a krone is worth
    }
    batch = adapter("http_json", table).parse(payload, now=datetime(2020, 5, 24, 21, tzinfo=UTC))
    assert batch.readings[0].value == pytest.approx(38.04 * 0.134)
    assert batch.dropped == ()
