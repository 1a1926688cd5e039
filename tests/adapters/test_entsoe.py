import contextlib
import re
import warnings
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from gridsched import AdapterError, Batch, ConfigError, Quality, Response, SignalKind
from gridsched.providers.session import Limits, Session
from tests.adapters.fake_http import FakeHttp
from tests.adapters.load import RECORDED, adapter, recorded
from tests.adapters.payloads import BERLIN
from tests.adapters.payloads_europe import entsoe, time_series

TODAY = datetime(2026, 6, 1, tzinfo=BERLIN)
NOON = datetime(2026, 6, 1, 10, tzinfo=UTC)
LONG_AGO = datetime(2015, 1, 1, tzinfo=UTC)
QUARTER = timedelta(minutes=15)


def prices(*payloads: bytes, now: datetime = NOON, **options: Any) -> Batch:
    batch: Batch = adapter("entsoe", {"zone": "de", "token": "T", **options}).parse(*payloads, now=now)
    return batch


def forecast(*payloads: bytes, now: datetime = NOON, **options: Any) -> Batch:
    return prices(*payloads, now=now, series="forecast", **options)


def values(batch: Iterable[Any], signal: SignalKind = SignalKind.PRICE) -> list[float]:
    return [r.value for r in batch if r.signal is signal]


def load(*points: Any, **how: Any) -> bytes:
    return entsoe(time_series("load", TODAY, points, **how), document="A65", process="A01")


def wind_and_sun(start: datetime = TODAY, **fuels: Any) -> bytes:
    return entsoe(*(time_series(fuel, start, points) for fuel, points in fuels.items()), document="A69", process="A01")


# --- what is asked


class Answers(FakeHttp):
    """Each document type with its own answer."""

    def __init__(self, **by_type: bytes) -> None:
        super().__init__()
        self.by_type = by_type

    def get(self, url: str, *, params: Any = None, headers: Any = None) -> Response:
        self.asked.append((url, dict(params)))
        return Response(status=200, body=self.by_type[params["documentType"]], headers={}, content_type="text/xml")


@pytest.mark.parametrize(
    ("now", "start", "end", "slots"),
    [
        (NOON, "202605312200", "202606022200", 192),
        (datetime(2026, 3, 29, 10, tzinfo=UTC), "202603282300", "202603302200", 188),
        (datetime(2026, 10, 24, 22, 30, tzinfo=UTC), "202610242200", "202610262300", 196),
    ],
)
def test_whole_market_days_are_asked_for_in_utc(now: datetime, start: str, end: str, slots: int) -> None:
    first = datetime.strptime(start, "%Y%m%d%H%M").replace(tzinfo=UTC)
    http = Answers(A44=entsoe(time_series("price", first, {1: 5.0}, slots=slots)))
    batch = adapter("entsoe", {"zone": "de", "token": "T"}).fetch(http, now)
    asked = {
        "securityToken": "T",
        "documentType": "A44",
        "contract_MarketAgreement.type": "A01",
        "in_Domain": "10Y1001A1001A82H",
        "out_Domain": "10Y1001A1001A82H",
        "periodStart": start,
        "periodEnd": end,
    }
    assert http.asked == [("https://web-api.tp.entsoe.eu/api", asked)]
    assert len(batch) == slots


def test_a_forecast_is_load_less_wind_and_sun_asked_for_in_two_documents() -> None:
    http = Answers(A65=load(60_000, 50_000), A69=wind_and_sun(B16=[10_000, 40_000], B18=[0, 6_000], B19=[5_000, 9_000]))
    batch = adapter("entsoe", {"zone": "de", "token": "T", "series": "forecast"}).fetch(http, TODAY)
    assert values(batch, SignalKind.RESIDUAL_LOAD) == [45e9, -5e9]
    assert values(batch, SignalKind.RENEWABLE_SHARE) == [0.25, 1.0]
    assert {r.quality for r in batch} == {Quality.FORECAST}
    asked = [{key: params[key] for key in params if key not in ("securityToken", "periodStart", "periodEnd")} for _, params in http.asked]
    assert asked == [
        {"documentType": "A65", "processType": "A01", "outBiddingZone_Domain": "10Y1001A1001A82H"},
        {"documentType": "A69", "processType": "A01", "in_Domain": "10Y1001A1001A82H"},
    ]


