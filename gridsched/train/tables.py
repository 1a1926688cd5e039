"""Samples from files and answers into files: tables as CSV, arrays as npz."""

import csv
import gzip
import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from tokenize import TokenError

import numpy as np

from gridsched.core.errors import DatasetError, InvalidInput
from gridsched.train.graph import FieldSpec
from gridsched.train.predict import Prediction
from gridsched.train.tensors import Array

__all__ = ["read_samples", "read_table", "write_prediction"]

_NO_NPZ = (ValueError, TypeError, OSError, EOFError, MemoryError, RuntimeError, SyntaxError, TokenError, zipfile.BadZipFile, zlib.error)
"""What numpy and the archive's reader raise for a damaged or encrypted file, and one that claims more than there is room for."""


def read_table(path: Path, *, label: str) -> dict[str, Array]:
    """Fields of a dataset from a file: ``.npz`` arrays by name, or a CSV (``.gz`` too) as ``x`` float32 and ``y`` from column ``label``."""
    if not path.is_file():
        raise DatasetError(f"there is no file {path}")
    if path.suffix == ".npz":
        return _npz(path)
    names, rows = _csv(path)
    if label not in names:
        raise DatasetError(f"{path} has no column {label!r}; name the label with --label, one of {', '.join(names[-5:])}")
    columns = _columns(path, names, rows)
    labels = columns.pop(label)
    return {"x": np.stack(list(columns.values()), axis=1).astype(np.float32), "y": labels}


def read_samples(path: Path, fields: Sequence[FieldSpec]) -> dict[str, Array]:
    """What a model is to answer, from a file: ``.npz`` arrays by the names of its ``fields``, or a CSV with a sample in each row.

    A CSV's columns are the values of the model's only field, in order; an image's pixels go row by row.
    """
    if not path.is_file():
        raise DatasetError(f"there is no file {path}")
    if path.suffix == ".npz":
        return _npz(path)
    if len(fields) != 1:
        raise DatasetError(f"the model asks for {', '.join(field.name for field in fields)}; put them into an .npz by these names")
    (field,) = fields
    names, rows = _csv(path)
    wanted = int(np.prod(field.shape))
    if len(names) != wanted:
        raise DatasetError(f"{path} has {len(names)} columns; field {field.name!r} of shape {field.shape} needs {wanted}, and no label")
    values = np.stack(list(_columns(path, names, rows).values()), axis=1)
    return {field.name: values.reshape(len(rows), *field.shape)}


def write_prediction(path: Path, made: Prediction) -> None:
    """``probabilities`` and ``labels`` as ``.npz``; as CSV a row for each sample: its label, and a column for each class."""
    if path.suffix == ".npz":
        np.savez(path, probabilities=made.probabilities.astype(np.float32), labels=made.labels)
        return
    if path.suffix != ".csv" or made.labels.ndim != 1:
        raise InvalidInput(f"{path} must end in .npz" + (" or .csv" if made.labels.ndim == 1 else ", because a sample has many answers"))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["label", *(f"p{label}" for label in range(made.probabilities.shape[1]))])
        writer.writerows([label, *(f"{value:.6g}" for value in row)] for label, row in zip(made.labels, made.probabilities, strict=True))


def _npz(path: Path) -> dict[str, Array]:
    try:
        held = np.load(path, allow_pickle=False)
        if isinstance(held, np.ndarray):
            raise TypeError("it is one array without a name; write it with numpy.savez")
        with held as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except _NO_NPZ as error:
        raise DatasetError(f"{path} cannot be read as .npz: {error}") from error
    odd = next((name for name, array in found.items() if not isinstance(array, np.ndarray)), None)
    if odd is not None:
        raise DatasetError(f"{path} cannot be read as .npz: {odd!r} in it is no array")
    return found


def _columns(path: Path, names: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, Array]:
    return {name: _numbers([row[place] for row in rows], f"{path}: column {name!r}") for place, name in enumerate(names)}


def _csv(path: Path) -> tuple[list[str], list[list[str]]]:
    """The header and the rows, every row as long as the header."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
        names, *rows = csv.reader(io.StringIO(text, newline=""))
    except (ValueError, OSError, EOFError, zlib.error, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read as CSV: {error}") from error
    rows = [row for row in rows if row]
    ragged = next((number for number, row in enumerate(rows, start=1) if len(row) != len(names)), None)
    if ragged or len(set(names)) != len(names) or len(names) < 2 or not rows:
        what = f"row {ragged} is not as long as the header" if ragged else "it needs rows below a header of two or more distinct names"
        raise DatasetError(f"{path} cannot be read as a table: {what}")
    return names, rows


def _numbers(cells: Sequence[str], where: str) -> Array:
    """Whole numbers as int64, others as float32."""
    try:
        if all(cell.strip().lstrip("+-").isdecimal() for cell in cells):
            return np.array([int(cell) for cell in cells], dtype=np.int64)
        values = np.array([float(cell) for cell in cells], dtype=np.float32)
    except (ValueError, OverflowError) as error:
        raise DatasetError(f"{where} has text or gaps; a dataset needs numbers in every row") from error
    if not np.isfinite(values).all():
        raise DatasetError(f"{where} has text or gaps; a dataset needs numbers in every row")
    return values
