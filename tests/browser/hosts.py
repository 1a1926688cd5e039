"""The trainer of the pages in its hosts, Node and Chromium: bundled once, asked in JSON (see ``perform.ts``)."""

import base64
import functools
import json
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gridsched.core.work import UnitSpec

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = [
    "CHROMIUM_ARGUMENTS",
    "ESBUILD",
    "KERNELS",
    "Ask",
    "Host",
    "HostError",
    "bundle",
    "chromium_host",
    "headless",
    "node_host",
    "spec_json",
]

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
ESBUILD = REPOSITORY / "browser" / "node_modules" / ".bin" / "esbuild"
KERNELS = REPOSITORY / "gridsched" / "_built" / "kernels.wasm"
# A browser that asks nobody outside, and needs no privileges and no graphics.
CHROMIUM_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
CHROMIUM_ARGUMENTS += ["--disable-background-networking", "--disable-component-update"]


class HostError(Exception):
    """What the trainer said it cannot do."""


class Ask(Protocol):
    """One request as JSON, to one answer as JSON."""

    def __call__(self, request: str, /) -> str: ...


@dataclass(frozen=True, slots=True)
class Host:
    """A host with the kernels loaded."""

    name: str
    ask: Ask

    def perform(self, command: str, files: Mapping[str, bytes] | None = None, **options: Any) -> tuple[Any, dict[str, bytes]]:
        """The answer and the files that were made; HostError where the trainer refuses."""
        given = {name: base64.b64encode(data).decode() for name, data in (files or {}).items()}
        found = json.loads(self.ask(json.dumps({"command": command, "options": options, "files": given})))
        if "error" in found:
            raise HostError(found["error"])
        return found["answer"], {name: base64.b64decode(data) for name, data in found["files"].items()}


def spec_json(spec: UnitSpec) -> dict[str, Any]:
    """A spec as it travels."""
    return asdict(spec)


def bundle(module: str, folder: Path, *more: str) -> Path:
    """``module`` of this folder with all it imports, as one script in ``folder``."""
    out = folder / f"{Path(module).stem}.js"
    command = [str(ESBUILD), str(HERE / module), "--bundle", "--format=esm", "--log-level=warning", f"--outfile={out}", *more]
    subprocess.run(command, check=True, cwd=REPOSITORY / "browser")
    return out


@contextmanager
def node_host(folder: Path) -> Iterator[Host]:
    """A Node process until the end of the context."""
    command = ["node", str(HERE / "node.mjs"), str(bundle("perform.ts", folder))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        take, give = process.stdin, process.stdout

        def ask(request: str, /) -> str:
            take.write(request + "\n")
            take.flush()
            return give.readline()

        yield _loaded(Host("node", ask))
        take.close()
        process.wait(10)


@contextmanager
def headless() -> Iterator["Browser"]:
    """A headless Chromium until the end of the context. A process has room for one Playwright, so all tests share this one."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def chromium_host(folder: Path, browser: "Browser | None" = None) -> Iterator[Host]:
    """A Web Worker in a page of ``browser``, or of one of its own, until the end of the context."""
    bundle("worker.ts", folder)
    (folder / "index.html").write_text("<!doctype html><title>trainer</title>", encoding="utf-8")
    with _served(folder) as address, nullcontext(browser) if browser else headless() as found:
        page = found.new_page()
        page.goto(address)
        page.evaluate("window.worker = new Worker('worker.js', { type: 'module' })")
        script = "request => new Promise((done) => { worker.onmessage = ({ data }) => done(data); worker.postMessage(request); })"

        def ask(request: str, /) -> str:
            return str(page.evaluate(script, request))

        yield _loaded(Host("chromium", ask))
        page.close()


def _loaded(host: Host) -> Host:
    host.perform("load", {"kernels": KERNELS.read_bytes()})
    return host


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
        """Nobody reads it."""


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
