"""OpenADR 3: what events mean, and a whole conversation with a VTN played on this machine."""

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from gridsched import AdapterError, Batch, ConfigError, InvalidInput, SignalKind
from gridsched.core.signal import snapshot
from gridsched.providers.openadr import event_spans, iso_duration
from gridsched.providers.session import Limits, Session
from tests.adapters.load import RECORDED, adapter, recorded
from tests.adapters.payloads import openadr

NOW = datetime(2026, 6, 1, 10, 2, tzinfo=UTC)
UNTIL = NOW + timedelta(hours=36)
TABLE: Mapping[str, object] = {"zone": "de", "url": "https://vtn.example/openadr3/3.1.1"}
HOUR = timedelta(hours=1)


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 6, 1, tzinfo=UTC) + timedelta(hours=hour, minutes=minute)


def read(payload: bytes, now: datetime = NOW, **table: Any) -> Batch:
    batch: Batch = adapter("openadr", {**TABLE, **table}).parse(payload, now=now)
    return batch


def joined(*events: bytes) -> bytes:
    return json.dumps([event for payload in events for event in json.loads(payload)]).encode()


def course(batch: Batch, signal: SignalKind) -> list[tuple[str, str, Any]]:
    """A signal as its stretches of one value: from, until, how much."""
    found: list[tuple[str, str, Any]] = []
    for r in (r for r in batch if r.signal is signal):
        start, end = f"{r.start:%H:%M}", f"{r.end:%H:%M}"
        if found and found[-1][1] == start and found[-1][2] == r.value:
            found[-1] = (found[-1][0], end, r.value)
        else:
            found.append((start, end, r.value))
    return found


# -- when


@pytest.mark.parametrize(
    ("written", "lasts"),
    [
        ("PT1H", HOUR),
        ("PT1H30M", 1.5 * HOUR),
        ("P1DT12H", 36 * HOUR),
        ("P1W", 168 * HOUR),
        ("PT0.5S", timedelta(milliseconds=500)),
        ("-PT5M", timedelta(minutes=-5)),
        ("P9999Y", timedelta(days=9999 * 365)),
        ("PT0H", timedelta(0)),
    ],
)
def test_a_duration_is_read_as_iso_8601_writes_it(written: str, lasts: timedelta) -> None:
    assert iso_duration(written) == lasts


@pytest.mark.parametrize("written", ["", "P", "PT", "1H", "PT1", "P1H", "PT1.5.5H", 3600, None, "P" + "9" * 400 + "Y"])
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(InvalidInput):
        iso_duration(written)


def spans(event: dict[str, Any], **how: Any) -> list[tuple[str, str, object]]:
    found = event_spans(event, **{"now": NOW, "until": UNTIL, **how})
    return [(f"{s.start:%d. %H:%M}", f"{s.end:%d. %H:%M}", s.value) for s in found]


def interval(*values: object, start: str | None = None, lasts: str | None = None, kind: str = "PRICE", **more: str) -> dict[str, Any]:
    period = {name: value for name, value in (("start", start), ("duration", lasts)) if value} | more
    return {"id": 0, "payloads": [{"type": kind, "values": list(values)}]} | ({"intervalPeriod": period} if period else {})


DEFAULT = {"start": "2026-06-01T12:00:00.000Z", "duration": "PT1H"}


def test_an_interval_without_a_start_follows_the_one_before_and_may_have_its_own_length() -> None:
    event = {"intervalPeriod": DEFAULT, "intervals": [interval(1), interval(2, lasts="PT2H"), interval(3)]}
    assert spans(event) == [("01. 12:00", "01. 13:00", 1), ("01. 13:00", "01. 15:00", 2), ("01. 15:00", "01. 16:00", 3)]


def test_an_interval_s_own_start_leaves_a_gap_and_the_next_follows_it() -> None:
    event = {"intervalPeriod": DEFAULT, "intervals": [interval(1), interval(2, start="2026-06-01T20:00:00+02:00"), interval(3)]}
    assert [s[:2] for s in spans(event)] == [("01. 12:00", "01. 13:00"), ("01. 18:00", "01. 19:00"), ("01. 19:00", "01. 20:00")]


