"""What a node may ask and tell, and what it is answered when it is wrong."""

import hashlib
from datetime import timedelta
from inspect import signature
from typing import Any

import numpy as np
import pytest

from gridsched.core import errors
from gridsched.core.errors import HTTP_STATUS, GridschedError, http_status
from gridsched.core.method import Codec
from gridsched.core.settings import Web
from gridsched.core.work import UnitSpec, WorkUnit
from gridsched.train.codec import encode
from gridsched.web import node_api
from gridsched.web.intake import LONGEST_UNIT
from gridsched.web.messages import problem
from gridsched.wire import UpdateNotice
from gridsched.wire import encode as as_json
from tests.web.conftest import SHAPE, ZONE, House, fresh_house


def problem_of(answer: Any) -> tuple[int, str]:
    """Status and error name; every failure has the same three keys."""
    body = answer.json()
    assert set(body) <= {"error", "detail", "reason"}
    assert body["detail"]
    return answer.status_code, body["error"]


def test_a_node_joins_opts_in_and_gets_orders(house: House) -> None:
    token = house.working()

    orders = house.post("/v1/node/sync", {"instance": "one"}, token=token).json()

    assert orders["node_id"] == "pc"
    assert orders["node_reason"] == "working"
    assert orders["order"]["desired"] == "run"
    assert orders["order"]["unit"]["job_id"] == "j"
    assert orders["consent"]["opted_in"] is True


def test_a_sync_without_news_is_answered_the_same_twice(house: House) -> None:
    token = house.working()
    first, second = (house.post("/v1/node/sync", {"instance": "one"}, token=token).json() for _ in range(2))
    assert first == second


def test_a_code_lets_one_node_in_once(house: House) -> None:
    code = house.post("/v1/invites", {"zone": ZONE}).json()["code"]
    told = {"code": code, "node_id": "a", "device": "pc", "power_w": 9.0, "memory_bytes": 1, "runtime": "r", "meter": "m"}
    assert house.call("POST", "/v1/join", json=told).status_code == 200
    assert problem_of(house.call("POST", "/v1/join", json=told | {"node_id": "b"})) == (403, "Forbidden")
    assert problem_of(house.call("POST", "/v1/join", json=told | {"code": "guess"})) == (403, "Forbidden")


def test_a_sync_that_does_not_parse_names_the_field(house: House) -> None:
    token = house.join()
    for body, says in (
        (b"{", "Sync"),
        (b"\xff", "Sync"),
        (b'{"instance": "one", "devise": "free"}', "devise"),
        (b'{"instance": 7}', "instance"),
        (b"{}", "instance"),
        (b'{"instance": "one", "meter": {"register_j": "much"}}', "register_j"),
    ):
        answer = house.call("POST", "/v1/node/sync", token=token, data=body)
        assert problem_of(answer) == (400, "MessageError")
        assert says in answer.json()["detail"]


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer ", "Bearer never-issued", "Basic dmlld2VyOg==", "viewer"])
def test_nobody_gets_in_without_a_valid_token(house: House, authorization: str) -> None:
    for path in ("sync", "hello", "consent", "update", "hand-over"):
        answer = house.call("POST", f"/v1/node/{path}", json={}, headers={"Authorization": authorization})
        assert problem_of(answer) == (401, "Unauthorized")
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_an_operators_token_is_no_nodes(house: House) -> None:
    assert problem_of(house.post("/v1/node/sync", {"instance": "one"}, token="admin")) == (403, "Forbidden")


def test_a_node_sees_its_own_statement_and_no_operators_door(house: House) -> None:
    mine, other = house.working("pc"), house.join("other")
    assert house.get("/v1/node/statement", token=mine)["node_id"] == "pc"
    assert house.get("/v1/node/statement", token=other)["node_id"] == "other"
    for path in ("/v1/status", "/v1/nodes", "/v1/ledger", "/v1/ledger/transfers", "/v1/facts", f"/v1/leases/{house.lease().lease_id}"):
        assert problem_of(house.call("GET", path, token=other)) == (403, "Forbidden")


def test_a_node_cannot_speak_for_another_ones_lease(house: House) -> None:
    house.working("pc")
    other, lease = house.join("other"), house.lease("pc")
    claim = {"instance": "one", "lease_id": lease.lease_id, "generation": lease.generation, "steps_executed": 3}
    update = claim | {"update": None, "metrics": {}}
    assert problem_of(house.post("/v1/node/update", update, token=other)) == (409, "LeaseLost")
    hand_over = claim | {"continuation": None, "step": 1, "reason": "opted_out"}
    assert problem_of(house.post("/v1/node/hand-over", hand_over, token=other)) == (409, "LeaseLost")
    assert house.lease("pc") == lease


