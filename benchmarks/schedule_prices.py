"""How much of what perfect foresight would save the schedule captures, beside the usual rules, on years of real prices.

    python benchmarks/schedule_prices.py [--every 10] [--full] [--trace FILE] [--from DAY] [--to DAY] [--only prices native inputs]

* **prices**: a week begins on every day in turn; 42 or 84 useful hours; 0, 15 or 30 minutes of work lost at each start; a day's prices
  are known from 13:00 local time of the day before. Captured is 0 for running at once and 1 for perfect foresight. Bars: 92 % at no
  more than six starts a week, and in no quarter below the price threshold (whose one knob was set on 2023 and frozen).
* **native**: the same at quarter-hours (42 h, 15 min) over the last quarter of 2025, learning from hourly prices before October,
  beside hourly means of the same weeks.
* **inputs**: what each part of the forecast is worth, each left out in turn, and what one or two more days of true prices would add:
  there lies what is still lost against perfect foresight.

Without ``--full`` only every tenth week is replayed (all weekdays still come in turn). ``--trace`` takes any CSV that ``gridsched policy
backtest`` takes. The last line is one JSON object.
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import date, timedelta
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from gridsched.core.forecast import Chain
from gridsched.core.grid import Calendar, Grid
from gridsched.core.policy import Policy
from gridsched.core.schedule import costs_to_go, end_of_time, foresee
from gridsched.core.signal import SignalKind
from gridsched.plugins import parse_policy
from gridsched.report.backtest import Ahead, Record, Task, Week, coming, learned, outlook, planned, record, tally, weeks, with_foresight
from gridsched.report.captured import by_quarter
from gridsched.report.rules import rules_of
from gridsched.report.trace import Columns, Trace, read_trace

SERIES = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "series"
HOURLY = SERIES / "de_lu_price_and_dayahead_forecast_hourly_2023_2025.csv.gz"
NATIVE = SERIES / "de_lu_price_and_dayahead_forecast_15min_2025q4.csv.gz"
GOAL, MOST_STARTS = 0.92, 6.0
CHUNK = 12
RECENT_HALF_LIFE, BANDWIDTH = 60.0, 0.5
POLICY = """
zone = "bench"
timezone = "{timezone}"
[when]
any = [{{ signal = "price", below = "0 EUR/MWh" }}]
[draw]
watts = "1 kW"
[top_up]
allowed = true
watts = "1 kW"
"""

Costs = dict[str, list[tuple[float, float, int, bool]]]


def policy_of(timezone: str) -> Policy:
    return parse_policy(POLICY.format(timezone=timezone), "bench")


# --- prices -----------------------------------------------------------------------------------------------------------------------------


def shared_outlook(rec: Record, task: Task) -> Ahead:
    """`outlook` for the most hours, kept for the weeks of fewer hours: costs to go do not depend on what was left at the beginning."""
    return lru_cache(maxsize=64)(outlook(rec, task.effort(rec.grid.slot, rec.policy)))


def replay_prices(rec: Record, found: list[Week], hours: list[float], waste_min: float) -> dict[float, Costs]:
    tasks = {h: Task(useful=timedelta(hours=h), waste=timedelta(minutes=waste_min)) for h in hours}
    whole = shared_outlook(rec, tasks[max(hours)])
    told: dict[float, Costs] = {}
    for week in found:
        for h, task in tasks.items():
            effort = task.effort(rec.grid.slot, rec.policy)
            ahead: Ahead = lambda day, deadline, work=effort.work: whole(day, deadline)[:, : work + 1]  # noqa: E731
            masks = {name: rule(rec, task, week, effort) for name, rule in rules_of(rec.signal).items()}
            masks |= {"schedule": planned(rec, week, effort, ahead), "oracle": with_foresight(rec, week, effort)}
            for name, mask in masks.items():
                told.setdefault(h, {}).setdefault(name, []).append(account(rec, week, task, mask))
    return told


def account(rec: Record, week: Week, task: Task, mask: np.ndarray) -> tuple[float, float, int, bool]:
    done = tally(rec, week, task.effort(rec.grid.slot, rec.policy), mask)
    return done.cost, done.useful, done.starts, done.missing > 0


def share(costs: Costs, name: str, chosen: np.ndarray | None = None) -> float:
    def mean(of: str) -> float:
        rows = np.array(costs[of])[slice(None) if chosen is None else chosen]
        return float(rows[:, 0].sum() / rows[:, 1].sum())

    return (mean("run_at_once") - mean(name)) / (mean("run_at_once") - mean("oracle"))


def told_prices(rec: Record, found: list[Week], costs: Costs, hours: float, waste_min: float) -> dict[str, object]:
    names = [name for name in costs if name != "oracle"]
    quarters = np.array([by_quarter(rec.date(week.day)) for week in found])
    worst, where = min(
        (share(costs, "schedule", quarters == q) - share(costs, "quantile_threshold", quarters == q), q) for q in set(quarters)
    )
    rows = {name: np.array(costs[name]) for name in costs}
    row = {
        "hours": hours,
        "waste_min": waste_min,
        "weeks": len(found),
        "captured": {name: round(share(costs, name), 4) for name in names},
        "starts": {name: round(float(rows[name][:, 2].mean()), 2) for name in costs},
        "cost": {name: round(float(rows[name][:, 0].sum() / rows[name][:, 1].sum()), 2) for name in costs},
        "misses": {name: int(rows[name][:, 3].sum()) for name in costs},
        "quarters": {q: round(share(costs, "schedule", quarters == q), 4) for q in sorted(set(quarters))},
        "least_above_threshold": [round(worst, 4), where],
        "years": {y: round(share(costs, "schedule", np.char.startswith(quarters, y)), 4) for y in sorted({q[:4] for q in quarters})},
    }
    row["met"] = bool(row["captured"]["schedule"] >= GOAL and row["starts"]["schedule"] <= MOST_STARTS and worst >= 0)
    cells = "  ".join(f"{100 * row['captured'][n]:5.1f} ({row['starts'][n]:4.1f})" for n in names)
    costs_told = ", ".join(f"{row['cost'][n]:.1f}" for n in ("run_at_once", "schedule", "oracle"))
    print(f"{hours:4g} h {waste_min:3g} min  {cells}  EUR/MWh at once, ours, best {costs_told}", end="")
    print(f"; worst quarter {100 * worst:+.1f} over the threshold ({where}); missed {row['misses']['schedule']}", flush=True)
    return row


def pooled(pool: ProcessPoolExecutor, work: Callable, rec: Record, found: list[Week], *rest: object) -> list:
    pieces = [found[start : start + CHUNK] for start in range(0, len(found), CHUNK)]
    done = []
    for number, future in enumerate([pool.submit(work, rec, piece, *rest) for piece in pieces]):
        done.append(future.result())
        if sys.stderr.isatty():
            print(f"\r{number + 1}/{len(pieces)} ", end="", file=sys.stderr, flush=True)
    return done


def joined(parts: list[Costs]) -> Costs:
    return {name: [row for part in parts for row in part[name]] for name in parts[0]}


def prices(pool: ProcessPoolExecutor, rec: Record, found: list[Week], hours: list[float], wastes: list[float]) -> list[dict[str, object]]:
    names = [*rules_of(rec.signal), "schedule"]
    print(
        f"captured in % (starts a week), {len(found)} weeks from {rec.date(found[0].day)} to {rec.date(found[-1].day)}: " + ", ".join(names)
    )
    rows = []
    for waste_min in wastes:
        parts = pooled(pool, replay_prices, rec, found, hours, waste_min)
        rows += [told_prices(rec, found, joined([part[h] for part in parts]), h, waste_min) for h in hours]
    return rows


# --- native -----------------------------------------------------------------------------------------------------------------------------


def spliced(hourly: Trace, native: Trace) -> tuple[Trace, Trace]:
    """Hourly prices until the native ones begin, once as quarter-hours and once with hourly means of the native ones."""
    cut, times = hourly.grid.index(native.grid.start), hourly.grid.slot // native.grid.slot
    fine = np.concatenate([np.repeat(hourly.grid.values[:cut], times), native.grid.values])
    whole = native.grid.values[: len(native.grid) // times * times].reshape(-1, times).mean(axis=1)
    coarse = np.concatenate([hourly.grid.values[:cut], whole])
    start = hourly.grid.start
    return (
        dataclasses.replace(hourly, grid=Grid(start=start, slot=native.grid.slot, values=fine)),
        dataclasses.replace(hourly, grid=Grid(start=start, slot=hourly.grid.slot, values=coarse)),
    )


def native_beside_hourly(pool: ProcessPoolExecutor, policy: Policy, every: int) -> dict[str, object]:
    fine, coarse = (record(trace, policy) for trace in spliced(read_trace(HOURLY, SignalKind.PRICE), read_trace(NATIVE, SignalKind.PRICE)))
    told: dict[str, object] = {}
    for name, rec in (("native", fine), ("hourly", coarse)):
        found = weeks(rec, Task(), begin=date(2025, 10, 1))[::every]
        costs = joined([part[42.0] for part in pooled(pool, replay_prices, rec, found, [42.0], 15.0)])
        rows = np.array(costs["schedule"])
        told[name] = {
            "weeks": len(found),
            "captured": {rule: round(share(costs, rule), 4) for rule in costs if rule != "oracle"},
            "starts": round(float(rows[:, 2].mean()), 2),
            "cost": {rule: round(float(np.array(costs[rule])[:, 0].sum() / np.array(costs[rule])[:, 1].sum()), 2) for rule in costs},
        }
        captured = f"captured {100 * share(costs, 'schedule'):.1f} % at {rows[:, 2].mean():.1f} starts"
        print(f"{name}: {len(found)} weeks, {captured}; cost {told[name]['cost']}", flush=True)
    told["met"] = told["native"]["captured"]["schedule"] >= told["hourly"]["captured"]["schedule"]
    return told


# --- inputs -----------------------------------------------------------------------------------------------------------------------------


def persisting(chain: Chain) -> Chain:
    """Without the regression: the outlook for tomorrow is today's mean deviation."""
    deviations, recent = chain.deviations, recency(len(chain.deviations))
    level = deviations.mean(axis=1)
    spread = np.sqrt(np.average(level**2, weights=recent)) + 1e-9
    alike = np.zeros((len(level), len(level)))
    alike[:, 1:] = (np.exp(-0.5 * np.minimum(((level[:, None] - level[None, :-1]) / (BANDWIDTH * spread)) ** 2, 1400)) + 1e-12) * recent[1:]
    moves = alike / alike.sum(axis=1, keepdims=True)
    return dataclasses.replace(chain, first_deviations=deviations, first=moves[-1], moves=moves)


