"""Readings keep both their times: nothing is overwritten, and what was known then can be asked for."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gridsched.core.signal import FORECAST_TRUST, Quality, Reading, SignalKind, is_fresh
from gridsched.store.sql import SqlStore

NOON = datetime(2018, 1, 28, 12, tzinfo=UTC)
SLOT = timedelta(minutes=15)
PRICE = SignalKind.PRICE


def price(slot: int, value: float, *, learned: int = 0, source: str = "exchange", quality: Quality = Quality.MEASURED) -> Reading:
    """The price of the ``slot``-th quarter of an hour after noon, learned ``learned`` minutes after noon."""
    start = NOON + slot * SLOT
    known_at = NOON + timedelta(minutes=learned)
    return Reading(
        zone="de-lu", signal=PRICE, start=start, end=start + SLOT, value=value, quality=quality, source=source, known_at=known_at
    )


def stored(store: SqlStore, *readings: Reading) -> int:
    with store.write() as tx:
        return tx.store_readings(readings)


def known(store: SqlStore, minutes: int, first: int = 0, last: int = 96) -> list[Reading]:
    with store.read() as tx:
        return tx.readings("de-lu", PRICE, NOON + first * SLOT, NOON + last * SLOT, known_at=NOON + timedelta(minutes=minutes))


def test_a_repeat_adds_nothing_and_a_revision_one_row(store: SqlStore) -> None:
    assert stored(store, price(0, 10.0), price(1, -5.0)) == 2
    assert stored(store, price(0, 10.0, learned=5), price(1, -5.0, learned=5)) == 0
    assert stored(store, price(0, 11.0, learned=7), price(1, -5.0, learned=7)) == 1
    assert stored(store, price(0, 10.0, learned=9)) == 1
    assert [r.value for r in known(store, 60)] == [10.0, -5.0]
    assert [r.value for r in known(store, 8)] == [11.0, -5.0]


def test_what_was_not_yet_known_is_not_seen(store: SqlStore) -> None:
    stored(store, price(0, 10.0, learned=3))
    assert known(store, 2) == []
    assert known(store, 3) == [price(0, 10.0, learned=3)]


def test_a_late_older_revision_does_not_displace_a_newer_one(store: SqlStore) -> None:
    stored(store, price(0, 11.0, learned=7))
    assert stored(store, price(0, 10.0, learned=1)) == 1
    assert [r.value for r in known(store, 60)] == [11.0]
    assert [r.value for r in known(store, 5)] == [10.0]


def test_only_slots_that_overlap_the_half_open_interval_are_given(store: SqlStore) -> None:
    day = replace(price(0, 40.0), start=NOON - timedelta(hours=12), end=NOON + timedelta(hours=12), source="day")
    stored(store, *(price(slot, float(slot)) for slot in range(-2, 6)), day)
    assert [r.value for r in known(store, 60, first=1, last=3)] == [40.0, 1.0, 2.0]


def test_zones_and_signals_are_kept_apart(store: SqlStore) -> None:
    stored(store, price(0, 10.0), replace(price(0, 11.0), zone="at"), replace(price(0, 12.0), signal=SignalKind.SURPLUS))
    assert [r.value for r in known(store, 60)] == [10.0]


def test_sources_and_qualities_stand_beside_each_other(store: SqlStore) -> None:
    forecast = price(0, 12.0, learned=9, quality=Quality.FORECAST)
    other = price(0, 14.0, source="market")
    stored(store, price(0, 10.0), forecast, other)
    assert {r.value for r in known(store, 60)} == {10.0, 12.0, 14.0}


def test_of_two_rows_for_one_slot_in_one_answer_the_later_counts(store: SqlStore) -> None:
    assert stored(store, price(0, 10.0), price(0, 12.0)) == 1
    assert [r.value for r in known(store, 60)] == [12.0]


def test_a_forecast_that_is_told_again_unchanged_does_not_grow_old_and_takes_few_rows(store: SqlStore) -> None:
    far = 47 * 4  # slots
    told = [stored(store, price(far, 0.0, learned=60 * hour, quality=Quality.FORECAST)) for hour in range(48)]
    assert [hour for hour, new in enumerate(told) if new] == [0, 7, 14]
    (seen,) = known(store, 60 * 47, first=far, last=far + 1)
    assert is_fresh(seen, NOON + timedelta(hours=47), timedelta(0))
    (first,) = known(store, 60 * 6, first=far, last=far + 1)
    assert first.known_at == NOON


def test_no_other_repeat_is_kept_again(store: SqlStore) -> None:
    near = int(FORECAST_TRUST / SLOT) - 1  # this one is believed to the end of its slot
    rows = [price(near, 0.0, quality=Quality.FORECAST), price(2 * near, 0.0), price(2 * near, 0.0, quality=Quality.ESTIMATED)]
    assert stored(store, *rows) == 3
    assert stored(store, *(replace(row, known_at=row.known_at + timedelta(hours=30)) for row in rows)) == 0


READINGS = st.builds(price, st.integers(0, 2), st.sampled_from([1.0, 2.0]), source=st.sampled_from(["a", "b"]))


@given(st.lists(st.tuples(st.integers(0, 2), st.lists(READINGS, max_size=6)), max_size=5), st.integers(0, 8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_what_is_known_is_what_was_last_said_of_each_slot(
    store: SqlStore, answers: Sequence[tuple[int, Sequence[Reading]]], minutes: int
) -> None:
    last_said: dict[tuple[datetime, str], float] = {}
    learned = 0
    with store.write() as tx:
        tx.delete(Reading)
        for waited, answer in answers:
            learned += waited
            told = [replace(r, known_at=NOON + timedelta(minutes=learned)) for r in answer]
            tx.store_readings(told)
            said = {(r.start, r.source): r for r in told}
            assert tx.store_readings(list(said.values())) == 0, "the same again adds nothing"
            if learned <= minutes:
                last_said |= {slot: r.value for slot, r in said.items()}
    assert {(r.start, r.source): r.value for r in known(store, minutes)} == last_said
