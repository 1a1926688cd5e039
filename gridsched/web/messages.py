"""Bodies in, bodies out: bounded reading, strict parsing, and one way to say what went wrong."""

import asyncio
import logging
import secrets
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Message, Receive, Scope

from gridsched.core.errors import Busy, GridschedError, InvalidInput, MessageError, TooLarge, Unauthorized, http_status
from gridsched.core.quantity import unknown_key
from gridsched.wire import Problem, encode

__all__ = ["Gone", "answer", "hang_up", "header", "next_piece", "problem", "read_body", "strict"]

log = logging.getLogger(__name__)
T = TypeVar("T")

JSON = "application/json"
_RETRY_AFTER_S = "1"
_SILENT_S = 60.0
"""A body of which nothing came for so long is waited for no longer: a caller may vanish without a word."""


class Gone(Exception):
    """The caller hung up, or fell silent, before the end of its message."""


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of that lower-case name."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


async def read_body(scope: Scope, receive: Receive, *, limit: int) -> bytes:
    """The whole body; raises `TooLarge` as soon as its announced or received size passes ``limit`` bytes."""
    announced = header(scope, b"content-length")
    if announced is not None and (not announced.isdigit() or int(announced) > limit):
        raise TooLarge(f"the body of {announced.decode('latin-1')} bytes is over the limit of {limit}")
    body = bytearray()
    while True:
        message = await next_piece(receive)
        body += message.get("body", b"")
        if len(body) > limit:
            raise TooLarge(f"the body is over the limit of {limit} bytes")
        if not message.get("more_body"):
            return bytes(body)


async def next_piece(receive: Receive) -> Message:
    """The next message of a body; raises `Gone` where the caller has hung up, or has sent nothing for a minute."""
    try:
        async with asyncio.timeout(_SILENT_S):
            message = await receive()
    except TimeoutError as error:
        raise Gone from error
    if message["type"] == "http.disconnect":
        raise Gone
    return message


def strict(data: bytes, kind: type[T]) -> T:
    """``data`` as the record ``kind``, with unknown keys refused at any depth; raises `MessageError` or the record's own `InvalidInput`."""
    try:
        plain = msgspec.json.decode(data)
        _refuse_unknown(plain, kind, "")
        return msgspec.convert(plain, kind)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        if isinstance(error.__cause__, InvalidInput):
            raise error.__cause__ from error
        raise MessageError(f"this is not a {kind.__name__}: {error}") from error


def _refuse_unknown(value: object, kind: Any, where: str) -> None:
    if not (isinstance(value, dict) and is_dataclass(kind)):
        return
    hints = get_type_hints(kind)
    known = [f.name for f in fields(kind)]
    for key, child in value.items():
        if key not in hints:
            raise MessageError(f"{where}{unknown_key(str(key), known)}")
        _refuse_unknown(child, hints[key], f"{where}{key}.")


def answer(value: object, *, status: int = 200) -> Response:
    """Any message or record as JSON."""
    return Response(encode(value), status_code=status, media_type=JSON)


def problem(error: Exception) -> Response:
    """The one way errors leave: class name and public sentence, under the status of the error table.

    What nobody foresaw is logged once with a reference, and only the reference is told.
    """
    if isinstance(error, GridschedError):
        body = Problem(error=type(error).__name__, detail=str(error), reason=str(getattr(error, "reason", "")))
        return Response(encode(body), status_code=http_status(error), media_type=JSON, headers=_headers(error))
    if isinstance(error, HTTPException):
        body = Problem(
            error="NotFound" if error.status_code == 404 else "MethodNotAllowed",
            detail=f"{error.detail}; the paths are in gridsched/wire.py",
        )
        return Response(encode(body), status_code=error.status_code, media_type=JSON, headers=dict(error.headers or {}))
    reference = secrets.token_hex(4)
    log.error("a request failed (reference %s)", reference, exc_info=error, extra={"action": "request_failed", "reference": reference})
    body = Problem(error="InternalError", detail=f"something went wrong here; the operator finds it in the log under reference {reference}")
    return Response(encode(body), status_code=500, media_type=JSON)


def hang_up() -> Response:
    """What ends the connection of one that is `Gone`: who only fell silent hears it and may send all of it again, the others do not."""
    said = problem(Busy(f"nothing more of the body came for {_SILENT_S:g} s; send it again"))
    said.headers["Connection"] = "close"
    return said


def _headers(error: GridschedError) -> Mapping[str, str]:
    if isinstance(error, Busy):
        return {"Retry-After": _RETRY_AFTER_S}
    if isinstance(error, TooLarge):
        return {"Connection": "close"}  # the rest of the body is not worth reading
    if isinstance(error, Unauthorized):
        return {"WWW-Authenticate": "Bearer"}
    return {}
