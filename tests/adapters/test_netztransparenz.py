from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gridsched import AdapterError, Batch, ConfigError, Quality, Response, SignalKind
from tests.adapters.fake_http import FakeHttp
from tests.adapters.load import RECORDED, adapter, recorded
from tests.adapters.payloads import BERLIN
from tests.adapters.payloads_europe import flags, offered, redispatch, spot

TODAY = datetime(2026, 6, 1, tzinfo=BERLIN)
NOON = datetime(2026, 6, 1, 10, tzinfo=UTC)
LONG_AGO = datetime(2015, 1, 1, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
LOGIN: dict[str, Any] = {"zone": "de", "client_id": "me", "client_secret": "s&cret"}


def made(**options: Any) -> Any:
    return adapter("netztransparenz", {**LOGIN, **options})


def parse(payload: bytes, now: datetime = TODAY, **options: Any) -> Batch:
    batch: Batch = made(**options).parse(payload, now=now)
    return batch


def values(batch: Batch) -> list[float]:
    return [r.value for r in batch]


# --- the login


def served(body: bytes, *, lasts_s: object = 3600) -> FakeHttp:
    return FakeHttp(body, also={"/connect/token": f'{{"access_token": "T1", "expires_in": {lasts_s}}}'.encode()})


def test_it_logs_in_and_asks_for_today_and_tomorrow_in_utc() -> None:
    http = served(offered(TODAY, *[["1,5", "0,5"]] * 96))
    batch = made().fetch(http, NOON)
    body = b"grant_type=client_credentials&client_id=me&client_secret=s%26cret"
    assert http.posted == [("https://identity.netztransparenz.de/users/connect/token", body)]
    base = "https://ds.netztransparenz.de/api/v1/data"
    assert http.asked[-1] == (f"{base}/AusgewieseneABSM/2026-05-31T22:00:00/2026-06-02T22:00:00", {})
    assert http.sent_headers == {"Authorization": "Bearer T1"}
    assert len(batch) == 96


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"series": "price"}, "Spotmarktpreise/2026-05-31T22:00:00/2026-06-02T22:00:00"),
        ({"series": "redispatch"}, "redispatch/2026-05-30T22:00:00/2026-06-02T22:00:00"),
        (
            {"series": "negative_price", "surplus_when_negative": 1, "hours": 4},
            "NegativePreise/4/2026-05-30T22:00:00/2026-06-02T22:00:00",
        ),
    ],
)
def test_what_is_reported_afterwards_is_asked_for_since_yesterday(options: dict[str, Any], path: str) -> None:
    http = served(b"nothing")
    with pytest.raises(AdapterError, match="has no column"):
        made(**options).fetch(http, NOON)
    assert http.asked[-1][0].endswith(f"/data/{path}")


@pytest.mark.parametrize(
    ("now", "window"),
    [
        (datetime(2026, 3, 29, 10, tzinfo=UTC), "2026-03-28T23:00:00/2026-03-30T22:00:00"),
        (datetime(2026, 10, 24, 22, 30, tzinfo=UTC), "2026-10-24T22:00:00/2026-10-26T23:00:00"),
    ],
)
def test_german_days_are_asked_for_across_clock_changes(now: datetime, window: str) -> None:
    http = served(b"nothing")
    with pytest.raises(AdapterError):
        made().fetch(http, now)
    assert http.asked[-1][0].endswith(window)


def test_a_token_serves_until_its_last_minute() -> None:
    http, one = served(offered(TODAY, *[["1", "1"]] * 96)), made()
    for minutes, logins in [(0, 1), (58, 1), (59, 2), (100, 2)]:
        one.fetch(http, NOON + timedelta(minutes=minutes))
        assert len(http.posted) == logins


def test_a_token_refused_early_is_forgotten() -> None:
    one = made()
    refusing = FakeHttp(b"", status=401, also={"/connect/token": b'{"access_token": "T1", "expires_in": 3600}'})
    with pytest.raises(AdapterError) as caught:
        one.fetch(refusing, NOON)
    assert caught.value.kind == "refused"
    http = served(offered(TODAY, *[["1", "1"]] * 96))
    one.fetch(http, NOON)
    assert len(http.posted) == 1


