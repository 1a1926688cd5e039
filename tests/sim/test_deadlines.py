"""Jobs with deadlines in the whole daemon, on prices shaped like real ones: in time, outside surplus only when needed, within the cap."""

import csv
import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gridsched import planning
from gridsched.core.facts import DeadlineAtRisk, Fact, LeaseActive, LeasePaused, PlanningFailed, PolicyDecided
from gridsched.core.job import Job, JobState
from gridsched.core.lease import LIVE, Lease, LeaseState
from gridsched.core.method import Method
from gridsched.core.policy import Decision, Reason, Tier
from gridsched.core.settings import Control
from gridsched.core.signal import SignalKind
from gridsched.core.timing import JobSchedule, Timing
from gridsched.testing import FaultPlan, Simulation, check_invariants

HOUR = timedelta(hours=1)
STEP = timedelta(minutes=10)
MIDNIGHT = datetime(2018, 5, 1, tzinfo=UTC)
DAY = [38, 35, 33, 32, 33, 37, 45, 55, 52, 40, 25, 12, 4, -3, 2, 15, 33, 48, 62, 71, 60, 50, 44, 40]
"""EUR/MWh, the shape of a sunny spring day in Germany: a dip at noon, a peak in the evening."""

POLICY = """
zone = "de-lu"

[when]
any = [{ signal = "price", below = "0 EUR/MWh" }]

[draw]
watts = 400

[top_up]
allowed = true
watts = 400
max_price = "60 EUR/MWh"
"""


def at(hour: int, minute: int = 0) -> datetime:
    """A moment of the first day."""
    return MIDNIGHT + timedelta(hours=hour, minutes=minute)


def site(
    folder: Path, *, policy: str = POLICY, prices: bool = True, step: timedelta = STEP, sync_every: timedelta | None = None
) -> Simulation:
    pace = Control(
        every=step,
        sync_every=sync_every or step,
        lease_ttl=step * 4,
        absent_after=step * 3,
        start_jitter=timedelta(0),
        hand_over_after=2 * step,
    )
    sim = Simulation(folder, policy=policy, step=step, control=pace)
    sim.add_node("pc", power_w=180.0, steps_per_s=0.01)
    sim.add_node("old", power_w=110.0, steps_per_s=0.01)
    if prices:
        sim.publish(SignalKind.PRICE, DAY, start=MIDNIGHT)
        sim.publish(SignalKind.PRICE, DAY, start=MIDNIGHT + timedelta(days=1))
    return sim


def method(hours: float) -> Method:
    """So many hours of work for both nodes, in rounds of half an hour."""
    return Method(epochs=round(2 * hours), batch_size=1, samples_per_unit=18, units_per_round=2)


def job(sim: Simulation, hours: float, **wishes: Any) -> str:
    return sim.add_job(samples=36, test_samples=0, method=method(hours), **wishes).job_id


def go(sim: Simulation, until: datetime, *, cap_w: float = 400.0) -> None:
    while sim.clock.now() < until:
        sim.tick()
        with sim.daemon.store.read() as tx:
            check_invariants(tx, caps_w={"de-lu": cap_w})


def schedule(sim: Simulation, job_id: str = "sim") -> JobSchedule:
    with sim.daemon.store.read() as tx:
        return tx.must(JobSchedule, job_id)


def state(sim: Simulation, job_id: str = "sim") -> JobState:
    with sim.daemon.store.read() as tx:
        return tx.must(Job, job_id).state


def decisions(sim: Simulation) -> list[Decision]:
    with sim.daemon.store.read() as tx:
        return tx.find(Decision, order="decided_at")


def worked(sim: Simulation) -> str:
    """The hours of the first day in which the zone might draw, one sign each: ``s`` surplus, ``t`` top-up, ``.`` nothing."""
    drawn = {d.decided_at.replace(minute=0): d.tier for d in decisions(sim) if d.target_w > 0}
    signs = {Tier.SURPLUS: "s", Tier.TOP_UP: "t"}
    return "".join(signs[drawn[MIDNIGHT + n * HOUR]] if MIDNIGHT + n * HOUR in drawn else "." for n in range(24))


