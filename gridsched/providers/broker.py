"""MQTT for adapters: one topic of one broker, as long as somebody listens (`Broker.messages`) or from now on (`Broker.follow`).

The client is paho-mqtt 2 (https://eclipse.dev/paho/), an extra: ``pip install 'gridsched[mqtt]'``. A retained message is one the
broker has kept and hands to whoever subscribes: it looks new and may be days old, so every `Message` says whether it is one.
"""

import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from gridsched.adapter import Fault
from gridsched.core.errors import AdapterError, ConfigError, InvalidInput

if TYPE_CHECKING:
    from paho.mqtt.client import Client

__all__ = ["Broker", "Message"]

_CONNECT_S = 5.0
_KEEP_ALIVE_S = 60
_LONGEST_PAUSE_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What came on a topic; ``retained`` where the broker had kept it, nobody knows how long."""

    payload: bytes
    retained: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """Where and how to connect. ``ca`` is a file with the certificate authority, where the machine's own do not do."""

    host: str
    port: int = 1883
    username: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    ca: str = ""

    def __post_init__(self) -> None:
        if find_spec("paho") is None:
            raise ConfigError("MQTT needs paho-mqtt, which is not installed: pip install 'gridsched[mqtt]'")
        if not self.host or "/" in self.host:
            raise InvalidInput(f"host {self.host!r} is not a broker's name or address; write it like 'broker.local', without mqtt://")
        if not 0 < self.port < 65536:
            raise InvalidInput(f"port {self.port} is not a port; MQTT's is 1883, with TLS 8883")

    def messages(self, topic: str, *, patience_s: float, monotonic: Callable[[], float] = time.monotonic) -> Iterator[Message]:
        """What comes on ``topic`` until ``patience_s`` have passed; the connection lasts as long as the iterator.

        Raises AdapterError: unavailable where there is no broker, refused where it does not let us in.
        """
        came: deque[Message] = deque()
        refusals: list[str] = []
        client = self._client(topic, came.append, refusals.append)
        until = monotonic() + patience_s
        try:
            client.connect(self.host, self.port, keepalive=_KEEP_ALIVE_S)
            while not refusals and (left_s := until - monotonic()) > 0:
                lost = client.loop(timeout=min(left_s, 1.0))
                while came:
                    yield came.popleft()
                if lost and not refusals:
                    raise AdapterError(f"{self._name} has closed the connection", kind=Fault.UNAVAILABLE)
        except OSError as error:
            raise AdapterError(
                f"{self._name} cannot be reached: {error}; is it running, and is the port right?", kind=Fault.UNAVAILABLE
            ) from error
        finally:
            client.disconnect()
        if refusals:
            raise AdapterError(refusals[0], kind=Fault.REFUSED)

    def follow(self, topic: str, take: Callable[[Message], None], refused: Callable[[str], None]) -> Callable[[], None]:
        """Hand every message to ``take`` on a thread of paho's own, which connects again whenever it must; call the answer to end it."""
        client = self._client(topic, take, refused)
        client.reconnect_delay_set(min_delay=1, max_delay=_LONGEST_PAUSE_S)
        client.connect_async(self.host, self.port, keepalive=_KEEP_ALIVE_S)
        client.loop_start()

        def end() -> None:
            client.disconnect()
            client.loop_stop()

        return end

    @property
    def _name(self) -> str:
        return f"the broker {self.host}:{self.port}"

    def _client(self, topic: str, take: Callable[[Message], None], refused: Callable[[str], None]) -> "Client":
        if not topic or "+" in topic or "#" in topic:
            raise InvalidInput(f"topic {topic!r} must name one topic, without + and #")
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        def connected(client: "Client", _data: object, _flags: object, reason: Any, _properties: object) -> None:
            if reason.is_failure:
                refused(f"{self._name} does not let us in: {str(reason).lower()}; check username and password")
            else:
                client.subscribe(topic, qos=1)

        def subscribed(_client: object, _data: object, _mid: object, reasons: list[Any], _properties: object) -> None:
            if any(reason.is_failure for reason in reasons):
                refused(f"{self._name} does not let us read {topic!r}; check the user's rights")

        client = Client(CallbackAPIVersion.VERSION2)
        client.connect_timeout = _CONNECT_S
        client.on_connect = connected
        client.on_subscribe = subscribed
        client.on_message = lambda _client, _data, message: take(Message(payload=bytes(message.payload), retained=bool(message.retain)))
        if self.username:
            client.username_pw_set(self.username, self.password or None)
        if self.tls:
            client.tls_set_context(self._trust())
        return client

    def _trust(self) -> ssl.SSLContext:
        context = _Tidy(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if self.ca:
                context.load_verify_locations(self.ca)
            else:
                context.load_default_certs()
        except OSError as error:
            raise ConfigError(f"the certificate authority {self.ca!r} cannot be read: {error}") from error
        return context


class _Tidy(ssl.SSLContext):
    """Shakes hands while the connection is made: where that fails the socket is closed, which paho's own handshake forgets."""

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        return super().wrap_socket(*args, **{**options, "do_handshake_on_connect": True})
