from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from gridsched import AdapterError, ConfigError, Response
from tests.adapters.fake_http import FakeHttp
from tests.adapters.load import adapter, recorded
from tests.adapters.payloads import BERLIN, energyzero

TODAY = datetime(2026, 6, 1, tzinfo=BERLIN)
NOON = datetime(2026, 6, 1, 10, tzinfo=UTC)
TABLE = {"zone": "nl"}


class InTurn(FakeHttp):
    """Answers in turn, and 404 afterwards."""

    def __init__(self, *answers: bytes) -> None:
        super().__init__()
        self.answers = list(answers)

    def get(self, url: str, *, params: Mapping[str, str | int] | None = None, headers: Mapping[str, str] | None = None) -> Response:
        self.status, self.body = (200, self.answers.pop(0)) if self.answers else (404, b'{"code": 5, "message": "not found"}')
        return super().get(url, params=params, headers=headers)


def test_a_price_in_text_in_euros_for_a_kilowatt_hour() -> None:
    http = InTurn(energyzero(TODAY, ["0.077495", "-0.0021", "0"] + ["0.1"] * 93))
    batch = adapter("energyzero", TABLE).fetch(http, NOON)
    assert [r.value for r in batch][:3] == [pytest.approx(77.495), pytest.approx(-2.1), 0.0]
    expected = {"energyType": "ENERGY_TYPE_ELECTRICITY", "date": "01-06-2026", "interval": "INTERVAL_QUARTER"}
    assert http.asked[0] == ("https://public.api.energyzero.nl/public/v1/prices", expected)
    assert [params["date"] for _, params in http.asked] == ["01-06-2026", "02-06-2026"]


def test_by_the_hour_where_the_contract_is() -> None:
    http = InTurn(energyzero(TODAY, ["0.1"] * 48, step=60))
    batch = adapter("energyzero", {**TABLE, "interval": "hour"}).fetch(http, NOON)
    assert (len(batch), http.asked[0][1]["interval"]) == (48, "INTERVAL_HOUR")


def test_an_answer_wider_than_asked_for_saves_the_second_question() -> None:
    http = InTurn(energyzero(TODAY - timedelta(days=1), ["0.1"] * 96 * 3))
    assert len(adapter("energyzero", TABLE).fetch(http, NOON)) == 288
    assert len(http.asked) == 1


@pytest.mark.parametrize(("day", "slots"), [(datetime(2026, 3, 29, tzinfo=BERLIN), 92), (datetime(2026, 10, 25, tzinfo=BERLIN), 100)])
def test_clock_change_days_are_seamless_and_as_long_as_they_are(day: datetime, slots: int) -> None:
    whole = InTurn(energyzero(day, ["0.1"] * (slots + 96)))
    batch = adapter("energyzero", TABLE).fetch(whole, day + timedelta(hours=12))
    assert (len(batch), len(whole.asked)) == (slots + 96, 1)
    assert all(a.end == b.start for a, b in pairwise(batch.readings))
    short = InTurn(energyzero(day, ["0.1"] * (slots + 95)))
    adapter("energyzero", TABLE).fetch(short, day + timedelta(hours=12))
    assert len(short.asked) == 2


def test_two_answers_that_overlap_give_each_slot_once() -> None:
    http = InTurn(energyzero(TODAY, ["0.1"] * 96), energyzero(TODAY, ["0.1"] * 96 + ["0.2"] * 96))
    batch = adapter("energyzero", TABLE).fetch(http, NOON)
    assert [r.value for r in batch] == [100.0] * 96 + [200.0] * 96
    assert all(a.end == b.start for a, b in pairwise(batch.readings))


def test_trouble_with_tomorrow_is_not_taken_for_an_unpublished_day() -> None:
    with pytest.raises(AdapterError) as caught:
        adapter("energyzero", TABLE).fetch(InTurn(energyzero(TODAY, ["0.1"] * 96), b'{"base": '), NOON)
    assert caught.value.kind == "truncated"


def test_a_slot_of_another_length_costs_only_itself() -> None:
    payload = energyzero(TODAY, ["0.1"] * 96).replace(b'"end": "2026-05-31T22:15:00Z"', b'"end": "2026-05-31T23:00:00Z"', 1)
    batch = adapter("energyzero", TABLE).parse(payload, now=NOON)
    assert len(batch) == 95
    assert [d.row for d in batch.dropped] == ["base[0]"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"status": 404}, "not_published"),
        ({"status": 400, "body": b'{"code": 3, "message": "invalid date", "details": []}'}, "refused"),
        ({"status": 400}, "refused"),
        ({"body": b"{}"}, "malformed"),
        ({"body": b'{"base": []}'}, "not_published"),
        ({"body": energyzero(TODAY, [None] * 96)}, "not_published"),
        ({"body": energyzero(TODAY - timedelta(days=1), ["0.1"] * 96)}, "stale"),
    ],
)
def test_what_is_wrong_with_an_answer_is_named(answer: dict[str, object], kind: str) -> None:
    with pytest.raises(AdapterError) as caught:
        adapter("energyzero", TABLE).fetch(FakeHttp(**answer), NOON)  # type: ignore[arg-type]
    assert caught.value.kind == kind


def test_another_interval_is_told_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match="'day' is none of quarter, hour"):
        adapter("energyzero", {**TABLE, "interval": "day"})


def test_three_recorded_days_read_whole() -> None:
    payload = recorded("api", "energyzero", "rest_electricity_hour_response.json").read_bytes()
    http = FakeHttp(payload)
    batch = adapter("energyzero", {**TABLE, "interval": "hour"}).fetch(http, datetime(2025, 12, 17, 12, tzinfo=UTC))
    assert (len(batch), batch.dropped) == (72, ())
    assert all(a.end == b.start for a, b in pairwise(batch.readings))
    assert batch.readings[0].value == pytest.approx(77.495)
    assert len(http.asked) == 1


def test_the_recorded_refusal_says_why() -> None:
    payload = recorded("api", "energyzero", "rest_error_response.json").read_bytes()
    with pytest.raises(AdapterError, match=r"does not accept the request .* value does not match regex") as caught:
        adapter("energyzero", TABLE).fetch(FakeHttp(payload, status=400), NOON)
    assert caught.value.kind == "refused"