@pytest.mark.parametrize("answer", [b"{}", b"[]", b'{"access_token": "T"}', b'{"access_token": 5, "expires_in": 9}', b'{"expires_in": 9}'])
def test_a_login_without_a_token_is_malformed(answer: bytes) -> None:
    with pytest.raises(AdapterError, match="login answered without") as caught:
        made().fetch(FakeHttp(b"", also={"/connect/token": answer}), NOON)
    assert caught.value.kind == "malformed"


def test_a_wrong_secret_is_refused_and_not_told() -> None:
    class Http(FakeHttp):
        def post(self, url: str, *, body: bytes, headers: Any = None) -> Response:
            return Response(status=400, body=b'{"error": "invalid_client"}', headers={}, content_type="application/json")

    with pytest.raises(AdapterError, match="login does not accept") as caught:
        made().fetch(Http(), NOON)
    assert caught.value.kind == "refused"
    assert "s&cret" not in str(caught.value)


# --- offered curtailment


def test_the_regions_are_added_up_or_one_is_taken() -> None:
    payload = offered(TODAY, ["1,500", "840,250"], ["0,000", "-"], ["N.A.", "2"], regions=("H1", "T2"))
    assert values(parse(payload)) == [841.75e6]
    assert values(parse(payload, region="H1")) == [1.5e6, 0.0]
    assert values(parse(payload, region="T2")) == [840.25e6, 2e6]
    assert {r.quality for r in parse(payload)} == {Quality.FORECAST}
    assert {r.signal for r in parse(payload)} == {SignalKind.CURTAILMENT}


def test_an_unknown_region_names_the_columns() -> None:
    with pytest.raises(AdapterError, match=r"has no column T9; it has Datum.*H1, T1"):
        parse(offered(TODAY, ["1", "1"]), region="T9")


def test_the_quarter_hour_that_ends_at_midnight_ends_the_next_day() -> None:
    batch = parse(offered(datetime(2026, 5, 31, 23, 45, tzinfo=UTC), ["1", "1"]), now=LONG_AGO)
    assert (batch.readings[0].start, batch.readings[0].end) == (datetime(2026, 5, 31, 23, 45, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC))


@pytest.mark.parametrize(("day", "slots"), [(datetime(2026, 3, 29, tzinfo=BERLIN), 92), (datetime(2026, 10, 25, tzinfo=BERLIN), 100)])
def test_clock_change_days_are_seamless(day: datetime, slots: int) -> None:
    batch = parse(offered(day, *[["1", "1"]] * slots), now=day)
    assert len(batch) == slots
    assert batch.readings[-1].end == (day + timedelta(days=1)).astimezone(UTC)


def test_a_zone_written_beside_the_time_is_believed_and_an_unknown_one_costs_its_row() -> None:
    payload = offered(TODAY, ["1", "1"], ["2", "2"], ["3", "3"]).decode().splitlines()
    payload[1] = "01.06.2026;CEST;00:00;00:15;x;MW;1;1"
    payload[2] = "2026-06-01;MEZ;00:15;00:30;x;MW;2;2"
    payload[3] = "2026-06-01;EST;00:15;00:30;x;MW;3;3"
    batch = parse("\n".join(payload).encode())
    assert [r.start for r in batch] == [datetime(2026, 5, 31, 22, tzinfo=UTC), datetime(2026, 5, 31, 23, 15, tzinfo=UTC)]
    assert [d.row for d in batch.dropped] == ["line 4"]


def test_a_bad_row_costs_only_itself() -> None:
    lines = offered(TODAY, *[["1", "1"]] * 8).decode().splitlines()
    lines[1] = lines[1].replace("MW;1;1", "MW;viel;1")
    lines[2] = lines[2].replace("31.05.2026", "31.06.2026")
    lines[3] = lines[3].replace(";UTC;22:30", ";UTC;halb elf")
    lines[4] += ";7"
    lines[5] = "not a row"
    batch = parse("\n".join(lines).encode())
    assert values(batch) == [2e6] * 3
    assert [d.row for d in batch.dropped] == ["line 5", "line 6", "line 2", "line 3", "line 4"]


def test_yesterdays_offer_is_stale() -> None:
    with pytest.raises(AdapterError) as caught:
        parse(offered(TODAY - timedelta(days=1), *[["1", "1"]] * 96), now=NOON)
    assert caught.value.kind == "stale"


