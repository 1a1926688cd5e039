"""A node that dies in the middle of a round: another does its unit, the others hardly notice, and no bit is different."""

from itertools import pairwise

import pytest

from tests.e2e.conftest import EPOCHS, PASSES, Peace
from tests.e2e.site_process import Site

pytestmark = pytest.mark.long


def test_a_killed_node_s_unit_is_done_by_an_idle_one_and_nothing_else_is(peace: Peace, site: Site) -> None:
    """Three nodes work on a round's three units, and a fourth stands by."""
    site.join("n1", "n2", "n3", "n4", cpu_share=0.15)
    job_id = site.submit(epochs=EPOCHS, passes=PASSES)
    victim = site.wait("a node is in the middle of a unit", lambda: next((n for n in site.nodes.values() if n.in_the_middle), None))
    unit_id = victim.status().unit_id
    victim.process.kill()
    (cut,) = site.wait("the daemon knows of it", lambda: site.facts("node_cut"))
    assert cut["node_id"] == victim.name
    assert site.row(victim.name)["reason"] == "doubtful"
    waits = [unit["waits"] for unit in site.operator.get(f"/v1/jobs/{job_id}/units") if unit["unit_id"] == unit_id]
    assert not waits or f"on {victim.name} since" in waits[0]

    job = site.finish(job_id)
    assert job["digest"] == peace.digest, "the same bits as in peace"
    told = [fact for fact in site.facts("lease_offered", "lease_ended", "unit_accepted") if fact["unit_id"] == unit_id]
    (copy,) = [fact for fact in told if fact["kind"] == "lease_offered" and fact["reason"] == "holder_cut"]
    (accepted,) = [fact for fact in told if fact["kind"] == "unit_accepted"]
    assert accepted["lease_id"] == copy["lease_id"], "redone once, by the copy"
    assert {fact["node_id"]: fact["reason"] for fact in told if fact["kind"] == "lease_ended"} == {
        victim.name: "outrun",
        copy["node_id"]: "finished",
    }
    story = site.operator.get(f"/v1/explain/lease/{copy['lease_id']}")
    assert [fact["reason"] for fact in story["facts"] if fact["kind"] == "lease_offered"] == ["holder_cut"]
    versions = site.operator.get(f"/v1/jobs/{job_id}/versions")
    assert all(after["parent"] == before["digest"] for before, after in pairwise(versions))
