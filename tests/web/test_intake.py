"""A job that cannot run is refused at the door, by the name of what is wrong with it."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.web.conftest import LIMITS, ZONE, House, build


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """One house for all refusals: none of them may leave a trace."""
    yield from build(LIMITS)


def spec(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "job_id": "mine", "name": "mine", "program": "a" * 64, "dataset": "b" * 64, "samples": 10, "test_dataset": None, "test_samples": 0,
        "initial": "c" * 64, "seed": 1, "method": {"epochs": 1}, "zone": ZONE,
    }  # fmt: skip
    return values | changes


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (spec(epcohs=1), 400, "epcohs"),
        (spec(method={"epochs": 1, "batchsize": 3}), 400, "batch_size"),
        (spec(method={"inner": {"name": "adam"}}), 422, "sgd or adamw"),
        (spec(samples="ten"), 400, "samples"),
        (spec(samples=0), 422, "no samples"),
        (spec(method={"passes": 10**7}), 422, "a unit of 10000000 steps is longer than the 2000000 that can be handed in"),
        (spec(job_id="Mine!"), 422, "Mine!"),
        (spec(program="no-digest"), 422, "program"),
        (spec(zone="mars"), 422, "mars"),
        (spec(), 422, "not stored"),
        ([], 400, "JobSpec"),
    ],
)
def test_a_job_that_cannot_run_is_refused_by_name(house: House, body: object, status: int, says: str) -> None:
    answer = house.post("/v1/jobs", body)
    assert answer.status_code == status, answer.text
    assert says in answer.json()["detail"]
    assert house.get("/v1/jobs") == []
