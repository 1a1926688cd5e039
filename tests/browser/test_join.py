"""The consumer's page in a real browser: joining, the switch, and every way in which it can be torn away."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.hosts import bundle
from tests.browser.join_page import Visitor, give_work, invited, visiting
from tests.web.conftest import LIMITS, House
from tests.web.conftest import build as build_house

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.node]


@pytest.fixture
def house() -> Iterator[House]:
    """A daemon with room for a page's messages."""
    yield from build_house(replace(LIMITS, max_body_bytes=100_000, calls_per_s=200.0))


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's worker with steps of ten milliseconds."""
    return bundle("fake_worker.ts", tmp_path_factory.mktemp("worker"))


@pytest.fixture
def visitor(browser: "Browser", house: House, worker: Path) -> Iterator[Visitor]:
    """A phone that has opened nothing yet."""
    with visiting(browser, house, worker) as found:
        yield found


def test_a_scanned_code_joins_and_leads_to_an_accepted_update(visitor: Visitor, house: House) -> None:
    give_work(house)
    visitor.train()
    assert "#code" not in visitor.page.url
    visitor.until(house.accepted)
    visitor.until(lambda: visitor.page.inner_text("#units") != "0")
    assert (visitor.complaints, visitor.strays) == ([], [])


@pytest.mark.long
def test_joining_alone_starts_nothing(visitor: Visitor, house: House) -> None:
    give_work(house)
    visitor.join()
    visitor.until(lambda: visitor.page.inner_text("#weather") == "There is surplus electricity now")
    house.tick()
    assert (visitor.row()["reason"], visitor.state()) == ("opted_out", "Switched off. Nothing runs.")
    assert "digits (UCI)" in visitor.page.inner_text("#trains")


@pytest.mark.long
def test_a_wrong_code_is_told_where_it_was_typed(visitor: Visitor, house: House) -> None:
    visitor.page.goto(f"{house.url}/join")
    visitor.page.click("#join-button")
    assert visitor.page.inner_text("#join-problem") == "Enter the code of your invitation."
    visitor.page.fill("#code", "WRONG-CODE")
    visitor.page.click("#join-button")
    visitor.until(lambda: "not known" in visitor.page.inner_text("#join-problem"))
    assert visitor.page.evaluate("document.activeElement.id") == "code"
    visitor.page.click("#lang-de")
    visitor.page.click("#join-button")
    visitor.until(lambda: "nicht bekannt" in visitor.page.inner_text("#join-problem"))


@pytest.mark.long
def test_a_browser_that_stores_nothing_says_so_before_the_code_is_used(visitor: Visitor, house: House) -> None:
    visitor.page.add_init_script(
        """const put = IDBObjectStore.prototype.put;
        IDBObjectStore.prototype.put = () => { throw new DOMException("no room", "QuotaExceededError"); };
        window.makeRoom = () => { IDBObjectStore.prototype.put = put; };"""
    )
    visitor.page.goto(f"{house.url}/join#code={invited(house)}")
    visitor.page.click("#join-button")
    visitor.until(lambda: "stores nothing at the moment (no room)" in visitor.page.inner_text("#join-problem"))
    visitor.page.evaluate("makeRoom()")
    visitor.page.click("#join-button")
    visitor.page.wait_for_selector("#switch:visible")


@pytest.mark.long
def test_a_code_typed_off_paper_needs_neither_capitals_nor_dashes(visitor: Visitor, house: House) -> None:
    visitor.page.goto(f"{house.url}/join")
    visitor.page.fill("#code", f" {invited(house).lower().replace('-', ' ')} ")
    visitor.page.click("#join-button")
    visitor.page.wait_for_selector("#switch:visible")


def test_switched_off_the_unit_goes_back_with_its_middle_and_on_again_it_goes_on(visitor: Visitor, house: House) -> None:
    give_work(house, passes=60, units=1)
    visitor.train()
    visitor.switch(False)
    visitor.until(lambda: not visitor.leases())
    handed = visitor.unit().continuation_step
    assert handed > 10
    visitor.until(lambda: visitor.state() == "Switched off. Nothing runs.")
    visitor.switch(True)
    visitor.until(lambda: visitor.step() >= handed, tick=True)
    visitor.until(lambda: visitor.leases()[0].step >= handed or house.accepted(), tick=True)
    assert visitor.leases()[0].steps_executed < handed


@pytest.mark.long
def test_a_reload_in_the_middle_goes_on_from_what_is_stored(visitor: Visitor, house: House) -> None:
    give_work(house, passes=100, units=1)
    visitor.train()
    lease = visitor.leases()[0].lease_id
    visitor.page.click("#charging")  # limits are remembered, too
    visitor.until(lambda: visitor.step() > 520)  # five seconds: the first middle is stored
    visitor.page.reload()
    visitor.until(lambda: visitor.step() > 0)
    assert visitor.step() > 100
    assert visitor.leases()[0].lease_id == lease
    assert not visitor.page.is_checked("#charging")


