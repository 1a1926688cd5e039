"""Orders pushed over a WebSocket: at once after a commit, one line per node, and nothing lost when a line is."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from gridsched.web.channel import REPLACED, REVOKED, Hub
from gridsched.wire import Orders, decode
from tests.web.conftest import ZONE, House

WAIT_S = 5.0


@contextmanager
def line(house: House, token: str) -> Iterator[ClientConnection]:
    url = house.url.replace("http", "ws") + "/v1/node/channel"
    with connect(url, additional_headers={"Authorization": f"Bearer {token}"}, proxy=None, close_timeout=1) as connection:
        yield connection


def pushed(connection: ClientConnection) -> Orders:
    return decode(connection.recv(timeout=WAIT_S), Orders)


def busy(hub: Hub) -> bool:
    return bool(hub._nudged) or (hub._pump is not None and not hub._pump.done())


def closing_code(connection: ClientConnection) -> int:
    """The code with which the daemon ends the line."""
    try:
        while True:
            connection.recv(timeout=WAIT_S)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else 0


def test_a_line_begins_with_the_present_orders(house: House) -> None:
    token = house.working()
    with line(house, token) as connection:
        orders = pushed(connection)
        assert orders.node_reason == "working"
        assert orders.order is not None
        assert orders.order.desired == "run"
        assert house.daemon.channel.present() == {"pc"}


def test_a_control_tick_that_pauses_a_lease_is_pushed_at_once(house: House) -> None:
    token = house.working()
    with line(house, token) as connection:
        assert pushed(connection).node_reason == "working"
        house.post(f"/v1/zones/{ZONE}/pause")
        house.tick()
        orders = pushed(connection)
        assert orders.order is not None
        assert (orders.order.desired, orders.order.reason) == ("pause", "paused_by_operator")


def test_opting_out_over_http_is_pushed_to_the_open_line(house: House) -> None:
    token = house.working()
    with line(house, token) as connection:
        pushed(connection)
        house.post("/v1/node/consent", {"opted_in": False}, token=token)
        orders = pushed(connection)
        assert not orders.consent.opted_in
        assert orders.order is not None
        assert orders.order.desired == "hand_over"


def test_a_second_line_of_a_node_replaces_the_first(house: House) -> None:
    token = house.join()
    with line(house, token) as first, line(house, token) as second:
        pushed(second)
        assert closing_code(first) == REPLACED
        assert house.daemon.channel.present() == {"pc"}


def test_a_revoked_node_loses_its_line(house: House) -> None:
    token = house.join()
    with line(house, token) as connection:
        pushed(connection)
        house.post("/v1/nodes/pc/revoke")
        assert closing_code(connection) == REVOKED
    assert house.daemon.channel.present() == set()


@pytest.mark.parametrize(("token", "status"), [("never-issued", 401), ("admin", 403)])
def test_a_line_needs_a_nodes_token(house: House, token: str, status: int) -> None:
    with pytest.raises(InvalidStatus) as refused, line(house, token):
        pass
    assert refused.value.response.status_code == status
    assert b"detail" in refused.value.response.body


def test_what_is_said_on_the_line_is_ignored_up_to_a_limit(house: House) -> None:
    token = house.join()
    with line(house, token) as connection:
        pushed(connection)
        connection.send("hello?")
        house.post("/v1/node/consent", {"opted_in": False}, token=token)
        assert not pushed(connection).consent.opted_in
        connection.send("x" * 10_000)
        with pytest.raises(ConnectionClosed):
            connection.recv(timeout=WAIT_S)


def test_a_nudge_never_blocks_and_forgets_those_who_are_not_there(house: House) -> None:
    hub = Hub(store=house.daemon.store, writer=house.daemon.writer, clock=house.clock, rules=house.daemon.rules)
    hub.nudge([f"n{number}" for number in range(10_000)])
    assert hub.present() == set()
    assert not hub._nudged


def test_many_nudges_of_one_node_become_one_message(house: House) -> None:
    token = house.join()
    with line(house, token) as connection:
        pushed(connection)
        threads = [threading.Thread(target=house.daemon.channel.nudge, args=(["pc"],)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        house.post("/v1/node/consent", {"opted_in": False}, token=token)
        assert not pushed(connection).consent.opted_in  # unchanged orders were not sent again
        with pytest.raises(TimeoutError):
            connection.recv(timeout=0.2)


def test_pushing_goes_on_after_the_database_was_out_of_reach(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    token = house.join()
    with line(house, token) as connection:
        pushed(connection)

        def unreachable(*_: object) -> None:
            raise OSError("the database is gone")

        with monkeypatch.context() as broken:
            broken.setattr(Hub, "_orders", unreachable)
            house.daemon.channel.nudge(["pc"])
            deadline = time.monotonic() + WAIT_S
            while busy(house.daemon.channel) and time.monotonic() < deadline:
                pass
        house.post("/v1/node/consent", {"opted_in": False}, token=token)
        assert not pushed(connection).consent.opted_in
