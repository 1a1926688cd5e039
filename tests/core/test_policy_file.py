"""The policy vocabulary is closed, and every problem of a file is told at once, with its remedy."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gridsched.core.errors import PolicyError
from gridsched.core.policy import AllOf, AnyOf, Comparison, Draw, Leaf, Policy, Reason
from gridsched.core.settings import Settings, Site, ZoneTable
from gridsched.core.signal import SignalKind
from gridsched.plugins import load_policies, load_policy, parse_policy, shipped
from gridsched.policy_book import PolicyBook

WHOLE = """
about = "everything there is to say"
zone = "de"
timezone = "Europe/Berlin"
valid_from = 2026-01-01T00:00:00+01:00
valid_until = 2027-01-01T00:00:00Z
hold_out_share = 0.1

[when]
all = [
    { signal = "surplus", above = "2 kW", for = "2m", stop = "500 W", stop_for = "5m" },
    { any = [{ signal = "price", below = "4 ct/kWh" }, { signal = "renewable_share", above = "80 %" }] },
]

[alarm]
clear_for = "10m"
required = true

[draw]
share_of_surplus = 0.8
min_watts = 100
max_watts = "5 kW"

[budget]
energy_per_day = "20 kWh"
money_per_day_eur = 5

[reward]
per_kwh_eur = 0.1
per_unit_eur = 0.000001

[top_up]
allowed = true
watts = 500
max_price = "80 EUR/MWh"

[stale_after]
surplus = "10m"