def of(sim: Simulation, kind: type[Fact]) -> list[Any]:
    return [fact for fact in sim.facts if isinstance(fact, kind)]


def test_a_job_that_is_due_gets_the_cheapest_hours_and_is_done_in_time(folder: Path) -> None:
    """Nothing is known of its speed until half of its time is over; then it is tried out, and waits for the noon."""
    sim = site(folder)
    job(sim, 3, deadline=at(18))
    go(sim, at(8))
    assert (schedule(sim).timing, schedule(sim).latest_start) == (Timing.UNMEASURED, at(8, 30))
    assert "not known before its first steps" in schedule(sim).why
    go(sim, at(10))
    assert schedule(sim).hours == ((at(12), at(16)),), "the last hour, of which least is used, may be the dearest"
    assert "taken as the mean" not in schedule(sim).why, "all that matters is known"
    go(sim, at(18))
    assert state(sim) is JobState.DONE
    assert worked(sim) == "........t...tstt........"
    top_ups = [d for d in decisions(sim) if d.tier is Tier.TOP_UP]
    assert all("a deadline is at risk" in d.detail and "for sim by 2018-05-01 18:00 UTC" in d.detail for d in top_ups)
    assert of(sim, DeadlineAtRisk) == of(sim, PlanningFailed) == []
    sim.close()


def test_without_a_deadline_or_with_no_top_up_nothing_is_drawn_outside_surplus(folder: Path) -> None:
    sim = site(folder)
    job(sim, 9, job_id="patient")
    job(sim, 9, job_id="strict", deadline=at(23), top_up=False)
    go(sim, at(18))
    assert worked(sim) == ".............s.........."
    assert all(at(13) <= fact.at <= at(14) for fact in of(sim, LeaseActive))
    assert sum(node.register_j for node in sim.nodes) <= 290 * 3600
    sim.close()


def test_a_job_s_own_price_limit_holds_beside_the_policy_s(folder: Path) -> None:
    sim = site(folder)
    sim.clock.move_to(at(8))
    job(sim, 5, deadline=at(18), top_up_below_eur_mwh=13.0)
    go(sim, at(18))
    assert (
        worked(sim) == "............tst........."
    )  # 4, -3 and 2 EUR/MWh: 12 is below the limit too, but half of its time was not over then
    [risk] = of(sim, DeadlineAtRisk)
    assert risk.job_id == "sim"
    assert risk.needed_s > risk.available_s
    sim.close()


def test_two_jobs_share_one_cap_by_priority_and_then_by_deadline(folder: Path) -> None:
    sim = site(folder)
    sim.clock.move_to(at(8))
    job(sim, 1, job_id="later", deadline=at(20))
    job(sim, 1, job_id="sooner", deadline=at(18))
    job(sim, 1, job_id="first", deadline=at(22), priority=1)
    job(sim, 1, job_id="patient")
    ended: list[str] = []
    while sim.clock.now() < at(22):
        go(sim, sim.clock.now() + STEP)
        ended += [name for name in ("later", "sooner", "first", "patient") if name not in ended and state(sim, name) is JobState.DONE]
        with sim.daemon.store.read() as tx:
            drawing = {lease.job_id for lease in tx.find(Lease, state=LIVE) if lease.draws_w() > 0}
            tier = decisions(sim)[-1].tier
        assert not (tier is Tier.TOP_UP and "patient" in drawing), "surplus only means surplus only"
    assert set(ended) >= {"later", "sooner", "first"}
    assert of(sim, DeadlineAtRisk) == []
    sim.close()


def test_a_revised_price_changes_the_plan(folder: Path) -> None:
    sim = site(folder)
    sim.clock.move_to(at(8))
    job(sim, 2, deadline=at(21))
    go(sim, at(13, 20))  # it was measured in the surplus of 13:00
    before = schedule(sim)
    sim.publish(SignalKind.PRICE, [-40.0], start=at(19))
    go(sim, at(13, 30))
    after = schedule(sim)
    assert before.digest != after.digest
    assert not before.runs_at(at(19))
    assert after.runs_at(at(19))
    sim.close()


