"""Stored files over HTTP: whole, in ranges, in pieces, cut in the middle, and far too large."""

import hashlib
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from gridsched.core.errors import GridschedError, MessageError
from gridsched.node.client import Client
from gridsched.remote import Operator
from gridsched.web import messages
from gridsched.web.blob_api import PIECE_BYTES, Piece, piece_of
from tests.web.conftest import LIMITS, House, fresh_house

DATA = bytes(range(256)) * 9_000  # 2.3 MB: more than two pieces
DIGEST = hashlib.sha256(DATA).hexdigest()
PATH = f"/v1/blobs/{DIGEST}"


def put(house: House, data: bytes, *, start: int = 0) -> tuple[int, str]:
    """Status and Upload-Offset of one PUT of a piece of ``DATA``."""
    headers = {"Content-Range": f"bytes {start}-{start + len(data) - 1}/{len(DATA)}"}
    answer = house.call("PUT", PATH, token="operator", data=data, headers=headers)
    return answer.status_code, answer.headers.get("Upload-Offset", "")


def offset(house: House) -> str:
    answer = house.call("HEAD", PATH, token="operator")
    assert answer.status_code == 404
    return answer.headers["Upload-Offset"]


def test_what_is_put_whole_is_got_whole(house: House) -> None:
    assert house.call("HEAD", PATH, token="operator").status_code == 404
    assert house.call("PUT", PATH, token="operator", data=DATA).status_code == 204
    head = house.call("HEAD", PATH, token="operator")
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(DATA)))
    assert house.call("GET", PATH, token="operator").content == DATA


def test_a_node_may_put_and_get_and_a_stranger_may_not(house: House) -> None:
    token = house.join()
    assert house.call("PUT", PATH, token=token, data=DATA).status_code == 204
    assert house.call("GET", PATH, token=token).content == DATA
    for method in ("GET", "HEAD", "PUT"):
        assert house.call(method, PATH, data=b"x").status_code == 401


def test_a_range_is_served_alone(house: House) -> None:
    house.daemon.blobs.put(DATA)
    answer = house.call("GET", PATH, token="operator", headers={"Range": "bytes=1000-1999"})
    assert (answer.status_code, answer.content) == (206, DATA[1000:2000])
    rest = house.call("GET", PATH, token="operator", headers={"Range": f"bytes={len(DATA) - 10}-"})
    assert rest.content == DATA[-10:]
    assert house.call("GET", PATH, token="operator", headers={"Range": f"bytes={len(DATA)}-"}).status_code == 416


def test_pieces_add_up_and_each_answer_says_where_to_go_on(house: House) -> None:
    middle = 1_500_000
    assert put(house, DATA[:middle]) == (202, str(middle))
    assert offset(house) == str(middle)
    assert put(house, DATA[middle:], start=middle) == (204, "")
    assert house.call("GET", PATH, token="operator").content == DATA


def test_an_upload_goes_on_where_it_was_cut(house: House) -> None:
    """The connection dies in the middle of a piece; what had arrived is kept, and an overlap does no harm."""
    sent = PIECE_BYTES + 70_000
    with socket.create_connection(("127.0.0.1", house.port)) as line:
        line.sendall(f"PUT {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer operator\r\nContent-Length: {len(DATA)}\r\n\r\n".encode())
        line.sendall(DATA[:sent])
    deadline = time.monotonic() + 5
    while offset(house) != str(sent) and time.monotonic() < deadline:
        pass  # the server notices the hang-up in its own time
    assert offset(house) == str(sent)
    assert put(house, DATA[sent - 500 : sent + 500], start=sent - 500) == (202, str(sent + 500))
    assert put(house, DATA[sent + 500 :], start=sent + 500) == (204, "")
    assert house.call("GET", PATH, token="operator").content == DATA


def killed_before_its_name(house: House, data: bytes) -> None:
    """All bytes of an upload have come, and the daemon was killed before they got their name."""
    put(house, data[:1])
    (part,) = (house.daemon.settings.site.data / "blobs" / "incoming").iterdir()
    part.write_bytes(data)
    assert offset(house) == str(len(data))


def test_an_upload_that_was_cut_between_its_last_byte_and_its_name_is_finished_by_whoever_sends_it_again(house: House) -> None:
    killed_before_its_name(house, DATA)
    assert put(house, DATA[-1:], start=len(DATA) - 1) == (204, "")
    assert house.call("GET", PATH, token="operator").content == DATA


def test_where_such_bytes_are_damaged_they_are_dropped_and_come_again(house: House) -> None:
    killed_before_its_name(house, DATA[:-1] + b"?")
    assert house.call("PUT", PATH, token="operator", data=DATA).status_code == 422
    assert offset(house) == "0"
    assert put(house, DATA) == (204, "")


@pytest.mark.parametrize(("foreign", "total"), [(DATA + b"?", len(DATA) + 2), (b"?" * (len(DATA) - 1), len(DATA))], ids=["longer", "wrong"])
def test_what_one_node_sends_under_a_digest_keeps_no_other_from_storing_it(
    house: House, tmp_path: Path, foreign: bytes, total: int
) -> None:
    mine, other = house.join("pc"), house.join("other")
    headers = {"Content-Range": f"bytes 0-{len(foreign) - 1}/{total}"}
    assert house.call("PUT", PATH, token=other, data=foreign, headers=headers).status_code == 202
    file = tmp_path / "update"
    file.write_bytes(DATA)
    client = Client(house.url, mine)
    client.upload(DIGEST, file)
    client.close()
    assert house.call("GET", PATH, token=mine).content == DATA


