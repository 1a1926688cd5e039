"""Plans for pages: the same as Python's own, for running jobs and nobody else, made once."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import pytest

from gridsched.core.method import InnerOptimizer
from gridsched.flow import admit
from gridsched.train.plan import Plan, plan_of
from gridsched.web import plan_api
from gridsched.web.pages import BUILT
from tests.train.builders import hard_net
from tests.web.builders import INNER, job_of
from tests.web.conftest import LIMITS, ZONE, House, build


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    yield from build(LIMITS)


@pytest.fixture
def empty() -> Iterator[House]:
    yield from build(LIMITS)


@pytest.fixture(scope="module")
def token(house: House) -> str:
    house.do(partial(admit.submit, spec=job_of(house), initial_bytes=1))
    return house.join()


def path(house: House, *, program: str = "", inner: Any = INNER, **query: Any) -> str:
    query = {"kind": "train", "batch": 8} | query
    told = json.dumps(asdict(inner) if isinstance(inner, InnerOptimizer) else inner)
    return f"/v1/node/plan/{program or job_of(house).program}?inner={told}" + "".join(f"&{key}={value}" for key, value in query.items())


@pytest.mark.parametrize(("kind", "batch"), [("train", 8), ("train", 3), ("evaluate", 64), ("accumulate", 2), ("apply", 1)])
def test_a_page_gets_the_plan_that_python_runs_by(house: House, token: str, kind: str, batch: int) -> None:
    answer = house.call("GET", path(house, kind=kind, batch=batch), token=token)
    assert answer.status_code == 200, answer.text
    program, _ = hard_net()
    assert answer.content == plan_of(program, kind=kind, batch=batch, inner=INNER).to_bytes()
    assert Plan.from_bytes(answer.content).batch == batch
    assert answer.headers["Gridsched-Kernels"] == hashlib.sha256((BUILT / "kernels.wasm").read_bytes()).hexdigest()
    again = house.call("GET", path(house, kind=kind, batch=batch), token=token, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ({"kind": "steal"}, 422, "kind="),
        ({"batch": 0}, 422, "batch"),
        ({"batch": 9}, 422, "batches are 1 to 8"),
        ({"kind": "evaluate", "batch": 65}, 422, "batches are 1 to 64"),
        ({"batch": "many"}, 422, "whole number"),
        ({"inner": replace(INNER, lr=0.2)}, 422, "the optimizer its own"),
        ({"inner": {"name": "lion"}}, 422, "sgd or adamw"),
        ({"inner": {"lr": 0.1, "speed": 9}}, 400, "speed"),
        ({"inner": [1]}, 400, "InnerOptimizer"),
        ({"program": "0" * 64}, 404, "no running job"),
        ({"program": "x"}, 422, "not a digest"),
        ({"colour": "red"}, 400, "colour"),
    ],
)
def test_only_what_a_running_job_needs_is_planned(house: House, token: str, query: dict[str, Any], status: int, says: str) -> None:
    answer = house.call("GET", path(house, **query), token=token)
    assert answer.status_code == status, answer.text
    assert says in answer.json()["detail"]


@pytest.mark.parametrize(("caller", "status"), [("", 401), ("nobody", 401), ("admin", 403)])
def test_plans_are_for_nodes(house: House, token: str, caller: str, status: int) -> None:
    assert house.call("GET", path(house), token=caller).status_code == status


def test_a_page_with_other_kernels_is_told_to_load_again(house: House, token: str) -> None:
    answer = house.call("GET", path(house), token=token, headers={"Gridsched-Kernels": "0" * 64})
    assert (answer.status_code, answer.json()["error"]) == (422, "OtherRelease")
    assert "load the page again" in answer.json()["detail"]


def test_an_old_page_is_told_to_load_again_before_it_takes_a_node_over(house: House, token: str) -> None:
    answer = house.post("/v1/node/hello", {"instance": "old", "runtime": "wasm-0", "version": 1}, token=token)
    assert (answer.status_code, answer.json()["error"]) == (422, "OtherRelease")
    code = house.post("/v1/invites", {"zone": ZONE}).json()["code"]
    join = {"code": code, "node_id": "n", "device": "d", "power_w": 9.0, "memory_bytes": 9, "runtime": "wasm-0", "meter": "m"}
    answer = house.call("POST", "/v1/join", json=join | {"version": 1})
    assert answer.json()["error"] == "OtherRelease"
    assert house.call("POST", "/v1/join", json=join).status_code == 200, "the code is still good"


def test_a_plan_is_made_once_and_the_longest_unused_is_forgotten(house: House, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counted(*args: Any, **how: Any) -> Plan:
        made.append(how["batch"])
        return plan_of(*args, **how)

    monkeypatch.setattr(plan_api, "plan_of", counted)
    for batch in (5, 5, 6, 5):
        assert house.call("GET", path(house, batch=batch), token=token).status_code == 200
    assert made == [5, 6]
    monkeypatch.setattr(plan_api, "_MOST_BYTES", 1)
    for batch in (7, 6, 7):
        assert house.call("GET", path(house, batch=batch), token=token).status_code == 200
    assert made == [5, 6, 7, 6, 7]


def test_a_cancelled_jobs_program_is_planned_no_more(house: House, token: str) -> None:
    late = house.join("late")
    assert house.call("GET", path(house), token=late).status_code == 200
    house.post("/v1/jobs/j/cancel")
    assert house.call("GET", path(house), token=late).status_code == 404


def test_the_operator_sees_which_node_no_job_is_for_and_why(empty: House) -> None:
    house = empty
    house.do(partial(admit.submit, spec=job_of(house), initial_bytes=1, wasm_lacks="aten.conv3d.default"))
    token = house.join("tablet")
    house.post("/v1/node/hello", {"instance": "one", "runtime": "wasm-0123abcd"}, token=token)
    house.surplus(1000.0)
    house.tick()
    (row,) = house.get("/v1/nodes")
    assert (row["reason"], row["lease_id"]) == ("runtime", None)
    assert house.get("/v1/jobs/j")["wasm_lacks"] == "aten.conv3d.default"
    assert house.post("/v1/node/sync", {"instance": "one"}, token=token).json()["node_reason"] == "runtime"


def test_a_node_that_asks_for_ever_other_plans_waits_while_others_get_theirs(empty: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house, made = empty, plan_of(hard_net()[0], kind="evaluate", batch=1, inner=INNER)
    monkeypatch.setattr(plan_api, "plan_of", lambda *_, **__: made)
    house.do(partial(admit.submit, spec=job_of(house), initial_bytes=1))
    greedy, other = house.join("greedy"), house.join("other")
    asked = [path(house, kind=kind, batch=batch) for kind in ("apply", "evaluate") for batch in range(1, 8)]
    answers = [house.call("GET", one, token=greedy).status_code for one in asked]
    assert answers == [200] * 12 + [503] * 2
    assert house.call("GET", asked[0], token=greedy).status_code == 200  # it is there already
    assert house.call("GET", asked[-1], token=other).status_code == 200
