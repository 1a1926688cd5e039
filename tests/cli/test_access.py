"""``gridsched token``, ``withdraw`` and ``revoke``: who is let in, and who no longer."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gridsched.cli import app
from gridsched.core.settings import Web
from tests.web.conftest import ZONE, House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path, Web(port=0))
    yield made
    made.close()


def run(house: House, *words: str, code: int = 0, answer: str = "") -> str:
    asked = [*words, "--url", house.url, "--token", "admin"]
    result = CliRunner().invoke(app, asked, input=answer, env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result.output


def test_a_token_is_made_listed_and_revoked(house: House) -> None:
    told = run(house, "token", "make", "wall", "--role", "viewer")
    assert "shown now and never again" in told
    token = told.splitlines()[-1].strip()
    assert house.get("/v1/me", token=token)["role"] == "viewer"
    assert token not in run(house, "token", "list")
    assert "token wall is worth nothing from now on" in run(house, "token", "revoke", "wall")
    assert house.call("GET", "/v1/me", token=token).status_code == 401
    (row,) = [line for line in run(house, "token", "list").splitlines() if line.strip().startswith("wall")]
    assert row.count("2018-05-01") == 2
    assert "see gridsched token list" in run(house, "token", "revoke", "wall", code=1)
    assert "valid token named a-viewer already" in run(house, "token", "make", "a-viewer", "--role", "viewer", code=1)


def test_invitations_are_taken_back_one_or_all(house: House) -> None:
    codes = [house.post("/v1/invites", {"zone": ZONE}).json()["code"] for _ in range(3)]
    assert "1 open invitation withdrawn" in run(house, "withdraw", codes[0])
    assert "2 open invitations withdrawn" in run(house, "withdraw")
    assert "0 open invitations withdrawn" in run(house, "withdraw", "--zone", ZONE)


def test_a_node_is_shut_out_after_asking(house: House) -> None:
    token = house.join("pc")
    run(house, "revoke", "pc", code=1, answer="n\n")
    assert house.post("/v1/node/sync", {"instance": "one"}, token=token).status_code == 200
    assert "node pc is shut out" in run(house, "revoke", "pc", answer="y\n")
    assert house.post("/v1/node/sync", {"instance": "one"}, token=token).status_code == 401
    assert "there is no node nobody; see gridsched nodes" in run(house, "revoke", "nobody", "--yes", code=1)
