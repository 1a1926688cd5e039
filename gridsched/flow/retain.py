"""Which blobs something still names; all others may go once they are old enough."""

from gridsched.core.job import Dataset, Job
from gridsched.core.round import Version
from gridsched.core.work import UnitState, WorkUnit
from gridsched.ports import Tx

__all__ = ["manifests", "named"]


def manifests(tx: Tx) -> set[str]:
    """Digests of the manifests that rows name; the shards they name are kept with them."""
    digests = {dataset.digest for dataset in tx.find(Dataset)}
    for job in tx.find(Job):
        digests |= {digest for digest in (job.spec.dataset, job.spec.test_dataset) if digest}
    return digests


def named(tx: Tx) -> set[str]:
    """Digests that rows name: programs, manifests, versions, updates of the journal, continuations of units not yet done.

    The shards of a manifest are named by the manifest's bytes; the caller adds them.
    """
    digests = manifests(tx)
    for job in tx.find(Job):
        digests |= {job.spec.program, job.spec.initial}
    for version in tx.find(Version):
        digests |= {version.digest} | {update for _, update, _ in version.updates}
    for unit in tx.find(WorkUnit, state=(UnitState.OPEN, UnitState.LEASED, UnitState.ACCEPTED)):
        digests |= {digest for digest in (unit.update, unit.continuation if unit.state is not UnitState.ACCEPTED else None) if digest}
    return digests
