"""A daemon seen from outside by its operator, a model owner or a watcher: the operator API as a small client."""

import hashlib
from pathlib import Path
from typing import Any, cast

import msgspec

from gridsched import config
from gridsched.core.errors import BlobCorrupt, ConfigError, Unreachable
from gridsched.core.settings import Settings
from gridsched.node.client import PIECE_BYTES, Client

__all__ = ["Operator", "connect"]


class Operator(Client):
    """One thread's way to the operator API; answers are the JSON it gives. Errors are as in `Client`."""

    def get(self, path: str, **params: object) -> Any:
        """The answer to ``GET path``; parameters that are None are left out."""
        with self._answer("GET", path, params={name: value for name, value in params.items() if value is not None}) as answer:
            return _json(answer.content, f"{self.url}{path}")

    def text(self, path: str, **params: object) -> str:
        """The answer to ``GET path`` as text."""
        with self._answer("GET", path, params=params) as answer:
            return answer.text

    def post(self, path: str, body: object = None) -> Any:
        """The answer to ``POST path`` with ``body`` (any record or message) as JSON; None where it has no content."""
        data = msgspec.json.encode({} if body is None else body)
        with self._answer("POST", path, data=data, headers={"Content-Type": "application/json"}) as answer:
            return _json(answer.content, f"{self.url}{path}") if answer.content else None

    def put_blob(self, data: bytes) -> str:
        """Store ``data``, in pieces, going on where an earlier try was cut; its digest."""
        digest = hashlib.sha256(data).hexdigest()
        offset = self._received(digest, len(data))
        while offset < len(data):
            offset = self._put_piece(digest, data[offset : offset + PIECE_BYTES], offset, len(data))
        return digest

    def get_blob(self, digest: str) -> bytes:
        """The stored bytes, checked; raises `BlobCorrupt`."""
        with self.blob(digest) as (_, pieces):
            data = b"".join(pieces)
        if hashlib.sha256(data).hexdigest() != digest:
            raise BlobCorrupt(f"blob {digest[:12]} arrived damaged; try again")
        return data


def connect(*, url: str | None = None, token: str | None = None, site: Path | None = None) -> Operator:
    """The daemon that the options name, else the environment, else the site in this folder.

    A ``site`` that is given is meant: the environment's address and token are not for it. Its own token goes to no address but its own.
    Raises `ConfigError` where nothing names a daemon, or no token is for the address that was named.
    """
    told = config.client()
    if site is None:
        url, token, site = url or told.url, token or told.token, told.site
    if site is None and not url and Path(config.FILE).is_file():
        site = Path()
    if site is not None and not (url and token):
        settings = config.load(site)
        own = _address(settings)
        if not token and (not url or url.rstrip("/") == own):
            return Operator(own, _token(settings))
        url = url or own
    if not url:
        raise ConfigError(
            "which daemon? Name its site with --site DIR, or its address with --url and --token (or GRIDSCHED_URL, GRIDSCHED_TOKEN)"
        )
    if not token:
        raise ConfigError(
            f"{url} needs a token: give it with --token, or with GRIDSCHED_TOKEN where no --site is named; "
            "a site's own operator.token is sent to that site's address alone"
        )
    return Operator(url, token)


def _address(settings: Settings) -> str:
    """Where a site's daemon says it is, else where it will be."""
    running = settings.site.data / "url"
    written = running.read_text(encoding="utf-8").strip() if running.is_file() else ""
    return (written or f"http://{settings.web.host}:{settings.web.port}").rstrip("/")


def _token(settings: Settings) -> str:
    """The token that a site's maker left there; empty where there is none."""
    return settings.token_file.read_text(encoding="utf-8").strip() if settings.token_file.is_file() else ""


def _json(content: bytes, where: str) -> Any:
    try:
        return cast("Any", msgspec.json.decode(content))
    except msgspec.DecodeError as error:
        raise Unreachable(f"{where} answered with something else than JSON; is this a gridsched daemon?") from error