def without_kernel(chain: Chain) -> Chain:
    """Any recent day may follow any other; the regression's outlook for the first day remains."""
    weights = recency(len(chain.deviations)) / recency(len(chain.deviations)).sum()
    return dataclasses.replace(chain, first=weights, moves=np.broadcast_to(weights, chain.moves.shape).copy())


def recency(count: int) -> np.ndarray:
    return 0.5 ** (np.arange(count)[::-1] / RECENT_HALF_LIFE)


def variant(rec: Record, task: Task, name: str) -> Ahead:
    effort = task.effort(rec.grid.slot, rec.policy)
    changed = {"no regression": persisting, "no kernel": without_kernel, "neither": lambda chain: without_kernel(persisting(chain))}
    if name in changed:
        chain = lru_cache(maxsize=8)(lambda day: changed[name](learned(rec, day)))
        return lambda day, end: foresee(chain(day), list(coming(rec, day, end)), effort) if day < end else end_of_time(effort)
    if name == "no scenarios":
        plain = lru_cache(maxsize=8)(lambda day: learned(rec, day))

        def mean_only(day: int, end: int) -> np.ndarray:
            days = list(coming(rec, day, end))
            costs = [plain(day).mean(number, one.kind)[one.columns] for number, one in enumerate(days)]
            return costs_to_go(np.concatenate(costs), effort, end_of_time(effort))[0] if days else end_of_time(effort)

        return mean_only
    base, days_more = outlook(rec, effort), {"one true day more": 1, "two true days more": 2}.get(name, 0)

    def peeking(day: int, end: int) -> np.ndarray:
        until = min(day + days_more, end)
        return costs_to_go(rec.costs[rec.days.bounds[day] : rec.days.bounds[until]], effort, base(until, end))[0]

    return peeking


