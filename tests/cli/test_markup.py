"""What others have worded is printed as they wrote it, square brackets and all."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gridsched.cli import app
from gridsched.core.errors import ConfigError
from gridsched.core.job import Dataset
from gridsched.core.settings import Web
from gridsched.node.state import Home, Identity, Status
from gridsched.ports import Tx
from tests.web.conftest import House

REMEDY = "pip install 'gridsched[wasm]'"


def test_the_remedy_reaches_whoever_joins_without_a_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise ConfigError(f"wasmtime is not installed: {REMEDY}")

    monkeypatch.setattr("gridsched.node.start.join", refused)
    result = CliRunner().invoke(app, ["node", "join", "http://127.0.0.1:1", "--code", "c", "--home", str(tmp_path / "home")])
    assert result.exit_code == 1
    assert result.stderr == f"wasmtime is not installed: {REMEDY}\n"


def test_a_node_s_status_tells_notice_and_device_in_full(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.make()
    url = "http://[fd00::1]:8080"
    home.set_identity(Identity(url=url, node_id="n1", token="t", zone="z", power_w=1.0, runtime="torch-x", clock_speed=1.0))
    home.set_status(Status(node_id="n1", phase="idle", reason="no_work", device="cpu [e-cores]", notice=f"no runtime: {REMEDY}"))
    shown = CliRunner().invoke(app, ["node", "status", "--home", str(home.folder)], env={"COLUMNS": "120"}).output
    for said in (REMEDY, "cpu [e-cores]", url):
        assert said in shown


def test_a_dataset_s_credit_is_told_as_its_licence_asks(tmp_path: Path) -> None:
    house = House(tmp_path, Web(port=0))
    try:

        def verb(tx: Tx, now: datetime) -> list[Any]:
            tx.put(Dataset(name="steps", digest="a" * 64, samples=1, size_bytes=1, added_at=now, attribution="Ada [ada@example.org]"))
            return []

        house.do(verb)
        shown = CliRunner().invoke(app, ["dataset", "list", "--url", house.url, "--token", "operator"])
        assert "Ada [ada@example.org]" in shown.output
    finally:
        house.close()
