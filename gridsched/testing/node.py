"""A consumer's agent, played in simulated time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from gridsched.core.work import UnitSpec
from gridsched.wire import LeaseReport, MeterReport

__all__ = ["Lie", "SimulatedNode"]

Lie = Callable[[UnitSpec, dict[str, Any]], dict[str, Any]]
"""From a unit and its honest tensors (or an evaluation's metrics) to what the node returns instead."""


@dataclass(slots=True)
class SimulatedNode:
    """A consumer's agent, played: it syncs, obeys orders, makes ``steps_per_s`` steps a second, and keeps its continuation on "disk".

    ``power_w`` is drawn while it works. ``disk`` (saved steps by unit) and ``effort`` (executed
    steps by lease) survive a crash; everything else starts anew.
    """

    node_id: str
    power_w: float
    steps_per_s: float
    code: str
    runtime: str = "torch-sim"
    lie: Lie | None = None
    disk: dict[str, int] = field(default_factory=dict)
    effort: dict[str, int] = field(default_factory=dict)
    register_j: float = 0.0
    instance: str = ""
    lease: tuple[str, int] | None = None
    unit: UnitSpec | None = None
    step: float = 0.0
    executed: int = 0
    running: bool = False
    down_until: datetime | None = None
    out_until: datetime | None = None
    last: datetime | None = None
    starts: int = 0

    def report(self) -> LeaseReport | None:
        """What it says of its lease."""
        if self.lease is None:
            return None
        return LeaseReport(
            lease_id=self.lease[0],
            generation=self.lease[1],
            state="running" if self.running else "paused",
            step=int(self.step),
            steps_executed=self.executed,
            saved_step=self.disk.get(self.unit.unit_id, 0) if self.unit else 0,
            speed=self.steps_per_s,
        )

    def meter(self) -> MeterReport:
        """Its register now."""
        return MeterReport(register_j=self.register_j, age_s=0.0, power_w=self.power_w if self.running else 0.0, method="estimated")

    def work(self, now: datetime) -> None:
        """Let time pass since the last call: steps are made and energy is drawn."""
        seconds = (now - self.last).total_seconds() if self.last else 0.0
        self.last = now
        if not self.running or self.unit is None:
            return
        before = int(self.step)
        self.step = min(self.step + seconds * self.steps_per_s, float(self.unit.steps))
        self.executed += int(self.step) - before
        if self.lease is not None:
            self.effort[self.lease[0]] = self.executed
        self.register_j += seconds * self.power_w

    def crash(self, until: datetime) -> None:
        """Lose everything but the disk."""
        self.down_until, self.lease, self.unit, self.running, self.instance = until, None, None, False, ""
