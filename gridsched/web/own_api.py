"""What belongs to a node's consumer: all that is stored of it, to take along, and its end."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gridsched.core.consent import Consent
from gridsched.core.fleet import Node, Presence
from gridsched.core.lease import Lease
from gridsched.core.meter import MeterReading
from gridsched.flow import own
from gridsched.flow.statement import statement
from gridsched.ports import Tx
from gridsched.web import views
from gridsched.web.answers import Answers
from gridsched.web.channel import Hub
from gridsched.web.doors import Doors
from gridsched.web.gate import Gate
from gridsched.web.messages import answer, read_body
from gridsched.wire import Leave, Left, decode

__all__ = ["OwnApi"]

_AT_ONCE = 1000


class OwnApi:
    """Two doors, for a node's own token alone."""

    def __init__(self, doors: Doors, gate: Gate, answers: Answers, hub: Hub) -> None:
        self._doors = doors
        self._gate = gate
        self._answers = answers
        self._hub = hub

    def routes(self) -> list[BaseRoute]:
        """In the order of the table in `gridsched.wire`."""
        return [
            Route("/v1/node/record", self.record, methods=["GET"]),
            Route("/v1/node/leave", self.leave, methods=["POST"]),
        ]

    async def record(self, request: Request) -> Response:
        node_id = await self._gate.node(request.scope)

        def read() -> dict[str, Any]:
            with self._doors.store.read() as tx:
                return _record(tx, node_id)

        return answer(await asyncio.to_thread(read))

    async def leave(self, request: Request) -> Response:
        node_id = await self._gate.node(request.scope)
        wanted = decode(await read_body(request.scope, request.receive, limit=self._doors.limits.max_body_bytes), Leave)
        await self._answers.of(self._doors.writer.submit(partial(own.leave, node_id=node_id, erase=wanted.erase)))
        self._gate.forget(node_id)
        self._hub.hang_up(node_id)
        return answer(Left(node_id=node_id))


def _record(tx: Tx, node_id: str) -> dict[str, Any]:
    """Every row about the node, and every fact that names it; its token is known by a hash, which is nobody's to have."""
    return {
        "node": views.plain(replace(tx.must(Node, node_id), token_hash="")),
        "presence": views.plain(tx.get(Presence, node_id)),
        "consent": views.plain(tx.get(Consent, node_id)),
        "leases": views.plain(tx.find(Lease, node_id=node_id)),
        "meter_readings": views.plain(tx.find(MeterReading, node_id=node_id)),
        "statement": views.plain(statement(tx, node_id)),
        "facts": list(chain.from_iterable(_facts(tx, node_id))),
    }


def _facts(tx: Tx, node_id: str) -> Iterator[list[dict[str, Any]]]:
    since = 0
    while found := tx.facts(since=since, limit=_AT_ONCE, subject=node_id):
        yield [views.fact(sequence, fact) for sequence, fact in found]
        since = found[-1][0]
