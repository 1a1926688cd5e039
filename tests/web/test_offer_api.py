"""What a node sees of its zone before its owner says yes."""

from functools import partial
from typing import Any

from gridsched.core.job import Dataset
from gridsched.flow import admit
from tests.web.conftest import SAMPLES, ZONE, House


def offer(house: House, token: str) -> dict[str, Any]:
    found: dict[str, Any] = house.get("/v1/node/offer", token=token)
    return found


def test_an_offer_says_what_may_be_drawn_and_why(house: House) -> None:
    token = house.join()
    nothing_yet = offer(house, token)
    house.surplus(500.0)
    house.tick()
    found = offer(house, token)
    assert (nothing_yet["target_w"], nothing_yet["reason"]) == (0.0, "no_policy")
    assert (found["zone"], found["reason"], found["target_w"] > 0) == (ZONE, "surplus", True)
    assert found["reward_micro_per_kwh"] > 0


def test_an_offer_names_running_jobs_and_their_data(house: House) -> None:
    token = house.join()
    digits = Dataset(name="digits", digest=SAMPLES, samples=128, size_bytes=1, added_at=house.clock.now(), attribution="UCI")
    house.do(partial(admit.add_dataset, dataset=digits))
    house.job("mine")
    house.job("ended")
    house.do(partial(admit.cancel, job_id="ended"))
    (job,) = offer(house, token)["jobs"]
    assert (job["job_id"], job["name"], job["dataset"], job["attribution"], job["accuracy"]) == ("mine", "mine", "digits", "UCI", None)


def test_an_offer_is_for_nodes_alone(house: House) -> None:
    assert house.call("GET", "/v1/node/offer").status_code == 401
    assert house.call("GET", "/v1/node/offer", token="viewer").status_code == 403
