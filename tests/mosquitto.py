"""A real Mosquitto on a port of its own, and a publisher that goes on until nobody listens any more."""

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from tests.e2e.prometheus import free_port

__all__ = ["Mosquitto", "mosquitto"]


@dataclass
class Mosquitto:
    """A running broker."""

    port: int
    process: "subprocess.Popen[bytes]"
    username: str = ""
    password: str = ""

    @contextmanager
    def publisher(self) -> Iterator[Client]:
        client = Client(CallbackAPIVersion.VERSION2)
        if self.username:
            client.username_pw_set(self.username, self.password)
        client.connect("127.0.0.1", self.port)
        client.loop_start()
        try:
            yield client
        finally:
            client.disconnect()
            client.loop_stop()

    def keep(self, topic: str, payload: bytes) -> None:
        """Leave a retained message."""
        with self.publisher() as client:
            client.publish(topic, payload, qos=1, retain=True).wait_for_publish(5)

    @contextmanager
    def telling(self, topic: str, *payloads: bytes) -> Iterator[None]:
        """Publish the payloads in turn, twenty times a second, while the context lasts: whoever subscribes meanwhile gets the next."""
        enough = threading.Event()

        def tell() -> None:
            with self.publisher() as client:
                number = 0
                while not enough.wait(0.05):
                    client.publish(topic, payloads[number % len(payloads)], qos=1).wait_for_publish(5)
                    number += 1

        thread = threading.Thread(target=tell, daemon=True)
        thread.start()
        try:
            yield
        finally:
            enough.set()
            thread.join()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@contextmanager
def mosquitto(folder: Path, *extra: str, username: str = "", password: str = "", port: int | None = None) -> Iterator[Mosquitto]:
    """It listens on this machine until the end of the context; ``extra`` are lines of its configuration."""
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    port = port or free_port()
    lines = ["user root", "set_tcp_nodelay true", *_access(folder, username, password), f"listener {port} 127.0.0.1", *extra]
    (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
    with (folder / "mosquitto.log").open("wb") as log:
        process = subprocess.Popen([program, "-c", str(folder / "mosquitto.conf")], stdout=log, stderr=log)
    broker = Mosquitto(port=port, process=process, username=username, password=password)
    try:
        _wait(broker, folder / "mosquitto.log")
        yield broker
    finally:
        broker.stop()


def _access(folder: Path, username: str, password: str) -> Sequence[str]:
    if not username:
        return ["allow_anonymous true"]
    program = shutil.which("mosquitto_passwd") or "/usr/bin/mosquitto_passwd"
    subprocess.run([program, "-b", "-c", str(folder / "passwords"), username, password], check=True, capture_output=True)
    return ["allow_anonymous false", f"password_file {folder / 'passwords'}"]


def _wait(broker: Mosquitto, log: Path) -> None:
    """Until it accepts connections."""
    while True:
        assert broker.process.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", broker.port), timeout=5).close()
        except ConnectionRefusedError:
            continue
        return
