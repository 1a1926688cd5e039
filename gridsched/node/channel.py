"""The daemon's pushes: a WebSocket that carries `Orders` as they change. Losing it costs only promptness."""

import logging
import random
import threading
from collections.abc import Callable
from contextlib import suppress

from websockets.exceptions import InvalidHandshake, WebSocketException
from websockets.sync.client import ClientConnection, connect

from gridsched.core.errors import MessageError
from gridsched.wire import Orders, decode

__all__ = ["Channel", "backoff_s"]

log = logging.getLogger(__name__)


def backoff_s(failures: int, *, first_s: float = 0.5, longest_s: float = 30.0) -> float:
    """Seconds before the next attempt: doubled each time, and anywhere between half and all of it, so that nodes do not return as one."""
    return min(longest_s, first_s * float(1 << min(failures, 16))) * random.uniform(0.5, 1.0)  # noqa: S311 (not a secret)


class Channel:
    """A thread that keeps one connection up and hands every `Orders` to ``on_orders``."""

    def __init__(self, url: str, token: str, on_orders: Callable[[Orders], None]) -> None:
        self._url = url.replace("http", "ws", 1) + "/v1/node/channel"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._on_orders = on_orders
        self._stop = threading.Event()
        self._connection: ClientConnection | None = None
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="channel", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether pushes arrive now."""
        return self._connection is not None

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def stop(self) -> None:
        """Close and wait; safe to call twice."""
        self._stop.set()
        if (connection := self._connection) is not None:
            with suppress(OSError, WebSocketException):
                connection.close()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with connect(self._url, additional_headers=self._headers, open_timeout=10, close_timeout=1) as connection:
                    self._connection = connection
                    self._listen(connection)
            except InvalidHandshake as error:
                # An answer, but no channel: an old proxy perhaps. Polling does without.
                log.debug("no channel at %s: %s", self._url, error)
                self._failures = max(self._failures, 4)
            except (OSError, WebSocketException) as error:
                log.debug("channel %s is cut: %s", self._url, error)
            finally:
                self._connection = None
            self._stop.wait(backoff_s(self._failures))
            self._failures += 1

    def _listen(self, connection: ClientConnection) -> None:
        """Until it is closed or cut. Orders come with the connection: one that brought none was no good, whoever accepted it."""
        for message in connection:
            try:
                orders = decode(message, Orders)
            except MessageError as error:
                log.warning("a push that is no order: %s", error, extra={"action": "push_unreadable"})
                continue
            self._failures = 0
            self._on_orders(orders)