def test_what_was_measured_is_asked_for_yesterday_and_today_and_leaves_other_fuels_and_own_use_out() -> None:
    market: dict[str, Any] = {"market": "10YFR-RTE------C"}
    own_use = time_series("B16", TODAY, [700], **market).replace("inBiddingZone", "outBiddingZone")
    fuels = [time_series(fuel, TODAY, [1_000], **market) for fuel in ("B16", "B19", "B14")]
    http = Answers(
        A65=entsoe(time_series("load", TODAY, [8_000], **market), document="A65", process="A16"),
        A75=entsoe(own_use, *fuels, document="A75", process="A16"),
    )
    batch = adapter("entsoe", {"zone": "fr", "token": "T", "series": "actual", "market": "FR"}).fetch(http, TODAY)
    assert [params["periodStart"] for _, params in http.asked] == 2 * ["202605302200"]
    assert values(batch, SignalKind.RESIDUAL_LOAD) == [6e9]
    assert {r.quality for r in batch} == {Quality.MEASURED}


# --- curve type A03


def test_under_a03_an_omitted_point_repeats_the_one_before_up_to_the_end_of_the_interval() -> None:
    batch = prices(entsoe(time_series("price", TODAY, {1: -3.0, 4: 9.5, 2: 0}, slots=92)))
    assert values(batch) == [-3.0, 0.0, 0.0, *[9.5] * 89]
    assert batch.readings[-1].end == (TODAY + timedelta(hours=23)).astimezone(UTC)


def test_under_a01_an_omitted_point_is_unknown() -> None:
    batch = prices(entsoe(time_series("price", TODAY, {1: 1.0, 40: 4.0, 96: 9.0}, slots=96, curve="A01")))
    assert values(batch) == [1.0, 4.0, 9.0]


def test_what_comes_before_the_first_point_is_unknown_and_a_point_without_value_is_not_repeated_over() -> None:
    batch = prices(entsoe(time_series("price", TODAY, {3: 1.0, 5: "", 60: 7.0}, slots=96)), now=TODAY)
    assert values(batch) == [1.0, 1.0, *[7.0] * 37]
    batch = prices(entsoe(time_series("price", TODAY, {1: 1.0, 5: "N/A", 60: "x"}, slots=96)), now=TODAY)
    assert values(batch) == [1.0] * 4
    assert len(batch.dropped) == 37


@pytest.mark.parametrize("change", [("<position>2<", "<position>two<"), ("<position>2<", "<position><"), ("PT15M", "P1D"), ("T22:00Z", "")])
def test_a_period_that_cannot_be_placed_is_dropped_whole_rather_than_padded(change: tuple[str, str]) -> None:
    bad = time_series("price", TODAY, [1.0, 2.0, 3.0, 4.0])
    good = time_series("price", TODAY + timedelta(days=1), [5.0] * 96)
    batch = prices(entsoe(bad.replace(*change), good))
    assert values(batch) == [5.0] * 96
    assert [d.row for d in batch.dropped] == ["TimeSeries 1 Period 1"]


def test_a_position_beyond_the_period_costs_only_itself() -> None:
    batch = prices(entsoe(time_series("price", TODAY, {1: 1.0, 97: 3.0, 0: 4.0}, slots=96)))
    assert values(batch) == [1.0] * 96
    assert [d.reason for d in batch.dropped] == ["position 97 lies outside 1..96", "position 0 lies outside 1..96"]


def test_the_same_slot_twice_with_another_value_keeps_the_first_and_says_so() -> None:
    batch = prices(entsoe(time_series("price", TODAY, [1.0] * 96), time_series("price", TODAY, [1.0] * 95 + [8.0])))
    assert values(batch) == [1.0] * 96
    assert [d.row for d in batch.dropped] == ["TimeSeries 2 Period 1 position 96"]