def test_several_values_divide_their_interval() -> None:
    event = {"intervals": [interval(1, 2, 3, start="2026-06-01T12:00:00Z", lasts="PT3H")]}
    assert spans(event) == [("01. 12:00", "01. 13:00", 1), ("01. 13:00", "01. 14:00", 2), ("01. 14:00", "01. 15:00", 3)]


@pytest.mark.parametrize("now_", ["0001-01-01", "0001-01-01T00:00:00Z", "0000-01-01T00:00:00Z"])
def test_at_once_is_when_the_event_was_made_so_that_it_ends(now_: str) -> None:
    event = {"intervalPeriod": {"start": now_, "duration": "PT1H"}, "intervals": [interval(1), interval(2, start=now_)]}
    assert spans({**event, "createdDateTime": "2026-06-01T09:30:00Z"})[0] == ("01. 09:30", "01. 10:30", 1)
    assert spans(event) == [("01. 10:02", "01. 11:02", 1), ("01. 11:02", "01. 12:02", 2)]


@pytest.mark.parametrize("lasts", ["P9999Y", "PT0S", None])
def test_what_has_no_end_lasts_to_the_horizon(lasts: str | None) -> None:
    period = {"start": "2026-06-01T09:00:00Z"} | ({"duration": lasts} if lasts else {})
    batch = read(openadr(NOW, {"PRICE": [0.2]}, intervalPeriod=period))
    assert max(r.end for r in batch) == at(10) + 36 * HOUR


def test_an_event_repeats_itself_or_is_cut_short_by_its_own_duration() -> None:
    event = {"intervalPeriod": {"start": "2026-05-01T00:00:00Z", "duration": "PT12H"}, "intervals": [interval(1), interval(2)]}
    around = spans({**event, "duration": "P9999Y"}, until=at(36))
    assert around == [
        ("01. 00:00", "01. 12:00", 1),
        ("01. 12:00", "02. 00:00", 2),
        ("02. 00:00", "02. 12:00", 1),
    ]
    assert spans({**event, "duration": "PT18H"}, now=datetime(2026, 5, 1, tzinfo=UTC)) == [
        ("01. 00:00", "01. 12:00", 1),
        ("01. 12:00", "01. 18:00", 2),
    ]
    with pytest.raises(InvalidInput, match="repeats itself"):
        spans({"intervalPeriod": {"start": "2026-06-01T00:00:00Z", "duration": "PT0.001S"}, "intervals": [interval(1)], "duration": "P1D"})


def test_a_random_start_moves_the_intervals_that_follow_along() -> None:
    period = {**DEFAULT, "randomizeStart": "PT30M"}
    event = {"intervalPeriod": period, "intervals": [interval(1), interval(2), interval(3, start="2026-06-01T20:00:00Z")]}
    assert [s[0] for s in spans(event, luck=1.0)] == ["01. 12:30", "01. 13:30", "01. 20:30"]
    assert [s[0] for s in spans(event, luck=-0.5)] == ["01. 11:45", "01. 12:45", "01. 19:45"]


def test_two_sites_start_at_different_moments_and_each_at_the_same_one_every_time() -> None:
    event = openadr(at(12), {"PRICE": [0.2]}, intervalPeriod={**DEFAULT, "randomizeStart": "PT50M"})
    starts = [[course(read(event, client_name=name), SignalKind.PRICE)[0][0] for _ in range(2)] for name in ("a", "b", "c")]
    assert all(first == again for first, again in starts)
    assert len({first for first, _ in starts}) > 1


