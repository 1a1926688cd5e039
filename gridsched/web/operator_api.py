"""The operator's doors: status, jobs, datasets, invitations, nodes, decisions and why, the ledger, and the pause switch.

Reads run in a worker thread over one consistent view; writes are verbs like any other. The role each route needs stands beside it.
"""

import asyncio
import csv
import io
import secrets
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import msgspec
from prometheus_client import generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gridsched import __version__
from gridsched.core import facts
from gridsched.core.access import Role, secret_hash
from gridsched.core.errors import GridschedError, InvalidInput, MessageError, NotFound
from gridsched.core.facts import Fact, kind_of
from gridsched.core.fleet import Node
from gridsched.core.job import Dataset, Job, JobSpec, is_name
from gridsched.core.ledger import Transfer
from gridsched.core.policy import Decision, Policy
from gridsched.core.quantity import unknown_key
from gridsched.core.round import Epoch, Version
from gridsched.core.signal import SignalKind
from gridsched.flow import admit, ask, quarantine
from gridsched.ports import Reply, Tx
from gridsched.web import ahead, views, waiting
from gridsched.web.answers import Answers
from gridsched.web.channel import Hub
from gridsched.web.doors import Doors, moment
from gridsched.web.gate import Gate
from gridsched.web.intake import check_dataset, check_job
from gridsched.web.messages import answer, read_body, strict

__all__ = ["OperatorApi"]

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]

_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # no 0, O, 1, I: codes are read aloud and typed
_CODE_GROUPS, _GROUP = 4, 4
_MOST_ROWS = 100_000
_MOST_DAYS = 14
_KINDS = frozenset(kind_of(getattr(facts, name)) for name in facts.__all__ if isinstance(getattr(facts, name), type)) - {kind_of(Fact)}


class _Invite(msgspec.Struct, forbid_unknown_fields=True):
    zone: str
    for_s: float = 24 * 3600.0


class _Evaluate(msgspec.Struct, forbid_unknown_fields=True):
    version: int


