from datetime import UTC, datetime
from typing import Any

import pytest

from gridsched.core import facts as f
from gridsched.demo.scene import Moment, clock_time, reasons_of, sentence, short_unit

AT = datetime(2018, 1, 28, 11, 45, tzinfo=UTC)
STEPS = {"digits.r3.u2": 120}


def lease(kind: Any, **more: Any) -> f.Fact:
    usual: dict[str, object] = {
        "lease_id": "digits.r3.u2.l2",
        "unit_id": "digits.r3.u2",
        "job_id": "digits",
        "node_id": "pc",
        "zone": "demo",
    }
    usual |= {"generation": 2, "reason": "planned", "power_w": 180.0, "step": 41}
    return kind(at=AT, **(usual | more))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("fact", "said"),
    [
        (lease(f.LeasePaused, reason="opted_out"), "pc opts out in the middle of unit r3.u2, step 41/120"),
        (lease(f.LeasePaused, reason="no_surplus"), "pc pauses in unit r3.u2, step 41/120: the surplus is gone"),
        (lease(f.LeasePaused, reason="on_battery"), "pc pauses in unit r3.u2, step 41/120: on battery"),
        (lease(f.LeasePaused, unit_id="digits.r9.u0", reason="alarm"), "pc pauses in unit r9.u0, step 41: there is a grid alarm"),
        (lease(f.LeaseResumed), "pc resumes unit r3.u2, step 41/120: the surplus is back"),
        (lease(f.LeaseEnded, state="handed_over"), "pc hands over unit r3.u2, step 41/120; nothing is lost"),
        (lease(f.LeaseEnded, state="expired"), "pc is not waited for: unit r3.u2 is open to others"),
        (lease(f.LeaseEnded, state="released"), None),
        (lease(f.LeaseOffered, decision_id="d"), "pc goes on with unit r3.u2"),
        (lease(f.LeaseOffered, decision_id="d", generation=1), None),
        (lease(f.LeaseActive), None),
        (f.NodeAbsent(at=AT, node_id="pc", zone="demo", silent_s=9.0), "pc has gone silent"),
        (f.JobEnded(at=AT, job_id="digits", state="done", reason="all epochs merged"), "the job is done: all epochs merged"),
        (
            f.VersionEvaluated(at=AT, job_id="digits", version=1, epoch=0, loss=0.1, accuracy=0.9721, samples=359),
            "epoch 1 is done: 97.2% of 359 unseen digits read right",
        ),
        (f.VersionEvaluated(at=AT, job_id="digits", version=1, epoch=0, loss=0.1, accuracy=None, samples=359), None),
    ],
)
def test_a_fact_is_told_in_plain_words_or_not_at_all(fact: f.Fact, said: str | None) -> None:
    told = sentence(fact, STEPS)
    assert (told[0] if told else None) == said


def test_time_is_told_where_the_surplus_is() -> None:
    assert clock_time(AT) == "12:45"


def test_there_is_one_job_so_its_name_is_left_out() -> None:
    assert short_unit("digits.r3.u2") == "r3.u2"


def test_reasons_are_counted_by_control_tick_the_most_frequent_first() -> None:
    ticks = [Moment(at=AT, price_eur_mwh=None, surplus_w=None, target_w=0, leased_w=0, drawn_w=0, reason=r) for r in ("a", "b", "b")]
    assert reasons_of(ticks) == {"b": 2, "a": 1}
