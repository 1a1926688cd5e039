"""Which of tomorrow's hours will have a negative price, told before the auction: average precision, year by year.

    python benchmarks/schedule_negative_hours.py [TRACE.csv.gz] [--every DAYS]

The trace has columns ``time_utc``, ``price_eur_per_mwh``, ``load_forecast_mw`` and any ``*_forecast_mw`` of wind and sun (default:
DE-LU 2023-2025 in ../shared/data/series). For each local day the model sees the prices up to the day before, and the forecasts of
load, wind and sun up to the day itself; it learns anew from at most a year of past days. Beside it, in the same run and on the same
hours: yesterday's price, and the share of wind and sun in the load. Average precision is the area under precision against recall;
what always guesses scores the share of negative hours. The last line is one JSON object.
"""

import argparse
import json
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from gridsched.core.drivers import LEAST_DAYS, Driven, tell  # noqa: E402 - after the path, so that it runs from a checkout
from gridsched.core.grid import Calendar, Grid  # noqa: E402

TRACE = ROOT.parent / "shared/data/series/de_lu_price_and_dayahead_forecast_hourly_2023_2025.csv.gz"
MOST_DAYS = 372
PUBLISHED_LEAR = (0.75, 0.85)


def tables(trace: Path, timezone: str) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], list[int]]:
    """Prices [n, 24], kinds [n], drivers by name [n, 24], and each day's local year."""
    frame = pd.read_csv(trace)
    start = pd.to_datetime(frame["time_utc"], utc=True)
    slot = (start.iloc[1] - start.iloc[0]).to_pytimedelta()
    calendar = Calendar(timezone=timezone)
    grid = Grid(start=start.iloc[0].to_pydatetime(), slot=slot, values=frame["price_eur_per_mwh"].to_numpy(float))
    days = calendar.days(grid)
    whole = range(len(days))

    def by_day(values: np.ndarray) -> np.ndarray:
        table = days.table(values, whole)
        return pd.DataFrame(table.T).ffill().bfill().to_numpy().T  # the hour that a clock change leaves out

    load = frame["load_forecast_mw"].to_numpy(float)
    sources = {name: frame[name].to_numpy(float) for name in frame.columns if name.endswith("_forecast_mw") and not name.startswith("load")}
    renewable = sum(sources.values())
    drivers = {"residual load": by_day(load - renewable), "renewable share": by_day(np.clip(renewable / load, 0, 1))}
    if "solar_forecast_mw" in sources:
        drivers["solar share"] = by_day(sources["solar_forecast_mw"] / load)
    years = [(calendar.day_of(grid.start) + day * timedelta(days=1)).year for day in whole]
    return by_day(grid.values), days.kinds, drivers, years


def expected(prices: np.ndarray, kinds: np.ndarray, drivers: list[np.ndarray], chosen: list[int]) -> np.ndarray:
    """What the model expects of each chosen day, told from what was known before the auction [len(chosen), 24]."""
    found = []
    for day in chosen:
        first = max(0, day - MOST_DAYS)
        past = Driven(values=prices[first:day], kinds=kinds[first : day + 1], drivers=[driver[first : day + 1] for driver in drivers])
        told = tell(past)
        assert told is not None
        found.append(told.expected[0])
    return np.array(found)


def average_precision(happened: np.ndarray, score: np.ndarray) -> float:
    """Mean precision at each hour that happened, the highest scores first."""
    hits = happened.ravel()[np.argsort(-score.ravel(), kind="stable")]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / max(hits.sum(), 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", nargs="?", type=Path, default=TRACE)
    parser.add_argument("--every", type=int, default=1, help="Only every so many days.")
    parser.add_argument("--timezone", default="Europe/Berlin")
    options = parser.parse_args()
    if not options.trace.is_file():
        sys.exit(f"there is no trace {options.trace}; name one")
    prices, kinds, drivers, years = tables(options.trace, options.timezone)
    days = list(range(LEAST_DAYS + 7, len(prices), options.every))
    negative = prices[days] < 0
    told = expected(prices, kinds, list(drivers.values()), days)
    without_sun = expected(prices, kinds, list(drivers.values())[:2], days) if len(drivers) > 2 else told
    scores = {
        "yesterday's price": -prices[[day - 1 for day in days]],
        "renewable share": drivers["renewable share"][days],
        "residual load": -drivers["residual load"][days],
        "ours without the sun": -without_sun,
        "ours": -told,
    }
    found: dict[str, dict[str, float]] = {}
    print(f"{'year':6}{'negative':>10}" + "".join(f"{name:>22}" for name in scores))
    for year in sorted(set(years)):
        rows = np.array([years[day] == year for day in days])
        if rows.sum() < LEAST_DAYS:
            continue
        found[str(year)] = {name: round(average_precision(negative[rows], score[rows]), 3) for name, score in scores.items()}
        print(f"{year:<6}{int(negative[rows].sum()):>10}" + "".join(f"{value:>22.3f}" for value in found[str(year)].values()))
    print(f"published LEAR: {PUBLISHED_LEAR[0]} to {PUBLISHED_LEAR[1]} by year")
    print(json.dumps({"average_precision": found, "days": len(days)}))


if __name__ == "__main__":
    main()
