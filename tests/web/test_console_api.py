"""What the console asks and orders, door by door: roles, the audit log, the switch for everything, lanes, policies and their preview."""

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from gridsched.core.errors import PolicyError
from gridsched.core.signal import Quality, Reading, SignalKind
from gridsched.core.zone import ZoneState
from gridsched.flow import ingest
from gridsched.web.board import changes
from gridsched.web.gate import SUBPROTOCOL
from tests.web.conftest import LIMITS, ZONE, House, build

POLICY = f"/v1/zones/{ZONE}/policy"
LOOKS = ["/v1/me", f"/v1/zones/{ZONE}/timeline", POLICY, "/v1/deeds"]
ORDERS = ["/v1/pause", "/v1/resume"]


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """A house in which node ``pc`` works; prices of today and tomorrow are known."""
    for made in build(replace(LIMITS, calls_per_s=10_000.0)):
        made.working("pc")
        prices(made)
        yield made


def prices(house: House) -> None:
    midnight = house.clock.now().replace(hour=0, minute=0)
    rows = [
        Reading(
            zone=ZONE, signal=SignalKind.PRICE, start=midnight + timedelta(hours=n), end=midnight + timedelta(hours=n + 1),
            value=-10.0 if 9 <= n % 24 < 12 else 60.0, quality=Quality.MEASURED, source="exchange", known_at=house.clock.now(),
        )
        for n in range(72)
    ]  # fmt: skip
    house.do(partial(ingest.store, readings=rows, source="exchange"))


