"""A consumer takes along what is stored about its node, and takes the node away; nobody else can, and the books stay whole."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gridsched.core.errors import Conflict, Unreachable
from gridsched.core.fleet import Node, Presence
from gridsched.core.lease import Lease
from gridsched.core.meter import MeterReading
from gridsched.node import own
from gridsched.node.state import Home, HomeLock
from tests.web.conftest import House, worked_home


@pytest.fixture
def worked(house: House, tmp_path: Path) -> Home:
    return worked_home(house, tmp_path / "home")


def test_the_record_holds_all_rows_and_facts_about_the_node_and_no_secret(house: House, worked: Home) -> None:
    house.join("other")
    data = own.record(worked)
    found = json.loads(data)
    assert found["node"]["node_id"] == found["presence"]["node_id"] == found["consent"]["node_id"] == "pc"
    assert [lease["node_id"] for lease in found["leases"]] == ["pc"] * len(found["leases"])
    assert found["meter_readings"]
    assert found["statement"]["node_id"] == "pc"
    assert {"node_joined", "node_opted_in", "lease_ended", "unit_accepted"} <= {fact["kind"] for fact in found["facts"]}
    assert b"other" not in data
    with house.daemon.store.read() as tx:
        assert tx.must(Node, "pc").token_hash.encode() not in data


def test_a_node_that_leaves_is_out_at_once_and_forgets_who_it_was(house: House, worked: Home) -> None:
    token = worked.identity().token
    own.leave(worked, erase=False)
    assert house.post("/v1/node/sync", {"instance": "one"}, token=token).status_code == 401
    assert not (worked.folder / "identity.json").exists()
    with house.daemon.store.read() as tx:
        node = tx.must(Node, "pc")
        assert node.revoked_at is not None
        assert node.runtime
        assert tx.find(MeterReading, node_id="pc")


def test_what_is_erased_is_gone_and_what_was_earned_stays(house: House, worked: Home) -> None:
    before = house.get("/v1/ledger")
    own.leave(worked, erase=True)
    with house.daemon.store.read() as tx:
        node = tx.must(Node, "pc")
        assert (node.device, node.runtime, node.meter, node.memory_bytes, dict(node.data)) == ("", "", "", 0, {})
        assert tx.must(Presence, "pc") == Presence(node_id="pc")
        assert tx.find(MeterReading, node_id="pc") == []
        assert tx.find(Lease, node_id="pc")
    assert house.get("/v1/ledger") == before
    house.tick()


def test_nobody_leaves_for_another_or_in_the_middle_of_its_agents_work(house: House, worked: Home) -> None:
    for path, method in (("record", "GET"), ("leave", "POST")):
        assert house.call(method, f"/v1/node/{path}", token="operator", json={}).status_code == 403
        assert house.call(method, f"/v1/node/{path}", json={}).status_code == 401
    with HomeLock(worked.folder), pytest.raises(Conflict, match="stop it first"):
        own.leave(worked, erase=True)
    assert worked.identity().node_id == "pc"


def test_where_the_daemon_does_not_answer_nothing_is_forgotten(worked: Home) -> None:
    worked.set_identity(replace(worked.identity(), url="http://127.0.0.1:9"))
    with pytest.raises(Unreachable):
        own.leave(worked, erase=True)
    assert worked.identity().node_id == "pc"


def test_one_that_was_shut_out_already_has_left(house: House, worked: Home) -> None:
    assert house.post("/v1/nodes/pc/revoke", token="operator").status_code == 200
    own.leave(worked, erase=False)
    assert not (worked.folder / "identity.json").exists()
