"""Stored files over HTTP: ranged downloads, uploads that go on where they were cut.

What arrives is written piece by piece, so a lost connection costs at most one piece; the digest in the path is checked before the
file counts as stored. An unfinished file is its sender's alone: whatever others send under that digest does not touch it. Ranges as in
RFC 9110 section 14; ``Upload-Offset`` is the word of the resumable-uploads draft.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from gridsched.core.access import Role
from gridsched.core.errors import Conflict, Forbidden, InvalidInput, MessageError, NotFound, StorageFull, TooLarge
from gridsched.core.job import is_digest
from gridsched.ports import Blobs
from gridsched.web.doors import Doors
from gridsched.web.gate import Caller, Gate
from gridsched.web.messages import Gone, header, next_piece

__all__ = ["BlobApi", "Piece", "piece_of"]

PIECE_BYTES = 1 << 20
_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")


class _Download(FileResponse):
    chunk_size = PIECE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Bytes ``[start, stop)`` of a file of ``total`` bytes."""

    start: int
    stop: int
    total: int


def piece_of(content_range: str | None, content_length: int | None) -> Piece:
    """What a PUT brings, by its headers; raises `MessageError` where they do not say, or not the same."""
    if content_range is None:
        if content_length is None:
            raise MessageError("an upload needs Content-Length, or Content-Range: bytes FIRST-LAST/TOTAL")
        return Piece(start=0, stop=content_length, total=content_length)
    match = _RANGE.fullmatch(content_range)
    if match is None:
        raise MessageError(f"Content-Range {content_range!r} must be written bytes FIRST-LAST/TOTAL")
    first, last, total = (int(group) for group in match.groups())
    if not first <= last < total or (content_length is not None and content_length != last - first + 1):
        raise MessageError(f"Content-Range {content_range!r} does not fit its total or the body's length {content_length}")
    return Piece(start=first, stop=last + 1, total=total)


class BlobApi:
    """For nodes and operators alike: a digest is 256 random-looking bits, and whoever knows one was told it by an order."""

    def __init__(self, doors: Doors, gate: Gate) -> None:
        self._blobs = doors.blobs
        self._limits = doors.limits
        self._gate = gate

    def routes(self) -> list[BaseRoute]:
        """GET and HEAD come as one route, PUT as another."""
        path = "/v1/blobs/{digest}"
        return [Route(path, self.serve, methods=["GET", "HEAD", "PUT"])]

    async def serve(self, request: Request) -> Response:
        caller = await self._gate.caller(request.scope)
        if request.method == "PUT" and caller.role is Role.VIEWER:
            raise Forbidden(f"{caller.name} is a token of role {caller.role}; storing a file needs {Role.OPERATOR}")
        digest = request.path_params["digest"]
        if not is_digest(digest):
            raise InvalidInput(f"{digest!r} is not a digest; a blob is named by its sha256 in lower-case hexadecimal")
        if request.method == "PUT":
            return await self._put(request, digest, _sender(caller))
        return await (self._head(digest, _sender(caller)) if request.method == "HEAD" else self._get(digest))

    async def _get(self, digest: str) -> Response:
        path = await asyncio.to_thread(self._blobs.path, digest)
        return _Download(path, media_type="application/octet-stream", headers={"Cache-Control": "immutable, max-age=31536000"})

    async def _head(self, digest: str, by: str) -> Response:
        size, offset = await asyncio.to_thread(_look, self._blobs, digest, by)
        if size is None:
            return Response(status_code=404, headers={"Upload-Offset": str(offset)})
        return Response(headers={"Content-Length": str(size), "Accept-Ranges": "bytes"}, media_type="application/octet-stream")

    async def _put(self, request: Request, digest: str, by: str) -> Response:
        length = header(request.scope, b"content-length")
        piece = piece_of(request.headers.get("content-range"), int(length) if length and length.isdigit() else None)
        if piece.total > self._limits.max_blob_bytes:
            raise TooLarge(f"a file of {piece.total} bytes is over the limit of {self._limits.max_blob_bytes} (max_blob_bytes)")
        size, offset = await asyncio.to_thread(_look, self._blobs, digest, by)
        if size is not None:
            return Response(status_code=204)
        if offset == 0:
            self._demand_room()
        if piece.start > offset:
            raise Conflict(f"blob {digest}: the next byte is {offset}, not {piece.start}; ask with HEAD and go on from Upload-Offset")
        whole = await self._receive(request, digest, piece, by)
        return Response(status_code=204) if whole else Response(status_code=202, headers={"Upload-Offset": str(piece.stop)})

    async def _receive(self, request: Request, digest: str, piece: Piece, by: str) -> bool:
        """Write what arrives, a piece at a time; where the caller hangs up, what had arrived is kept."""
        at, waiting, whole = piece.start, bytearray(), False
        append = partial(_append, self._blobs, digest, total=piece.total, by=by)
        try:
            async for chunk in _chunks(request):
                waiting += chunk
                if at + len(waiting) > piece.stop:
                    raise TooLarge(f"blob {digest}: more bytes came than the headers announced")
                if len(waiting) >= PIECE_BYTES:
                    whole = await asyncio.to_thread(append, bytes(waiting), at)
                    at, waiting = at + len(waiting), bytearray()
        except Gone:
            await asyncio.to_thread(append, bytes(waiting), at)
            raise
        if at + len(waiting) != piece.stop:
            raise MessageError(f"blob {digest}: {at + len(waiting)} bytes came where {piece.stop} were announced; send the rest")
        if waiting or piece.total == 0:
            whole = await asyncio.to_thread(append, bytes(waiting), at)
        return whole

    def _demand_room(self) -> None:
        """Refuse one file too many. An unfinished one counts too, or one byte each would make files without end."""
        files = self._blobs.files
        if files >= self._limits.max_blobs:
            raise StorageFull(f"{files} files are stored, which is the limit (max_blobs); raise it or wait for the next clean-up")


def _sender(caller: Caller) -> str:
    """Whose an unfinished file is; a node and a token may have the same name."""
    return f"{caller.role}:{caller.name}"


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """The body as it arrives; raises `Gone` where it ends too early."""
    while True:
        message = await next_piece(request.receive)
        yield message.get("body", b"")
        if not message.get("more_body"):
            return


def _look(blobs: Blobs, digest: str, by: str) -> tuple[int | None, int]:
    """The size where the file is whole, and how much of it there is otherwise."""
    try:
        return blobs.size(digest), 0
    except NotFound:
        return None, blobs.offset(digest, by=by)


def _append(blobs: Blobs, digest: str, data: bytes, at: int, *, total: int, by: str) -> bool:
    """Append what is not there yet: an overlap is the same bytes again, because a digest names only one file.

    Where all bytes are there and only their publishing is not (the daemon was killed between the two), appending nothing publishes them.
    """
    if blobs.has(digest):
        return True
    have = blobs.offset(digest, by=by)
    fresh = data[have - at :] if have > at else data
    if not fresh and have < total:
        return False
    return blobs.append(digest, fresh, offset=max(have, at), total=total, by=by)