def test_a_period_that_lasts_for_centuries_fills_no_memory() -> None:
    ages = time_series("price", TODAY, {1: 1.0}, slots=4).replace("<end>2026", "<end>9026")
    with pytest.raises(AdapterError) as caught:
        prices(entsoe(ages))
    assert caught.value.kind == "not_published"
    long = time_series("price", TODAY, {1: 1.0}, slots=60_000)
    with pytest.raises(AdapterError) as caught:
        prices(entsoe(long, long))
    assert caught.value.kind == "too_large"


# --- resolutions, auctions, days


def test_of_hours_and_quarter_hours_of_one_day_the_finer_win_and_the_hours_keep_the_rest() -> None:
    hours = time_series("price", TODAY, [float(hour) for hour in range(24)], resolution="PT60M")
    quarters = time_series("price", TODAY, {1: 100.0}, slots=90)
    batch = prices(entsoe(hours, quarters))
    assert batch.readings == prices(entsoe(quarters, hours)).readings
    assert values(batch) == [100.0] * 90 + [22.0] * 2 + [23.0]
    assert all(a.end == b.start for a, b in pairwise(batch.readings))
    assert batch.readings[-1].end - batch.readings[-1].start == timedelta(hours=1)


def test_the_order_of_time_series_does_not_matter() -> None:
    parts = [time_series("price", TODAY + timedelta(hours=at), [float(at)] * 4) for at in range(24)]
    assert prices(entsoe(*parts)).readings == prices(entsoe(*reversed(parts))).readings


def test_only_the_day_ahead_auction_counts_never_the_second_one() -> None:
    both = [time_series("price", TODAY, [value] * 96, sequence=sequence) for sequence, value in ((2, 7.0), (1, 5.0))]
    tomorrow_second = time_series("price", TODAY + timedelta(days=1), [7.0] * 96, sequence=2)
    assert values(prices(entsoe(*both, tomorrow_second))) == [5.0] * 96


def test_only_the_second_auction_is_not_published() -> None:
    with pytest.raises(AdapterError, match="only auction sequence 2 yet, not 1") as caught:
        prices(entsoe(time_series("price", TODAY, [7.0] * 96, sequence=2)))
    assert caught.value.kind == "not_published"


@pytest.mark.parametrize(("day", "slots"), [(datetime(2026, 3, 29, tzinfo=BERLIN), 92), (datetime(2026, 10, 25, tzinfo=BERLIN), 100)])
def test_clock_change_days_are_seamless(day: datetime, slots: int) -> None:
    batch = prices(entsoe(time_series("price", day, {1: 1.0, 9: 2.0}, slots=slots)), now=day)
    assert len(batch) == slots
    assert batch.readings[-1].end == (day + timedelta(days=1)).astimezone(UTC)


# --- balance


def test_a_slot_without_load_or_any_kind_of_generation_is_unknown() -> None:
    fuels: dict[str, list[float | None]] = {"B16": [1.0] * 4, "B18": [1.0, None, None, 1.0], "B19": [1.0] * 4}
    day_ahead = entsoe(*(time_series(f, TODAY, p, slots=4, curve="A01") for f, p in fuels.items()), document="A69", process="A01")
    batch = forecast(load(10, 10, 10), day_ahead, now=TODAY)
    assert [r.start for r in batch if r.signal is SignalKind.RESIDUAL_LOAD] == [TODAY.astimezone(UTC)]


def test_a_kind_of_generation_missing_altogether_is_not_taken_for_zero() -> None:
    with pytest.raises(AdapterError, match="entsoe/forecast has no wind_offshore yet") as caught:
        forecast(load(10), wind_and_sun(B16=[1], B19=[1]), now=TODAY)
    assert caught.value.kind == "not_published"


def test_a_market_without_sun_says_what_it_has() -> None:
    market: dict[str, Any] = {"market": "10YNO-1--------2"}
    demand = entsoe(time_series("load", TODAY, [4], **market), document="A65", process="A01")
    wind = entsoe(time_series("B19", TODAY, [1], **market), document="A69", process="A01")
    batch = forecast(demand, wind, now=TODAY, market="10YNO-1--------2", needs=["wind_onshore"])
    assert values(batch, SignalKind.RENEWABLE_SHARE) == [0.25]


