"""Whose holidays count: those of the country that a time zone is named for."""

from datetime import date

import pytest

from gridsched import calendars
from gridsched.calendars import calendar_of, country_of


@pytest.mark.parametrize(
    ("timezone", "country"),
    [
        ("Europe/Berlin", "DE"),
        ("Europe/Copenhagen", "DK"),
        ("Europe/London", "GB"),
        ("America/Los_Angeles", "US"),
        ("UTC", None),
        ("", None),
    ],
)
def test_a_time_zone_is_named_for_a_country(timezone: str, country: str | None) -> None:
    assert country_of(timezone) == country


def test_a_holiday_is_lived_like_a_sunday() -> None:
    berlin = calendar_of("Europe/Berlin", range(2023, 2027))
    assert [berlin.kind(date(2026, 5, day)) for day in (1, 2, 3, 4)] == [2, 1, 2, 0]
    assert berlin.kind(date(2023, 10, 3)) == 2
    assert calendar_of("Europe/London", [2023]).kind(date(2023, 10, 3)) == 0


def test_where_no_country_is_known_there_are_weekends_only() -> None:
    plain = calendar_of("UTC", [2026])
    assert [plain.kind(date(2026, 5, day)) for day in (1, 2, 3, 4)] == [0, 1, 2, 0]
    assert not plain.holidays


def test_a_country_without_known_holidays_has_weekends_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calendars, "country_of", lambda timezone: "XX")
    assert not calendar_of("Europe/Berlin", [2026]).holidays
