"""A provider of grid signals on a real socket that answers what and when the test says."""

import json
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

__all__ = ["Answer", "Provider", "prices"]

_LOOK_S = 0.2


@dataclass(frozen=True)
class Answer:
    """One answer to one request."""

    body: bytes = b""
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def prices(start: datetime, *, slots: int, slot: timedelta, value: float = 10.0) -> Answer:
    """``slots`` prices from ``start`` on."""
    return Answer(json.dumps({"data": [{"time": (start + n * slot).isoformat(), "price": value} for n in range(slots)]}).encode())


class Provider:
    """Keeps every request waiting until there is something to `say`: a daemon that asks often is not answered more often.

    ``asked`` is set with the first one. Meanwhile it says ``100 Continue`` now and then, so that nobody's patience runs out.
    """

    def __init__(self) -> None:
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._over = threading.Event()
        self.asked = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_LOOK_S,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/prices"

    def say(self, answer: Answer) -> None:
        """Answer the next request, or the one that waits."""
        self._answers.put(answer)

    def __enter__(self) -> "Provider":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()

    def _next(self, go_on_waiting: Callable[[], object]) -> Answer | None:
        while not self._over.is_set():
            try:
                return self._answers.get(timeout=_LOOK_S)
            except queue.Empty:
                go_on_waiting()
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked.set()
                try:
                    answer = provider._next(lambda: self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n"))
                except OSError:
                    return  # whoever asked has gone
                if answer is None:
                    return
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", answer.content_type)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
