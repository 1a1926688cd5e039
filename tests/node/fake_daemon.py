"""A daemon of one node over real sockets, built on the wire's messages: it does as told, and fails as told."""

import hashlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from gridsched import wire
from gridsched.core.errors import DuplicateIdentity, GridschedError, LeaseLost, NotFound, Unauthorized, http_status

TOKEN = "token-of-n1"


@dataclass
class Fault:
    """``drop``: no answer, nothing done; ``lose_answer``: done, not answered; ``cut``: half a transfer; an error to answer.

    A number is the status of a login page, which answers in the daemon's place.
    """

    path: str
    kind: str | int | GridschedError
    times: int = 1
    method: str = ""

    def matches(self, method: str, path: str) -> bool:
        return self.times > 0 and path.startswith(self.path) and self.method in ("", method)


@dataclass
class FakeDaemon:
    """``order`` is what the node should do now; ``next_orders`` follow when it has handed something in."""

    order: wire.Order | None = None
    next_orders: list[wire.Order] = field(default_factory=list)
    opted_in: bool = True
    clock_speed: float = 1.0
    sync_every_s: float = 0.05
    blobs: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    heard: list[Any] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    instance: str = ""
    port: int = 0
    away: bool = False

    def __enter__(self) -> "FakeDaemon":
        self.changed = threading.Condition()
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        daemon = self
        self.away = False

        class Handler(_Handler):
            fake = daemon

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Away: connections are refused until ``start``, on the same port."""
        self.away = True
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return digest

    def wait(self, what: Callable[[], bool], seconds: float = 20.0) -> None:
        """Until something the node said makes ``what`` hold."""
        with self.changed:
            assert self.changed.wait_for(what, timeout=seconds), f"the node has not done it; last heard {self.heard[-1:]}"

    def of(self, kind: type[wire.M]) -> list[wire.M]:
        return [message for message in self.heard if isinstance(message, kind)]

    def last_report(self) -> wire.LeaseReport | None:
        syncs = self.of(wire.Sync)
        return syncs[-1].lease if syncs else None

    def answer(self, path: str, body: bytes) -> object:
        if path == "/v1/join":
            return self._take(wire.decode(body, wire.Join)) or wire.Joined(
                node_id="n1", token=TOKEN, zone="z", clock_speed=self.clock_speed, reward_micro_per_kwh=100_000, reward_micro_per_unit=500
            )
        if path == "/v1/node/hello":
            hello = self._take(wire.decode(body, wire.Hello))
            self.instance = hello.instance
        elif path == "/v1/node/sync":
            self._mine(self._take(wire.decode(body, wire.Sync)).instance)
        elif path == "/v1/node/consent":
            self.opted_in = self._take(wire.decode(body, wire.ConsentChoice)).opted_in
        elif path == "/v1/node/hand-over":
            handed = self._take(wire.decode(body, wire.HandOver))
            self._close(handed.instance, handed.lease_id, handed.generation, handed.continuation)
        elif path == "/v1/node/update":
            notice = self._take(wire.decode(body, wire.UpdateNotice))
            self._close(notice.instance, notice.lease_id, notice.generation, notice.update)
        else:
            raise NotFound(f"there is no {path}")
        return self.orders()

    def orders(self) -> wire.Orders:
        return wire.Orders(
            node_id="n1",
            clock_speed=self.clock_speed,
            sync_every_s=self.sync_every_s * self.clock_speed,
            node_reason="working" if self.order else "no_work",
            consent=wire.ConsentView(opted_in=self.opted_in, left_s=None, max_w=None, min_reward_micro_per_kwh=0),
            reward_micro_per_kwh=100_000,
            reward_micro_per_unit=500,
            earned_micro=1234,
            order=self.order,
        )

    def _take(self, message: Any) -> Any:
        self.heard.append(message)
        return None if isinstance(message, wire.Join) else message

    def _mine(self, instance: str) -> None:
        if instance != self.instance:
            raise DuplicateIdentity

    def _close(self, instance: str, lease_id: str, generation: int, blob: str | None) -> None:
        self._mine(instance)
        if self.order is None or (self.order.lease_id, self.order.generation) != (lease_id, generation):
            raise LeaseLost(f"lease {lease_id} generation {generation} has ended")
        assert blob is None or blob in self.blobs, "the blob must be stored before it is named"
        self.order = self.next_orders.pop(0) if self.next_orders else None


class _Handler(BaseHTTPRequestHandler):
    fake: FakeDaemon
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_POST(self) -> None:
        self._serve(lambda: self._json(200, self.fake.answer(self.path, self._body())))

    def do_GET(self) -> None:
        self._serve(self._get)

    def do_HEAD(self) -> None:
        self._serve(self._head)

    def do_PUT(self) -> None:
        self._serve(self._put)

    def _serve(self, handle: Callable[[], None]) -> None:
        fake = self.fake
        with fake.changed:
            if not fake.away:
                fake.calls.append((self.command, self.path))
            fault = next((fault for fault in fake.faults if fault.matches(self.command, self.path)), None)
            self.fault = fault.kind if fault is not None else None
            if fault is not None:
                fault.times -= 1
            try:
                if self.path != "/v1/join" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    raise Unauthorized
                if isinstance(self.fault, GridschedError):
                    self._body()
                    raise self.fault
                if isinstance(self.fault, int):
                    self._body()
                    self._send(self.fault, b"<html>sign in</html>" if self.command != "HEAD" else b"", {"Content-Type": "text/html"})
                    return
                if self.fault == "drop" or fake.away:
                    self.close_connection = True
                    return
                handle()
            except GridschedError as error:
                problem = wire.Problem(error=type(error).__name__, detail=str(error))
                self._json(http_status(error), problem)
            finally:
                fake.changed.notify_all()

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def _json(self, status: int, message: object) -> None:
        if self.fault == "lose_answer":
            self.close_connection = True
            return
        self._send(status, wire.encode(message) if self.command != "HEAD" else b"", {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _get(self) -> None:
        data = self.fake.blobs.get(self.path.rsplit("/", 1)[1])
        if data is None:
            raise NotFound(f"there is no {self.path}")
        start = int(match[1]) if (match := re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))) else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if self.fault == "cut":
            self.wfile.write(data[start : start + (len(data) - start) // 2])
            self.close_connection = True
        else:
            self.wfile.write(data[start:])

    def _head(self) -> None:
        digest = self.path.rsplit("/", 1)[1]
        if digest in self.fake.blobs:
            self._send(200, b"", {"Content-Length": str(len(self.fake.blobs[digest]))})
        else:
            self._send(404, b"", {"Upload-Offset": str(len(self.fake.parts.get(digest, b"")))})

    def _put(self) -> None:
        digest = self.path.rsplit("/", 1)[1]
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", self.headers["Content-Range"])
        assert match is not None
        start, _, total = map(int, match.groups())
        length = int(self.headers["Content-Length"])
        data = self.rfile.read(length // 2 if self.fault == "cut" else length)
        had = self.fake.parts.get(digest, b"")
        assert start <= len(had)
        whole = self.fake.parts[digest] = had[:start] + data
        if self.fault == "cut":
            self.close_connection = True
        elif len(whole) == total:
            assert hashlib.sha256(whole).hexdigest() == digest
            self.fake.blobs[digest] = self.fake.parts.pop(digest)
            self._send(204, b"", {})
        else:
            self._send(202, b"", {"Upload-Offset": str(len(whole))})
