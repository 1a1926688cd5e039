"""What a node's zone has to offer now: whoever is asked for a device's time sees, before saying yes, what it is for and what it pays."""

import asyncio
from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gridsched.core.errors import NotFound
from gridsched.core.fleet import Node
from gridsched.core.job import Dataset, Job, JobState
from gridsched.core.policy import Decision
from gridsched.core.round import Version
from gridsched.core.zone import ZoneState
from gridsched.ports import Tx
from gridsched.web.doors import Doors
from gridsched.web.gate import Gate
from gridsched.web.messages import answer
from gridsched.wire import Offer, OfferedJob

__all__ = ["OfferApi"]

_MOST_JOBS = 5


class OfferApi:
    """One door, for nodes alone: it shows a zone's decision and the names of its running jobs, nothing of other nodes."""

    def __init__(self, doors: Doors, gate: Gate) -> None:
        self._store = doors.store
        self._gate = gate

    def routes(self) -> list[BaseRoute]:
        return [Route("/v1/node/offer", self.offer, methods=["GET"])]

    async def offer(self, request: Request) -> Response:
        node_id = await self._gate.node(request.scope)

        def read() -> Offer:
            with self._store.read() as tx:
                return _offer(tx, node_id)

        return answer(await asyncio.to_thread(read))


def _offer(tx: Tx, node_id: str) -> Offer:
    node = tx.get(Node, node_id)
    if node is None:
        raise NotFound(f"node {node_id} has not joined; open the page again with a new code")
    zone = tx.get(ZoneState, node.zone) or ZoneState(zone=node.zone)
    decision = tx.get(Decision, zone.decision_id) if zone.decision_id else None
    return Offer(
        zone=node.zone,
        target_w=decision.target_w if decision else 0.0,
        reason=decision.reason.value if decision else "no_policy",
        reward_micro_per_kwh=zone.reward_micro_per_kwh,
        reward_micro_per_unit=zone.reward_micro_per_unit,
        jobs=list(_jobs(tx, node.zone)),
    )


def _jobs(tx: Tx, zone: str) -> Iterator[OfferedJob]:
    """The zone's running jobs, those that get work first in front."""
    running = sorted((job for job in tx.find(Job, state=JobState.RUNNING) if job.spec.zone == zone), key=lambda job: job.rank)
    for job in running[:_MOST_JOBS]:
        version = tx.get(Version, job.job_id, job.version)
        evaluated = next((v for v in tx.find(Version, job_id=job.job_id, order="-number", limit=20) if v.accuracy is not None), None)
        named = next(iter(tx.find(Dataset, digest=job.spec.dataset)), None)
        yield OfferedJob(
            job_id=job.job_id,
            name=job.spec.name,
            dataset=named.name if named else "",
            attribution=named.attribution if named else "",
            epoch=version.epoch if version else 0,
            epochs=job.spec.method.epochs,
            accuracy=evaluated.accuracy if evaluated else None,
        )
