"""The pages: the status page, and the two that are built (`browser/`), under a strict content policy and with no third party.

Pages are isolated from other origins (COOP, COEP), so that nothing they load can be read from elsewhere and a browser may give them
shared memory. Everything comes from this server: ``default-src 'none'`` and no exception to it.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from gridsched.core.errors import NotFound
from gridsched.web.shelf import Item, Shelf

__all__ = ["BUILT", "page_routes"]

BUILT = Path(__file__).resolve().parent.parent / "_built"
"""Where set-up builds ``kernels.wasm`` and ``pages/``; a wheel brings them along."""

_STATIC = Path(__file__).resolve().parent / "static"
_STATUS = {
    "/": ("index.html", "text/html"),
    "/static/status.css": ("status.css", "text/css"),
    "/static/status.js": ("status.js", "text/javascript"),
}
_PAGES = {
    "/join": "join.html",
    "/console": "console.html",
    "/join/manifest.webmanifest": "manifest.webmanifest",
    "/join/sw.js": "sw.js",
}
_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PRIVATE: Mapping[str, str] = MappingProxyType({"Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"})
_STATUS_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    **_PRIVATE,
}
_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": _POLICY,
        "Cross-Origin-Embedder-Policy": "require-corp",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        **_PRIVATE,
    }
)
_SCOPE = {"Service-Worker-Allowed": "/join"}  # a worker at /join/sw.js may not rule /join itself otherwise
_NOT_BUILT = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>gridsched</title>
<p>This page is not built here. In a checkout, run <code>make setup</code>; an installed release brings it along.</p></html>
"""


def page_routes(built: Path = BUILT) -> list[BaseRoute]:
    """``/``, the built pages in ``built``, and what all of them need."""
    pages, kernels = Shelf(built / "pages"), Shelf(built)
    return [
        *(Route(path, _status, methods=["GET"]) for path in _STATUS),
        *(Route(path, partial(_page, look=partial(pages.find, name)), methods=["GET"]) for path, name in _PAGES.items()),
        Route("/static/kernels.wasm", partial(_static, look=lambda _: kernels.find("kernels.wasm")), methods=["GET"]),
        Route("/static/{name:path}", partial(_static, look=pages.find), methods=["GET"]),
    ]


async def _status(request: Request) -> Response:
    name, media_type = _STATUS[request.url.path]
    return FileResponse(_STATIC / name, media_type=media_type, headers=_STATUS_HEADERS)


async def _page(request: Request, *, look: Callable[[], Item | None]) -> Response:
    found = await asyncio.to_thread(look)
    if found is None:
        return HTMLResponse(_NOT_BUILT, status_code=404, headers=dict(_HEADERS))
    return _answer(request, found, _SCOPE if request.url.path.endswith("/sw.js") else {})


async def _static(request: Request, *, look: Callable[[str], Item | None]) -> Response:
    name = request.path_params.get("name", "kernels.wasm")
    found = await asyncio.to_thread(look, name)
    if found is None:
        raise NotFound(f"there is no file {name[:80]} among the built pages; load the page again, or build them with make setup")
    return _answer(request, found, {})


def _answer(request: Request, item: Item, more: Mapping[str, str]) -> Response:
    caching = "public, immutable, max-age=31536000" if item.forever else "no-cache"
    headers = {**_HEADERS, **more, "Cache-Control": caching, "ETag": item.etag, "Vary": "Accept-Encoding"}
    if item.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if item.gzipped is not None and _takes_gzip(request):
        return Response(item.gzipped, media_type=item.media_type, headers=headers | {"Content-Encoding": "gzip"})
    return Response(item.body, media_type=item.media_type, headers=headers)


def _takes_gzip(request: Request) -> bool:
    offers = (offer.strip().partition(";") for offer in request.headers.get("accept-encoding", "").split(","))
    return any(name.strip() == "gzip" and weight.strip() not in ("q=0", "q=0.0") for name, _, weight in offers)