[agree]
surplus = "1 kW"
"""

SMALL = """
zone = "de"
[when]
any = [{ signal = "surplus", above = "2 kW", stop = "1 kW" }]
[draw]
watts = 100
"""


def test_the_whole_vocabulary_reads_back() -> None:
    policy = parse_policy(WHOLE, "whole")
    cheap = Leaf(signal=SignalKind.PRICE, comparison=Comparison.BELOW, start=40.0, stop=40.0)
    green = Leaf(signal=SignalKind.RENEWABLE_SHARE, comparison=Comparison.ABOVE, start=0.8, stop=0.8)
    assert policy.when == AllOf(
        (
            Leaf(
                signal=SignalKind.SURPLUS,
                comparison=Comparison.ABOVE,
                start=2000.0,
                stop=500.0,
                start_delay=timedelta(minutes=2),
                stop_delay=timedelta(minutes=5),
            ),
            AnyOf((cheap, green)),
        )
    )
    assert policy.draw == Draw(share_of=SignalKind.SURPLUS, share=0.8, min_w=100.0, max_w=5000.0)
    assert (policy.alarm.clear_for, policy.alarm.required) == (timedelta(minutes=10), True)
    assert (policy.budget.energy_j, policy.budget.money_micro) == (72e6, 5_000_000)
    assert (policy.reward.micro_per_kwh, policy.reward.micro_per_unit) == (100_000, 1)
    assert (policy.top_up.watts, policy.top_up.max_price_eur_mwh) == (500.0, 80.0)
    assert (policy.valid_from, policy.valid_until) == (datetime(2025, 12, 31, 23, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    assert policy.stale_limits[SignalKind.SURPLUS] == timedelta(minutes=10)
    assert policy.agree == ((SignalKind.SURPLUS, 1000.0),)
    assert (policy.name, policy.zone, policy.hold_out_share) == ("whole", "de", 0.1)


def test_layout_and_remarks_do_not_change_the_digest_but_a_number_does() -> None:
    reordered = WHOLE.replace('about = "everything there is to say"\n', "# other words\n").replace("0.8\n", "0.80\n")
    assert parse_policy(WHOLE, "x").digest == parse_policy(reordered, "x").digest
    assert parse_policy(WHOLE, "x").digest != parse_policy(WHOLE.replace('"5 kW"', '"6 kW"'), "x").digest


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("watts = 100", "wats = 100", "draw: unknown key 'wats'; did you mean 'watts'?"),
        ("zone", "zoen", "did you mean 'zone'?"),
        ("[draw]", "[drw]", "did you mean 'draw'?"),
        ('signal = "surplus"', 'signal = "surplis"', "did you mean 'surplus'?"),
        ("above", "over", "unknown key 'over'"),
        ('above = "2 kW"', "for = '1m'", "needs either above or below"),
        ('above = "2 kW"', "above = 1, below = 2", "needs either above or below"),
        ('stop = "1 kW"', 'stop = "3 kW"', "stop threshold at or below 2000 W"),
        ('"2 kW"', '"2 kWh"', "use W, kW, MW or GW"),
        ('signal = "surplus", above = "2 kW", stop = "1 kW"', 'signal = "price", below = "40 g/kWh"', "use EUR/MWh, EUR/kWh or ct/kWh"),
        ('stop = "1 kW"', "for = 5", "5 is not a duration; write it like '90s'"),
        ("watts = 100", "watts = -100", "must be 0 or more"),
        ("watts = 100", "watts = true", "is not a number"),
        ("watts = 100", "watts = 100\nshare_of_surplus = 0.5", "not both"),
        ("watts = 100", "share_of_surplus = 80", "lies between 0 and 1"),
        ("watts = 100", "share_of_surplus = 0.5\nmin_watts = 9\nmax_watts = 5", "more than max_watts"),
        ("watts = 100", "", "needs either watts or share_of_surplus"),
        ('zone = "de"', "zone = 3", "put it in quotes"),
        ('zone = "de"', 'zone = "DE-LU"', "lower-case"),
        ('zone = "de"', 'zone = "de"\nvalid_from = 2026-01-01', "with time and offset"),
        ('zone = "de"', 'zone = "de"\nvalid_from = 2026-01-01T00:00:00', "no UTC offset"),
        ('zone = "de"', 'zone = "de"\nvalid_from = 2027-01-01T00:00:00Z\nvalid_until = 2026-01-01T00:00:00Z', "swap the two"),
        ('zone = "de"', 'zone = "de"\ndraw = 5', "is not TOML"),
        ("watts = 100", "watts = 100\n[reward]\nper_kwh_eur = -0.1", "never charged"),
        ("watts = 100", "watts = 100\n[reward]\nper_kwh_eur = 0.00000001", "finer than a millionth"),
        ("watts = 100", "watts = 100\n[reward]\nper_kwh_eur = nan", "not an amount in EUR"),
        ("watts = 100", "watts = 100\n[budget]\nenergy_per_day = 20", "needs its unit"),
        ("watts = 100", "watts = 100\n[top_up]\nallowed = true", "needs watts"),
        ("watts = 100", "watts = 100\n[alarm]\nrequired = 1", "neither true nor false"),
        ("watts = 100", "watts = 100\n[stale_after]\nprise = '1m'", "did you mean 'price'?"),
        ("watts = 100", "watts = 100\n[agree]\nsurplus = '-1 kW'", "less than nothing apart"),
        ("watts = 100", "watts = 100\n[agree]\ncarbon = 5", "does not look at it"),
        ("watts = 100", "watts = 100\n[agree]\nsurplus = '5 kWh'", "use W, kW, MW or GW"),
        ("watts = 100", "watts = 100\n[schedule]\nobjective = 'alarm'", "obeyed, not sought"),
        ("watts = 100", "watts = 100\n[schedule]\nmin_on = 5", "5 is not a duration"),
        ("watts = 100", "watts = 100\n[schedule]\nobjective = ['price', 'carbon']", "schedule.objective: ['price', 'carbon'] is not"),
        ('signal = "surplus"', 'signal = ["price", "carbon"]', "['price', 'carbon'] is not the name of one signal; write one of"),
        ('signal = "surplus"', "signal = { price = 1 }", "when.any[0].signal: {'price': 1} is not the name of one signal; write"),
        pytest.param("watts = 100", "watts = 1" + 400 * "0", "draw.watts: the number is too large", id="an integer beyond floats"),
        pytest.param("watts = 100", "watts = 1" + 5000 * "0", "is not TOML: Exceeds the limit", id="an integer beyond Python"),
        pytest.param('zone = "de"', "zone = 0x" + 5000 * "f", "zone: Exceeds the limit", id="an integer that cannot be shown"),
        pytest.param("watts = 100", "watts = " + 5000 * "[", "a number or a nesting out of all measure", id="brackets without end"),
        ("watts = 100", "watts = 1e9999999999999999999", "a number or a nesting out of all measure"),
        ("watts = 100", "watts = 100\n[reward]\nper_kwh_eur = 1e999999", "reward.per_kwh_eur: is more money than can be counted"),
        ('zone = "de"', 'zone = "de"\nvalid_from = 0001-01-01T00:00:00+01:00', "valid_from: date value out of range"),
        ('any = [{ signal = "surplus", above = "2 kW", stop = "1 kW" }]', "any = []", "at least one condition"),
        ('any = [{ signal = "surplus", above = "2 kW", stop = "1 kW" }]', "any = [5]", "is a condition"),
        pytest.param(
            'any = [{ signal = "surplus", above = "2 kW", stop = "1 kW" }]',
            "any = " + 17 * "[{ any = " + "[{}]" + 17 * "}]",
            "lies more than 16 conditions deep",
            id="conditions without end",
        ),
        ('any = [{ signal = "surplus", above = "2 kW", stop = "1 kW" }]', "any = [{signal='alarm', above=0}]", "never means surplus"),
    ],
)
def test_a_problem_is_told_with_its_file_and_its_remedy(old: str, new: str, said: str) -> None:
    parse_policy(SMALL, "mine")
    with pytest.raises(PolicyError) as caught:
        parse_policy(SMALL.replace(old, new, 1), "mine")
    assert str(caught.value).startswith("mine.toml: ")
    assert said in str(caught.value)


def test_all_problems_of_a_file_are_told_at_once() -> None:
    broken = 'zon = "de"\n[when]\nany = [{ signal = "price", below = "40 g/kWh" }, { signal = "pirce", above = 1 }]\n[draw]\nwats = 1\n'
    with pytest.raises(PolicyError) as caught:
        parse_policy(broken, "mine")
    told = str(caught.value).splitlines()
    assert told[0] == "mine.toml: 5 problems"
    assert [line.split(":")[0].strip() for line in told[1:]] == [
        "unknown key 'zon'; did you mean 'zone'?",
        "zone",
        "when.any[0].below",
        "when.any[1].signal",
        "draw",
    ]


def test_two_policies_for_one_zone_are_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.toml").write_text(SMALL)
    with pytest.raises(PolicyError, match=r"two\.toml: zone 'de' already has the policy .*one\.toml"):
        load_policies(tmp_path.glob("*.toml"))


def test_a_policy_is_named_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SMALL)
    assert load_policy(path).name == "mine"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(PolicyError, match="cannot be read"):
        load_policy(path)
    with pytest.raises(PolicyError, match="cannot be read"):
        load_policy(tmp_path / "none.toml")


def test_whatever_an_edited_file_raises_the_last_good_policy_stays_and_that_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SMALL)
    zone = ZoneTable(name="de", policy=path)
    book = PolicyBook(Settings(folder=tmp_path, site=Site(data=tmp_path / "data"), zones=(zone,)))
    good = book.current("de")

    def stumbles(path: Path) -> Policy:
        raise TypeError("unhashable type: 'list'")

    with monkeypatch.context() as broken:
        broken.setattr("gridsched.policy_book.load_policy", stumbles)
        os.utime(path, ns=(0, 0))
        assert [book.current("de"), book.current("de")] == [good, good]
    assert caplog.messages == ["policy of de not reloaded, the last good one stays: unhashable type: 'list'"]

    path.write_text(SMALL.replace("watts = 100", "watts = 200"))
    assert book.current("de").draw.watts == 200


def test_the_shipped_policies_rule_one_zone_each() -> None:
    assert len(load_policies(shipped("policies").glob("*.toml"))) == 5


def test_the_readme_shows_a_policy_that_loads_and_names_every_reason() -> None:
    readme = (shipped("policies") / "README.md").read_text()
    example = readme.split("```toml\n")[1].split("```")[0]
    assert parse_policy(example, "readme").zone == "de"
    assert [reason for reason in Reason if f"`{reason}`" not in readme] == []
