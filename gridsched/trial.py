"""One adapter asked once, by hand: what it gave, what a policy would see of it, or why it gave nothing and what to do about that."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from gridsched.adapter import Adapter, Fault, Http
from gridsched.core.errors import AdapterError
from gridsched.core.rows import Batch
from gridsched.core.signal import UNIT, Reading, SignalKind, SignalState, plausible, snapshot
from gridsched.providers.session import masked

__all__ = ["Seen", "Trial", "as_json", "attempt"]

BUG = "bug"
_REMEDIES: Mapping[str, str] = MappingProxyType(
    {
        Fault.HTML: "open the address in a browser: the service may be down, or the address wrong",
        Fault.EMPTY: "try again later; if it stays so, check the adapter's options",
        Fault.TRUNCATED: "try again: the answer was cut on its way",
        Fault.MALFORMED: "compare the adapter's options with the provider's documentation; the format may have changed",
        Fault.WRONG_UNIT: "say in the adapter's options which unit the provider sends",
        Fault.NOT_PUBLISHED: "check the place in the adapter's options, or try again after the provider has published",
        Fault.STALE: "use another source until this one goes on; its answers are old",
        Fault.RATE_LIMITED: "wait, then ask less often: `every` of the adapter, or [http] in gridsched.toml",
        Fault.REFUSED: "check the key, what its plan covers, and the adapter's options",
        Fault.UNAVAILABLE: "check the network and the provider's own status page",
        Fault.TOO_LARGE: "ask for a shorter time in the adapter's options",
        BUG: "the adapter itself is at fault: mend its file, or report it",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One signal of a trial: its readings by slot, those among them nobody would believe, and what would count now (None: unknown)."""

    kind: SignalKind
    readings: tuple[Reading, ...]
    implausible: tuple[str, ...]
    state: SignalState | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one fetch at ``now`` brought. ``kind`` is empty where it worked; else it names the fault, and ``problem`` tells it."""

    name: str
    zone: str
    signals: tuple[SignalKind, ...]
    now: datetime
    took_s: float
    batch: Batch
    kind: str = ""
    problem: str = ""

    @property
    def remedy(self) -> str:
        """What to do about the fault; empty where there is none."""
        return _REMEDIES.get(self.kind, "look at the message") if self.kind else ""

    def seen(self) -> list[Seen]:
        """Every signal the adapter says it gives, with what came of it."""
        states = snapshot(self.zone, self.now, self.batch).states
        return [self._one(kind, states.get(kind)) for kind in self.signals]

    def _one(self, kind: SignalKind, state: SignalState | None) -> Seen:
        readings = tuple(sorted((r for r in self.batch if r.signal is kind), key=lambda r: (r.start, r.end)))
        return Seen(kind=kind, readings=readings, implausible=tuple(why for r in readings if (why := plausible(r))), state=state)


def attempt(
    adapter: Adapter, http: Http, now: datetime, *, secrets: Iterable[str] = (), monotonic: Callable[[], float] = time.monotonic
) -> Trial:
    """Ask once; never raises for what the provider or the adapter's own code does. ``secrets`` are masked in what went wrong."""
    began = monotonic()
    batch, kind, problem = Batch(), "", ""
    try:
        batch = adapter.fetch(http, now)
    except AdapterError as error:
        kind, problem = error.kind, str(error)
    except Exception as error:  # noqa: BLE001 - an adapter is the operator's own code, and its bug is what a trial is for
        kind, problem = BUG, f"{type(error).__name__}: {error}"
    took_s = monotonic() - began
    return Trial(
        name=adapter.name,
        zone=adapter.zone,
        signals=tuple(adapter.signals),
        now=now,
        took_s=took_s,
        batch=batch,
        kind=kind,
        problem=masked(problem, secrets),
    )


def as_json(trial: Trial) -> dict[str, object]:
    """The trial as plain data; moments as ISO 8601 in UTC, ages in seconds (negative: the slot is still to come)."""
    error = {"kind": trial.kind, "message": trial.problem, "remedy": trial.remedy} if trial.kind else None
    return {
        "adapter": trial.name,
        "zone": trial.zone,
        "at": trial.now.isoformat(),
        "took_s": round(trial.took_s, 3),
        "ok": error is None,
        "error": error,
        "count": len(trial.batch),
        "signals": {seen.kind.value: _signal(seen, trial.now) for seen in trial.seen()},
        "dropped": [{"row": dropped.row, "reason": dropped.reason} for dropped in trial.batch.dropped],
    }


def _signal(seen: Seen, now: datetime) -> dict[str, object]:
    state = seen.state
    return {
        "unit": UNIT[seen.kind],
        "count": len(seen.readings),
        "now": None if state is None else {"value": state.value, "age_s": state.age_s, "fresh": state.fresh, "source": state.source},
        "implausible": list(seen.implausible),
        "readings": [_reading(reading, now) for reading in seen.readings],
    }


def _reading(reading: Reading, now: datetime) -> dict[str, object]:
    return {
        "start": reading.start.isoformat(),
        "end": reading.end.isoformat(),
        "value": reading.value,
        "quality": reading.quality.value,
        "source": reading.source,
        "known_at": reading.known_at.isoformat(),
        "age_s": (now - reading.end).total_seconds(),
    }