def test_an_upload_that_falls_silent_is_hung_up_on_and_keeps_what_had_arrived(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "_SILENT_S", 0.5)
    sent = PIECE_BYTES + 70_000
    with socket.create_connection(("127.0.0.1", house.port), timeout=5) as line:
        line.sendall(f"PUT {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer operator\r\nContent-Length: {len(DATA)}\r\n\r\n".encode())
        line.sendall(DATA[:sent])
        answer = all_of(line)
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"send it again" in answer
    assert offset(house) == str(sent)


def test_a_gap_is_refused_and_says_what_is_missing(house: House) -> None:
    put(house, DATA[:1000])
    answer = house.call("PUT", PATH, token="operator", data=DATA[2000:3000], headers={"Content-Range": f"bytes 2000-2999/{len(DATA)}"})
    assert (answer.status_code, answer.json()["error"]) == (409, "Conflict")
    assert "1000" in answer.json()["detail"]
    assert offset(house) == "1000"


def test_bytes_that_do_not_match_their_digest_are_dropped(house: House) -> None:
    answer = house.call("PUT", PATH, token="operator", data=DATA[:-1] + b"?")
    assert (answer.status_code, answer.json()["error"]) == (422, "BlobCorrupt")
    assert offset(house) == "0"


def test_sending_what_is_there_already_changes_nothing(house: House) -> None:
    house.daemon.blobs.put(DATA)
    assert put(house, DATA[:1000]) == (204, "")
    assert house.call("GET", PATH, token="operator").content == DATA


def all_of(line: socket.socket) -> bytes:
    """What is said on ``line`` until the other side closes it."""
    said = b""
    while piece := line.recv(65536):
        said += piece
    return said


def announced(house: House, headers: str) -> bytes:
    """The answer to the head of a PUT whose body is never sent."""
    with socket.create_connection(("127.0.0.1", house.port), timeout=5) as line:
        line.sendall(f"PUT {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer operator\r\n{headers}\r\n\r\n".encode())
        return all_of(line)


@pytest.mark.parametrize(
    "headers", ["Content-Length: 2147483648", "Content-Length: 1000\r\nContent-Range: bytes 0-999/2147483648"], ids=["whole", "piece"]
)
def test_two_gigabytes_are_refused_before_a_byte_of_them_is_read(house: House, headers: str) -> None:
    answer = announced(house, headers)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"2147483648" in answer
    assert str(LIMITS.max_blob_bytes).encode() in answer
    assert offset(house) == "0"


def test_more_bytes_than_announced_are_refused(house: House) -> None:
    def pieces() -> Iterator[bytes]:
        yield from [DATA[:1500]] * 2

    answer = house.call("PUT", PATH, token="operator", data=pieces(), headers={"Content-Range": f"bytes 0-999/{len(DATA)}"})
    assert (answer.status_code, answer.json()["error"]) == (413, "TooLarge")


def test_a_name_that_is_no_digest_never_reaches_the_disk(house: House) -> None:
    for name in ("..%2f..%2foperator.token", "abc", DIGEST.upper()):
        answer = house.call("PUT", f"/v1/blobs/{name}", token="operator", data=b"x")
        assert answer.status_code in (404, 422), name


def test_a_full_shelf_takes_no_more_files_unfinished_ones_count_and_may_be_finished() -> None:
    files = {hashlib.sha256(data).hexdigest(): data for data in (b"ab", b"cd", b"ef", b"gh")}
    *begun, late = files
    with fresh_house(replace(LIMITS, max_blobs=3)) as house:

        def send(digest: str, at: int) -> requests.Response:
            headers = {"Content-Range": f"bytes {at}-{at}/2"}
            return house.call("PUT", f"/v1/blobs/{digest}", token="operator", data=files[digest][at : at + 1], headers=headers)

        assert [send(digest, 0).status_code for digest in begun] == [202, 202, 202]
        answer = send(late, 0)
        assert (answer.status_code, answer.json()["error"]) == (507, "StorageFull")
        assert "max_blobs" in answer.json()["detail"]
        assert [send(digest, 1).status_code for digest in begun] == [204, 204, 204]
        assert send(late, 0).status_code == 507


def test_our_own_client_stores_and_fetches(house: House) -> None:
    operator = Operator(house.url, "operator")
    put(house, DATA[:1_200_000])
    assert operator.put_blob(DATA) == DIGEST
    assert operator.get_blob(DIGEST) == DATA
    with pytest.raises(GridschedError, match="limit"):
        operator.put_blob(bytes(LIMITS.max_blob_bytes + 1))
    operator.close()


@pytest.mark.parametrize(
    ("content_range", "length", "expected"),
    [
        (None, 10, Piece(start=0, stop=10, total=10)),
        ("bytes 0-9/10", 10, Piece(start=0, stop=10, total=10)),
        ("bytes 5-9/20", None, Piece(start=5, stop=10, total=20)),
    ],
)
def test_a_piece_is_read_from_its_headers(content_range: str | None, length: int | None, expected: Piece) -> None:
    assert piece_of(content_range, length) == expected


@pytest.mark.parametrize(
    ("content_range", "length"),
    [
        (None, None),
        ("bytes 0-9/5", 10),
        ("bytes 9-0/20", None),
        ("bytes 0-9/10", 9),
        ("bytes */10", 0),
        ("bytes 0-9/*", 10),
        ("0-9/10", 10),
    ],
)
def test_headers_that_do_not_say_or_not_the_same_are_refused(content_range: str | None, length: int | None) -> None:
    with pytest.raises(MessageError):
        piece_of(content_range, length)
