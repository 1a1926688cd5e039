"""What must be true of a site after every tick, whatever has gone wrong; each check names what it found."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import pairwise

from gridsched.core.job import Job
from gridsched.core.lease import LIVE, Lease, LeaseState
from gridsched.core.ledger import Account, Transfer, TransferKind, verify
from gridsched.core.meter import TOLERANCE, MeterReading
from gridsched.core.method import NotFinite
from gridsched.core.policy import Decision
from gridsched.core.reward import most_micro, paid_energy_j
from gridsched.core.round import Epoch, Round, RoundState, Version
from gridsched.core.work import UnitKind, UnitState, WorkUnit
from gridsched.core.zone import ZoneState
from gridsched.flow.audit import audits_of
from gridsched.ports import Tx

__all__ = ["check_invariants"]


def check_invariants(tx: Tx, *, caps_w: Mapping[str, float] | None = None) -> None:
    """Raise AssertionError for the first promise that the stored rows break. ``caps_w`` is the most each zone may ever draw."""
    _ledger_balances(tx)
    _energy_is_paid_at_most_as_metered(tx)
    _live_leases_fit(tx)
    _power_within_target(tx, caps_w or {})
    _versions_grow_by_one(tx)
    _every_sample_once(tx)


def _ledger_balances(tx: Tx) -> None:
    accounts = tx.find(Account)
    for side in ("pending", "posted"):
        debits = sum(getattr(a, f"debits_{side}") for a in accounts)
        credits_ = sum(getattr(a, f"credits_{side}") for a in accounts)
        assert debits == credits_, f"{side}: debits {debits} are not credits {credits_}"
    chain = tx.find(Transfer, order="sequence")
    broken = verify(chain)
    assert broken is None, f"the ledger's chain breaks at transfer {broken}"
    resolved = Counter(t.pending_id for t in chain if t.pending_id)
    assert not resolved or max(resolved.values()) == 1, f"a reserve was resolved twice: {resolved.most_common(1)}"
    reserves = {t.transfer_id: t for t in chain if t.kind is TransferKind.RESERVE}
    for post in (t for t in chain if t.kind is TransferKind.POST):
        assert post.amount_micro <= reserves[post.pending_id or ""].amount_micro, f"{post.transfer_id} posts more than was reserved"


def _energy_is_paid_at_most_as_metered(tx: Tx) -> None:
    metered: dict[str, float] = defaultdict(float)
    for reading in tx.find(MeterReading):
        if reading.lease_id:
            metered[reading.lease_id] += reading.delta_j
    for lease in tx.find(Lease):
        booked = lease.energy_j + lease.idle_j
        seen = metered[lease.lease_id]
        assert booked <= seen * (1 + 1e-9) + 1e-6, f"{lease.lease_id}: booked {booked} J of {seen} J metered"
        whole = lease.state not in (LeaseState.EXPIRED, LeaseState.REVOKED)  # their nodes' last readings may reach beyond their end
        assert not whole or booked >= seen * (1 - 1e-9) - 1e-6, f"{lease.lease_id}: only {booked} J of {seen} J metered are booked"
        assert paid_energy_j(lease) <= lease.power_w * lease.active_s * (1 + TOLERANCE) + 1e-6, f"{lease.lease_id} is paid beyond its power"
        assert most_micro(lease) >= 0


def _live_leases_fit(tx: Tx) -> None:
    live = tx.find(Lease, state=LIVE)
    twice = [name for name, count in Counter(lease.node_id for lease in live).items() if count > 1]
    assert not twice, f"node {twice} has more than one live lease"
    for unit in tx.find(WorkUnit):
        leases = [lease for lease in live if lease.unit_id == unit.unit_id]
        assert (unit.state is UnitState.LEASED) == bool(leases), f"unit {unit.unit_id} is {unit.state} with live leases {leases}"
        assert len(leases) <= 2, f"unit {unit.unit_id} has more than one copy under way: {leases}"
        assert all(lease.generation <= unit.leases for lease in leases), f"unit {unit.unit_id} does not know of all its leases"
        doings = (unit.unit_id, *(audit.unit_id for audit in audits_of(tx, unit.unit_id)))
        won = tx.find(Lease, unit_id=doings, state=LeaseState.RELEASED)
        assert unit.state is not UnitState.ACCEPTED or unit.accepted_lease in {lease.lease_id for lease in won}


def _power_within_target(tx: Tx, caps_w: Mapping[str, float]) -> None:
    for zone in tx.find(ZoneState):
        decision = tx.get(Decision, zone.decision_id) if zone.decision_id else None
        if decision is None:
            continue
        leased = sum(lease.draws_w() for lease in tx.find(Lease, zone=zone.zone, state=LIVE))
        assert leased <= decision.target_w + 1e-3, f"zone {zone.zone}: {leased} W leased of {decision.target_w} W ({decision.reason})"
        assert decision.target_w <= caps_w.get(zone.zone, float("inf")), f"zone {zone.zone}: target {decision.target_w} W is above its cap"


def _versions_grow_by_one(tx: Tx) -> None:
    for job in tx.find(Job):
        versions = tx.find(Version, job_id=job.job_id, order="number")
        assert [v.number for v in versions] == list(range(len(versions))), f"job {job.job_id}: versions {[v.number for v in versions]}"
        assert job.version == len(versions) - 1, f"job {job.job_id} is at version {job.version} of {len(versions) - 1}"
        merged = tx.find(Round, job_id=job.job_id, state=RoundState.MERGED)
        assert len(merged) == job.version, f"job {job.job_id}: {len(merged)} merged rounds, version {job.version}"
        for before, after in pairwise(versions):
            assert after.parent == before.digest, f"version {after.number} of {job.job_id} does not follow from {before.number}"


def _every_sample_once(tx: Tx) -> None:
    for job in tx.find(Job):
        _merged_once(tx, job)
        for row in tx.find(Epoch, job_id=job.job_id):
            assert min(row.useful_j, row.wasted_j, row.idle_j) >= -1e-9, f"epoch {row.number} has a negative energy: {row}"


def _merged_once(tx: Tx, job: Job) -> None:
    """No unit is merged twice and no sample twice in an epoch; where nothing may be left out, a finished epoch has them all."""
    merged = Counter(unit_id for version in tx.find(Version, job_id=job.job_id) for unit_id, _, _ in version.updates)
    twice = [unit_id for unit_id, count in merged.items() if count > 1]
    assert not twice, f"units {twice} of {job.job_id} are merged more than once"
    spans: dict[tuple[int, str], list[tuple[int, int]]] = defaultdict(list)
    for unit in tx.find(WorkUnit, job_id=job.job_id, kind=UnitKind.TRAIN):
        if unit.unit_id in merged:
            first = unit.spec.first
            spans[unit.spec.epoch, unit.only_node].append((first + unit.spec.start, first + unit.spec.stop))
    for (epoch, _), found in spans.items():
        overlap = [pair for pair in pairwise(sorted(found)) if pair[0][1] > pair[1][0]]
        assert not overlap, f"epoch {epoch} of {job.job_id} saw samples twice: {overlap}"
    method = job.spec.method
    if method.grace_s or method.not_finite is NotFinite.SKIP or job.spec.local:
        return
    for epoch in range(_finished(tx, job)):
        seen = sum(stop - start for start, stop in spans[epoch, ""])
        assert seen == job.spec.epoch_samples, f"epoch {epoch} of {job.job_id} saw {seen} of {job.spec.epoch_samples} samples"


def _finished(tx: Tx, job: Job) -> int:
    """How many epochs are merged whole."""
    newest = tx.find(Round, job_id=job.job_id, order="-number", limit=1)[0]
    return newest.epoch + (newest.state is RoundState.MERGED)
