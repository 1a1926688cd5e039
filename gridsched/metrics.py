"""Facts as Prometheus metrics: the names in one table, and one match statement that feeds them.

Base units are in the names. No label names a node: a million of them would be a million series; a node's own story is in its
statement and in ``gridsched explain``. A label must not be called ``job``, which Prometheus would rename, so it is ``job_id``.
What each metric is good for, and its limits, is in ``grafana/README.md``; a test holds the two together.
"""

import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector

from gridsched import __version__
from gridsched.core.facts import (
    AgentReplaced,
    AuditEnded,
    AuditOpened,
    DeadlineAtRisk,
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
    NodeCut,
    NodeJoined,
    NodeOptedIn,
    NodeOptedOut,
    NodePardoned,
    NodePresent,
    NodeQuarantined,
    PlanningFailed,
    PolicyDecided,
    PolicyLoaded,
    ReadingsDropped,
    ReadingsStored,
    RewardPosted,
    RewardReversed,
    RoundCutShort,
    RoundMerged,
    RoundOpened,
    SignalDegraded,
    SignalRecovered,
    UnitAccepted,
    UnitSkipped,
    UnitStale,
    UpdateRejected,
    VersionEvaluated,
    WishesChanged,
    ZoneObserved,
    ZonePaused,
    ZoneResumed,
    kind_of,
)
from gridsched.core.fleet import NodeReason
from gridsched.core.round import Epoch
from gridsched.core.rule import Policy
from gridsched.core.work import UnitKind

__all__ = ["KEEP_EPOCHS", "KEEP_JOBS", "Metrics"]

KEEP_EPOCHS = 20
"""Epochs per job that keep their own series; the store keeps them all."""

KEEP_JOBS = 200
"""Jobs that keep their own series: the ones heard of last."""

# A `_created` series beside each counter would double what is scraped and is used by nothing.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class _Spec:
    """A metric's name, meaning and labels. A name that ends in ``_total`` is a counter, any other a gauge."""

    name: str
    meaning: str
    labels: tuple[str, ...] = ()


BUILD = _Spec("gridsched_build_info", "Always 1", ("version", "python"))
FACTS = _Spec("gridsched_facts_total", "Facts committed", ("kind",))

TARGET = _Spec("gridsched_target_watts", "Power that may be drawn at the last control tick", ("zone",))
LEASED = _Spec("gridsched_leased_watts", "Power of offered and active leases at the last control tick", ("zone",))
DRAWN = _Spec("gridsched_drawn_watts", "Power that present nodes reported last", ("zone",))
OBSERVED = _Spec("gridsched_observed_timestamp_seconds", "The daemon's clock at the last control tick", ("zone",))
SIGNAL = _Spec("gridsched_signal", "Value in the unit of its kind: W, EUR/MWh, g/kWh, share 0..1, level", ("zone", "signal"))
SIGNAL_AGE = _Spec("gridsched_signal_age_seconds", "Time since the signal last counted at a control tick", ("zone", "signal"))
NODES = _Spec("gridsched_nodes", "Nodes by why they work or do not", ("zone", "reason"))

READINGS = _Spec("gridsched_readings_total", "Readings stored", ("source", "signal"))
DROPPED = _Spec("gridsched_readings_dropped_total", "Readings dropped as implausible", ("source", "signal"))
DEGRADED = _Spec("gridsched_source_degraded", "1 while a source fails, else 0", ("source",))
FAILURES = _Spec("gridsched_source_failures_total", "Times a source began to fail", ("source", "kind"))
POLICY = _Spec("gridsched_policy_info", "Always 1; names the policy in force", ("zone", "policy", "digest"))
DECISIONS = _Spec("gridsched_decisions_total", "Decisions that differ from the one before", ("zone", "reason"))

