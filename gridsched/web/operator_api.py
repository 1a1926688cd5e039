"""The operator's doors: status, nodes, decisions and why, the ledger, and a zone's pause switch.

The role that each needs stands beside it. Jobs have doors of their own (`job_api`), and so have invitations and tokens (`access_api`)
and what only a console asks (`console_api`).
"""

import asyncio
from functools import partial

import msgspec
from prometheus_client import generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gridsched import __version__
from gridsched.core import facts
from gridsched.core.access import Role
from gridsched.core.errors import GridschedError, InvalidInput
from gridsched.core.facts import Fact, kind_of
from gridsched.core.fleet import Node
from gridsched.core.job import Job
from gridsched.core.ledger import Transfer
from gridsched.core.policy import Decision
from gridsched.core.quantity import unknown_key
from gridsched.core.signal import SignalKind
from gridsched.flow import admit, quarantine
from gridsched.web import ahead, views
from gridsched.web.channel import Hub
from gridsched.web.doors import moment
from gridsched.web.messages import answer, strict
from gridsched.web.reception import Reception, caller_of, number, only, table

__all__ = ["OperatorApi"]

_MOST_DAYS = 14
_LONGEST_WHY = 200
_KINDS = frozenset(kind_of(getattr(facts, name)) for name in facts.__all__ if isinstance(getattr(facts, name), type)) - {kind_of(Fact)}


class _Quarantine(msgspec.Struct, forbid_unknown_fields=True):
    why: str