@pytest.mark.parametrize(
    "event",
    [
        {"intervals": [interval(1)]},
        {"intervalPeriod": {"start": "2026-06-01T12:00:00"}, "intervals": [interval(1)]},
        {"intervalPeriod": DEFAULT, "intervals": 5},
        {"intervalPeriod": DEFAULT, "intervals": [{"id": 0}]},
        {"intervalPeriod": 5, "intervals": []},
        {
            "intervalPeriod": {"start": "9999-12-31T23:00:00Z", "duration": "PT1H"},
            "intervals": [interval(1), interval(1)],
            "duration": "P1D",
        },
    ],
)
def test_an_event_that_cannot_be_placed_is_set_aside_and_the_others_count(event: dict[str, Any]) -> None:
    batch = read(json.dumps([event, *json.loads(openadr(at(12), {"PRICE": [0.2]}))]).encode())
    assert course(batch, SignalKind.PRICE) == [("12:00", "14:00", 200.0)]
    assert len(batch.dropped) <= 1


# -- what


def test_each_payload_becomes_its_signal_in_its_unit() -> None:
    payloads: dict[str, list[Any]] = {
        "PRICE": [0.17, -0.02],
        "GHG": [250],
        "IMPORT_CAPACITY_LIMIT": [10],
        "IMPORT_CAPACITY_AVAILABLE": [4.5],
        "SIMPLE": [1],
        "EXPORT_PRICE": [0.08],
        "X_OURS": ["?"],
    }
    batch = read(openadr(at(10), payloads))
    assert batch.dropped == ()
    assert course(batch, SignalKind.PRICE) == [("10:00", "11:00", pytest.approx(170.0)), ("11:00", "12:00", pytest.approx(-20.0))]
    assert course(batch, SignalKind.CARBON) == [("10:00", "12:00", 250.0)]
    assert course(batch, SignalKind.LIMIT) == [("10:00", "12:00", 10_000.0)]
    assert course(batch, SignalKind.SURPLUS) == [("10:00", "10:15", 4_500.0)]
    assert course(batch, SignalKind.ALARM) == [("10:00", "12:00", 1.0)]


@pytest.mark.parametrize(
    ("kind", "values", "table", "alarm"),
    [
        ("SIMPLE", [0], {}, 0.0),
        ("SIMPLE", [1], {}, 1.0),
        ("SIMPLE", [1], {"simple_alarm": 2}, 0.0),
        ("SIMPLE", [3], {"simple_alarm": 2}, 1.0),
        ("ALERT_GRID_EMERGENCY", ["The grid is in trouble", "in two languages"], {}, 1.0),
        ("ALERT_GRID_EMERGENCY", [], {}, 1.0),
        ("ALERT_BLACK_START", ["soon"], {}, 1.0),
        ("ALERT_FLEX_ALERT", ["scarce"], {}, 0.0),
        ("ALERT_FLEX_ALERT", ["scarce"], {"flex_alert": True}, 1.0),
        ("ALERT_FIRE", ["smoke"], {}, 0.0),
    ],
)
def test_which_alerts_are_an_alarm(kind: str, values: list[object], table: dict[str, Any], alarm: float) -> None:
    batch = read(openadr(at(10), {kind: values}), **table)
    assert [r.value for r in batch if r.signal is SignalKind.ALARM and r.start <= NOW < r.end] == [alarm]


@pytest.mark.parametrize(
    ("descriptor", "table", "price"),
    [
        ({"units": "KWH", "currency": "EUR"}, {}, 200.0),
        ({"units": "KWH", "currency": "USD"}, {"eur_per_unit": 0.9}, 180.0),
        ({"units": "KWH", "currency": "USD"}, {}, "in USD, not EUR; say with eur_per_unit"),
        ({"units": "KWH"}, {"currency": "EUR"}, 200.0),
        ({"units": "KWH"}, {}, "in ?, not EUR"),
        ({}, {"units": {"PRICE": "MWH"}, "currency": "EUR"}, 0.2),
        ({}, {"currency": "EUR"}, "does not say its units"),
        ({"units": "THERMS", "currency": "EUR"}, {}, "'EUR/THERMS' is not a unit"),
    ],
)
def test_a_price_is_believed_only_in_a_known_unit_and_currency(
    descriptor: dict[str, str], table: dict[str, Any], price: float | str
) -> None:
    batch = read(openadr(at(10), {"PRICE": [0.2]}, payloadDescriptors=[{"payloadType": "PRICE", **descriptor}]), **table)
    if isinstance(price, float):
        assert course(batch, SignalKind.PRICE) == [("10:00", "12:00", pytest.approx(price))]
    else:
        assert course(batch, SignalKind.PRICE) == []
        assert price in batch.dropped[0].reason


