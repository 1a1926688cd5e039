"""What a site's secrets are worth: made whole or not at all, never so short that they could be guessed, and an empty one lets nobody in."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gridsched import sites
from gridsched.core.access import Role, secret_hash
from gridsched.core.errors import ConfigError, StorageFull, Unauthorized
from gridsched.core.settings import Settings
from gridsched.flow import admit
from gridsched.store.sql import SqlStore
from gridsched.web.gate import SUBPROTOCOL, Gate

NOON = datetime(2018, 1, 28, 12, tzinfo=UTC)
SECRETS: list[tuple[str, Callable[[Settings], object]]] = [
    ("operator.token", sites.write_token),
    ("data/audit.secret", sites.audit_secret),
]


@pytest.fixture
def site(tmp_path: Path) -> Settings:
    return sites.make_site(tmp_path / "site")


@pytest.mark.parametrize(("name", "make"), SECRETS)
@pytest.mark.parametrize("left", ["", "\n"])
def test_an_empty_file_that_a_crash_has_left_is_filled(site: Settings, name: str, make: Callable[[Settings], object], left: str) -> None:
    path = site.folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(left, encoding="utf-8")
    make(site)
    secret = path.read_text(encoding="utf-8")
    assert len(secret.strip()) >= 32
    assert path.stat().st_mode & 0o777 == 0o600
    make(site)
    assert path.read_text(encoding="utf-8") == secret


def test_a_secret_without_room_leaves_no_file(site: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    site.token_file.unlink()
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageFull):
        sites.write_token(site)
    assert not site.token_file.exists()


@pytest.mark.parametrize(("name", "read"), [("operator.token", sites.operator_token), ("data/audit.secret", sites.audit_secret)])
def test_a_secret_that_could_be_guessed_starts_no_site(site: Settings, name: str, read: Callable[[Settings], object]) -> None:
    path = site.folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("0123456789abcde\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"15 characters.*delete the file"):
        read(site)
    path.write_text("0123456789abcdef\n", encoding="utf-8")
    assert read(site) in ("0123456789abcdef", b"0123456789abcdef")


def test_a_site_without_a_token_has_none(site: Settings) -> None:
    site.token_file.unlink()
    assert sites.operator_token(site) is None


@pytest.mark.parametrize(
    "scope",
    [
        {"type": "websocket", "headers": [], "subprotocols": [SUBPROTOCOL, "token."]},
        {"type": "http", "headers": [(b"authorization", b"Bearer  ")]},
        {"type": "http", "headers": [(b"authorization", b"Bearer ")]},
    ],
)
def test_an_empty_token_is_nobodys_whatever_has_been_stored(tmp_path: Path, scope: dict[str, Any]) -> None:
    store = SqlStore(f"sqlite:///{tmp_path / 'site.sqlite'}")
    store.upgrade()
    with store.write() as tx:
        admit.site_token(tx, NOON, token_hash=secret_hash(""))

    async def ask() -> None:
        await Gate(store, calls_per_s=10).demand(scope, Role.VIEWER)

    with ThreadPoolExecutor(1) as aside, pytest.raises(Unauthorized, match="Authorization"):
        aside.submit(asyncio.run, ask()).result()  # a browser of other tests may hold this thread's loop
    store.close()
