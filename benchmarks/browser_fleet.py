"""Two nodes with PyTorch, two without and two browser pages train Fashion-MNIST together, against six nodes with PyTorch.

    python benchmarks/browser_fleet.py [--epochs 2] [--samples-per-unit 2000] [--job FILE]

A real daemon, real agents and a real Chromium, and the network of examples/fashion_cnn.py by federated averaging. Both fleets live through
the same two windows of surplus: the price rises in the middle and everybody rests, then it falls again. In the mixed fleet one page is
closed while it trains and opened again some seconds later, and the other one is closed during the pause and comes back in the second
window. What counts: the accuracy after the last epoch, that every unit was accepted once and the books balance, and that no page
complained or asked anybody but the daemon. The last line is one JSON object.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import fleet

from gridsched import owner
from tests.browser.hosts import CHROMIUM_ARGUMENTS
from tests.e2e.site_process import ZONE, Site

JOB = fleet.ROOT / "examples" / "fashion_cnn.py"
POINTS = 0.5
PATIENCE_S = 1500.0
AWAY_S = 8.0
PAGE_MS = 60_000
DEAR, CHEAP = 200.0, 10.0


class Pages:
    """Consumers' browsers: one context each, so that each keeps its own storage while its page is closed and opened."""

    def __init__(self, stack: ExitStack, site: Site) -> None:
        from playwright.sync_api import sync_playwright

        play = stack.enter_context(sync_playwright())
        self._browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM_ARGUMENTS)
        stack.callback(self._browser.close)
        self._site = site
        self._contexts: dict[str, Any] = {}
        self._open: dict[str, Any] = {}
        self.complaints: list[str] = []

    def join(self, name: str) -> None:
        """As a person does: open the invitation, say what the device is, join, and flip the switch."""
        self._contexts[name] = self._browser.new_context(locale="en-GB")
        page = self._page(name, f"{self._site.url}/join#code={self._site.invite()}")
        page.fill("#name", name)
        page.select_option("#device", "desktop")
        page.fill("#power", "100")
        page.click("#join-button")
        page.click("#switch")
        page.wait_for_selector("#switch[aria-checked=true]")

    def open(self, name: str) -> None:
        """Open the page again; it remembers its owner's choice."""
        self._page(name, f"{self._site.url}/join")

    def close(self, name: str) -> None:
        """Close the tab."""
        self._open.pop(name).close(run_before_unload=False)

    def _page(self, name: str, url: str) -> Any:
        # Chromium notes every 409 as an error; here it is the daemon's word that a closed tab's unit has gone to somebody else.
        page = self._open[name] = self._contexts[name].new_page()
        page.on("console", lambda said: self._hear(name, said.text) if said.type == "error" and "409 (Conflict)" not in said.text else None)
        page.on("pageerror", lambda error: self._hear(name, str(error)))
        page.on("request", lambda asked: None if asked.url.startswith((self._site.url, "data:", "blob:")) else self._hear(name, asked.url))
        page.set_default_timeout(PAGE_MS)
        page.goto(url)
        return page

    def _hear(self, name: str, text: str) -> None:
        self.complaints.append(f"{name}: {text}")

    def pump(self, seconds: float) -> None:
        """Let time pass, and hear what the pages say meanwhile."""
        next(iter(self._open.values())).wait_for_timeout(seconds * 1000)


def run(folder: Path, job: owner.Submission, *, mixed: bool) -> dict[str, Any]:
    with ExitStack() as stack:
        site = stack.enter_context(Site(folder))
        pages = Pages(stack, site) if mixed else None
        site.join("torch-1", "torch-2", cpu_share=1.0, save_every="1s")
        if pages is not None:
            site.join("wasm-1", "wasm-2", cpu_share=1.0, save_every="1s", runtime="wasm")
            for name in ("page-1", "page-2"):
                pages.join(name)
        else:
            site.join("torch-3", "torch-4", "torch-5", "torch-6", cpu_share=1.0, save_every="1s")
        job_id = owner.submit(site.operator, job).job_id
        units = job.spec.method.epochs * -(-job.spec.samples // job.spec.method.samples_per_unit)
        began = time.monotonic()
        _wait(site, pages, "an eighth of the units", lambda: site.accepted(job_id) >= units // 8)
        if pages is not None:
            pages.close("page-1")  # in the middle of whatever it does
            pages.pump(AWAY_S)
            pages.open("page-1")
        _wait(site, pages, "half of the units", lambda: site.accepted(job_id) >= units // 2)
        site.grid(price=DEAR)
        _wait(site, pages, "everybody rests", lambda: not site.status()["leased_w"])
        if pages is not None:
            pages.close("page-2")
        site.grid(price=CHEAP)
        _wait(site, pages, "the second window", lambda: site.status()["leased_w"] > 0)
        if pages is not None:
            pages.pump(AWAY_S)
            pages.open("page-2")
        _wait(site, pages, "the end", lambda: site.job(job_id)["state"] != "running")
        took_s = time.monotonic() - began
        assert site.job(job_id)["state"] == "done", site.job(job_id)
        fleet.must_hold(site, job_id)
        by_node = Counter(fact["node_id"] for fact in site.facts("unit_accepted") if fact["job_id"] == job_id)
        accuracies = [epoch["accuracy"] for epoch in site.operator.get(f"/v1/jobs/{job_id}/epochs") if epoch["accuracy"] is not None]
        return {
            "accuracy": accuracies[-1],
            "by_epoch": accuracies,
            "seconds": round(took_s, 1),
            "units_by_node": dict(sorted(by_node.items())),
            "complaints": pages.complaints if pages is not None else [],
        }


def _wait(site: Site, pages: Pages | None, what: str, look: Any) -> None:
    print(f"waiting for: {what}", flush=True)
    until = time.monotonic() + PATIENCE_S
    while not look():
        died = [told for process in site.processes if (told := process.failure())]
        assert not died, "\n".join(died)
        assert time.monotonic() < until, f"not within {PATIENCE_S:.0f} s: {what}\n{site.told()}"
        if pages is not None:
            pages.pump(0.3)
        else:
            time.sleep(0.3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--samples-per-unit", type=int, default=2000)
    parser.add_argument("--job", type=Path, default=JOB)
    options = parser.parse_args()
    changes = {"epochs": options.epochs, "samples_per_unit": options.samples_per_unit, "units_per_round": 6}
    job = owner.prepare(options.job, zone=ZONE, changes=changes)
    with tempfile.TemporaryDirectory() as text:
        mixed = run(Path(text) / "mixed", job, mixed=True)
        print(json.dumps({"mixed": mixed}), flush=True)
        pure = run(Path(text) / "torch", job, mixed=False)
    points = abs(mixed["accuracy"] - pure["accuracy"]) * 100
    worked = {name for name, units in mixed["units_by_node"].items() if units}
    fleet.tell(
        "browser_fleet",
        value=round(points, 2),
        unit="points of accuracy between a mixed fleet and one with PyTorch alone",
        goal=POINTS,
        reached=points <= POINTS and not mixed["complaints"] and {"page-1", "page-2", "wasm-1", "wasm-2"} <= worked,
        epochs=options.epochs,
        samples=job.spec.samples,
        mixed=mixed,
        pure=pure,
    )


if __name__ == "__main__":
    main()
