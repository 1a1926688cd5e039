"""``kill -9`` at any moment, on any database, of the daemon and of nodes: the job ends in the bits of an undisturbed one."""

import random
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gridsched import config
from gridsched.core.work import UnitKind
from gridsched.store.sql import SqlStore
from gridsched.testing import check_invariants
from tests.e2e.conftest import EPOCHS, PASSES, Peace
from tests.e2e.site_process import NodeProcess, Site

pytestmark = pytest.mark.long

SLOWLY = 0.15
"""The share of a core a node may use, so that a unit lasts a second or two on a fast machine too."""


@pytest.mark.parametrize("seed", [random.SystemRandom().randrange(10**6)], ids=["any-moment"])
def test_a_daemon_killed_at_any_moment_loses_and_doubles_nothing(peace: Peace, empty_database: str, tmp_path: Path, seed: int) -> None:
    moments = random.Random(seed)
    with Site(tmp_path / "site", store=empty_database) as site:
        site.join("n1", "n2", cpu_share=SLOWLY)
        job_id = site.submit(epochs=EPOCHS, passes=PASSES)
        strikes = (1, 3, 5) if empty_database.startswith("sqlite") else (3,)
        for accepted in strikes:
            site.wait(f"{accepted} units are accepted", lambda n=accepted: site.accepted(job_id) >= n)  # type: ignore[misc]
            time.sleep(moments.uniform(0, 0.8))  # not to wait for something: this is the moment
            assert site.job(job_id)["state"] == "running", "the job was over before the blow; make it longer"
            site.daemon.kill()
            site.serve()
        ends_as_in_peace(site, job_id, peace)
        assert site.daemon.crashes == len(strikes)


def test_a_node_killed_and_another_that_leaves_in_the_middle_cost_no_bit(peace: Peace, site: Site) -> None:
    first, second = site.join("n1", "n2", cpu_share=SLOWLY)
    job_id = site.submit(epochs=EPOCHS, passes=PASSES)
    site.wait("n1 is in the middle of a unit", lambda: first.in_the_middle)
    unit_id = first.status().unit_id
    first.process.kill()
    first.process.start()
    site.wait("n1 goes on with its unit", lambda: goes_on(site, first, unit_id))
    site.wait("n2 is in the middle of a unit", lambda: second.in_the_middle)
    second.choose(opted_in=False)
    given_back = site.wait("n2 gives its unit back", lambda: handed_over(site, "n2"))
    assert given_back[-1]["reason"] == "opted_out"
    assert given_back[-1]["step"] > 0, "it was in the middle"
    ends_as_in_peace(site, job_id, peace)
    assert {f["node_id"] for f in site.facts("agent_replaced")} == {"n1"}
    wasted = sum(e["wasted_j"] for e in site.operator.get(f"/v1/jobs/{job_id}/epochs"))
    useful = sum(e["useful_j"] for e in site.operator.get(f"/v1/jobs/{job_id}/epochs"))
    assert wasted < useful, "most steps were run once"


def goes_on(site: Site, node: NodeProcess, unit_id: str) -> bool:
    status = node.status()
    done = unit_id in {f["unit_id"] for f in site.facts("unit_accepted")}
    return done or (status.unit_id == unit_id and status.phase == "running" and status.step > 0 and site.row(node.name)["present"])


def handed_over(site: Site, name: str) -> Sequence[dict[str, Any]]:
    return [f for f in site.facts("lease_ended") if f["node_id"] == name and f["state"] == "handed_over"]


def ends_as_in_peace(site: Site, job_id: str, peace: Peace) -> None:
    """The same bits, every unit counted once, and every promise of the store kept."""
    assert job_id == peace.job_id
    assert site.finish(job_id)["digest"] == peace.digest
    here, there = (units_accepted(each, job_id) for each in (site, peace.site))
    assert here == there
    assert set(here.values()) == {1}
    versions = site.operator.get(f"/v1/jobs/{job_id}/versions")
    assert [v["number"] for v in versions] == list(range(len(versions)))
    assert all(after["parent"] == before["digest"] for before, after in pairwise(versions))
    assert [v["digest"] for v in versions] == [v["digest"] for v in peace.site.operator.get(f"/v1/jobs/{job_id}/versions")]
    books = site.operator.get("/v1/ledger")
    assert books["balanced"]
    assert books["chain_ok"]
    store = SqlStore(config.load(site.folder).store.url)
    with store.read() as tx:
        check_invariants(tx)
    store.close()


def units_accepted(site: Site, job_id: str) -> Counter[tuple[str, str]]:
    """Of the job itself: which of its units are done again to be compared depends on who is there, and is nobody's result."""
    accepted = (f for f in site.facts("unit_accepted") if f["job_id"] == job_id and f["unit_kind"] != "audit")
    found = Counter((f["unit_id"], f["unit_kind"]) for f in accepted)
    assert {kind for _, kind in found} == {UnitKind.TRAIN.value, UnitKind.EVALUATE.value}
    return found
