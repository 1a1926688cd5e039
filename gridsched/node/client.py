"""The daemon's node API as functions: one kept-alive session, every failure as one of our own errors."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import requests

from gridsched.core import errors
from gridsched.core.errors import GridschedError, InvalidInput, MessageError, NotFound, Unreachable
from gridsched.wire import (
    ConsentChoice,
    HandOver,
    Hello,
    Join,
    Joined,
    Leave,
    Left,
    Orders,
    Problem,
    Statement,
    Sync,
    UpdateNotice,
    decode,
    encode,
)

__all__ = ["PIECE_BYTES", "SMALL_BYTES", "Client", "error_from"]

T = TypeVar("T")
log = logging.getLogger(__name__)

PIECE_BYTES = 4 << 20
"""What one request uploads at most: a cut costs no more than this."""

SMALL_BYTES = 1 << 20
"""A file up to this size is sent at once: asking first what of it is there would take as long as sending it again."""

_CHUNK_BYTES = 1 << 18
_NAMED: Mapping[str, type[GridschedError]] = MappingProxyType(
    {name: kind for name in errors.__all__ if isinstance(kind := getattr(errors, name), type) and issubclass(kind, GridschedError)}
)
_UNSIGNED: Mapping[int, type[GridschedError]] = MappingProxyType({404: NotFound, 503: errors.Busy, 507: errors.StorageFull})
"""What a status means where the daemon says nothing: each is tried again. What ends work or a node is believed of the daemon alone."""

_BY_STATUS: Mapping[int, type[GridschedError]] = MappingProxyType(
    {**_UNSIGNED, 401: errors.Unauthorized, 403: errors.Forbidden, 409: errors.Conflict, 413: errors.TooLarge}
)


class _Bearer(requests.auth.AuthBase):
    """The token as a header. Being ``auth``, it also keeps ``requests`` from looking into ``~/.netrc``."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class Client:
    """One thread's way to the daemon. ``url`` is its root; ``token`` is empty before joining.

    Every method raises `Unreachable` where there is no whole answer, else the error that the daemon names.
    """

    def __init__(self, url: str, token: str = "", *, connect_s: float = 5.0, read_s: float = 30.0) -> None:
        if not re.match(r"https?://[^/]", url):
            raise InvalidInput(f"{url!r} is not the address of a daemon; write it like http://192.168.1.10:8080")
        self.url = url.rstrip("/")
        self._timeout = (connect_s, read_s)
        self._session = requests.Session()
        self._session.auth = _Bearer(token)

    def join(self, message: Join) -> Joined:
        """Enrol with a one-time code."""
        return self._post("/v1/join", message, Joined)

    def hello(self, message: Hello) -> Orders:
        """Take the node over for this agent."""
        return self._post("/v1/node/hello", message, Orders)

    def sync(self, message: Sync) -> Orders:
        """Report, and get the orders."""
        return self._post("/v1/node/sync", message, Orders)

    def choose(self, message: ConsentChoice) -> Orders:
        """Pass the owner's choice on."""
        return self._post("/v1/node/consent", message, Orders)

    def hand_over(self, message: HandOver) -> Orders:
        """Give a unit back in its middle."""
        return self._post("/v1/node/hand-over", message, Orders)

    def update(self, message: UpdateNotice) -> Orders:
        """Hand a finished unit in."""
        return self._post("/v1/node/update", message, Orders)

    def statement(self) -> Statement:
        """What this node has earned."""
        with self._answer("GET", "/v1/node/statement") as answer:
            return _decoded(answer, Statement)

    def record(self) -> bytes:
        """All that the daemon stores about this node, as JSON."""
        with self._answer("GET", "/v1/node/record") as answer:
            return answer.content

    def leave(self, message: Leave) -> Left:
        """End this node's membership; its token is worth nothing afterwards."""
        return self._post("/v1/node/leave", message, Left)

    def upload(self, digest: str, path: Path) -> None:
        """Send the file's bytes. A large file goes on where an earlier attempt was cut, and none of it is sent that is there already."""
        total = path.stat().st_size
        offset = self._received(digest, total) if total > SMALL_BYTES else 0
        with path.open("rb") as file:
            while offset < total:
                file.seek(offset)
                before, offset = offset, self._put_piece(digest, file.read(PIECE_BYTES), offset, total)
                if offset <= before:
                    raise Unreachable(f"{self.url} does not take blob {digest[:12]} beyond byte {offset}; trying again later")

    def _received(self, digest: str, total: int) -> int:
        """Bytes of the blob that the daemon has; 0 where nobody can say. A HEAD has no body: a refusal in words is left to the upload."""
        with self._answer("HEAD", f"/v1/blobs/{digest}", accept=(401, 403, 404)) as answer:
            if answer.status_code == 404:
                return min(_offset(answer, 0), total - 1)
            whole = answer.status_code == 200 and answer.headers.get("Content-Length") == str(total)
            return total if whole else 0

    def _put_piece(self, digest: str, piece: bytes, offset: int, total: int) -> int:
        """The offset to go on from."""
        where = {"Content-Range": f"bytes {offset}-{offset + len(piece) - 1}/{total}", "Content-Type": "application/octet-stream"}
        with self._answer("PUT", f"/v1/blobs/{digest}", data=piece, headers=where) as answer:
            if answer.status_code == 204:
                return total
            if answer.status_code != 202:
                raise error_from(answer.status_code, b"", what=f"PUT {answer.url}")
            reached = _offset(answer, offset + len(piece))
            if reached >= total:
                raise Unreachable(f"{self.url} has all of blob {digest[:12]} and does not say that it is stored; trying again later")
            return reached

    @contextmanager
    def blob(self, digest: str, *, offset: int = 0) -> Iterator[tuple[int, Iterator[bytes]]]:
        """(offset that the bytes really start at, the bytes in pieces) of a stored blob."""
        ranged = {"Range": f"bytes={offset}-"} if offset else {}
        with self._answer("GET", f"/v1/blobs/{digest}", headers=ranged, stream=True) as answer:
            yield (offset if answer.status_code == 206 else 0), _pieces(answer)

    def close(self) -> None:
        """Drop the connection."""
        self._session.close()

    def _post(self, path: str, message: object, kind: type[T]) -> T:
        with self._answer("POST", path, data=encode(message), headers={"Content-Type": "application/json"}) as answer:
            return _decoded(answer, kind)

    @contextmanager
    def _answer(self, method: str, path: str, *, accept: tuple[int, ...] = (), **how: Any) -> Iterator[requests.Response]:
        """A good answer, or the error it stands for. Redirects are not followed: a token goes to the daemon alone."""
        try:
            with self._session.request(method, self.url + path, timeout=self._timeout, allow_redirects=False, **how) as answer:
                if answer.status_code >= 300 and answer.status_code not in accept:
                    raise error_from(answer.status_code, answer.content, what=f"{method} {self.url}{path}")
                yield answer
        except requests.RequestException as error:
            raise Unreachable(
                f"{self.url} does not answer ({type(error).__name__}); is the daemon running, and the address right?"
            ) from error


