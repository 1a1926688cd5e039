"""How an owner's wishes are written at the command line."""

from datetime import UTC, datetime

import pytest

from gridsched.cli.job import _wishes
from gridsched.core.errors import InvalidInput


def test_a_deadline_is_told_with_its_offset_and_a_price_with_its_unit() -> None:
    assert _wishes("2026-06-08T06:00+02:00", 2, top_up=True, below="6 ct/kWh") == {
        "deadline": datetime(2026, 6, 8, 4, tzinfo=UTC),
        "priority": 2,
        "top_up": True,
        "top_up_below_eur_mwh": 60.0,
    }
    assert _wishes("", 0, top_up=True, below="") == {"deadline": None, "priority": 0, "top_up": True, "top_up_below_eur_mwh": None}


@pytest.mark.parametrize(
    ("deadline", "top_up", "below", "said"),
    [
        ("tomorrow", True, "", "2026-06-08T06:00"),
        ("2026-06-08T06:00", True, "", "with an offset"),
        ("", False, "", "name one with --deadline"),
        ("", True, "60 EUR/MWh", "name one with --deadline"),
        ("2026-06-08T06:00Z", True, "60 kW", "EUR/MWh"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_remedy(deadline: str, top_up: bool, below: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        _wishes(deadline, 0, top_up=top_up, below=below)