# --- redispatch


def hour(start: float, end: float) -> tuple[datetime, datetime]:
    return TODAY + timedelta(hours=start), TODAY + timedelta(hours=end)


def test_what_renewable_plants_were_told_to_give_up_is_added_up_per_quarter_hour() -> None:
    payload = redispatch((*hour(0, 0.5), "41"), (*hour(0.25, 0.75), "10,5"))
    assert values(parse(payload, series="redispatch")) == [41e6, 51.5e6, 10.5e6]
    assert {r.quality for r in parse(payload, series="redispatch")} == {Quality.ESTIMATED}


def test_a_measure_counts_for_the_part_of_a_quarter_hour_that_it_lasts() -> None:
    batch = parse(redispatch((*hour(0.1, 0.35), "30")), series="redispatch")
    assert [r.start - TODAY for r in batch] == [timedelta(0), QUARTER]
    assert values(batch) == pytest.approx([18e6, 12e6])


@pytest.mark.parametrize("other", [{"fuel": "Konventionell"}, {"direction": "erhöhen"}, {"fuel": "Sonstiges"}])
def test_other_fuels_and_the_other_direction_are_no_curtailment(other: dict[str, str]) -> None:
    assert values(parse(redispatch((*hour(0, 0.5), "41"), **other), series="redispatch")) == [0.0, 0.0]


def test_a_quarter_hour_that_no_measure_touches_is_unknown_and_so_is_one_with_an_unknown_power() -> None:
    payload = redispatch((*hour(0, 0.25), "41"), (*hour(1, 1.25), "41"), (*hour(1, 1.25), "N.A."), (*hour(2, 2.25), "9"))
    batch = parse(payload, series="redispatch")
    assert [r.start - TODAY for r in batch] == [timedelta(0), timedelta(hours=2)]
    assert batch.dropped == ()


def test_one_operators_measures_can_be_taken_alone() -> None:
    head, *rows = redispatch((*hour(0, 0.25), "41")).splitlines()
    _, *others = redispatch((*hour(0, 0.25), "7"), by="TenneT DE").splitlines()
    payload = b"\n".join([head, *rows, *others])
    assert values(parse(payload, series="redispatch")) == [48e6]
    assert values(parse(payload, series="redispatch", region="TenneT DE")) == [7e6]


def test_a_measure_that_ends_before_it_starts_or_lasts_for_weeks_is_dropped() -> None:
    payload = redispatch((*hour(0, 0.25), "41"), (*hour(2, 1), "41"), (*hour(0, 24 * 30), "41"))
    batch = parse(payload, series="redispatch")
    assert values(batch) == [41e6]
    assert [d.row for d in batch.dropped] == ["line 3", "line 4"]


# --- prices and flags


def test_the_spot_price_is_in_the_unit_that_its_column_names() -> None:
    assert values(parse(spot(TODAY, "-0,5", "5,087"), series="price")) == [-5.0, pytest.approx(50.87)]
    assert values(parse(spot(TODAY, "-0,5", unit="EUR/MWh", form="%Y-%m-%d"), series="price")) == [-0.5]
    with pytest.raises(AdapterError, match="Wh/km") as caught:
        parse(spot(TODAY, "5", unit="Wh/km"), series="price")
    assert caught.value.kind == "wrong_unit"


def test_hours_and_quarter_hours_in_one_answer_keep_their_lengths() -> None:
    payload = spot(TODAY, "1", "2") + b"01.06.2026;00:00;UTC;00:15;UTC;3,0\n"
    assert [r.end - r.start for r in parse(payload, series="price")] == [4 * QUARTER, 4 * QUARTER, QUARTER]


@pytest.mark.parametrize(
    ("payload", "hours", "length"),
    [
        (flags(TODAY, "Ja", "Nein", "N.A.", "ja"), 15, QUARTER),
        (flags(TODAY, "1", "0", "N.E.", "1", minutes=60), 6, 4 * QUARTER),
        (flags(TODAY, "1", "0", "-", "1", minutes=60, column="Stunde4"), 4, 4 * QUARTER),
    ],
)
def test_a_flag_is_worth_what_the_site_says(payload: bytes, hours: int, length: timedelta) -> None:
    batch = parse(payload, series="negative_price", surplus_when_negative=2.5, hours=hours)
    assert values(batch) == [2.5e6, 0.0, 2.5e6]
    assert {(r.signal, r.end - r.start) for r in batch} == {(SignalKind.SURPLUS, length)}


