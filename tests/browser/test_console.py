"""The operator's console in a real browser, against a real daemon that has run for a day."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gridsched.web.pages import BUILT
from tests.browser.console_house import NODES, RULE, a_day_later
from tests.web.conftest import ZONE, House

pytestmark = pytest.mark.browser

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip
VIEWS = ("zones", "nodes", "jobs", "ledger", "policy", "invites", "log")
PATIENCE_MS = 15_000


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    if not (BUILT / "pages" / "console.html").is_file():
        pytest.fail("the pages are not built; run make setup", pytrace=False)
    yield from a_day_later()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[test]'")
    with playwright.sync_playwright() as machine:
        found = machine.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        yield found
        found.close()


class Console:
    """One page of the console; ``trouble`` is what the browser complained of, ``asked`` every address it asked for."""

    def __init__(self, browser: Any, house: House, **how: Any) -> None:
        self.house = house
        self.context = browser.new_context(**{"locale": "en-GB", "viewport": {"width": 1280, "height": 900}, **how})
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.trouble: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda said: self.trouble.append(said.text) if said.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(house.url + "/console")

    def login(self, token: str = "admin", *, remember: bool = False) -> "Console":
        self.page.get_by_label("Operator token").fill(token)
        if remember:
            self.page.locator("#remember").check()
        self.page.get_by_role("button", name="Log in").click()
        self.page.get_by_text("Live", exact=True).wait_for()
        return self

    def show(self, view: str) -> Any:
        self.page.goto(f"{self.house.url}/console#/{view}")
        self.page.wait_for_function("view => document.querySelector('nav a[aria-current]')?.hash === '#/' + view", arg=view)
        return self.page.locator("main")

    def say(self, action: str) -> None:
        """Press a button of the dialog that asks."""
        self.page.get_by_role("dialog").get_by_role("button", name=action, exact=True).click()


@pytest.fixture(scope="module")
def admin(browser: Any, house: House) -> Iterator[Console]:
    found = Console(browser, house).login()
    yield found
    found.context.close()


@pytest.fixture
def console(admin: Console) -> Iterator[Console]:
    """An admin's console, one for all; whatever it does must trouble no browser and reach no other host."""
    admin.trouble.clear()
    admin.asked.clear()
    yield admin
    assert admin.trouble == []
    assert {url for url in admin.asked if not url.startswith((admin.house.url, "data:", "blob:"))} == set()


# -- logging in


def test_a_wrong_token_is_refused_and_forgotten(browser: Any, house: House) -> None:
    console = Console(browser, house)
    console.page.get_by_label("Operator token").fill("nonsense")
    console.page.keyboard.press("Enter")
    alert = console.page.get_by_role("alert").filter(has_text="not valid")
    alert.wait_for()
    assert console.page.evaluate("[sessionStorage.length, localStorage.getItem('gridsched.token')]") == [0, None]
    console.context.close()


@pytest.mark.long
def test_a_token_stays_with_its_tab_unless_asked_otherwise_and_logging_out_forgets_it(browser: Any, house: House) -> None:
    for remember in (False, True):
        console = Console(browser, house).login(remember=remember)
        console.page.reload()
        console.page.get_by_text("Live", exact=True).wait_for()
        other = console.context.new_page()
        other.goto(house.url + "/console")
        (other.get_by_text("Live", exact=True) if remember else other.get_by_label("Operator token")).wait_for()
        console.page.locator("header summary").click()
        console.page.get_by_role("button", name="Log out").click()
        console.page.get_by_label("Operator token").wait_for()
        assert console.page.evaluate("[sessionStorage.getItem('gridsched.token'), localStorage.getItem('gridsched.token')]") == [None, None]
        console.context.close()


def test_what_a_viewer_may_not_do_is_shown_as_such_and_says_why(browser: Any, house: House) -> None:
    console = Console(browser, house).login("viewer")
    switch = console.page.get_by_role("button", name="Pause everything")
    assert switch.get_attribute("aria-disabled") == "true"
    switch.click(force=True)
    console.page.locator("#told").get_by_text("operator's token").wait_for()
    save = console.show("policy").get_by_role("button", name="Save")
    assert "admin" in (save.get_attribute("title") or "")
    assert not house.get("/v1/status")["zones"][0]["paused"]
    console.context.close()


