"""What is written beside the code is true: the commented settings, the notices, the derived data; and nothing names a machine."""

import gzip
import importlib.util
import re
import subprocess
import tomllib
from dataclasses import fields
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from gridsched import config
from gridsched.core.settings import AdapterTable, Blobs, Control, Outgoing, Replay, Site, StoreAddress, Trust, Web, ZoneTable
from gridsched.demo.site import DAY
from gridsched.plugins import SHIPPED

SECTIONS = {
    "site": Site,
    "store": StoreAddress,
    "web": Web,
    "http": Outgoing,
    "clock": Replay,
    "control": Control,
    "blobs": Blobs,
    "trust": Trust,
}
QUARTER = timedelta(minutes=15)
BERLIN = ZoneInfo("Europe/Berlin")


def uncommented(template: str) -> str:
    """The template with every commented key and section in force."""
    return re.sub(r"(?m)^# (?=\[|\w+ = )", "", template)


@pytest.fixture(scope="module")
def template(repository: Path) -> str:
    return (repository / config.FILE).read_text(encoding="utf-8")


def test_the_template_names_every_setting_there_is(template: str) -> None:
    written = tomllib.loads(uncommented(template))
    for name, kind in SECTIONS.items():
        keys = {field.metadata.get("key", field.name) for field in fields(kind)}
        assert set(written[name]) == keys, f"[{name}]"
    assert set(written) == {*SECTIONS, "zone", "adapter"}
    assert {key for table in written["zone"] for key in table} == {field.name for field in fields(ZoneTable)}
    assert all("use" in table for table in written["adapter"])
    assert {field.name for field in fields(AdapterTable)} == {"use", "options", "secrets"}  # the last is made of the environment


def test_the_template_tells_the_defaults(template: str, tmp_path: Path) -> None:
    (tmp_path / config.FILE).write_text(template, encoding="utf-8")
    plain = config.load(tmp_path, environ={})
    text = uncommented(template)
    for example in ("tls_cert", "tls_key"):  # they have no default
        text = re.sub(rf"(?m)^{example} = .*$", "", text)
    text = re.sub(r"(?m)^(url = )(\"sqlite[^\"]*\").*$", r"\1\2", text)
    (tmp_path / config.FILE).write_text(text, encoding="utf-8")
    told = config.load(tmp_path, environ={})
    assert told.clock is not None
    for name in ("site", "store", "web", "http", "control", "blobs", "zones", "adapters"):
        assert getattr(told, name) == getattr(plain, name), f"[{name}]"


def table(text: str, header: str) -> list[list[str]]:
    """The rows of the Markdown table with that header."""
    rows = text.split(header, 1)[1].split("\n\n", 1)[0].strip().splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


@pytest.fixture(scope="module")
def week(repository: Path) -> list[tuple[datetime, float, float]]:
    """Start, price and surplus of each quarter hour."""
    text = gzip.decompress((repository / "examples" / "germany-2018" / "week.csv.gz").read_bytes()).decode()
    rows = [line.split(",") for line in text.splitlines()]
    assert rows[0] == ["start", "price_eur_mwh", "renewable_share", "surplus_w"]
    return [(datetime.fromisoformat(start), float(price), float(surplus)) for start, price, _, surplus in rows[1:]]


def test_the_week_is_whole_and_its_prices_stand_for_hours(week: list[tuple[datetime, float, float]]) -> None:
    starts = [start for start, _, _ in week]
    assert len(week) == 7 * 96
    assert {later - earlier for earlier, later in pairwise(starts)} == {QUARTER}
    assert all(len({price for _, price, _ in week[hour : hour + 4]}) == 1 for hour in range(0, len(week), 4))


