"""A way to the daemon that can be cut: one for each node, so that a fault of the network is one node's alone."""

import socket
import threading
from contextlib import suppress

__all__ = ["Proxy"]

_PIECE = 1 << 16


class Proxy:
    """Listens on a port of its own and passes everything on to ``port``, until `cut`, and again from `mend` on."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._whole = True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break every connection, and take no other."""
        with self._lock:
            self._whole = False
            for end in self._open:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let connections through again."""
        with self._lock:
            self._whole = True

    def close(self) -> None:
        """Cut, and free the port."""
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = self._reach()
            if far is None:
                near.close()
                continue
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _reach(self) -> socket.socket | None:
        with self._lock:
            if not self._whole:
                return None
            try:
                far = socket.create_connection(("127.0.0.1", self._to), timeout=5.0)
            except OSError:
                return None
            far.settimeout(None)
            self._open.add(far)
            return far

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        """Bytes from one to the other; the end of one is the end of both."""
        with suppress(OSError):
            for end in (source, sink):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := source.recv(_PIECE):
                sink.sendall(data)
        with self._lock:
            self._open -= {source, sink}
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
