"""The node API, as the table in `gridsched.wire` has it. A node sees and changes only its own things: its id comes from its token."""

import asyncio
import secrets
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from gridsched.core.lease import Lease
from gridsched.core.work import WorkUnit
from gridsched.flow import admit, collect
from gridsched.flow.collect import Checked
from gridsched.ports import Reply
from gridsched.web.answers import Answers
from gridsched.web.doors import Doors
from gridsched.web.gate import Gate
from gridsched.web.intake import LONGEST_UNIT
from gridsched.web.messages import answer, read_body
from gridsched.wire import ConsentChoice, HandOver, Hello, Join, Orders, Sync, UpdateNotice, decode, encode

__all__ = ["NodeApi", "SyncDoor"]

M = TypeVar("M")


_TOKEN_BYTES = 32
_TRAIL_BYTES = LONGEST_UNIT // 20 * 80
"""Of the digests along the longest unit, beside what any message may have: at most 80 bytes each, one for every 20 steps."""

_JSON_HEADER = (b"content-type", b"application/json")


class SyncDoor:
    """``POST /v1/node/sync`` as a bare ASGI application: the one call that every node repeats for as long as it lives.

    All syncs that wait go to the store in one call of the verb and one commit.
    """

    def __init__(self, doors: Doors, gate: Gate, answers: Answers) -> None:
        self._writer = doors.writer
        self._gate = gate
        self._answers = answers
        self._limit = doors.limits.max_body_bytes
        self._verb = partial(collect.sync_many, rules=doors.rules)  # one object, so that the writer sees equal verbs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        node_id = await self._gate.node(scope)
        message = decode(await read_body(scope, receive, limit=self._limit), Sync)
        orders: Orders = await self._answers.of(self._writer.submit_many(self._verb, (node_id, message)))
        body = encode(orders)
        await send({"type": "http.response.start", "status": 200, "headers": [_JSON_HEADER, (b"content-length", str(len(body)).encode())]})
        await send({"type": "http.response.body", "body": body})


class NodeApi:
    """Every other call of a node: authenticate, parse, hand the verb over, answer once it is durable."""

    def __init__(self, doors: Doors, gate: Gate, answers: Answers) -> None:
        self._doors = doors
        self._gate = gate
        self._answers = answers

    def routes(self) -> list[BaseRoute]:
        """In the order of the table."""
        return [
            Route("/v1/join", self.join, methods=["POST"]),
            Route("/v1/node/hello", self.hello, methods=["POST"]),
            Route("/v1/node/consent", self.consent, methods=["POST"]),
            Route("/v1/node/hand-over", self.hand_over, methods=["POST"]),
            Route("/v1/node/update", self.update, methods=["POST"]),
            Route("/v1/node/statement", self.statement, methods=["GET"]),
        ]

    async def join(self, request: Request) -> Response:
        """The only call without a token; its code was made by the operator and works once."""
        self._gate.stranger()
        message = await self._read(request, Join)
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        return await self._told(partial(admit.join, message=message, token=token, rules=self._doors.rules))

    async def hello(self, request: Request) -> Response:
        node_id = await self._gate.node(request.scope)
        message = await self._read(request, Hello)
        return await self._told(partial(collect.hello, node_id=node_id, message=message, rules=self._doors.rules))

    async def consent(self, request: Request) -> Response:
        node_id = await self._gate.node(request.scope)
        message = await self._read(request, ConsentChoice)
        return await self._told(partial(collect.choose, node_id=node_id, message=message, rules=self._doors.rules))

    async def hand_over(self, request: Request) -> Response:
        node_id = await self._gate.node(request.scope)
        message = await self._read(request, HandOver)
        if message.continuation is not None:
            await asyncio.to_thread(self._doors.blobs.size, message.continuation)  # raises NotFound before a row names it
        return await self._told(partial(collect.hand_over, node_id=node_id, message=message, rules=self._doors.rules))

    async def update(self, request: Request) -> Response:
        """The update is read and measured before the writer is asked: it may be large, and the writer waits for nobody."""
        node_id = await self._gate.node(request.scope)
        message = await self._read(request, UpdateNotice, more_bytes=_TRAIL_BYTES)
        checked = await self._checked(node_id, message)
        return await self._told(partial(collect.update, node_id=node_id, message=message, checked=checked, rules=self._doors.rules))

    async def statement(self, request: Request) -> Response:
        node_id = await self._gate.node(request.scope)

        def read() -> object:
            with self._doors.store.read() as tx:
                return collect.statement(tx, node_id)

        return answer(await asyncio.to_thread(read))

    async def _read(self, request: Request, kind: type[M], *, more_bytes: int = 0) -> M:
        limit = self._doors.limits.max_body_bytes + more_bytes
        return decode(await read_body(request.scope, request.receive, limit=limit), kind)

    async def _told(self, verb: Callable[..., Reply[M]]) -> Response:
        return answer(await self._answers.of(self._doors.writer.submit(verb)))

    async def _checked(self, node_id: str, message: UpdateNotice) -> Checked:
        """What the stored update holds; nothing is read for a lease that is not the caller's, which the verb refuses anyway."""
        digest = message.update
        if digest is None:
            return Checked()
        unit = await asyncio.to_thread(self._unit_of, node_id, message.lease_id)
        if unit is None:
            return Checked()
        return await asyncio.get_running_loop().run_in_executor(self._doors.executor, self._doors.check_update, unit, digest)

    def _unit_of(self, node_id: str, lease_id: str) -> WorkUnit | None:
        with self._doors.store.read() as tx:
            lease = tx.get(Lease, lease_id)
            return None if lease is None or lease.node_id != node_id else tx.get(WorkUnit, lease.unit_id)
