import gzip
import json
import os
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gridsched import AdapterError, Batch, ConfigError, SignalKind
from tests.adapters.fake_http import FakeHttp
from tests.adapters.load import adapter, recorded

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
MIDNIGHT = datetime(2026, 6, 1, tzinfo=UTC)
PRICES: dict[str, object] = {
    "zone": "de",
    "path": "prices.csv",
    "signal": "price",
    "resolution": "1h",
    "time": "start",
    "value": "price",
    "unit": "EUR/MWh",
}


def day(hours: int = 24) -> str:
    return "start,price\n" + "".join(f"{(MIDNIGHT + timedelta(hours=i)).isoformat()},{i}\n" for i in range(hours))


def fetch(site: Path, text: str | bytes, now: datetime = NOON, **changes: Any) -> Batch:
    table = {**PRICES, **changes}
    path = site / str(table["path"])
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    batch: Batch = adapter("file", table, site=site).fetch(FakeHttp(), now)
    return batch


class TestReading:
    @pytest.mark.parametrize("name", ["prices.csv", "prices.csv.gz"])
    def test_csv_plain_and_zipped(self, tmp_path: Path, name: str) -> None:
        text = day().encode()
        batch = fetch(tmp_path, gzip.compress(text) if name.endswith("gz") else text, path=name)
        assert [r.value for r in batch] == list(range(24))
        assert {r.source for r in batch} == {f"file:{name}"}

    def test_json_with_a_path_to_its_rows(self, tmp_path: Path) -> None:
        document = {"prices": {"de": [{"at": {"utc": "2026-06-01T00:00Z"}, "eur": 5}, {"at": {"utc": "2026-06-01T01:00Z"}, "eur": None}]}}
        batch = fetch(tmp_path, json.dumps(document), path="prices.json", rows="prices.de", time="at.utc", value="eur")
        assert [r.value for r in batch] == [5]

    def test_german_decimals_and_semicolons(self, tmp_path: Path) -> None:
        batch = fetch(tmp_path, "start;price\n2026-06-01T00:00Z;-1,5\n", separator=";", unit="ct/kWh")
        assert [r.value for r in batch] == [-15.0]

    def test_a_gap_stays_unknown_a_repeat_counts_once_and_a_contradiction_is_reported(self, tmp_path: Path) -> None:
        rows = ["2026-06-01T00:00Z,1", "2026-06-01T00:00Z,1", "2026-06-01T03:00Z,4", "2026-06-01T03:00Z,5", "2026-06-01T04:00Z,"]
        batch = fetch(tmp_path, "start,price\n" + "\n".join(rows))
        assert [(r.start.hour, r.value) for r in batch] == [(0, 1), (3, 4)]
        assert [d.row for d in batch.dropped] == ["line 5"]

    def test_naive_stamps_need_a_declared_timezone(self, tmp_path: Path) -> None:
        text = "start,price\n2026-06-01 00:00:00,1\n"
        refused = fetch(tmp_path, text)
        assert len(refused) == 0
        assert "declare the timezone" in refused.dropped[0].reason
        assert fetch(tmp_path, text, timezone="Europe/Berlin").readings[0].start == datetime(2026, 5, 31, 22, tzinfo=UTC)

    def test_a_short_line_costs_only_itself(self, tmp_path: Path) -> None:
        batch = fetch(tmp_path, "price,start\n1,2026-06-01T00:00Z\n2\n3,2026-06-01T02:00Z\n")
        assert [r.value for r in batch] == [1, 3]
        assert [d.row for d in batch.dropped] == ["line 3"]


class TestReplay:
    """Under any clock, a reading is seen only when it would have been known."""

    @pytest.mark.parametrize(
        ("known", "at", "newest"),
        [
            ("start", NOON, 12),
            ("start", NOON - timedelta(seconds=1), 11),
            ("end", NOON, 11),
            ("day_ahead", datetime(2026, 5, 31, 11, tzinfo=UTC), 21),  # 13:00 in Berlin: the whole local day after
        ],
    )
    def test_nothing_is_known_before_its_time(self, tmp_path: Path, known: str, at: datetime, newest: int) -> None:
        batch = fetch(tmp_path, day(), at, known=known)
        assert max(r.value for r in batch) == newest
        assert all(r.known_at <= at for r in batch)

    def test_before_the_gate_tomorrow_is_unknown(self, tmp_path: Path) -> None:
        assert len(fetch(tmp_path, day(22), datetime(2026, 5, 31, 10, 59, 59, tzinfo=UTC), known="day_ahead")) == 0

    def test_only_the_recent_past_is_given_again(self, tmp_path: Path) -> None:
        batch = fetch(tmp_path, day(), known="start", lookback="2h")
        assert [r.value for r in batch] == [10, 11, 12]

    def test_live_files_are_read_again_only_when_they_change(self, tmp_path: Path) -> None:
        path = tmp_path / "prices.csv"
        path.write_text(day(1))
        live = adapter("file", dict(PRICES), site=tmp_path)
        assert len(live.fetch(FakeHttp(), NOON)) == 1
        path.write_text(day(2))
        os.utime(path, (1, 1))
        later = NOON + timedelta(minutes=5)
        assert {r.known_at for r in live.fetch(FakeHttp(), later)} == {later}
        assert len(live.fetch(FakeHttp(), later)) == 2


