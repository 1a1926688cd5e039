"""The application: all doors under one roof, and how uvicorn should serve it."""

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.exceptions import HTTPException
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gridsched.core.errors import GridschedError
from gridsched.core.settings import Web
from gridsched.web.access_api import AccessApi
from gridsched.web.answers import Answers
from gridsched.web.blob_api import BlobApi
from gridsched.web.board import Board
from gridsched.web.channel import Hub
from gridsched.web.console_api import ConsoleApi
from gridsched.web.doors import Doors
from gridsched.web.gate import Gate
from gridsched.web.job_api import JobApi
from gridsched.web.messages import Gone, hang_up, problem
from gridsched.web.node_api import NodeApi, SyncDoor
from gridsched.web.offer_api import OfferApi
from gridsched.web.operator_api import OperatorApi
from gridsched.web.own_api import OwnApi
from gridsched.web.pages import page_routes
from gridsched.web.plan_api import PlanApi
from gridsched.web.reception import Reception

__all__ = ["build", "server"]

log = logging.getLogger(__name__)

_SYNC = "/v1/node/sync"
_PING_S = 20.0


def build(doors: Doors, hub: Hub) -> ASGIApp:
    """The ASGI application over ``doors``; ``hub`` is the same object that the daemon nudges."""
    gate = Gate(doors.store, calls_per_s=doors.limits.calls_per_s)
    answers = Answers()
    reception = Reception(doors, gate, answers)
    board = Board(doors, hub)
    routes = [
        *NodeApi(doors, gate, answers).routes(),
        *BlobApi(doors, gate).routes(),
        *OfferApi(doors, gate).routes(),
        *OwnApi(doors, gate, answers, hub).routes(),
        *PlanApi(doors, gate).routes(),
        *hub.routes(gate),
        *OperatorApi(reception, hub).routes(),
        *JobApi(reception).routes(),
        *ConsoleApi(reception).routes(),
        *AccessApi(reception, board).routes(),
        *board.routes(gate),
        *page_routes(),
    ]
    return _Roof(SyncDoor(doors, gate, answers), Router(routes, redirect_slashes=False))


class _Announcing(uvicorn.Server):
    """uvicorn that says when it answers, and leaves the ending to its caller."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """A signal ends the serving and nothing else: uvicorn's own would raise it again, before the daemon has closed."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def server(app: ASGIApp, web: Web, *, ready: Callable[[], None] = lambda: None) -> uvicorn.Server:
    """A uvicorn server as these doors want it: quiet, without per-message deflate, pinging every 20 s.

    ``run`` it in the main thread; ``ready`` is called once it answers.
    """
    tls: dict[str, Any] = {"ssl_certfile": web.tls_cert, "ssl_keyfile": web.tls_key} if web.tls_cert else {}
    return _Announcing(
        uvicorn.Config(
            app,
            host=web.host,
            port=web.port,
            lifespan="off",
            access_log=False,
            log_config=None,
            log_level=max(logging.INFO, log.getEffectiveLevel()),  # its finest words have headers in them, and those have tokens
            server_header=False,
            date_header=False,
            ws_per_message_deflate=False,
            ws_ping_interval=_PING_S,
            ws_ping_timeout=_PING_S,
            ws_max_size=4096,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=5,
            **tls,
        ),
        ready,
    )


class _Roof:
    """Sends the hot call straight to its door and the rest through the router; turns every error into a `Problem`, in one place."""

    def __init__(self, sync: SyncDoor, router: Router) -> None:
        self._sync = sync
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._router(scope, receive, send)
        elif scope["path"] == _SYNC and scope["method"] == "POST":
            await self._answered(self._sync, scope, receive, send)
        else:
            scope["app"] = self  # makes the router raise its 404 and 405 instead of answering in plain text
            await self._routed(scope, receive, send)

    async def _routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        async def inner(scope: Scope, receive: Receive, _: Send) -> None:
            try:
                await self._router(scope, receive, watched)
            except Exception:
                if begun:
                    log.warning("an answer on %s broke off", scope["path"], exc_info=True, extra={"action": "answer_cut"})
                    return
                raise

        await self._answered(inner, scope, receive, send)

    async def _answered(self, door: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await door(scope, receive, send)
        except Gone:
            await hang_up()(scope, receive, send)
        except (GridschedError, HTTPException) as error:
            await problem(error)(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - the last door: whatever it is, the caller gets a reference and the log the story
            await problem(error)(scope, receive, send)
