"""The backtest's figures: what each way of choosing hours cost, and how much of what could be saved it has captured.

``captured`` is 0 for running at once and 1 for perfect foresight, by the cost of useful work, so that whoever leaves work
undone gains nothing by it. A week counts for the month it begins in.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import date, timedelta
from multiprocessing import get_context
from typing import Any

from gridsched.core.signal import UNIT, SignalKind
from gridsched.report.backtest import Outcome, Record, Task, Week, outlook, planned, tally, with_foresight
from gridsched.report.rules import rules_of

__all__ = ["AT_ONCE", "ORACLE", "OURS", "Replayed", "by_month", "by_quarter", "document", "figures", "grouped", "replay", "replay_all"]

OURS, ORACLE, AT_ONCE = "schedule", "oracle", "run_at_once"
_CHUNK = 16

Replayed = Mapping[str, Outcome]
"""One week: what came of it by the schedule, by each rule and with perfect foresight."""


def replay(rec: Record, task: Task, found: Sequence[Week]) -> list[Replayed]:
    """Each of the weeks, in every way; weeks that follow one another share what was learned."""
    effort, plain = task.effort(rec.grid.slot, rec.policy), task.effort(rec.grid.slot)
    ahead = outlook(rec, effort)
    return [
        {
            OURS: tally(rec, week, effort, planned(rec, week, effort, ahead)),
            ORACLE: tally(rec, week, effort, with_foresight(rec, week, effort)),
            **{name: tally(rec, week, plain, rule(rec, task, week, plain)) for name, rule in rules_of(rec.signal).items()},
        }
        for week in found
    ]


def replay_all(
    rec: Record, task: Task, found: Sequence[Week], *, processes: int = 1, told: Callable[[int], None] = lambda _: None
) -> list[Replayed]:
    """`replay` in pieces, over several processes where asked; ``told`` hears how many weeks are done each time some are."""
    pieces = [found[start : start + _CHUNK] for start in range(0, len(found), _CHUNK)]
    results: list[list[Replayed]] = [[]] * len(pieces)
    if processes <= 1 or len(pieces) == 1:
        for number, piece in enumerate(pieces):
            results[number] = replay(rec, task, piece)
            told(len(piece))
    else:
        with ProcessPoolExecutor(min(processes, len(pieces)), mp_context=get_context("spawn")) as pool:
            under_way = {pool.submit(replay, rec, task, piece): number for number, piece in enumerate(pieces)}
            for done in as_completed(under_way):
                number = under_way[done]
                results[number] = done.result()
                told(len(pieces[number]))
    return [week for piece in results for week in piece]


def figures(rec: Record, replayed: Sequence[Replayed]) -> dict[str, Any]:
    """The figures over some weeks: the schedule's own at the top, the same of the others under ``rules`` and ``oracle``."""
    at_once, best = _cost(replayed, AT_ONCE), _cost(replayed, ORACLE)

    def told(name: str) -> dict[str, Any]:
        return _told(rec, [week[name] for week in replayed], _share(_cost(replayed, name), at_once, best))

    return {**told(OURS), "weeks": len(replayed), "rules": {name: told(name) for name in rules_of(rec.signal)}, "oracle": told(ORACLE)}


def _cost(replayed: Sequence[Replayed], name: str) -> float | None:
    useful = sum(week[name].useful for week in replayed)
    return sum(week[name].cost for week in replayed) / useful if useful else None


def _share(cost: float | None, at_once: float | None, best: float | None) -> float | None:
    if cost is None or at_once is None or best is None or at_once - best <= 1e-9:
        return None
    return round((at_once - cost) / (at_once - best), 4)


def _told(rec: Record, outcomes: Sequence[Outcome], captured: float | None) -> dict[str, Any]:
    drawn, useful = sum(o.drawn for o in outcomes), sum(o.useful for o in outcomes)
    value = sum(o.value for o in outcomes)
    hours = rec.grid.slot / timedelta(hours=1)
    by = drawn if UNIT[rec.signal] in ("W", "share") else useful  # a power or a share is not a cost of work: its mean is told
    mean = round(value / by, 4) if by else None
    told = {
        "captured": captured,
        "starts_per_week": round(sum(o.starts for o in outcomes) / len(outcomes), 3),
        "cost_eur_per_useful_mwh": mean if rec.signal is SignalKind.PRICE else None,
        "objective_mean": mean,
        "in_surplus_share": round(sum(o.inside for o in outcomes) / drawn, 4) if drawn else None,
        "deadline_misses": sum(o.missing > 1e-9 for o in outcomes),
        "missing_hours": round(hours * sum(o.missing for o in outcomes), 3),
        "restart_waste_hours_per_week": round(hours * (drawn - useful) / len(outcomes), 3),
    }
    if rec.signal is SignalKind.PRICE:
        del told["objective_mean"]
    return told


def by_month(day: date) -> str:
    """``2025-03``."""
    return f"{day:%Y-%m}"


def by_quarter(day: date) -> str:
    """``2025-Q1``."""
    return f"{day:%Y}-Q{(day.month + 2) // 3}"


def grouped(rec: Record, found: Sequence[Week], replayed: Iterable[Replayed], key: Callable[[date], str]) -> dict[str, list[Replayed]]:
    """The weeks by what ``key`` says of the day they begin on."""
    groups: dict[str, list[Replayed]] = {}
    for week, result in zip(found, replayed, strict=True):
        groups.setdefault(key(rec.date(week.day)), []).append(result)
    return groups


def document(rec: Record, task: Task, found: Sequence[Week], replayed: Sequence[Replayed]) -> dict[str, Any]:
    """All figures as plain JSON values: in all, and under ``months`` and ``quarters`` the same of each."""
    policy = rec.policy
    head = {
        "policy": policy.name if policy else "",
        "policy_digest": policy.digest if policy else "",
        "objective": str(rec.signal),
        "unit": UNIT[rec.signal],
        "slot_minutes": int(rec.grid.slot / timedelta(minutes=1)),
        "timezone": rec.calendar.timezone,
        "hours_per_week": task.useful / timedelta(hours=1),
        "restart_waste_minutes": task.waste / timedelta(minutes=1),
        "from": f"{rec.date(found[0].day)}",
        "to": f"{rec.date(found[-1].day + 7)}",
    }
    parts = {
        name: {part: figures(rec, weeks) for part, weeks in grouped(rec, found, replayed, key).items()}
        for name, key in (("months", by_month), ("quarters", by_quarter))
    }
    return {**head, **figures(rec, replayed), **parts}