ZONE_MOVES = _Spec("gridsched_zone_moves_total", "Times the operator paused the zone or let it go on", ("zone", "move"))
NODE_MOVES = _Spec("gridsched_node_moves_total", "Nodes that joined, came, went, opted in or out", ("zone", "move"))
REPLACED = _Spec("gridsched_agents_replaced_total", "Agent processes that took a node over from an earlier one")
LEASES = _Spec("gridsched_leases_total", "Lease moves, with why", ("zone", "move", "reason"))
METER_REFUSED = _Spec("gridsched_meter_refused_total", "Meter readings not believed", ("reason",))
AUDITS = _Spec("gridsched_audits_total", "Audits ended, by what came of them", ("result",))
AUDITS_OPENED = _Spec("gridsched_audits_opened_total", "Units given to a node to do again, by why", ("reason",))
REVERSED = _Spec("gridsched_rewards_reversed_micro_total", "Rewards taken back, in millionths of the currency", ("zone",))
REWARDS = _Spec("gridsched_rewards_micro_total", "Rewards posted, in millionths of the currency", ("zone",))

SUBMITTED = _Spec("gridsched_jobs_submitted_total", "Jobs taken in")
WISHES = _Spec("gridsched_wishes_changed_total", "Times an owner changed a job's deadline, priority or top-up")
AT_RISK = _Spec("gridsched_deadlines_at_risk_total", "Times a job's deadline could no longer be expected to be met", ("zone",))
UNPLANNED = _Spec("gridsched_planning_failures_total", "Times a job's hours could not be chosen", ("zone",))
ENDED = _Spec("gridsched_jobs_ended_total", "Jobs ended", ("state",))
UNITS = _Spec("gridsched_units_accepted_total", "Work units accepted", ("job_id", "kind"))
STALE = _Spec("gridsched_units_stale_total", "Units too many versions behind to be merged, trained again", ("job_id",))
SKIPPED = _Spec("gridsched_units_skipped_total", "Units that end in NaN or infinity on every node, left out", ("job_id",))
REJECTED = _Spec("gridsched_updates_rejected_total", "Updates refused", ("reason",))
OPENED = _Spec("gridsched_rounds_opened_total", "Rounds opened", ("job_id",))
MERGED = _Spec("gridsched_rounds_merged_total", "Rounds merged into a version", ("job_id",))
CUT_SHORT = _Spec("gridsched_rounds_cut_short_total", "Rounds whose time of grace ended before all units had come", ("job_id",))
STALENESS = _Spec("gridsched_round_staleness_versions", "Versions that the last round's updates were behind, on average", ("job_id",))
SAMPLES = _Spec("gridsched_samples_merged_total", "Samples in merged updates", ("job_id",))
VERSION = _Spec("gridsched_model_version", "Newest model version", ("job_id",))
ACCURACY = _Spec("gridsched_model_accuracy_ratio", "Accuracy on held-out samples, 0..1, of the version evaluated last", ("job_id",))
LOSS = _Spec("gridsched_model_loss", "Loss on held-out samples of the version evaluated last", ("job_id",))
EPOCH = _Spec("gridsched_epoch", "Epoch in training, counted from 0", ("job_id",))

ENERGY = _Spec("gridsched_energy_joules_total", "Energy of closed units", ("job_id", "zone", "use"))
COST = _Spec("gridsched_cost_micro", "Energy at the price of its hour; falls while prices are negative", ("job_id", "zone"))
EPOCH_ENERGY = _Spec("gridsched_epoch_energy_joules", "Energy of an epoch's closed units", ("job_id", "epoch", "use"))
EPOCH_AUDIT = _Spec("gridsched_epoch_audit_joules", "Energy of an epoch spent on doing units again, once it is over", ("job_id", "epoch"))
EPOCH_COST = _Spec("gridsched_epoch_cost_micro", "An epoch's energy at the prices of its hours", ("job_id", "epoch"))
EPOCH_REWARD = _Spec("gridsched_epoch_reward_micro", "Rewards for an epoch, once it is over", ("job_id", "epoch"))
EPOCH_ACCURACY = _Spec("gridsched_epoch_accuracy_ratio", "Accuracy of an epoch's last version, 0..1", ("job_id", "epoch"))

_PER_EPOCH = (EPOCH_ENERGY, EPOCH_AUDIT, EPOCH_COST, EPOCH_REWARD, EPOCH_ACCURACY)
_Labels = tuple[str, ...]


