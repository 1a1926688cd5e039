"""How much work a job still is: its steps left, at the speed that was measured of the nodes that may do them.

A round ends with its last unit, so few units on unlike nodes take longer than steps divided by speed: by how much follows
from dealing a round's units out as the daemon does, each to the node that is free first.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import median

from gridsched.core.cut import rounds_per_epoch, total_rounds, unit_sizes
from gridsched.core.job import JobSpec

__all__ = ["SAFETY", "Hand", "Workload", "stretch", "total_steps", "weigh", "within"]

SAFETY = 1.25
"""Nodes come and go, and a deadline missed costs more than hours chosen a little too early."""
_MOST_DEALT = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Hand:
    """A node that may work for a job: ``power_w``, and its ``speed`` in steps per second at this very job (0: not measured)."""

    node_id: str
    power_w: float
    speed: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """``steps`` are left, done at ``speed`` (steps per second, all ``hands`` together; 0: not known yet), which takes ``time``.

    ``room`` nodes fit under the watts; where that is more than ``hands``, another job can work beside this one.
    """

    steps: int
    speed: float = 0.0
    hands: int = 0
    room: int = 0
    time: timedelta | None = None


def total_steps(spec: JobSpec, *, after_round: int = 0) -> int:
    """Training and evaluation steps from version ``after_round`` to the job's end."""
    method, epochs = spec.method, spec.method.epochs
    per_epoch = sum(math.ceil(samples / method.batch_size) * count for samples, count in unit_sizes(spec).items()) * method.passes
    tests = math.ceil(spec.test_samples / method.batch_size) if spec.test_dataset is not None else 0
    if after_round >= total_rounds(spec):
        return 0
    epoch, rounds = divmod(after_round, rounds_per_epoch(spec))
    return (epochs - epoch) * (per_epoch + tests) - min(rounds * _round_steps(spec), per_epoch)


def _round_steps(spec: JobSpec) -> int:
    """Training steps of a full round; of a mean one, where units are parts."""
    per_unit = math.ceil(spec.unit_samples / spec.method.batch_size) * spec.method.passes
    if spec.parts and spec.part < 0:
        per_unit = math.ceil(spec.samples / len(spec.parts) / spec.method.batch_size) * spec.method.passes
    return spec.units_at_once * per_unit


def within(hands: Sequence[Hand], *, watts: float, most: int) -> list[Hand]:
    """The hands with the most work per joule that fit under ``watts``, at most as many as a round has units."""
    speeds = [hand.speed for hand in hands if hand.speed > 0]
    usual = median(speeds) if speeds else 0.0
    known = [Hand(node_id=h.node_id, power_w=h.power_w, speed=h.speed or usual) for h in hands]
    chosen: list[Hand] = []
    drawn_w = 0.0
    for hand in sorted(known, key=lambda h: (-h.speed / h.power_w, h.node_id)):
        if len(chosen) < most and drawn_w + hand.power_w <= watts + 1e-6:
            chosen.append(hand)
            drawn_w += hand.power_w
    return chosen


def stretch(speeds: Sequence[float], units: int) -> float:
    """By how much a round of ``units`` equal units takes longer than their steps divided by the sum of ``speeds``."""
    if units > _MOST_DEALT:
        return 1.0
    free = [(0.0, -speed) for speed in speeds]  # when each node is free for a unit; the quickest first
    heapq.heapify(free)
    for _ in range(units):
        at, speed = heapq.heappop(free)
        heapq.heappush(free, (at - 1 / speed, speed))
    return max(at for at, _ in free) * sum(speeds) / units


def weigh(spec: JobSpec, *, steps: int, hands: Sequence[Hand], watts: float) -> Workload:
    """What is left when ``hands`` do it under ``watts``. The time is not known before any of them was measured at this job."""
    if steps == 0:
        return Workload(steps=0, time=timedelta(0))
    chosen = within(hands, watts=watts, most=spec.units_at_once)
    room = len(within(hands, watts=watts, most=len(hands)))
    speed = sum(hand.speed for hand in chosen)
    if not speed > 0:
        return Workload(steps=steps, hands=len(chosen), room=room)
    longer = stretch([hand.speed for hand in chosen], spec.units_at_once)
    return Workload(steps=steps, speed=speed, hands=len(chosen), room=room, time=timedelta(seconds=steps / speed * longer * SAFETY))
