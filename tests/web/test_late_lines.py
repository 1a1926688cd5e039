"""A token revoked while its line is being opened: neither a console nor a node gets in, or stays, for having been quick."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from gridsched.core.access import secret_hash
from gridsched.web.channel import REVOKED
from gridsched.web.gate import SUBPROTOCOL, Caller, Gate
from tests.web.conftest import LIMITS, ZONE, House, build

WAIT_S = 10.0
LINES = ("console", "node")


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    yield from build(replace(LIMITS, calls_per_s=10_000.0))


class Hold:
    """One thing that waits in the middle: ``reached`` when it has begun, ``go`` when it may end."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.go = threading.Event()

    def wait(self) -> None:
        self.reached.set()
        assert self.go.wait(WAIT_S)


def newcomer(house: House, line: str, name: str) -> tuple[str, str]:
    """A token that opens ``line`` and was never used yet, and the door that revokes it."""
    if line == "console":
        return house.post("/v1/tokens", {"name": name, "role": "viewer"}, token="admin").json()["token"], f"/v1/tokens/{name}/revoke"
    code = house.post("/v1/invites", {"zone": ZONE}).json()["code"]
    told = {"code": code, "node_id": name, "device": "pc", "power_w": 9.0, "memory_bytes": 1, "runtime": "r", "meter": "m"}
    return house.call("POST", "/v1/join", json=told).json()["token"], f"/v1/nodes/{name}/revoke"


def ending(house: House, line: str, token: str) -> int:
    """With which status the line is refused, or with which code it is closed."""
    url, offers = f"{house.url.replace('http', 'ws')}/v1/{line}/channel", [Subprotocol(SUBPROTOCOL), Subprotocol(f"token.{token}")]
    try:
        with connect(url, subprotocols=offers, proxy=None, close_timeout=1) as opened:
            with suppress(ConnectionClosed, TimeoutError):
                for _ in range(3):
                    opened.recv(timeout=WAIT_S / 5)
            return opened.close_code or 0
    except InvalidStatus as refused:
        return refused.response.status_code


def revoked_meanwhile(house: House, line: str, token: str, door: str, hold: Hold) -> int:
    """How the line ends whose token is revoked while it is held."""
    with ThreadPoolExecutor(1) as other:
        ended = other.submit(ending, house, line, token)
        assert hold.reached.wait(WAIT_S)
        assert house.post(door, token="admin").status_code == 200
        hold.go.set()
        return ended.result()


@pytest.mark.parametrize("line", LINES)
def test_a_token_revoked_while_it_is_looked_up_opens_no_line(house: House, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    hold, stored = Hold(), Gate._stored
    token, door = newcomer(house, line, f"looked-{line}")

    def held(gate: Gate, token_hash: str) -> Caller | None:
        caller = stored(gate, token_hash)
        if token_hash == secret_hash(token) and not hold.reached.is_set():
            hold.wait()
        return caller

    monkeypatch.setattr(Gate, "_stored", held)
    assert revoked_meanwhile(house, line, token, door, hold) == 401


@pytest.mark.parametrize("line", LINES)
def test_a_line_whose_token_is_revoked_while_it_is_accepted_is_closed(house: House, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    hold, accept = Hold(), WebSocket.accept
    token, door = newcomer(house, line, f"accepted-{line}")

    async def held(socket: WebSocket, *args: Any, **how: Any) -> None:
        await asyncio.to_thread(hold.wait)
        await accept(socket, *args, **how)

    monkeypatch.setattr(WebSocket, "accept", held)
    assert revoked_meanwhile(house, line, token, door, hold) == REVOKED
    assert house.daemon.channel.present() == set()
