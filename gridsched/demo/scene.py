"""What the demo shows at one moment, and the sentences in which it tells what has happened. Pure: made of stored facts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from zoneinfo import ZoneInfo

from gridsched.core.facts import (
    Fact,
    JobEnded,
    LeaseEnded,
    LeaseOffered,
    LeasePaused,
    LeaseResumed,
    MeterRefused,
    NodeAbsent,
    NodeJoined,
    NodeOptedIn,
    NodePresent,
    SignalDegraded,
    UpdateRejected,
    VersionEvaluated,
)
from gridsched.core.round import Epoch

__all__ = ["BERLIN", "Line", "Moment", "NodeRow", "Scene", "clock_time", "sentence", "short_unit"]

BERLIN = ZoneInfo("Europe/Berlin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The zone at one control tick; ``price_eur_mwh`` and ``surplus_w`` are None where they were not known."""

    at: datetime
    price_eur_mwh: float | None
    surplus_w: float | None
    target_w: float
    leased_w: float
    drawn_w: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """One node: what it does (``state``, a `NodeReason`), why (a `LeaseReason`, or empty), and how far it is in its unit."""

    node_id: str
    power_w: float
    state: str
    why: str = ""
    lease: str = ""
    unit: str = ""
    kind: str = "train"
    step: int = 0
    steps: int = 0
    drawn_w: float = 0.0
    energy_j: float = 0.0
    earned_micro: int = 0
    reliability: float = 1.0

    @property
    def training(self) -> bool:
        """Whether it is in the middle of a training unit, truly running."""
        return self.lease == "active" and self.kind == "train" and 0 < self.step < self.steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One event in plain words; ``mood`` is good, bad or plain."""

    at: datetime
    text: str
    mood: str = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything on the screen. ``day`` is when the replayed day begins; ``units`` counts accepted training units."""

    now: datetime
    day: datetime
    speed: float
    moments: tuple[Moment, ...] = ()
    detail: str = ""
    nodes: tuple[NodeRow, ...] = ()
    epochs: tuple[Epoch, ...] = ()
    epochs_planned: int = 0
    units: int = 0
    units_planned: int = 0
    job_state: str = "running"
    lines: tuple[Line, ...] = ()

    @property
    def latest(self) -> Moment | None:
        """The newest control tick."""
        return self.moments[-1] if self.moments else None

    @property
    def share_of_day(self) -> float:
        """How much of the day is over, 0 to 1."""
        return min(max((self.now - self.day) / timedelta(days=1), 0.0), 1.0)

    @property
    def accuracies(self) -> list[float]:
        """Accuracy by epoch, as far as evaluated."""
        return [row.accuracy for row in self.epochs if row.accuracy is not None]

    def total(self, use: str) -> float:
        """Joules over all epochs: ``useful``, ``wasted`` or ``idle``."""
        return float(sum(getattr(row, f"{use}_j") for row in self.epochs))

    def node(self, node_id: str) -> NodeRow | None:
        """That node's row, once it has joined."""
        return next((row for row in self.nodes if row.node_id == node_id), None)


def clock_time(moment: datetime) -> str:
    """The time of day where the surplus is."""
    return f"{moment.astimezone(BERLIN):%H:%M}"


def short_unit(unit_id: str) -> str:
    """``digits.r3.u2`` as ``r3.u2``: there is one job here."""
    return unit_id.split(".", 1)[-1]


_WHY_PAUSED = MappingProxyType(
    {
        "no_surplus": "the surplus is gone",
        "target_lowered": "there is less surplus",
        "stale_signal": "the signal is stale",
        "alarm": "there is a grid alarm",
        "paused_by_operator": "the operator says so",
        "device_busy": "its owner needs it",
        "device_hot": "it is too hot",
        "disk_full": "its disk is full",
    }
)
_LEASED = (LeaseOffered, LeasePaused, LeaseResumed, LeaseEnded)


def sentence(fact: Fact, steps: Mapping[str, int]) -> tuple[str, str] | None:
    """``(text, mood)`` of a stored fact, or None where it is not worth a line. ``steps`` is the length of each unit, as far as known."""
    if isinstance(fact, _LEASED):
        return _of_lease(fact, f"{short_unit(fact.unit_id)}, {_place(fact, steps)}")
    return _of_node(fact) or _of_work(fact)


def _of_node(fact: Fact) -> tuple[str, str] | None:
    match fact:
        case NodeJoined():
            return f"{fact.node_id} joins with {fact.power_w:.0f} W", "plain"
        case NodePresent():
            return f"{fact.node_id} is here", "good"
        case NodeAbsent():
            return f"{fact.node_id} has gone silent", "bad"
        case NodeOptedIn():
            return f"{fact.node_id} opts in", "good"
        case MeterRefused():
            return f"the meter of {fact.node_id} is not believed: {_words(fact.reason)}", "bad"
    return None


def _of_work(fact: Fact) -> tuple[str, str] | None:
    match fact:
        case VersionEvaluated() if fact.accuracy is not None:
            return f"epoch {fact.epoch + 1} is done: {fact.accuracy:.1%} of {fact.samples} unseen digits read right", "good"
        case UpdateRejected():
            return f"an update of {fact.node_id} is refused: {_words(fact.reason)}", "bad"
        case SignalDegraded():
            return f"{fact.source} fails: {fact.detail}", "bad"
        case JobEnded():
            return f"the job is {fact.state}: {fact.reason}", "good"
    return None


def _of_lease(fact: LeaseOffered | LeasePaused | LeaseResumed | LeaseEnded, where: str) -> tuple[str, str] | None:
    match fact:
        case LeaseOffered() if fact.generation > 1:
            return f"{fact.node_id} goes on with unit {short_unit(fact.unit_id)}", "good"
        case LeasePaused() if fact.reason == "opted_out":
            return f"{fact.node_id} opts out in the middle of unit {where}", "bad"
        case LeasePaused():
            return f"{fact.node_id} pauses in unit {where}: {_WHY_PAUSED.get(fact.reason, _words(fact.reason))}", "plain"
        case LeaseResumed():
            return f"{fact.node_id} resumes unit {where}: the surplus is back", "good"
        case LeaseEnded() if fact.state == "handed_over":
            return f"{fact.node_id} hands over unit {where}; nothing is lost", "good"
        case LeaseEnded() if fact.state == "expired":
            return f"{fact.node_id} is not waited for: unit {short_unit(fact.unit_id)} is open to others", "bad"
    return None


def _place(fact: LeaseOffered | LeasePaused | LeaseResumed | LeaseEnded, steps: Mapping[str, int]) -> str:
    whole = steps.get(fact.unit_id)
    return f"step {fact.step}/{whole}" if whole else f"step {fact.step}"


def _words(reason: str) -> str:
    return reason.replace("_", " ")


def reasons_of(moments: Sequence[Moment]) -> dict[str, int]:
    """How many control ticks each reason of the policy held."""
    found: dict[str, int] = {}
    for moment in moments:
        found[moment.reason] = found.get(moment.reason, 0) + 1
    return dict(sorted(found.items(), key=lambda item: -item[1]))
