from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from gridsched import AdapterError
from tests.adapters.fake_http import FakeHttp
from tests.adapters.load import RECORDED, adapter, recorded
from tests.adapters.payloads import BERLIN, awattar

TODAY = datetime(2026, 6, 1, tzinfo=BERLIN)
NOON = datetime(2026, 6, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "start", "hours"),
    [
        (NOON, datetime(2026, 5, 31, 22, tzinfo=UTC), 48),
        (datetime(2026, 3, 29, 10, tzinfo=UTC), datetime(2026, 3, 28, 23, tzinfo=UTC), 47),
        (datetime(2026, 10, 25, 10, tzinfo=UTC), datetime(2026, 10, 24, 22, tzinfo=UTC), 49),
    ],
)
def test_both_ends_of_the_local_days_are_always_asked_for(now: datetime, start: datetime, hours: int) -> None:
    http = FakeHttp(awattar(start, [1.0] * hours))
    batch = adapter("awattar", {"zone": "de"}).fetch(http, now)
    milliseconds = int(start.timestamp()) * 1000
    asked = {"start": milliseconds, "end": milliseconds + hours * 3_600_000}
    assert http.asked == [("https://api.awattar.de/v1/marketdata", asked)]
    assert len(batch) == hours


def test_austria_has_its_own_host() -> None:
    http = FakeHttp(awattar(TODAY, [1.0] * 24))
    adapter("awattar", {"zone": "at", "country": "at"}).fetch(http, NOON)
    assert http.asked[0][0] == "https://api.awattar.at/v1/marketdata"


@pytest.mark.parametrize(("unit", "value"), [("Eur/MWh", -80.5), ("ct/kWh", -805.0)])
def test_the_unit_in_the_answer_is_believed(unit: str, value: float) -> None:
    batch = adapter("awattar", {"zone": "de"}).parse(awattar(TODAY, [-80.5] * 24, unit=unit), now=NOON)
    assert batch.readings[0].value == value


def test_another_currency_is_a_wrong_unit() -> None:
    with pytest.raises(AdapterError, match="CHF/MWh") as caught:
        adapter("awattar", {"zone": "de"}).parse(awattar(TODAY, [1.0] * 24, unit="CHF/MWh"), now=NOON)
    assert caught.value.kind == "wrong_unit"


def test_one_row_in_another_unit_or_length_costs_only_itself() -> None:
    payload = awattar(TODAY, [1.0, 2.0, None, *[4.0] * 21])
    payload = payload.replace(b'"marketprice": 1.0, "unit": "Eur/MWh"', b'"marketprice": 1.0, "unit": "ct/kWh"')
    first = int(TODAY.timestamp()) * 1000
    payload = payload.replace(f'"end_timestamp": {first + 2 * 3_600_000}'.encode(), f'"end_timestamp": {first + 9 * 3_600_000}'.encode())
    batch = adapter("awattar", {"zone": "de"}).parse(payload, now=NOON)
    assert len(batch) == 21
    assert [d.row for d in batch.dropped] == ["data[0]", "data[1]"]


def test_yesterdays_prices_are_stale() -> None:
    with pytest.raises(AdapterError, match="still serves old data") as caught:
        adapter("awattar", {"zone": "de"}).parse(awattar(TODAY - timedelta(days=1), [1.0] * 24), now=NOON)
    assert caught.value.kind == "stale"


RECORDINGS = sorted(path.name for path in RECORDED.joinpath("api", "awattar").glob("*.json"))


@pytest.mark.parametrize("name", RECORDINGS or ["marketdata_at_2021-09-23.json"])
def test_every_recorded_answer_reads_whole(name: str) -> None:
    payload = recorded("api", "awattar", name).read_bytes()
    batch = adapter("awattar", {"zone": "at", "country": "at"}).parse(payload, now=datetime(2016, 1, 1, tzinfo=UTC))
    assert len(batch) == 24
    assert batch.dropped == ()
    assert all(a.end == b.start for a, b in pairwise(batch.readings))
    assert all(-600 < r.value < 1000 for r in batch)