def test_a_forecast_of_wind_for_a_day_without_prices_is_planned_with(folder: Path) -> None:
    """Prices followed the residual load for five weeks; the forecast of a storm for the day after next comes in the afternoon."""
    sim = site(folder, prices=False)
    for day in range(-35, 2):
        level = 15.0 * (day % 3)
        sim.publish(SignalKind.PRICE, [price + level for price in DAY], start=MIDNIGHT + timedelta(days=day))
        sim.publish(SignalKind.RESIDUAL_LOAD, [3e10 + 4e8 * (price + level) for price in DAY], start=MIDNIGHT + timedelta(days=day))
    sim.clock.move_to(at(8))
    job(sim, 6, deadline=at(0) + timedelta(days=3))
    go(sim, at(14))
    before = schedule(sim)
    assert before.timing is Timing.PLANNED
    sim.publish(SignalKind.RESIDUAL_LOAD, [3e10 + 4e8 * (price - 60) for price in DAY], start=MIDNIGHT + timedelta(days=2))
    go(sim, at(14, 10))
    after = schedule(sim)
    assert after.later_s > before.later_s + 3600
    assert "the first 1 by what is forecast of residual load" in after.why
    assert "forecast of" not in before.why
    assert after.expected is not None
    assert before.expected is not None
    assert after.expected < before.expected - 10
    sim.close()


def test_a_provider_that_serves_zeros_for_hours_is_disputed_and_not_believed(folder: Path) -> None:
    """13:00 is surplus by the honest source; another says zero from then on, in finer slots, until 16:00. At 14:00 they are near enough."""
    sim = site(folder, policy=POLICY + '\n[agree]\nprice = "2 EUR/MWh"\n')
    job(sim, 2)
    sim.publish(SignalKind.PRICE, [0.0] * 12, start=at(13), slot=timedelta(minutes=15), source="zeros")
    go(sim, at(17))
    reasons = {d.decided_at.hour: d.reason for d in decisions(sim) if d.decided_at.minute == 30}
    assert reasons[13] is reasons[15] is Reason.DISPUTED_SIGNAL
    assert reasons[12] is reasons[14] is reasons[16] is Reason.NO_SURPLUS
    assert "s" not in worked(sim)
    assert any("zeros says 0" in d.detail and "sim says -3" in d.detail for d in decisions(sim))
    sim.close()


def test_prices_that_stop_coming_pause_everything_visibly(folder: Path) -> None:
    sim = site(folder, prices=False)
    sim.publish(SignalKind.PRICE, DAY[:12], start=MIDNIGHT)
    sim.clock.move_to(at(6))
    job(sim, 8, deadline=at(16))
    go(sim, at(13))
    assert worked(sim)[11] == "t", "half of its time is over"
    assert decisions(sim)[-1].reason is Reason.STALE_SIGNAL
    assert decisions(sim)[-1].target_w == 0
    assert schedule(sim).timing is Timing.UNFORESEEN
    with sim.daemon.store.read() as tx:
        assert all(lease.state is LeaseState.PAUSED for lease in tx.find(Lease, state=LIVE))
    sim.publish(SignalKind.PRICE, DAY[12:], start=at(12))
    go(sim, at(13, 20))
    assert decisions(sim)[-1].target_w > 0
    assert schedule(sim).timing is Timing.PLANNED
    sim.close()


def test_a_policy_edited_on_the_way_counts_from_the_next_tick(folder: Path) -> None:
    sim = site(folder)
    sim.clock.move_to(at(8))
    job(sim, 2, deadline=at(20))
    go(sim, at(13, 20))
    digests = {d.policy_digest for d in decisions(sim)}
    path = folder / "policy.toml"
    path.write_text(POLICY.replace("allowed = true", "allowed = false"), encoding="utf-8")
    go(sim, at(14, 30))
    assert decisions(sim)[-1].policy_digest not in digests
    assert worked(sim)[14] == ".", "no top-up any more"
    assert schedule(sim).hours == ()
    sim.close()


