import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from gridsched import AdapterError, ConfigError
from tests.adapters.fake_http import FakeHttp
from tests.adapters.load import adapter, recorded
from tests.adapters.payloads import BERLIN, tibber, tibber_home

TODAY = datetime(2026, 6, 1, tzinfo=BERLIN)
NOON = datetime(2026, 6, 1, 10, tzinfo=UTC)
TABLE: Mapping[str, object] = {"zone": "de", "token": "T0ken"}
NORWAY = {**TABLE, "currency": "NOK", "eur_per_unit": 0.085}


def test_the_query_says_how_long_a_slot_lasts() -> None:
    http = FakeHttp(tibber(tibber_home(TODAY, [0.1] * 96)))
    batch = adapter("tibber", TABLE).fetch(http, NOON)
    ((url, body),) = http.posted
    assert url == "https://api.tibber.com/v1-beta/gql"
    assert "priceInfo(resolution:QUARTER_HOURLY)" in json.loads(body)["query"]
    assert http.sent_headers["Authorization"] == "Bearer T0ken"
    assert {r.end - r.start for r in batch} == {timedelta(minutes=15)}


def test_the_energy_counts_and_not_the_total() -> None:
    payload = tibber(tibber_home(TODAY, [0.0821, -0.005, 0.0] + [0.1] * 93)).replace(b'"energy"', b'"total": 0.31, "energy"')
    batch = adapter("tibber", TABLE).parse(payload, now=NOON)
    assert [r.value for r in batch][:3] == [pytest.approx(82.1), pytest.approx(-5.0), 0.0]


@pytest.mark.parametrize(("slots", "known"), [(96, 96), (192, 96)])
def test_tomorrow_is_empty_until_it_is_published(slots: int, known: int) -> None:
    batch = adapter("tibber", TABLE).parse(tibber(tibber_home(TODAY, [0.1] * slots, known=known)), now=NOON)
    assert batch.readings[-1].end == (TODAY + timedelta(minutes=15 * slots)).astimezone(UTC)


@pytest.mark.parametrize(("day", "slots"), [(datetime(2026, 3, 29, tzinfo=BERLIN), 92), (datetime(2026, 10, 25, tzinfo=BERLIN), 100)])
def test_clock_change_days_are_seamless(day: datetime, slots: int) -> None:
    batch = adapter("tibber", TABLE).parse(tibber(tibber_home(day, [0.1] * slots, known=slots)), now=day)
    assert len(batch) == slots
    assert all(a.end == b.start for a, b in pairwise(batch.readings))


def test_another_currency_is_changed_at_the_rate_given() -> None:
    batch = adapter("tibber", NORWAY).parse(tibber(tibber_home(TODAY, [1.2] * 96, currency="NOK")), now=NOON)
    assert batch.readings[0].value == pytest.approx(102.0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"currency": "SEK"}, "prices in SEK need eur_per_unit, the euros that one SEK is worth"),
        ({"currency": "SEK", "eur_per_unit": 0}, "prices in SEK need eur_per_unit"),
        ({"resolution": "30m"}, "none of 15m, 1h"),
        ({"timezone": "Oslo"}, "adapter tibber: timezone 'Oslo' is not an IANA name"),
    ],
)
def test_a_wrong_option_is_told_before_anything_runs(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        adapter("tibber", {**TABLE, **wrong})


def test_a_home_with_another_currency_than_declared_is_a_wrong_unit_and_says_what_to_set() -> None:
    with pytest.raises(AdapterError, match='gives prices in NOK, not EUR; set currency = "NOK" and') as caught:
        adapter("tibber", TABLE).parse(tibber(tibber_home(TODAY, [1.2] * 96, currency="NOK")), now=NOON)
    assert caught.value.kind == "wrong_unit"


def test_one_price_in_another_currency_costs_only_itself() -> None:
    payload = tibber(tibber_home(TODAY, [1.2] * 96)).replace(b'"currency": "EUR"', b'"currency": "NOK"', 1)
    batch = adapter("tibber", TABLE).parse(payload, now=NOON)
    assert len(batch) == 95
    assert [d.row for d in batch.dropped] == ["today[0]"]


@pytest.mark.parametrize(("asked", "answered", "step"), [("15m", 60, "1:00:00"), ("1h", 15, "0:15:00")])
def test_slots_of_another_length_than_asked_for_are_refused(asked: str, answered: int, step: str) -> None:
    payload = tibber(tibber_home(TODAY, [0.1] * 24, step=answered))
    with pytest.raises(AdapterError, match=f"in steps of {step}"):
        adapter("tibber", {**TABLE, "resolution": asked}).parse(payload, now=TODAY)


def test_one_home_of_several_is_named() -> None:
    homes = [tibber_home(TODAY, [0.1] * 96), tibber_home(TODAY, [0.2] * 96, home_id="h2"), {"id": "h3", "currentSubscription": None}]
    payload = tibber(*homes)
    batch = adapter("tibber", {**TABLE, "home_id": "h2"}).parse(payload, now=NOON)
    assert batch.readings[0].value == 200.0
    with pytest.raises(AdapterError, match="set home_id to the home that is meant; the token knows h1, h2, h3"):
        adapter("tibber", TABLE).parse(payload, now=NOON)


def test_a_home_without_a_subscription_is_passed_over() -> None:
    payload = tibber({"id": "h0", "currentSubscription": None}, tibber_home(TODAY, [0.1] * 96))
    assert len(adapter("tibber", TABLE).parse(payload, now=NOON)) == 96


def errors(code: str | None) -> bytes:
    return json.dumps({"errors": [{"message": "invalid token", "extensions": {"code": code}}], "data": None}).encode()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (errors("UNAUTHENTICATED"), "refused"),
        (errors("INTERNAL_SERVER_ERROR"), "unavailable"),
        (b'{"errors": ["?"], "data": null}', "unavailable"),
        (b'{"data": null}', "malformed"),
        (tibber(), "refused"),
        (tibber(tibber_home(TODAY, [])), "not_published"),
        (tibber(tibber_home(TODAY, [None] * 96)), "not_published"),
        (tibber(tibber_home(TODAY - timedelta(days=1), [0.1] * 96)), "stale"),
    ],
)
def test_a_success_may_be_a_failure(body: bytes, kind: str) -> None:
    with pytest.raises(AdapterError) as caught:
        adapter("tibber", TABLE).fetch(FakeHttp(body), NOON)
    assert caught.value.kind == kind


@pytest.mark.parametrize(("file", "kind"), [("graphql_gql_error.json", "unavailable"), ("graphql_no_data.json", "malformed")])
def test_recorded_graphql_failures_with_a_good_status_are_failures(file: str, kind: str) -> None:
    payload = recorded("api", "energyzero", file).read_bytes()
    with pytest.raises(AdapterError) as caught:
        adapter("tibber", TABLE).fetch(FakeHttp(payload), NOON)
    assert caught.value.kind == kind


def test_the_recorded_price_reads_without_its_tax() -> None:
    recording = json.loads(recorded("api", "tibber", "tibber-current-price-example.json").read_text())
    home: dict[str, Any] = recording["data"]["viewer"]["homes"][0]
    home["currentSubscription"]["priceInfo"]["today"] = [home["currentSubscription"]["priceInfo"].pop("current")]
    batch = adapter("tibber", {**NORWAY, "resolution": "1h"}).parse(tibber(home), now=datetime(2026, 5, 25, 12, tzinfo=UTC))
    assert [r.value for r in batch] == [pytest.approx(0.7843 * 85)]
