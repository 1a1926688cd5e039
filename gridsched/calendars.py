"""Which days are holidays where: a time zone's country, and that country's public holidays.

People live a holiday like a Sunday, and prices follow. Countries of zones are those of the IANA database's ``zone.tab``
(https://data.iana.org/time-zones/tzdb/zone.tab); holidays are the nation-wide ones of the package ``holidays``. A zone
that belongs to no country, such as UTC, has weekends only.
"""

from collections.abc import Iterable
from functools import cache
from importlib import resources

from gridsched.core.grid import Calendar

__all__ = ["calendar_of", "country_of"]


@cache
def country_of(timezone: str) -> str | None:
    """The ISO 3166 code of the country that ``timezone`` is named for: ``DE`` for Europe/Berlin; None where there is none."""
    for line in resources.files("tzdata.zoneinfo").joinpath("zone.tab").read_text(encoding="utf-8").splitlines():
        cells = line.split("\t")
        if not line.startswith("#") and cells[2:3] == [timezone]:
            return cells[0]
    return None


def calendar_of(timezone: str, years: Iterable[int]) -> Calendar:
    """The calendar of ``timezone`` with the holidays of ``years``; weekends only where its country or its holidays are not known."""
    import holidays

    country = country_of(timezone)
    try:
        known = holidays.country_holidays(country, years=sorted(set(years))) if country else {}
    except NotImplementedError:
        known = {}
    return Calendar(timezone=timezone, holidays=frozenset(known))
