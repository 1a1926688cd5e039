"""A job that diverges, on a real node: it ends and says why, though JSON has no word for what its loss became."""

import pytest

from gridsched import owner
from gridsched.core.method import InnerOptimizer
from tests.e2e.site_process import JOB_FILE, ZONE, Site

pytestmark = pytest.mark.long


def test_a_job_that_diverges_ends_with_the_reason(site: Site) -> None:
    site.join("n1", cpu_share=1.0)
    made = owner.prepare(JOB_FILE, zone=ZONE, changes={"epochs": 1, "inner": InnerOptimizer(lr=1e30)})
    job_id = owner.submit(site.operator, made).job_id
    site.wait(f"job {job_id} ends", lambda: site.job(job_id)["state"] != "running")
    job = site.job(job_id)
    assert job["state"] == "failed"
    assert "ended in NaN or infinity on n1; lower the learning rate" in job["reason"]
    assert {fact["reason"] for fact in site.facts("update_rejected")} == {"not_finite"}
    assert not site.facts("unit_accepted")
