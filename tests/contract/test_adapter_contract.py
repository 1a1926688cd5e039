"""What every signal adapter promises, run over every file in ``adapters/signals``."""

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsched import AdapterError, ConfigError, SignalKind
from gridsched.core.signal import plausible
from gridsched.plugins import shipped
from gridsched.providers.session import Limits
from tests.adapters.fake_http import FakeHttp
from tests.adapters.load import adapter
from tests.adapters.payloads import (
    BERLIN,
    awattar,
    electricity_maps,
    energi_data_service,
    energy_charts,
    energyzero,
    nordpool,
    octopus,
    openadr,
    tibber,
    tibber_home,
    uk_carbon,
    watttime,
)
from tests.adapters.payloads_europe import entsoe, flags, green_forecast, offered, redispatch, spot, states, time_series

TODAY = datetime(2026, 6, 1, tzinfo=BERLIN)
NOW = datetime(2026, 6, 1, 10, 5, tzinfo=UTC)
POLITE = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A configured adapter and a good answer to it at NOW; ``also`` answers what it asks besides, as a login, by a part of the URL.

    ``ages`` is false where an old answer is as good as a new one: a list of events that are over says that there is none now.
    """

    file: str
    table: Mapping[str, object]
    payload: bytes
    over_http: bool = True
    ages: bool = True
    also: Mapping[str, bytes] = field(default_factory=dict)


def _json(days: int = 0) -> bytes:
    start = datetime(2026, 6, 1 + days, tzinfo=UTC)
    return json.dumps([{"start": (start + timedelta(hours=i)).isoformat(), "price": i - 3.5} for i in range(24)]).encode()


ROWS = {"signal": "price", "resolution": "1h", "time": "start", "value": "price", "unit": "EUR/MWh"}
TSO = {"zone": "de", "client_id": "me", "client_secret": "S"}
TSO_LOGIN = {"/connect/token": b'{"access_token": "T", "expires_in": 3600}'}
RUNS = (
    ("2026-06-01T12:05:00.9894703+02:00", "2026-06-01T20:00:00+02:00", 4),
    ("2026-06-01T20:00:00+02:00", "2026-06-02T12:05:00+02:00", -1),
)
BALANCE = ("load", "B16", "B18", "B19")
CASES = [
    Case(file="energy_charts", table={"zone": "de"}, payload=energy_charts(TODAY, {"day_ahead_price": [-5.0, 0.0, None, *[80.0] * 93]})),
    Case(
        file="energy_charts",
        table={"zone": "de", "series": "power", "surplus_below_residual": 9000.0},
        payload=energy_charts(
            TODAY, {"residual_load": [8000.0] * 40, "renewable_share_of_generation|%": [90.0] * 40}, endpoint="public_power", unit="MW"
        ),
    ),
    Case(
        file="energy_charts",
        table={"zone": "de", "series": "forecast"},
        payload=energy_charts(TODAY, {"load": [9.0] * 96, "solar": [1.0] * 96, "wind": [0.0] * 96}, endpoint="x", unit="MW"),
    ),
    Case(
        file="energy_charts",
        table={"zone": "de", "series": "signal"},
        payload=energy_charts(TODAY, {"share": [40.0] * 96, "signal": [-1.0] * 96}, endpoint="signal", unit="%"),
    ),
    Case(file="awattar", table={"zone": "de"}, payload=awattar(TODAY, [float(i - 4) for i in range(24)])),
    Case(file="entsoe", table={"zone": "de", "token": "T"}, payload=entsoe(time_series("price", TODAY, {1: -5.0, 9: 0, 30: 80}, slots=96))),
    Case(
        file="entsoe",
        table={"zone": "de", "token": "T", "series": "forecast"},
        payload=entsoe(*(time_series(w, TODAY, {1: 9000}, slots=96) for w in BALANCE), document="A65", process="A01"),
    ),
    Case(
        file="entsoe",
        table={"zone": "de", "token": "T", "series": "actual"},
        payload=entsoe(*(time_series(w, TODAY, {1: 9000}, slots=40) for w in BALANCE), document="A65", process="A16"),
    ),
    Case(file="uk_carbon", table={"zone": "de"}, payload=uk_carbon(TODAY, [120.0] * 60, [115.0] * 20)),
    Case(
        file="uk_carbon",
        table={"zone": "de", "region_id": 13},
        payload=uk_carbon(TODAY, [0.0, *[120.0] * 59], region={"regionid": 13}),
    ),
    Case(
        file="electricity_maps",
        table={"zone": "de", "area": "DK-DK2", "token": "T"},
        payload=electricity_maps(TODAY, [75.0] * 24, key="history", field="carbonIntensity", row={"isEstimated": True}),
    ),
    Case(
        file="electricity_maps",
        table={"zone": "de", "area": "DK-DK2", "token": "T", "signal": "residual_load"},
        payload=electricity_maps(TODAY, [-445.5] * 24, row={"unit": "MW", "isEstimated": False}),
    ),
    Case(
        file="electricity_maps",
        table={"zone": "de", "area": "DK-DK2", "token": "T", "signal": "renewable_share"},
        payload=electricity_maps(NOW - timedelta(minutes=5), [97.0], key="latest", row={"unit": "%", "isEstimated": True}),
    ),
    Case(
        file="electricity_maps",
        table={"zone": "de", "area": "DK-DK2", "token": "T", "signal": "price"},
        payload=electricity_maps(TODAY, [-4.5] * 24, row={"unit": "EUR/MWh", "source": "nordpool.com"}),
    ),
    Case(
        file="watttime",
        table={"zone": "de", "username": "u", "password": "p", "region": "CAISO_NORTH"},
        payload=watttime(NOW, [0.0, *[800.0] * 60]),
        also={"/login": b'{"token": "T"}'},
    ),
    Case(file="energi_data_service", table={"zone": "de"}, payload=energi_data_service(TODAY, [float(i - 4) for i in range(96)])),
    Case(
        file="energi_data_service",
        table={"zone": "de", "series": "carbon"},
        payload=energi_data_service(NOW, [107.0] * 60, carbon=True),
    ),
    Case(
        file="octopus",
        table={"zone": "de", "product": "AGILE-24-10-01", "region": "C", "eur_per_gbp": 1.15},
        payload=octopus(TODAY, [float(i - 4) for i in range(46)]),
    ),
    Case(file="tibber", table={"zone": "de", "token": "T"}, payload=tibber(tibber_home(TODAY, [0.01 * i - 0.04 for i in range(96)]))),
    Case(
        file="nordpool",
        table={"zone": "de", "area": "SE3"},
        payload=nordpool(TODAY, [float(i - 4) for i in range(96)], state="Preliminary"),
    ),
    Case(file="energyzero", table={"zone": "de"}, payload=energyzero(TODAY, [f"{0.01 * i - 0.04:.6f}" for i in range(96)])),
    Case(file="netztransparenz", table=TSO, payload=offered(TODAY, *[["139,160", "0,000"]] * 96), also=TSO_LOGIN),
    Case(
        file="netztransparenz",
        table={**TSO, "series": "redispatch"},
        payload=redispatch((TODAY, TODAY + timedelta(hours=3), "41"), (TODAY, TODAY + timedelta(hours=8), "12")),
        also=TSO_LOGIN,
    ),
    Case(file="netztransparenz", table={**TSO, "series": "price"}, payload=spot(TODAY, "-0,500", *["5,087"] * 23), also=TSO_LOGIN),
    Case(
        file="netztransparenz",
        table={**TSO, "series": "negative_price", "surplus_when_negative": 3},
        payload=flags(TODAY, "Ja", *["Nein"] * 40),
        also=TSO_LOGIN,
    ),
    Case(file="stromgedacht", table={"zone": "de", "zip": "70173"}, payload=states(*RUNS)),
    Case(
        file="stromgedacht",
        table={"zone": "de", "zip": "70173", "series": "forecast"},
        payload=green_forecast(NOW.replace(minute=0), [-200.0] * 96, [500.0] * 96),
    ),
    Case(file="http_json", table={"zone": "de", "url": "https://x.example/{start}", **ROWS}, payload=_json()),
    Case(file="file", table={"zone": "de", "path": "prices.json", **ROWS}, payload=_json(), over_http=False),
    Case(
        file="openadr",
        table={"zone": "de", "url": "https://vtn.example/openadr3/3.1.1"},
        payload=openadr(
            NOW, {"PRICE": [0.17, -0.02], "GHG": [250.0], "IMPORT_CAPACITY_LIMIT": [10], "IMPORT_CAPACITY_AVAILABLE": [4.5], "SIMPLE": [2]}
        ),
        ages=False,
    ),
    Case(
        file="mqtt",
        table={
            "zone": "de",
            "topic": "tele/meter/SENSOR",
            "host": "broker.local",
            "value": "SML.Power_curr",
            "positive": "import",
            "time": "Time",
            "timezone": "UTC",
        },
        payload=json.dumps({"Time": NOW.isoformat(), "SML": {"Power_curr": -894, "Total_out": 14737.1}}).encode(),
        over_http=False,
    ),
]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.file}-{c.table.get('series', '')}")
each_http_case = pytest.mark.parametrize("case", [c for c in CASES if c.over_http], ids=lambda c: f"{c.file}-{c.table.get('series', '')}")
each_json_case = pytest.mark.parametrize(
    "case", [c for c in CASES if c.payload[:1] in b"[{"], ids=lambda c: f"{c.file}-{c.table.get('series', '')}"
)
each_text_case = pytest.mark.parametrize(
    "case", [c for c in CASES if c.payload[:1] not in b"[{"], ids=lambda c: f"{c.file}-{c.table.get('series', '')}"
)
SOURCES = sorted(shipped("adapters").joinpath("signals").glob("*.py"))


def made(case: Case) -> Any:
    return adapter(case.file, case.table)


def test_every_shipped_adapter_is_under_contract() -> None:
    assert {path.stem for path in SOURCES} == {case.file for case in CASES}


@each_case
def test_it_says_what_it_gives_where_and_how_often(case: Case) -> None:
    one = made(case)
    assert one.name == case.file
    assert one.zone == "de"
    assert one.every >= timedelta(minutes=1)
    assert one.signals
    assert set(one.signals) <= set(SignalKind)


@each_case
def test_a_misspelt_option_names_the_nearest(case: Case) -> None:
    with pytest.raises(ConfigError, match=f"adapter {case.file}: unknown key 'zonne'; did you mean 'zone'"):
        adapter(case.file, {**case.table, "zonne": "de"})


@each_case
def test_a_missing_zone_is_named(case: Case) -> None:
    with pytest.raises(ConfigError, match="'zone' is missing"):
        adapter(case.file, {key: value for key, value in case.table.items() if key != "zone"})


@each_case
def test_a_good_answer_gives_sorted_distinct_plausible_readings(case: Case) -> None:
    one = made(case)
    batch = one.parse(case.payload, now=NOW)
    assert batch.dropped == ()
    assert {r.signal for r in batch} == set(one.signals)
    for signal in one.signals:
        starts = [r.start for r in batch if r.signal is signal]
        assert starts == sorted(set(starts))
    assert all(r.zone == one.zone and r.known_at <= NOW and plausible(r) is None for r in batch)


@each_case
def test_parsing_again_gives_the_same(case: Case) -> None:
    one = made(case)
    assert one.parse(case.payload, now=NOW) == one.parse(case.payload, now=NOW)


@each_case
@settings(max_examples=40, deadline=None)
@given(noise=st.binary(max_size=200))
def test_any_bytes_give_readings_or_an_adapter_error(case: Case, noise: bytes) -> None:
    attempt(case, noise)


@each_case
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_damaged_answer_gives_readings_or_an_adapter_error(case: Case, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(case.payload)))
    length = data.draw(st.integers(0, 40))
    attempt(case, case.payload[:at] + data.draw(st.binary(max_size=20)) + case.payload[at + length :])


json_values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=8,
)


@each_json_case
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_an_answer_with_a_strange_value_anywhere_gives_readings_or_an_adapter_error(case: Case, data: st.DataObject) -> None:
    document = json.loads(case.payload)
    at = document
    while isinstance(at, dict | list) and at:
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(min(2, len(at)))))
        if not isinstance(at[key], dict | list) or data.draw(st.booleans()):
            at[key] = data.draw(json_values)
            break
        at = at[key]
    attempt(case, json.dumps(document).encode())


@each_text_case
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_an_answer_with_a_strange_word_anywhere_gives_readings_or_an_adapter_error(case: Case, data: st.DataObject) -> None:
    words = list(re.finditer(r"[^<>;\s]+", case.payload.decode()))
    word = words[data.draw(st.integers(0, min(len(words) - 1, 60)))]
    strange = data.draw(st.one_of(st.text(max_size=8), st.integers().map(str), st.floats().map(str), st.datetimes().map(str)))
    attempt(case, (word.string[: word.start()] + strange + word.string[word.end() :]).encode("utf-8", "surrogatepass"))


def attempt(case: Case, payload: bytes) -> None:
    """Anything but readings or an AdapterError fails the test by itself."""
    try:
        batch = made(case).parse(payload, now=NOW)
    except AdapterError:
        return
    assert all(r.known_at <= NOW for r in batch)


@each_http_case
@settings(max_examples=30, deadline=None)
@given(noise=st.binary(max_size=100), status=st.sampled_from([200, 204, 302, 400, 401, 404, 429, 500]))
def test_any_answer_to_any_request_gives_readings_or_an_adapter_error(case: Case, noise: bytes, status: int) -> None:
    try:
        made(case).fetch(FakeHttp(noise, status=status), NOW)
    except AdapterError:
        return
    pytest.fail("noise was taken for data")


@each_http_case
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"body": b""}, "empty"),
        ({"body": b"<!DOCTYPE html><html><body>Wartung</body></html>", "content_type": "text/html"}, "html"),
        ({"body": b"\n<HTML>"}, "html"),
        ({"body": b"{}"}, "malformed"),
        ({"body": b"Service unavailable"}, "malformed"),
        ({"body": b"[" * 100_000}, "malformed"),
        ({"status": 404, "body": b'{"detail": "no content available"}'}, "not_published"),
        ({"status": 204}, "not_published"),
        ({"status": 429}, "rate_limited"),
        ({"status": 401}, "refused"),
        ({"status": 422}, "refused"),
        ({"status": 503, "body": b"maintenance"}, "unavailable"),
    ],
)
def test_a_bad_answer_is_named_by_its_kind(case: Case, answer: dict[str, Any], kind: str) -> None:
    with pytest.raises(AdapterError) as caught:
        made(case).fetch(FakeHttp(**answer, also=case.also), NOW)
    assert caught.value.kind == kind


@each_http_case
def test_a_body_cut_short_is_truncated(case: Case) -> None:
    with pytest.raises(AdapterError) as caught:
        made(case).fetch(FakeHttp(case.payload[: len(case.payload) // 2], also=case.also), NOW)
    assert caught.value.kind == "truncated"


@pytest.mark.parametrize("case", [c for c in CASES if c.over_http and c.ages], ids=lambda c: f"{c.file}-{c.table.get('series', '')}")
def test_yesterdays_answer_is_stale(case: Case) -> None:
    with pytest.raises(AdapterError) as caught:
        made(case).fetch(FakeHttp(case.payload, also=case.also), NOW + timedelta(days=1, hours=4))
    assert caught.value.kind == "stale"


@each_http_case
def test_it_asks_no_more_than_the_bucket_of_its_host_holds(case: Case) -> None:
    one, http = made(case), FakeHttp(case.payload, also=case.also)
    one.fetch(http, NOW)
    assert len(http.asked) <= POLITE.burst
    window = getattr(one, "publishes", None)
    pace = one.every if window is None else min(one.every, window.every)
    assert pace >= len(http.asked) * timedelta(minutes=1) / POLITE.per_minute


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_an_adapter_imports_the_face_and_owns_no_thread_sleep_or_environment(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    assert {name for name in imported if name.startswith("gridsched")} == {"gridsched"}
    assert imported.isdisjoint({"os", "time", "threading", "asyncio", "requests", "httpx", "urllib", "random", "subprocess", "socket"})
    assert len(path.read_text().splitlines()) <= 310