def error_from(status: int, body: bytes, *, what: str) -> GridschedError:
    """The error that an answer of ``status`` stands for, in the daemon's own words where it gave any.

    Without them it may be anybody's: a login page, a proxy. Then it is `Unreachable`, unless trying again is all it asks for.
    """
    try:
        problem = decode(body, Problem)
    except MessageError:
        return _UNSIGNED.get(status, Unreachable)(
            f"{what} is answered with HTTP {status} and not in the daemon's words; it may be {_stranger(status)}"
        )
    kind = _NAMED.get(problem.error, _BY_STATUS.get(status, GridschedError))
    if kind is errors.UpdateRefused:
        return errors.UpdateRefused(problem.detail, reason=problem.reason)
    return kind(problem.detail)


def _stranger(status: int) -> str:
    """Who else may answer so, and the remedy."""
    if 300 <= status < 400:
        return "a login page (sign in), or the daemon has moved (join with the address it leads to)"
    if status == 413:
        return "a proxy that takes no body of this size; raise its limit"
    return "a login page or a proxy between here and the daemon; is the address right?"


def _decoded(answer: requests.Response, kind: type[T]) -> T:
    try:
        return decode(answer.content, kind)
    except MessageError as error:
        raise Unreachable(f"{answer.url} answered with something else than a {kind.__name__}; is this a gridsched daemon?") from error


def _offset(answer: requests.Response, default: int) -> int:
    text = answer.headers.get("Upload-Offset", "")
    return int(text) if text.isdecimal() else default


def _pieces(answer: requests.Response) -> Iterator[bytes]:
    try:
        yield from answer.iter_content(_CHUNK_BYTES)
    except requests.RequestException as error:
        raise Unreachable(f"{answer.url} was cut off; the download goes on from there") from error