def refused(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


def deeds(house: House) -> list[tuple[str, str, str]]:
    return [(row["who"], row["verb"], row["thing"]) for row in reversed(house.get("/v1/deeds"))]


# -- who may


@pytest.mark.parametrize("path", LOOKS)
def test_viewers_may_look(house: House, path: str) -> None:
    assert house.call("GET", path, token="viewer").status_code == 200
    assert refused(house.call("GET", path)) == (401, "Unauthorized")


@pytest.mark.parametrize("path", ORDERS)
def test_viewers_may_order_nothing(house: House, path: str) -> None:
    assert refused(house.post(path, token="viewer")) == (403, "Forbidden")


def test_saving_a_policy_takes_an_admin(house: House) -> None:
    assert refused(house.call("PUT", POLICY, token="operator", json={"text": "", "replaces": ""})) == (403, "Forbidden")


def test_a_console_learns_who_it_is_and_which_zones_there_are(house: House) -> None:
    me = house.get("/v1/me", token="operator")
    assert (me["name"], me["role"], [zone["zone"] for zone in me["zones"]]) == ("a-operator", "operator", [ZONE])


# -- the audit log


def test_every_change_is_noted_under_the_tokens_name_and_what_is_refused_is_not(house: House) -> None:
    before = len(deeds(house))
    house.post(f"/v1/zones/{ZONE}/pause")
    house.post(f"/v1/zones/{ZONE}/resume", token="admin")
    house.post("/v1/tokens", {"name": "wall", "role": "viewer"}, token="admin")
    house.post("/v1/nodes/nobody/pardon")
    house.post("/v1/jobs/none/cancel")
    house.post("/v1/tokens", {"name": "wall", "role": "viewer"}, token="viewer")
    assert deeds(house)[before:] == [
        ("a-operator", "pause_zone", f"zone {ZONE}"),
        ("a-admin", "resume_zone", f"zone {ZONE}"),
        ("a-admin", "make_token", "token wall"),
    ]


def test_the_log_is_numbered_without_gaps_and_exported_without_secrets(house: House) -> None:
    made = house.post("/v1/invites", {"zone": ZONE, "for_s": 60, "count": 3}).json()
    answer = house.call("GET", "/v1/deeds", token="viewer", params={"format": "csv"})
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [int(row["number"]) for row in reversed(rows)] == list(range(1, len(rows) + 1))
    assert (rows[0]["verb"], rows[0]["detail"]) == ("invite", "3 codes for 0:01:00")
    assert len(set(made["codes"])) == 3
    assert not [code for code in made["codes"] if code in answer.text]
    assert house.call("GET", "/v1/deeds", token="viewer", params={"format": "xml"}).status_code == 422


def test_an_operator_shuts_a_node_out_and_its_owner_reads_why(house: House) -> None:
    token = house.join("odd")
    for empty in ("", "  ", "x" * 201):
        assert refused(house.post("/v1/nodes/odd/quarantine", {"why": empty})) == (422, "InvalidInput")
    assert refused(house.post("/v1/nodes/nobody/quarantine", {"why": "smoke"})) == (404, "NotFound")
    assert refused(house.post("/v1/nodes/odd/quarantine", {"why": "smoke"}, token="viewer")) == (403, "Forbidden")
    assert house.post("/v1/nodes/odd/quarantine", {"why": "smoke was seen"}).status_code == 200
    (node,) = [row for row in house.get("/v1/nodes") if row["node_id"] == "odd"]
    assert (node["reason"], node["quarantine_reason"]) == ("quarantined", "smoke was seen")
    assert "smoke was seen" in house.post("/v1/node/sync", {"instance": "one"}, token=token).text
    assert deeds(house)[-1] == ("a-operator", "quarantine_node", "node odd")


# -- the switch


def test_pausing_everything_stops_every_zone_and_says_who_and_since_when(house: House) -> None:
    assert house.post("/v1/pause").json() == {"zones": [ZONE], "paused": True}
    house.tick()
    (zone,) = house.get("/v1/status")["zones"]
    assert (zone["paused"], zone["paused_by"], zone["paused_at"]) == (True, "a-operator", zone["paused_at"])
    assert datetime.fromisoformat(zone["paused_at"]) == house.clock.now()
    assert (zone["reason"], zone["target_w"]) == ("paused_by_operator", 0.0)
    house.clock.sleep(60)
    house.post("/v1/pause", token="admin")
    (zone,) = house.get("/v1/status")["zones"]
    assert zone["paused_by"] == "a-operator", "who came second has changed nothing"
    house.post("/v1/resume")
    house.surplus(1000.0)
    house.tick()
    (zone,) = house.get("/v1/status")["zones"]
    assert (zone["paused"], zone["paused_by"], zone["paused_at"], zone["reason"]) == (False, "", None, "surplus")
    with house.daemon.store.read() as tx:
        assert tx.must(ZoneState, ZONE).paused_at is None


# -- lanes


def test_a_lane_has_what_was_decided_and_drawn_and_what_lies_ahead(house: House) -> None:
    lane = house.get(f"/v1/zones/{ZONE}/timeline", params={"back_h": 2, "ahead_h": 48})
    now = datetime.fromisoformat(lane["now"])
    assert now == house.clock.now()
    price = lane["signals"]["price"]["slots"]
    assert datetime.fromisoformat(price[0]["start"]) <= now < datetime.fromisoformat(price[-1]["start"])
    assert {row["value"] for row in price} == {-10.0, 60.0}
    assert lane["decisions"][-1]["reason"] in {"surplus", "paused_by_operator"}
    assert {row["target_w"] for row in lane["decisions"]} >= {1000.0}
    assert lane["drawn"]
    assert datetime.fromisoformat(lane["foretold"][-1]["end"]) >= now + timedelta(hours=47)


def test_what_nobody_has_published_is_told_as_expected(house: House) -> None:
    lane = house.get(f"/v1/zones/{ZONE}/timeline", params={"ahead_h": 96})
    slots = lane["signals"]["price"]["slots"]
    ends = [slot["end"] for slot in slots if not slot["expected"]]
    assert [slot["expected"] for slot in slots] == [slot["end"] > ends[-1] for slot in slots]
    assert slots[-1]["expected"]


def test_an_unknown_zone_is_told_by_name(house: House) -> None:
    answer = house.call("GET", "/v1/zones/nowhere/timeline", token="viewer")
    assert refused(answer) == (404, "NotFound")
    assert ZONE in answer.json()["detail"]


# -- policies


@pytest.mark.parametrize(
    ("old", "new", "key", "says"),
    [
        ('zone = "de-lu"', 'zoen = "de-lu"', "zoen", "zone"),
        ("share_of_surplus = 1.0", "share_of_surplus = 7", "draw.share_of_surplus", "share"),
        ("share_of_surplus = 1.0", "wats = 3\nshare_of_surplus = 1.0", "draw.wats", "watts"),
        ("above = 1,", 'above = "1 EUR/MWh",', "when.any[0].above", "W"),
        ("[draw]", "[draw", "", "TOML"),
        ('zone = "de-lu"', 'zone = "de-lu"\ntimezone = "Mars/Base"', "timezone", "IANA"),
    ],
)
def test_a_broken_policy_is_told_with_line_key_and_remedy(house: House, old: str, new: str, key: str, says: str) -> None:
    text = house.get(POLICY)["text"]
    assert old in text, text
    broken = text.replace(old, new)
    told = house.post(f"{POLICY}/check", {"text": broken}, token="viewer").json()
    assert not told["ok"]
    problem = told["problems"][0] if key != "zoen" else next(p for p in told["problems"] if p["key"] == "zoen")
    assert problem["key"] == key
    assert says in problem["says"]
    line = broken.split("\n")[problem["line"] - 1]
    assert (key.rsplit(".", maxsplit=1)[-1] or "[draw") in line


def test_a_sound_policy_is_told_in_values(house: House) -> None:
    told = house.post(f"{POLICY}/check", {"text": house.get(POLICY)["text"]}, token="viewer").json()
    assert told["ok"]
    assert told["policy"]["when"][0]["signal"] == "surplus"


def test_a_policy_of_another_zone_is_refused(house: House) -> None:
    text = house.get(POLICY)["text"].replace(ZONE, "elsewhere")
    told = house.post(f"{POLICY}/check", {"text": text}, token="viewer").json()
    assert not told["ok"]
    assert "elsewhere" in told["problems"][0]["says"]


CHEAP = f"""zone = "{ZONE}"

[when]
any = [{{ signal = "price", below = "0 EUR/MWh" }}]

[draw]
watts = 400

[reward]
per_kwh_eur = 0.1
"""


def test_a_preview_sets_tomorrow_by_the_draft_beside_tomorrow_by_the_present_policy(house: House) -> None:
    told = house.post(f"{POLICY}/preview", {"text": CHEAP}, token="viewer").json()
    tomorrow = house.clock.now().replace(hour=0, minute=0) + timedelta(days=1)
    assert (datetime.fromisoformat(told["start"]), datetime.fromisoformat(told["end"])) == (tomorrow, tomorrow + timedelta(days=1))
    assert len(told["draft"]) == len(told["present"]) == 96
    on = [row for row in told["draft"] if row["target_w"] > 0]
    assert {(row["target_w"], row["reason"]) for row in on} == {(400.0, "price")}
    assert [datetime.fromisoformat(row["start"]).hour for row in on] == [9] * 4 + [10] * 4 + [11] * 4
    assert {row["reason"] for row in told["draft"] if row not in on} == {"no_surplus"}
    assert len(told["signals"]["price"]) == 24


def test_a_preview_of_a_broken_policy_is_refused(house: House) -> None:
    assert refused(house.post(f"{POLICY}/preview", {"text": "zone = 3"}, token="viewer")) == (422, "PolicyError")


def test_a_budget_runs_out_in_a_preview(house: House) -> None:
    told = house.post(f"{POLICY}/preview", {"text": CHEAP + '\n[budget]\nenergy_per_day = "0.4 kWh"\n'}, token="viewer").json()
    reasons = {datetime.fromisoformat(row["start"]).hour: row["reason"] for row in told["draft"]}
    assert (reasons[9], reasons[11], reasons[23]) == ("price", "budget_spent_energy", "budget_spent_energy")


def saved(house: House, text: str, replaces: str) -> Any:
    return house.call("PUT", POLICY, token="admin", json={"text": text, "replaces": replaces})


def test_a_saved_policy_rules_from_the_next_tick_and_the_old_one_is_kept(house: House) -> None:
    before = house.get(POLICY)
    file, log = house.daemon.settings.zones[0].policy, len(deeds(house))
    for broken in (CHEAP + "nonsense = 1", CHEAP.replace(ZONE, "elsewhere"), "["):
        assert saved(house, broken, before["sha256"]).status_code == 422
        assert file.read_text(encoding="utf-8") == before["text"]
    assert refused(saved(house, CHEAP, hashlib.sha256(b"another").hexdigest())) == (409, "Conflict")
    assert file.read_text(encoding="utf-8") == before["text"]
    assert len(deeds(house)) == log, "what was refused is not in the log"

    answer = saved(house, CHEAP, before["sha256"])
    assert answer.status_code == 200, answer.text
    kept: Path = house.daemon.settings.site.data / "policies" / answer.json()["kept"]
    assert kept.read_text(encoding="utf-8") == before["text"]
    assert file.read_text(encoding="utf-8") == CHEAP
    assert deeds(house)[-1] == ("a-admin", "save_policy", f"zone {ZONE}")
    house.tick()
    now = house.get(POLICY)
    assert (now["text"], now["sha256"]) == (CHEAP, answer.json()["sha256"])
    assert now["rules"]["digest"] == answer.json()["digest"]
    assert house.get("/v1/status")["zones"][0]["reason"] == "no_surplus"
    assert saved(house, before["text"], now["sha256"]).status_code == 200
    house.tick()


def test_a_text_that_is_no_policy_is_never_written_whoever_asks(house: House) -> None:
    book, file = house.daemon.policies, house.daemon.settings.zones[0].policy
    before = file.read_text(encoding="utf-8")
    with pytest.raises(PolicyError):
        book.save(ZONE, "nonsense = 1", replaces=hashlib.sha256(before.encode()).hexdigest())
    assert file.read_text(encoding="utf-8") == before
    assert book.save(ZONE, before, replaces="whatever it was") is None, "nothing has changed, so nothing is kept"


# -- live


def test_a_console_is_sent_everything_once_and_then_what_has_changed(house: House) -> None:
    address = house.url.replace("http", "ws") + "/v1/console/channel"
    with connect(address, subprotocols=[SUBPROTOCOL, "token.viewer"], proxy=None) as line:  # type: ignore[list-item]
        assert line.subprotocol == SUBPROTOCOL
        first = json.loads(line.recv(timeout=10))
        assert first["nodes"]["pc"]["node_id"] == "pc"
        assert first["zones"][ZONE]["zone"] == ZONE
        assert first["jobs"]["j"]["state"] == "running"
        house.post("/v1/pause")
        while "zones" not in (said := json.loads(line.recv(timeout=10))) or not said["zones"].get(ZONE, {}).get("paused"):
            assert said["jobs"] == {}, "what has not changed is not sent again"
        assert said["deeds"] > first["deeds"]
    house.post("/v1/resume")


def test_a_stranger_a_node_and_another_sites_page_get_no_line(house: House) -> None:
    address = house.url.replace("http", "ws") + "/v1/console/channel"
    for token, origin in (("nobody", None), (house.join("line"), None), ("viewer", "http://elsewhere.example")):
        with pytest.raises(InvalidStatus) as refusal:
            connect(address, subprotocols=[SUBPROTOCOL, f"token.{token}"], origin=origin, proxy=None).close()  # type: ignore[list-item,arg-type]
        assert refusal.value.response.status_code in {401, 403}


def test_changes_name_what_is_new_what_differs_and_what_is_gone() -> None:
    before = {"nodes": {"a": {"w": 1}, "b": {"w": 2}, "c": {"w": 3}}}
    after = {"nodes": {"a": {"w": 1}, "b": {"w": 9}, "d": {"w": 4}}}
    assert changes(before, after) == {"nodes": {"b": {"w": 9}, "d": {"w": 4}, "c": None}}
    assert changes({}, after) == after
