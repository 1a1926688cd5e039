"""Who: nodes, their presence, and the distribution of the target over them in merit order."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from gridsched.core.errors import InvalidInput
from gridsched.core.job import is_digest, is_name

__all__ = ["DeviceState", "Fleet", "LocalData", "Node", "NodeReason", "Plan", "Presence", "held_out", "jitter_share", "plan"]

_MERIT_STEP = 1.25
_POWER_SLACK_W = 1e-6
_MOST_SAMPLES = 10**9
"""Of one node's own data: more weigh so much in a merge that nobody else's would count."""


class DeviceState(StrEnum):
    """What the node's own limits say; anything but ``free`` keeps it from working."""

    FREE = "free"
    USER_ACTIVE = "user_active"
    HOT = "hot"
    ON_BATTERY = "on_battery"
    DISK_FULL = "disk_full"


class NodeReason(StrEnum):
    """Why a node works or does not; the same words in logs, metrics, API and pages."""

    WORKING = "working"
    STARTING = "starting"
    PAUSED = "paused"
    AVAILABLE = "available"
    ABSENT = "absent"
    DOUBTFUL = "doubtful"
    OPTED_OUT = "opted_out"
    CONSENT_ENDED = "consent_ended"
    REWARD_TOO_LOW = "reward_too_low"
    HELD_OUT = "held_out"
    DEVICE = "device"
    RUNTIME = "runtime"
    MEMORY = "memory"
    NO_WORK = "no_work"
    NO_SURPLUS = "no_surplus"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalData:
    """A dataset that a node holds for itself: its manifest's ``digest`` and its number of ``samples``. It never leaves the node."""

    digest: str
    samples: int

    def __post_init__(self) -> None:
        if not is_digest(self.digest):
            raise InvalidInput(f"a node's own dataset is named by a sha256 digest, not {self.digest[:80]!r}")
        if not 0 < self.samples <= _MOST_SAMPLES:
            raise InvalidInput(f"dataset {self.digest[:12]}: a node's own data has 1 to {_MOST_SAMPLES} samples, not {self.samples}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A consumer's machine.

    ``power_w`` is the most it draws; ``runtime`` its hardware class, such as ``torch-2.13.0-x86_64-avx2-cpu-1t``; ``data`` are its own
    datasets by name. A node whose work was found wrong is quarantined from ``quarantined_at`` on.
    """

    node_id: str
    zone: str
    device: str
    power_w: float
    memory_bytes: int
    runtime: str
    meter: str
    token_hash: str
    joined_at: datetime
    revoked_at: datetime | None = None
    quarantined_at: datetime | None = None
    quarantine_reason: str = ""
    data: Mapping[str, LocalData] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not is_name(self.node_id):
            raise InvalidInput(f"node name {self.node_id!r} must be lower-case letters, digits, - and _, at most 63")
        if not 0 < self.power_w < 1e7:
            raise InvalidInput(f"node {self.node_id}: power must be above 0 W and below 10 MW, got {self.power_w}")
        if not 0 <= self.memory_bytes < 2**53:
            raise InvalidInput(f"node {self.node_id}: memory must be 0 bytes or more and below 8 PiB, got {self.memory_bytes}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """What changes with every sync of a node: who runs it, when it was heard of, its register and how well it works.

    ``instance`` names the running agent process; ``register_j`` is the meter's last accepted value; ``speed`` is in steps per
    second of work; ``reliability`` is the smoothed share of leases that ended well (0..1); ``served_j`` is energy it was paid for;
    ``verified`` counts the units in a row that were done again elsewhere and found the same. ``cut_at`` is when its line was cut, where
    nothing was heard of it since: it may be gone, or only out of reach for a moment. ``owed_micro`` is the part of a micro-unit that its
    next lease will be paid on top.
    """

    node_id: str
    instance: str = ""
    seen_at: datetime | None = None
    present: bool = False
    device: DeviceState = DeviceState.FREE
    register_j: float | None = None
    register_at: datetime | None = None
    drawn_w: float = 0.0
    speed: float = 0.0
    reliability: float = 1.0
    served_j: float = 0.0
    verified: int = 0
    cut_at: datetime | None = None
    owed_micro: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The nodes of one zone that may work now, as columns of equal length n.

    ``node_ids`` [n]; ``power_w`` [n] the watts each would draw; ``merit`` [n] useful work per joule x reliability;
    ``served_j`` [n]; ``running`` [n] bool: draws or is about to; ``holding`` [n] bool: has a unit already (running or paused).
    """

    node_ids: Sequence[str]
    power_w: NDArray[np.float64]
    merit: NDArray[np.float64]
    served_j: NDArray[np.float64]
    running: NDArray[np.bool_]
    holding: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Node ids to start (need a unit), to resume (hold one), and to pause; each in merit order. ``drawn_w`` is the sum once carried out."""

    start: list[str]
    resume: list[str]
    pause: list[str]
    drawn_w: float


def plan(target_w: float, fleet: Fleet, *, units: int) -> Plan:
    """Distribute ``target_w`` over ``fleet``; at most ``units`` nodes without a unit may start.

    Merit is compared in steps of 25 %, so that a node is not displaced for a trifle; within a step running nodes go first
    (planning again changes nothing), then those that hold a unit, then the least served, then by id. Nodes that
    no longer fit are skipped, not waited for. The sum never exceeds the target. Vectorised: a sort and a few cumulative sums.
    """
    order = _merit_order(fleet)
    chosen = np.zeros(len(fleet.node_ids), dtype=bool)
    chosen[_fill(order, fleet, target_w, units)] = True

    def ids(which: NDArray[np.bool_]) -> list[str]:
        return list(map(fleet.node_ids.__getitem__, order[which[order]].tolist()))

    return Plan(
        start=ids(chosen & ~fleet.holding),
        resume=ids(chosen & fleet.holding & ~fleet.running),
        pause=ids(fleet.running & ~chosen),
        drawn_w=float(fleet.power_w[chosen].sum()),
    )


def _merit_order(fleet: Fleet) -> NDArray[np.intp]:
    step = np.floor(np.log(np.maximum(fleet.merit, 1e-12)) / np.log(_MERIT_STEP))
    rank = -4 * np.clip(step, -4000, 4000) + 2 * ~fleet.running + ~fleet.holding  # steps, then running, then holding
    by_name = _by_name(fleet.node_ids)
    return by_name[np.lexsort((fleet.served_j[by_name], rank.astype(np.int16)[by_name]))]  # so small a number sorts by radix


def _by_name(names: Sequence[str]) -> NDArray[np.intp]:
    """The order [n] of names (``core.job.is_name``: ASCII; no two alike). Text sorts slowly, so they are compared as numbers.

    A number holds eight letters, the first ones in front; letters that all names share say nothing and are left out.
    """
    letters = np.array(names, dtype=np.bytes_)
    table = letters.view(np.uint8).reshape(len(names), letters.itemsize)
    telling = np.flatnonzero((table != table[:1]).any(axis=0))
    words = np.zeros((max(1, -(-len(telling) // 8)), len(names)), dtype=np.uint64)
    for place, column in enumerate(telling):
        words[place // 8] |= table[:, column].astype(np.uint64) << np.uint64(56 - 8 * (place % 8))
    return np.argsort(words[0]) if len(words) == 1 else np.lexsort(words[::-1])


def _fill(order: NDArray[np.intp], fleet: Fleet, target_w: float, units: int) -> NDArray[np.intp]:
    """Indices of the nodes that fit, taken greedily in ``order``: each pass takes the longest prefix that fits."""
    left_w, seats = max(target_w, 0.0) + _POWER_SLACK_W, units
    taken: list[NDArray[np.intp]] = []
    waiting = order
    while len(waiting):
        waiting = waiting[fleet.power_w[waiting] <= left_w]
        new = ~fleet.holding[waiting]
        waiting = waiting[~new | (np.cumsum(new) <= seats)]
        fits = int(np.searchsorted(np.cumsum(fleet.power_w[waiting]), left_w, side="right"))
        if fits == 0:
            break
        taken.append(waiting[:fits])
        left_w -= float(fleet.power_w[waiting[:fits]].sum())
        seats -= int((~fleet.holding[waiting[:fits]]).sum())
        waiting = waiting[fits:]
    return np.concatenate(taken) if taken else np.zeros(0, dtype=np.intp)


def held_out(node_id: str, *, share: float, day: str) -> bool:
    """Whether a node is in the day's random hold-out: a hash decides, so nobody can choose to be out of it."""
    return share > 0 and _uniform("hold-out", day, node_id) < share


def jitter_share(*parts: str) -> float:
    """A number in [0, 1) that spreads starts, the same for the same parts."""
    return _uniform("jitter", *parts)


def _uniform(*parts: str) -> float:
    return int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest()[:8], "big") / 2**64
