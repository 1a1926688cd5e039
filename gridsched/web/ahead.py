"""What lies ahead, and what was around a decision, as the operator sees it: pure functions from stored rows to JSON-ready dictionaries."""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from gridsched.core.errors import NotFound
from gridsched.core.grid import DAY
from gridsched.core.job import Job, JobState
from gridsched.core.outlook import Outlook, band
from gridsched.core.policy import Decision, Policy
from gridsched.core.signal import UNIT, Reading, Series, SignalKind
from gridsched.core.timing import JobSchedule
from gridsched.flow import timing
from gridsched.ports import Tx
from gridsched.web.views import decision_story, plain

__all__ = ["around", "decided", "forecast", "schedule"]

Json = dict[str, Any]

_NEIGHBOURHOOD = timedelta(hours=12)
_MOST_AHEAD = 8 * DAY
_PORTIONS = (2_000, 30_000, 1_000_000)


def schedule(tx: Tx, job: Job, policy: Policy, now: datetime) -> Json:
    """When a job works and why, and the objective's known slots and forecast until its deadline."""
    spec = job.spec
    found = tx.get(JobSchedule, job.job_id)
    body: Json = {
        "job_id": job.job_id,
        "zone": spec.zone,
        "state": job.state.value,
        "now": now.isoformat(),
        "deadline": plain(spec.deadline),
        "priority": spec.priority,
        "top_up": spec.top_up,
        "top_up_below_eur_mwh": spec.top_up_below_eur_mwh,
    }
    if job.state is not JobState.RUNNING:
        return body | {"timing": "over", "why": f"the job is {job.state}: {job.reason}", "hours": []}
    if spec.deadline is None:
        return body | {"timing": "as_it_comes", "why": "it has no deadline, so it takes surplus as it comes", "hours": []}
    if found is None or found.deadline != spec.deadline:
        return body | {"timing": "unplanned", "why": "its hours are chosen with the next control tick", "hours": []}
    outlook = timing.outlook_of(tx, policy, found.objective, now)
    hours = [{"start": plain(start), "end": plain(end), "mean": _mean(outlook, start, end)} for start, end in found.hours if end > now]
    chosen: Json = plain(found) | {"unit": UNIT[found.objective], "at_risk": found.at_risk, "hours": hours}
    return body | chosen | (_signal(outlook, min(spec.deadline, now + _MOST_AHEAD)) if outlook else {"known": [], "coming": []})


def forecast(tx: Tx, policy: Policy, signal: SignalKind, now: datetime, *, days: int) -> Json:
    """Known slots of a signal, then the mean of each slot to come and the band that holds it with a probability of 80 %."""
    outlook = timing.outlook_of(tx, policy, signal, now)
    if outlook is None:
        raise NotFound(f"{signal} of zone {policy.zone} is not known from now on; check that an adapter of this zone provides it")
    return {
        "zone": policy.zone,
        "signal": signal.value,
        "unit": UNIT[signal],
        "timezone": policy.timezone,
        "now": now.isoformat(),
        "slot_s": outlook.known.slot.total_seconds(),
        "known_until": plain(outlook.known.end),
        "learned_days": outlook.learned,
        "told_days": outlook.told,
        **_signal(outlook, outlook.known.end + days * DAY),
    }


def around(tx: Tx, policy: Policy, at: datetime | None, now: datetime) -> Json:
    """The decision that held at ``at`` (default: the newest), its story, and what was decided and known 12 hours before and after it."""
    rows = _back_to(tx, policy.zone, (at or now) - _NEIGHBOURHOOD)
    by_then = [decision for decision in rows if decision.decided_at <= (at or now)]
    if not by_then:
        raise NotFound(f"zone {policy.zone} had decided nothing by {(at or now).isoformat()}")
    held = by_then[-1]
    start, end = held.decided_at - _NEIGHBOURHOOD, min(held.decided_at + _NEIGHBOURHOOD, now)
    decisions = [decision for decision in rows if start <= decision.decided_at <= end]
    kinds = sorted({*policy.signals, SignalKind.PRICE})
    return {
        **decision_story(tx, held.decision_id),
        "start": plain(start),
        "end": plain(held.decided_at + _NEIGHBOURHOOD),
        "decisions": _edges(decisions),
        "signals": {
            kind.value: {"unit": UNIT[kind], "slots": _slots(tx.readings(policy.zone, kind, start, end + _NEIGHBOURHOOD, known_at=now))}
            for kind in kinds
        },
    }


def decided(tx: Tx, zone: str, start: datetime, end: datetime) -> list[Json]:
    """The zone's decisions from ``start`` to ``end`` that differ from the one before; first the one that held at ``start``."""
    rows = [decision for decision in _back_to(tx, zone, start) if decision.decided_at <= end]
    held = [decision for decision in rows if decision.decided_at <= start]
    return _edges([*held[-1:], *(decision for decision in rows if decision.decided_at > start)])


def _back_to(tx: Tx, zone: str, moment: datetime) -> list[Decision]:
    """The zone's decisions, oldest first, at least back to ``moment`` where they reach so far."""
    rows: list[Decision] = []
    for limit in _PORTIONS:
        rows = tx.find(Decision, zone=zone, order="-decided_at", limit=limit)
        if len(rows) < limit or rows[-1].decided_at <= moment:
            break
    return rows[::-1]


def _edges(decisions: Sequence[Decision]) -> list[Json]:
    """Those that differ from the one before, and the last."""
    outcomes = [(d.target_w, d.tier, d.reason) for d in decisions]
    told = [d for n, d in enumerate(decisions) if n in (0, len(decisions) - 1) or outcomes[n] != outcomes[n - 1]]
    names = ("decided_at", "target_w", "tier", "reason", "detail")
    return [{"decision_id": d.decision_id} | {name: plain(getattr(d, name)) for name in names} for d in told]


def _slots(readings: Sequence[Reading]) -> list[Json]:
    return [{"start": plain(r.start), "end": plain(r.end), "value": r.value} for r in Series(readings)]


def _signal(outlook: Outlook, until: datetime) -> Json:
    known = outlook.known
    return {
        "known": [
            {"start": plain(known.time(n)), "value": None if math.isnan(value) else float(value)} for n, value in enumerate(known.values)
        ],
        "coming": [{"start": plain(at), "mean": mean, "low": low, "high": high} for at, mean, low, high in band(outlook, until)],
    }


def _mean(outlook: Outlook | None, start: datetime, end: datetime) -> float | None:
    """The objective's mean over hours that are still known."""
    if outlook is None:
        return None
    known = outlook.known
    low, high = max(known.index(start), 0), min(known.index(end), len(known))
    return float(known.values[low:high].mean()) if high > low else None
