"""What the consumer's page weighs, and how long it takes from the invitation's address to the first training step.

    python benchmarks/browser_page.py [--visits 5]

A real daemon with one small job and a real Chromium, each visit in a fresh profile: open the address, join by its code, flip the switch.
Weight is all that the page asked for until the first step, once each, as the daemon sends it (compressed); the job's own files are told
apart.
The last time holds the wait for the daemon's next control tick: once with the usual tick of a second, and once with five a second,
which is nearer to what the page itself takes. The last line is one JSON object.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import fleet
import requests

from gridsched import owner
from tests.browser.hosts import CHROMIUM_ARGUMENTS
from tests.e2e.site_process import JOB_FILE, ZONE, Site

GOAL_BYTES, GOAL_S = 150_000, 1.0
PAGE_MS = 60_000


def visit(browser: Any, site: Site, name: str) -> dict[str, float]:
    """Seconds of each stage, and bytes by what they are."""
    context = browser.new_context(locale="en-GB")
    page = context.new_page()
    page.set_default_timeout(PAGE_MS)
    answers: list[Any] = []
    context.on("requestfinished", lambda request: answers.append(request))  # noqa: PLW0108 - a bound method cannot be listened with
    invitation = f"{site.url}/join#code={site.invite()}"
    began = time.perf_counter()
    page.goto(invitation)
    page.wait_for_selector("#join-button")
    opened = time.perf_counter()
    page.fill("#name", name)
    page.click("#join-button")
    page.wait_for_selector("#switch")
    joined = time.perf_counter()
    page.click("#switch")
    while page.inner_text("#detail").split()[:1] != ["Step"]:
        page.wait_for_timeout(10)
    stepped = time.perf_counter()
    job_bytes = sum(request.sizes()["responseBodySize"] for request in answers if "/v1/" in request.url)
    # Asked again, since the browser does not tell what workers and their caches have received.
    parts = {request.url.partition("#")[0] for request in answers if "/v1/" not in request.url and request.url.startswith(site.url)}
    page_bytes = sum(int(requests.head(url, headers={"Accept-Encoding": "gzip"}, timeout=10).headers["Content-Length"]) for url in parts)
    context.close()
    return {
        "open_s": opened - began, "join_s": joined - opened, "first_step_s": stepped - joined,
        "page_bytes": page_bytes, "job_bytes": job_bytes,
    }  # fmt: skip


def visits(folder: Path, browser: Any, *, every: str, count: int) -> dict[str, float]:
    """Medians over visits."""
    with Site(folder, every=every) as site:
        changes = {"epochs": 1000, "passes": 200, "units_per_round": 8}
        owner.submit(site.operator, owner.prepare(JOB_FILE, zone=ZONE, changes=changes, wishes={"runtime": "wasm"}))
        rows = [visit(browser, site, f"visitor-{number}") for number in range(count)]
    return {key: round(statistics.median(row[key] for row in rows), 3) for key in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--visits", type=int, default=5)
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as text, sync_playwright() as play:
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM_ARGUMENTS)
        usual = visits(Path(text) / "usual", browser, every="1s", count=options.visits)
        quick = visits(Path(text) / "quick", browser, every="0.2s", count=options.visits)
        browser.close()
    weight = usual["page_bytes"]
    fleet.tell(
        "browser_page",
        value={"bytes": weight, "first_step_s": usual["first_step_s"], "first_step_quick_ticks_s": quick["first_step_s"]},
        unit="bytes received compressed; seconds from the switch to the first step",
        goal={"bytes": GOAL_BYTES, "first_step_s": GOAL_S},
        reached=weight < GOAL_BYTES and usual["first_step_s"] < GOAL_S,
        usual=usual,
        quick=quick,
    )


if __name__ == "__main__":
    main()
