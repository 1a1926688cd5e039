"""The prediction endpoint: samples in, probabilities out, and a clear word about everything else."""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import requests

from gridsched.core.errors import DatasetError
from gridsched.core.settings import Web
from gridsched.train.graph import FieldSpec
from gridsched.train.predict import Prediction
from gridsched.train.tensors import Array, tensors_to_bytes
from gridsched.web import messages
from gridsched.web.app import server
from gridsched.web.predict import build

FIELDS = (FieldSpec(name="x", dtype="float32", shape=(2,)),)
ABOUT = {"model": "job-1", "version": 7, "rule": "sum"}
SAFETENSORS = {"content-type": "application/vnd.safetensors"}


def halves(samples: Mapping[str, Array]) -> Prediction:
    """Half and half, except for what it refuses and what it trips over."""
    if "x" not in samples:
        raise DatasetError("the model asks for field 'x'")
    if samples["x"].flat[0] == 13:
        raise RuntimeError("a bug")
    count = len(samples["x"])
    return Prediction(probabilities=np.full((count, 2), 0.5), labels=np.zeros(count, np.int64))


class Client:
    """Speaks to the endpoint as a program on the same machine would."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._url = f"http://127.0.0.1:{port}"
        self._session = requests.Session()
        self._session.trust_env = False

    def __call__(self, method: str, path: str, **sent: Any) -> requests.Response:
        return self._session.request(method, self._url + path, timeout=10, **sent)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    ready = threading.Event()
    running = server(build(halves, FIELDS, ABOUT, most_bytes=1000), Web(port=0), ready=ready.set)
    thread = threading.Thread(target=running.run)
    thread.start()
    assert ready.wait(10)
    yield Client(running.servers[0].sockets[0].getsockname()[1])
    running.should_exit = True
    thread.join(10)


def test_it_says_what_it_serves(client: Client) -> None:
    told = client("GET", "/").json()
    assert told["fields"] == {"x": {"dtype": "float32", "shape": ["samples", 2]}}
    assert told["model"] == "job-1"


@pytest.mark.parametrize(
    "sent",
    [
        {"json": {"x": [[1, 2.5], [0, 0], [3, 4]]}},
        {"data": tensors_to_bytes({"x": np.zeros((3, 2), np.float32)}), "headers": SAFETENSORS},
    ],
    ids=["json", "safetensors"],
)
def test_samples_become_probabilities(client: Client, sent: dict[str, Any]) -> None:
    answered = client("POST", "/v1/predict", **sent)
    assert answered.status_code == 200
    assert answered.json() == {"probabilities": [[0.5, 0.5]] * 3, "labels": [0, 0, 0], **ABOUT}


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        ({"data": b"{"}, 422, "not valid JSON"),
        ({"data": b'{"x": [NaN]}'}, 422, "not a number here"),
        ({"data": b"[1]"}, 400, "must be a JSON object of fields"),
        ({"json": {"z": [1]}}, 400, "field 'z' is not one that this model asks for: x"),
        ({"json": {"x": [[1, 2], [3]]}}, 400, "as long as one another"),
        ({"json": {"x": [["1", "2"]]}}, 400, "must hold numbers only"),
        ({"json": {"x": [[None, 2]]}}, 400, "must hold numbers only"),
        ({"json": {}}, 422, "asks for field 'x'"),
        ({"data": b"x" * 8, "headers": SAFETENSORS}, 400, "not a safetensors file"),
        ({"data": tensors_to_bytes({"q": np.zeros(1)}), "headers": SAFETENSORS}, 400, "field 'q'"),
        ({"data": b"x", "headers": {"content-type": "text/csv"}}, 400, "'text/csv' is not read here"),
        ({"json": {"x": [[0, 0]] * 1000}}, 413, "over the limit of 1000"),
        ({"json": {"x": [[13, 0]]}}, 500, "under reference"),
    ],
)
def test_what_is_wrong_is_said(client: Client, sent: dict[str, Any], status: int, said: str) -> None:
    answered = client("POST", "/v1/predict", **sent)
    assert answered.status_code == status
    assert said in answered.json()["detail"]


def test_other_doors_are_closed(client: Client) -> None:
    assert client("GET", "/v1/predict").status_code == 405
    assert client("POST", "/v1/other").status_code == 404


def test_requests_that_stop_half_way_take_nobody_s_place_and_are_hung_up_on(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "_SILENT_S", 0.5)
    with ExitStack() as stack:
        lines = [stack.enter_context(socket.create_connection(("127.0.0.1", client.port), timeout=5)) for _ in range(16)]
        for line in lines:
            line.sendall(b'POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"x": [[')
        assert client("POST", "/v1/predict", json={"x": [[0, 0]]}).status_code == 200
        for line in lines:
            with line.makefile("rb") as answer:
                assert answer.read().startswith(b"HTTP/1.1 503")