# -- every view has real data


def test_a_lane_shows_signal_power_decisions_and_what_lies_ahead(console: Console) -> None:
    lane = console.show("zones").get_by_role("region", name=ZONE)
    lane.locator("canvas").nth(1).wait_for()
    assert lane.get_by_label("Signal").input_value() == "price"
    marks = lane.get_by_role("listbox").get_by_role("option")
    told = [marks.nth(place).get_attribute("aria-label") for place in range(marks.count())]
    decided = console.house.get(f"/v1/zones/{ZONE}/timeline")["decisions"]
    assert any(decided[-1]["detail"] in (text or "") for text in told)
    assert any("would:" in (text or "") for text in told)
    lane.get_by_text("As a table").click()
    table = lane.locator("table.cards tbody")
    assert table.locator("tr").count() >= 47
    assert "no surplus" in table.inner_text()
    assert "Planned hours: digits" in table.locator("tr", has_text="12:00").last.inner_text()
    assert "digits, Wed, May 2 12:00" in (lane.locator(".planned").get_attribute("title") or "")
    assert "1,000 W" in table.inner_text(), "an hour has its own mean, not what the whole stretch of one reason ends with"


def test_decisions_are_reached_by_keys_and_told_below(console: Console) -> None:
    lane = console.show("zones").get_by_role("region", name=ZONE)
    strip = lane.get_by_role("listbox")
    strip.get_by_role("option").first.wait_for(state="attached")
    strip.focus()
    strip.press("Home")
    first = lane.locator(".decision").inner_text()
    strip.press("ArrowRight")
    assert lane.locator(".decision").inner_text() != first
    assert strip.get_by_role("option").nth(1).get_attribute("aria-selected") == "true"
    strip.get_by_role("option").first.hover(force=True)
    assert lane.locator(".decision").inner_text() == first


def test_nodes_tell_what_they_do_and_why(console: Console) -> None:
    rows = console.show("nodes").locator("tbody tr")
    rows.nth(len(NODES) - 1).wait_for()
    assert rows.count() == len(NODES)
    desktop = rows.filter(has_text="old-desktop")
    assert "in quarantine" in desktop.inner_text()
    assert "differs from the one done again elsewhere" in desktop.inner_text()
    console.page.get_by_label("Find a node").fill("kitchen")
    assert rows.count() == 1
    console.page.get_by_label("Find a node").fill("")


def test_a_node_is_pardoned_and_shut_out_again_with_a_reason_for_its_owner(console: Console) -> None:
    desktop = console.show("nodes").locator("tbody tr").filter(has_text="old-desktop")
    desktop.get_by_role("button", name="Pardon").click()
    console.say("Pardon")
    desktop.get_by_role("button", name="Quarantine").click()
    console.page.get_by_label("Why?").fill("smoke was seen")
    console.say("Quarantine")
    desktop.get_by_text("smoke was seen").wait_for()
    node = next(row for row in console.house.get("/v1/nodes") if row["node_id"] == "old-desktop")
    assert node["quarantine_reason"] == "smoke was seen"


def test_a_job_shows_its_accuracy_its_epochs_and_what_its_round_waits_for(console: Console) -> None:
    card = console.show("jobs").get_by_role("region", name="digits")
    card.locator("canvas").wait_for()
    assert "85.5%" in card.inner_text()
    assert card.locator("table.cards tbody tr").count() == 4
    assert card.locator(".waits li").count() >= 1


def test_the_books_are_verified_and_exported(console: Console) -> None:
    main = console.show("ledger")
    main.get_by_text("every digest was verified").wait_for()
    main.get_by_text("Debits equal credits").wait_for()
    assert main.locator("tbody").last.locator("tr").count() == min(len(console.house.get("/v1/ledger/transfers")), 200)
    with console.page.expect_download() as download:
        main.get_by_role("button", name="Download CSV").click()
    assert Path(download.value.path()).read_text(encoding="utf-8").startswith("transfer_id,")


