"""What operators, model owners and watchers ask and order, door by door; one daemon for all of it."""

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import pytest

from gridsched.core.errors import Unreachable
from gridsched.core.facts import SignalDegraded, UnitAccepted
from gridsched.core.job import JobSpec
from gridsched.core.method import Method
from gridsched.flow import quarantine
from gridsched.testing import ManualClock
from gridsched.train.dataset import write_dataset
from gridsched.train.program import to_bytes
from gridsched.train.version import initial_version
from gridsched.web.views import fact
from tests.train.builders import SAMPLES, hard_net, samples
from tests.web.conftest import LIMITS, ZONE, House, build, fresh_house

VIEWERS = [
    "/v1/status", "/v1/jobs", "/v1/jobs/j", "/v1/jobs/j/versions", "/v1/jobs/j/epochs", "/v1/jobs/j/schedule", "/v1/datasets", "/v1/nodes",
    f"/v1/zones/{ZONE}/decisions", f"/v1/zones/{ZONE}/explain", "/v1/facts", "/v1/ledger", "/v1/ledger/transfers", "/v1/invites",
]  # fmt: skip
OPERATORS = [
    "/v1/jobs", "/v1/jobs/j/cancel", "/v1/datasets", "/v1/invites", "/v1/invites/withdraw", "/v1/invites/picture",
    "/v1/nodes/pc/revoke", "/v1/nodes/pc/pardon", f"/v1/zones/{ZONE}/pause", f"/v1/zones/{ZONE}/resume",
]  # fmt: skip


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """A house in which node ``pc`` has worked for a minute, was paused by its operator and went on."""
    for made in build(replace(LIMITS, calls_per_s=10_000.0)):
        made.working("pc")
        for paused, surplus in ((True, 1000.0), (False, 900.0)):
            made.clock.sleep(60)
            made.surplus(surplus)
            made.post(f"/v1/zones/{ZONE}/{'pause' if paused else 'resume'}")
            made.tick()
        yield made


def refusal(answer: Any) -> tuple[int, str, str]:
    body = answer.json()
    return answer.status_code, body["error"], body["detail"]


# -- who may


@pytest.mark.parametrize("path", VIEWERS)
def test_viewers_may_look_and_strangers_may_not(house: House, path: str) -> None:
    assert house.call("GET", path, token="viewer").status_code == 200
    assert refusal(house.call("GET", path))[:2] == (401, "Unauthorized")


@pytest.mark.parametrize("path", OPERATORS)
def test_viewers_may_order_nothing(house: House, path: str) -> None:
    status, error, detail = refusal(house.post(path, token="viewer"))
    assert (status, error) == (403, "Forbidden")
    assert "operator" in detail


def test_a_viewer_may_fetch_files_but_store_none(house: House) -> None:
    digest = house.daemon.blobs.put(b"weights")
    assert house.call("GET", f"/v1/blobs/{digest}", token="viewer").content == b"weights"
    put = house.call("PUT", f"/v1/blobs/{'0' * 64}", token="viewer", data=b"x")
    assert refusal(put)[:2] == (403, "Forbidden")


# -- is it well