class Metrics:
    """A registry of its own and ``observe``, which the daemon calls with every committed fact, from one thread.

    Counters start at 0 with the process, as Prometheus expects; ``recall`` brings back what is kept per epoch, and which policies
    are in force. ``expose`` may be called from any thread.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._families: dict[_Spec, Counter | Gauge] = {}
        self._children: dict[_Spec, dict[_Labels, Counter | Gauge]] = {}
        for spec in _all():
            make = Counter if spec.name.endswith("_total") else Gauge
            self._families[spec] = make(spec.name, spec.meaning, spec.labels, registry=self.registry)
            self._children[spec] = {}
        self._seen: dict[tuple[str, str], datetime] = {}
        self._jobs: dict[str, int] = {}
        self._policies: dict[str, _Labels] = {}
        self._set(BUILD, 1, __version__, platform.python_version())

    def expose(self, accept: str = "") -> tuple[bytes, str]:
        """The page behind ``/metrics`` and its content type, in the format that an HTTP ``Accept`` header asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def recall(self, epochs: Sequence[Epoch], policies: Iterable[Policy]) -> None:
        """Set what is kept per epoch from stored records, and name the policies in force, before the first fact is observed.

        Counters stay at 0: what they counted before the restart is Prometheus's to remember.
        """
        for policy in policies:
            self._policy(policy.zone, policy.name, policy.digest)
        for epoch in sorted(epochs, key=lambda e: (e.started_at, e.job_id, e.number)):
            self._begin_epoch(epoch.job_id, epoch.number)
            self._book_epoch(epoch.job_id, epoch.number, epoch.useful_j, epoch.wasted_j, epoch.idle_j)
            self._set_epoch(EPOCH_COST, epoch.cost_micro, epoch.job_id, epoch.number)
            if epoch.ended_at is not None:
                self._close_epoch(epoch.job_id, epoch.number, epoch.reward_micro, epoch.audit_j)
            self._quality(epoch.job_id, epoch.number, epoch.loss, epoch.accuracy)

    def observe(self, fact: Fact) -> None:  # noqa: C901 - one line or two for each fact, as flat as a table
        """Count ``fact``. A fact that no metric is about is counted in ``gridsched_facts_total`` alone."""
        self._add(FACTS, 1, kind_of(fact))
        match fact:
            case ZoneObserved():
                self._zone(fact)
            case LeaseEnded():
                self._add(LEASES, 1, fact.zone, fact.state, fact.reason)
            case LeaseOffered():
                self._add(LEASES, 1, fact.zone, "offered", fact.reason)
            case LeaseActive():
                self._add(LEASES, 1, fact.zone, "active", fact.reason)
            case LeasePaused():
                self._add(LEASES, 1, fact.zone, "paused", fact.reason)
            case LeaseResumed():
                self._add(LEASES, 1, fact.zone, "resumed", fact.reason)
            case UnitAccepted():
                self._add(UNITS, 1, self._job(fact.job_id), fact.kind)
            case EnergyMetered():
                self._energy(fact)
            case AuditOpened():
                self._add(AUDITS_OPENED, 1, fact.reason)
            case AuditEnded():
                self._add(AUDITS, 1, fact.result)
            case RewardReversed():
                self._add(REVERSED, fact.amount_micro, fact.zone)
            case RewardPosted():
                self._add(REWARDS, fact.amount_micro, fact.zone)
            case RoundOpened():
                self._begin_epoch(fact.job_id, fact.epoch)
                self._add(OPENED, 1, fact.job_id)
            case RoundMerged():
                self._add(MERGED, 1, self._job(fact.job_id))
                self._add(SAMPLES, fact.samples, fact.job_id)
                self._set(VERSION, fact.version, fact.job_id)
                self._set(STALENESS, fact.staleness, fact.job_id)
            case RoundCutShort():
                self._add(CUT_SHORT, 1, self._job(fact.job_id))
            case UnitStale():
                self._add(STALE, 1, self._job(fact.job_id))
            case UnitSkipped():
                self._add(SKIPPED, 1, self._job(fact.job_id))
            case VersionEvaluated():
                self._quality(fact.job_id, fact.epoch, fact.loss, fact.accuracy)
            case EpochFinished():
                self._book_epoch(fact.job_id, fact.epoch, fact.useful_j, fact.wasted_j, fact.idle_j)
                self._close_epoch(fact.job_id, fact.epoch, fact.reward_micro, fact.audit_j)
            case PolicyDecided():
                self._add(DECISIONS, 1, fact.zone, fact.reason)
            case PolicyLoaded():
                self._policy(fact.zone, fact.policy, fact.digest)
            case ReadingsStored():
                self._add(READINGS, fact.count, fact.source, fact.signal)
            case ReadingsDropped():
                self._add(DROPPED, fact.count, fact.source, fact.signal)
            case SignalDegraded():
                self._set(DEGRADED, 1, fact.source)
                self._add(FAILURES, 1, fact.source, fact.kind)
            case SignalRecovered():
                self._set(DEGRADED, 0, fact.source)
            case NodeQuarantined() | NodePardoned():
                self._add(NODE_MOVES, 1, fact.zone, kind_of(fact).removeprefix("node_"))
            case NodeJoined() | NodePresent() | NodeCut() | NodeAbsent() | NodeOptedIn() | NodeOptedOut():
                self._add(NODE_MOVES, 1, fact.zone, kind_of(fact).removeprefix("node_"))
            case ZonePaused() | ZoneResumed():
                self._add(ZONE_MOVES, 1, fact.zone, kind_of(fact).removeprefix("zone_"))
            case AgentReplaced():
                self._add(REPLACED, 1)
            case UpdateRejected():
                self._add(REJECTED, 1, fact.reason)
            case MeterRefused():
                self._add(METER_REFUSED, 1, fact.reason)
            case JobSubmitted():
                self._add(SUBMITTED, 1)
            case WishesChanged():
                self._add(WISHES, 1)
            case DeadlineAtRisk():
                self._add(AT_RISK, 1, fact.zone)
            case PlanningFailed():
                self._add(UNPLANNED, 1, fact.zone)
            case JobEnded():
                self._add(ENDED, 1, fact.state)

    def _zone(self, fact: ZoneObserved) -> None:
        self._set(TARGET, fact.target_w, fact.zone)
        self._set(LEASED, fact.leased_w, fact.zone)
        self._set(DRAWN, fact.drawn_w, fact.zone)
        self._set(OBSERVED, fact.at.timestamp(), fact.zone)
        for reason in NodeReason:
            self._set(NODES, fact.nodes.get(reason, 0), fact.zone, reason.value)
        self._signals(fact)

    def _signals(self, fact: ZoneObserved) -> None:
        """A signal that does not count has no value (unknown is not zero); one that is needed grows older from tick to tick.

        What was never seen is as old as the first tick, so that a restart does not hide that it is missing. What neither counts nor is
        needed has no age: nobody waits for it.
        """
        for signal, value in fact.signals.items():
            self._set(SIGNAL, value, fact.zone, signal)
            self._seen[(fact.zone, signal)] = fact.at
        for signal in fact.needed:
            self._seen.setdefault((fact.zone, signal), fact.at)
        for zone, signal in [key for key in self._seen if key[0] == fact.zone]:
            if signal not in fact.signals:
                self._remove(SIGNAL, zone, signal)
            if signal in fact.signals or signal in fact.needed:
                self._set(SIGNAL_AGE, (fact.at - self._seen[zone, signal]).total_seconds(), zone, signal)
            else:
                del self._seen[zone, signal]
                self._remove(SIGNAL_AGE, zone, signal)

    def _policy(self, zone: str, name: str, digest: str) -> None:
        if zone in self._policies:
            self._remove(POLICY, *self._policies[zone])
        self._policies[zone] = (zone, name, digest)
        self._set(POLICY, 1, *self._policies[zone])

    def _energy(self, fact: EnergyMetered) -> None:
        self._add(ENERGY, fact.energy_j, self._job(fact.job_id), fact.zone, fact.use)
        self._add(COST, fact.cost_micro, fact.job_id, fact.zone)
        if self._keeps(fact.job_id, fact.epoch):
            self._add(EPOCH_ENERGY, fact.energy_j, fact.job_id, str(fact.epoch), fact.use)
            self._add(EPOCH_COST, fact.cost_micro, fact.job_id, str(fact.epoch))

    def _quality(self, job_id: str, epoch: int, loss: float | None, accuracy: float | None) -> None:
        if loss is not None:
            self._set(LOSS, loss, self._job(job_id))
        if accuracy is not None:
            self._set(ACCURACY, accuracy, self._job(job_id))
            self._set_epoch(EPOCH_ACCURACY, accuracy, job_id, epoch)

    def _book_epoch(self, job_id: str, epoch: int, useful_j: float, wasted_j: float, idle_j: float) -> None:
        for use, joules in (("useful", useful_j), ("wasted", wasted_j), ("idle", idle_j)):
            self._set_epoch(EPOCH_ENERGY, joules, job_id, epoch, use)

    def _close_epoch(self, job_id: str, epoch: int, reward_micro: int, audit_j: float) -> None:
        self._set_epoch(EPOCH_REWARD, reward_micro, job_id, epoch)
        self._set_epoch(EPOCH_AUDIT, audit_j, job_id, epoch)

    def _begin_epoch(self, job_id: str, epoch: int) -> None:
        """Series begin at 0 before they are counted up: ``increase()`` does not see the first step of one that begins at 1."""
        self._keeps(job_id, epoch)
        self._set(EPOCH, max(epoch, self._jobs[job_id]), job_id)
        for spec, *labels in ((MERGED,), (SAMPLES,), (CUT_SHORT,), (STALE,), (SKIPPED,), (UNITS, UnitKind.TRAIN.value)):
            self._add(spec, 0, job_id, *labels)

    def _keeps(self, job_id: str, epoch: int) -> bool:
        """Whether ``epoch`` has its own series; the first fact of a new one takes them from the oldest."""
        newest = self._jobs[self._job(job_id)]
        if epoch > newest:
            self._jobs[job_id] = newest = epoch
            for spec in _PER_EPOCH:
                self._sweep(spec, lambda labels: labels[0] == job_id and int(labels[1]) <= newest - KEEP_EPOCHS)
        return epoch > newest - KEEP_EPOCHS

    def _job(self, job_id: str) -> str:
        """``job_id``, now the job heard of last; the one not heard of for longest loses its series when there are too many."""
        self._jobs[job_id] = self._jobs.pop(job_id, -1)
        if len(self._jobs) > KEEP_JOBS:
            oldest = next(iter(self._jobs))
            del self._jobs[oldest]
            for spec in self._children:
                if spec.labels[:1] == ("job_id",):
                    self._sweep(spec, lambda labels: labels[0] == oldest)
        return job_id

    def _set_epoch(self, spec: _Spec, value: float, job_id: str, epoch: int, *labels: str) -> None:
        if self._keeps(job_id, epoch):
            self._set(spec, value, job_id, str(epoch), *labels)

    def _set(self, spec: _Spec, value: float, *labels: str) -> None:
        gauge = self._child(spec, labels)
        assert isinstance(gauge, Gauge), f"{spec.name} is a counter: add to it"
        gauge.set(value)

    def _add(self, spec: _Spec, amount: float, *labels: str) -> None:
        self._child(spec, labels).inc(amount)

    def _child(self, spec: _Spec, labels: _Labels) -> Counter | Gauge:
        """The series with these labels, kept at hand: ``labels()`` validates and locks, and is twenty times slower."""
        children = self._children[spec]
        if labels not in children:
            family = self._families[spec]
            children[labels] = family.labels(*labels) if labels else family
        return children[labels]

    def _remove(self, spec: _Spec, *labels: str) -> None:
        if self._children[spec].pop(labels, None) is not None:
            self._families[spec].remove(*labels)

    def _sweep(self, spec: _Spec, unwanted: Callable[[_Labels], bool]) -> None:
        for labels in [labels for labels in self._children[spec] if unwanted(labels)]:
            self._remove(spec, *labels)


def _all() -> list[_Spec]:
    return [spec for spec in globals().values() if isinstance(spec, _Spec)]