class _NewToken(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    role: Role


class OperatorApi:
    """Everything a person or a program on the operator's side may ask or order."""

    def __init__(self, doors: Doors, gate: Gate, answers: Answers, hub: Hub) -> None:
        self._doors = doors
        self._gate = gate
        self._answers = answers
        self._hub = hub

    def routes(self) -> list[BaseRoute]:
        """One line a door: path, handler, role, method."""
        look, order, rule = Role.VIEWER, Role.OPERATOR, Role.ADMIN
        return [
            Route("/healthz", self.health, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
            self._door("/v1/status", self.status, look),
            self._door("/v1/jobs", self.jobs, look),
            self._door("/v1/jobs", self.submit, order, "POST"),
            self._door("/v1/jobs/{job_id}", self.job, look),
            self._door("/v1/jobs/{job_id}/cancel", self.cancel, order, "POST"),
            self._door("/v1/jobs/{job_id}/evaluate", self.evaluate, order, "POST"),
            self._door("/v1/jobs/{job_id}/versions", self.versions, look),
            self._door("/v1/jobs/{job_id}/epochs", self.epochs, look),
            self._door("/v1/jobs/{job_id}/schedule", self.schedule, look),
            self._door("/v1/jobs/{job_id}/units", self.units, look),
            self._door("/v1/datasets", self.datasets, look),
            self._door("/v1/datasets", self.add_dataset, order, "POST"),
            self._door("/v1/invites", self.invite, order, "POST"),
            self._door("/v1/nodes", self.nodes, look),
            self._door("/v1/nodes/{node_id}/revoke", self.revoke, order, "POST"),
            self._door("/v1/nodes/{node_id}/pardon", self.pardon, order, "POST"),
            self._door("/v1/zones/{zone}/decisions", self.decisions, look),
            self._door("/v1/zones/{zone}/forecast", self.forecast, look),
            self._door("/v1/zones/{zone}/explain", self.explain, look),
            self._door("/v1/zones/{zone}/pause", partial(self.pause, paused=True), order, "POST"),
            self._door("/v1/zones/{zone}/resume", partial(self.pause, paused=False), order, "POST"),
            self._door("/v1/decisions/{decision_id}", self.decision, look),
            self._door("/v1/leases/{lease_id}", self.lease, look),
            self._door("/v1/explain/lease/{lease_id}", self.lease, look),
            self._door("/v1/explain/decision/{decision_id}", self.decision, look),
            self._door("/v1/facts", self.facts, look),
            self._door("/v1/ledger", self.ledger, look),
            self._door("/v1/ledger/transfers", self.transfers, look),
            self._door("/v1/tokens", self.new_token, rule, "POST"),
        ]

    def _door(self, path: str, handler: Handler, role: Role, method: str = "GET") -> Route:
        async def guarded(request: Request) -> Response:
            await self._gate.demand(request.scope, role)
            return await handler(request)

        return Route(path, guarded, methods=[method])

    # -- open to all

    async def health(self, _: Request) -> Response:
        """200 where the store answers, else 503. It tells nothing that a stranger could use."""
        clock = self._doors.clock
        try:
            await self._read(lambda tx: tx.get(Job, ""))
        except GridschedError:
            store = "unreachable"
        else:
            store = "ok"
        body = {"status": store, "store": store, "version": __version__, "now": clock.now().isoformat(), "clock_speed": clock.speed}
        return answer(body, status=200 if store == "ok" else 503)

    async def metrics(self, request: Request) -> Response:
        """What Prometheus scrapes."""
        if self._doors.limits.metrics_need_token:
            await self._gate.demand(request.scope, Role.VIEWER)
        text = await asyncio.to_thread(generate_latest, self._doors.registry)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    # -- looking

    async def status(self, _: Request) -> Response:
        doors = self._doors
        policies = list(doors.policies.values())
        return answer(
            await self._read(
                lambda tx: views.status(tx, policies, now=doors.clock.now(), speed=doors.clock.speed, dry_run=doors.rules.dry_run)
            )
        )

    async def jobs(self, _: Request) -> Response:
        return answer(await self._read(lambda tx: [views.job(tx, found) for found in tx.find(Job)]))

    async def job(self, request: Request) -> Response:
        return answer(await self._read(lambda tx: views.job(tx, _job(tx, request))))

    async def versions(self, request: Request) -> Response:
        return answer(await self._read(lambda tx: views.plain(tx.find(Version, job_id=_job(tx, request).job_id, order="number"))))

    async def epochs(self, request: Request) -> Response:
        return answer(await self._read(lambda tx: views.plain(tx.find(Epoch, job_id=_job(tx, request).job_id, order="number"))))

    async def units(self, request: Request) -> Response:
        _only(request, "limit")
        now, pace, limit = self._doors.clock.now(), self._doors.rules.pace, _number(request, "limit", 1000)
        return answer(await self._read(lambda tx: waiting.units(tx, _job(tx, request), now, pace=pace, limit=limit)))

    async def schedule(self, request: Request) -> Response:
        def told(tx: Tx) -> Any:
            job = _job(tx, request)
            return ahead.schedule(tx, job, self._policy(job.spec.zone), self._doors.clock.now())

        return answer(await self._read(told))

    async def forecast(self, request: Request) -> Response:
        _only(request, "signal", "days")
        policy, now = self._policy(self._zone(request)), self._doors.clock.now()
        signal = _signal(request.query_params.get("signal", policy.schedule.objective.value))
        days = min(_number(request, "days", 5), _MOST_DAYS)
        return answer(await self._read(lambda tx: ahead.forecast(tx, policy, signal, now, days=days)))

    async def explain(self, request: Request) -> Response:
        _only(request, "at")
        policy, now = self._policy(self._zone(request)), self._doors.clock.now()
        at = moment(request.query_params["at"], name="at") if "at" in request.query_params else None
        return answer(await self._read(lambda tx: ahead.around(tx, policy, at, now)))

    async def datasets(self, _: Request) -> Response:
        return answer(await self._read(lambda tx: views.plain(tx.find(Dataset))))

    async def nodes(self, _: Request) -> Response:
        now, connected = self._doors.clock.now(), self._hub.present()
        return answer(await self._read(lambda tx: views.nodes(tx, now=now, connected=connected)))

    async def decisions(self, request: Request) -> Response:
        _only(request, "since", "limit")
        zone = self._zone(request)
        since = moment(request.query_params["since"], name="since") if "since" in request.query_params else None
        limit = _number(request, "limit", 1000)
        rows = await self._read(lambda tx: tx.find(Decision, zone=zone, order="-decided_at", limit=limit))
        return answer([views.plain(d) | {"decision_id": d.decision_id} for d in reversed(rows) if since is None or d.decided_at >= since])

    async def decision(self, request: Request) -> Response:
        return answer(await self._read(lambda tx: views.decision_story(tx, request.path_params["decision_id"])))

    async def lease(self, request: Request) -> Response:
        return answer(await self._read(lambda tx: views.lease_story(tx, request.path_params["lease_id"])))

    async def facts(self, request: Request) -> Response:
        _only(request, "since", "limit", "kinds", "subject")
        since, limit = _number(request, "since", 0), _number(request, "limit", 1000)
        kinds = [kind for kind in request.query_params.get("kinds", "").split(",") if kind]
        if strange := [kind for kind in kinds if kind not in _KINDS]:
            raise InvalidInput(f"kinds: {unknown_key(strange[0], _KINDS)}")
        subject = request.query_params.get("subject", "")
        found = await self._read(lambda tx: tx.facts(since=since, limit=limit, kinds=kinds, subject=subject))
        return answer([views.fact(number, said) for number, said in found])

    async def ledger(self, _: Request) -> Response:
        return answer(await self._read(views.ledger))

    async def transfers(self, request: Request) -> Response:
        _only(request, "format")
        form = request.query_params.get("format", "json")
        if form not in ("json", "csv"):
            raise InvalidInput(f"format={form!r} is not known; use json or csv")
        rows: list[dict[str, Any]] = await self._read(lambda tx: [views.plain(t) for t in tx.find(Transfer, order="sequence")])
        if form == "json":
            return answer(rows)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(Transfer.__slots__), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return Response(text.getvalue(), media_type="text/csv; charset=utf-8")

    # -- ordering

    async def submit(self, request: Request) -> Response:
        """The job's files are read before the writer is asked: a job that cannot run is refused here, by name."""
        spec = strict(await self._body(request), JobSpec)
        if spec.zone not in self._doors.policies:
            raise InvalidInput(f"job {spec.job_id}: there is no zone {spec.zone!r}; this daemon has {', '.join(self._doors.policies)}")
        initial_bytes = await asyncio.to_thread(check_job, spec, self._doors.blobs)
        await self._do(partial(admit.submit, spec=spec, initial_bytes=initial_bytes))
        return answer({"job_id": spec.job_id}, status=201)

    async def cancel(self, request: Request) -> Response:
        await self._do(partial(admit.cancel, job_id=request.path_params["job_id"]))
        return answer({"job_id": request.path_params["job_id"]})

    async def evaluate(self, request: Request) -> Response:
        job_id, wanted = request.path_params["job_id"], strict(await self._body(request), _Evaluate)
        await self._do(partial(ask.evaluate, job_id=job_id, number=wanted.version))
        return answer({"job_id": job_id, "version": wanted.version}, status=202)

    async def add_dataset(self, request: Request) -> Response:
        dataset = strict(await self._body(request), Dataset)
        await asyncio.to_thread(check_dataset, dataset, self._doors.blobs)
        await self._do(partial(admit.add_dataset, dataset=dataset))
        return answer({"name": dataset.name}, status=201)

    async def invite(self, request: Request) -> Response:
        wanted = strict(await self._body(request), _Invite)
        if wanted.zone not in self._doors.policies:
            raise InvalidInput(f"there is no zone {wanted.zone!r}; this daemon has {', '.join(self._doors.policies)}")
        if not 0 < wanted.for_s <= 366 * 86400:
            raise InvalidInput(f"an invitation lasts between a second and a year, not {wanted.for_s} s")
        code = "-".join("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP)) for _ in range(_CODE_GROUPS))
        valid_for = timedelta(seconds=wanted.for_s)
        expires_at: datetime = await self._do(partial(_invite, zone=wanted.zone, code_hash=secret_hash(code), valid_for=valid_for))
        return answer({"code": code, "zone": wanted.zone, "expires_at": expires_at.isoformat()}, status=201)

    async def revoke(self, request: Request) -> Response:
        node_id = request.path_params["node_id"]
        await self._read(lambda tx: tx.must(Node, node_id))
        await self._do(partial(admit.revoke_node, node_id=node_id))
        self._gate.forget(node_id)
        self._hub.hang_up(node_id)
        return answer({"node_id": node_id})

    async def pardon(self, request: Request) -> Response:
        node_id = request.path_params["node_id"]
        await self._do(partial(quarantine.pardon, node_id=node_id))
        return answer({"node_id": node_id})

    async def pause(self, request: Request, *, paused: bool) -> Response:
        zone = self._zone(request)
        await self._do(partial(admit.pause_zone, zone=zone, paused=paused))
        return answer({"zone": zone, "paused": paused})

    async def new_token(self, request: Request) -> Response:
        wanted = strict(await self._body(request), _NewToken)
        if not is_name(wanted.name):
            raise InvalidInput(f"token name {wanted.name[:80]!r} must be lower-case letters, digits, - and _, at most 63")
        if wanted.role is Role.NODE:
            raise InvalidInput("a node gets its token by joining; make it an invitation instead")
        token = secrets.token_urlsafe(32)
        await self._do(partial(admit.new_token, name=wanted.name, role=wanted.role, token_hash=secret_hash(token)))
        return answer({"name": wanted.name, "role": wanted.role, "token": token}, status=201)

    # -- tools

    async def _read(self, look: Callable[[Tx], T]) -> T:
        def read() -> T:
            with self._doors.store.read() as tx:
                return look(tx)

        return await asyncio.to_thread(read)

    async def _do(self, verb: Any) -> Any:
        return await self._answers.of(self._doors.writer.submit(verb))

    async def _body(self, request: Request) -> bytes:
        return await read_body(request.scope, request.receive, limit=self._doors.limits.max_body_bytes)

    def _zone(self, request: Request) -> str:
        zone: str = request.path_params["zone"]
        return self._policy(zone).zone

    def _policy(self, zone: str) -> Policy:
        if zone not in self._doors.policies:
            raise NotFound(f"there is no zone {zone!r}; this daemon has {', '.join(self._doors.policies)}")
        return self._doors.policies[zone]


def _job(tx: Tx, request: Request) -> Job:
    job_id = request.path_params["job_id"]
    found = tx.get(Job, job_id)
    if found is None:
        raise NotFound(f"there is no job {job_id}; see gridsched job list")
    return found


def _invite(tx: Tx, now: datetime, *, zone: str, code_hash: str, valid_for: timedelta) -> Reply[datetime]:
    return Reply(now + valid_for, admit.new_invite(tx, now, zone=zone, code_hash=code_hash, valid_for=valid_for))


def _only(request: Request, *known: str) -> None:
    """Raise for a query parameter that would be passed over in silence."""
    for name in request.query_params:
        if name not in known:
            raise MessageError(f"{request.url.path}: {unknown_key(name, known)}")


def _signal(name: str) -> SignalKind:
    if name not in SignalKind.__members__.values():
        raise InvalidInput(f"signal: {unknown_key(name, SignalKind)}")
    return SignalKind(name)


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidInput(f"{name}={text[:40]!r} must be a whole number, 0 or more")
    return min(int(text), _MOST_ROWS) if name == "limit" else int(text)
