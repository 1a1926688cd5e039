"""Orders pushed to nodes that keep a WebSocket open. What cannot be pushed is pulled with the next sync, so nothing here must not be lost.

``nudge`` comes from the writer's thread after a commit and only notes names. On the loop, all names noted meanwhile are answered
from one read transaction, and each connection keeps at most one unsent message: orders say what should be, so the newest replaces the rest.

A line that is cut is told to the writer, unless it comes back at once: its node is in doubt from then on (`gridsched.core.copies`).
Where many are cut in one moment it was hardly the nodes: a proxy is starting again, and all get more time to come back.
"""

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from gridsched.core.errors import Busy, GridschedError
from gridsched.core.facts import Fact
from gridsched.flow.orders import open_desk
from gridsched.flow.rules import Rules
from gridsched.flow.sync import back, cut
from gridsched.ports import Clock, Store, Tx, Writer
from gridsched.web.gate import SUBPROTOCOL, Gate, refuse_foreign
from gridsched.web.messages import problem
from gridsched.wire import encode

__all__ = ["REPLACED", "REVOKED", "Hub", "close"]

log = logging.getLogger(__name__)

REPLACED, REVOKED = 4409, 4401
_REVOKED_WORDS = "this node has been revoked"
_SERVICE_RESTART = 1012
_BACK_S, _ALL_BACK_S = 0.6, 5.0
"""How long a node takes to open its line again (``node.channel.backoff_s``: half a second at first), and after many were cut at once."""
_MANY = 5
"""One in so many lines cut at once, and more than one, is many."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """When a line was cut: by the daemon's clock, and in the loop's seconds."""

    at: datetime
    since_s: float


class Hub:
    """Implements `gridsched.ports.Channel`. Presence is an open connection; a second one of the same node replaces the first."""

    def __init__(self, *, store: Store, writer: Writer, clock: Clock, rules: Rules) -> None:
        self._store = store
        self._writer = writer
        self._clock = clock
        self._rules = rules
        self._lines: dict[str, _Line] = {}
        self._lock = threading.Lock()
        self._nudged: OrderedDict[str, None] = OrderedDict()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pump: asyncio.Task[None] | None = None
        self._gone: dict[str, _Cut] = {}
        self._doubted: set[str] = set()
        self._watch: asyncio.Task[None] | None = None

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
            asyncio.get_running_loop().create_task(close(line.socket, REVOKED, _REVOKED_WORDS))

    def routes(self, gate: Gate) -> list[BaseRoute]:
        """The door to this hub."""

        async def channel(socket: WebSocket) -> None:
            try:
                refuse_foreign(socket.scope)
                node_id = await gate.node(socket.scope)
            except GridschedError as error:
                await socket.send_denial_response(problem(error))
                return
            await socket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in socket.scope["subprotocols"] else None)
            await self._serve(node_id, socket, gate)

        return [WebSocketRoute("/v1/node/channel", channel)]

    async def _serve(self, node_id: str, socket: WebSocket, gate: Gate) -> None:
        self._loop = asyncio.get_running_loop()
        line, before = _Line(socket), self._lines.get(node_id)
        self._lines[node_id] = line
        if not await gate.stands(socket.scope):  # revoked before `hang_up` could find it here
            if self._lines.get(node_id) is line:
                del self._lines[node_id]
            return await close(socket, REVOKED, _REVOKED_WORDS)
        self._welcome(node_id)
        if before is not None:
            await close(before.socket, REPLACED, "another connection of this node has replaced this one")
        sender = asyncio.create_task(line.send_all())
        self.nudge([node_id])
        code = 0
        try:
            while (said := await socket.receive())["type"] != "websocket.disconnect":
                pass  # a node has nothing to say here; it reports with its sync
            code = said.get("code", 0)
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            if self._lines.get(node_id) is line:
                del self._lines[node_id]
                if code != _SERVICE_RESTART:  # the daemon itself is ending
                    self._miss(node_id)

    # -- lines that were cut

    def _welcome(self, node_id: str) -> None:
        """The node has a line again; where it was in doubt, the writer is told."""
        self._gone.pop(node_id, None)
        if node_id in self._doubted:
            self._doubted.discard(node_id)
            self._submit(partial(back, node_id=node_id))

    def _miss(self, node_id: str) -> None:
        self._gone[node_id] = _Cut(at=self._clock.now(), since_s=asyncio.get_running_loop().time())
        if self._watch is None or self._watch.done():
            self._watch = asyncio.get_running_loop().create_task(self._wait_for_them())

    async def _wait_for_them(self) -> None:
        """Tell of each line that does not come back, once its time is over."""
        while self._gone:
            await asyncio.sleep(_BACK_S / 4)
            many = len(self._gone) > 1 and _MANY * len(self._gone) > len(self._gone) + len(self._lines)
            until_s = asyncio.get_running_loop().time() - (_ALL_BACK_S if many else _BACK_S)
            over = {node_id: gone.at for node_id, gone in self._gone.items() if gone.since_s <= until_s}
            if over:
                self._gone = {node_id: gone for node_id, gone in self._gone.items() if node_id not in over}
                self._doubted |= over.keys()
                self._submit(partial(cut, lines=over))

    def _submit(self, verb: Callable[[Tx, datetime], Sequence[Fact]]) -> None:
        """Whoever cannot be put in doubt now is found silent later, so a full queue does no harm."""
        with suppress(Busy):
            self._writer.submit(verb).add_done_callback(_log_failure)

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


def _log_failure(done: "Future[Any]") -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        log.warning("a cut line was not noted: %s", error, extra={"action": "cut_not_noted"})


async def close(socket: WebSocket, code: int, reason: str) -> None:
    """Close from our side; the other may be gone already."""
    if socket.application_state is WebSocketState.CONNECTED:
        try:
            await socket.close(code, reason)
        except (RuntimeError, WebSocketDisconnect) as error:
            log.debug("a connection was gone already: %s", error)
