"""The model owner's doors: jobs and datasets, what they are doing, and what becomes of them."""

import asyncio
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gridsched.core.access import Role
from gridsched.core.errors import InvalidInput, NotFound
from gridsched.core.job import Dataset, Job, JobSpec
from gridsched.core.round import Epoch, Version
from gridsched.flow import admit, ask
from gridsched.flow.case import case_of
from gridsched.ports import Tx
from gridsched.web import ahead, views, waiting
from gridsched.web.intake import check_dataset, check_job, wasm_lacks
from gridsched.web.messages import answer, strict
from gridsched.web.reception import Reception, number, only

__all__ = ["JobApi"]


class _Evaluate(msgspec.Struct, forbid_unknown_fields=True):
    version: int


class JobApi:
    """Everything that is asked and ordered about jobs."""

    def __init__(self, reception: Reception) -> None:
        self._at = reception
        self._doors = reception.doors

    def routes(self) -> list[BaseRoute]:
        """One line a door: path, handler, role, method."""
        look, order, door = Role.VIEWER, Role.OPERATOR, self._at.door
        return [
            door("/v1/jobs", self.jobs, look),
            door("/v1/jobs", self.submit, order, "POST"),
            door("/v1/jobs/{job_id}", self.job, look),
            door("/v1/jobs/{job_id}/cancel", self.cancel, order, "POST"),
            door("/v1/jobs/{job_id}/evaluate", self.evaluate, order, "POST"),
            door("/v1/jobs/{job_id}/versions", self.versions, look),
            door("/v1/jobs/{job_id}/epochs", self.epochs, look),
            door("/v1/jobs/{job_id}/schedule", self.schedule, look),
            door("/v1/jobs/{job_id}/units", self.units, look),
            door("/v1/units/{unit_id}", self.unit, look),
            door("/v1/datasets", self.datasets, look),
            door("/v1/datasets", self.add_dataset, order, "POST"),
        ]

    # -- looking

    async def jobs(self, _: Request) -> Response:
        return answer(await self._at.read(lambda tx: [views.job(tx, found) for found in tx.find(Job)]))

    async def job(self, request: Request) -> Response:
        return answer(await self._at.read(lambda tx: views.job(tx, _job(tx, request))))

    async def versions(self, request: Request) -> Response:
        return answer(await self._at.read(lambda tx: views.plain(tx.find(Version, job_id=_job(tx, request).job_id, order="number"))))

    async def epochs(self, request: Request) -> Response:
        return answer(await self._at.read(lambda tx: views.plain(tx.find(Epoch, job_id=_job(tx, request).job_id, order="number"))))

    async def units(self, request: Request) -> Response:
        only(request, "limit")
        now, pace, limit = self._doors.clock.now(), self._doors.rules.pace, number(request, "limit", 1000)
        return answer(await self._at.read(lambda tx: waiting.units(tx, _job(tx, request), now, pace=pace, limit=limit)))

    async def unit(self, request: Request) -> Response:
        return answer(await self._at.read(lambda tx: views.plain(case_of(tx, request.path_params["unit_id"]))))

    async def schedule(self, request: Request) -> Response:
        def told(tx: Tx) -> Any:
            job = _job(tx, request)
            return ahead.schedule(tx, job, self._at.policy_of(job.spec.zone), self._doors.clock.now())

        return answer(await self._at.read(told))

    async def datasets(self, _: Request) -> Response:
        return answer(await self._at.read(lambda tx: views.plain(tx.find(Dataset))))

    # -- ordering

    async def submit(self, request: Request) -> Response:
        """The job's files are read before the writer is asked: a job that cannot run is refused here, by name."""
        spec = strict(await self._at.body(request), JobSpec)
        if spec.zone not in self._doors.policies:
            raise InvalidInput(f"job {spec.job_id}: there is no zone {spec.zone!r}; this daemon has {', '.join(self._doors.policies)}")
        initial_bytes = await asyncio.to_thread(check_job, spec, self._doors.blobs)
        lacking = await asyncio.to_thread(wasm_lacks, spec, self._doors.blobs)
        submit = partial(admit.submit, spec=spec, initial_bytes=initial_bytes, wasm_lacks=lacking)
        await self._at.change(request, submit, verb="submit_job", thing=f"job {spec.job_id}", detail=f"zone {spec.zone}")
        return answer({"job_id": spec.job_id, "wasm_lacks": lacking}, status=201)

    async def cancel(self, request: Request) -> Response:
        job_id = request.path_params["job_id"]
        await self._at.change(request, partial(admit.cancel, job_id=job_id), verb="cancel_job", thing=f"job {job_id}")
        return answer({"job_id": job_id})

    async def evaluate(self, request: Request) -> Response:
        job_id, wanted = request.path_params["job_id"], strict(await self._at.body(request), _Evaluate)
        evaluate = partial(ask.evaluate, job_id=job_id, number=wanted.version)
        await self._at.change(request, evaluate, verb="evaluate_version", thing=f"job {job_id}", detail=f"version {wanted.version}")
        return answer({"job_id": job_id, "version": wanted.version}, status=202)

    async def add_dataset(self, request: Request) -> Response:
        dataset = strict(await self._at.body(request), Dataset)
        await asyncio.to_thread(check_dataset, dataset, self._doors.blobs)
        add = partial(admit.add_dataset, dataset=dataset)
        await self._at.change(request, add, verb="add_dataset", thing=f"dataset {dataset.name}", detail=f"{dataset.samples} samples")
        return answer({"name": dataset.name}, status=201)


def _job(tx: Tx, request: Request) -> Job:
    job_id = request.path_params["job_id"]
    found = tx.get(Job, job_id)
    if found is None:
        raise NotFound(f"there is no job {job_id}; see gridsched job list")
    return found