def test_invitations_come_as_codes_and_pictures_to_scan(console: Console) -> None:
    main = console.show("invites")
    main.get_by_label("How many devices").fill("2")
    main.get_by_role("button", name="Make invitations").click()
    pictures = main.get_by_role("img", name=re.compile("QR code"))
    pictures.nth(1).wait_for()
    codes = main.locator(".code code").all_inner_texts()
    assert len(set(codes)) == 2
    assert pictures.first.evaluate("picture => picture.decode().then(() => picture.naturalWidth > 0)")
    told = {"code": codes[0], "node_id": "scanned", "device": "phone", "power_w": 5.0, "memory_bytes": 1, "runtime": "wasm-1", "meter": "m"}
    assert console.house.call("POST", "/v1/join", json=told).status_code == 200
    console.show("log").get_by_text("2 codes for").first.wait_for()


def test_open_invitations_are_withdrawn_and_say_so(console: Console) -> None:
    code = console.house.post("/v1/invites", {"zone": ZONE}).json()["code"]
    main = console.show("invites")
    main.get_by_role("button", name="Withdraw open ones").click()
    console.say("Withdraw")
    console.page.get_by_text("Open invitations withdrawn:").wait_for()
    told = {"code": code, "node_id": "late", "device": "phone", "power_w": 5.0, "memory_bytes": 1, "runtime": "wasm-1", "meter": "m"}
    assert "this code ended" in console.house.call("POST", "/v1/join", json=told).text
    assert main.get_by_text("open", exact=True).count() == 0


def test_a_token_is_made_shown_once_and_withdrawn_and_its_console_closes(console: Console, browser: Any, house: House) -> None:
    main = console.show("invites")
    main.get_by_label("Name").fill("shop-window")
    main.get_by_role("button", name="Make a token").click()
    main.get_by_text("The token of shop-window").wait_for()
    wall = Console(browser, house).login(main.locator("article.token code").inner_text())
    main.get_by_role("button", name="Withdraw: shop-window").click()
    console.say("Withdraw")
    wall.page.get_by_text("This token is not valid here.").wait_for()
    main.get_by_role("row").filter(has_text="shop-window").get_by_text(re.compile("^withdrawn ")).wait_for()
    assert main.get_by_role("button", name=re.compile("Withdraw: operator")).count() == 0
    wall.context.close()


def test_only_an_admin_sees_tokens(browser: Any, house: House) -> None:
    looker = Console(browser, house).login("viewer")
    main = looker.show("invites")
    main.get_by_text("This needs an admin's token; yours is Viewer.").wait_for()
    assert main.get_by_label("Name").count() == 0
    assert looker.trouble == []
    looker.context.close()


def test_the_audit_log_says_who_did_what(console: Console) -> None:
    console.house.post("/v1/tokens", {"name": "wall-screen", "role": "viewer"}, token="admin")
    row = console.show("log").locator("tbody tr").filter(has_text="token wall-screen")
    row.wait_for()
    assert "a-admin" in row.inner_text()


# -- the switch


def test_pause_everything_asks_once_says_who_and_resumes(console: Console) -> None:
    page = console.page
    page.get_by_role("button", name="Pause everything").click()
    console.say("Cancel")
    assert not console.house.get("/v1/status")["zones"][0]["paused"]
    page.get_by_role("button", name="Pause everything").click()
    console.say("Pause everything")
    page.locator("#paused").get_by_text("Paused by a-admin since").wait_for()
    assert console.house.get("/v1/status")["zones"][0]["paused"]
    page.get_by_role("button", name="Resume everything").click()
    console.say("Resume everything")
    page.get_by_role("button", name="Pause everything").wait_for()
    assert page.locator("#paused").inner_text() == ""
    assert not console.house.get("/v1/status")["zones"][0]["paused"]


def test_another_operators_pause_shows_by_itself(console: Console) -> None:
    console.house.post("/v1/pause")
    console.page.locator("#paused").get_by_text("Paused by a-operator since").wait_for()
    console.house.post("/v1/resume")
    console.page.get_by_role("button", name="Pause everything").wait_for()


# -- the policy