VARIANTS = ("all", "no holidays", "no regression", "no kernel", "neither", "no scenarios", "one true day more", "two true days more")


def replay_variant(rec: Record, found: list[Week], name: str) -> Costs:
    task = Task()
    effort, rules = task.effort(rec.grid.slot, rec.policy), rules_of(rec.signal)
    ahead = variant(rec, task, name)
    told: Costs = {"schedule": [], "oracle": [], "run_at_once": []}
    for week in found:
        told["schedule"].append(account(rec, week, task, planned(rec, week, effort, ahead)))
        told["oracle"].append(account(rec, week, task, with_foresight(rec, week, effort)))
        told["run_at_once"].append(account(rec, week, task, rules["run_at_once"](rec, task, week, effort)))
    return told


def inputs(pool: ProcessPoolExecutor, rec: Record, trace: Trace, found: list[Week]) -> dict[str, float]:
    plain = record(trace, rec.policy, Calendar(timezone=rec.calendar.timezone))
    told = {}
    for name in VARIANTS:
        costs = joined(pooled(pool, replay_variant, plain if name == "no holidays" else rec, found, name))
        told[name] = round(share(costs, "schedule"), 4)
        print(f"{name:20} {100 * told[name]:.1f} %  ({100 * (told[name] - told['all']):+.1f})", flush=True)
    return told


