"""Of jobs, rounds and units, of what was found wrong, and of the books."""

from dataclasses import dataclass
from datetime import datetime

from gridsched.core.facts.base import Fact

__all__ = [
    "AuditEnded",
    "AuditOpened",
    "DeadlineAtRisk",
    "EnergyMetered",
    "EpochFinished",
    "JobEnded",
    "JobSubmitted",
    "MeterRefused",
    "NodePardoned",
    "NodeQuarantined",
    "PlanningFailed",
    "RewardPosted",
    "RewardReversed",
    "RoundCutShort",
    "RoundMerged",
    "RoundOpened",
    "UnitAccepted",
    "UnitSkipped",
    "UnitStale",
    "UpdateRejected",
    "VersionEvaluated",
    "WishesChanged",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSubmitted(Fact):
    """A job was taken in."""

    job_id: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WishesChanged(Fact):
    """A job's owner wants it done at another time; no bit of it changes."""

    job_id: str
    priority: int
    deadline: datetime | None
    top_up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlineAtRisk(Fact):
    """A job needs ``needed_s`` of work before ``deadline``, and only ``available_s`` can be expected to be open to it."""

    job_id: str
    zone: str
    deadline: datetime
    needed_s: float
    available_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanningFailed(Fact):
    """A job's hours could not be chosen, so it takes surplus only, until shortly before its deadline."""

    job_id: str
    zone: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnded(Fact):
    """A job is done, cancelled or failed."""

    job_id: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundOpened(Fact):
    """Units of a new round wait for nodes."""

    job_id: str
    round_id: str
    epoch: int
    units: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundMerged(Fact):
    """A round became the next version; ``staleness`` is how many versions its updates were behind, on average."""

    job_id: str
    round_id: str
    epoch: int
    version: int
    digest: str
    samples: int
    staleness: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundCutShort(Fact):
    """A round's time of grace is over: ``units`` that had not come are abandoned, and their ``samples`` are not merged in this epoch."""

    job_id: str
    round_id: str
    epoch: int
    units: int
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitAccepted(Fact):
    """A unit's result was accepted, once."""

    job_id: str
    unit_id: str
    node_id: str
    lease_id: str
    kind: str
    samples: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitStale(Fact):
    """A unit is ``staleness`` versions behind, too many to be merged; its range is trained again from the newest version."""

    job_id: str
    unit_id: str
    staleness: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSkipped(Fact):
    """A unit ends in NaN or infinity on every node, so the job goes on without its ``samples``, as its owner asked."""

    job_id: str
    unit_id: str
    round_id: str
    epoch: int
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRejected(Fact):
    """An update was refused; ``reason`` is a `Refusal`."""

    job_id: str
    unit_id: str
    node_id: str
    lease_id: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOpened(Fact):
    """``unit_id`` will be done again, as ``audit_id`` and by ``node_id``; ``reason`` is an `AuditReason`."""

    job_id: str
    unit_id: str
    audit_id: str
    node_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEnded(Fact):
    """What came of doing a unit again; ``result`` is an `AuditResult`."""

    job_id: str
    unit_id: str
    result: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeQuarantined(Fact):
    """A node's answer to a unit was found wrong. It gets no more work; ``versions`` (``job.v3``) hold what it did before, unproven."""

    node_id: str
    zone: str
    unit_id: str
    reason: str
    versions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePardoned(Fact):
    """The operator lets a quarantined node work again; it is audited like a newcomer."""

    node_id: str
    zone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionEvaluated(Fact):
    """A version's quality on the held-out samples."""

    job_id: str
    version: int
    epoch: int
    loss: float
    accuracy: float | None
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyMetered(Fact):
    """Energy of a closed unit, split: ``use`` is useful, wasted or idle. Cost at the prices of its hours."""

    job_id: str
    zone: str
    epoch: int
    use: str
    energy_j: float
    cost_micro: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochFinished(Fact):
    """An epoch's books are closed."""

    job_id: str
    epoch: int
    useful_j: float
    wasted_j: float
    idle_j: float
    reward_micro: int
    audit_j: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterRefused(Fact):
    """A register value that cannot be true; ``reason`` is a `MeterRefusal`."""

    node_id: str
    reason: str
    register_j: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardReversed(Fact):
    """What a lease was paid is taken back, because the work was found wrong; ``reason`` says which."""

    node_id: str
    zone: str
    lease_id: str
    job_id: str
    amount_micro: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardPosted(Fact):
    """A node was paid for a lease."""

    node_id: str
    zone: str
    lease_id: str
    job_id: str
    amount_micro: int
    energy_j: float