def test_an_old_generation_is_refused_and_the_present_one_stays(house: House) -> None:
    token = house.working()
    lease = house.lease()
    notice = {"instance": "one", "lease_id": lease.lease_id, "generation": lease.generation - 1, "steps_executed": 8, "update": None}
    assert problem_of(house.post("/v1/node/update", notice | {"metrics": {}}, token=token)) == (409, "LeaseLost")
    assert house.lease() == lease


def test_a_finished_unit_is_accepted_once_however_often_it_is_handed_in(house: House) -> None:
    token = house.working()
    lease = house.lease()
    delta = np.full(SHAPE, 0.1, np.float32)
    answer = house.finish(token, delta)
    assert (answer.status_code, answer.json()["notice"]) == (200, "")

    digest = hashlib.sha256(encode({"w": delta}, Codec.RAW)).hexdigest()
    again = {"instance": "one", "lease_id": lease.lease_id, "generation": lease.generation, "steps_executed": 8, "update": digest}
    assert house.post("/v1/node/update", again | {"metrics": {"loss": 1.0}}, token=token).status_code == 200
    assert house.accepted() == [lease.unit_id]


def test_a_long_unit_is_handed_in_with_all_its_digests_under_the_default_limits() -> None:
    digests = [(step, f"{step:064x}") for step in range(20, 20_001, 20)]
    with fresh_house(Web(port=0)) as house:
        token = house.join()
        house.job(passes=2_500)
        house.surplus(1000.0)
        house.tick()
        lease = house.lease()
        answer = house.finish(token, np.full(SHAPE, 0.1, np.float32), digests=digests)
        assert (answer.status_code, answer.json().get("notice")) == (200, "")
        with house.daemon.store.read() as tx:
            assert [tuple(point) for point in tx.must(WorkUnit, lease.unit_id).digests] == digests


def test_the_digests_of_the_longest_unit_fit_into_its_notice() -> None:
    every = signature(UnitSpec).parameters["digest_every"].default
    digests = [(step, "f" * 64) for step in range(every, LONGEST_UNIT + 1, every)]
    notice = UpdateNotice(
        instance="i" * 16, lease_id="l" * 200, generation=1, update="f" * 64, steps_executed=LONGEST_UNIT, metrics={"loss": 1.0},
        digests=digests,
    )  # fmt: skip
    assert len(as_json(notice)) <= node_api._TRAIL_BYTES + Web().max_body_bytes


def test_a_unit_is_taken_though_another_node_has_sent_other_bytes_under_its_digest(house: House) -> None:
    token = house.working()
    lease = house.lease()
    delta = np.full(SHAPE, 0.1, np.float32)
    data = encode({"w": delta}, Codec.RAW)
    path = f"/v1/blobs/{hashlib.sha256(data).hexdigest()}"
    foreign = {"Content-Range": f"bytes 0-{len(data)}/{len(data) + 2}"}
    assert house.call("PUT", path, token=house.join("other"), data=data + b"?", headers=foreign).status_code == 202
    assert house.finish(token, delta).json()["notice"] == ""
    assert house.accepted() == [lease.unit_id]


@pytest.mark.parametrize(
    ("delta", "reason"),
    [
        (np.full(SHAPE, np.nan, np.float32), "not_finite"),
        (np.full(SHAPE, 1e9, np.float32), "norm_bound"),
        (np.zeros((3, 4), np.float32), "wrong_shape"),
        (encode({"w": np.zeros(SHAPE, np.float32)}, Codec.RAW)[:-7], "unreadable"),
        (b"MZ" * 100, "unreadable"),
    ],
)
def test_a_bad_update_is_refused_with_its_reason_and_its_unit_waits_for_another_node(house: House, delta: object, reason: str) -> None:
    token = house.working()
    answer = house.finish(token, delta)
    assert answer.status_code == 200
    assert reason in answer.json()["notice"]
    assert answer.json()["order"] is None
    assert house.accepted() == []
    assert house.get("/v1/facts?kinds=update_rejected")[0]["reason"] == reason


def test_what_a_node_cannot_do_is_told_in_its_own_words_with_what_the_round_waits_for(house: House) -> None:
    token, lease = house.working(), house.lease()
    for tries in range(4):  # its first unit, the other one, and twice the first again
        if tries:
            house.surplus(500)
            house.tick()
        lease = house.lease()
        report = {"lease_id": lease.lease_id, "generation": lease.generation, "state": "refused", "reason": "MemoryError: 2 GB"}
        sync = {"instance": "one", "device": "free", "lease": report}
        assert house.post("/v1/node/sync", sync, token=token).status_code == 200
    waits = {unit["unit_id"]: unit["waits"] for unit in house.get("/v1/jobs/j/units")}[lease.unit_id]
    again = house.clock.now() + timedelta(minutes=1)
    assert "waits for a node; pc could not do it 3 times: MemoryError: 2 GB" in waits
    assert waits.endswith(f"and is asked again at {again:%H:%M} UTC")


