import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from gridsched import AdapterError, ConfigError, Quality, Response
from tests.adapters.fake_http import FakeHttp
from tests.adapters.load import adapter, recorded
from tests.adapters.payloads import BERLIN, nordpool

TODAY = datetime(2026, 6, 1, tzinfo=BERLIN)
NOON = datetime(2026, 6, 1, 10, tzinfo=UTC)
TABLE: Mapping[str, object] = {"zone": "se3", "area": "SE3"}


class ByDay(FakeHttp):
    """Answers by the date asked for, and 204 for any other."""

    def __init__(self, **days: bytes) -> None:
        super().__init__()
        self.days = {name.removeprefix("d").replace("_", "-"): body for name, body in days.items()}

    def get(self, url: str, *, params: Mapping[str, str | int] | None = None, headers: Mapping[str, str] | None = None) -> Response:
        body = self.days.get(str((params or {}).get("date")), b"")
        self.body, self.status = body, 200 if body else 204
        return super().get(url, params=params, headers=headers)


def test_today_and_tomorrow_of_the_market_day_are_asked_for_in_euros() -> None:
    http = ByDay(d2026_06_01=nordpool(TODAY, [1.0] * 96), d2026_06_02=nordpool(TODAY + timedelta(days=1), [-2.0] * 96))
    batch = adapter("nordpool", TABLE).fetch(http, datetime(2026, 5, 31, 22, 30, tzinfo=UTC))
    assert [params["date"] for _, params in http.asked] == ["2026-06-01", "2026-06-02"]
    expected = {"date": "2026-06-01", "market": "DayAhead", "deliveryArea": "SE3", "currency": "EUR"}
    assert http.asked[0] == ("https://dataportal-api.nordpoolgroup.com/api/DayAheadPrices", expected)
    assert (len(batch), batch.readings[-1].value) == (192, -2.0)
    assert all(a.end == b.start for a, b in pairwise(batch.readings))


def test_a_tomorrow_that_is_not_published_costs_nothing_but_itself() -> None:
    batch = adapter("nordpool", TABLE).fetch(ByDay(d2026_06_01=nordpool(TODAY, [1.0] * 96)), NOON)
    assert batch.readings[-1].end == (TODAY + timedelta(days=1)).astimezone(UTC)


def test_today_again_in_the_place_of_tomorrow_adds_nothing() -> None:
    today = nordpool(TODAY, [1.0] * 96)
    assert len(adapter("nordpool", TABLE).fetch(ByDay(d2026_06_01=today, d2026_06_02=today), NOON)) == 96


def test_a_today_that_is_not_published_is_a_failure() -> None:
    with pytest.raises(AdapterError, match="has not published this") as caught:
        adapter("nordpool", TABLE).fetch(ByDay(), NOON)
    assert caught.value.kind == "not_published"


def test_trouble_with_tomorrow_is_not_taken_for_an_unpublished_day() -> None:
    http = ByDay(d2026_06_01=nordpool(TODAY, [1.0] * 96), d2026_06_02=b"<html>blocked</html>")
    with pytest.raises(AdapterError) as caught:
        adapter("nordpool", TABLE).fetch(http, NOON)
    assert caught.value.kind == "html"


@pytest.mark.parametrize(("day", "slots"), [(datetime(2026, 3, 29, tzinfo=BERLIN), 92), (datetime(2026, 10, 25, tzinfo=BERLIN), 100)])
def test_clock_change_days_are_seamless(day: datetime, slots: int) -> None:
    batch = adapter("nordpool", TABLE).parse(nordpool(day, [1.0] * slots), now=day)
    assert len(batch) == slots
    assert batch.readings[-1].end == (day + timedelta(days=1)).astimezone(UTC)


@pytest.mark.parametrize(("state", "quality"), [("Final", "measured"), ("Preliminary", "estimated")])
def test_a_preliminary_price_is_estimated(state: str, quality: str) -> None:
    batch = adapter("nordpool", TABLE).parse(nordpool(TODAY, [1.0] * 96, state=state), now=NOON)
    assert {r.quality.value for r in batch} == {quality}


def test_a_slot_of_another_length_costs_only_itself() -> None:
    document = json.loads(nordpool(TODAY, [1.0] * 96))
    document["multiAreaEntries"][0]["deliveryEnd"] = "2026-06-01T22:00:00Z"
    batch = adapter("nordpool", TABLE).parse(json.dumps(document).encode(), now=NOON)
    assert len(batch) == 95
    assert [d.row for d in batch.dropped] == ["multiAreaEntries[0]"]


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (nordpool(TODAY, [1.0] * 96, currency="SEK"), "wrong_unit"),
        (nordpool(TODAY, [1.0] * 96, area="SE4"), "not_published"),
        (nordpool(TODAY, [None] * 96), "not_published"),
        (nordpool(TODAY, []), "not_published"),
        (nordpool(TODAY - timedelta(days=1), [1.0] * 96), "stale"),
        (b'{"multiIndexEntries": []}', "malformed"),
        (b"[]", "malformed"),
    ],
)
def test_what_is_wrong_with_an_answer_is_named(payload: bytes, kind: str) -> None:
    with pytest.raises(AdapterError) as caught:
        adapter("nordpool", TABLE).parse(payload, now=NOON)
    assert caught.value.kind == kind


def test_an_empty_area_is_told_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match="area is empty"):
        adapter("nordpool", {"zone": "se3", "area": ""})


def test_a_recorded_day_reads_whole() -> None:
    payload = recorded("api", "nordpool", "pynordpool_delivery_period.json").read_bytes()
    batch = adapter("nordpool", TABLE).parse(payload, now=datetime(2024, 11, 5, 9, tzinfo=UTC))
    assert (len(batch), batch.dropped) == (24, ())
    assert all(a.end == b.start for a, b in pairwise(batch.readings))
    assert sum(r.value for r in batch) / 24 == pytest.approx(77.38, abs=0.01)  # the average the answer gives itself
    assert {r.quality for r in batch} == {Quality.MEASURED}


def test_a_recorded_answer_in_another_shape_is_refused() -> None:
    for name in ("ha_indices_60.json", "se_current_day_price.json"):
        with pytest.raises(AdapterError, match="without multiAreaEntries"):
            adapter("nordpool", TABLE).parse(recorded("api", "nordpool", name).read_bytes(), now=NOON)