@pytest.mark.parametrize(("units", "value"), [("KVA", [10]), ("", [10]), ("KW", ["much"]), ("KW", [None]), ("KW", [1e306])])
def test_a_limit_that_cannot_be_read_is_taken_for_zero(units: str, value: list[object]) -> None:
    descriptor = [{"payloadType": "IMPORT_CAPACITY_LIMIT", "units": units}]
    batch = read(openadr(at(10), {"IMPORT_CAPACITY_LIMIT": value}, payloadDescriptors=descriptor))
    assert course(batch, SignalKind.LIMIT) == [("10:00", "12:00", 0.0)]
    assert "it counts as 0 W" in batch.dropped[0].reason


def test_begun_slots_count_for_alarms_and_limits_and_whole_ones_alone_for_surplus() -> None:
    payloads = {"SIMPLE": [2], "IMPORT_CAPACITY_LIMIT": [1], "IMPORT_CAPACITY_AVAILABLE": [1]}
    batch = read(openadr(at(10, 3), payloads, hours=0.15), hold="30m")
    assert course(batch, SignalKind.ALARM)[:2] == [("10:00", "10:15", 1.0), ("10:15", "10:30", 0.0)]
    assert course(batch, SignalKind.LIMIT)[0] == ("10:00", "10:15", 1000.0)
    assert course(batch, SignalKind.SURPLUS)[1] == ("10:05", "10:10", 1000.0)


# -- which of several


def test_the_lower_number_counts_and_no_number_counts_least() -> None:
    low, none, high = (
        openadr(at(10), {"PRICE": [price]}, id=name, **({} if priority is None else {"priority": priority}))
        for name, price, priority in (("a", 0.3, 5), ("b", 0.2, None), ("c", 0.1, 0))
    )
    for order in ((low, none, high), (high, none, low)):
        assert course(read(joined(*order)), SignalKind.PRICE) == [("10:00", "12:00", pytest.approx(100.0))]
    assert course(read(joined(none, low)), SignalKind.PRICE) == [("10:00", "12:00", pytest.approx(300.0))]


def test_a_short_event_of_high_priority_interrupts_a_long_one() -> None:
    limit = {"IMPORT_CAPACITY_LIMIT": [10]}
    tight = {"IMPORT_CAPACITY_LIMIT": [2]}
    batch = read(joined(openadr(at(11), tight, hours=0.5, priority=1), openadr(at(10), limit, priority=9)))
    assert course(batch, SignalKind.LIMIT) == [("10:00", "11:00", 10e3), ("11:00", "11:30", 2e3), ("11:30", "12:00", 10e3)]


def test_of_equal_events_the_newer_one_counts() -> None:
    old = openadr(at(10), {"PRICE": [0.3]}, modificationDateTime="2026-06-01T08:00:00Z")
    new = openadr(at(10), {"PRICE": [0.1]}, modificationDateTime="2026-06-01T09:00:00Z")
    assert course(read(joined(new, old)), SignalKind.PRICE) == [("10:00", "12:00", pytest.approx(100.0))]


def test_events_for_others_are_passed_over() -> None:
    theirs = openadr(at(10), {"PRICE": [0.9]}, targets=["feeder-7"], priority=0)
    older = openadr(at(10), {"PRICE": [0.8]}, targets=[{"type": "GROUP", "values": ["feeder-8"]}], priority=0)
    everyone = openadr(at(10), {"PRICE": [0.1]})
    events = joined(theirs, older, everyone)
    assert course(read(events, targets=["feeder-9"]), SignalKind.PRICE) == [("10:00", "12:00", pytest.approx(100.0))]
    assert course(read(events, targets=["feeder-8"]), SignalKind.PRICE) == [("10:00", "12:00", pytest.approx(800.0))]