def test_on_a_clock_change_day_hours_and_deadline_are_where_they_should_be(folder: Path) -> None:
    """28 October 2018 has 25 hours in Berlin; the deadline is told in local time."""
    sim = site(folder, policy=POLICY.replace("\n[when]", '\ntimezone = "Europe/Berlin"\n[when]', 1), prices=False)
    start = datetime.fromisoformat("2018-10-28T00:00+02:00").astimezone(UTC)
    sim.clock.move_to(start)
    sim.publish(SignalKind.PRICE, [50, 40, -5, 3, 50, 1, *[50] * 19], start=start)
    job(sim, 1.5, deadline=datetime.fromisoformat("2018-10-28T06:00+01:00"))
    go(sim, start + 3 * HOUR)
    assert schedule(sim).deadline == start + 7 * HOUR, "six in the morning, seven hours after midnight"
    assert schedule(sim).hours[-1][1] <= start + 6 * HOUR
    go(sim, start + 7 * HOUR)
    assert state(sim) is JobState.DONE
    sim.close()


def test_wild_prices_are_ordinary(folder: Path) -> None:
    sim = site(folder, policy=POLICY.replace('max_price = "60 EUR/MWh"', ""), prices=False)
    sim.publish(SignalKind.PRICE, [4000, 0, 4000, -500, 4000, 0, 0, 4000, 4000, 4000, 4000, 4000], start=MIDNIGHT)
    job(sim, 2, deadline=at(10))
    go(sim, at(10))
    assert state(sim) is JobState.DONE
    assert worked(sim)[:10] == "...s.tt..."
    sim.close()


def test_a_kill_keeps_the_least_time_on(folder: Path) -> None:
    """It went on at 13:00 for at least two hours; a daemon that dies at 13:20 comes back and holds to that."""
    sim = site(folder, policy=POLICY + '\n[schedule]\nmin_on = "2h"\n')
    sim.clock.move_to(at(8))
    job(sim, 1, deadline=at(20))
    go(sim, at(13, 20))
    since = schedule(sim).since
    assert (schedule(sim).working, since) == (True, at(13))
    sim.faults = FaultPlan().kill_daemon(call=sim.calls + 1)
    go(sim, at(14, 10))
    assert sim.restarts == 1
    assert (schedule(sim).working, schedule(sim).since) == (True, since)
    assert schedule(sim).runs_at(at(14, 10))
    sim.close()


def test_planning_that_breaks_stops_no_tick_and_is_told_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sim = site(folder, step=timedelta(minutes=5))
    sim.clock.move_to(at(12, 30))

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("bad day")

    monkeypatch.setattr(planning, "choose", broken)
    job(sim, 1, deadline=at(18))
    go(sim, at(18))
    [failed] = of(sim, PlanningFailed)
    assert "ZeroDivisionError: bad day" in failed.detail
    assert state(sim) is JobState.DONE, "the surplus, and what is left just before it would be too late"
    sim.close()


def test_work_stops_inside_the_window(folder: Path) -> None:
    """Surplus ends at 14:00: nodes hear of it with their next sync, so the tick before says so, and at 14:00 nobody draws."""
    sim = site(folder)
    sim.clock.move_to(at(12, 30))
    job(sim, 9)
    go(sim, at(14))
    assert not any(node.running for node in sim.nodes)
    paused = of(sim, LeasePaused)
    assert paused
    assert all(at(13) < fact.at < at(14) for fact in paused)
    [end] = [d for d in of(sim, PolicyDecided) if "the window ends at 14:00:00 UTC" in d.detail]
    assert at(13, 40) <= end.at < at(14)
    assert end.reason == "no_surplus"
    go(sim, at(15))
    assert of(sim, LeasePaused) == paused
    sim.close()


def test_a_slot_that_nobody_knows_yet_stops_nothing(folder: Path) -> None:
    """A provider that tells each hour's price just as it begins: work goes on from one to the next."""
    sim = site(folder, prices=False)
    sim.clock.move_to(at(8))
    job(sim, 9)
    for hour in (8, 9):
        sim.publish(SignalKind.PRICE, [-3.0], start=at(hour))
        go(sim, at(hour + 1) - STEP)
    assert of(sim, LeasePaused) == []
    sim.close()


