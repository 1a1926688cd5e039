"""A CSV is read with few questions asked; what is not certain is refused with the option that decides."""

import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from gridsched.core.errors import InvalidInput
from gridsched.core.signal import SignalKind
from gridsched.report.trace import Columns, Trace, read_trace

START = datetime(2025, 1, 1, tzinfo=UTC)


def written(folder: Path, header: str, rows: list[str], *, name: str = "trace.csv") -> Path:
    path = folder / name
    text = "\n".join([header, *rows]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def stamped(
    values: list[str], *, minutes: int = 60, form: str = "%Y-%m-%dT%H:%MZ", separator: str = ",", start: datetime = START
) -> list[str]:
    return [f"{start + timedelta(minutes=minutes * i):{form}}{separator}{value}" for i, value in enumerate(values)]


def read(path: Path, signal: SignalKind = SignalKind.PRICE, **asked: str) -> Trace:
    return read_trace(path, signal, Columns(**asked))


@pytest.mark.parametrize("minutes", [15, 30, 60])
def test_the_resolution_is_that_of_the_stamps(tmp_path: Path, minutes: int) -> None:
    found = read(written(tmp_path, "time_utc,price_eur_per_mwh", stamped(["1", "-2", "3"], minutes=minutes), name="p.csv.gz"))
    assert found.grid.slot == timedelta(minutes=minutes)
    assert found.grid.start == START
    assert list(found.grid.values) == [1, -2, 3]
    assert "'price_eur_per_mwh' in EUR/MWh by 'time_utc'" in found.told


@pytest.mark.parametrize(
    ("header", "value", "expected"),
    [
        ("time,price_ct_kwh", "1.5", 15.0),
        ("time,Preis [EUR/kWh]", "0.25", 250.0),
        ("time,price", "7", 7.0),
        ("time;Deutschland/Luxemburg [€/MWh] Preis", "7,5", 7.5),
    ],
)
def test_a_header_tells_the_unit(tmp_path: Path, header: str, value: str, expected: float) -> None:
    separator = ";" if ";" in header else ","
    found = read(written(tmp_path, header, stamped([value] * 3, separator=separator)))
    assert found.grid.values == pytest.approx([expected] * 3)


def test_energy_in_a_slot_is_power(tmp_path: Path) -> None:
    path = written(tmp_path, "time,surplus [MWh]", stamped(["1", "2"], minutes=15))
    assert list(read(path, SignalKind.SURPLUS).grid.values) == [4e6, 8e6]


def test_a_power_without_a_unit_is_refused_and_one_given_is_taken(tmp_path: Path) -> None:
    path = written(tmp_path, "time,surplus", stamped(["1", "2"]))
    with pytest.raises(InvalidInput, match="--unit MW"):
        read(path, SignalKind.SURPLUS)
    assert list(read(path, SignalKind.SURPLUS, unit="kW").grid.values) == [1e3, 2e3]


def test_two_columns_that_could_be_meant_are_refused_by_name(tmp_path: Path) -> None:
    path = written(tmp_path, "time,price_de,price_fr", stamped(["1,2", "3,4"]))
    with pytest.raises(InvalidInput, match="'price_de', 'price_fr' could all be the price; choose one with --value"):
        read(path)
    assert list(read(path, value="price_fr").grid.values) == [2, 4]


def test_a_column_that_is_not_named_like_the_signal_is_not_guessed(tmp_path: Path) -> None:
    path = written(tmp_path, "time,load,wind", stamped(["1,2", "3,4"]))
    with pytest.raises(InvalidInput, match="does not say which of 'load', 'wind' is the price"):
        read(path)
    with pytest.raises(InvalidInput, match="has no column 'prise'; it has 'time', 'load', 'wind'"):
        read(path, value="prise")


def test_a_column_of_days_is_not_taken_for_the_stamps(tmp_path: Path) -> None:
    rows = [f"2025-01-01,{row}" for row in stamped(["1", "2", "3"])]
    assert "by 'target'" in read(written(tmp_path, "issue_date,target,price", rows)).told


def test_stamps_without_an_offset_need_a_time_zone(tmp_path: Path) -> None:
    path = written(tmp_path, "time,price", stamped(["1", "2"], form="%Y-%m-%d %H:%M:%S"))
    with pytest.raises(InvalidInput, match="has no UTC offset; say whose clock it is, for example --timezone Europe/Berlin"):
        read(path)
    assert read(path, timezone="Europe/Berlin").grid.start == START - timedelta(hours=1)


def test_the_hour_that_comes_twice_is_there_twice(tmp_path: Path) -> None:
    """26 October 2025 in Berlin: 02:00 comes twice, and stamps without offset tell the two apart by their order."""
    clock = [f"2025-10-26 {hour:02}:00" for hour in (0, 1, 2, 2, 3)]
    path = written(tmp_path, "time,price", [f"{stamp},{i}" for i, stamp in enumerate(clock)])
    assert list(read(path, timezone="Europe/Berlin").grid.values) == [0, 1, 2, 3, 4]


def test_a_gap_stays_unknown_and_is_told(tmp_path: Path) -> None:
    rows = stamped(["1", "2", "3", "", "5"])
    found = read(written(tmp_path, "time,price", [*rows[:1], *rows[2:]]))
    assert np.isnan(found.grid.values).tolist() == [False, True, False, True, False]
    assert "2 of them unknown" in found.told


def test_rows_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    rows = stamped([str(i) for i in range(99)])
    found = read(written(tmp_path, "time,price", [*rows, "2025-02-30T00:00Z,7"]))
    assert "1 rows not used, the first: line 101" in found.told


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no rows below its header"),
        ("time,price\n", "no rows below its header"),
        ("a,b\nx,1\ny,2\n", "no column holds stamps"),
        ("time,price\n2025-01-01T00:00Z,1\n", "fewer than two different stamps"),
        ("time,price\n2025-01-01T00:00Z,1\n2025-01-02T00:00Z,1\n2025-01-03T00:00Z,1\n", "use a trace of 15, 30 or 60 minutes"),
        ("time,price\n2025-01-01T00:00Z,one\n2025-01-01T01:00Z,two\n", "none holds numbers"),
        ("time,price\n2025-01-01T00:00Z,-\n2025-01-01T01:00Z,n/a\n", "none holds numbers"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=says):
        read(path)


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    for name, content in (("cut.csv.gz", gzip.compress(b"time,price\n" * 99)[:40]), ("bytes.csv", b"\xff\xfe\x00")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidInput, match="is not CSV in UTF-8"):
            read(tmp_path / name)
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        read(tmp_path / "nope.csv")