class OperatorApi:
    """Everything a person or a program on the operator's side may ask or order."""

    def __init__(self, reception: Reception, hub: Hub) -> None:
        self._at = reception
        self._doors = reception.doors
        self._hub = hub

    def routes(self) -> list[BaseRoute]:
        """One line a door: path, handler, role, method."""
        look, order, door = Role.VIEWER, Role.OPERATOR, self._at.door
        return [
            Route("/healthz", self.health, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
            door("/v1/status", self.status, look),
            door("/v1/nodes", self.nodes, look),
            door("/v1/nodes/{node_id}/revoke", self.revoke, order, "POST"),
            door("/v1/nodes/{node_id}/pardon", self.pardon, order, "POST"),
            door("/v1/nodes/{node_id}/quarantine", self.quarantine, order, "POST"),
            door("/v1/zones/{zone}/decisions", self.decisions, look),
            door("/v1/zones/{zone}/forecast", self.forecast, look),
            door("/v1/zones/{zone}/explain", self.explain, look),
            door("/v1/zones/{zone}/pause", partial(self.pause, paused=True), order, "POST"),
            door("/v1/zones/{zone}/resume", partial(self.pause, paused=False), order, "POST"),
            door("/v1/decisions/{decision_id}", self.decision, look),
            door("/v1/leases/{lease_id}", self.lease, look),
            door("/v1/explain/lease/{lease_id}", self.lease, look),
            door("/v1/explain/decision/{decision_id}", self.decision, look),
            door("/v1/facts", self.facts, look),
            door("/v1/ledger", self.ledger, look),
            door("/v1/ledger/transfers", self.transfers, look),
        ]

    # -- open to all

    async def health(self, _: Request) -> Response:
        """200 where the store answers, else 503. It tells nothing that a stranger could use."""
        clock = self._doors.clock
        try:
            await self._at.read(lambda tx: tx.get(Job, ""))
        except GridschedError:
            store = "unreachable"
        else:
            store = "ok"
        body = {"status": store, "store": store, "version": __version__, "now": clock.now().isoformat(), "clock_speed": clock.speed}
        return answer(body, status=200 if store == "ok" else 503)

    async def metrics(self, request: Request) -> Response:
        """What Prometheus scrapes."""
        if self._doors.limits.metrics_need_token:
            await self._at.gate.demand(request.scope, Role.VIEWER)
        text = await asyncio.to_thread(generate_latest, self._doors.registry)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    # -- looking

    async def status(self, _: Request) -> Response:
        doors = self._doors
        policies = list(doors.policies.values())
        return answer(
            await self._at.read(
                lambda tx: views.status(tx, policies, now=doors.clock.now(), speed=doors.clock.speed, dry_run=doors.rules.dry_run)
            )
        )

    async def forecast(self, request: Request) -> Response:
        only(request, "signal", "days")
        policy, now = self._at.policy(request), self._doors.clock.now()
        signal = _signal(request.query_params.get("signal", policy.schedule.objective.value))
        days = min(number(request, "days", 5), _MOST_DAYS)
        return answer(await self._at.read(lambda tx: ahead.forecast(tx, policy, signal, now, days=days)))

    async def explain(self, request: Request) -> Response:
        only(request, "at")
        policy, now = self._at.policy(request), self._doors.clock.now()
        at = moment(request.query_params["at"], name="at") if "at" in request.query_params else None
        return answer(await self._at.read(lambda tx: ahead.around(tx, policy, at, now)))

    async def nodes(self, _: Request) -> Response:
        now, connected = self._doors.clock.now(), self._hub.present()
        return answer(await self._at.read(lambda tx: views.nodes(tx, now=now, connected=connected)))

    async def decisions(self, request: Request) -> Response:
        only(request, "since", "limit")
        zone = self._at.policy(request).zone
        since = moment(request.query_params["since"], name="since") if "since" in request.query_params else None
        limit = number(request, "limit", 1000)
        rows = await self._at.read(lambda tx: tx.find(Decision, zone=zone, order="-decided_at", limit=limit))
        return answer([views.plain(d) | {"decision_id": d.decision_id} for d in reversed(rows) if since is None or d.decided_at >= since])

    async def decision(self, request: Request) -> Response:
        return answer(await self._at.read(lambda tx: views.decision_story(tx, request.path_params["decision_id"])))

    async def lease(self, request: Request) -> Response:
        return answer(await self._at.read(lambda tx: views.lease_story(tx, request.path_params["lease_id"])))

    async def facts(self, request: Request) -> Response:
        only(request, "since", "limit", "kinds", "subject")
        since, limit = number(request, "since", 0), number(request, "limit", 1000)
        kinds = [kind for kind in request.query_params.get("kinds", "").split(",") if kind]
        if strange := [kind for kind in kinds if kind not in _KINDS]:
            raise InvalidInput(f"kinds: {unknown_key(strange[0], _KINDS)}")
        subject = request.query_params.get("subject", "")
        found = await self._at.read(lambda tx: tx.facts(since=since, limit=limit, kinds=kinds, subject=subject))
        return answer([views.fact(number, said) for number, said in found])

    async def ledger(self, _: Request) -> Response:
        return answer(await self._at.read(views.ledger))

    async def transfers(self, request: Request) -> Response:
        only(request, "format", "limit")
        limit = number(request, "limit", 0) or None
        newest = await self._at.read(lambda tx: tx.find(Transfer, order="-sequence", limit=limit))
        return table(request, [views.plain(transfer) for transfer in reversed(newest)], list(Transfer.__slots__))

    # -- ordering

    async def revoke(self, request: Request) -> Response:
        node_id = request.path_params["node_id"]
        await self._at.read(lambda tx: tx.must(Node, node_id))
        await self._at.change(request, partial(admit.revoke_node, node_id=node_id), verb="revoke_node", thing=f"node {node_id}")
        self._at.gate.forget(node_id)
        self._hub.hang_up(node_id)
        return answer({"node_id": node_id})

    async def pardon(self, request: Request) -> Response:
        node_id = request.path_params["node_id"]
        await self._at.change(request, partial(quarantine.pardon, node_id=node_id), verb="pardon_node", thing=f"node {node_id}")
        return answer({"node_id": node_id})

    async def quarantine(self, request: Request) -> Response:
        node_id, wanted = request.path_params["node_id"], strict(await self._at.body(request), _Quarantine)
        why = wanted.why.strip()
        if not 0 < len(why) <= _LONGEST_WHY:
            raise InvalidInput(f"say why in 1 to {_LONGEST_WHY} characters: the node's owner reads it")
        shut = partial(quarantine.quarantine, node_id=node_id, unit_id="", why=why)
        await self._at.change(request, shut, verb="quarantine_node", thing=f"node {node_id}", detail=why)
        return answer({"node_id": node_id})

    async def pause(self, request: Request, *, paused: bool) -> Response:
        zone = self._at.policy(request).zone
        switch = partial(admit.pause_zone, zone=zone, paused=paused, by=caller_of(request).name)
        await self._at.change(request, switch, verb="pause_zone" if paused else "resume_zone", thing=f"zone {zone}")
        return answer({"zone": zone, "paused": paused})


def _signal(name: str) -> SignalKind:
    if name not in SignalKind.__members__.values():
        raise InvalidInput(f"signal: {unknown_key(name, SignalKind)}")
    return SignalKind(name)