class TestFaults:
    @pytest.mark.parametrize(
        ("name", "content", "kind"),
        [
            ("prices.csv", b"", "empty"),
            ("prices.csv", b" \n", "empty"),
            ("prices.csv", b"time;eur\n1;2\n", "malformed"),
            ("prices.csv", b"start,price\n\xff\xfe,1\n", "malformed"),
            ("prices.csv.gz", gzip.compress(day().encode(), mtime=0)[:60], "truncated"),
            ("prices.json", b'[{"start": "2026-06-01T00:00Z", "pri', "truncated"),
            ("prices.json", b'{"rows": 5}', "malformed"),
            ("prices.json", b"<!DOCTYPE html><html>", "html"),
        ],
    )
    def test_a_file_that_cannot_be_read_says_why(self, tmp_path: Path, name: str, content: bytes, kind: str) -> None:
        with pytest.raises(AdapterError) as caught:
            fetch(tmp_path, content, path=name)
        assert caught.value.kind == kind

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(AdapterError, match=r"prices\.csv cannot be read: No such file"):
            adapter("file", dict(PRICES), site=tmp_path).fetch(FakeHttp(), NOON)

    def test_a_file_nobody_writes_any_more_is_stale(self, tmp_path: Path) -> None:
        with pytest.raises(AdapterError, match="still serves old data"):
            fetch(tmp_path, day(), NOON + timedelta(days=1), max_age="6h")

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"unit": "g/kWh"}, "use EUR/MWh, EUR/kWh or ct/kWh"),
            ({"resolution": "quarterly"}, "write it like '90s'"),
            ({"resolution": "0s"}, "longer than 0"),
            ({"timezone": "Berlin"}, "IANA name"),
            ({"signal": "prices"}, "'prices' is none of surplus, price"),
            ({"separater": ";"}, "did you mean 'separator'?"),
        ],
    )
    def test_a_wrong_option_is_told_before_anything_runs(self, wrong: dict[str, object], said: str) -> None:
        with pytest.raises(ConfigError, match="adapter file: ") as caught:
            adapter("file", {**PRICES, **wrong})
        assert said in str(caught.value)


class TestRecordedSeries:
    def test_a_year_in_local_time_has_one_hour_for_each_hour(self) -> None:
        path = recorded("series", "DE_LU_day_ahead_price_hourly_2024.csv.gz")
        table = {**PRICES, "path": path.name, "time": "time", "unit": "ct/kWh", "timezone": "Europe/Berlin"}
        batch = adapter("file", table, site=path.parent).parse(path.read_bytes(), now=NOON)
        assert batch.dropped == ()
        assert len(batch) == 367 * 24  # the file runs on into the next year by a day
        assert all(a.end == b.start for a, b in pairwise(batch.readings))
        assert min(r.value for r in batch) < -100

    def test_quarter_hours_over_the_spring_change_in_german_notation(self) -> None:
        path = recorded("series", "LU_SMARD_generation_load_residual_15min_2024-01_2024-06.csv.gz")
        table = {
            "zone": "lu",
            "path": path.name,
            "signal": "surplus",
            "resolution": "15m",
            "time": "DateTime",
            "value": "Residuallast [MWh]",
            "unit": "MWh",
            "scale": -1,
            "separator": ";",
            "timezone": "Europe/Luxembourg",
        }
        batch = adapter("file", table, site=path.parent).parse(path.read_bytes(), now=NOON)
        change = datetime(2024, 3, 31, tzinfo=UTC)
        around = [r for r in batch if change - timedelta(hours=1) <= r.start < change + timedelta(hours=22)]
        assert len(around) == 92
        assert all(a.end == b.start for a, b in pairwise(around))
        assert around[0].signal is SignalKind.SURPLUS
        assert around[0].value == -108.0 * 4e6

    def test_the_autumn_change_at_quarter_hours(self) -> None:
        path = recorded("series", "de_lu_price_and_dayahead_forecast_15min_2025q4.csv.gz")
        table = {**PRICES, "path": path.name, "time": "time_utc", "value": "price_eur_per_mwh", "resolution": "15m", "known": "day_ahead"}
        replay = adapter("file", table, site=path.parent)
        local_day = [datetime(2025, 10, 25, 22, tzinfo=UTC) + i * timedelta(minutes=15) for i in range(100)]
        batch = replay.parse(path.read_bytes(), now=NOON)
        slots = {r.start: r for r in batch}
        assert all(start in slots for start in local_day)
        assert {slots[start].known_at for start in local_day} == {datetime(2025, 10, 25, 11, tzinfo=UTC)}
