"""What a consumer types to see what was earned, to take along what is stored, and to leave."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gridsched.cli import app
from gridsched.node.state import Home
from tests.web.conftest import House, fresh_house, worked_home


@pytest.fixture
def house() -> Iterator[House]:
    with fresh_house() as made:
        yield made


@pytest.fixture
def home(house: House, tmp_path: Path) -> Home:
    return worked_home(house, tmp_path / "home")


def typed(home: Home, *words: str, answer: str = "") -> Result:
    return CliRunner().invoke(app, ["node", *words, "--home", str(home.folder)], input=answer)


def test_the_statement_is_told_to_people_programs_and_spreadsheets(home: Home) -> None:
    told = typed(home, "statement")
    assert told.exit_code == 0, told.output
    assert "EUR earned for" in told.stdout
    assert json.loads(typed(home, "statement", "--json").stdout)["node_id"] == "pc"
    rows = list(csv.reader(typed(home, "statement", "--csv").stdout.splitlines()))
    assert rows[0][:2] == ["transfer_id", "kind"]


def test_what_is_stored_is_written_to_a_new_file_alone(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    assert typed(home, "export", str(file)).exit_code == 0
    assert json.loads(file.read_bytes())["node"]["node_id"] == "pc"
    again = typed(home, "export", str(file))
    assert again.exit_code == 1
    assert "name a new file" in again.stderr
    lost = typed(home, "export", str(tmp_path / "nowhere" / "mine.json"))
    assert lost.exit_code == 1
    assert "cannot be written" in lost.stderr


def test_leaving_asks_first_and_says_what_stays(home: Home, house: House) -> None:
    assert typed(home, "leave", "--erase", answer="n\n").exit_code == 1
    assert home.identity().node_id == "pc"
    told = typed(home, "leave", "--erase", answer="y\n")
    assert told.exit_code == 0, told.output
    assert "node pc has left" in told.stdout
    assert "keeps its name" in told.stdout
    assert typed(home, "statement").exit_code == 1
    rows = {row["node_id"]: row for row in house.get("/v1/nodes")}
    assert rows["pc"]["revoked"]