def test_who_is_opted_out_follows_alarms_and_limits_alone() -> None:
    payloads: dict[str, list[Any]] = {"PRICE": [0.1], "IMPORT_CAPACITY_AVAILABLE": [5], "IMPORT_CAPACITY_LIMIT": [1], "SIMPLE": [1]}
    batch = read(openadr(at(10), payloads), opted_in=False)
    assert course(batch, SignalKind.PRICE) == []
    assert course(batch, SignalKind.SURPLUS) == [("10:00", "10:15", 0.0)]
    assert course(batch, SignalKind.LIMIT) == [("10:00", "12:00", 1e3)]
    assert course(batch, SignalKind.ALARM) == [("10:00", "12:00", 1.0)]


# -- an event that is gone


def test_an_event_that_vanishes_stops_to_count_with_the_next_fetch() -> None:
    """Nothing is ever deleted: what is known is everything told so far."""
    payloads = {"SIMPLE": [2], "IMPORT_CAPACITY_LIMIT": [1], "IMPORT_CAPACITY_AVAILABLE": [5]}
    told = list(read(openadr(at(10), payloads, hours=6)))
    before = snapshot("de", NOW, told)
    assert [before.value(kind) for kind in (SignalKind.ALARM, SignalKind.LIMIT, SignalKind.SURPLUS)] == [1.0, 1000.0, 5000.0]
    for minutes in range(5, 180, 5):
        now = NOW + timedelta(minutes=minutes)
        told += read(b"[]", now)
        after = snapshot("de", now, told)
        assert [after.value(kind) for kind in (SignalKind.ALARM, SignalKind.LIMIT, SignalKind.SURPLUS)] == [0.0, 1e12, 0.0]


def test_while_the_vtn_is_silent_alarms_and_limits_last_and_what_allows_more_does_not() -> None:
    payloads = {"SIMPLE": [2], "IMPORT_CAPACITY_LIMIT": [1], "IMPORT_CAPACITY_AVAILABLE": [5]}
    told = list(read(openadr(at(10), payloads, hours=6)))
    later = snapshot("de", at(14), told)
    assert later.value(SignalKind.ALARM) == 1.0
    assert later.value(SignalKind.LIMIT) == 1000.0
    surplus = later.get(SignalKind.SURPLUS)
    assert surplus is not None
    assert not surplus.fresh
    clear = snapshot("de", at(14), read(b"[]")).get(SignalKind.ALARM)
    assert clear is not None
    assert not clear.fresh


def test_an_event_that_is_changed_is_told_anew() -> None:
    told = list(read(openadr(at(10), {"PRICE": [0.3, 0.3]})))
    told += read(openadr(at(10), {"PRICE": [0.1]}), NOW + timedelta(minutes=5))
    assert snapshot("de", at(11, 30), told).value(SignalKind.PRICE) == pytest.approx(100.0)


