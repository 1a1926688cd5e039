"""Of the grid, its zones, the nodes and their leases."""

from dataclasses import dataclass

from gridsched.core.facts.base import Fact

__all__ = [
    "HELD",
    "AgentReplaced",
    "LeaseActive",
    "LeaseEnded",
    "LeaseOffered",
    "LeasePaused",
    "LeaseResumed",
    "NodeAbsent",
    "NodeCut",
    "NodeJoined",
    "NodeOptedIn",
    "NodeOptedOut",
    "NodePresent",
    "PolicyDecided",
    "PolicyLoaded",
    "ReadingsDropped",
    "ReadingsStored",
    "SignalDegraded",
    "SignalRecovered",
    "ZoneObserved",
    "ZonePaused",
    "ZoneResumed",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingsStored(Fact):
    """New readings of one signal from one source."""

    source: str
    zone: str
    signal: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingsDropped(Fact):
    """Implausible readings that were not kept, and why."""

    source: str
    zone: str
    signal: str
    count: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalDegraded(Fact):
    """A source has begun to fail; ``kind`` is the error's kind."""

    source: str
    kind: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalRecovered(Fact):
    """A failing source gives readings again."""

    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLoaded(Fact):
    """A zone's policy is new or has changed; ``digest`` is its content's."""

    zone: str
    policy: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDecided(Fact):
    """A decision that differs from the zone's last one in target, tier or reason."""

    zone: str
    decision_id: str
    target_w: float
    tier: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneObserved(Fact):
    """The zone at a control tick: what was allowed, leased and drawn, and the signals that count.

    ``needed`` are the signals that its policy looks at and must know, whether they count or not.
    """

    zone: str
    decision_id: str
    target_w: float
    leased_w: float
    drawn_w: float
    reason: str
    signals: dict[str, float]
    nodes: dict[str, int]
    needed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ZonePaused(Fact):
    """The operator has paused a zone; ``by`` is the name of the token."""

    zone: str
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneResumed(Fact):
    """The operator lets a zone go on."""

    zone: str
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeJoined(Fact):
    """A node has enrolled; it is still opted out."""

    node_id: str
    zone: str
    device: str
    power_w: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePresent(Fact):
    """A node is heard of again."""

    node_id: str
    zone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAbsent(Fact):
    """A node has been silent for ``silent_s``."""

    node_id: str
    zone: str
    silent_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCut(Fact):
    """A node's line was cut, and it did not come back at once. It is doubtful from now on, accused of nothing."""

    node_id: str
    zone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentReplaced(Fact):
    """Another agent process took the node over."""

    node_id: str
    instance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptedIn(Fact):
    """A consumer said yes."""

    node_id: str
    zone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptedOut(Fact):
    """A consumer said no."""

    node_id: str
    zone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _LeaseFact(Fact):
    lease_id: str
    unit_id: str
    job_id: str
    node_id: str
    zone: str
    generation: int
    reason: str
    power_w: float
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseOffered(_LeaseFact):
    """A node was offered a unit, by the decision named."""

    decision_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseActive(_LeaseFact):
    """A node took the offer and its reward was reserved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasePaused(_LeaseFact):
    """A node is to stop at the next step boundary and keep its unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseResumed(_LeaseFact):
    """A paused node may go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseEnded(_LeaseFact):
    """``state`` is handed_over, released, expired or revoked; ``detail`` is what its node said where it could not do the unit."""

    state: str
    detail: str = ""


HELD = (LeaseOffered, LeaseActive, LeasePaused, LeaseResumed, LeaseEnded)
