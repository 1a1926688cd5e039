"""Derives ``examples/data/digits.csv.gz`` and ``wine.csv.gz`` from the copies that scikit-learn brings along.

Run from the repository root::

    python scripts/derive_digits.py

Running it twice writes the same bytes. What the columns mean, and under which licences, is in the NOTICE.md beside the results.
"""

import csv
import gzip
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sklearn.datasets import load_digits, load_wine

TARGET = Path(__file__).resolve().parent.parent / "examples" / "data"


def digits() -> Iterator[Sequence[object]]:
    """Pixels p0 to p63, row by row from the top left, 0 (paper) to 16 (ink), then the digit; whole numbers."""
    found = load_digits()
    yield [*(f"p{pixel}" for pixel in range(64)), "label"]
    yield from ([*map(int, pixels), int(label)] for pixels, label in zip(found.data, found.target, strict=True))


def wine() -> Iterator[Sequence[object]]:
    """Thirteen measurements, in the units of the source, then the cultivar."""
    found = load_wine()
    yield [*found.feature_names, "label"]
    yield from ([*map(float, values), float(label)] for values, label in zip(found.data, found.target, strict=True))


def as_csv(rows: Iterable[Sequence[object]]) -> bytes:
    """Comma-separated, one line each."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def main() -> None:
    """Derive and write both."""
    for name, rows in (("digits", digits()), ("wine", wine())):
        target = TARGET / f"{name}.csv.gz"
        # No name and no time in the header, so that the same rows are the same bytes.
        target.write_bytes(gzip.compress(as_csv(rows), compresslevel=9, mtime=0))
        print(f"wrote {target} ({target.stat().st_size:,} bytes)")


if __name__ == "__main__":
    main()
