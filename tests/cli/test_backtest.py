"""``gridsched policy backtest`` as an operator meets it."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from gridsched.cli import app
from tests.cli.conftest import never

POLICY = Path(__file__).resolve().parent.parent.parent / "policies" / "cheapest-hours.toml"
KEYS = {"captured", "starts_per_week", "cost_eur_per_useful_mwh", "in_surplus_share", "deadline_misses"}


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["policy", "backtest", *(str(word) for word in words)], env={"COLUMNS": "100"})


def fails(*words: object) -> str:
    result = run(*words)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    start, rng = datetime(2025, 1, 31, 23, tzinfo=UTC), np.random.default_rng(5)
    rows = [
        f"{start + timedelta(hours=hour):%Y-%m-%dT%H:%MZ},{80 - 50 * np.sin(hour % 24 / 24 * np.pi) + rng.normal(0, 20):.2f},{hour}"
        for hour in range(24 * 40)
    ]
    path = tmp_path / "prices.csv"
    path.write_text("time_utc,price_eur_per_mwh,load_mw\n" + "\n".join(rows) + "\n")
    return path


def test_a_policy_is_told_beside_the_rules_as_table_json_and_picture(trace: Path, tmp_path: Path) -> None:
    words = ["--policy", POLICY, "--trace", trace, "--hours-per-week", 10, "--restart-waste", "15m", "--every", 3, "--processes", 1]
    result = run(*words, "--json", tmp_path / "out.json", "--plot", tmp_path / "out.png")
    assert result.exit_code == 0, result.output
    assert "'price_eur_per_mwh' in EUR/MWh by 'time_utc' (UTC)" in result.output
    assert "holidays of DE" in result.output
    for line in ("run at once", "quantile threshold", "this policy", "perfect foresight", "2025-03"):
        assert re.search(rf"(?m)^\s*{line}\b.*\d", result.output), line
    told = json.loads((tmp_path / "out.json").read_text())
    assert set(told) >= KEYS
    assert set(told["oracle"]) >= KEYS
    assert set(told["rules"]["run_at_once"]) >= KEYS
    assert told["hours_per_week"] == 10
    assert 0.5 < told["captured"] <= 1
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_work_that_the_policy_leaves_undone_is_said(trace: Path, tmp_path: Path) -> None:
    policy = tmp_path / "strict.toml"
    policy.write_text(re.sub(r"(?s)\[top_up\].*?\n\n", "", POLICY.read_text()))
    result = run("--policy", policy, "--trace", trace, "--every", 6, "--processes", 1)
    assert result.exit_code == 0, result.output
    assert "weeks were not done by their end" in result.output
    assert "see [top_up]" in result.output


def test_a_policy_on_other_signals_is_told_what_the_trace_lacks(trace: Path) -> None:
    policy = POLICY.parent / "surplus-first.toml"
    result = run("--policy", policy, "--trace", trace, "--every", 9, "--processes", 1)
    assert "the trace tells nothing of surplus" in result.output


def test_what_is_wrong_is_named_with_its_remedy(trace: Path, tmp_path: Path) -> None:
    usual = ["--policy", POLICY, "--trace", trace]
    assert "No such file" in fails("--policy", POLICY, "--trace", tmp_path / "nope.csv")
    assert "write it like 2025-01-31" in fails(*usual, "--from", "soon")
    assert "write it like 13:00" in fails(*usual, "--gate", "noon")
    assert "is no signal; use price" in fails(*usual, "--objective", "prise")
    assert "has no column 'spot'" in fails(*usual, "--value", "spot")
    assert "give a longer trace" in fails(*usual, "--from", "2030-01-01")
    assert "do not fit into a week" in fails(*usual, "--hours-per-week", 200)
    assert "is not a duration" in fails(*usual, "--restart-waste", 15)
    assert "does not say which of 'price_eur_per_mwh', 'load_mw' is the carbon" in fails(*usual, "--objective", "carbon")
    assert "no such file" in fails("--policy", tmp_path / "no.toml", "--trace", trace).casefold()


def test_weeks_are_not_replayed_for_a_file_that_cannot_be_written(trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridsched.report.captured.replay_all", never)
    usual = ["--policy", POLICY, "--trace", trace]
    assert "there is no folder" in fails(*usual, "--json", tmp_path / "none" / "x.json")
    assert "it is a folder" in fails(*usual, "--json", tmp_path)
    assert "there is no folder" in fails(*usual, "--plot", trace / "x.png")
    assert "must end in .png" in fails(*usual, "--plot", tmp_path / "x.txt")


@pytest.mark.usefixtures("bare")
def test_weeks_are_not_replayed_for_a_picture_that_cannot_be_drawn(trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridsched.report.captured.replay_all", never)
    assert "pip install 'gridsched[report]'" in fails("--policy", POLICY, "--trace", trace, "--plot", tmp_path / "x.png")