def test_hourly_load_and_quarter_hourly_sun_meet_at_quarter_hours() -> None:
    batch = forecast(load(10, resolution="PT60M"), wind_and_sun(B16=[0, 2, 4, 8], B18=[0] * 4, B19=[0] * 4), now=TODAY)
    assert values(batch, SignalKind.RENEWABLE_SHARE) == [0.0, 0.2, 0.4, 0.8]
    assert {r.end - r.start for r in batch} == {QUARTER}


def test_more_wind_than_load_is_a_share_of_one_and_no_load_has_no_share() -> None:
    batch = forecast(load(10, 0), wind_and_sun(B16=[5, 5], B18=[5, 5], B19=[5, 5]), now=TODAY)
    assert values(batch, SignalKind.RENEWABLE_SHARE) == [1.0]
    assert values(batch, SignalKind.RESIDUAL_LOAD) == [-5e6, -15e6]


# --- answers that are none


ACKNOWLEDGED = """<Acknowledgement_MarketDocument xmlns="urn:invented">
<Reason><code>{}</code><text>{}</text></Reason></Acknowledgement_MarketDocument>"""


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        ("999", "No matching data found for Data item Day-ahead Prices", "not_published"),
        ("B11", "Requested data is not available", "not_published"),
        ("999", "The number of instances (400) exceeds the allowed maximum (200)", "refused"),
        ("999", "Input parameter does not exist: foo", "refused"),
    ],
)
def test_an_acknowledgement_says_why_there_is_nothing(status: int, code: str, text: str, kind: str) -> None:
    http = FakeHttp(ACKNOWLEDGED.format(code, text).encode(), status=status)
    with pytest.raises(AdapterError) as caught:
        adapter("entsoe", {"zone": "de", "token": "T"}).fetch(http, NOON)
    assert caught.value.kind == kind
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b"<html><head></head><body>Bad Request</body></html>", "refused"),
        (200, b"<html><head></head><body>Bad Request</body></html>", "html"),
        (200, b"<?xml version='1.0'?><html xmlns='x'/>", "malformed"),
        (404, b"404 page not found\n", "unavailable"),
        (503, b"Service Temporarily Unavailable\n\nScheduled maintenance is currently underway.", "unavailable"),
        (401, ACKNOWLEDGED.format("999", "Unauthorized. Missing or invalid security token!").encode(), "refused"),
    ],
)
def test_what_is_no_document_is_named(status: int, body: bytes, kind: str) -> None:
    with pytest.raises(AdapterError) as caught:
        adapter("entsoe", {"zone": "de", "token": "T"}).fetch(FakeHttp(body, status=status), NOON)
    assert caught.value.kind == kind


BILLION_LAUGHS = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;">]>'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-7", "cp037"])
def test_entities_are_refused_in_every_encoding(encoding: str) -> None:
    document = entsoe(time_series("price", TODAY, ["&c;"] * 96)).decode().replace("?>", f"?>{BILLION_LAUGHS}", 1)
    with pytest.raises(AdapterError) as caught:
        prices(document.replace("utf-8", encoding).encode(encoding))
    assert caught.value.kind == "malformed"
    assert "&" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (("MWH", "KWX"), "wrong_unit"),
        (("<currency_Unit.name>EUR", "<currency_Unit.name>BGN"), "wrong_unit"),
        (("10Y1001A1001A82H", "10YAT-APG------L"), "malformed"),
        (("<type>A44", "<type>A65"), "malformed"),
        (("<TimeSeries>", "<Timeseries><TimeSeries>"), "malformed"),
        (("TimeSeries>", "Unknown>"), "not_published"),
    ],
)
def test_what_is_wrong_with_a_document_is_named(change: tuple[str, str], kind: str) -> None:
    with pytest.raises(AdapterError) as caught:
        prices(entsoe(time_series("price", TODAY, [1.0] * 96)).decode().replace(*change).encode())
    assert caught.value.kind == kind


