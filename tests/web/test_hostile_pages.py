"""A page is a node like any other, and what it sends is believed as little: other nodes' leases, junk, floods."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from gridsched.core.lease import LeaseState
from tests.web.conftest import House

Attack = Callable[[House, str], tuple[str, dict[str, Any]]]


def lease_of(house: House) -> dict[str, Any]:
    lease = house.lease("pc")
    return {"instance": "one", "lease_id": lease.lease_id, "generation": lease.generation, "steps_executed": 9}


def steal(house: House, token: str) -> tuple[str, dict[str, Any]]:
    return "/v1/node/hand-over", lease_of(house) | {"continuation": None, "step": 0, "reason": "mine"}


def forge(house: House, token: str) -> tuple[str, dict[str, Any]]:
    data = b"not what anybody trained"
    digest = hashlib.sha256(data).hexdigest()
    assert house.call("PUT", f"/v1/blobs/{digest}", token=token, data=data).status_code == 204
    return "/v1/node/update", lease_of(house) | {"update": digest, "metrics": {"loss": 0.0}}


def claim(house: House, token: str) -> tuple[str, dict[str, Any]]:
    told = {name: value for name, value in lease_of(house).items() if name != "instance"}
    return "/v1/node/sync", {"instance": "one", "lease": told | {"state": "refused", "step": 9, "reason": "mine"}}


@pytest.mark.parametrize("attack", [steal, forge, claim])
def test_a_page_that_speaks_for_another_nodes_lease_changes_nothing(house: House, attack: Attack) -> None:
    house.working("pc")
    before = house.lease("pc")
    page = house.join("page")
    path, body = attack(house, page)
    answer = house.post(path, body, token=page)
    assert answer.status_code in (200, 403, 409), answer.text
    if answer.status_code == 200:  # a sync is answered with the page's own orders, whatever it claims
        assert (answer.json()["order"] or {}).get("lease_id") != before.lease_id
    assert house.lease("pc") == before
    assert before.state is LeaseState.ACTIVE
    assert house.accepted() == []


@pytest.mark.parametrize("path", ["/v1/node/sync", "/v1/node/hello", "/v1/node/consent", "/v1/node/update", "/v1/node/hand-over"])
def test_a_page_without_a_token_of_its_own_is_not_heard(house: House, path: str) -> None:
    house.working("pc")
    before = house.lease("pc")
    for token, status in (("", 401), ("guessed", 401), ("viewer", 403)):
        assert house.call("POST", path, token=token, json={"instance": "one", "opted_in": False}).status_code == status
    assert house.lease("pc") == before


def test_junk_in_place_of_an_update_is_refused_and_the_unit_waits_for_somebody_else(house: House) -> None:
    token = house.working("pc")
    answer = house.finish(token, b"\x00" * 500)
    assert "refused: unreadable" in answer.json()["notice"]
    assert house.accepted() == []


def test_a_page_that_asks_for_plans_too_often_is_slowed_down(slow_house: House) -> None:
    page = slow_house.join("page")
    answers = [slow_house.call("GET", f"/v1/node/plan/{'0' * 64}?kind=train&batch=1&inner={{}}", token=page) for _ in range(5)]
    busy = [answer.json() for answer in answers if answer.status_code == 503]
    assert busy
    assert "page calls more than 1 times a second" in busy[0]["detail"]
