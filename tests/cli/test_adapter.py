"""``gridsched adapter``: one adapter asked once, over a real server on this machine and over files."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gridsched.cli import app
from gridsched.clock import SystemClock
from tests.adapters.payloads import BERLIN, awattar

ZONE = '[[zone]]\nname = "de"\npolicy = "any.toml"\n'


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["adapter", *(str(word) for word in words)])


@dataclass
class Provider:
    url: str = ""
    status: int = 200
    body: bytes = b"{}"
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def provider() -> Iterator[Provider]:
    state = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            self.send_response(state.status)
            self.send_header("Content-Length", str(len(state.body)))
            self.end_headers()
            self.wfile.write(state.body)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_port}"
        yield state
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the repository's own root, which is a site."""
    monkeypatch.chdir(tmp_path)


def today() -> Any:
    return SystemClock().now().astimezone(BERLIN).replace(hour=0, minute=0, second=0, microsecond=0)


def written(folder: Path, *tables: str) -> Path:
    (folder / "gridsched.toml").write_text(ZONE + "".join(f"[[adapter]]\n{table}\n" for table in tables))
    return folder


CSV = """use = "signals/file.py"
zone = "de"
path = "prices.csv"
signal = "price"
time = "start"
value = "eur"
unit = "EUR/MWh"
resolution = "1h\""""
ROWS = "start,eur\n2026-06-01T10:00Z,5\n2026-06-01T11:00Z,-7.5\n2026-06-01T12:00Z,oops\n2026-06-01T13:00Z,20000\n"


@pytest.fixture
def site(tmp_path: Path, repository: Path) -> Path:
    """A site with one recorded file, whose third row is no number and whose fourth nobody would believe."""
    (tmp_path / "adapters").symlink_to(repository / "adapters")
    (tmp_path / "prices.csv").write_text(ROWS)
    return written(tmp_path, CSV)


def test_a_shipped_adapter_is_tried_without_any_site(provider: Provider) -> None:
    provider.body = awattar(today(), [float(n) for n in range(24)])
    tried = run("try", "awattar", "--option", f"url={provider.url}", "--rows", "2")
    assert tried.exit_code == 0, tried.output
    assert "ok  awattar for zone here" in tried.output
    assert "24 readings" in tried.output
    assert "24 slots of 1 h, 0 to 23; now " in tried.output
    assert "0 EUR/MWh  measured" in tried.output
    assert len(provider.asked) == 1


def test_a_site_s_adapter_is_named_as_in_its_file_or_by_its_number(site: Path) -> None:
    for name in ("file", "signals/file.py", "1", "file.1"):
        tried = run("try", name, "--site", site, "--at", "2026-06-01T11:30:00Z")
        assert tried.exit_code == 0, tried.output
        assert "file for zone de, asked as of 2026-06-01 11:30 UTC: 3 readings" in tried.output
        assert "now -7.5 EUR/MWh" in tried.output
        assert "1 row set aside\n    line 4: 'oops' is not a number" in tried.output
        assert "1 would be dropped: price 20000 EUR/MWh is outside" in tried.output
        assert "ended 30 min ago" in tried.output
        assert "begins in 1 h 30 min" in tried.output


def test_a_name_that_several_tables_share_tries_them_all(site: Path) -> None:
    written(site, CSV, CSV.replace('"price"', '"carbon"').replace("EUR/MWh", "g/kWh"))
    tried = run("try", "file", "--json", "--at", "2026-06-01T11:30:00Z")
    assert [list(json.loads(line)["signals"]) for line in tried.output.splitlines()] == [["price"], ["carbon"]]
    assert [list(json.loads(line)["signals"]) for line in run("try", "2", "--json").output.splitlines()] == [["carbon"]]


def test_as_json_it_tells_slots_ages_units_and_dropped_rows(site: Path) -> None:
    told = json.loads(run("try", "file", "--json", "--at", "2026-06-01T11:30:00Z").output)
    assert (told["ok"], told["error"], told["count"], told["zone"]) == (True, None, 3, "de")
    assert told["dropped"] == [{"row": "line 4", "reason": "'oops' is not a number"}]
    price = told["signals"]["price"]
    assert (price["unit"], price["count"], len(price["implausible"])) == ("EUR/MWh", 3, 1)
    assert price["now"] == {"value": -7.5, "age_s": 0.0, "fresh": True, "source": "file:prices.csv"}
    assert price["readings"][0] == {
        "start": "2026-06-01T10:00:00+00:00",
        "end": "2026-06-01T11:00:00+00:00",
        "value": 5.0,
        "quality": "measured",
        "source": "file:prices.csv",
        "known_at": "2026-06-01T11:30:00+00:00",
        "age_s": 1800.0,
    }


