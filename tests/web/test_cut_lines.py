"""Lines that are cut without a goodbye, as by ``kill -9``: the node's unit is offered on at once, and a proxy's restart harms nobody."""

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from websockets.sync.client import ClientConnection

from gridsched.web import channel
from tests.web.conftest import House
from tests.web.test_channel import line, pushed

WAIT_S = 10.0


def cut(connection: ClientConnection) -> None:
    """End the connection as the kernel does for a process that was killed."""
    connection.socket.shutdown(socket.SHUT_RDWR)


def told(house: House, kind: str) -> list[str]:
    with house.daemon.store.read() as tx:
        return [fact.node_id for _, fact in tx.facts(kinds=[kind])]  # type: ignore[attr-defined]


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def waited(house: House) -> bool:
    """Whether the daemon waits for no line to come back."""
    hub = house.daemon.channel
    return not hub._gone and (hub._watch is None or hub._watch.done())


def test_a_line_cut_in_the_middle_of_a_unit_lets_an_idle_node_have_it_without_a_control_tick(house: House) -> None:
    token = house.working("pc")
    for name in ("desk", "old"):
        house.join(name)  # one for the round's other unit, one that is idle
    with line(house, token) as connection:
        pushed(connection)
        cut(connection)
        until(lambda: told(house, "node_cut"))
    assert told(house, "node_cut") == ["pc"]
    until(lambda: len(told(house, "lease_offered")) == 3)
    with house.daemon.store.read() as tx:
        offers = [fact for _, fact in tx.facts(kinds=["lease_offered"])]
    assert [(offer.unit_id, offer.reason) for offer in offers if offer.reason != "planned"] == [  # type: ignore[attr-defined]
        (house.lease("pc").unit_id, "holder_cut")
    ]
    rows = {row["node_id"]: row["reason"] for row in house.call("GET", "/v1/nodes", token="viewer").json()}
    assert rows["pc"] == "doubtful"
    (unit,) = [row for row in house.call("GET", "/v1/jobs/j/units", token="viewer").json() if len(row["leases"]) == 2]
    copy = next(lease["node_id"] for lease in unit["leases"] if lease["node_id"] != "pc")
    assert unit["waits"] == (
        f"r0.u0 on pc since {house.clock.now():%H:%M} UTC, out of reach since {house.clock.now():%H:%M:%S}; "
        f"a copy on {copy}, offered: holder_cut"
    )


def test_a_line_that_is_back_at_once_was_never_missed(house: House) -> None:
    token = house.working("pc")
    with line(house, token) as connection:
        pushed(connection)
        cut(connection)
        until(lambda: house.daemon.channel.present() == set())
        with line(house, token) as again:
            pushed(again)
            until(lambda: waited(house))
            assert told(house, "node_cut") == []


def test_a_node_in_doubt_is_there_again_with_its_line(house: House) -> None:
    token = house.working("pc")
    with line(house, token) as connection:
        pushed(connection)
        cut(connection)
        until(lambda: told(house, "node_cut"))
    with line(house, token) as again:
        pushed(again)
        until(lambda: told(house, "node_present")[1:])
        assert house.call("GET", "/v1/nodes", token="viewer").json()[0]["reason"] == "working"


def test_many_lines_cut_in_one_moment_get_time_to_come_back(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "_BACK_S", 0.05)
    monkeypatch.setattr(channel, "_ALL_BACK_S", 1.0)
    tokens = {f"n{number}": house.join(f"n{number}") for number in range(6)}
    with ExitStack() as stack:
        lines = [stack.enter_context(line(house, token)) for token in tokens.values()]
        for connection in lines:
            pushed(connection)
        began_s = time.monotonic()
        for connection in lines:
            cut(connection)
        until(lambda: house.daemon.channel.present() == set())
        for name in ("n0", "n1", "n2"):
            pushed(stack.enter_context(line(house, tokens[name])))
        until(lambda: told(house, "node_cut"))
        assert time.monotonic() - began_s >= 1.0, "not one was doubted before"
        assert sorted(told(house, "node_cut")) == ["n3", "n4", "n5"]