def test_health_needs_no_token_and_says_when_the_store_is_out_of_reach(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    well = house.call("GET", "/healthz")
    assert (well.status_code, well.json()["store"]) == (200, "ok")
    assert well.json()["now"] == house.clock.now().isoformat()

    def gone() -> None:
        raise Unreachable("the database is gone")

    monkeypatch.setattr(house.daemon.store, "read", gone)
    ill = house.call("GET", "/healthz")
    assert (ill.status_code, ill.json()["store"]) == (503, "unreachable")
    assert "database" not in ill.text


def test_metrics_are_open_unless_the_operator_says_otherwise(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    page = house.call("GET", "/metrics")
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/plain")
    assert "gridsched_facts_total" in page.text

    shut = replace(LIMITS, metrics_need_token=True)
    with fresh_house(shut) as again:
        assert refusal(again.call("GET", "/metrics"))[:2] == (401, "Unauthorized")
        assert again.call("GET", "/metrics", token="viewer").status_code == 200


# -- looking


def test_status_tells_target_draw_and_reason_of_every_zone(house: House) -> None:
    seen = house.get("/v1/status")
    (zone,) = seen["zones"]
    assert (zone["zone"], zone["target_w"], zone["reason"], zone["paused"]) == (ZONE, 900.0, "surplus", False)
    assert zone["leased_w"] == 100.0
    assert zone["signals"]["surplus"]["value"] == 900.0
    assert zone["nodes"] == {"working": 1}
    assert (seen["now"], seen["clock_speed"]) == (house.clock.now().isoformat(), 1.0)
    (job,) = seen["jobs"]
    assert (job["job_id"], job["state"], job["version"], job["epoch"], job["accuracy"]) == ("j", "running", 0, 0, None)


def test_a_node_is_told_with_its_unit_and_why_and_without_its_secret(house: House) -> None:
    answer = house.call("GET", "/v1/nodes", token="viewer")
    (node,) = [row for row in answer.json() if row["node_id"] == "pc"]
    assert (node["reason"], node["unit_id"], node["step"], node["steps"]) == ("working", "j.r0.u0", 1, 8)
    assert "hash" not in answer.text


def test_facts_are_paged_by_number_and_chosen_by_name_and_subject(house: House) -> None:
    everything = house.get("/v1/facts")
    assert [row["seq"] for row in everything] == list(range(1, len(everything) + 1))
    assert house.get("/v1/facts", params={"since": 2, "limit": 3}) == everything[2:5]
    leased = house.get("/v1/facts", params={"kinds": "lease_paused,lease_resumed", "subject": "j.r0.u0.l1"})
    assert [row["kind"] for row in leased] == ["lease_paused", "lease_resumed"]
    assert leased[0]["reason"] == "paused_by_operator"


def test_a_facts_own_kind_does_not_hide_its_name() -> None:
    at = ManualClock().now()
    accepted = UnitAccepted(at=at, job_id="j", unit_id="u", node_id="n", lease_id="l", kind="train", samples=1, steps=1)
    assert fact(7, accepted).items() >= {"seq": 7, "kind": "unit_accepted", "unit_kind": "train"}.items()
    degraded = SignalDegraded(at=at, source="s", kind="timeout", detail="d")
    assert fact(8, degraded).items() >= {"seq": 8, "kind": "signal_degraded", "error_kind": "timeout"}.items()


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/v1/facts?kinds=lease_pause", 422, "'lease_paused'"),
        ("/v1/facts?sinse=3", 400, "'since'"),
        ("/v1/facts?limit=-1", 422, "limit"),
        ("/v1/facts?limit=%C2%B2", 422, "whole number"),
        ("/v1/facts?since=99999999999999999999", 422, "since"),
        (f"/v1/zones/{ZONE}/decisions?since=yesterday", 422, "since"),
        (f"/v1/zones/{ZONE}/decisions?since=2018-05-01T00:00:00", 422, "00:00:00Z"),
        ("/v1/zones/nowhere/decisions", 404, ZONE),
        ("/v1/ledger/transfers?format=xml", 422, "csv"),
        ("/v1/jobs/nothing", 404, "nothing"),
        ("/v1/jobs/nothing/epochs", 404, "nothing"),
        ("/v1/leases/nothing", 404, "nothing"),
        ("/v1/decisions/nothing", 404, "nothing"),
        ("/v1/explain/lease/nothing", 404, "nothing"),
    ],
)
def test_a_question_that_makes_no_sense_is_answered_with_what_would(house: House, path: str, status: int, says: str) -> None:
    answer = house.call("GET", path, token="viewer")
    assert refusal(answer)[0] == status
    assert says in refusal(answer)[2]


# -- why


def test_a_pause_is_explained_back_to_the_reading_and_its_source(house: House) -> None:
    told = house.get("/v1/explain/lease/j.r0.u0.l1")
    assert [move["kind"] for move in told["transfers"]] == ["reserve"]
    assert told["unit"]["job_id"] == "j"

    paused = next(fact for fact in told["facts"] if fact["kind"] == "lease_paused")
    by = house.get(f"/v1/explain/decision/{paused['decision_id']}")["decision"]
    assert (by["reason"], by["target_w"]) == ("paused_by_operator", 0.0)

    on = told["decision"]
    assert (on["reason"], on["target_w"]) == ("surplus", 900.0)
    assert on["policy_digest"] == house.daemon.policies.by_zone[ZONE].digest
    (seen,) = [seen for seen in on["inputs"] if seen["signal"] == "surplus"]
    reading = seen["reading"]
    assert (reading["value"], reading["source"], reading["known_at"]) == (900.0, "meter", reading["start"])


def test_decisions_come_oldest_first_and_since_a_moment(house: House) -> None:
    told = house.get(f"/v1/zones/{ZONE}/decisions")
    assert [row["target_w"] for row in told] == [1000.0, 0.0, 900.0]
    assert house.get(f"/v1/zones/{ZONE}/decisions", params={"since": told[1]["decided_at"]}) == told[1:]
    assert house.get(f"/v1/zones/{ZONE}/decisions", params={"limit": 1}) == told[2:]


