"""The line of a page: its token comes as a subprotocol, it must come from this very site, and its token is told to nobody."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from gridsched.wire import Orders, decode
from tests.web.conftest import House

WAIT_S = 5.0


@contextmanager
def line(house: House, *offers: str, origin: str | None = None) -> Iterator[ClientConnection]:
    url = house.url.replace("http", "ws") + "/v1/node/channel"
    told = [Subprotocol(offer) for offer in offers]
    with connect(url, subprotocols=told or None, origin=Origin(origin) if origin else None, proxy=None, close_timeout=1) as connection:
        yield connection


def test_a_page_shows_its_token_as_a_subprotocol_and_is_answered_with_the_other(house: House) -> None:
    token = house.working()
    with line(house, "gridsched.v2", f"token.{token}", origin=house.url) as connection:
        assert connection.subprotocol == "gridsched.v2"
        assert decode(connection.recv(timeout=WAIT_S), Orders).node_id == "pc"


@pytest.mark.parametrize(
    ("offers", "status"),
    [(("gridsched.v2",), 401), (("gridsched.v2", "token.never-issued"), 401), (("gridsched.v2", "token.admin"), 403), ((), 401)],
)
def test_no_line_without_a_nodes_token(house: House, offers: tuple[str, ...], status: int) -> None:
    with pytest.raises(InvalidStatus) as refused, line(house, *offers):
        pass
    assert refused.value.response.status_code == status


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null", "http://127.0.0.1:1"])
def test_a_page_of_another_site_gets_no_line_whatever_token_it_has(house: House, origin: str) -> None:
    token = house.join()
    with pytest.raises(InvalidStatus) as refused, line(house, "gridsched.v2", f"token.{token}", origin=origin):
        pass
    assert refused.value.response.status_code == 403
    assert b"another site" in refused.value.response.body
    assert house.daemon.channel.present() == set()


def test_tokens_are_not_in_the_log_however_much_is_logged(house: House, caplog: pytest.LogCaptureFixture) -> None:
    token = house.join()
    with caplog.at_level(logging.DEBUG, logger="gridsched"), caplog.at_level(logging.DEBUG), line(house, "gridsched.v2", f"token.{token}"):
        house.post("/v1/node/consent", {"opted_in": False}, token=token)
    server_side = [record for record in caplog.records if not record.name.startswith("websockets.client")]
    assert not [record for record in server_side if token in record.getMessage()]
