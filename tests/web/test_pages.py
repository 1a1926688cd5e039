"""The pages: their files, how they are cached, and the policy they come under."""

import asyncio
import gzip
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from starlette.routing import Router
from starlette.types import ASGIApp, Message

from gridsched.core.errors import NotFound
from gridsched.web.pages import page_routes
from gridsched.web.shelf import Shelf
from tests.web.conftest import House

SCRIPT = b"const surplus = 1;\n" * 50
HASHED = "join-ABCDEFGH.js"


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Visitor:
    """Asks for a path just as it stands: an HTTP library would tidy up what leads astray."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def get(self, path: str, headers: Mapping[str, str] = {}) -> Answer:
        answer = Answer()

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            answer.body += message.get("body", b"")

        async def receive() -> Message:
            return {"type": "http.request"}

        told = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": told, "root_path": "", "app": self}

        async def call() -> None:
            await self._app(scope, receive, send)

        with ThreadPoolExecutor(1) as aside:  # a browser of other tests may hold this thread's loop
            aside.submit(asyncio.run, call()).result()
        return answer


@pytest.fixture
def built(tmp_path: Path) -> Path:
    pages = tmp_path / "built" / "pages"
    (pages / "icons").mkdir(parents=True)
    for name in ("join.html", "console.html"):
        (pages / name).write_bytes(f"<title>{name}</title>".encode() * 20)
    (pages / "manifest.webmanifest").write_bytes(b"{}")
    for name in (HASHED, "sw.js"):
        (pages / name).write_bytes(SCRIPT)
    (pages / "icons" / "icon.png").write_bytes(b"\x89PNG")
    (pages / "join.js.map").write_bytes(b"{}")
    (tmp_path / "built" / "kernels.wasm").write_bytes(b"\0asm" + bytes(1000))
    (tmp_path / "built" / "secret.js").write_bytes(b"not to be served")
    return tmp_path / "built"


@pytest.fixture
def visitor(built: Path) -> Visitor:
    return Visitor(Router(page_routes(built)))


def test_the_status_page_and_its_parts_come_under_a_strict_policy(house: House) -> None:
    for path in ("/", "/static/status.css", "/static/status.js"):
        answer = house.call("GET", path)
        assert answer.status_code == 200, path
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    page = house.call("GET", "/").text
    assert "http://" not in page
    assert "https://" not in page
    assert "onclick" not in page
    assert "<script>" not in page
    assert house.call("GET", "/static/../config.py").status_code == 404


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/join", "text/html; charset=utf-8"),
        ("/console", "text/html; charset=utf-8"),
        ("/join/manifest.webmanifest", "application/manifest+json"),
        ("/join/sw.js", "text/javascript; charset=utf-8"),
        (f"/static/{HASHED}", "text/javascript; charset=utf-8"),
        ("/static/icons/icon.png", "image/png"),
        ("/static/kernels.wasm", "application/wasm"),
    ],
)
def test_every_built_file_comes_isolated_and_under_a_strict_policy(visitor: Visitor, path: str, media_type: str) -> None:
    answer = visitor.get(path)
    assert answer.status == 200
    assert answer.headers["content-type"] == media_type
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["cross-origin-embedder-policy"] == "require-corp"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self' 'wasm-unsafe-eval';")
    assert "unsafe-inline" not in policy
    assert "*" not in policy


def test_a_hashed_name_is_kept_for_good_and_a_page_is_asked_for_each_time(visitor: Visitor) -> None:
    assert "immutable" in visitor.get(f"/static/{HASHED}").headers["cache-control"]
    page = visitor.get("/join")
    assert page.headers["cache-control"] == "no-cache"
    again = visitor.get("/join", headers={"If-None-Match": page.headers["etag"]})
    assert (again.status, again.body) == (304, b"")


def test_a_page_that_is_built_anew_is_served_anew(visitor: Visitor, built: Path) -> None:
    before = visitor.get("/join").headers["etag"]
    (built / "pages" / "join.html").write_bytes(b"<title>new</title>")
    now = visitor.get("/join", headers={"If-None-Match": before})
    assert (now.status, now.body) == (200, b"<title>new</title>")


def test_the_service_worker_may_rule_the_page_above_it(visitor: Visitor) -> None:
    assert visitor.get("/join/sw.js").headers["service-worker-allowed"] == "/join"
    assert "service-worker-allowed" not in visitor.get("/join").headers


def test_text_and_kernels_travel_compressed_to_whoever_takes_it(visitor: Visitor) -> None:
    for path in (f"/static/{HASHED}", "/static/kernels.wasm"):
        packed = visitor.get(path, headers={"Accept-Encoding": "br, gzip;q=0.8"})
        assert packed.headers["content-encoding"] == "gzip"
        whole = visitor.get(path, headers={"Accept-Encoding": "gzip;q=0"})
        assert "content-encoding" not in whole.headers
        assert gzip.decompress(packed.body) == whole.body
        assert len(packed.body) < len(whole.body) / 2


def test_what_was_compressed_when_it_was_built_is_sent_unless_it_is_of_something_else(built: Path) -> None:
    best = gzip.compress(SCRIPT, compresslevel=9, mtime=7)
    (built / "pages" / f"{HASHED}.gz").write_bytes(best)
    found = Shelf(built / "pages").find(HASHED)
    assert found is not None
    assert found.gzipped == best
    (built / "pages" / f"{HASHED}.gz").write_bytes(gzip.compress(b"an older build"))
    found = Shelf(built / "pages").find(HASHED)
    assert found is not None
    assert found.gzipped is not None
    assert gzip.decompress(found.gzipped) == SCRIPT


@pytest.mark.parametrize(
    "name",
    ["../secret.js", "icons/../../secret.js", "/secret.js", "linked.js", "join.js.map", "icons", ".hidden.js", "a\0.js", "nowhere.js"],
)
def test_no_path_leads_out_of_the_folder_and_only_known_kinds_are_served(visitor: Visitor, built: Path, name: str) -> None:
    (built / "pages" / "linked.js").symlink_to(built / "secret.js")
    (built / "pages" / ".hidden.js").write_bytes(b"not to be served")
    assert Shelf(built / "pages").find(name) is None
    with pytest.raises(NotFound):
        visitor.get(f"/static/{name}")


def test_a_page_that_is_not_built_says_how_to_build_it(tmp_path: Path) -> None:
    visitor = Visitor(Router(page_routes(tmp_path / "nowhere")))
    for path in ("/join", "/console"):
        answer = visitor.get(path)
        assert answer.status == 404
        assert b"make setup" in answer.body
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_file_that_is_not_there_is_refused_like_anything_else(house: House) -> None:
    answer = house.call("GET", "/static/join-AAAAAAAA.js")
    assert answer.status_code == 404
    assert answer.json()["error"] == "NotFound"