def test_an_update_that_was_never_uploaded_is_refused(house: House) -> None:
    token = house.working()
    lease = house.lease()
    notice = {"instance": "one", "lease_id": lease.lease_id, "generation": lease.generation, "steps_executed": 8, "update": "d" * 64}
    answer = house.post("/v1/node/update", notice | {"metrics": {"loss": 1.0}}, token=token)
    assert "unreadable" in answer.json()["notice"]
    assert "d" * 64 in answer.json()["notice"]
    assert house.accepted() == []


def test_a_continuation_must_be_stored_before_a_row_names_it(house: House) -> None:
    token = house.working()
    lease = house.lease()
    given = {"instance": "one", "lease_id": lease.lease_id, "generation": lease.generation, "step": 3, "steps_executed": 3}
    answer = house.post("/v1/node/hand-over", given | {"continuation": "e" * 64, "reason": "opted_out"}, token=token)
    assert problem_of(answer) == (404, "NotFound")
    assert house.lease() == lease


def test_a_second_agent_with_one_identity_shuts_the_first_out(house: House) -> None:
    token = house.join()
    assert house.post("/v1/node/hello", {"instance": "two", "runtime": "torch-x"}, token=token).status_code == 200
    assert problem_of(house.post("/v1/node/sync", {"instance": "one"}, token=token)) == (409, "DuplicateIdentity")
    assert house.post("/v1/node/sync", {"instance": "two"}, token=token).status_code == 200


def test_a_revoked_node_is_shut_out_at_once_though_it_was_remembered(house: House) -> None:
    token = house.join()
    assert house.post("/v1/node/sync", {"instance": "one"}, token=token).status_code == 200
    assert house.post("/v1/nodes/pc/revoke").status_code == 200
    assert problem_of(house.post("/v1/node/sync", {"instance": "one"}, token=token)) == (401, "Unauthorized")


def test_one_token_cannot_keep_the_daemon_busy(slow_house: House) -> None:
    answers = [slow_house.call("GET", "/v1/status", token="viewer") for _ in range(4)]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert problem_of(refused[0]) == (503, "Busy")
    assert refused[0].headers["Retry-After"] == "1"
    assert slow_house.call("GET", "/v1/status", token="admin").status_code == 200


def test_a_full_queue_says_so_and_when_to_come_back(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    token = house.join()
    monkeypatch.setattr(house.daemon.writer, "_max_queue", 0)
    for path, body in (("/v1/node/sync", {"instance": "one"}), ("/v1/node/consent", {"opted_in": False})):
        answer = house.post(path, body, token=token)
        assert problem_of(answer) == (503, "Busy")
        assert answer.headers["Retry-After"] == "1"


def test_what_nobody_foresaw_is_told_by_reference_and_logged_once(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("the secret is 42")

    token = house.join()
    monkeypatch.setattr("gridsched.flow.collect.statement", broken)
    answer = house.call("GET", "/v1/node/statement", token=token)
    assert problem_of(answer) == (500, "InternalError")
    assert "42" not in answer.text
    logged = [record for record in caplog.records if getattr(record, "action", "") == "request_failed"]
    assert len(logged) == 1
    assert getattr(logged[0], "reference") in answer.json()["detail"]  # noqa: B009


@pytest.mark.parametrize("name", sorted(name for name in errors.__all__ if isinstance(getattr(errors, name), type)))
def test_every_error_leaves_under_its_status(name: str) -> None:
    kind: type[GridschedError] = getattr(errors, name)
    answer = problem(kind("the thing, and the remedy"))
    nearest = next(parent for parent in kind.__mro__ if parent in HTTP_STATUS)
    assert answer.status_code == HTTP_STATUS[nearest] == http_status(kind("x"))
    assert name.encode() in bytes(answer.body)
    assert b"the thing, and the remedy" in bytes(answer.body)


def test_a_wrong_door_is_a_problem_too(house: House) -> None:
    for method, path, status in (("GET", "/v1/nowhere", 404), ("DELETE", "/v1/jobs", 405), ("GET", "/v1/join", 405)):
        answer = house.call(method, path, token="admin")
        assert (answer.status_code, bool(answer.json()["detail"])) == (status, True), path


def test_a_message_over_the_limit_is_refused(house: House) -> None:
    token = house.join()
    long = {"instance": "o" * 5_000}
    assert problem_of(house.post("/v1/node/sync", long, token=token)) == (413, "TooLarge")

    def pieces() -> Any:
        yield from [b" " * 1_500] * 4

    assert problem_of(house.call("POST", "/v1/node/sync", token=token, data=pieces())) == (413, "TooLarge")
