"""The wheel alone, in an empty environment without PyTorch, is a control plane: it makes a site, checks it and serves it."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from gridsched.plugins import SHIPPED

pytestmark = pytest.mark.long

PATIENCE_S = 60.0

# What a developer has exported (PYTHONPATH, GRIDSCHED_*) must not help.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GRIDSCHED_", "VIRTUAL_ENV"))}


def run(command: Sequence[str | Path], *, cwd: Path) -> str:
    """What it printed; fails with all of it if it fails."""
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, repository], cwd=folder)
    (found,) = folder.glob("gridsched-*.whl")
    return found


@pytest.fixture(scope="module")
def binaries(wheel: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``bin`` of an environment with the wheel and what it asks for, at the tested releases."""
    folder = tmp_path_factory.mktemp("empty") / "venv"
    run([sys.executable, "-m", "venv", folder], cwd=folder.parent)
    pip: list[str | Path] = [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run([*pip, "-c", repository / "constraints.txt", wheel], cwd=folder.parent)
    return folder / "bin"


@pytest.fixture(scope="module")
def site(binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sites") / "mine"
    run([binaries / "gridsched", "init", folder], cwd=folder.parent)
    return folder


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def started(command: Sequence[str | Path], *, cwd: Path) -> "Iterator[subprocess.Popen[str]]":
    """The process; nothing of it is left afterwards, and one that hangs is killed."""
    with (
        (cwd / "stderr.log").open("w", encoding="utf-8") as errors,
        subprocess.Popen(command, cwd=cwd, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        hanging = threading.Timer(PATIENCE_S, process.kill)
        hanging.start()
        try:
            yield process
        finally:
            hanging.cancel()
            process.kill()


def test_the_wheel_holds_every_file_that_a_site_is_made_of(wheel: Path, repository: Path) -> None:
    listed = set(zipfile.ZipFile(wheel).namelist())
    tracked = run(["git", "ls-files"], cwd=repository).splitlines()
    owed = {f"gridsched/_shipped/{path}" for path in tracked if path.split("/")[0] in SHIPPED or path == "gridsched.toml"}
    owed |= {path for path in tracked if path.startswith("gridsched/")}
    assert owed - listed == set()
    assert {path.split("/")[2] for path in owed if path.startswith("gridsched/_shipped/")} == {*SHIPPED, "gridsched.toml"}


def test_the_wheel_holds_nothing_that_nobody_asked_for(wheel: Path) -> None:
    listed = zipfile.ZipFile(wheel).namelist()
    assert len(listed) == len(set(listed))
    assert [name for name in listed if re.search(r"__pycache__|\.pyc$|\.sqlite|operator\.token|(^|/)tests?/", name)] == []
    assert {name.split("/")[0] for name in listed} <= {"gridsched", *(n.split("/")[0] for n in listed if ".dist-info/" in n)}


@pytest.mark.parametrize("module", ["torch", "pandas", "matplotlib", "psycopg", "pytest"])
def test_a_control_plane_does_not_bring(binaries: Path, tmp_path: Path, module: str) -> None:
    found = run([binaries / "python", "-c", f"import importlib.util as u; print(u.find_spec({module!r}))"], cwd=tmp_path)
    assert found.strip() == "None"


def test_a_new_site_passes_its_own_check(binaries: Path, site: Path) -> None:
    assert "all good" in run([binaries / "gridsched", "check", "--site", site], cwd=site)


def test_a_site_is_made_once_and_never_overwritten(binaries: Path, site: Path) -> None:
    token = (site / "operator.token").read_text(encoding="utf-8")
    again = subprocess.run([binaries / "gridsched", "init", site], cwd=site, env=ENVIRONMENT, text=True, capture_output=True, check=False)
    assert again.returncode == 1
    assert "not empty" in " ".join(again.stderr.split())
    assert (site / "operator.token").read_text(encoding="utf-8") == token
    assert (site / "operator.token").stat().st_mode & 0o077 == 0


def test_a_site_is_served_until_it_is_told_to_stop(binaries: Path, site: Path, tmp_path: Path) -> None:
    port = free_port()
    command: list[str | Path] = [binaries / "gridsched", "serve", "--site", site, "--host", "127.0.0.1", "--port", str(port)]
    with started(command, cwd=tmp_path) as daemon:
        assert daemon.stdout is not None
        line = daemon.stdout.readline()
        assert f"gridsched is ready: http://127.0.0.1:{port}" in line, (tmp_path / "stderr.log").read_text(encoding="utf-8")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as answer:
            assert answer.status == 200
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            assert b"gridsched_" in answer.read()
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(PATIENCE_S) == 0, (tmp_path / "stderr.log").read_text(encoding="utf-8")
    assert (site / "data" / "gridsched.sqlite").is_file()
