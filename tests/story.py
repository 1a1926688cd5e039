"""A day as facts: 28 January 2018 in Germany, three nodes and one job, told without a daemon.

The signals are real (``examples/germany-2018``); what the nodes do is a small fixed script, so that metrics, reports and
dashboards have something to show that looks like the real thing. Nothing here is random: the same facts every time.
"""

import csv
import gzip
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gridsched.core.facts import (
    EnergyMetered,
    EpochFinished,
    Fact,
    JobEnded,
    JobSubmitted,
    LeaseActive,
    LeaseEnded,
    LeaseOffered,
    LeasePaused,
    LeaseResumed,
    MeterRefused,
    NodeAbsent,
    NodeJoined,
    NodeOptedIn,
    NodeOptedOut,
    NodePresent,
    PolicyDecided,
    PolicyLoaded,
    ReadingsStored,
    RewardPosted,
    RoundMerged,
    RoundOpened,
    UnitAccepted,
    UpdateRejected,
    VersionEvaluated,
    ZoneObserved,
)
from gridsched.core.round import Epoch

__all__ = ["DAY", "JOB", "ZONE", "Story", "tell"]

DAY = datetime(2018, 1, 28, tzinfo=UTC)
JOB, ZONE = "digits", "de-lu"
WEEK = Path(__file__).resolve().parent.parent / "examples" / "germany-2018" / "week.csv.gz"

STEP = timedelta(minutes=1)
EPOCHS, UNITS_PER_EPOCH, UNIT_J = 7, 30, 30_000.0
ACCURACY = (0.71, 0.86, 0.912, 0.937, 0.951, 0.958, 0.964)

