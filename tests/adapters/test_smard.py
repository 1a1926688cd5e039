"""SMARD (Bundesnetzagentur) has no adapter of its own: its weekly files are read by configuration, and these are their quirks.

They lie at /chart_data/{filter}/{region}/{filter}_{region}_quarterhour_{monday in ms}.json and are made by hand here.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from gridsched import AdapterError, Batch
from tests.adapters.load import adapter
from tests.adapters.payloads import BERLIN

RESIDUAL = {
    "zone": "de",
    "url": "https://www.smard.de/app/chart_data/4359/DE/4359_DE_quarterhour_1760911200000.json",
    "signal": "residual_load",
    "resolution": "15m",
    "rows": "series",
    "time": "0",
    "time_format": "epoch_ms",
    "value": "1",
    "unit": "MWh",
}


def week(monday: datetime, values: Sequence[float | None], *, created: int = 1) -> bytes:
    first = int(monday.timestamp()) * 1000
    series = [[first + n * 900_000, value] for n, value in enumerate(values)]
    return json.dumps({"meta_data": {"version": 1, "created": created}, "series": series}).encode()


def read(payload: bytes, now: datetime) -> Batch:
    batch: Batch = adapter("http_json", RESIDUAL).parse(payload, now=now)
    return batch


MONDAY = datetime(2026, 6, 1, tzinfo=BERLIN)


def test_energy_per_quarter_hour_becomes_power() -> None:
    batch = read(week(MONDAY, [2_500.0, -100.0]), MONDAY)
    assert [r.value for r in batch] == pytest.approx([10e9, -0.4e9])


def test_slots_not_published_yet_are_null_and_unknown() -> None:
    batch = read(week(MONDAY, [1.0, 0.0, None, *[None] * 600]), MONDAY)
    assert [r.value for r in batch] == [4e6, 0.0]
    assert batch.dropped == ()


@pytest.mark.parametrize(
    ("monday", "first_ms", "slots"),
    [
        (datetime(2025, 10, 20, tzinfo=BERLIN), 1760911200000, 676),
        (datetime(2026, 3, 23, tzinfo=BERLIN), 1774220400000, 668),
        (datetime(2026, 6, 1, tzinfo=BERLIN), 1780264800000, 672),
    ],
)
def test_weeks_begin_on_the_local_monday_and_meet_across_clock_changes(monday: datetime, first_ms: int, slots: int) -> None:
    this, after = (read(week(monday + timedelta(days=days), [1.0] * count), monday) for days, count in ((0, slots), (7, 4)))
    assert int(this.readings[0].start.timestamp()) * 1000 == first_ms
    assert all(a.end == b.start for a, b in pairwise([*this, *after]))


def test_a_file_that_stopped_growing_is_stale_however_lately_it_was_built() -> None:
    now = MONDAY + timedelta(days=2)
    stopped = week(MONDAY, [1.0] * 96 + [None] * 576, created=int(now.timestamp()) * 1000)
    with pytest.raises(AdapterError, match="still serves old data") as caught:
        read(stopped, now)
    assert caught.value.kind == "stale"


def test_values_count_from_when_we_fetched_them_not_from_when_the_file_was_built() -> None:
    now = datetime(2026, 6, 1, 1, tzinfo=UTC)
    assert {r.known_at for r in read(week(MONDAY, [1.0] * 16, created=4_000_000_000_000), now)} == {now}
