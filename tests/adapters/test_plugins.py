"""Adapters are loaded by path or by name, and the shipped folders are found."""

from pathlib import Path

import pytest

import gridsched
from gridsched.core.errors import ConfigError, NotFound
from gridsched.plugins import SHIPPED, load_adapter, shipped

GOOD = """
from __future__ import annotations
from dataclasses import dataclass
from gridsched import Batch


@dataclass(frozen=True, slots=True)
class Options:
    zone: str
    name: str = "not an adapter"


class Mine:
    name = "mine"

    def fetch(self, http, now):
        return Batch()
"""


def written(base: Path, text: str, name: str = "mine.py") -> str:
    (base / name).write_text(text)
    return name


def test_a_file_is_loaded_by_its_path_even_with_postponed_annotations(tmp_path: Path) -> None:
    assert load_adapter(written(tmp_path, GOOD), tmp_path).name == "mine"


def test_two_sites_may_have_adapters_of_the_same_name(tmp_path: Path) -> None:
    for site in ("a", "b"):
        (tmp_path / site).mkdir()
        written(tmp_path / site, GOOD.replace('"mine"', f'"{site}"'))
    assert [load_adapter("mine.py", tmp_path / site).name for site in ("a", "b")] == ["a", "b"]


def test_an_installed_package_is_named_by_module_and_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, GOOD, "someones_package.py")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_adapter("someones_package:Mine", tmp_path).name == "mine"


@pytest.mark.parametrize(
    ("ref", "text", "said"),
    [
        ("mine.py", "x = 1", "exactly one class with name and fetch; it has none"),
        ("mine.py", GOOD + GOOD.replace("Mine", "Other").replace("from __future__ import annotations\n", ""), "it has Mine, Other"),
        ("mine.py", "import no_such_module", "does not load: ModuleNotFoundError"),
        ("mine.py", "def (", "does not load: SyntaxError"),
        ("signals/nine.py", GOOD, "no such file in .*; there is mine.py"),
        ("../mine.py", GOOD, "lies outside"),
        ("no_such_package:Mine", GOOD, "is its package installed?"),
        ("gridsched:Nothing", GOOD, "does not load"),
        ("gridsched:Reading", GOOD, "is not a class with name and fetch"),
    ],
)
def test_what_cannot_be_loaded_is_told_with_the_remedy(tmp_path: Path, ref: str, text: str, said: str) -> None:
    written(tmp_path, text)
    with pytest.raises(ConfigError, match=said):
        load_adapter(ref, tmp_path)


def test_an_adapter_only_imported_is_not_taken_for_the_files_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, GOOD, "shared_adapter.py")
    monkeypatch.syspath_prepend(tmp_path)
    written(tmp_path, "from shared_adapter import Mine\n\n\nclass Better(Mine):\n    name = 'better'\n")
    assert load_adapter("mine.py", tmp_path).name == "better"


@pytest.mark.parametrize("folder", ["adapters", "policies"])
def test_a_shipped_folder_is_found(folder: str) -> None:
    assert (shipped(folder) / "README.md").is_file()


def test_an_unknown_folder_names_the_nearest() -> None:
    with pytest.raises(NotFound, match="'adapter'; did you mean 'adapters'"):
        shipped("adapter")
    assert sorted(SHIPPED) == list(SHIPPED)


def test_the_face_is_sorted_and_whole() -> None:
    names = list(gridsched.__all__)
    assert names == sorted(names, key=lambda name: (not name.isupper(), name[0].islower(), name))
    assert all(hasattr(gridsched, name) for name in names)