# -- options


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"signals": ["price", "curtailment"]}, "signals has curtailment; there are price"),
        ({"simple_alarm": 0}, "simple_alarm must be 1, 2 or 3"),
        ({"hold": "1m"}, "hold must be from 5 minutes"),
        ({"version": "2.0b"}, "'2.0b' is none of 3.0, 3.1"),
    ],
)
def test_a_wrong_option_is_told(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        adapter("openadr", {**TABLE, **wrong})
    assert said in str(caught.value)


def test_the_secret_does_not_show() -> None:
    one = adapter("openadr", {**TABLE, "client_id": "ven", "client_secret": "s3cret"})
    assert "s3cret" not in repr(one.options) + repr(one._vtn)


# -- the specification's own examples


EXAMPLES = sorted(path.name for path in RECORDED.joinpath("api", "openadr3").glob("ug_*Event*.json"))


@pytest.mark.parametrize("name", EXAMPLES or ["ug_03_7_2_Object_References__Events.json"])
def test_every_event_of_the_user_guide_is_understood_or_passed_over(name: str) -> None:
    text = recorded("api", "openadr3", name).read_text()
    try:
        event = json.loads(text)
    except ValueError:
        assert name.startswith("ug_21"), "one example of the guide is not JSON"
        return
    events = event if isinstance(event, list) else [event]
    batch = read(json.dumps(events).encode(), datetime(2023, 2, 10, 0, 1, tzinfo=UTC), eur_per_unit=1.0, units={"PRICE": "KWH"})
    assert batch.dropped == ()


@pytest.mark.parametrize(
    ("name", "now", "signal", "expected"),
    [
        (
            "ug_07",
            datetime(2025, 6, 25, tzinfo=UTC),
            SignalKind.PRICE,
            [("00:00", "01:00", 170.0), ("01:00", "02:00", 30.0), ("02:00", "03:00", 110.0)],
        ),
        ("ug_08", datetime(2023, 2, 10, tzinfo=UTC), SignalKind.PRICE, [("00:00", "01:00", 170.0), ("01:00", "03:00", 220.0)]),
        ("ug_09", datetime(2023, 2, 10, tzinfo=UTC), SignalKind.CARBON, [("00:00", "01:00", 0.03)]),
        ("ug_13", datetime(2025, 3, 14, 1, tzinfo=UTC), SignalKind.ALARM, [("01:00", "04:00", 1.0)]),
        ("ug_14", datetime(2025, 3, 14, 1, tzinfo=UTC), SignalKind.ALARM, [("01:00", "04:00", 1.0)]),
        ("ug_16", datetime(2023, 2, 10, tzinfo=UTC), SignalKind.PRICE, [("00:00", "01:00", 170.0), ("01:00", "02:00", 30.0)]),
        ("ug_33", datetime(2023, 2, 10, tzinfo=UTC), SignalKind.LIMIT, [("00:00", "00:30", 10e3), ("00:30", "01:00", 8e3)]),
    ],
)
def test_the_user_guide_s_examples_mean_what_it_says(
    name: str, now: datetime, signal: SignalKind, expected: list[tuple[str, str, float]]
) -> None:
    (path,) = recorded("api", "openadr3").glob(f"{name}_*.json")
    batch = read(b"[" + path.read_bytes() + b"]", now, eur_per_unit=1.0, units={"PRICE": "KWH"})
    assert course(batch, signal) == [(start, end, pytest.approx(value)) for start, end, value in expected]


# -- a conversation


@dataclass
class PlayedVtn:
    """A VTN that wants to be logged in to, pages its lists by at most 50 and answers problem objects."""

    url: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    programs: list[dict[str, Any]] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    logins: list[dict[str, list[str]]] = field(default_factory=list)
    report_status: int = 201
    revoked: bool = False

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[int, object]:
        parts = urlsplit(target)
        path, query = parts.path.removeprefix("/openadr3"), parse_qs(parts.query)
        self.asked.append(f"{method} {path}{'?' + parts.query if parts.query else ''}")
        if path == "/auth/server":
            return 200, {"tokenURL": f"{self.url}/login"}
        if path in ("/auth/token", "/login"):
            form = parse_qs(body.decode())
            self.logins.append(form)
            if form.get("client_secret") != ["s3cret"]:
                return 401, {"error": "invalid_client", "error_description": "who are you?"}
            return 200, {"access_token": f"token-{len(self.logins)}", "token_type": "Bearer", "expires_in": 3600}
        if headers.get("Authorization") != f"Bearer token-{len(self.logins)}" or self.revoked:
            return 401, {"title": "Unauthorized", "detail": "the token is not valid", "status": 401}
        if path == "/reports" and method == "POST":
            self.reports.append(json.loads(body))
            return self.report_status, {"title": "Forbidden", "detail": "no write_reports"} if self.report_status >= 400 else {"id": "r"}
        found = {"/programs": self.programs, "/events": self.events}.get(path)
        if found is None:
            return 404, {"title": "Not found"}
        if "programID" in query:
            found = [one for one in found if one.get("programID") == query["programID"][0]]
        skip, limit = int(query["skip"][0]), int(query["limit"][0])
        if limit > 50:
            return 400, {"title": "Bad Request", "detail": "limit is at most 50"}
        return 200, found[skip : skip + limit]


@pytest.fixture
def vtn() -> Iterator[PlayedVtn]:
    state = PlayedVtn()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.reply(self.rfile.read(int(self.headers["Content-Length"])))

        def do_GET(self) -> None:
            self.reply(b"")

        def reply(self, body: bytes) -> None:
            status, document = state.answer(self.command, self.path, dict(self.headers), body)
            answer = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/problem+json" if status >= 400 else "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_port}/openadr3"
        yield state
        server.shutdown()
        thread.join()


