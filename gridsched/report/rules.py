"""The usual rules for choosing hours, as people run them today: what the schedule is measured against.

None looks further than what is known, none knows a policy, and each has the same last-chance guard: once the slots that are
left are only just enough for the work that is left, it runs in all of them. What can be tuned was tuned on the DE-LU prices
of 2023 and is frozen here: the quantile rule aims at ``EAGER`` times the share of the week that the work needs.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from gridsched.core.schedule import Effort, Standing, costs_to_go, end_of_time
from gridsched.core.signal import SignalKind
from gridsched.report.backtest import WEEK, Ahead, Record, Task, Week, planned

__all__ = ["EAGER", "Rule", "four_weeks", "guarded", "rules_of"]

EAGER = 0.8
_THRESHOLD_DAYS = 28
_WEEKS = 4

Mask = NDArray[np.bool_]
Rule = Callable[[Record, Task, Week, Effort], Mask]


def run_at_once(rec: Record, task: Task, week: Week, effort: Effort) -> Mask:  # noqa: ARG001 - all rules are asked alike
    """From the first slot on, until the work is done."""
    return guarded(rec, week, effort, np.ones(week.end - week.start, dtype=np.bool_))


def negative_price(rec: Record, task: Task, week: Week, effort: Effort) -> Mask:  # noqa: ARG001 - all rules are asked alike
    """While the price is below zero."""
    return guarded(rec, week, effort, rec.grid.values[week.start : week.end] < 0)


def only_surplus(rec: Record, task: Task, week: Week, effort: Effort) -> Mask:  # noqa: ARG001 - all rules are asked alike
    """While the policy sees surplus."""
    return guarded(rec, week, effort, rec.inside[week.start : week.end])


def cheapest_of_each_day(rec: Record, task: Task, week: Week, effort: Effort) -> Mask:
    """In the best slots of each day, as many as spread the work evenly."""
    wanted = np.zeros(week.end - week.start, dtype=np.bool_)
    count = int(np.ceil(task.useful / rec.grid.slot / WEEK - 1e-9))
    for day in range(week.day, week.day + WEEK):
        low, high = int(rec.days.bounds[day]), int(rec.days.bounds[day + 1])
        best = np.argsort(rec.costs[low:high], kind="stable")[:count]
        wanted[low - week.start + best] = True
    return guarded(rec, week, effort, wanted)


def quantile_threshold(rec: Record, task: Task, week: Week, effort: Effort) -> Mask:
    """While the price lies below a quantile of the last four weeks; what is missing then falls to the guard."""
    share = min(EAGER * (task.useful / rec.grid.slot) / (week.end - week.start), 1.0)
    wanted = np.zeros(week.end - week.start, dtype=np.bool_)
    for day in range(week.day, week.day + WEEK):
        low, high = int(rec.days.bounds[day]), int(rec.days.bounds[day + 1])
        past = rec.costs[rec.days.bounds[max(day - _THRESHOLD_DAYS, 0)] : low]
        wanted[low - week.start : high - week.start] = rec.costs[low:high] < np.nanquantile(past, share)
    return guarded(rec, week, effort, wanted)


def four_weeks(rec: Record, effort: Effort) -> Ahead:
    """As foreseen by the mean of the last four weeks: each day to come is the mean of its weekday's last four that are known."""

    def ahead(day: int, deadline: int) -> NDArray[np.float64]:
        if day >= deadline:
            return end_of_time(effort)
        rows = []
        for number in range(day, deadline):
            past = [number - WEEK * back for back in range(1, _WEEKS + 1) if rec.whole.start <= number - WEEK * back < day]
            seen = rec.table[past]
            known = ~np.isnan(seen)
            mean = np.where(known, seen, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
            rows.append(mean[rec.days.columns[rec.days.bounds[number] : rec.days.bounds[number + 1]]])
        found: NDArray[np.float64] = costs_to_go(np.concatenate(rows), effort, end_of_time(effort))[0]
        return found

    return ahead


def mean_of_four_weeks(rec: Record, task: Task, week: Week, effort: Effort) -> Mask:  # noqa: ARG001 - all rules are asked alike
    """By the same dynamic programme as the schedule's, with the mean of the last four weeks behind the known prices."""
    return planned(rec, week, effort, four_weeks(rec, effort), ~np.isnan(rec.costs))


def guarded(rec: Record, week: Week, effort: Effort, wanted: Mask) -> Mask:
    """``wanted``, and every slot from when those that are left are only just enough; never a slot that is not known."""
    known = ~np.isnan(rec.costs[week.start : week.end])
    ran = np.zeros(len(wanted), dtype=np.bool_)
    left, standing, open_slots = effort.work, Standing(), int(known.sum())
    for slot in range(len(wanted)):
        if left == 0:
            break
        needs_after_rest = -(-(left + effort.waste) // effort.per_slot)
        go = bool(known[slot]) and (bool(wanted[slot]) or open_slots - 1 < needs_after_rest)
        left -= min(effort.done(standing.slots if standing.on else 0), left) if go else 0
        standing = standing.after(go)
        open_slots -= int(known[slot])
        ran[slot] = go
    return ran


def rules_of(signal: SignalKind) -> Mapping[str, Rule]:
    """The rules for a signal, by the name that the backtest's JSON gives each."""
    first = negative_price if signal is SignalKind.PRICE else only_surplus
    return {rule.__name__: rule for rule in (run_at_once, first, cheapest_of_each_day, quantile_threshold, mean_of_four_weeks)}