def test_the_notice_tells_the_surplus_of_the_day_the_demo_replays(week: list[tuple[datetime, float, float]], repository: Path) -> None:
    notice = (repository / "examples" / "germany-2018" / "NOTICE.md").read_text(encoding="utf-8")
    day = [row for row in week if DAY <= row[0] < DAY + timedelta(days=1)]
    windows: list[list[tuple[datetime, float, float]]] = []
    for before, row in zip([None, *day], day, strict=False):
        if row[2] > 0:
            windows += [] if before and before[2] > 0 else [[]]
            windows[-1].append(row)
    told = []
    for window in windows:
        start, end = window[0][0], window[-1][0] + QUARTER
        watts, prices = [row[2] for row in window], [row[1] for row in window]
        told.append(
            [
                f"{start.astimezone(BERLIN):%H:%M} to {end.astimezone(BERLIN):%H:%M}",
                f"{start:%H:%M} to {end:%H:%M}",
                f"{max(watts):.0f}",
                f"{sum(watts) / len(watts):.0f}",
                f"{sum(watts) / 4:.0f}",
                f"{min(prices):.2f} to {max(prices):.2f}",
            ]
        )
    assert table(notice, "| Berlin | UTC |") == told
    assert sum(price < 0 for _, price, _ in day) / 4 == 6
    assert "six hours of them with a negative price" in notice


def script(path: Path) -> ModuleType:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["digits", "wine"])
def test_the_shipped_datasets_are_what_their_script_derives(name: str, repository: Path) -> None:
    derive: Any = script(repository / "scripts" / "derive_digits.py")
    shipped = gzip.decompress((repository / "examples" / "data" / f"{name}.csv.gz").read_bytes())
    assert derive.as_csv(getattr(derive, name)()) == shipped


def test_every_data_file_is_named_in_the_notice_beside_it(repository: Path) -> None:
    for folder in ("data", "germany-2018"):
        notice = (repository / "examples" / folder / "NOTICE.md").read_text(encoding="utf-8")
        files = {path.name for path in (repository / "examples" / folder).iterdir()} - {"NOTICE.md"}
        assert files == {name for name in re.findall(r"`([\w.]+)`", notice) if "." in name and not name.endswith(".py")}, folder


def test_the_extras_that_are_set_up_are_the_extras_there_are(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    extras = set(project["project"]["optional-dependencies"])
    for file, found in (("Makefile", r"EXTRAS := (\S+)"), ("scripts/pin.sh", r"'\.\[(\S+)\]'")):
        match = re.search(found, (repository / file).read_text(encoding="utf-8"))
        assert match is not None, file
        assert set(match[1].split(",")) == extras, file
    shipped = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert set(shipped) == {*SHIPPED, config.FILE}


def test_every_requirement_is_pinned_to_one_tried_release(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    pins = [line for line in (repository / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.!]*", line)] == []
    pinned = {plain(line.split("==")[0]) for line in pins}
    assert {plain(re.split(r"[\[<>=~! ;]", one)[0]) for one in wanted} - pinned == set()


def plain(name: str) -> str:
    """A package's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


# Written in pieces, or this file would offend itself.
FOLDERS = ("work", "root", "opt", "home/[a-z]+", "Users/[A-Za-z]+")
HOSTS = ("pypi" + ".org", "pytho" + "nhosted.org", "download.pyto" + "rch.org", "registry.np" + "mjs.org", "index-" + "url")
MACHINE_BOUND = re.compile(f"(?<![-a-zA-Z0-9_.}}/])/({'|'.join(FOLDERS)})/[a-zA-Z0-9_]|{'|'.join(map(re.escape, HOSTS))}".encode())


@pytest.mark.parametrize("text", [b"open('/ho" + b"me/ann/x')", b"--index-" + b"url x", b"https://pypi" + b".org/simple"])
def test_what_is_bound_to_a_machine_is_seen(text: bytes) -> None:
    assert MACHINE_BOUND.search(text)


def test_nothing_in_the_repository_names_a_machine_or_a_registry(repository: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=repository, check=True, capture_output=True).stdout.decode().split("\0")
    found = {}
    for name in filter(None, listed):
        path = repository / name
        offence = MACHINE_BOUND.search(path.read_bytes()) if path.is_file() else None
        if offence:
            found[name] = offence[0]
    assert found == {}
