"""Which daemon a command speaks to, and whose token it shows there: what is said here goes before what was exported once."""

from pathlib import Path

import pytest
import requests

from gridsched.core.errors import ConfigError
from gridsched.remote import connect

ELSEWHERE = "https://grid.example"


@pytest.fixture(autouse=True)
def nothing_exported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("URL", "TOKEN", "SITE"):
        monkeypatch.delenv(f"GRIDSCHED_{name}", raising=False)
    monkeypatch.chdir(tmp_path)


def site(folder: Path, *, port: int) -> Path:
    """A site whose daemon is at ``port``, with a token named after its folder."""
    folder.mkdir()
    (folder / "gridsched.toml").write_text(f'[web]\nport = {port}\n\n[[zone]]\nname = "z"\npolicy = "p.toml"\n')
    (folder / "operator.token").write_text(f"{folder.name}s-own\n")
    return folder


def reached(**named: str | Path) -> tuple[str, str]:
    """The address, and the token that a request carries there."""
    operator = connect(**named)  # type: ignore[arg-type]
    request = operator._session.prepare_request(requests.Request("GET", operator.url))
    operator.close()
    return operator.url, request.headers.get("Authorization", "").removeprefix("Bearer ")


@pytest.mark.parametrize("exported", [("URL",), ("TOKEN",), ("URL", "TOKEN"), ("URL", "TOKEN", "SITE")], ids="+".join)
def test_a_site_that_is_named_is_meant_whatever_is_exported(
    exported: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"URL": ELSEWHERE, "TOKEN": "exported", "SITE": str(site(tmp_path / "a", port=1111))}
    for name in exported:
        monkeypatch.setenv(f"GRIDSCHED_{name}", values[name])
    staging = site(tmp_path / "b", port=2222)
    assert reached(site=staging) == ("http://127.0.0.1:2222", "bs-own")
    assert reached(site=staging, token="mine") == ("http://127.0.0.1:2222", "mine")
    (staging / "data").mkdir()
    (staging / "data" / "url").write_text("http://127.0.0.1:3333\n")
    assert reached(site=staging) == ("http://127.0.0.1:3333", "bs-own")


def test_a_sites_token_goes_to_no_address_but_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = site(tmp_path / "a", port=1111)
    with pytest.raises(ConfigError, match=f"{ELSEWHERE} needs a token.*--token"):
        connect(url=ELSEWHERE, site=home)
    monkeypatch.setenv("GRIDSCHED_SITE", str(home))
    with pytest.raises(ConfigError, match=f"{ELSEWHERE} needs a token.*--token"):
        connect(url=ELSEWHERE)
    assert reached(url="http://127.0.0.1:1111/") == ("http://127.0.0.1:1111", "as-own")
    monkeypatch.setenv("GRIDSCHED_URL", ELSEWHERE)
    with pytest.raises(ConfigError, match="needs a token"):
        connect()
    monkeypatch.setenv("GRIDSCHED_TOKEN", "exported")
    assert reached(url="https://b") == ("https://b", "exported")


def test_what_is_exported_goes_before_the_site_in_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site(tmp_path / "here", port=1111))
    assert reached() == ("http://127.0.0.1:1111", "heres-own")
    monkeypatch.setenv("GRIDSCHED_SITE", str(site(tmp_path / "a", port=2222)))
    assert reached() == ("http://127.0.0.1:2222", "as-own")
    monkeypatch.setenv("GRIDSCHED_URL", ELSEWHERE)
    monkeypatch.setenv("GRIDSCHED_TOKEN", "exported")
    assert reached() == (ELSEWHERE, "exported")
