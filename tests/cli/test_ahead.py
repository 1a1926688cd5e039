"""What lies ahead, as the command line tells it of a living daemon: a job's hours, the forecast, the story around a decision."""

import json
import shutil
import threading
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from math import sin
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gridsched.cli import app
from gridsched.core.access import Role, secret_hash
from gridsched.core.settings import Web
from gridsched.core.signal import SignalKind
from gridsched.flow import admit
from gridsched.testing import Simulation
from gridsched.web.app import server
from tests.sim.conftest import fast_folder
from tests.sim.test_deadlines import DAY, MIDNIGHT, at, go, job, site

PAST_DAYS = 40


def priced(day: int) -> list[float]:
    """A day's prices: windy days are cheap, and come in turns."""
    return [price - 35 + 35 * sin(day / 1.7) for price in DAY]


class Served:
    """A simulated site whose API answers on a socket."""

    def __init__(self, folder: Path) -> None:
        self.sim: Simulation = site(folder, prices=False)
        values = [price for day in range(-PAST_DAYS, 2) for price in priced(day)]
        self.sim.publish(SignalKind.PRICE, values, start=MIDNIGHT - PAST_DAYS * timedelta(days=1))
        self.sim.clock.move_to(at(10))
        job(self.sim, 90, job_id="patient")
        job(self.sim, 0.5, job_id="brief", priority=1)
        job(self.sim, 20, job_id="due", deadline=MIDNIGHT + timedelta(days=4, hours=6))
        go(self.sim, at(14))
        self.sim.call(partial(admit.new_token, name="viewer", role=Role.VIEWER, token_hash=secret_hash("look")))
        ready = threading.Event()
        self._server = server(self.sim.daemon.app, Web(port=0), ready=ready.set)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        assert ready.wait(10)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    def run(self, *words: str | Path) -> Result:
        return CliRunner().invoke(app, [*map(str, words), "--url", self.url, "--token", "look"])

    def json(self, *words: str | Path) -> Any:
        result = self.run(*words, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.output)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self.sim.close()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    folder = fast_folder()
    made = Served(folder)
    yield made
    made.close()
    shutil.rmtree(folder)


def is_picture(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 20_000


def test_a_schedule_tells_hours_price_and_why(served: Served, tmp_path: Path) -> None:
    told = served.json("schedule", "show", "due")
    assert told["timing"] == "planned"
    assert told["unit"] == "EUR/MWh"
    assert told["deadline"] == "2018-05-05T06:00:00Z"
    assert f"days not known yet are drawn from {PAST_DAYS + 2} known days" in told["why"]
    assert len(told["known"]) == 34
    assert told["coming"][0]["start"] == "2018-05-03T00:00:00Z"
    assert told["coming"][-1]["start"] == "2018-05-05T05:00:00Z"
    said = served.run("schedule", "show", "due", "--plot", tmp_path / "s.png")
    assert "due is running, due 2018-05-05 06:00 UTC: planned" in said.output
    assert "expected on average over all its work" in said.output
    assert is_picture(tmp_path / "s.png")


def test_a_job_without_a_deadline_says_so(served: Served, tmp_path: Path) -> None:
    assert "it has no deadline, so it takes surplus as it comes" in served.run("schedule", "show", "patient").output
    assert "brief is done" in (told := served.run("schedule", "show", "brief").output)
    assert "the job is done: all epochs merged" in told
    refused = served.run("schedule", "show", "patient", "--plot", tmp_path / "s.png")
    assert refused.exit_code == 1
    assert "--deadline" in refused.output


def test_a_forecast_tells_what_is_known_and_a_band_around_what_may_come(served: Served, tmp_path: Path) -> None:
    told = served.json("forecast", "show", "--days", "3")
    assert (told["signal"], told["known_until"], told["slot_s"]) == ("price", "2018-05-03T00:00:00Z", 3600.0)
    assert len(told["coming"]) == 72
    assert all(row["low"] <= row["mean"] <= row["high"] for row in told["coming"])
    assert told["learned_days"] > 30
    said = served.run("forecast", "show", "--plot", tmp_path / "f.png")
    assert "known until 2018-05-03 00:00 UTC, then learned from" in said.output
    assert is_picture(tmp_path / "f.png")


def test_a_forecast_of_what_nobody_gives_is_refused(served: Served) -> None:
    refused = served.run("forecast", "show", "--signal", "carbon")
    assert refused.exit_code == 1
    assert "check that an adapter of this zone provides it" in " ".join(refused.output.split())
    wrong = served.run("forecast", "show", "--signal", "prize")
    assert "price" in wrong.output


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("words", [("schedule", "show", "due"), ("forecast", "show"), ("policy", "explain")])
def test_a_picture_that_cannot_be_drawn_is_told_at_once_with_the_remedy(served: Served, words: tuple[str, ...], tmp_path: Path) -> None:
    refused = served.run(*words, "--plot", tmp_path / "x.png")
    assert refused.exit_code == 1
    assert refused.output == "matplotlib is not installed, and this needs it: pip install 'gridsched[report]'\n"


def test_a_decision_is_told_with_what_was_around_it(served: Served, tmp_path: Path) -> None:
    told = served.json("policy", "explain", "--at", "2018-05-01T13:05:00Z")
    assert told["decision"]["decided_at"] == "2018-05-01T13:00:00Z"
    assert told["decisions"][0]["decided_at"] == "2018-05-01T10:10:00Z"
    assert told["signals"]["price"]["slots"][0]["value"] == pytest.approx(priced(0)[1])
    said = served.run("policy", "explain", "--at", "2018-05-01T13:05:00Z", "--plot", tmp_path / "d.png")
    assert "decision de-lu.20180501T130000000" in said.output
    assert is_picture(tmp_path / "d.png")
    early = served.run("policy", "explain", "--at", "2017-01-01T00:00:00Z")
    assert "had decided nothing by" in " ".join(early.output.split())
