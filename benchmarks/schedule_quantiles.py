"""What our day-ahead forecast is worth to a battery, beside published forecasts of the same days.

    python benchmarks/schedule_quantiles.py

The published study ranks a day's quarter-hours by their forecast price: a battery of 10 MW charges in the 24 that look cheapest and
discharges in the 24 that look dearest (three cycles of 20 MWh), a slot in both lists is left out, 90 % of the energy comes back, and all is
settled at the real prices. (Its state of charge is not simulated; we take the definition as it is, and check it against the published daily
results.) In it go: the real prices (perfect foresight), the published median forecast and naive forecast, yesterday's prices, and our own.

Ours is ``core.forecast``, issued on the day before, before the auction: it knows the prices of all days before the target day and nothing
else: no weather, no load, no wind or solar forecast. It learns from the last quarter of 2025 at quarter-hours and the study's own earlier
days; nothing of January and most of February 2026 is known to it. The last line is one JSON object.
"""

import csv
import gzip
import json
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from gridsched.calendars import calendar_of
from gridsched.core.forecast import Days, learn
from gridsched.core.grid import DAY, Grid
from gridsched.core.signal import SignalKind
from gridsched.report.trace import read_trace

SERIES = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "series"
QUANTILES = SERIES / "de_lu_price_quantile_forecast_15min_2026_03_04.csv.gz"
REFERENCE = SERIES / "de_lu_battery_pnl_reference_2026_03_04.csv.gz"
HISTORY = SERIES / "de_lu_price_and_dayahead_forecast_15min_2025q4.csv.gz"
SLOTS, MWH_PER_SLOT, COMES_BACK = 24, 2.5, 0.9
QUARTER = timedelta(minutes=15)
GOAL = 0.90


def profit_eur(forecast: np.ndarray, real: np.ndarray) -> float:
    order = np.argsort(forecast)
    charge, discharge = set(order[:SLOTS].tolist()), set(order[-SLOTS:].tolist())
    bought, sold = sorted(charge - discharge), sorted(discharge - charge)
    return MWH_PER_SLOT * (COMES_BACK * float(real[sold].sum()) - float(real[bought].sum()))


def rows_of(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def known_prices(rows: list[dict[str, str]]) -> Grid:
    """All quarter-hours ever known: the last quarter of 2025, then the study's days and, for its first week, those seven days before."""
    old = read_trace(HISTORY, SignalKind.PRICE).grid
    found: dict[datetime, float] = {}
    for row in rows:
        start = datetime.fromisoformat(row["target_ts"]).astimezone(UTC)
        if row["naive_7d"]:
            found.setdefault(start - 7 * DAY, float(row["naive_7d"]))
        found[start] = float(row["y_true"])
    end = max(found) + QUARTER
    values = np.full((end - old.start) // QUARTER, np.nan)
    values[: len(old)] = old.values
    for start, value in found.items():
        values[(start - old.start) // QUARTER] = value
    return Grid(start=old.start, slot=QUARTER, values=values)


def main() -> None:
    if not QUANTILES.is_file():
        print(f"skipped: there is no {QUANTILES}")
        return
    rows = rows_of(QUANTILES)
    grid = known_prices(rows)
    calendar = calendar_of("Europe/Berlin", (2025, 2026))
    local = calendar.days(grid)
    table = local.table(grid.values, range(len(local)))
    first = calendar.day_of(grid.start)
    sums = dict.fromkeys(("perfect", "p50", "naive", "yesterday", "ours"), 0.0)
    published = {"perfect": "oracle_pnl", "p50": "model_p50_pnl", "naive": "naive_pnl"}
    reference = {row["issue_date"]: row for row in rows_of(REFERENCE)}
    errors: dict[str, list[float]] = {name: [] for name in sums}
    off, days, daily = [], 0, []
    for issued in sorted({row["issue_date"] for row in rows}):
        own = [row for row in rows if row["issue_date"] == issued]
        real = np.array([float(row["y_true"]) for row in own])
        number = (date.fromisoformat(issued) - first).days
        whole = ~np.isnan(table[:number]).all(axis=1)  # days of which nothing is known are none
        chain = learn(Days(values=table[:number][whole], kinds=local.kinds[:number][whole]))
        if chain is None:
            raise SystemExit(f"too little is known before {issued}")
        columns = local.columns[[grid.index(datetime.fromisoformat(row["target_ts"])) for row in own]]
        seen = {
            "perfect": real,
            "p50": np.array([float(row["p50"]) for row in own]),
            "naive": np.array([float(row["naive_1d"] or "nan") for row in own]),
            "yesterday": table[:number][whole][-1][columns],
            "ours": chain.mean(0, int(local.kinds[number]))[columns],
        }
        profits = {name: profit_eur(values, real) for name, values in seen.items()}
        for name, eur in profits.items():
            sums[name] += eur
        off += [(abs(profits[name] - float(reference[issued][column])), issued, name) for name, column in published.items()]
        days += 1
        daily.append(profits["ours"] / profits["perfect"])
        for name, values in seen.items():
            errors[name].append(float(np.nanmean(np.abs(values - real))))
    shares = {name: eur / sums["perfect"] for name, eur in sums.items()}
    told = {name: sum(float(row[column]) for row in reference.values()) for name, column in published.items()}
    for name, share in shares.items():
        beside = f"  published: {told[name] / told['perfect']:.1%}" if name in told else ""
        error = f"mean error {np.mean(errors[name]):5.1f} EUR/MWh"
        print(f"{name:10} {sums[name]:>11,.0f} EUR  {share:6.1%} of perfect foresight  {error}{beside}")
    apart = sorted(row for row in off if row[0] > 0.02)
    print(
        f"{len(off) - len(apart)} of {len(off)} published daily results are met to the cent; the others are ties between equal forecasts:"
    )
    print("  " + ", ".join(f"{name} of {issued} by {eur:.2f} EUR" for eur, issued, name in apart))
    result = {"days": days, "shares": {name: round(share, 4) for name, share in shares.items()}}
    result |= {
        "mean_error_eur_mwh": {name: round(float(np.mean(found)), 2) for name, found in errors.items()},
        "not_met_to_the_cent": len(apart),
    }
    print(json.dumps(result | {"worst_day": round(min(daily), 3), "goal": GOAL, "met": shares["ours"] >= GOAL}))


if __name__ == "__main__":
    main()