def test_a_strange_flag_costs_only_itself() -> None:
    batch = parse(flags(TODAY, "Ja", "vielleicht"), series="negative_price", surplus_when_negative=1)
    assert values(batch) == [1e6]
    assert [d.row for d in batch.dropped] == ["line 3"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"series": "negative_price"}, "a flag is no signal by itself; give surplus_when_negative"),
        ({"hours": 2}, "hours 2 is none of 1, 3, 4, 6, or 15"),
        ({"series": "ABSM"}, "none of curtailment, redispatch, price, negative_price"),
        ({"client_secret": None}, "client_secret"),
    ],
)
def test_a_wrong_option_is_told_with_the_right_ones(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made(**wrong)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (b"", "malformed"),
        (b"Datum;von\n", "malformed"),
        (b"\xff\xfe", "malformed"),
        (offered(TODAY), "not_published"),
        (offered(TODAY, ["N.A.", "-"]), "not_published"),
        (offered(TODAY, ["1", "1"], unit="MWp"), "wrong_unit"),
        (offered(TODAY, ["1", "1"])[:-4], "truncated"),
    ],
)
def test_what_is_wrong_with_an_answer_is_named(payload: bytes, kind: str) -> None:
    with pytest.raises(AdapterError) as caught:
        parse(payload)
    assert caught.value.kind == kind


# --- recordings


@pytest.mark.parametrize(
    ("name", "options", "start", "expected"),
    [
        ("ausgewiesene_absm.csv", {}, datetime(2024, 9, 30, 22, tzinfo=UTC), [2131.41e6]),
        ("ausgewiesene_absm.csv", {"region": "T1"}, datetime(2024, 9, 30, 22, tzinfo=UTC), [0.0]),
        ("zugeteilte_absm.csv", {}, datetime(2025, 1, 19, 13, tzinfo=UTC), [0.0]),
        ("redispatch.csv", {"series": "redispatch"}, datetime(2024, 12, 31, 23, tzinfo=UTC), [41e6] * 24),
        ("spotmarktpreise.csv", {"series": "price"}, datetime(2024, 12, 31, 23, tzinfo=UTC), [50.87]),
        ("negative_preise.csv", {"hours": 6, "series": "negative_price"}, datetime(2024, 10, 10, 13, tzinfo=UTC), [1e6, 1e6]),
        ("negative_preise_15m.csv", {"series": "negative_price"}, datetime(2024, 1, 1, tzinfo=UTC), [1e6, 0.0]),
        ("negative_preise_1h.csv", {"hours": 1, "series": "negative_price"}, datetime(2024, 1, 1, tzinfo=UTC), [1e6, 0.0]),
    ],
)
def test_recorded_answers_read_whole(name: str, options: dict[str, Any], start: datetime, expected: list[float]) -> None:
    worth = {"surplus_when_negative": 1} if "series" in options else {}
    batch = parse(recorded("api", "netztransparenz", name).read_bytes(), now=LONG_AGO, **options, **worth)
    assert values(batch) == pytest.approx(expected)
    assert (batch.readings[0].start, batch.dropped) == (start, ())


def test_recorded_flags_without_a_value_are_unknown() -> None:
    payload = recorded("api", "netztransparenz", "negative_preise.csv").read_bytes()
    with pytest.raises(AdapterError) as caught:
        parse(payload, now=LONG_AGO, series="negative_price", hours=3, surplus_when_negative=1)
    assert caught.value.kind == "not_published"


RECORDINGS = sorted(path.name for path in RECORDED.joinpath("api", "netztransparenz").glob("*.*"))


@pytest.mark.parametrize("name", RECORDINGS or ["traffic_light.json"])
def test_every_other_recorded_answer_is_refused_by_its_columns(name: str) -> None:
    payload = recorded("api", "netztransparenz", name).read_bytes()
    if name.endswith("_absm.csv"):
        assert len(parse(payload, now=LONG_AGO)) == 1
    else:
        with pytest.raises(AdapterError) as caught:
            parse(payload, now=LONG_AGO)
        assert caught.value.kind == "malformed"