@pytest.mark.parametrize(
    ("status", "body", "kind", "remedy"),
    [
        (200, b"<html>Wartung</html>", "html", "in a browser"),
        (200, b'{"data": [', "truncated", "cut on its way"),
        (401, b"", "refused", "check the key"),
        (404, b"", "not_published", "after the provider has published"),
    ],
)
def test_what_is_wrong_is_told_with_its_kind_and_the_remedy(provider: Provider, status: int, body: bytes, kind: str, remedy: str) -> None:
    provider.status, provider.body = status, body
    tried = run("try", "awattar", "-o", f"url={provider.url}")
    assert tried.exit_code == 1
    assert f": {kind} after" in tried.output
    assert remedy in tried.output
    told = json.loads(run("try", "awattar", "-o", f"url={provider.url}", "--json").output)
    assert (told["ok"], told["error"]["kind"]) == (False, kind)
    assert remedy in told["error"]["remedy"]


def test_a_signal_of_which_nothing_came_is_not_hidden(site: Path) -> None:
    tried = run("try", "file", "--at", "2020-01-01T00:00:00Z", "--site", site)
    (site / "prices.csv").write_text("start,eur\n")
    assert "begins in" in tried.output
    tried = run("try", "file", "--site", site)
    assert "price  nothing at that moment" in tried.output
    assert tried.exit_code == 0


MINE = """
from datetime import timedelta


class Mine:
    name = "mine"
    signals = ()
    every = timedelta(hours=1)

    def __init__(self, table, *, site):
        self.zone, self.key = table["zone"], table.get("api_key")

    def fetch(self, http, now):
        return {does}
"""


def test_a_file_of_one_s_own_is_tried_by_its_path_and_its_bug_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE.format(does="1 / 0"))
    tried = run("try", "mine.py", "-o", "zone=de")
    assert tried.exit_code == 1
    assert "mine for zone de" in tried.output
    assert "bug after" in tried.output
    assert "ZeroDivisionError: division by zero" in tried.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["energy_chart"], "no such file"),
        (["7"], "there is no adapter 7 here"),
        (["awattar", "-o", "country"], "--option 'country' is not KEY=VALUE"),
        (["awattar", "-o", "contry=at"], "did you mean 'country'"),
        (["awattar", "--at", "yesterday"], "write it like 2018-01-28T12:00:00Z"),
        (["meters/rapl.py"], "meters a node"),
        (["awattar", "--site", "nowhere"], "gridsched init"),
    ],
)
def test_what_cannot_be_tried_says_why(words: list[str], said: str) -> None:
    tried = run("try", *words)
    assert tried.exit_code == 1
    assert said in " ".join(tried.output.split())
    assert "Traceback" not in tried.output


@pytest.mark.parametrize(
    ("written_as", "read_as"),
    [
        ("series=price", "price"),
        ("n=5", 5),
        ("n=0.5", 0.5),
        ("on=true", True),
        ("a=b=c", "b=c"),
        ('zip="70173"', "70173"),
        ("x=", ""),
        ("day=2026-06-01", "2026-06-01"),
        ('names=["a"]', ["a"]),
        ('t={ a = "b" }', {"a": "b"}),
    ],
)
def test_an_option_is_read_as_in_the_site_s_file_and_text_needs_no_quotes(written_as: str, read_as: object) -> None:
    from gridsched.cli.adapter import _option

    assert _option(written_as)[1] == read_as


def test_a_key_never_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SystemClock, "sleep", lambda *_: None)
    (tmp_path / "mine.py").write_text(MINE.format(does="http.get('htp://127.0.0.1/' + self.key)"))
    tried = run("try", "mine.py", "-o", "zone=de", "-o", "api_key=s3cret")
    assert "unavailable after" in tried.output
    assert "htp://127.0.0.1/***" in tried.output
    assert "s3cret" not in tried.output


def test_the_shipped_adapters_are_listed_with_what_they_give() -> None:
    told = {row["use"]: row for row in json.loads(run("list", "--json").output)}
    assert told["signals/awattar.py"]["gives"] == "price"
    assert told["signals/awattar.py"]["every"] == "1 h"
    assert told["meters/rapl.py"]["gives"] == "a node's energy"
    plain = run("list").output
    assert "signals/awattar.py  price, asked every 1 h\n    Hourly day-ahead prices" in plain


def test_a_site_lists_its_own(site: Path) -> None:
    (site / "adapters").unlink()
    folder = site / "adapters" / "signals"
    folder.mkdir(parents=True)
    (folder / "mine.py").write_text('class Mine:\n    """All mine."""\n\n    name = "mine"\n    signals = ("price",)\n    fetch = None\n')
    assert [row["use"] for row in json.loads(run("list", "--json", "--site", site).output)] == ["signals/mine.py"]


def test_the_spans_are_told_in_their_two_largest_parts() -> None:
    from gridsched.cli.adapter import _span

    spans = [timedelta(0), timedelta(seconds=30), timedelta(minutes=15), timedelta(minutes=61), timedelta(days=1, seconds=5)]
    assert [_span(span) for span in spans] == ["0 s", "30 s", "15 min", "1 h 1 min", "1 d 5 s"]
