"""``gridsched pardon``: what it says is what it did."""

from functools import partial
from pathlib import Path

from typer.testing import CliRunner

from gridsched.cli import app
from gridsched.core.settings import Web
from gridsched.flow import quarantine
from tests.web.conftest import House


def test_a_pardon_says_whether_anything_has_changed(tmp_path: Path) -> None:
    house = House(tmp_path, Web(port=0))
    try:
        house.working("pc")
        assert "node pc is not quarantined; nothing has changed" in pardon(house, "pc")
        house.do(partial(quarantine.quarantine, node_id="pc", unit_id="j.r0.u0", why="its answer was wrong"))
        assert "node pc may work again" in pardon(house, "pc")
        assert "there is no node nobody; see gridsched nodes" in pardon(house, "nobody", code=1)
    finally:
        house.close()


def pardon(house: House, node: str, *, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["pardon", node, "--url", house.url, "--token", "operator"])
    assert result.exit_code == code, result.output
    return result.output
