"""Plans for pages: a page has no planner, so it gets the list of kernel calls for the batches of its unit from here.

Autograd happens while planning, so a plan costs a thread's time; it is made once, one at a time, off the loop, and kept. Only what
running jobs need is planned at all: their programs, their optimizer, batches up to theirs. A unit takes a few plans; a node that
asks for ever others waits, so that none can keep the daemon planning.
"""

import asyncio
import hashlib
from collections import OrderedDict
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gridsched.core.errors import InvalidInput, MessageError, NotFound, OtherRelease
from gridsched.core.job import Job, JobSpec, JobState, is_digest
from gridsched.core.method import InnerOptimizer
from gridsched.core.work import UnitKind
from gridsched.train.plan import plan_of
from gridsched.train.plan.format import KINDS
from gridsched.train.program import from_bytes
from gridsched.web.doors import Doors
from gridsched.web.gate import Gate, Pace
from gridsched.web.messages import strict
from gridsched.web.pages import BUILT
from gridsched.web.reception import number, only

__all__ = ["PlanApi"]

_KERNELS = "Gridsched-Kernels"
_MOST_BYTES = 64 << 20
_NEW_PER_S, _NEW_AT_ONCE = 0.1, 12  # plans that one node has made anew; a page that has to wait asks again
_LARGEST_TEST_BATCH = 64  # of an evaluation that an earlier release has begun; since then they take the job's batch


class PlanApi:
    """``GET /v1/node/plan/{program}``; ``built`` is the folder that the kernels lie in."""

    def __init__(self, doors: Doors, gate: Gate, built: Path = BUILT) -> None:
        self._doors = doors
        self._gate = gate
        self._module = built / "kernels.wasm"
        self._kernels: tuple[int, str] = (0, "")
        self._plans: OrderedDict[tuple[str, str, int, bytes], bytes] = OrderedDict()
        self._bytes = 0
        self._planning = asyncio.Lock()
        self._pace = Pace(_NEW_PER_S, saved=_NEW_AT_ONCE)

    def routes(self) -> list[BaseRoute]:
        """The one door."""
        return [Route("/v1/node/plan/{program}", self.plan, methods=["GET"])]

    async def plan(self, request: Request) -> Response:
        node_id = await self._gate.node(request.scope)
        only(request, "kind", "batch", "inner")
        kernels = await asyncio.to_thread(self._kernels_digest)
        said = request.headers.get(_KERNELS, kernels)
        if said != kernels:
            raise OtherRelease(f"this page has kernels {said[:8]}, the daemon {kernels[:8]}; load the page again")
        program, kind, batch, inner = _asked(request)
        await asyncio.to_thread(self._demand_job, program, kind, batch, inner)
        data = await self._made(node_id, program, kind, batch, inner)
        etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        headers = {_KERNELS: kernels, "ETag": etag, "Cache-Control": "private, no-cache"}
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(data, media_type="application/octet-stream", headers=headers)

    def _kernels_digest(self) -> str:
        """The sha256 of the module, read anew where it was built anew."""
        try:
            stamp = self._module.stat().st_mtime_ns
            if self._kernels[0] != stamp:
                self._kernels = stamp, hashlib.sha256(self._module.read_bytes()).hexdigest()
        except FileNotFoundError as error:
            raise NotFound("the kernels are not built here; run make setup in the checkout, or install a release") from error
        return self._kernels[1]

    def _demand_job(self, program: str, kind: str, batch: int, inner: InnerOptimizer) -> None:
        """Raise unless a running job has units that need this plan."""
        with self._doors.store.read() as tx:
            specs = [job.spec for job in tx.find(Job, state=JobState.RUNNING) if job.spec.program == program]
        if not specs:
            raise NotFound(f"no running job has program {program[:12]}; ask for the orders again")
        if not any(spec.method.inner == inner and batch <= _largest(spec, kind) for spec in specs):
            most = max(_largest(spec, kind) for spec in specs)
            raise InvalidInput(f"no running job of program {program[:12]} needs this plan: batches are 1 to {most}, the optimizer its own")

    async def _made(self, node_id: str, program: str, kind: str, batch: int, inner: InnerOptimizer) -> bytes:
        key = (program, kind, batch, msgspec.json.encode(inner))
        if key not in self._plans:
            self._pace.take(node_id, asyncio.get_running_loop().time(), name=f"{node_id}, for new plans,")
            async with self._planning:
                if key not in self._plans:
                    self._keep(key, await asyncio.to_thread(self._make, program, kind, batch, inner))
        self._plans.move_to_end(key)
        return self._plans[key]

    def _make(self, program: str, kind: str, batch: int, inner: InnerOptimizer) -> bytes:
        found, _ = from_bytes(self._doors.blobs.get(program))
        return plan_of(found, kind=kind, batch=batch, inner=inner).to_bytes()

    def _keep(self, key: tuple[str, str, int, bytes], data: bytes) -> None:
        """The newest plan stays, whatever its size; the longest unused ones go."""
        self._plans[key] = data
        self._bytes += len(data)
        while self._bytes > _MOST_BYTES and len(self._plans) > 1:
            _, dropped = self._plans.popitem(last=False)
            self._bytes -= len(dropped)


def _asked(request: Request) -> tuple[str, str, int, InnerOptimizer]:
    program, query = request.path_params["program"], request.query_params
    if not is_digest(program):
        raise InvalidInput(f"{program[:80]!r} is not a digest; a program is named by its sha256 in lower-case hexadecimal")
    kind = query.get("kind", "")
    if kind not in KINDS:
        raise InvalidInput(f"kind={kind[:40]!r} is not known; use one of {', '.join(KINDS)}")
    batch = number(request, "batch", 0)
    if batch < 1:
        raise InvalidInput("batch must be 1 or more")
    if "inner" not in query:
        raise MessageError("inner is missing: the unit's inner optimizer as JSON")
    return program, kind, batch, strict(query["inner"].encode(), InnerOptimizer)


def _largest(spec: JobSpec, kind: str) -> int:
    size = spec.method.batch_size
    return max(size, _LARGEST_TEST_BATCH) if kind == UnitKind.EVALUATE else size
