"""``gridsched invite``: a code to type, an address to open, and a picture of that address."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gridsched.cli import app
from gridsched.core.access import Invite
from gridsched.core.errors import InvalidInput
from gridsched.core.settings import Web
from gridsched.web import invitation
from tests.web.conftest import House

CODE = re.compile(r"code ([A-Z2-9]{4}(?:-[A-Z2-9]{4}){3}),")


def test_an_invitation_is_an_address_that_enrols_and_a_picture_of_it(tmp_path: Path) -> None:
    house = House(tmp_path, Web(port=0))
    try:
        drawing, pixels = tmp_path / "qr.svg", tmp_path / "qr.png"
        told = invite(house, "--at", "https://grid.example:8443/", "--svg", str(drawing), "--png", str(pixels))
        found = CODE.search(told)
        assert found is not None
        address = f"https://grid.example:8443/join#code={found[1]}"
        assert address in told
        assert f"gridsched node join https://grid.example:8443 --code {found[1]}" in told
        assert drawing.read_text() == invitation.svg(address)
        assert pixels.read_bytes() == invitation.png(address)
        join = {"code": found[1], "node_id": "n", "device": "d", "power_w": 9.0, "memory_bytes": 9, "runtime": "wasm-0", "meter": "m"}
        assert house.call("POST", "/v1/join", json=join).status_code == 200
    finally:
        house.close()


def test_an_address_that_only_this_machine_can_open_is_said_to_be_one(tmp_path: Path) -> None:
    house = House(tmp_path, Web(port=0))
    try:
        assert "only this machine can open that address" in invite(house)
        assert "only this machine" not in invite(house, "--at", "http://192.168.1.10:8080")
    finally:
        house.close()


def test_no_code_is_made_for_an_address_that_cannot_be_opened(tmp_path: Path) -> None:
    house = House(tmp_path, Web(port=0))
    try:
        assert "is not the address of a daemon" in invite(house, "--at", "grid.example", code=1)
        with house.daemon.store.read() as tx:
            assert tx.count(Invite) == 0
    finally:
        house.close()


def test_no_code_is_made_for_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    house = House(tmp_path, Web(port=0))
    try:
        for option in ("--svg", "--png"):
            assert "there is no folder" in invite(house, option, str(tmp_path / "none" / "qr"), code=1)
        with house.daemon.store.read() as tx:
            assert tx.count(Invite) == 0
    finally:
        house.close()


def test_an_address_in_brackets_is_told_whole(tmp_path: Path) -> None:
    house = House(tmp_path, Web(port=0))
    try:
        assert "gridsched node join http://[fd00::1]:8080 --code" in invite(house, "--at", "http://[fd00::1]:8080")
    finally:
        house.close()


def test_a_daemon_that_listens_everywhere_is_invited_to_by_an_address_of_its_own() -> None:
    assert invitation.in_reach("http://192.168.1.10:8080") == "http://192.168.1.10:8080"
    found = invitation.in_reach("http://0.0.0.0:8080")
    assert re.fullmatch(r"http://\d+\.\d+\.\d+\.\d+:8080", found)
    assert "0.0.0.0" not in found


def test_the_code_of_an_address_is_in_the_part_that_browsers_keep_to_themselves() -> None:
    before, _, after = invitation.join_url("http://pi.local:8080", "ABCD").partition("#")
    assert (before, after) == ("http://pi.local:8080/join", "code=ABCD")


def test_a_picture_has_a_quiet_border_and_no_text_is_too_long_for_it() -> None:
    drawn = invitation.svg("http://a/join#code=B")
    assert "<script" not in drawn
    assert "style" not in drawn
    assert 'd="M4 4.5h7' in drawn
    assert len(invitation.terminal("http://a/join#code=B").splitlines()) >= 10
    for text in ("", "x" * 501):
        with pytest.raises(InvalidInput):
            invitation.svg(text)


def invite(house: House, *words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["invite", "--url", house.url, "--token", "operator", *words])
    assert result.exit_code == code, result.output
    return result.output
