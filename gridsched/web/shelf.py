"""Files that were built and do not change while they are served: read once, compressed once, told apart by their digest."""

import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

__all__ = ["Item", "Shelf"]

_TYPES: Mapping[str, str] = MappingProxyType(
    {
        ".css": "text/css; charset=utf-8",
        ".html": "text/html; charset=utf-8",
        ".ico": "image/x-icon",
        ".js": "text/javascript; charset=utf-8",
        ".json": "application/json",
        ".png": "image/png",
        ".svg": "image/svg+xml",
        ".txt": "text/plain; charset=utf-8",
        ".wasm": "application/wasm",
        ".webmanifest": "application/manifest+json",
        ".woff2": "font/woff2",
    }
)
_PACKED = (".ico", ".png", ".woff2")  # compressed already
_STEP = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
_NAME = re.compile(rf"{_STEP}(?:/{_STEP})*")
_HASHED = re.compile(r".*-[A-Z2-7]{8}\.[a-z0-9]+")  # as esbuild names what it has hashed


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """``body`` and, where that is shorter, ``gzipped``; ``etag`` names the bytes; ``forever``: the name changes when they do."""

    body: bytes
    gzipped: bytes | None
    etag: str
    media_type: str
    forever: bool


class Shelf:
    """The files of ``folder`` by their paths within it, in memory once asked for. One that is built anew is read anew.

    Safe to use from several threads: two that come at once do the same work twice.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._items: dict[str, tuple[tuple[int, int], Item]] = {}

    def find(self, name: str) -> Item | None:
        """The file of that name; None where there is none, where its kind is not served, or where it lies outside the folder."""
        media_type = _TYPES.get(Path(name).suffix)
        if media_type is None or _NAME.fullmatch(name) is None:
            return None
        path = self._folder / name
        try:
            if not path.resolve().is_relative_to(self._folder.resolve()):  # a link that leads elsewhere
                return None
            seen = path.stat()
            stamp = (seen.st_mtime_ns, seen.st_size)
            kept = self._items.get(name)
            if kept is None or kept[0] != stamp:
                kept = self._items[name] = stamp, _read(path, media_type)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        return kept[1]


def _read(path: Path, media_type: str) -> Item:
    body = path.read_bytes()
    packed = None if path.suffix in _PACKED else _packed(path, body)
    return Item(
        body=body,
        gzipped=packed if packed is not None and len(packed) < len(body) else None,
        etag=f'"{hashlib.sha256(body).hexdigest()[:32]}"',
        media_type=media_type,
        forever=_HASHED.fullmatch(path.name) is not None,
    )


def _packed(path: Path, body: bytes) -> bytes:
    """What lies compressed beside the file, if that is this very file."""
    try:
        beside = path.with_name(f"{path.name}.gz").read_bytes()
        if gzip.decompress(beside) == body:
            return beside
    except (OSError, EOFError):  # not there, or not whole
        pass
    return gzip.compress(body, mtime=0)