def test_the_books_balance_and_can_be_taken_along_as_a_table(house: House) -> None:
    books = house.get("/v1/ledger")
    assert (books["balanced"], books["chain_ok"], books["transfers"]) == (True, True, 1)
    moves = house.get("/v1/ledger/transfers")
    table = list(csv.DictReader(io.StringIO(house.call("GET", "/v1/ledger/transfers?format=csv", token="viewer").text)))
    assert [(row["transfer_id"], int(row["amount_micro"]), row["digest"]) for row in table] == [
        (move["transfer_id"], move["amount_micro"], move["digest"]) for move in moves
    ]


# -- ordering


def test_a_job_is_stored_submitted_twice_and_cancelled(house: House) -> None:
    program, tensors = hard_net()
    blobs: list[bytes] = []

    def put(data: bytes) -> str:
        blobs.append(data)
        return house.daemon.blobs.put(data)

    manifest = put(write_dataset(samples(), name="train", shard_samples=64, put=put).to_bytes())
    spec = JobSpec(
        job_id="real", name="real", program=put(to_bytes(program, tensors)), dataset=manifest, samples=SAMPLES, test_dataset=None,
        test_samples=0, initial=put(initial_version(program, tensors).to_bytes()), seed=1, method=Method(epochs=2), zone=ZONE,
    )  # fmt: skip
    body = msgspec.to_builtins(spec)

    assert [house.post("/v1/jobs", body).status_code for _ in range(2)] == [201, 201]
    assert refusal(house.post("/v1/jobs", body | {"seed": 2}))[:2] == (409, "Conflict")
    assert refusal(house.post("/v1/jobs", body | {"job_id": "far", "zone": "nowhere"}))[0] == 422
    assert "zones" in refusal(house.post("/v1/jobs", body | {"zones": ZONE}))[2]
    assert "rate" in refusal(house.post("/v1/jobs", body | {"method": body["method"] | {"inner": {"rate": 1}}}))[2]
    assert "is not stored" in refusal(house.post("/v1/jobs", body | {"job_id": "lost", "program": "f" * 64}))[2]

    (version,) = house.get("/v1/jobs/real/versions")
    assert (version["number"], version["digest"]) == (0, spec.initial)
    assert house.get("/v1/jobs/real")["spec"]["initial"] == spec.initial
    assert [epoch["number"] for epoch in house.get("/v1/jobs/real/epochs")] == [0]
    assert house.post("/v1/jobs/real/cancel").status_code == 200
    assert house.get("/v1/jobs/real")["state"] == "cancelled"
    assert refusal(house.post("/v1/jobs/none/cancel"))[0] == 404


def test_a_dataset_gets_a_name_once(house: House) -> None:
    manifest = write_dataset(samples(), name="named", shard_samples=70, put=house.daemon.blobs.put)
    body = {"name": "named", "digest": house.daemon.blobs.put(manifest.to_bytes()), "samples": SAMPLES, "size_bytes": 1}
    told = body | {"added_at": "2018-05-01T00:00:00Z", "attribution": "me"}
    assert [house.post("/v1/datasets", told).status_code for _ in range(2)] == [201, 201]
    (row,) = house.get("/v1/datasets")
    assert (row["name"], row["samples"], row["attribution"]) == ("named", SAMPLES, "me")
    assert refusal(house.post("/v1/datasets", told | {"samples": 1}))[0] == 422


def test_a_revoked_node_counts_nowhere_any_more() -> None:
    with fresh_house() as fresh:
        fresh.working("pc")
        fresh.post("/v1/nodes/pc/revoke")
        (zone,) = fresh.get("/v1/status")["zones"]
        assert (zone["nodes"], zone["leased_w"], zone["drawn_w"]) == ({}, 0.0, 0.0)
        assert refusal(fresh.post("/v1/nodes/nobody/revoke"))[0] == 404


def test_a_quarantined_node_is_named_with_its_reason_until_it_is_pardoned() -> None:
    with fresh_house() as fresh:
        fresh.working("pc")
        verb = partial(quarantine.quarantine, node_id="pc", unit_id="j.r0.u0", why="its answer was wrong")
        fresh.daemon.writer.submit(verb).result()
        (row,) = fresh.get("/v1/nodes")
        assert (row["reason"], row["quarantine_reason"]) == ("quarantined", "its answer was wrong")
        assert row["quarantined_at"] is not None
        assert row["lease_id"] is None
        assert fresh.post("/v1/nodes/pc/pardon").status_code == 200
        (row,) = fresh.get("/v1/nodes")
        assert (row["quarantined_at"], row["quarantine_reason"]) == (None, "")
        assert row["reason"] != "quarantined"
        assert [one["kind"] for one in fresh.get("/v1/facts?kinds=node_quarantined,node_pardoned")] == ["node_quarantined", "node_pardoned"]
        assert refusal(fresh.post("/v1/nodes/nobody/pardon"))[0] == 404
