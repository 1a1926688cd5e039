"""A consumer's browser against a real daemon in this process: joined by code, watched for errors and for requests that go elsewhere.

The worker trains by `fake_worker.ts` unless a test wants the real one, so that a step takes as long as it is told.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gridsched.core.job import Dataset, JobSpec
from gridsched.core.lease import LIVE, Lease
from gridsched.core.method import Method
from gridsched.core.work import WorkUnit
from gridsched.flow import admit
from gridsched.train.version import Version as Model
from tests.web.conftest import PROGRAM, SAMPLES, SHAPE, ZONE, House

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

__all__ = ["Visitor", "give_work", "invited", "visiting"]

PATIENCE_MS = 15_000
_ISOLATED = {"Cross-Origin-Embedder-Policy": "require-corp", "Cross-Origin-Resource-Policy": "same-origin"}


def invited(house: House) -> str:
    """A one-time code."""
    code: str = house.post("/v1/invites", {"zone": ZONE}).json()["code"]
    return code


def give_work(house: House, job_id: str = "j", *, passes: int = 20, units: int = 2) -> None:
    """A job whose units take 8 steps a pass, in a zone with plenty of surplus."""
    initial = Model(tensors={"w": np.zeros(SHAPE, np.float32)}).to_bytes()
    method = Method(epochs=3, batch_size=8, samples_per_unit=64, units_per_round=units, passes=passes)
    spec = JobSpec(
        job_id=job_id, name=job_id, program=PROGRAM, dataset=SAMPLES, samples=128, test_dataset=None, test_samples=0,
        initial=house.daemon.blobs.put(initial), seed=2**60 + 1, method=method, zone=ZONE,
    )  # fmt: skip
    house.do(partial(admit.submit, spec=spec, initial_bytes=len(initial)))
    digits = Dataset(name="digits", digest=SAMPLES, samples=128, size_bytes=1, added_at=house.clock.now(), attribution="UCI")
    house.do(partial(admit.add_dataset, dataset=digits))
    house.surplus(1000.0)
    house.tick()


class Visitor:
    """One browser profile at one daemon. ``complaints`` are what its console said, ``strays`` what it asked of other hosts."""

    def __init__(self, context: "BrowserContext", house: House) -> None:
        self.context = context
        self.house = house
        self.complaints: list[str] = []
        self.strays: list[str] = []
        context.on("request", self._note)
        self.page = self.open()

    def open(self) -> "Page":
        """One more tab, nothing loaded."""
        page = self.context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        return page

    def _note(self, request: Any) -> None:
        if not request.url.startswith((self.house.url, "data:", "blob:")):
            self.strays.append(request.url)

    def join(self, name: str = "phone-1") -> None:
        """Enrol with a code in the address, as a scanned one is."""
        self.page.goto(f"{self.house.url}/join#code={invited(self.house)}")
        self.page.fill("#name", name)
        self.page.click("#join-button")
        self.page.wait_for_selector("#switch:visible")

    def switch(self, on: bool) -> None:
        """The one big switch."""
        self.page.click(f"#switch[aria-checked={'false' if on else 'true'}]")

    def train(self, name: str = "phone-1") -> None:
        """Join, switch on, and be in the middle of a unit."""
        self.join(name)
        self.switch(True)
        self.until(lambda: self.row(name)["reason"] not in ("opted_out", "absent"))
        self.house.tick()
        self.until(lambda: self.step() > 10)

    def step(self) -> int:
        """How far the unit is, as the page says."""
        said = self.page.inner_text("#detail")
        return int(said.split()[1]) if said.startswith("Step") else 0

    def state(self) -> str:
        """The one sentence."""
        return self.page.inner_text("#state")

    def row(self, name: str = "phone-1") -> dict[str, Any]:
        """The node as its operator sees it."""
        rows: list[dict[str, Any]] = self.house.get("/v1/nodes")
        return next(row for row in rows if row["node_id"] == name)

    def until(self, what: Callable[[], object], *, tick: bool = False) -> None:
        """Ask until it is so; the browser lives meanwhile."""
        for _ in range(PATIENCE_MS // 50):
            if what():
                return
            self.page.wait_for_timeout(50)
            if tick:
                self.house.tick()
        raise AssertionError(f"it did not become so; the page says {self.page.inner_text('main')!r}, its console {self.complaints}")

    def leases(self) -> list[Lease]:
        """The live ones."""
        with self.house.daemon.store.read() as tx:
            return tx.find(Lease, state=LIVE)

    def unit(self, index: int = 0) -> WorkUnit:
        """A unit of the first round."""
        with self.house.daemon.store.read() as tx:
            return sorted(tx.find(WorkUnit), key=lambda unit: unit.unit_id)[index]


@contextmanager
def visiting(browser: "Browser", house: House, worker: Path | None, **options: Any) -> Iterator[Visitor]:
    """A new profile; ``worker`` takes the place of the page's own."""
    settings: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "locale": "en-GB", "service_workers": "block"}
    context = browser.new_context(**(settings | options))
    if worker is not None:
        replaced = partial(_fulfil, path=worker)
        context.route("**/static/join/worker.js", replaced)
    try:
        yield Visitor(context, house)
    finally:
        context.close()


def _fulfil(route: Any, *, path: Path) -> None:
    route.fulfill(path=str(path), content_type="text/javascript", headers=_ISOLATED)