@pytest.mark.long
def test_a_second_tab_says_so_and_takes_over(visitor: Visitor, house: House) -> None:
    visitor.join()
    second = visitor.open()
    second.goto(f"{house.url}/join")
    second.wait_for_selector("#view-wait:visible")
    assert "another tab" in second.inner_text("#wait-text")
    visitor.page.close()
    second.wait_for_selector("#switch:visible")


def test_a_revoked_node_is_told_and_may_begin_anew(visitor: Visitor, house: House) -> None:
    visitor.join()
    assert house.post("/v1/nodes/phone-1/revoke").status_code == 200
    visitor.until(lambda: "ended this device" in visitor.page.inner_text("main"))
    visitor.page.click("#wait-action")
    visitor.page.wait_for_selector("#join-form:visible")


@pytest.mark.long
def test_offline_it_says_so_and_goes_on_by_itself(visitor: Visitor, house: House) -> None:
    give_work(house, passes=200, units=1)
    visitor.train()
    visitor.context.set_offline(True)
    visitor.page.click("#background")  # anything that makes it speak
    visitor.switch(False)
    visitor.until(lambda: "No connection" in visitor.page.inner_text("#banner"))
    assert visitor.page.get_attribute("#switch", "aria-checked") == "false"
    visitor.context.set_offline(False)
    visitor.until(lambda: visitor.row()["reason"] == "opted_out" and not visitor.leases())
    visitor.until(lambda: not visitor.page.is_visible("#banner"))


def test_an_old_page_reloads_once_and_then_asks_for_help(visitor: Visitor, house: House) -> None:
    loads: list[str] = []
    visitor.page.on("load", lambda page: loads.append(page.url))
    answer = {"error": "OtherRelease", "detail": "node phone-1 speaks protocol 2, the daemon 3"}
    visitor.context.route("**/v1/node/hello", lambda route: route.fulfill(status=400, body=json.dumps(answer)))
    visitor.join()
    visitor.until(lambda: "older than the server" in visitor.page.inner_text("main"))
    assert len(loads) == 2


@pytest.mark.long
def test_a_closed_tab_hands_over_what_the_daemon_has_of_it(visitor: Visitor, house: House) -> None:
    give_work(house, passes=400, units=1)
    visitor.train()
    stored: list[Any] = []
    visitor.page.on("response", lambda answer: stored.append(answer) if answer.request.method == "PUT" else None)
    visitor.until(lambda: visitor.step() > 520)  # five seconds: the first middle is stored
    visitor.page.evaluate(
        "Object.defineProperty(document, 'hidden', { value: true }); document.dispatchEvent(new Event('visibilitychange'))"
    )
    visitor.until(lambda: stored)
    other = visitor.open()
    visitor.page.close()
    visitor.page = other
    visitor.until(lambda: not visitor.leases())
    assert visitor.unit().continuation_step > 100


@pytest.mark.long
def test_lines_cut_again_and_again_cost_nothing(visitor: Visitor, house: House) -> None:
    give_work(house, passes=20)
    lines: list[Any] = []

    def cut_after_a_word(line: Any) -> None:
        lines.append(line)
        line.connect_to_server().on_message(lambda said: (line.send(said), line.close(code=1011)))

    visitor.context.route_web_socket("**/v1/node/channel", cut_after_a_word)
    visitor.train()
    visitor.until(lambda: len(lines) > 2 and house.accepted())


@pytest.mark.long
def test_leaving_erases_what_the_browser_has_stored(visitor: Visitor, house: House) -> None:
    give_work(house, passes=60, units=1)
    visitor.train()
    visitor.page.click("#leave summary")
    visitor.page.click("#leave-button")
    visitor.page.wait_for_selector("#join-form:visible")
    assert not visitor.leases()
    left = visitor.page.evaluate(
        """async () => {
            const base = await new Promise((done) => { const r = indexedDB.open('gridsched'); r.onsuccess = () => done(r.result); });
            const count = (name) => new Promise((done) => {
                const r = base.transaction(name).objectStore(name).count(); r.onsuccess = () => done(r.result); });
            const found = [await count('state'), await count('files')];
            base.close();
            return found;
        }"""
    )
    assert left == [0, 0]


@pytest.mark.long
def test_a_worker_that_dies_is_replaced_and_the_unit_goes_on(visitor: Visitor, house: House) -> None:
    give_work(house, passes=100, units=1)
    visitor.train()
    lease = visitor.leases()[0].lease_id
    visitor.until(lambda: visitor.step() > 520)  # five seconds: the first middle is stored
    visitor.page.workers[0].evaluate("void setTimeout(() => { throw new Error('out of memory'); })")
    visitor.until(lambda: 100 < visitor.step() < 520)
    visitor.until(lambda: visitor.step() > 560)
    assert visitor.leases()[0].lease_id == lease


@pytest.mark.long
def test_a_browser_without_the_means_is_told_so(visitor: Visitor, house: House) -> None:
    visitor.context.route("**/static/kernels.wasm", lambda route: route.fulfill(body="no module"))
    visitor.page.goto(f"{house.url}/join")
    visitor.until(lambda: "cannot train" in visitor.page.inner_text("main"))
