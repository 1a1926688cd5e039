import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from gridsched import AdapterError, ConfigError
from tests.adapters.fake_http import FakeHttp
from tests.adapters.load import adapter, recorded
from tests.adapters.payloads import octopus

NOW = datetime(2026, 6, 1, 10, 5, tzinfo=UTC)
SLOT = datetime(2026, 6, 1, 10, tzinfo=UTC)
TABLE: Mapping[str, object] = {"zone": "gb-c", "product": "AGILE-24-10-01", "region": "C", "eur_per_gbp": 1.2}
RATES = "https://api.octopus.energy/v1/products/AGILE-24-10-01/electricity-tariffs/E-1R-AGILE-24-10-01-C/standard-unit-rates/"


def test_pence_become_euros_and_the_newest_first_comes_out_last() -> None:
    http = FakeHttp(octopus(SLOT, [15.0, 0.0, -2.5]))
    batch = adapter("octopus", TABLE).fetch(http, NOW)
    assert [r.value for r in batch] == [pytest.approx(180.0), 0.0, pytest.approx(-30.0)]
    assert all(a.end == b.start for a, b in pairwise(batch.readings))
    assert batch.readings[0].start == SLOT
    period = {"period_from": "2026-06-01T10:05:00Z", "period_to": "2026-06-03T10:05:00Z", "page_size": 1500}
    assert http.asked == [(RATES, period)]


def test_vat_counts_where_it_is_paid() -> None:
    (reading,) = adapter("octopus", {**TABLE, "with_vat": True}).parse(octopus(SLOT, [10.0]), now=NOW)
    assert reading.value == pytest.approx(126.0)


@pytest.mark.parametrize("rate", [None, 0.0, -1.2, float("nan"), float("inf")])
def test_without_an_exchange_rate_it_does_not_start(rate: float | None) -> None:
    table = {key: value for key, value in TABLE.items() if key != "eur_per_gbp"}
    with pytest.raises(ConfigError, match="give eur_per_gbp, the euros that one pound is worth"):
        adapter("octopus", table if rate is None else {**table, "eur_per_gbp": rate})


def test_a_region_is_a_letter() -> None:
    with pytest.raises(ConfigError, match="region 'London' is not the letter"):
        adapter("octopus", {**TABLE, "region": "London"})


def test_every_page_is_read_and_a_slot_on_two_pages_counts_once() -> None:
    second = RATES + "?page=2"
    http = FakeHttp(octopus(SLOT + timedelta(hours=1), [3.0, 4.0], following=second), also={"page=2": octopus(SLOT, [1.0, 2.0, 3.0])})
    batch = adapter("octopus", {**TABLE, "eur_per_gbp": 1.0}).fetch(http, NOW)
    assert [r.value for r in batch] == [10.0, 20.0, 30.0, 40.0]
    assert [url for url, _ in http.asked] == [RATES, second]


def test_pages_without_end_are_left_after_a_few() -> None:
    http = FakeHttp(octopus(SLOT, [1.0], following=RATES))
    assert len(adapter("octopus", TABLE).fetch(http, NOW)) == 1
    assert len(http.asked) == 4


def test_a_next_page_elsewhere_is_not_followed() -> None:
    http = FakeHttp(octopus(SLOT, [1.0], following="https://api.octopus.energy.example/v1/"))
    adapter("octopus", TABLE).fetch(http, NOW)
    assert len(http.asked) == 1


def changed(**rate: Any) -> bytes:
    """Two half-hours, the newer one with other fields."""
    document = json.loads(octopus(SLOT, [1.0, 2.0]))
    document["results"][0].update(rate)
    return json.dumps(document).encode()


def test_a_rate_without_an_end_lasts_one_half_hour() -> None:
    batch = adapter("octopus", TABLE).parse(changed(valid_to=None), now=NOW)
    assert batch.readings[-1].end == SLOT + timedelta(hours=1)


def test_a_rate_of_another_length_costs_only_itself() -> None:
    batch = adapter("octopus", TABLE).parse(changed(valid_to="2026-06-02T00:00:00Z"), now=NOW)
    assert len(batch) == 1
    assert [d.row for d in batch.dropped] == ["results[0]"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"count": 0, "next": null, "results": []}', "not_published"),
        (b'{"detail": "Not found."}', "malformed"),
        (octopus(SLOT - timedelta(days=1), [1.0] * 47), "stale"),
    ],
)
def test_what_is_wrong_with_an_answer_is_named(body: bytes, kind: str) -> None:
    with pytest.raises(AdapterError) as caught:
        adapter("octopus", TABLE).fetch(FakeHttp(body), NOW)
    assert caught.value.kind == kind


def test_the_recorded_page_reads_oldest_first_with_its_negative_rate() -> None:
    payload = recorded("api", "octopus", "octopus-energy-list-electricity-standard-unit-rates-example.json").read_bytes()
    batch = adapter("octopus", {**TABLE, "eur_per_gbp": 1.0}).parse(payload, now=datetime(2026, 5, 25, 13, tzinfo=UTC))
    assert batch.dropped == ()
    assert [r.start.hour for r in batch] == [13, 21, 22, 22]
    assert batch.readings[0].value == pytest.approx(-28.571)