@pytest.fixture
def session() -> Iterator[Session]:
    made = Session(monotonic=lambda: 0.0, sleep=lambda _: None, now=lambda: NOW, limits=Limits(burst=100, timeout_s=5, attempts=1))
    yield made
    made.close()


def ven(vtn: PlayedVtn, **table: object) -> Any:
    return adapter("openadr", {"zone": "de", "url": vtn.url, "client_id": "ven", "client_secret": "s3cret", **table})


def test_one_login_serves_until_the_token_is_about_to_end(vtn: PlayedVtn, session: Session) -> None:
    one = ven(vtn, scope="read_all")
    vtn.events = json.loads(openadr(at(10), {"PRICE": [0.2]}))
    assert course(one.fetch(session, NOW), SignalKind.PRICE) == [("10:00", "12:00", pytest.approx(200.0))]
    assert vtn.asked == ["GET /auth/server", "POST /login", "GET /events?skip=0&limit=50"]
    assert vtn.logins == [{"grant_type": ["client_credentials"], "client_id": ["ven"], "client_secret": ["s3cret"], "scope": ["read_all"]}]
    one.fetch(session, NOW + timedelta(minutes=58))
    assert len(vtn.logins) == 1
    one.fetch(session, NOW + timedelta(minutes=59))
    assert len(vtn.logins) == 2
    assert vtn.asked.count("GET /auth/server") == 1


def test_3_0_logs_in_at_its_own_path_and_writes_targets_with_their_type(vtn: PlayedVtn, session: Session) -> None:
    ven(vtn, version="3.0", targets=["feeder-7", "de lu"]).fetch(session, NOW)
    assert vtn.asked == ["POST /auth/token", "GET /events?targetType=GROUP&targetValues=feeder-7&targetValues=de+lu&skip=0&limit=50"]
    vtn.asked.clear()
    ven(vtn, targets=["feeder-7"], token_url=f"{vtn.url}/login").fetch(session, NOW)
    assert vtn.asked == ["POST /login", "GET /events?targets=feeder-7&skip=0&limit=50"]


def test_a_program_is_found_by_name_once_and_lends_its_events_their_units(vtn: PlayedVtn, session: Session) -> None:
    described = [{"payloadType": "PRICE", "units": "KWH", "currency": "EUR"}]
    vtn.programs = [{"id": "7", "programName": "other"}, {"id": "44", "programName": "day-ahead", "payloadDescriptors": described}]
    ours = json.loads(openadr(at(10), {"PRICE": [0.2]}, payloadDescriptors=None))
    vtn.events = [*json.loads(openadr(at(10), {"PRICE": [0.9]}, programID="7", priority=0)), *ours]
    for name in ("day-ahead", "44"):
        one = ven(vtn, program=name)
        assert course(one.fetch(session, NOW), SignalKind.PRICE) == [("10:00", "12:00", pytest.approx(200.0))]
        one.fetch(session, NOW)
    assert sum("/programs" in asked for asked in vtn.asked) == 2
    with pytest.raises(AdapterError, match="no program 'night', only other, day-ahead"):
        ven(vtn, program="night").fetch(session, NOW)