def test_what_was_measured_is_not_taken_for_a_forecast() -> None:
    measured = entsoe(time_series("load", TODAY, [1]), document="A65", process="A16")
    with pytest.raises(AdapterError, match=r"answered with document and process \('A65', 'A16'\), not with forecast"):
        forecast(measured, wind_and_sun(B16=[1]), now=TODAY)


def test_a_byte_order_mark_and_white_space_before_the_document_are_nothing() -> None:
    assert len(prices("\ufeff\n ".encode() + entsoe(time_series("price", TODAY, [1.0] * 96)))) == 96


def test_the_key_in_the_query_stays_out_of_errors() -> None:
    session = Session(monotonic=lambda: 0.0, sleep=lambda _: None, now=lambda: NOON, limits=Limits(attempts=1))
    with pytest.raises(AdapterError, match="cannot be reached") as caught:
        adapter("entsoe", {"zone": "de", "token": "K3Y", "url": "http://127.0.0.1:1/api"}).fetch(session, NOON)
    session.close()
    assert "K3Y" not in str(caught.value)
    assert "Connection refused" in str(caught.value)


def test_yesterdays_prices_are_stale_although_the_document_was_made_just_now() -> None:
    payload = entsoe(time_series("price", TODAY - timedelta(days=1), [1.0] * 96))
    assert b"<createdDateTime>2026-06-01" in payload
    with pytest.raises(AdapterError) as caught:
        prices(payload)
    assert caught.value.kind == "stale"


