"""What must be true of a site after every tick, whatever has gone wrong; each check names what it found."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import pairwise

from gridsched.core.cut import rounds_per_epoch
from gridsched.core.job import Job
from gridsched.core.lease import LIVE, Lease, LeaseState
from gridsched.core.ledger import Account, Transfer, TransferKind, verify
from gridsched.core.meter import TOLERANCE, MeterReading
from gridsched.core.policy import Decision
from gridsched.core.reward import most_micro, paid_energy_j
from gridsched.core.round import Epoch, Round, RoundState, Version
from gridsched.core.work import UnitKind, UnitState, WorkUnit
from gridsched.core.zone import ZoneState
from gridsched.ports import Tx

__all__ = ["check_invariants"]


def check_invariants(tx: Tx, *, caps_w: Mapping[str, float] | None = None) -> None:
    """Raise AssertionError for the first promise that the stored rows break. ``caps_w`` is the most each zone may ever draw."""
    _ledger_balances(tx)
    _energy_is_paid_at_most_as_metered(tx)
    _one_current_lease(tx)
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


def _one_current_lease(tx: Tx) -> None:
    live = tx.find(Lease, state=LIVE)
    for who in ("node_id", "unit_id"):
        twice = [name for name, count in Counter(getattr(lease, who) for lease in live).items() if count > 1]
        assert not twice, f"{who} {twice} has more than one live lease"
    for unit in tx.find(WorkUnit):
        leases = [lease for lease in live if lease.unit_id == unit.unit_id]
        assert (unit.state is UnitState.LEASED) == bool(leases), f"unit {unit.unit_id} is {unit.state} with live leases {leases}"
        assert all(lease.generation == unit.leases for lease in leases), f"unit {unit.unit_id}: a live lease is not its newest"


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
        done = tx.find(Round, job_id=job.job_id, state=RoundState.MERGED)
        finished = len(done) // rounds_per_epoch(job.spec)
        ranges: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for unit in tx.find(WorkUnit, job_id=job.job_id, kind=UnitKind.TRAIN, state=UnitState.ACCEPTED):
            ranges[unit.spec.epoch].append((unit.spec.start, unit.spec.stop))
        for epoch in range(finished):
            spans = sorted(ranges[epoch])
            whole = bool(spans) and spans[0][0] == 0 and spans[-1][1] == job.spec.samples
            once = whole and all(before[1] == after[0] for before, after in pairwise(spans))
            assert once, f"epoch {epoch} of {job.job_id} saw {spans}"
        for row in tx.find(Epoch, job_id=job.job_id):
            assert min(row.useful_j, row.wasted_j, row.idle_j) >= -1e-9, f"epoch {row.number} has a negative energy: {row}"