OPTS_OUT = {"workshop": (timedelta(hours=2, minutes=43), timedelta(hours=11, minutes=30))}
VANISHES = {"attic-pc": (timedelta(hours=12, minutes=36), timedelta(hours=14, minutes=20))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """The facts in order, and the epochs they add up to."""

    facts: tuple[Fact, ...]
    epochs: tuple[Epoch, ...]


@dataclass(slots=True)
class _Node:
    node_id: str
    power_w: float
    device: str
    state: str = "opted_out"
    lease: LeaseActive | None = None
    paused: bool = False
    done_j: float = 0.0


@dataclass(slots=True)
class _Teller:
    nodes: list[_Node]
    facts: list[Fact] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    left: int = UNITS_PER_EPOCH
    leases: int = 0
    reason: str = ""

    @property
    def over(self) -> bool:
        return len(self.epochs) == EPOCHS and self.left == 0

    def begin(self, at: datetime) -> None:
        self.facts += [
            PolicyLoaded(at=at, zone=ZONE, policy="surplus-first", digest="5f" * 32),
            ReadingsStored(at=at, source="file", zone=ZONE, signal="price", count=96),
            ReadingsStored(at=at, source="file", zone=ZONE, signal="surplus", count=96),
            ReadingsStored(at=at, source="file", zone=ZONE, signal="renewable_share", count=96),
            JobSubmitted(at=at, job_id=JOB, name="digits"),
        ]
        for node in self.nodes:
            node.state = "in"
            self.facts += [
                NodeJoined(at=at, node_id=node.node_id, zone=ZONE, device=node.device, power_w=node.power_w),
                NodePresent(at=at, node_id=node.node_id, zone=ZONE),
                NodeOptedIn(at=at, node_id=node.node_id, zone=ZONE),
            ]
        self._open(at)

    def _open(self, at: datetime) -> None:
        number = len(self.epochs)
        self.left = UNITS_PER_EPOCH
        self.epochs.append(Epoch(job_id=JOB, number=number, started_at=at))
        self.facts.append(RoundOpened(at=at, job_id=JOB, round_id=f"{JOB}.r{number}", epoch=number, units=UNITS_PER_EPOCH))

    def tick(self, at: datetime, *, price: float, share: float, surplus_w: float) -> None:
        target_w = min(surplus_w, 300.0) if surplus_w > 40 else 0.0
        reason = "surplus" if target_w else "no_surplus"
        if reason != self.reason:
            detail = f"surplus {surplus_w:g} W"
            tier = "surplus" if target_w else "none"
            decision = PolicyDecided(at=at, zone=ZONE, decision_id=f"{at:%H%M}", target_w=target_w, tier=tier, reason=reason, detail=detail)
            self.facts.append(decision)
            self.reason = reason
        for node in self.nodes:
            self._come_and_go(node, at - DAY, at)
        leased_w = self._dispatch(at, target_w)
        drawn_w = sum(self._work(node, at, price) for node in self.nodes)
        signals = {"price": price, "renewable_share": share, "surplus": surplus_w}
        counts = Counter(self._reason_of(node, target_w) for node in self.nodes)
        self.facts.append(
            ZoneObserved(
                at=at, zone=ZONE, decision_id=f"{at:%H%M}", target_w=target_w, leased_w=leased_w, drawn_w=drawn_w,
                reason=reason, signals=signals, nodes=dict(sorted(counts.items())),
            )
        )  # fmt: skip

    def _reason_of(self, node: _Node, target_w: float) -> str:
        if node.state != "in":
            return node.state
        if node.lease is None:
            return "available" if target_w else "no_surplus"
        return "paused" if node.paused else "working"

    def _come_and_go(self, node: _Node, clock: timedelta, at: datetime) -> None:
        leaves, returns = OPTS_OUT.get(node.node_id, (None, None))
        if clock == leaves:
            self._end(node, at, "handed_over", "opted_out")
            node.state = "opted_out"
            self.facts.append(NodeOptedOut(at=at, node_id=node.node_id, zone=ZONE))
        if clock == returns:
            node.state = "in"
            self.facts.append(NodeOptedIn(at=at, node_id=node.node_id, zone=ZONE))
        dies, revives = VANISHES.get(node.node_id, (None, None))
        if clock == dies:
            node.state = "absent"
            self.facts.append(NodeAbsent(at=at, node_id=node.node_id, zone=ZONE, silent_s=60.0))
            self._meter(node, at, node.done_j, 0, "wasted")
            self._end(node, at, "expired", "node_silent")
        if clock == revives:
            node.state = "in"
            self.facts.append(NodePresent(at=at, node_id=node.node_id, zone=ZONE))

    def _dispatch(self, at: datetime, target_w: float) -> float:
        free_w = target_w
        for node in self.nodes:
            wanted = node.state == "in" and node.power_w <= free_w and (node.lease is not None or self._unleased() > 0)
            if wanted:
                free_w -= node.power_w
                self._run(node, at)
            elif node.lease is not None and not node.paused:
                node.paused = True
                why = "no_surplus" if target_w == 0 else "target_lowered"
                self.facts.append(LeasePaused(**_named(replace(node.lease, at=at, reason=why))))
        return target_w - free_w

    def _unleased(self) -> int:
        return self.left - sum(node.lease is not None for node in self.nodes)

    def _run(self, node: _Node, at: datetime) -> None:
        if node.lease is not None and node.paused:
            self.facts.append(LeaseResumed(**_named(replace(node.lease, at=at, reason="surplus_back"))))
        if node.lease is None:
            self.leases += 1
            lease_id = f"{JOB}.l{self.leases}"
            node.lease = LeaseActive(
                at=at, lease_id=lease_id, unit_id=f"{JOB}.u{self.leases}", job_id=JOB, node_id=node.node_id, zone=ZONE, generation=1,
                reason="accepted", power_w=node.power_w, step=0,
            )  # fmt: skip
            self.facts.append(LeaseOffered(**_named(replace(node.lease, reason="planned")), decision_id=f"{at:%H%M}"))
            self.facts.append(node.lease)
        node.paused = False

    def _work(self, node: _Node, at: datetime, price: float) -> float:
        if node.lease is None or node.paused:
            if node.lease is not None and not self.over:
                self._meter(node, at, 0.03 * node.power_w * STEP.total_seconds(), price, "idle")
            return 0.03 * node.power_w if node.lease is not None else 0.0
        drawn_w = node.power_w * 0.96
        node.done_j += drawn_w * STEP.total_seconds()
        if node.done_j >= UNIT_J:
            self._finish(node, at, price)
        return drawn_w

    def _finish(self, node: _Node, at: datetime, price: float) -> None:
        lease = node.lease
        assert lease is not None
        self._meter(node, at, node.done_j, price, "useful")
        paid = int(node.done_j * 80_000 / 3.6e6)
        reward = RewardPosted(
            at=at, node_id=node.node_id, zone=ZONE, lease_id=lease.lease_id, job_id=JOB, amount_micro=paid, energy_j=node.done_j
        )
        accepted = UnitAccepted(
            at=at, job_id=JOB, unit_id=lease.unit_id, node_id=node.node_id, lease_id=lease.lease_id, kind="train", samples=180, steps=6
        )
        self.facts += [accepted, reward]
        self.epochs[-1] = replace(self.epochs[-1], reward_micro=self.epochs[-1].reward_micro + paid, units=self.epochs[-1].units + 1)
        self._end(node, at, "released", "finished")
        self.left -= 1
        if self.left == 0:
            self._merge(at)

    def _merge(self, at: datetime) -> None:
        epoch = self.epochs[-1]
        accuracy = ACCURACY[epoch.number]
        loss = round(2.2 * (1 - accuracy), 4)
        self.epochs[-1] = epoch = replace(epoch, ended_at=at, accuracy=accuracy, loss=loss)
        version = epoch.number + 1
        self.facts += [
            RoundMerged(
                at=at, job_id=JOB, round_id=f"{JOB}.r{epoch.number}", epoch=epoch.number, version=version, digest="ab" * 32, samples=1437
            ),
            VersionEvaluated(at=at, job_id=JOB, version=version, epoch=epoch.number, loss=loss, accuracy=accuracy, samples=360),
            EpochFinished(
                at=at, job_id=JOB, epoch=epoch.number, useful_j=epoch.useful_j, wasted_j=epoch.wasted_j, idle_j=epoch.idle_j,
                reward_micro=epoch.reward_micro,
            ),
        ]  # fmt: skip
        if len(self.epochs) < EPOCHS:
            self._open(at)
        else:
            self.facts.append(JobEnded(at=at, job_id=JOB, state="done", reason="all epochs merged"))

    def _meter(self, node: _Node, at: datetime, energy_j: float, price: float, use: str) -> None:
        epoch = self.epochs[-1]
        cost = round(energy_j / 3.6e9 * price * 1e6)
        fact = EnergyMetered(at=at, job_id=JOB, zone=ZONE, epoch=epoch.number, use=use, energy_j=energy_j, cost_micro=cost)
        self.facts.append(fact)
        booked = {f"{use}_j": getattr(epoch, f"{use}_j") + energy_j, "cost_micro": epoch.cost_micro + cost}
        self.epochs[-1] = replace(epoch, **booked)

    def _end(self, node: _Node, at: datetime, state: str, reason: str) -> None:
        if node.lease is not None:
            self.facts.append(LeaseEnded(**_named(replace(node.lease, at=at, reason=reason)), state=state))
        node.lease, node.done_j, node.paused = None, 0.0, False


def _named(lease: LeaseActive) -> dict[str, Any]:
    return {
        name: getattr(lease, name)
        for name in ("at", "lease_id", "unit_id", "job_id", "node_id", "zone", "generation", "reason", "power_w", "step")
    }


def tell() -> Story:
    """The whole day, tick by tick."""
    nodes = [_Node("attic-pc", 150.0, "desktop"), _Node("workshop", 95.0, "old desktop"), _Node("laptop", 45.0, "laptop")]
    teller = _Teller(nodes)
    teller.begin(DAY)
    with gzip.open(WEEK, "rt", encoding="utf-8") as lines:
        rows = {datetime.fromisoformat(row["start"]): row for row in csv.DictReader(lines)}
    at = DAY
    while at < DAY + timedelta(days=1):
        row = rows[at - timedelta(minutes=at.minute % 15)]
        teller.tick(at, price=float(row["price_eur_mwh"]), share=float(row["renewable_share"]), surplus_w=float(row["surplus_w"]))
        at += STEP
    refused = UpdateRejected(at=at, job_id=JOB, unit_id="u", node_id="attic-pc", lease_id="l", reason="old_generation", detail="lease lost")
    teller.facts += [refused, MeterRefused(at=at, node_id="attic-pc", reason="runs_backwards", register_j=3.0)]
    return Story(facts=tuple(teller.facts), epochs=tuple(teller.epochs))