def test_every_reading_is_known_since_we_fetched_it() -> None:
    assert {r.known_at for r in prices(entsoe(time_series("price", TODAY, [1.0] * 96)))} == {NOON}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"market": "DELU"}, "market 'DELU' is no EIC of 16 characters and none of AT, BE, DE"),
        ({"timezone": "Berlin"}, "timezone 'Berlin'"),
        ({"needs": ["sun"]}, "needs: sun is none of solar"),
        ({"series": "prices"}, "none of price, forecast, actual"),
    ],
)
def test_a_wrong_option_is_told_with_the_right_ones(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        adapter("entsoe", {"zone": "de", "token": "T", **wrong})
    assert said in str(caught.value)


# --- recordings


def recording(name: str) -> tuple[bytes, str]:
    """A recorded answer and the EIC it is about."""
    payload = recorded("api", "entsoe", name).read_bytes()
    place = re.search(rb"(?:in|inBiddingZone|outBiddingZone)_Domain.mRID[^>]*>([^<]+)", payload)
    assert place is not None
    return payload, place[1].decode()


def priced(name: str, now: datetime = LONG_AGO) -> Batch:
    payload, market = recording(name)
    return prices(payload, now=now, market=market)


@pytest.mark.parametrize(
    ("name", "slots", "hours"),
    [
        ("ES_day_ahead_price.xml", 240, 96),
        ("FR_prices.xml", 48, 48),
        ("jaccor_BE_60M.xml", 24, 24),
        ("jaccor_DE_60M_15M_overlap.xml", 48, 48),
        ("openems_2025-01-18_PT15M_and_PT60M_overlap.xml", 93, 24),
        ("openems_DE-LU_2025-10-15_partial_seq1.xml", 96, 24),
        ("openems_DE-LU_2025-10-15_seq1_PT15M.xml", 192, 48),
        ("openems_DE-LU_2025-10-15_seq1_and_seq2.xml", 192, 48),
        ("eta_Price_sample.xml", 288, 72),
    ],
)
def test_recorded_prices_are_whole_and_seamless(name: str, slots: int, hours: int) -> None:
    batch = priced(name)
    assert (len(batch), batch.dropped) == (slots, ())
    assert all(a.end == b.start for a, b in pairwise(batch.readings))
    assert batch.readings[-1].end - batch.readings[0].start == timedelta(hours=hours)


def test_the_recorded_switch_to_quarter_hours_happens_inside_one_answer() -> None:
    lengths = [r.end - r.start for r in priced("ES_day_ahead_price.xml")]
    assert lengths == [timedelta(hours=1)] * 48 + [QUARTER] * 192


def test_the_recorded_second_auction_changes_nothing() -> None:
    alone, both = (priced(f"openems_DE-LU_2025-10-15_{which}.xml") for which in ("seq1_PT15M", "seq1_and_seq2"))
    assert values(alone) == values(both)


def test_a_recorded_day_of_which_only_the_second_auction_is_out_is_stale_not_replaced() -> None:
    with pytest.raises(AdapterError) as caught:
        priced("openems_DE-LU_2025-10-15_partial_seq1.xml", now=datetime(2025, 10, 16, 8, tzinfo=UTC))
    assert caught.value.kind == "stale"


def test_a_recorded_answer_with_unsorted_positions_is_padded_in_order() -> None:
    batch = priced("jaccor_BE_15M_avg.xml")
    expected = [55.35, 40.32, 31.86, 28.71, *[44.22] * 6, *[28.37] * 10, 64.98, 64.98]
    assert values(batch) == expected
    assert [d.reason for d in batch.dropped] == ["position 3 lies outside 1..2"]


@pytest.mark.parametrize(("name", "value"), [("fake_time_series_all_0.xml", 0.0), ("fake_time_series.xml", None)])
def test_a_recorded_series_of_which_most_points_are_omitted_is_filled(name: str, value: float | None) -> None:
    fragment = recorded("api", "entsoe", name).read_text(encoding="utf-8")
    market = re.search("inBiddingZone_Domain.mRID[^>]*>([^<]+)", fragment)
    assert market is not None
    fuel = re.sub("<psrType>.*?<", "<psrType>B19<", re.sub(r"<\?.*?\?>", "", fragment))
    start, end = (datetime.fromisoformat(text) for text in re.findall(r"<(?:start|end)>([^<]+)", fragment)[:2])
    hours = int((end - start) / timedelta(hours=1))
    demand = entsoe(time_series("load", start, {1: 1000}, slots=hours, resolution="PT60M", market=market[1]), document="A65", process="A16")
    generation = entsoe(fuel, document="A75", process="A16")
    batch = prices(demand, generation, now=LONG_AGO, series="actual", market=market[1], needs=["wind_onshore"])
    residual = values(batch, SignalKind.RESIDUAL_LOAD)
    assert len(residual) == hours == 71
    assert value is None or residual == [(1000 - value) * 1e6] * 71


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("krose_no_data.xml", "not_published"),
        ("krose_not_available.xml", "not_published"),
        ("hexagon_invalid.xml", "not_published"),
        ("krose_offset_response.xml", "refused"),
        ("krose_bad_request.xml", "html"),
        ("error_404_body.txt", "malformed"),
        ("error_503_body.txt", "malformed"),
        ("hexagon_publication.a03curvetype.xml", "malformed"),
        ("SE-SE3_generation_forecast.xml", "malformed"),
    ],
)
def test_a_recorded_answer_without_prices_is_named(name: str, kind: str) -> None:
    with pytest.raises(AdapterError) as caught:
        prices(recorded("api", "entsoe", name).read_bytes())
    assert caught.value.kind == kind


# --- against entsoe-py, which reads the same documents with other means


def entsoe_py(function: str, payload: bytes, **how: Any) -> Any:
    """What its parser makes of the document; it warns of its own ways with XML and with pandas."""
    parsers = pytest.importorskip("entsoe.parsers")
    with warnings.catch_warnings(action="ignore"):
        return getattr(parsers, function)(payload.decode(), **how)


ONE_AUCTION = ("ES_day_ahead_price.xml", "FR_prices.xml", "jaccor_BE_60M.xml", "openems_DE-LU_2025-10-15_seq1_PT15M.xml")


@pytest.mark.parametrize("name", ONE_AUCTION)
def test_recorded_prices_are_those_that_entsoe_py_reads(name: str) -> None:
    payload, _ = recording(name)
    oracle = entsoe_py("parse_prices", payload)
    read = {at.to_pydatetime().astimezone(UTC): value for series in oracle.values() for at, value in series.items()}
    assert {r.start: r.value for r in priced(name)} == pytest.approx(read)


