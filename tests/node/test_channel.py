"""The push channel over a real WebSocket: orders arrive as they change, rubbish is passed over, a cut is mended."""

import queue
import threading
from collections.abc import Iterator

import pytest
from websockets.sync.server import Server, ServerConnection, serve

from gridsched.node.channel import Channel, backoff_s
from gridsched.wire import ConsentView, Orders, encode


def orders(notice: str) -> Orders:
    consent = ConsentView(opted_in=True, left_s=None, max_w=None, min_reward_micro_per_kwh=0)
    return Orders(
        node_id="n1",
        clock_speed=1.0,
        sync_every_s=20.0,
        node_reason="available",
        consent=consent,
        reward_micro_per_kwh=1,
        reward_micro_per_unit=1,
        earned_micro=0,
        notice=notice,
    )


class Pusher:
    """Sends what each connection is scripted to get, then closes it with ``code``; the last one stays."""

    def __init__(self, *connections: list[bytes], code: int = 1000) -> None:
        self._scripts = list(connections)
        self._code = code
        self.tokens: list[str | None] = []
        self.server: Server = serve(self._handle, "127.0.0.1", 0)
        self._thread = threading.Thread(target=self.server.serve_forever)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.socket.getsockname()[1]}"

    def _handle(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        assert connection.request.path == "/v1/node/channel"
        self.tokens.append(connection.request.headers.get("Authorization"))
        for message in self._scripts.pop(0):
            connection.send(message)
        if not self._scripts:
            for _ in connection:  # until the node closes it
                pass
        connection.close(self._code)

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()


@pytest.fixture
def heard() -> "queue.SimpleQueue[str]":
    return queue.SimpleQueue()


@pytest.fixture
def pusher() -> Iterator[Pusher]:
    made = Pusher([encode(orders("one")), b"rubbish", encode(orders("two"))], [encode(orders("three"))])
    yield made
    made.close()


def test_orders_arrive_rubbish_is_passed_over_and_a_cut_is_mended(pusher: Pusher, heard: "queue.SimpleQueue[str]") -> None:
    channel = Channel(pusher.url, "secret", lambda pushed: heard.put(pushed.notice))
    channel.start()
    assert [heard.get(timeout=10) for _ in range(3)] == ["one", "two", "three"]
    assert channel.connected
    channel.stop()
    assert pusher.tokens == ["Bearer secret", "Bearer secret"]
    assert not channel.connected


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """After how many failures each pause was taken; none of them lasts."""
    taken: list[int] = []

    def at_once(failures: int) -> float:
        taken.append(failures)
        return 0.0

    monkeypatch.setattr("gridsched.node.channel.backoff_s", at_once)
    return taken


@pytest.mark.parametrize("code", [1000, 1011, 1012])
def test_a_line_that_was_good_is_opened_again_soon_however_often_it_is_cut(
    heard: "queue.SimpleQueue[str]", pauses: list[int], code: int
) -> None:
    pusher = Pusher(*[[encode(orders(name))] for name in "abcd"], code=code)
    channel = Channel(pusher.url, "secret", lambda pushed: heard.put(pushed.notice))
    channel.start()
    assert [heard.get(timeout=10) for _ in range(4)] == list("abcd")
    channel.stop()
    pusher.close()
    assert pauses[:3] == [0, 0, 0]


@pytest.mark.parametrize("code", [1000, 1012])
def test_a_server_that_accepts_and_says_no_order_is_asked_ever_later(heard: "queue.SimpleQueue[str]", pauses: list[int], code: int) -> None:
    pusher = Pusher([], [b"rubbish"], [], [encode(orders("at last"))], code=code)
    channel = Channel(pusher.url, "secret", lambda pushed: heard.put(pushed.notice))
    channel.start()
    assert heard.get(timeout=10) == "at last"
    channel.stop()
    pusher.close()
    assert pauses[:3] == [0, 1, 2]


def test_the_pause_between_attempts_doubles_up_to_a_bound_and_is_never_the_same_for_all() -> None:
    for failures, most_s in ((0, 0.5), (1, 1.0), (3, 4.0), (6, 30.0), (10**6, 30.0)):
        waits = {backoff_s(failures) for _ in range(50)}
        assert all(most_s / 2 <= wait_s <= most_s for wait_s in waits)
        assert len(waits) > 1
