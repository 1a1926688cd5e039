"""The backtest knows at each moment what was known then, keeps the policy, and holds every way of choosing hours to one account."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gridsched.core.errors import InvalidInput
from gridsched.core.grid import Calendar, Grid
from gridsched.core.policy import Policy
from gridsched.core.schedule import Effort
from gridsched.core.signal import SignalKind
from gridsched.plugins import parse_policy
from gridsched.report.backtest import Record, Task, Week, learned, outlook, planned, record, tally, weeks, with_foresight
from gridsched.report.backtest_plot import plot, typical
from gridsched.report.captured import document, figures, replay_all
from gridsched.report.rules import guarded, rules_of
from gridsched.report.trace import Trace

HOUR = timedelta(hours=1)
TASK = Task(useful=timedelta(hours=12), waste=timedelta(minutes=30))
DEADLINE = """
zone = "z"
timezone = "Europe/Berlin"
[when]
any = [{ signal = "price", below = "0 EUR/MWh" }]
[draw]
watts = "1 kW"
[top_up]
allowed = true
watts = "1 kW"
"""


def policy(text: str = DEADLINE) -> Policy:
    return parse_policy(text, "p")


def prices(days: int = 42, minutes: int = 60, *, start: date = date(2025, 2, 10), seed: int = 7) -> Trace:
    """Dear evenings, cheap noons, days that resemble the day before, and noise; whole days of Berlin's clock."""
    calendar, rng, slot = Calendar(timezone="Europe/Berlin"), np.random.default_rng(seed), timedelta(minutes=minutes)
    begin, end = calendar.midnight(start), calendar.midnight(start + timedelta(days=days))
    levels = np.empty(days + 1)
    levels[0] = 80.0
    for day in range(days):
        levels[day + 1] = 80 + 0.7 * (levels[day] - 80) + rng.normal(0, 10)
    values = []
    for number in range((end - begin) // slot):
        hour = ((begin + number * slot).hour + 1) % 24
        level = levels[(number * slot) // timedelta(days=1)]
        values.append(level - 45 * np.exp(-(((hour - 13) / 3.0) ** 2)) + 30 * np.exp(-(((hour - 19) / 2.0) ** 2)) + rng.normal(0, 5))
    return Trace(name="made", signal=SignalKind.PRICE, grid=Grid(start=begin, slot=slot, values=np.array(values)), told="made")


def made(trace: Trace | None = None, rule: Policy | None = None) -> Record:
    return record(trace or prices(), rule or policy())


def changed(trace: Trace, values: NDArray[np.float64]) -> Trace:
    return replace(trace, grid=Grid(start=trace.grid.start, slot=trace.grid.slot, values=values))


def ours(rec: Record, week: Week, task: Task = TASK) -> NDArray[np.bool_]:
    effort = task.effort(rec.grid.slot, rec.policy)
    return planned(rec, week, effort, outlook(rec, effort))


def every_way(rec: Record, week: Week) -> dict[str, NDArray[np.bool_]]:
    effort = TASK.effort(rec.grid.slot)
    return {"schedule": ours(rec, week), **{name: rule(rec, TASK, week, effort) for name, rule in rules_of(rec.signal).items()}}


@pytest.mark.parametrize("number", [0, 3, 6])
def test_whatever_comes_after_what_is_known_changes_nothing_that_was_decided_before(number: int) -> None:
    trace = prices()
    week = weeks(made(trace), TASK)[3]
    known = every_way(made(trace), week)
    _, day = week.plans[number]
    until = [*(slot for slot, _ in week.plans[1:]), week.end][number]
    cut = int(made(trace).days.bounds[day])
    scrambled = trace.grid.values.copy()
    scrambled[cut:] = np.random.default_rng(1).permutation(scrambled[cut:]) * -3 + 500
    other = made(changed(trace, scrambled))
    for name, mask in every_way(other, week).items():
        assert np.array_equal(mask[: until - week.start], known[name][: until - week.start]), name
    effort = TASK.effort(HOUR)
    before, after = learned(made(trace), day), learned(other, day)
    assert before is not None
    assert after is not None
    assert np.array_equal(before.moves, after.moves)
    assert np.array_equal(before.mean(1, 0), after.mean(1, 0))
    assert np.array_equal(outlook(made(trace), effort)(day, week.day + 7), outlook(other, effort)(day, week.day + 7))
    if number < 6:
        assert not np.array_equal(ours(other, week), known["schedule"]), "the future was scrambled, and it does matter once it is known"


def test_the_next_day_is_known_from_the_gate_on() -> None:
    rec = made()
    week = weeks(rec, TASK)[0]
    berlin = [rec.grid.time(slot) + HOUR for slot, _ in week.plans]
    assert [moment.hour for moment in berlin] == [0, 13, 13, 13, 13, 13, 13]
    assert [day - week.day for _, day in week.plans] == [1, 2, 3, 4, 5, 6, 7]
    late = weeks(rec, replace(TASK, gate=datetime(2025, 1, 1, 18, 30).time()))[0]  # noqa: DTZ001 - a time of day
    assert (rec.grid.time(late.plans[1][0]) + HOUR).hour == 19


@pytest.mark.parametrize(("start", "hours"), [(date(2025, 2, 17), 167), (date(2025, 9, 15), 169)])
def test_a_week_with_a_clock_change_is_an_hour_shorter_or_longer(start: date, hours: int) -> None:
    rec = made(prices(60, start=start))
    changing = [week for week in weeks(rec, TASK) if week.end - week.start == hours]
    assert changing
    assert all(week.end - week.start in (168, hours) for week in weeks(rec, TASK))
    for week in changing[::3]:
        for name, mask in every_way(rec, week).items():
            assert len(mask) == hours
            assert tally(rec, week, TASK.effort(HOUR), mask).missing == 0, name


@pytest.mark.parametrize("minutes", [15, 30])
def test_finer_slots_that_say_the_same_cost_no_more(minutes: int) -> None:
    whole = prices(40)
    times = 60 // minutes
    fine = replace(whole, grid=Grid(start=whole.grid.start, slot=timedelta(minutes=minutes), values=np.repeat(whole.grid.values, times)))
    coarse, finer = made(whole), made(fine)
    week, same = weeks(coarse, TASK)[2], weeks(finer, TASK)[2]
    assert same.day == week.day
    costs = [
        tally(rec, one, TASK.effort(rec.grid.slot), ours(rec, one)).cost * (rec.grid.slot / HOUR)
        for rec, one in ((coarse, week), (finer, same))
    ]
    assert costs[1] == pytest.approx(costs[0], rel=0.1)
    best = [
        tally(rec, one, TASK.effort(rec.grid.slot), with_foresight(rec, one, TASK.effort(rec.grid.slot))).cost * (rec.grid.slot / HOUR)
        for rec, one in ((coarse, week), (finer, same))
    ]
    assert best[1] <= best[0] + 1e-6


def test_running_at_once_captures_nothing_perfect_foresight_all_and_the_schedule_more_than_the_rules() -> None:
    rec = made()
    told = figures(rec, replay_all(rec, TASK, weeks(rec, TASK)))
    assert told["rules"]["run_at_once"]["captured"] == 0
    assert told["oracle"]["captured"] == 1
    assert 0.8 < told["captured"] <= 1
    assert told["captured"] > max(told["rules"][name]["captured"] for name in ("negative_price", "quantile_threshold"))
    assert told["rules"]["run_at_once"]["starts_per_week"] == 1
    assert told["rules"]["run_at_once"]["restart_waste_hours_per_week"] == 0.5
    assert told["deadline_misses"] == 0


def test_the_account_pays_waste_at_its_hour_and_counts_what_is_missing() -> None:
    rec = made()
    week = weeks(rec, TASK)[0]
    costs = rec.costs[week.start : week.end]
    mask = np.zeros(week.end - week.start, dtype=np.bool_)
    mask[[5, 6, 20]] = True
    done = tally(rec, week, Effort(work=8, per_slot=2, waste=1), mask)
    assert (done.starts, done.useful, done.missing, done.drawn) == (2, 2.0, 2.0, 3.0)
    assert done.cost == pytest.approx(costs[[5, 6, 20]].sum())
    enough = tally(rec, week, Effort(work=2, per_slot=2, waste=1), mask)
    assert (enough.starts, enough.drawn, enough.missing) == (1, 1.5, 0.0)
    assert enough.cost == pytest.approx(costs[5] + costs[6] / 2), "work ends with the work"


def test_what_the_policy_forbids_is_not_done_and_the_deadline_is_missed_openly() -> None:
    trace = prices()
    rec = made(trace, policy(DEADLINE + 'max_price = "25 EUR/MWh"\n'))
    replayed = replay_all(rec, TASK, weeks(rec, TASK))
    for week in weeks(rec, TASK)[::4]:
        for mask in (ours(rec, week), with_foresight(rec, week, TASK.effort(HOUR))):
            assert (rec.grid.values[week.start : week.end][mask] <= 25).all()
    told = figures(rec, replayed)
    assert told["deadline_misses"] > 0
    assert told["missing_hours"] > 0
    assert told["rules"]["run_at_once"]["deadline_misses"] == 0, "the usual rules know no policy"


def test_only_what_the_policy_calls_surplus_is_counted_as_such() -> None:
    rec = made(prices(), policy(DEADLINE.replace("0 EUR/MWh", "40 EUR/MWh").replace('MWh" }', 'MWh", stop = "50 EUR/MWh" }')))
    assert (rec.grid.values[rec.inside] < 50).all()
    assert rec.inside[rec.grid.values < 40].all()
    assert (rec.inside & (rec.grid.values >= 40)).any(), "between the two thresholds it stays on"


def test_nobody_works_in_a_slot_that_is_not_known() -> None:
    trace = prices()
    values = trace.grid.values.copy()
    week = weeks(made(trace), TASK)[2]
    values[week.start + 12 : week.start + 15] = np.nan
    values[week.end - 5 : week.end] = np.nan
    rec = made(changed(trace, values))
    assert not rec.allows[np.isnan(values)].any()
    for name, mask in every_way(rec, week).items():
        assert not mask[np.isnan(values[week.start : week.end])].any(), name
        assert tally(rec, week, TASK.effort(HOUR), mask).missing == 0, name


def test_a_week_that_is_mostly_unknown_is_left_out() -> None:
    trace = prices()
    values = trace.grid.values.copy()
    week = weeks(made(trace), TASK)[2]
    values[week.start : week.start + 60] = np.nan
    assert week.day not in [other.day for other in weeks(made(changed(trace, values)), TASK)]


@pytest.mark.parametrize(
    ("signal", "when", "better"),
    [
        (SignalKind.CARBON, 'signal = "carbon", below = "30 g/kWh"', np.less),
        (SignalKind.SURPLUS, 'signal = "surplus", above = "90 kW"', np.greater),
    ],
)
def test_other_objectives_have_their_own_sense_of_better(signal: SignalKind, when: str, better: Callable[..., bool]) -> None:
    text = DEADLINE.replace('signal = "price", below = "0 EUR/MWh"', when) + f'[schedule]\nobjective = "{signal}"\n'
    trace = replace(prices(), signal=signal)
    rec = made(changed(trace, trace.grid.values * (1e3 if signal is SignalKind.SURPLUS else 1)), policy(text))
    found = weeks(rec, TASK)
    told = figures(rec, replay_all(rec, TASK, found))
    assert told["captured"] > 0.75
    assert told["cost_eur_per_useful_mwh"] is None
    assert better(told["objective_mean"], told["rules"]["run_at_once"]["objective_mean"])
    assert "only_surplus" in told["rules"]
    assert told["starts_per_week"] < 8, "a start is no gain where more is better"


def test_the_last_chance_is_taken_and_no_later() -> None:
    rec = made()
    week = weeks(rec, TASK)[0]
    never = np.zeros(week.end - week.start, dtype=np.bool_)
    ran = guarded(rec, week, Effort(work=6, per_slot=2, waste=1), never)
    assert np.flatnonzero(ran).tolist() == [164, 165, 166, 167]
    assert tally(rec, week, Effort(work=6, per_slot=2, waste=1), ran).missing == 0
    early = never.copy()
    early[163] = True
    assert (
        tally(rec, week, Effort(work=6, per_slot=2, waste=1), guarded(rec, week, Effort(work=6, per_slot=2, waste=1), early)).missing == 0
    )


def test_a_trace_too_short_names_the_remedy() -> None:
    rec = made(prices(30))
    with pytest.raises(InvalidInput, match="give a longer trace, another --from and --to, or a shorter --warm-up"):
        weeks(rec, TASK)
    with pytest.raises(InvalidInput, match="no week can be replayed"):
        weeks(made(), TASK, begin=date(2030, 1, 1))
    assert len(weeks(rec, replace(TASK, warm_up=14))) == 10


def test_more_hours_than_a_week_has_are_refused() -> None:
    with pytest.raises(InvalidInput, match="do not fit into a week"):
        Task(useful=timedelta(hours=168))


def test_weeks_begin_on_every_day_or_on_mondays_within_the_dates_asked_for() -> None:
    rec = made()
    assert [rec.date(week.day) for week in weeks(rec, TASK, begin=date(2025, 3, 12), end=date(2025, 3, 14))] == [
        date(2025, 3, 12),
        date(2025, 3, 13),
    ]
    assert {rec.date(week.day).weekday() for week in weeks(rec, TASK, mondays=True)} == {0}


def test_days_cut_short_by_the_trace_are_not_learned_from() -> None:
    trace = prices()
    cut = replace(trace, grid=Grid(start=trace.grid.start + 5 * HOUR, slot=HOUR, values=trace.grid.values[5:-3]))
    rec = made(cut)
    assert rec.whole == range(1, len(rec.days) - 1)
    assert rec.date(weeks(rec, TASK)[0].day) == date(2025, 2, 11) + timedelta(days=28)


def test_several_processes_find_the_same_and_the_document_is_json(tmp_path: Path) -> None:
    rec = made(prices(52))
    found = weeks(rec, TASK)
    heard: list[int] = []
    alone = replay_all(rec, TASK, found, told=heard.append)
    assert sum(heard) == len(found)
    assert replay_all(rec, TASK, found, processes=2) == alone
    told = json.loads(json.dumps(document(rec, TASK, found, alone)))
    assert set(told["months"]) == {"2025-03"}
    assert set(told["quarters"]) == {"2025-Q1"}
    for scope in (told, told["oracle"], told["rules"]["quantile_threshold"], told["months"]["2025-03"]):
        assert {"captured", "starts_per_week", "cost_eur_per_useful_mwh", "in_surplus_share", "deadline_misses"} <= set(scope)
    assert sum(part["weeks"] for part in told["months"].values()) == len(found)
    assert typical(found, alone) in found
    assert plot(tmp_path / "b.png", told, rec, TASK, found, alone).stat().st_size > 20_000


def test_the_figures_measured_on_recorded_prices(repository: Path) -> None:
    """A handful of weeks of 2023 to 2025; the whole measurement is benchmarks/schedule_prices.py."""
    from gridsched.report.trace import read_trace

    path = repository.parent / "shared" / "data" / "series" / "de_lu_price_and_dayahead_forecast_hourly_2023_2025.csv.gz"
    if not path.is_file():
        pytest.skip("no recorded prices at ../shared/data/series")
    rec = made(read_trace(path, SignalKind.PRICE))
    task = Task()
    found = weeks(rec, task, begin=date(2025, 4, 1), end=date(2025, 8, 1))[::40]
    told = figures(rec, replay_all(rec, task, found))
    assert told["captured"] > 0.9
    assert told["starts_per_week"] < 8
    assert told["captured"] > told["rules"]["quantile_threshold"]["captured"] + 0.05


def test_utc_stays_utc() -> None:
    trace = prices()
    rec = made(trace, policy(DEADLINE.replace("Europe/Berlin", "UTC")))
    assert not rec.calendar.holidays
    assert rec.calendar.midnight(date(2025, 3, 30)) == datetime(2025, 3, 30, tzinfo=UTC)
