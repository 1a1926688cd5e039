"""The command line as a newcomer meets it: what each command prints, and one clear red line for whatever is wrong."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gridsched.cli import app


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def fails(*words: str | Path) -> str:
    """What a failing command says, in one line; never a traceback."""
    result = run(*words)
    assert result.exit_code == 1, result.output
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    assert run("init", folder).exit_code == 0
    return folder


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def test_init_makes_a_site_that_checks_and_says_what_is_next(tmp_path: Path) -> None:
    made = run("init", tmp_path / "site")
    assert "next: gridsched check --site" in made.output
    for name in ("gridsched.toml", "adapters/signals/energy_charts.py", "policies/price-cap.toml", "operator.token"):
        assert (tmp_path / "site" / name).is_file()
    assert (tmp_path / "site" / "operator.token").stat().st_mode & 0o777 == 0o600
    checked = run("check", "--site", tmp_path / "site")
    assert checked.exit_code == 0, checked.output
    assert "all good" in checked.output


def test_init_never_overwrites(site: Path) -> None:
    assert "not empty" in fails("init", site)


def test_an_unknown_key_is_named_with_the_nearest_valid_one(site: Path) -> None:
    edit(site / "gridsched.toml", '[site]\nname = "home"', '[site]\nnmae = "home"')
    said = fails("check", "--site", site)
    assert "nmae" in said
    assert "name" in said


def test_check_tells_everything_at_once(site: Path) -> None:
    edit(site / "gridsched.toml", 'policy = "price-cap.toml"', 'policy = "low-carbon.toml"')
    edit(site / "gridsched.toml", 'series = "signal"', 'series = "signl"')
    said = fails("check", "--site", site)
    assert "signl" in said
    assert "low-carbon" in said
    assert "'gb'" in said


def test_a_policy_that_needs_a_signal_nobody_gives_is_refused(site: Path) -> None:
    edit(
        site / "policies" / "price-cap.toml",
        'signal = "price", below = "20 EUR/MWh", for = "0s", stop = "25 EUR/MWh"',
        'signal = "carbon", below = "80 g/kWh", for = "0s", stop = "90 g/kWh"',
    )
    assert "no adapter of zone de gives it" in fails("check", "--site", site)


def test_a_policy_that_compares_two_sources_needs_two(site: Path) -> None:
    path = site / "policies" / "price-cap.toml"
    path.write_text(path.read_text() + '\n[agree]\nprice = "5 EUR/MWh"\n')
    assert "zone de has no two" in fails("check", "--site", site)


def test_a_folder_that_is_no_site_is_told_apart(tmp_path: Path) -> None:
    assert "gridsched init" in fails("check", "--site", tmp_path)


def test_policy_check_says_what_a_policy_does(site: Path) -> None:
    said = run("policy", "check", site / "policies" / "price-cap.toml").output
    assert "rules zone de" in said
    assert "pays 0.2 EUR per kWh" in said


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ('below = "20 EUR/MWh"', 'bellow = "20 EUR/MWh"', "below"),
        ('below = "20 EUR/MWh"', 'below = "20 g/kWh"', "EUR/MWh"),
        ('stop = "25 EUR/MWh"', 'stop = "5 EUR/MWh"', "stop"),
        ('watts = "2 kW"', 'watts = "-2 kW"', "watts"),
    ],
    ids=["unknown key", "wrong unit", "contradictory thresholds", "negative power"],
)
def test_a_wrong_policy_is_refused_by_name(site: Path, before: str, after: str, named: str) -> None:
    path = site / "policies" / "price-cap.toml"
    edit(path, before, after)
    said = fails("policy", "check", path)
    assert "price-cap.toml" in said
    assert named in said


def test_two_policies_for_one_zone_are_refused(site: Path) -> None:
    path = site / "policies" / "price-cap.toml"
    other = path.with_name("other.toml")
    other.write_text(path.read_text())
    assert "a zone has one policy" in fails("policy", "check", path, other)


def test_a_daemon_that_does_not_answer_is_named() -> None:
    said = fails("status", "--url", "http://127.0.0.1:9", "--token", "t")
    assert "http://127.0.0.1:9 does not answer" in said


def test_without_site_or_address_the_remedy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "--site" in fails("nodes")


def test_every_command_of_the_readme_exists(repository: Path) -> None:
    text = (repository / "README.md").read_text()
    commands = {
        tuple(re.findall(r"[a-z][a-z-]*", line.split("gridsched", 1)[1])[:2])
        for line in re.findall(r"^gridsched [a-z].*$", text, re.MULTILINE)
    }
    assert commands, "the README shows commands"
    for first, *rest in commands:
        help_text = run(first, "--help")
        assert help_text.exit_code == 0, f"gridsched {first} is in the README and does not exist"
        if first in ("node", "job", "policy", "explain", "report", "dataset"):
            assert run(first, rest[0], "--help").exit_code == 0, f"gridsched {first} {rest[0]} is in the README and does not exist"