def main() -> None:
    asked = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    asked.add_argument("--trace", type=Path, default=HOURLY)
    asked.add_argument("--value", default="", help="the column of prices")
    asked.add_argument("--unit", default="")
    asked.add_argument("--stamps", default="", help="the time zone of stamps without offset")
    asked.add_argument("--timezone", default="Europe/Berlin", help="whose days and holidays")
    asked.add_argument("--from", dest="begin", type=date.fromisoformat)
    asked.add_argument("--to", dest="end", type=date.fromisoformat)
    asked.add_argument("--hours", type=float, nargs="+", default=[42.0, 84.0])
    asked.add_argument("--waste", type=float, nargs="+", default=[15.0, 0.0, 30.0], help="minutes")
    asked.add_argument("--every", type=int, default=10)
    asked.add_argument("--full", action="store_true", help="every week; half an hour")
    asked.add_argument("--only", nargs="+", choices=("prices", "native", "inputs"), default=("prices", "native", "inputs"))
    asked.add_argument("--processes", type=int, default=2)
    options = asked.parse_args()
    if not options.trace.is_file():
        print(f"skipped: there is no {options.trace}; give another with --trace")
        return
    began = time.monotonic()
    policy = policy_of(options.timezone)
    trace = read_trace(options.trace, SignalKind.PRICE, Columns(value=options.value, unit=options.unit, timezone=options.stamps))
    print(trace.told)
    rec = record(trace, policy)
    every = 1 if options.full else options.every
    found = weeks(rec, Task(), begin=options.begin, end=options.end)
    result: dict[str, object] = {"trace": trace.name, "goal": GOAL, "every": every}
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        if "prices" in options.only:
            result["prices"] = prices(pool, rec, found[::every], options.hours, options.waste)
        if "native" in options.only and NATIVE.is_file():
            result["native"] = native_beside_hourly(pool, policy, 1 if options.full else 3)
        if "inputs" in options.only:
            result["inputs"] = inputs(pool, rec, trace, found[:: max(every, 5)])
    print(json.dumps(result | {"seconds": round(time.monotonic() - began)}))


if __name__ == "__main__":
    main()
