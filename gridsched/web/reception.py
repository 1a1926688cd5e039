"""Where callers on the operator's side are received: who may pass a door, one view to read from, and changes noted under their name."""

import asyncio
import csv
import io
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gridsched.core.access import Role
from gridsched.core.errors import InvalidInput, MessageError, NotFound
from gridsched.core.policy import Policy
from gridsched.core.quantity import unknown_key
from gridsched.flow.deeds import done_by
from gridsched.ports import Tx
from gridsched.web.answers import Answers
from gridsched.web.doors import Doors
from gridsched.web.gate import Caller, Gate
from gridsched.web.messages import answer, read_body

__all__ = ["Reception", "caller_of", "number", "only", "table"]

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]

_MOST_ROWS = 100_000


class Reception:
    """Shared by all doors of the operator's side. Reads run in a worker thread over one consistent view; changes go to the writer."""

    def __init__(self, doors: Doors, gate: Gate, answers: Answers) -> None:
        self.doors = doors
        self.gate = gate
        self._answers = answers

    def door(self, path: str, handler: Handler, role: Role, method: str = "GET") -> Route:
        """A route that only callers whose role covers ``role`` pass."""

        async def guarded(request: Request) -> Response:
            request.state.caller = await self.gate.demand(request.scope, role)
            return await handler(request)

        return Route(path, guarded, methods=[method])

    async def read(self, look: Callable[[Tx], T]) -> T:
        """What ``look`` finds."""

        def read() -> T:
            with self.doors.store.read() as tx:
                return look(tx)

        return await asyncio.to_thread(read)

    async def change(self, request: Request, change: Any, *, verb: str, thing: str, detail: str = "") -> Any:
        """Have the writer do ``change``, with a row of the audit log: this caller did ``verb`` to ``thing``. None of it may be secret."""
        caller = caller_of(request)
        noted = partial(done_by, change=change, who=caller.name, role=caller.role, verb=verb, thing=thing, detail=detail)
        return await self._answers.of(self.doors.writer.submit(noted))

    async def body(self, request: Request) -> bytes:
        """The whole body, within the limit for messages."""
        return await read_body(request.scope, request.receive, limit=self.doors.limits.max_body_bytes)

    def policy(self, request: Request) -> Policy:
        """The policy of the zone in the path; raises `NotFound` where there is none."""
        return self.policy_of(request.path_params["zone"])

    def policy_of(self, zone: str) -> Policy:
        """The policy that rules ``zone``; raises `NotFound`."""
        if zone not in self.doors.policies:
            raise NotFound(f"there is no zone {zone!r}; this daemon has {', '.join(self.doors.policies)}")
        return self.doors.policies[zone]


def caller_of(request: Request) -> Caller:
    """Who has passed the door."""
    caller: Caller = request.state.caller
    return caller


def only(request: Request, *known: str) -> None:
    """Raise for a query parameter that would be passed over in silence."""
    for name in request.query_params:
        if name not in known:
            raise MessageError(f"{request.url.path}: {unknown_key(name, known)}")


def number(request: Request, name: str, default: int) -> int:
    """A whole number among the query parameters; a ``limit`` is held to what one answer may carry."""
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidInput(f"{name}={text[:40]!r} must be a whole number, 0 or more")
    return min(int(text), _MOST_ROWS) if name == "limit" else int(text)


def table(request: Request, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> Response:
    """``rows`` as JSON, or as CSV where the query says ``format=csv``."""
    form = request.query_params.get("format", "json")
    if form not in ("json", "csv"):
        raise InvalidInput(f"format={form!r} is not known; use json or csv")
    if form == "json":
        return answer(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return Response(text.getvalue(), media_type="text/csv; charset=utf-8")