def test_a_policy_is_checked_as_one_types_previewed_and_saved(console: Console) -> None:
    main = console.show("policy")
    text = main.get_by_role("textbox", name="Policy as text")
    main.get_by_text("No change so far.").wait_for()
    assert text.input_value() == RULE
    text.fill(RULE.replace("min_watts = 150", "min_wats = 150"))
    problem = main.locator(".problems li")
    problem.filter(has_text="min_watts").wait_for()
    problem.get_by_role("button", name="Line 13").click()
    assert text.evaluate("area => area.value.slice(area.selectionStart, area.selectionEnd)") == "min_wats = 150"
    main.get_by_role("button", name="Preview tomorrow").click()
    main.get_by_role("button", name="Save").click()
    assert console.page.get_by_role("dialog").count() == 0, "a broken policy is not even asked about"

    draft = RULE.replace("min_watts = 150", "min_watts = 333")
    text.fill(draft)
    main.get_by_text("This is a sound policy.").wait_for()
    main.get_by_role("button", name="Preview tomorrow").click()
    seen = main.get_by_role("region", name="Tomorrow")
    seen.locator("canvas").wait_for()
    assert "333 W" in seen.inner_text()
    assert seen.get_by_text("differs").count() >= 1
    assert seen.locator("table.cards tbody tr").count() == 24

    file = console.house.daemon.settings.zones[0].policy
    assert file.read_text(encoding="utf-8") == RULE
    main.get_by_role("button", name="Save").click()
    console.say("Save")
    console.page.locator("#told").get_by_text("data/policies/").wait_for()
    assert file.read_text(encoding="utf-8") == draft
    file.write_text(RULE, encoding="utf-8")
    text.fill(draft + "\n")
    main.get_by_text("This is a sound policy.").wait_for()
    main.get_by_role("button", name="Save").click()
    console.say("Save")
    console.page.locator("#told").get_by_text("has changed since you opened it").wait_for()
    assert file.read_text(encoding="utf-8") == RULE, "what another has saved meanwhile is not written over"
    assert "409" in console.trouble.pop(), "a browser notes every refusal by itself"
    main.get_by_role("button", name="Load again").click()
    console.say("Discard")
    main.get_by_text("No change so far.").wait_for()


def test_an_edited_policy_goes_nowhere_without_a_question(browser: Any, house: House) -> None:
    console = Console(browser, house).login("viewer")
    page, main = console.page, console.show("policy")
    text = main.get_by_role("textbox", name="Policy as text")
    main.get_by_text("No change so far.").wait_for()
    text.fill("mine")
    page.locator("header summary").click()
    nodes = page.get_by_role("link", name="Nodes")
    for way_out in (nodes, page.get_by_role("button", name="Deutsch"), page.get_by_role("button", name="Log out")):
        way_out.click()
        page.get_by_role("dialog").get_by_text("Discard your changes?").wait_for()
        assert page.get_by_role("dialog").count() == 1
        console.say("Cancel")
        assert (text.input_value(), page.evaluate("location.hash")) == ("mine", "#/policy")
    with page.expect_event("dialog") as asked:
        page.close(run_before_unload=True)
    assert asked.value.type == "beforeunload"
    asked.value.dismiss()
    nodes.click()
    console.say("Discard")
    page.locator("main h1", has_text="Nodes").wait_for()
    assert page.evaluate("location.hash") == "#/nodes"
    page.go_back()
    page.locator("main h1", has_text="Policy").wait_for()
    main.get_by_text("No change so far.").wait_for()
    nodes.click()
    page.locator("main h1", has_text="Nodes").wait_for()
    assert console.trouble == []
    console.context.close()


def test_what_is_typed_while_a_policy_is_being_saved_is_not_taken_for_saved(browser: Any, house: House) -> None:
    console = Console(browser, house).login()
    page, main = console.page, console.show("policy")
    text = main.get_by_role("textbox", name="Policy as text")
    main.get_by_text("No change so far.").wait_for()
    saved, typed = RULE.replace("min_watts = 150", "min_watts = 222"), RULE.replace("min_watts = 150", "min_watts = 444")
    held: list[Any] = []
    page.route("**/policy", lambda route: held.append(route) if route.request.method == "PUT" else route.continue_())
    text.fill(saved)
    main.get_by_role("button", name="Save").click()
    with page.expect_request(lambda request: request.method == "PUT"):
        console.say("Save")
    text.fill(typed)
    held[0].continue_()
    page.locator("#told").get_by_text("data/policies/").wait_for()
    assert console.house.daemon.settings.zones[0].policy.read_text(encoding="utf-8") == saved
    page.get_by_role("link", name="Nodes").click()
    console.say("Discard")
    page.locator("main h1", has_text="Nodes").wait_for()
    console.house.daemon.settings.zones[0].policy.write_text(RULE, encoding="utf-8")
    console.context.close()


