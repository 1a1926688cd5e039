"""The consumer's page with its own trainer at a real site: real processes, real kernels, a job from its first version to its last."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gridsched import owner
from tests.e2e.site_process import JOB_FILE, ZONE, Site

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.node, pytest.mark.long]

STEPS_ARE_LONG = 400
"""Passes over a unit's samples: some seconds of work for a small network."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site in surplus."""
    with Site(tmp_path / "site") as found:
        yield found


@pytest.fixture
def page(browser: "Browser") -> Iterator["Page"]:
    """A phone's browser, its service worker and all."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, locale="en-GB")
    yield context.new_page()
    context.close()


def take_part(page: "Page", site: Site, name: str = "phone") -> None:
    """Join with a code, and switch on."""
    code = site.operator.post("/v1/invites", {"zone": ZONE, "for_s": 3600.0})["code"]
    page.goto(f"{site.url}/join#code={code}")
    page.fill("#name", name)
    page.click("#join-button")
    page.click("#switch")


def submitted(site: Site, *, epochs: int, passes: int) -> str:
    """The example's job, for the kernels alone."""
    made = owner.prepare(JOB_FILE, zone=ZONE, changes={"epochs": epochs, "passes": passes}, wishes={"runtime": "wasm"})
    return owner.submit(site.operator, made).job_id


def live(page: "Page", site: Site, what: str, look: Any) -> Any:
    """Wait at the site for what the page brings about: a browser only lives while it is waited for."""

    def looked() -> Any:
        page.wait_for_timeout(100)
        return look()

    return site.wait(what, looked)


def step(page: "Page") -> int:
    """How far the unit is, as the page says; 0 between two units."""
    said = page.inner_text("#detail").split()
    return int(said[1].replace(",", "")) if said[:1] == ["Step"] else 0


def test_a_page_trains_a_job_to_its_end_is_metered_and_paid(page: "Page", site: Site) -> None:
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    job = submitted(site, epochs=2, passes=20)
    take_part(page, site)
    live(page, site, "the job ends", lambda: site.job(job)["state"] != "running")
    assert site.job(job)["state"] == "done"
    assert site.job(job)["accuracy"] > 0.85
    node = live(page, site, "it is paid", lambda: (row := site.row("phone"))["earned_micro"] > 0 and row)
    assert node["register_j"] > 0
    assert node["runtime"].startswith("wasm-")
    live(page, site, "the page shows it", lambda: page.inner_text("#earned") != "€0.00")
    assert complaints == []


def test_a_restarted_daemon_and_a_reload_cost_only_steps_since_the_last_middle(page: "Page", site: Site) -> None:
    job = submitted(site, epochs=1, passes=STEPS_ARE_LONG)
    take_part(page, site)
    live(page, site, "it is in the middle", lambda: step(page) > 50)
    site.daemon.kill()
    site.serve()
    live(page, site, "the page is back", lambda: site.row("phone")["present"] and step(page) > 0)
    page.reload()
    live(page, site, "it goes on", lambda: step(page) > 0 or site.accepted(job))
    page.click("#switch")
    live(page, site, "it has given back", lambda: site.row("phone")["lease_id"] is None)
    page.click("#switch")
    live(page, site, "a unit is accepted", lambda: site.accepted(job))
    assert not site.facts("update_rejected")