def test_a_list_is_read_to_its_last_page_and_one_without_end_is_refused(vtn: PlayedVtn, session: Session) -> None:
    hours = [openadr(at(10) + n * timedelta(minutes=15), {"PRICE": [n / 1000]}, hours=0.25, id=f"e{n}") for n in range(120)]
    vtn.events = json.loads(joined(*hours))
    batch = ven(vtn).fetch(session, NOW)
    assert [r.value for r in batch if r.signal is SignalKind.PRICE] == [pytest.approx(float(n)) for n in range(120) for _ in range(3)]
    assert [asked for asked in vtn.asked if "events" in asked] == [f"GET /events?skip={n}&limit=50" for n in (0, 50, 100)]
    vtn.events = vtn.events[:1] * 1000
    with pytest.raises(AdapterError, match="more than 1000 events") as caught:
        ven(vtn).fetch(session, NOW)
    assert caught.value.kind == "too_large"


def test_a_problem_object_is_told_and_a_revoked_token_is_thrown_away(vtn: PlayedVtn, session: Session) -> None:
    one = ven(vtn)
    one.fetch(session, NOW)
    vtn.revoked = True
    with pytest.raises(AdapterError, match="Unauthorized: the token is not valid") as caught:
        one.fetch(session, NOW)
    assert caught.value.kind == "refused"
    vtn.revoked = False
    one.fetch(session, NOW)
    assert len(vtn.logins) == 2


def test_a_wrong_secret_is_told_without_it(vtn: PlayedVtn, session: Session) -> None:
    with pytest.raises(AdapterError, match="invalid_client: who are you") as caught:
        ven(vtn, client_secret="wr0ng").fetch(session, NOW)
    assert caught.value.kind == "refused"
    assert "wr0ng" not in str(caught.value)


def test_each_new_event_is_confirmed_once_and_again_when_it_changes(vtn: PlayedVtn, session: Session) -> None:
    vtn.events = json.loads(joined(*(openadr(at(10), {"PRICE": [0.2]}, id=name) for name in ("a", "b"))))
    one = ven(vtn, client_name="VEN-9")
    for _ in range(4):
        one.fetch(session, NOW)
    states = [{"id": 0, "payloads": [{"type": "OPERATING_STATE", "values": ["NORMAL"]}]}]
    resources = [{"resourceName": "VEN-9", "intervals": states}]
    assert vtn.reports == [{"eventID": name, "clientName": "VEN-9", "reportName": "gridsched", "resources": resources} for name in "ab"]
    vtn.events[0]["modificationDateTime"] = "2026-06-01T10:00:00Z"
    one.fetch(session, NOW)
    assert [report["eventID"] for report in vtn.reports] == ["a", "b", "a"]


def test_who_does_not_take_part_says_so_and_3_0_is_told_the_program(vtn: PlayedVtn, session: Session) -> None:
    vtn.events = json.loads(openadr(at(10), {"PRICE": [0.2]}))
    ven(vtn, client_name="VEN-9", opted_in=False, version="3.0").fetch(session, NOW)
    (report,) = vtn.reports
    assert report["programID"] == "44"
    assert report["resources"][0]["intervals"][0]["payloads"][0]["values"] == ["IDLE_OPTED_OUT"]


@pytest.mark.parametrize(("status", "tries", "said"), [(409, 1, ""), (403, 2, "no write_reports")])
def test_a_report_that_is_refused_costs_no_reading_and_is_tried_again(
    vtn: PlayedVtn, session: Session, status: int, tries: int, said: str
) -> None:
    vtn.events, vtn.report_status = json.loads(openadr(at(10), {"PRICE": [0.2]})), status
    one = ven(vtn, client_name="VEN-9")
    for _ in range(2):
        batch = one.fetch(session, NOW)
        assert course(batch, SignalKind.PRICE)
        assert ([said in dropped.reason for dropped in batch.dropped] == [True]) is bool(said)
    assert len(vtn.reports) == tries
