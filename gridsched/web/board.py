"""What consoles see live: one look at the store for all of them, every second or so while somebody watches, and to each what has changed.

A view is made of rows by name: zones, jobs, nodes. A console's first message has all of them, each later one those that differ from
what it was sent last; so one that reads slowly misses steps in between and nothing else. A look that takes long is made less often:
at most a quarter of the time is spent looking.
"""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from gridsched.core.access import Role
from gridsched.core.deed import Deed
from gridsched.core.errors import GridschedError
from gridsched.web import views
from gridsched.web.channel import REVOKED, Hub, close
from gridsched.web.doors import Doors
from gridsched.web.gate import SUBPROTOCOL, Gate, refuse_foreign
from gridsched.web.messages import problem
from gridsched.wire import encode

__all__ = ["Board", "changes"]

log = logging.getLogger(__name__)

Json = dict[str, Any]
Rows = Mapping[str, Mapping[str, Json]]

_REVOKED_WORDS = "this token has been revoked"
_EVERY_S = 1.0
_SHARE = 4


class Board:
    """Used on the event loop; the store is asked in a thread."""

    def __init__(self, doors: Doors, hub: Hub) -> None:
        self._doors = doors
        self._hub = hub
        self._lines: dict[WebSocket, str] = {}
        self._view: tuple[Json, Rows] | None = None
        self._fresh = asyncio.Condition()
        self._looking: asyncio.Task[None] | None = None

    def routes(self, gate: Gate) -> list[BaseRoute]:
        """The door to this board."""

        async def channel(socket: WebSocket) -> None:
            try:
                refuse_foreign(socket.scope)
                caller = await gate.demand(socket.scope, Role.VIEWER)
            except GridschedError as error:
                await socket.send_denial_response(problem(error))
                return
            await socket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in socket.scope["subprotocols"] else None)
            await self._serve(caller.name, socket, gate)

        return [WebSocketRoute("/v1/console/channel", channel)]

    def hang_up(self, name: str) -> None:
        """Close what the token ``name`` has open; it has been revoked. On the loop only."""
        for socket in [socket for socket, whose in self._lines.items() if whose == name]:
            asyncio.get_running_loop().create_task(close(socket, REVOKED, _REVOKED_WORDS))

    def everything(self) -> tuple[Json, Rows]:
        """How all stands now: what is said with every message, and the rows."""
        doors, now = self._doors, self._doors.clock.now()
        with doors.store.read() as tx:
            nodes = views.nodes(tx, now=now, connected=self._hub.present())
            seen = views.status(tx, doors.policies.values(), now=now, speed=doors.clock.speed, dry_run=doors.rules.dry_run, rows=nodes)
            newest = tx.find(Deed, order="-number", limit=1)
        always = {name: seen[name] for name in ("now", "clock_speed", "dry_run")} | {"deeds": newest[0].number if newest else 0}
        return always, {
            "zones": {row["zone"]: row for row in seen["zones"]},
            "jobs": {row["job_id"]: row for row in seen["jobs"]},
            "nodes": {row["node_id"]: row for row in nodes},
        }

    async def _serve(self, name: str, socket: WebSocket, gate: Gate) -> None:
        self._lines[socket] = name
        try:
            if await gate.stands(socket.scope):
                await self._tell(socket)
            else:  # revoked before `hang_up` could find it here
                await close(socket, REVOKED, _REVOKED_WORDS)
        finally:
            del self._lines[socket]

    async def _tell(self, socket: WebSocket) -> None:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look())
        sender = asyncio.get_running_loop().create_task(self._send(socket))
        try:
            while (await socket.receive())["type"] != "websocket.disconnect":
                pass  # a console has nothing to say here; it orders by HTTP
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def _send(self, socket: WebSocket) -> None:
        sent: Rows = {}
        told: tuple[Json, Rows] | None = None
        with suppress(WebSocketDisconnect, RuntimeError):  # it has gone
            while True:
                async with self._fresh:
                    while self._view is None or self._view is told:
                        await self._fresh.wait()
                    told = self._view
                always, rows = told
                await socket.send_text(encode(always | changes(sent, rows)).decode())
                sent = rows

    async def _look(self) -> None:
        """Until the last console has gone. A look that fails is told in the log, and the next one is made all the same."""
        loop = asyncio.get_running_loop()
        while self._lines:
            began_s = loop.time()
            try:
                view = await asyncio.to_thread(self.everything)
            except Exception:
                log.warning("consoles were not told how things stand", exc_info=True, extra={"action": "board_failed"})
            else:
                async with self._fresh:
                    self._view = view
                    self._fresh.notify_all()
            await asyncio.sleep(max(_EVERY_S, (_SHARE - 1) * (loop.time() - began_s)))
        self._view = None


def changes(before: Rows, after: Rows) -> Json:
    """``{kind: {name: row}}`` of the rows that are new or differ; None stands for one that is not there any more."""
    return {
        kind: {name: row for name, row in rows.items() if before.get(kind, {}).get(name) != row}
        | dict.fromkeys(before.get(kind, {}).keys() - rows.keys())
        for kind, rows in after.items()
    }
