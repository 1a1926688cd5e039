"""Follows a running site through its store: every number on the screen is a committed record or fact."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from gridsched.core.consent import Consent
from gridsched.core.facts import Fact, UnitAccepted, ZoneObserved
from gridsched.core.fleet import Node, Presence
from gridsched.core.job import Job
from gridsched.core.lease import LIVE, Lease
from gridsched.core.ledger import Account, Transfer, node_account, verify
from gridsched.core.meter import MeterReading
from gridsched.core.policy import Decision
from gridsched.core.round import Epoch, Version
from gridsched.core.work import UnitKind, WorkUnit
from gridsched.core.zone import ZoneState
from gridsched.demo.scene import Line, Moment, NodeRow, Scene, sentence
from gridsched.flow.observe import reason_of
from gridsched.ports import Store, Tx

__all__ = ["Books", "Watcher"]

_PAGE = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """All that is left when the day is over. ``broken_at`` is the first transfer that does not fit the chain, None where all fit."""

    facts: Sequence[Fact]
    epochs: Sequence[Epoch]
    versions: Sequence[Version]
    accounts: Sequence[Account]
    transfers: Sequence[Transfer]

    @property
    def broken_at(self) -> int | None:
        """The sequence of the first transfer whose hash does not fit the one before."""
        return verify(list(self.transfers))


@dataclass(slots=True, kw_only=True)
class Watcher:
    """Looks at ``store`` again and again; ``now`` is the daemon's clock, ``day`` when the replayed day begins."""

    store: Store
    zone: str
    job_id: str
    now: Callable[[], datetime]
    day: datetime
    speed: float
    facts: list[Fact] = field(default_factory=list)
    told: list[Line] = field(default_factory=list)
    _seen: int = 0
    _units: int = 0
    _moments: list[Moment] = field(default_factory=list)
    _steps: dict[str, int] = field(default_factory=dict)

    def look(self) -> Scene:
        """The present scene."""
        now = self.now()
        with self.store.read() as tx:
            self._read_on(tx)
            job = tx.must(Job, self.job_id)
            state = tx.get(ZoneState, self.zone) or ZoneState(zone=self.zone)
            decision = tx.get(Decision, state.decision_id) if state.decision_id else None
            epochs = tuple(tx.find(Epoch, job_id=self.job_id, order="number"))
            nodes = tuple(self._nodes(tx, state, decision, now))
        samples = job.spec.samples
        units_per_epoch = -(-samples // job.spec.unit_samples)
        return Scene(
            now=now,
            day=self.day,
            speed=self.speed,
            moments=tuple(self._moments),
            detail=decision.detail if decision else "",
            nodes=nodes,
            epochs=epochs,
            epochs_planned=job.spec.method.epochs,
            units=self._units,
            units_planned=units_per_epoch * job.spec.method.epochs,
            job_state=job.state.value,
            lines=tuple(self.told),
        )

    def say(self, text: str, mood: str) -> None:
        """Add a line about something done from outside, which no fact can tell: a plug that was pulled."""
        self.told.append(Line(at=self.now(), text=text, mood=mood))

    def books(self) -> Books:
        """Everything that the summary and the picture are made of."""
        with self.store.read() as tx:
            self._read_on(tx)
            return Books(
                facts=list(self.facts),
                epochs=tx.find(Epoch, job_id=self.job_id, order="number"),
                versions=tx.find(Version, job_id=self.job_id, order="number"),
                accounts=tx.find(Account),
                transfers=tx.find(Transfer, order="sequence"),
            )

    def _read_on(self, tx: Tx) -> None:
        while page := tx.facts(since=self._seen, limit=_PAGE):
            for sequence, fact in page:
                self._seen = sequence
                self._hear(tx, fact)

    def _hear(self, tx: Tx, fact: Fact) -> None:
        self.facts.append(fact)
        if isinstance(fact, ZoneObserved):
            self._moments.append(_moment(fact))
        elif isinstance(fact, UnitAccepted):
            self._units += fact.kind == UnitKind.TRAIN.value
        unit_id = getattr(fact, "unit_id", None)
        if unit_id is not None and unit_id not in self._steps and (unit := tx.get(WorkUnit, unit_id)) is not None:
            self._steps[unit_id] = unit.spec.steps
        told = sentence(fact, self._steps)
        if told is not None:
            self.told.append(Line(at=fact.at, text=told[0], mood=told[1]))

    def _nodes(self, tx: Tx, state: ZoneState, decision: Decision | None, now: datetime) -> list[NodeRow]:
        rows = []
        presences = {p.node_id: p for p in tx.find(Presence)}
        consents = {c.node_id: c for c in tx.find(Consent)}
        leases = {lease.node_id: lease for lease in tx.find(Lease, state=LIVE)}
        for node in sorted(tx.find(Node, zone=self.zone), key=lambda node: -node.power_w):
            lease = leases.get(node.node_id)
            unit = tx.get(WorkUnit, lease.unit_id) if lease else None
            reason = reason_of(
                node,
                presences.get(node.node_id),
                consents.get(node.node_id),
                lease,
                target_w=decision.target_w if decision else None,
                reward=state.reward_micro_per_kwh,
                now=now,
            )
            rows.append(_row(node, presences.get(node.node_id), lease, unit, reason.value, _money_and_energy(tx, node.node_id)))
        return rows


def _moment(fact: ZoneObserved) -> Moment:
    return Moment(
        at=fact.at,
        price_eur_mwh=fact.signals.get("price"),
        surplus_w=fact.signals.get("surplus"),
        target_w=fact.target_w,
        leased_w=fact.leased_w,
        drawn_w=fact.drawn_w,
        reason=fact.reason,
    )


def _money_and_energy(tx: Tx, node_id: str) -> Mapping[str, float]:
    account = tx.get(Account, node_account(node_id))
    last = tx.find(MeterReading, node_id=node_id, order="-at", limit=1)
    first = tx.find(MeterReading, node_id=node_id, order="at", limit=1)
    return {
        "earned_micro": account.balance_micro if account else 0,
        "energy_j": last[0].register_j - first[0].register_j if last else 0.0,
    }


def _row(
    node: Node, presence: Presence | None, lease: Lease | None, unit: WorkUnit | None, reason: str, books: Mapping[str, float]
) -> NodeRow:
    return NodeRow(
        node_id=node.node_id,
        power_w=node.power_w,
        state=reason,
        why=lease.reason.value if lease else "",
        lease=lease.state.value if lease else "",
        unit=lease.unit_id if lease else "",
        kind=unit.spec.kind.value if unit else "",
        step=lease.step if lease else 0,
        steps=unit.spec.steps if unit else 0,
        drawn_w=presence.drawn_w if presence else 0.0,
        energy_j=books["energy_j"],
        earned_micro=int(books["earned_micro"]),
        reliability=presence.reliability if presence else 1.0,
    )
