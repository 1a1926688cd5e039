"""Which blobs something still names; all others may go once they are old enough."""

from gridsched.core.job import Dataset, Job, JobState
from gridsched.core.round import CHAIN, Version
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

    Of what lies beside the versions, what is still asked for: the outer state that the next merge begins with, and the last few steps.
    A replay of the journal makes the others again.

    The shards of a manifest are named by the manifest's bytes; the caller adds them.
    """
    digests = manifests(tx)
    newest: dict[str, int] = {}
    for job in tx.find(Job):
        digests |= {job.spec.program, job.spec.initial}
        if job.state is JobState.RUNNING:
            newest[job.job_id] = job.version
    for version in tx.find(Version):
        digests |= {version.digest} | {update for _, update, _ in version.updates}
        behind = newest.get(version.job_id, version.number + CHAIN) - version.number
        digests |= {digest for digest in (version.outer if behind == 0 else None, version.step if behind < CHAIN else None) if digest}
    for unit in tx.find(WorkUnit, state=(UnitState.OPEN, UnitState.LEASED, UnitState.ACCEPTED)):
        digests |= {digest for digest in (unit.update, unit.continuation if unit.state is not UnitState.ACCEPTED else None) if digest}
    return digests
