from datetime import timedelta
from decimal import Decimal

import pytest

from gridsched.core.errors import InvalidInput
from gridsched.core.quantity import duration, factor, quantity, unknown_key


@pytest.mark.parametrize(
    ("unit", "canonical", "expected"),
    [
        ("EUR / MWh", "EUR/MWh", 1.0),
        ("Eur/MWh", "EUR/MWh", 1.0),
        ("ct/kWh", "EUR/MWh", 10.0),
        ("€/kWh", "EUR/MWh", 1000.0),
        ("MW", "W", 1e6),
        ("%", "share", 0.01),
        ("lbs/MWh", "g/kWh", 0.45359237),
    ],
)
def test_a_unit_has_one_factor(unit: str, canonical: str, expected: float) -> None:
    assert factor(unit, canonical) == expected


@pytest.mark.parametrize(
    ("unit", "canonical", "named"), [("g/kWh", "EUR/MWh", "ct/kWh"), ("MWh", "W", "MW"), ("USD/MWh", "EUR/MWh", "EUR/MWh")]
)
def test_a_wrong_unit_is_an_error_that_names_the_right_ones(unit: str, canonical: str, named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        factor(unit, canonical)


@pytest.mark.parametrize(("written", "expected"), [("2 kW", 2000.0), ("2kW", 2000.0), ("-1.5e3", -1500.0), (7, 7.0), (Decimal("0.5"), 0.5)])
def test_a_quantity_is_a_number_or_text_with_a_unit(written: object, expected: float) -> None:
    assert quantity(written, "W") == expected


@pytest.mark.parametrize("written", ["", "much", True, None, [], float("nan"), Decimal("Infinity"), "1,5 kW", "1e999 W", "1e308 GW"])
def test_anything_else_is_refused(written: object) -> None:
    with pytest.raises(InvalidInput):
        quantity(written, "W")


@pytest.mark.parametrize("digits", [309, 9999])
def test_an_integer_beyond_all_floats_is_refused_without_being_shown(digits: int) -> None:
    with pytest.raises(InvalidInput, match=r"^the number is too large; the largest is 1\.8e\+308$"):
        quantity(10**digits, "W")


@pytest.mark.parametrize(
    ("written", "seconds"), [("90s", 90), ("15m", 900), ("15 min", 900), ("1h30m", 5400), ("2d", 172800), ("0.5h", 1800), (0, 0), ("0s", 0)]
)
def test_a_duration_says_its_unit(written: object, seconds: float) -> None:
    assert duration(written) == timedelta(seconds=seconds)


@pytest.mark.parametrize("written", [15, "15", "", "m", "-5m", "5 parsecs", "5m later", True, None, "9e99h", "99999999999999999d"])
def test_a_duration_without_one_is_refused(written: object) -> None:
    with pytest.raises(InvalidInput):
        duration(written)


def test_the_nearest_key_is_named_or_all_of_them() -> None:
    assert "did you mean 'watts'" in unknown_key("wats", ["watts", "share"])
    assert "valid are share, watts" in unknown_key("xyz", ["watts", "share"])
