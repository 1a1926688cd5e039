"""Nodes whose clock is a day off, and two agents with one identity."""

import shutil
import sys
from datetime import timedelta

import pytest

from gridsched.clock import SystemClock
from gridsched.demo.stage import Process
from gridsched.node.state import Home
from tests.e2e.site_process import Site

pytestmark = pytest.mark.long

CLOCK_OFF = """
import sys
from datetime import timedelta
from gridsched import clock
machine = clock.SystemClock.__init__.__kwdefaults__
right = machine["wall"]
machine["wall"] = lambda: right() + timedelta(days={days})
from gridsched.cli import app
app()
"""


def test_a_clock_that_is_a_day_off_changes_nothing(site: Site) -> None:
    ahead, behind = site.join("ahead", "behind", opt_in=False)
    for node, days in ((ahead, 1), (behind, -1)):
        python = [sys.executable, "-c", CLOCK_OFF.format(days=days)]
        node.process.end()
        node.process.command = [*python, "node", "run", "--home", str(node.home.folder)]
        opting = Process(name=f"{node.name}-opts-in", command=[*python, *_opt_in(node.home)], log=site.folder / "logs" / "opt-in.log")
        opting.start()
        assert opting.child is not None
        assert opting.child.wait(60) == 0, opting.log.read_text()
        node.process.start()
    job_id = site.submit(epochs=3, passes=4)
    site.finish(job_id)
    now = SystemClock().now()
    for node, days in ((ahead, 1), (behind, -1)):
        heard = node.status().last_contact
        assert heard is not None
        assert abs(heard - now - timedelta(days=days)) < timedelta(hours=1), "its clock is off indeed"
    accepted = site.facts("unit_accepted")
    assert {f["node_id"] for f in accepted} == {"ahead", "behind"}
    assert not site.facts("meter_refused", "update_rejected")
    for name in ("ahead", "behind"):
        row = site.row(name)
        assert row["earned_micro"] > 0
        assert row["register_j"] > 0
    assert not [f for f in site.facts("lease_ended") if f["reason"] in ("node_silent", "consent_ended")]


def _opt_in(home: Home) -> list[str]:
    return ["node", "opt-in", "--for", "2h", "--home", str(home.folder)]


def test_of_two_agents_with_one_identity_the_older_stops(site: Site) -> None:
    (older,) = site.join("n1")
    copy = older.home.folder.with_name("n1-copy")
    shutil.copytree(older.home.folder, copy)
    command = [*older.process.command[:-1], str(copy)]
    newer = site.nodes["n1-copy"] = type(older)(
        name="n1", home=Home(copy), process=Process(name="n1-copy", command=command, log=site.folder / "logs" / "n1-copy.log")
    )
    older.process.wanted = False  # to go on: it is meant to end by itself
    newer.process.start()
    assert older.process.child is not None
    assert older.process.child.wait(60) == 1, site.told()
    assert "another agent runs as node n1; stop one of the two" in " ".join(site.log("n1").split())
    assert [f["node_id"] for f in site.facts("agent_replaced")] == ["n1"]
    site.finish(site.submit(epochs=1, passes=4))
    assert newer.process.failure() is None


def test_a_second_agent_on_the_same_home_is_told_so(site: Site) -> None:
    (node,) = site.join("n1")
    again = Process(name="again", command=node.process.command, log=site.folder / "logs" / "again.log")
    again.start()
    assert again.child is not None
    assert again.child.wait(60) == 1
    assert "an agent already runs on" in " ".join(again.log.read_text().split())
    assert site.row("n1")["present"]
    assert node.process.failure() is None
