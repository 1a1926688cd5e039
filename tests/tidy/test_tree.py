"""The tree as a whole: nothing of one machine in it, and no import that runs in a circle."""

import re
import subprocess
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

MACHINE_PATH = re.compile(r"(?<![\w./~-])/(?:work|opt/pypi|root|home/\w+|Users/\w+)/")
REGISTRY_HOST = re.compile(r"https?://[\w.-]*(?:pythonhosted|registry\.|/simple/)|--(?:extra-)?index-url|--find-links|_authToken")


def text_of(tracked: Path) -> str:
    """What a person would read; nothing for pictures, archives and a file that is being deleted."""
    try:
        return tracked.read_text(encoding="utf-8")
    except (UnicodeDecodeError, FileNotFoundError):
        return ""


def traces(text: str) -> list[str]:
    """Paths and package sources that only one machine has."""
    return [found[0] for pattern in (MACHINE_PATH, REGISTRY_HOST) for found in pattern.finditer(text)]


def circle(imports: Mapping[str, Iterable[str]]) -> list[str]:
    """Modules that import each other in turn, first and last the same; empty where there are none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize(
    "line", ["see /" + "work/main/x", "'/" + "home/ada/site'", "pip install --" + "index-url x", "https://files.python" + "hosted.org/a"]
)
def test_a_trace_of_one_machine_is_seen(line: str) -> None:
    assert traces(line)


@pytest.mark.parametrize("line", ["https://example.org/work/x", "tests/home/ada", "./work/x", "/usr/share/zoneinfo/"])
def test_a_path_that_every_machine_has_is_none(line: str) -> None:
    assert traces(line) == []


def test_the_tree_names_no_machine(repository: Path) -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True, check=True).stdout
    found = {path: traces(text_of(repository / path)) for path in tracked.split("\0") if path}
    assert {path: what for path, what in found.items() if what} == {}
    assert len(found) > 100


def test_a_circle_is_seen() -> None:
    assert circle({"a": ["b"], "b": ["c"], "c": ["a"]})
    assert circle({"a": ["b", "c"], "b": ["c"]}) == []


def test_no_import_runs_in_a_circle() -> None:
    graph = grimp.build_graph("gridsched", cache_dir=None)
    assert circle({module: sorted(graph.find_modules_directly_imported_by(module)) for module in graph.modules}) == []