@pytest.mark.parametrize(
    ("name", "fuels"),
    [
        ("wind_solar_forecast_FI_DAY_AHEAD.xml", {"B16": "Solar", "B19": "Wind Onshore"}),
        ("pyiso_de_gen_20171029.xml", {"B16": "Solar", "B18": "Wind Offshore", "B19": "Wind Onshore"}),
        ("SE-SE4_production.xml", {"B16": "Solar", "B19": "Wind Onshore"}),
    ],
)
def test_recorded_generation_is_what_entsoe_py_reads(name: str, fuels: dict[str, str]) -> None:
    payload, market = recording(name)
    document, process = (re.search(f"<{tag}>(.*?)<", payload.decode()) for tag in ("type", "process.processType"))
    assert document is not None
    assert process is not None
    table = entsoe_py("parse_generation", payload)
    if getattr(table.columns, "nlevels", 1) > 1:
        table = table.xs("Actual Aggregated", axis=1, level=1)
    table = table[list(fuels.values())].dropna()
    start, end = table.index[0].to_pydatetime(), table.index[-1].to_pydatetime()
    hours = int((end - start) / timedelta(hours=1)) + 1
    flat = time_series("load", start, {1: 100_000}, slots=hours, resolution="PT60M", market=market)
    demand = entsoe(flat, document="A65", process=process[1])
    series = "forecast" if process[1] == "A01" else "actual"
    batch = prices(demand, payload, now=LONG_AGO, series=series, market=market)
    ours = {r.start: 1e5 - r.value / 1e6 for r in batch if r.signal is SignalKind.RESIDUAL_LOAD}
    theirs = {at.to_pydatetime().astimezone(UTC): total for at, total in table.sum(axis=1).items()}
    assert len(theirs) > 4
    assert {at: ours[at] for at in theirs} == pytest.approx(theirs)


@pytest.mark.parametrize("name", ["DK-DK2_consumption_forecast.xml", "pyiso_de_load.xml"])
def test_recorded_load_is_what_entsoe_py_reads(name: str) -> None:
    payload, market = recording(name)
    process = "A01" if "forecast" in name else "A16"
    table = entsoe_py("parse_loads", payload, process_type=process)
    theirs = {at.to_pydatetime().astimezone(UTC): value for at, value in table.iloc[:, 0].items()}
    start, hours = min(theirs), int((max(theirs) - min(theirs)) / timedelta(hours=1)) + 1
    calm = time_series("B19", start, {1: 0}, slots=hours, resolution="PT60M", market=market)
    generation = entsoe(calm, document="A69" if process == "A01" else "A75", process=process)
    series = "forecast" if process == "A01" else "actual"
    batch = prices(payload, generation, now=LONG_AGO, series=series, market=market, needs=["wind_onshore"])
    assert {r.start: r.value / 1e6 for r in batch if r.signal is SignalKind.RESIDUAL_LOAD} == pytest.approx(theirs)


def test_the_short_names_mean_what_they_mean_to_entsoe_py() -> None:
    area = pytest.importorskip("entsoe.mappings").Area
    made = {name: adapter("entsoe", {"zone": "z", "token": "T", "market": name}).options.market for name in SHORT_NAMES}
    assert made == {name: area[re.sub(r"DK(\d)", r"DK_\1", name).replace("-", "_")].value for name in SHORT_NAMES}


SHORT_NAMES = ("AT", "BE", "DE", "DE-LU", "DK1", "DK2", "ES", "FI", "FR", "NL")


def test_every_recorded_answer_gives_readings_or_an_adapter_error() -> None:
    for path in sorted(recorded("api", "entsoe").iterdir()):
        for series in ("price", "forecast", "actual"):
            with contextlib.suppress(AdapterError):
                prices(path.read_bytes(), now=LONG_AGO, series=series)
    assert RECORDED.is_dir()
