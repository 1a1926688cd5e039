"""A dataset from a table: numbers in every row, or an error that names the column."""

import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gridsched.core.errors import DatasetError
from gridsched.train.tables import read_table


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "table.csv"


def test_a_table_becomes_samples_and_labels(table: Path) -> None:
    table.write_bytes(b"\xef\xbb\xbfwidth,kind,height\r\n1.5,0,2\r\n-3,1,4e2\r\n")
    fields = read_table(table, label="kind")
    assert fields["x"].dtype == np.float32
    assert fields["x"].tolist() == [[1.5, 2.0], [-3.0, 400.0]]
    assert fields["y"].dtype == np.int64
    assert fields["y"].tolist() == [0, 1]


def test_a_label_that_is_no_whole_number_is_a_quantity(table: Path) -> None:
    table.write_text("x,y\n1,0.5\n2,1\n", encoding="utf-8")
    assert read_table(table, label="y")["y"].dtype == np.float32


def test_the_shipped_wines_are_read_compressed(repository: Path) -> None:
    fields = read_table(repository / "examples" / "data" / "wine.csv.gz", label="label")
    assert fields["x"].shape == (178, 13)
    assert np.bincount(fields["y"].astype(int)).tolist() == [59, 71, 48]


def test_named_arrays_are_taken_as_they_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", x=np.zeros((2, 3), np.uint8), y=np.arange(2))
    assert sorted(read_table(tmp_path / "some.npz", label="y")) == ["x", "y"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a,label\n1,0\nred,1\n", "column 'a' has text or gaps"),
        ("a,label\n1,0\n,1\n", "column 'a' has text or gaps"),
        ("a,label\nnan,0\n", "column 'a' has text or gaps"),
        ("a,label\n1,99999999999999999999\n", "column 'label'"),
        ("a,label\n1,0\n1\n", "row 2 is not as long as the header"),
        ("a,a,label\n1,2,0\n", "distinct names"),
        ("a,label\n", "rows below a header"),
        ("", "cannot be read as CSV"),
        ("a,b\n1,2\n", "no column 'label'.*a, b"),
    ],
)
def test_what_is_no_table_is_refused_by_name(table: Path, text: str, complaint: str) -> None:
    table.write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=complaint):
        read_table(table, label="label")


def one_array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.arange(3))
    return file.getvalue()


def with_a_letter() -> bytes:
    file = io.BytesIO()
    np.savez(file, x=np.arange(3))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("readme.txt", "all is in x")
    return file.getvalue()


def torn(start: int, rubbish: int) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, x=np.random.default_rng(0).normal(size=1000))
    data = bytearray(file.getvalue())
    data[start : start + 60] = bytes([rubbish]) * 60
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (one_array(), "one array without a name"),
        (with_a_letter(), "'readme.txt' in it is no array"),
        (torn(100, 255), ""),
        (torn(150, 0), ""),
    ],
    ids=["one array", "a letter", "torn", "torn in its header"],
)
def test_what_is_no_npz_is_refused(tmp_path: Path, data: bytes, complaint: str) -> None:
    (tmp_path / "some.npz").write_bytes(data)
    with pytest.raises(DatasetError, match=rf"some\.npz cannot be read as \.npz: .*{complaint}"):
        read_table(tmp_path / "some.npz", label="y")


@pytest.mark.parametrize("data", [b"no gzip", gzip.compress(b"a,label\n1,0\n" * 99, mtime=0)[:-12]])
def test_a_damaged_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "table.csv.gz").write_bytes(data)
    with pytest.raises(DatasetError, match=r"table\.csv\.gz cannot be read"):
        read_table(tmp_path / "table.csv.gz", label="label")