# -- for everybody


def test_it_speaks_german_and_keeps_to_it(browser: Any, house: House) -> None:
    console = Console(browser, house, locale="de-DE")
    console.page.get_by_label("Zugangsschlüssel").fill("viewer")
    console.page.keyboard.press("Enter")
    console.page.get_by_role("button", name="Alles anhalten").wait_for()
    assert console.page.evaluate("document.documentElement.lang") == "de"
    console.page.locator("header summary").click()
    console.page.get_by_role("button", name="English").click()
    console.page.get_by_role("button", name="Pause everything").wait_for()
    console.page.reload()
    console.page.get_by_role("button", name="Pause everything").wait_for()
    console.context.close()


def test_every_view_is_reached_by_keys_alone(console: Console) -> None:
    page = console.page
    console.show("zones")
    page.reload()
    page.get_by_text("Live", exact=True).wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.hash") == "#/nodes":
            break
    page.keyboard.press("Enter")
    page.locator("main h1", has_text="Nodes").wait_for()
    assert page.evaluate("document.activeElement.tagName") == "H1"


NAMELESS = """() => [...document.querySelectorAll('button, a[href], input, select, textarea')]
    .filter(each => each.checkVisibility() && !(each.textContent.trim() || each.ariaLabel || each.labels?.length || each.title))
    .map(each => each.outerHTML)"""
CONTRASTS = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.long)])
def test_every_view_fits_a_phone_has_names_for_all_controls_and_can_be_read(browser: Any, house: House, scheme: str) -> None:
    console = Console(browser, house, viewport={"width": 360, "height": 740}, color_scheme=scheme).login()
    for view in VIEWS:
        main = console.show(view)
        main.locator("canvas, table, textarea, form, .fields").first.wait_for(state="attached")
        width = console.page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360, f"{view} is {width} px wide"
        assert console.page.evaluate(NAMELESS) == [], view
        assert console.page.evaluate(CONTRASTS) == [], view
        assert console.page.get_by_role("button", name="Pause everything").is_visible()
    assert console.trouble == []
    console.context.close()


@pytest.mark.long
def test_a_line_that_is_cut_says_so_and_comes_back(browser: Any, house: House) -> None:
    console = Console(browser, house)
    lines: list[Any] = []

    def through(line: Any) -> None:
        line.connect_to_server()
        lines.append(line)

    console.page.route_web_socket(re.compile("/v1/console/channel"), through)
    console.login("viewer")
    console.context.set_offline(True)
    lines[-1].close(code=1012)
    console.page.get_by_text("No connection").wait_for()
    console.context.set_offline(False)
    console.page.get_by_text("Live", exact=True).wait_for()
    house.post("/v1/pause")
    console.page.locator("#paused").get_by_text("a-operator").wait_for()
    house.post("/v1/resume")
    console.context.close()


NO_LINE = """window.WebSocket = class extends EventTarget {
    constructor() { super(); setTimeout(() => this.dispatchEvent(new Event("close"))); }
    close() {}
}"""


@pytest.mark.long
def test_where_no_line_can_be_opened_it_is_live_by_polling(browser: Any, house: House) -> None:
    console = Console(browser, house)
    console.page.add_init_script(NO_LINE)
    console.page.reload()
    console.page.get_by_label("Operator token").fill("viewer")
    console.page.keyboard.press("Enter")
    console.page.get_by_text("Live, by polling").wait_for()
    house.post("/v1/pause")
    console.page.locator("#paused").get_by_text("a-operator").wait_for()
    house.post("/v1/resume")
    console.context.close()
