"""What a person needs of the page: contrast, names, room on a small phone, the keyboard, two languages, an installable page, few bytes."""

import gzip
import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gridsched.web.pages import BUILT
from tests.browser.hosts import bundle
from tests.browser.join_page import give_work, visiting
from tests.web.conftest import LIMITS, House
from tests.web.conftest import build as build_house

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.node]

MOST_BYTES = 150_000

_LOOK = """() => {
    const part = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const found = part(getComputedStyle(at).backgroundColor);
            if (found.length === 3 || found[3] === 1) return found;
        }
        return [255, 255, 255];
    };
    const seen = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && !element.closest('.unseen');
    const pale = [], nameless = [], small = [];
    for (const element of document.querySelectorAll('body *')) {
        if (!seen(element)) continue;
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
        if (own || element.matches('input, select')) {
            const style = getComputedStyle(element);
            const pair = [light(part(style.color)), light(behind(element))].sort((a, b) => b - a);
            const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
            const big = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 700);
            if (ratio < (big ? 3 : 4.5)) pale.push([element.tagName, element.textContent.trim().slice(0, 30), ratio]);
        }
        if (element.matches('button, input, select, summary, a')) {
            const label = element.labels && element.labels.length ? element.labels[0].textContent : '';
            const by = element.getAttribute('aria-labelledby');
            const named = by && document.getElementById(by).textContent;
            const name = element.getAttribute('aria-label') || named || label || element.textContent;
            if (!name.trim()) nameless.push(element.outerHTML.slice(0, 80));
            const box = (element.closest('label') || element).getBoundingClientRect();
            if (box.height < 44 || box.width < 44) small.push([element.id || element.textContent.trim(), box.width, box.height]);
        }
    }
    const told = [...document.querySelectorAll('[data-t]')];
    const untold = told.filter((element) => !element.textContent.trim()).map((element) => element.dataset.t);
    return { pale, nameless, small, wide: document.documentElement.scrollWidth - innerWidth, untold };
}"""
_FINE: dict[str, Any] = {"pale": [], "nameless": [], "small": [], "wide": 0, "untold": []}


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """One daemon for all looks."""
    for made in build_house(replace(LIMITS, max_body_bytes=100_000, calls_per_s=200.0)):
        give_work(made, passes=1000, units=9)
        yield made


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's worker with steps of ten milliseconds."""
    return bundle("fake_worker.ts", tmp_path_factory.mktemp("worker"))


@pytest.mark.parametrize(("scheme", "locale"), [("dark", "de-DE"), pytest.param("light", "en-GB", marks=pytest.mark.long)])
def test_all_is_readable_named_and_in_reach_on_a_small_phone(
    browser: "Browser", house: House, worker: Path, scheme: str, locale: str
) -> None:
    with visiting(browser, house, worker, viewport={"width": 360, "height": 740}, color_scheme=scheme, locale=locale) as visitor:
        visitor.page.goto(f"{house.url}/join")
        visitor.page.wait_for_selector("#join-form:visible")
        assert visitor.page.evaluate(_LOOK) == _FINE
        visitor.join(f"phone-{scheme}-{locale[:2]}")
        for summary in visitor.page.query_selector_all("summary"):
            summary.click()
        assert visitor.page.evaluate(_LOOK) == _FINE
        visitor.switch(True)
        visitor.until(lambda: "100 " not in (visitor.page.get_attribute("#arc", "stroke-dasharray") or ""), tick=True)
        assert visitor.page.evaluate(_LOOK) == _FINE
        assert visitor.page.evaluate("document.documentElement.lang") == locale[:2]


def test_the_keyboard_alone_joins_and_switches(browser: "Browser", house: House, worker: Path) -> None:
    with visiting(browser, house, worker) as visitor:
        code = house.post("/v1/invites", {"zone": "de-lu"}).json()["code"]
        keys = visitor.page.keyboard
        visitor.page.goto(f"{house.url}/join")
        visitor.page.wait_for_selector("#join-form:visible")
        focused = "document.activeElement.id"
        while visitor.page.evaluate(focused) != "code":
            keys.press("Tab")
        keys.type(code)
        keys.press("Enter")
        visitor.page.wait_for_selector("#switch:visible")
        for _ in range(4):
            keys.press("Tab")
            if visitor.page.evaluate(focused) == "switch":
                break
        assert visitor.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        keys.press("Space")
        assert visitor.page.get_attribute("#switch", "aria-checked") == "true"


@pytest.mark.long
def test_the_language_can_be_switched_and_is_remembered(browser: "Browser", house: House, worker: Path) -> None:
    with visiting(browser, house, worker) as visitor:
        visitor.page.goto(f"{house.url}/join")
        visitor.page.click("#lang-de")
        assert visitor.page.inner_text("h1:visible") == "Überschussstrom zum Lernen bringen"
        visitor.page.reload()
        visitor.until(lambda: visitor.page.inner_text("h1:visible").startswith("Überschussstrom"))
        assert visitor.page.title() == "Mitmachen · gridsched"


@pytest.mark.long
def test_it_is_installable_and_opens_without_a_network(browser: "Browser", house: House, worker: Path) -> None:
    with visiting(browser, house, None, service_workers="allow") as visitor:
        visitor.page.goto(f"{house.url}/join")
        visitor.page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        visitor.page.reload()
        visitor.page.wait_for_selector("#join-form:visible")
        visitor.context.set_offline(True)
        visitor.page.reload()
        visitor.page.wait_for_selector("#join-form:visible")
        stored = "caches.open('gridsched-pages').then((cache) => cache.keys()).then((keys) => keys.map((key) => new URL(key.url).pathname))"
        assert {"/join", "/static/join/join.js", "/static/join/worker.js", "/static/kernels.wasm"} <= set(visitor.page.evaluate(stored))


def test_the_manifest_names_icons_of_the_sizes_it_says() -> None:
    manifest = json.loads((BUILT / "pages" / "manifest.webmanifest").read_bytes())
    sizes = {icon["sizes"] for icon in manifest["icons"]}
    assert {"192x192", "512x512"} <= sizes
    for icon in manifest["icons"]:
        data = (BUILT / "pages" / icon["src"].removeprefix("/static/")).read_bytes()
        if icon["type"] == "image/png":
            assert "{}x{}".format(*struct.unpack(">II", data[16:24])) == icon["sizes"]


def test_everything_together_weighs_little() -> None:
    pages = BUILT / "pages"
    files = [pages / "join.html", pages / "sw.js", *(pages / "join").glob("*.js"), pages / "join" / "join.css", BUILT / "kernels.wasm"]
    assert sum(len(gzip.compress(file.read_bytes())) for file in files) < MOST_BYTES