def test_a_deadline_that_cannot_be_met_is_told_once_with_numbers(folder: Path) -> None:
    sim = site(folder)
    sim.clock.move_to(at(10))
    job(sim, 12, deadline=at(16))
    go(sim, at(16))
    [risk] = of(sim, DeadlineAtRisk)
    assert risk.needed_s > 10 * 3600
    assert 0 < risk.available_s < 4 * 3600
    assert "at risk" in schedule(sim).why or schedule(sim).timing is Timing.OVER
    go(sim, at(17))
    assert schedule(sim).timing is Timing.OVER
    assert decisions(sim)[-1].target_w == 0, "what is missed is not chased at any price"
    sim.close()


def test_a_job_plans_around_the_hours_of_one_that_goes_first_and_leaves_it_no_node(folder: Path) -> None:
    sim = site(folder)
    sim.clock.move_to(at(8))
    job(sim, 2, job_id="second", deadline=at(20))
    job(sim, 2, job_id="first", deadline=at(20), priority=1)
    go(sim, at(15))
    first, second = schedule(sim, "first"), schedule(sim, "second")
    assert first.timing is second.timing is Timing.PLANNED
    assert "first goes first" in second.why
    assert not any(first.runs_at(at(hour)) and second.runs_at(at(hour)) for hour in range(15, 20))
    sim.close()


def test_one_more_tick_shortly_before_a_slot_ends_stops_the_work_in_time(folder: Path) -> None:
    """Control ticks come every ten minutes, nodes report every minute: 13:58 is when the last of them hears in time."""
    sim = site(folder, sync_every=timedelta(minutes=1))
    sim.clock.move_to(at(13, 10))
    job(sim, 9)
    go(sim, at(13, 50))
    assert decisions(sim)[-1].target_w == 400
    drained = []
    while sim.clock.now() < at(14):
        sim.clock.advance(timedelta(seconds=1))
        sim._due("drain de-lu")()
        if decisions(sim)[-1].decided_at == sim.clock.now():
            drained.append((sim.clock.now(), decisions(sim)[-1].target_w))
    assert drained == [(at(13, 58) + timedelta(seconds=59), 0.0)]
    sim.close()


TRACE = (
    Path(__file__).resolve().parents[2].parent / "shared" / "data" / "series" / "de_lu_price_and_dayahead_forecast_hourly_2023_2025.csv.gz"
)


@pytest.mark.long
def test_on_real_prices_a_week_s_job_is_done_in_time_and_cheaply(folder: Path) -> None:
    """Germany, a week of June 2024, each day's prices known from one in the afternoon of the day before."""
    if not TRACE.is_file():
        pytest.skip(f"there is no {TRACE.name} beside the repository")
    with gzip.open(TRACE, "rt", encoding="utf-8") as lines:
        rows = {
            datetime.fromisoformat(r["time_utc"]): float(r["price_eur_per_mwh"]) for r in csv.DictReader(lines) if r["price_eur_per_mwh"]
        }
    begin = datetime.fromisoformat("2024-06-10T00:00+02:00").astimezone(UTC)
    policy = POLICY.replace("\n[when]", '\ntimezone = "Europe/Berlin"\n[when]', 1).replace('max_price = "60 EUR/MWh"', "")
    sim = site(folder, policy=policy, prices=False, step=timedelta(minutes=15))
    past = [begin + n * HOUR for n in range(-24 * 120, 24)]
    sim.publish(SignalKind.PRICE, [rows[at] for at in past], start=past[0])
    sim.clock.move_to(begin)
    job(sim, 24, deadline=begin + timedelta(days=7))
    for day in range(7):
        go(sim, begin + timedelta(days=day, hours=13))
        tomorrow = begin + timedelta(days=day + 1)
        sim.publish(SignalKind.PRICE, [rows[tomorrow + n * HOUR] for n in range(24)], start=tomorrow)
        go(sim, tomorrow)
    assert state(sim) is JobState.DONE
    paid = [rows[d.decided_at.replace(minute=0)] for d in decisions(sim) if d.target_w > 0]
    week = sorted(rows[begin + n * HOUR] for n in range(24 * 7))
    at_once, best = sum(rows[begin + n * HOUR] for n in range(24)) / 24, sum(week[:30]) / 30
    captured = (at_once - sum(paid) / len(paid)) / (at_once - best)
    assert captured > 0.8
    sim.close()
