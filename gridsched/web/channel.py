"""Orders pushed to nodes that keep a WebSocket open. What cannot be pushed is pulled with the next sync, so nothing here must not be lost.

``nudge`` comes from the writer's thread after a commit and only notes names. On the loop, all names noted meanwhile are answered
from one read transaction, and each connection keeps at most one unsent message: orders say what should be, so the newest replaces the rest.
"""

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from gridsched.core.errors import GridschedError
from gridsched.flow.orders import open_desk
from gridsched.flow.rules import Rules
from gridsched.ports import Clock, Store
from gridsched.web.gate import Gate
from gridsched.web.messages import problem
from gridsched.wire import encode

__all__ = ["REPLACED", "REVOKED", "Hub"]

log = logging.getLogger(__name__)

REPLACED, REVOKED = 4409, 4401
_MOST_NUDGES = 200_000
_BATCH = 1_000


class _Line:
    """One open connection and the newest orders not yet sent on it."""

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket
        self.unsent: str | None = None
        self.wake = asyncio.Event()

    def put(self, text: str) -> None:
        self.unsent = text
        self.wake.set()

    async def send_all(self) -> None:
        """Send whatever is put, until the connection ends."""
        last = None
        while True:
            await self.wake.wait()
            self.wake.clear()
            text, self.unsent = self.unsent, None
            if text is not None and text != last:
                await self.socket.send_text(text)
                last = text


class Hub:
    """Implements `gridsched.ports.Channel`. Presence is an open connection; a second one of the same node replaces the first."""

    def __init__(self, *, store: Store, clock: Clock, rules: Rules) -> None:
        self._store = store
        self._clock = clock
        self._rules = rules
        self._lines: dict[str, _Line] = {}
        self._lock = threading.Lock()
        self._nudged: OrderedDict[str, None] = OrderedDict()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pump: asyncio.Task[None] | None = None

    def nudge(self, node_ids: Sequence[str]) -> None:
        """Send these nodes their present orders soon; from any thread, never blocks, drops the oldest names when full."""
        with self._lock:
            idle = not self._nudged
            for node_id in node_ids:
                if node_id in self._lines:
                    self._nudged[node_id] = None
            while len(self._nudged) > _MOST_NUDGES:
                self._nudged.popitem(last=False)
            woken = idle and bool(self._nudged)
        if woken and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._start_pump)

    def present(self) -> set[str]:
        """The nodes that are connected now."""
        return set(self._lines)

    def hang_up(self, node_id: str) -> None:
        """Close the connection of a node that may not be here any more. On the loop only."""
        line = self._lines.pop(node_id, None)
        if line is not None:
            asyncio.get_running_loop().create_task(_close(line, REVOKED, "this node has been revoked"))

    def routes(self, gate: Gate) -> list[BaseRoute]:
        """The door to this hub."""

        async def channel(socket: WebSocket) -> None:
            try:
                node_id = await gate.node(socket.scope)
            except GridschedError as error:
                await socket.send_denial_response(problem(error))
                return
            await socket.accept()
            await self._serve(node_id, socket)

        return [WebSocketRoute("/v1/node/channel", channel)]

    async def _serve(self, node_id: str, socket: WebSocket) -> None:
        self._loop = asyncio.get_running_loop()
        line, before = _Line(socket), self._lines.get(node_id)
        self._lines[node_id] = line
        if before is not None:
            await _close(before, REPLACED, "another connection of this node has replaced this one")
        sender = asyncio.create_task(line.send_all())
        self.nudge([node_id])
        try:
            while (await socket.receive())["type"] != "websocket.disconnect":
                pass  # a node has nothing to say here; it reports with its sync
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            if self._lines.get(node_id) is line:
                del self._lines[node_id]

    def _start_pump(self) -> None:
        if self._pump is None or self._pump.done():
            self._pump = asyncio.get_running_loop().create_task(self._push())

    async def _push(self) -> None:
        """Answer every name that was noted, also those that come meanwhile."""
        while batch := self._take():
            try:
                texts = await asyncio.to_thread(self._orders, batch)
            except Exception:
                log.warning("orders were not pushed; nodes pull them with their next sync", exc_info=True, extra={"action": "push_failed"})
                continue
            for node_id, text in texts.items():
                if line := self._lines.get(node_id):
                    line.put(text)

    def _take(self) -> list[str]:
        with self._lock:
            return [self._nudged.popitem(last=False)[0] for _ in range(min(len(self._nudged), _BATCH))]

    def _orders(self, node_ids: list[str]) -> dict[str, str]:
        now = self._clock.now()
        with self._store.read() as tx:
            desk = open_desk(tx, node_ids)
            return {node_id: encode(desk.orders(node_id, now, self._rules)).decode() for node_id in node_ids if node_id in desk.nodes}


async def _close(line: _Line, code: int, reason: str) -> None:
    """Close from our side; the other may be gone already."""
    if line.socket.application_state is WebSocketState.CONNECTED:
        try:
            await line.socket.close(code, reason)
        except (RuntimeError, WebSocketDisconnect) as error:
            log.debug("a replaced connection was gone already: %s", error)
