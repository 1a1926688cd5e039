"""How the pages are built: from exact releases, with nothing at run time that is not the project's own, and small."""

import gzip
import json
import re
from pathlib import Path

import pytest

from tests.browser.hosts import bundle

TRAINER_BYTES = 12_000  # compressed; all of a page, kernels included, is to stay under 150,000


def test_what_npm_installs_is_named_by_exact_release(repository: Path) -> None:
    package = json.loads((repository / "browser" / "package.json").read_text())
    assert not package.keys() & {"dependencies", "optionalDependencies", "peerDependencies"}
    assert [name for name, release in package["devDependencies"].items() if not re.fullmatch(r"\d+\.\d+\.\d+", release)] == []


def test_the_trainer_is_made_of_itself_alone_and_fully_typed(repository: Path) -> None:
    folder = repository / "browser" / "src" / "trainer"
    own = {f"./{path.name}" for path in folder.glob("*.ts")}
    for path in folder.glob("*.ts"):
        text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert set(re.findall(r'from "([^"]+)"', text)) <= own, path.name
        assert re.findall(r"(?:: |as |<)any\b|@ts-|\b(?:document|window|navigator|indexedDB|localStorage)\.|\bfetch\(", text) == [], (
            path.name
        )


@pytest.mark.node
def test_the_trainer_is_small(tmp_path: Path) -> None:
    size = len(gzip.compress(bundle("../../browser/src/trainer/index.ts", tmp_path, "--minify").read_bytes(), 9))
    assert 5_000 < size < TRAINER_BYTES
