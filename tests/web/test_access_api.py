"""Who is let in: invitations and tokens are shown once, kept as hashes, end with their time, and are taken back at once."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from gridsched.core.access import secret_hash
from gridsched.web.channel import REVOKED
from gridsched.web.gate import SUBPROTOCOL
from tests.web.conftest import LIMITS, ZONE, House, build, fresh_house


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """A house in which node ``pc`` has joined."""
    for made in build(replace(LIMITS, calls_per_s=10_000.0)):
        made.join("pc")
        yield made


def refusal(answer: Any) -> tuple[int, str, str]:
    body = answer.json()
    return answer.status_code, body["error"], body["detail"]


def enrol(house: House, code: str, node_id: str) -> Any:
    told = {"code": code, "node_id": node_id, "device": "pc", "power_w": 9.0, "memory_bytes": 1, "runtime": "r", "meter": "m"}
    return house.call("POST", "/v1/join", json=told)


def invited(house: House, **how: Any) -> str:
    return str(house.post("/v1/invites", {"zone": ZONE, **how}).json()["code"])


def closed_with(line: ClientConnection) -> int | None:
    """The code with which the server closes ``line`` within ten seconds, however much it says before; None where it does not."""
    until = time.monotonic() + 10
    with suppress(ConnectionClosed):
        while time.monotonic() < until:
            line.recv(timeout=10)
    return line.close_code


# -- invitations


def test_open_invitations_are_shown_without_their_codes(house: House) -> None:
    code = house.post("/v1/invites", {"zone": ZONE}).json()["code"]
    answer = house.call("GET", "/v1/invites", token="viewer")
    assert {"pc", None} <= {row["used_by"] for row in answer.json()}
    assert code not in answer.text
    assert "hash" not in answer.text


def test_a_code_is_long_readable_and_kept_as_its_hash(house: House) -> None:
    made = [house.post("/v1/invites", {"zone": ZONE, "for_s": 60}).json() for _ in range(2)]
    codes = [row["code"] for row in made]
    assert codes[0] != codes[1]
    letters = codes[0].replace("-", "")
    assert len(letters) >= 16
    assert letters.isalnum()
    assert letters.isupper()
    assert not set(letters) & set("01IO")
    assert datetime.fromisoformat(made[0]["expires_at"]) == house.clock.now() + timedelta(seconds=60)
    assert codes[0] not in house.call("GET", "/v1/facts", token="admin").text


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"zone": "nowhere"}, ZONE),
        ({"zone": ZONE, "for_s": 0}, "0"),
        ({"zone": ZONE, "for_s": 1e12}, "year"),
        ({"zone": ZONE, "for": 60}, "for"),
        ({}, "zone"),
        ([], "object"),
    ],
)
def test_an_invitation_that_makes_no_sense_is_refused(house: House, asked: Any, says: str) -> None:
    answer = house.post("/v1/invites", asked)
    assert answer.status_code in (400, 404, 422)
    assert says in refusal(answer)[2]


def test_a_code_ends_with_its_time(house: House) -> None:
    code = invited(house, for_s=60)
    house.clock.sleep(60)
    status, _, detail = refusal(enrol(house, code, "late"))
    assert status == 403
    assert "ended at" in detail


def test_an_invitation_is_drawn_as_a_picture_without_styles(house: House) -> None:
    drawn = house.post("/v1/invites/picture", {"base": "http://192.168.1.10:8080", "code": "ABCD"}).json()
    assert drawn["url"] == "http://192.168.1.10:8080/join#code=ABCD"
    assert drawn["svg"].startswith("<svg")
    assert "style=" not in drawn["svg"]
    assert refusal(house.post("/v1/invites/picture", {"base": "javascript:x", "code": "A"}))[:2] == (422, "InvalidInput")


def test_one_code_is_taken_back_and_the_others_stay_good(house: House) -> None:
    lost, kept = invited(house), invited(house)
    assert house.post("/v1/invites/withdraw", {"code": lost}).json() == {"withdrawn": 1}
    assert house.post("/v1/invites/withdraw", {"code": lost}).json() == {"withdrawn": 0}
    assert refusal(enrol(house, lost, "finder"))[0] == 403
    assert enrol(house, kept, "owner").status_code == 200
    status, _, detail = refusal(house.post("/v1/invites/withdraw", {"code": kept}))
    assert (status, "gridsched revoke owner" in detail) == (409, True)
    log = house.call("GET", "/v1/deeds", token="viewer").text
    assert "withdraw_invites" in log
    assert lost not in log


def test_all_open_codes_of_a_zone_are_taken_back_and_nodes_that_have_joined_stay(house: House) -> None:
    house.post("/v1/invites/withdraw", {"zone": ZONE})
    house.join("kept")
    codes = [invited(house) for _ in range(3)]
    assert house.post("/v1/invites/withdraw", {"zone": ZONE}).json() == {"withdrawn": 3}
    assert {enrol(house, code, "late").status_code for code in codes} == {403}
    assert all(
        datetime.fromisoformat(row["expires_at"]) > house.clock.now() for row in house.get("/v1/invites") if row["used_by"] == "kept"
    )
    assert "pc" in {row["node_id"] for row in house.get("/v1/nodes") if not row["revoked"]}


@pytest.mark.parametrize(
    ("asked", "status", "says"),
    [
        ({}, 422, "a code, or the zone"),
        ({"zone": ZONE, "code": "A"}, 422, "a code, or the zone"),
        ({"zone": "nowhere"}, 422, ZONE),
        ({"code": "ABCD-EFGH"}, 404, "not known"),
        ({"codes": []}, 400, "codes"),
    ],
)
def test_what_cannot_be_taken_back_is_named(house: House, asked: dict[str, Any], status: int, says: str) -> None:
    found = refusal(house.post("/v1/invites/withdraw", asked))
    assert found[0] == status
    assert says in found[2]


# -- tokens


def test_only_an_admin_makes_tokens_and_they_work_at_once(house: House) -> None:
    wanted = {"name": "grafana", "role": "viewer"}
    assert refusal(house.post("/v1/tokens", wanted))[:2] == (403, "Forbidden")
    made = house.post("/v1/tokens", wanted, token="admin").json()
    assert house.get("/v1/status", token=made["token"])["zones"]
    assert refusal(house.post("/v1/invites", {"zone": ZONE}, token=made["token"]))[:2] == (403, "Forbidden")


@pytest.mark.parametrize(
    ("asked", "status", "says"),
    [
        ({"name": "x", "role": "node"}, 422, "joining"),
        ({"name": "x", "role": "king"}, 400, "role"),
        ({"name": "No Name", "role": "viewer"}, 422, "No Name"),
        ({"name": "x", "role": "viewer", "for": 3}, 400, "for"),
    ],
)
def test_a_token_that_makes_no_sense_is_refused(house: House, asked: dict[str, Any], status: int, says: str) -> None:
    answer = house.post("/v1/tokens", asked, token="admin")
    assert refusal(answer)[0] == status
    assert says in refusal(answer)[2]


def test_a_revoked_token_is_worth_nothing_at_once_and_its_console_is_closed(house: House) -> None:
    token = house.post("/v1/tokens", {"name": "lobby", "role": "viewer"}, token="admin").json()["token"]
    address = house.url.replace("http", "ws") + "/v1/console/channel"
    with (
        connect(address, subprotocols=[SUBPROTOCOL, f"token.{token}"], proxy=None) as line,  # type: ignore[list-item]
        connect(address, subprotocols=[SUBPROTOCOL, "token.viewer"], proxy=None) as other,  # type: ignore[list-item]
    ):
        assert "nodes" in json.loads(line.recv(timeout=10))
        assert house.post("/v1/tokens/lobby/revoke", token="admin").status_code == 200
        assert closed_with(line) == REVOKED
        house.join("after")
        while "after" not in json.loads(other.recv(timeout=10))["nodes"]:
            pass
    assert house.call("GET", "/v1/status", token=token).status_code == 401
    (row,) = [row for row in house.get("/v1/tokens", token="admin") if row["name"] == "lobby"]
    assert datetime.fromisoformat(row["revoked_at"]) == house.clock.now()
    assert ("revoke_token", "token lobby") in {(row["verb"], row["thing"]) for row in house.get("/v1/deeds")}


def test_a_name_has_one_valid_token_and_is_free_again_once_that_is_revoked(house: House) -> None:
    wanted = {"name": "desk", "role": "operator"}
    first = house.post("/v1/tokens", wanted, token="admin").json()["token"]
    assert refusal(house.post("/v1/tokens", wanted, token="admin"))[:2] == (409, "Conflict")
    assert house.call("GET", "/v1/status", token=first).status_code == 200
    house.post("/v1/tokens/desk/revoke", token="admin")
    second = house.post("/v1/tokens", wanted, token="admin").json()["token"]
    assert [house.call("GET", "/v1/status", token=token).status_code for token in (first, second)] == [401, 200]


def test_tokens_are_listed_and_revoked_by_admins_alone_and_without_secrets(house: House) -> None:
    token = house.post("/v1/tokens", {"name": "secret", "role": "viewer"}, token="admin").json()["token"]
    listed = house.call("GET", "/v1/tokens", token="admin").text
    assert token not in listed
    assert secret_hash(token) not in listed
    assert house.call("GET", "/v1/tokens", token="operator").status_code == 403
    assert house.post("/v1/tokens/secret/revoke").status_code == 403
    assert refusal(house.post("/v1/tokens/nobody/revoke", token="admin"))[0] == 404


def test_the_sites_own_token_changes_with_its_file_alone(house: House) -> None:
    asked = {"name": "operator", "role": "admin"}
    assert refusal(house.post("/v1/tokens", asked, token="admin"))[0] == 409
    status, _, detail = refusal(house.post("/v1/tokens/operator/revoke", token="admin"))
    assert (status, "delete operator.token" in detail) == (409, True)


def test_a_new_file_makes_the_token_of_the_old_one_worthless() -> None:
    first, second = "first-of-the-site", "second-of-the-site"
    with fresh_house() as made:
        (made.daemon.settings.folder / "operator.token").write_text(f"{first}\n", encoding="utf-8")
        made.start_again()
        assert made.get("/v1/me", token=first)["role"] == "admin"
        made.start_again()
        assert made.get("/v1/me", token=first)["name"] == "operator"
        (made.daemon.settings.folder / "operator.token").write_text(f"{second}\n", encoding="utf-8")
        made.start_again()
        assert made.get("/v1/me", token=second)["role"] == "admin"
        assert made.call("GET", "/v1/me", token=first).status_code == 401
        rows = [row["revoked_at"] is None for row in made.get("/v1/tokens", token=second) if row["name"] == "operator"]
        assert sorted(rows) == [False, True]
