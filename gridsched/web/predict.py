"""A trained model behind HTTP: samples in, probabilities out.

A small application of its own, in a process of its own on the model owner's machine; the daemon never runs a model. It is handed a
synchronous ``predict`` and runs it one request at a time in a thread; a bounded number may wait.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from gridsched.core.errors import Busy, GridschedError, InvalidInput, MessageError
from gridsched.train.graph import FieldSpec
from gridsched.train.predict import Prediction
from gridsched.train.tensors import Array, strict_json, tensors_from_bytes
from gridsched.web.messages import Gone, answer, hang_up, problem, read_body

__all__ = ["Predict", "build"]

Predict = Callable[[Mapping[str, Array]], Prediction]

_MOST_BYTES = 32 << 20
_MOST_WAITING = 16
_SAFETENSORS = "application/vnd.safetensors"


def build(predict: Predict, fields: tuple[FieldSpec, ...], about: Mapping[str, Any], *, most_bytes: int = _MOST_BYTES) -> ASGIApp:
    """``GET /`` tells ``about`` and the ``fields`` asked for; ``POST /v1/predict`` answers.

    A body is JSON, ``{"x": [[...], ...]}`` by field, or a safetensors file of the fields (content type ``application/vnd.safetensors``);
    the answer is JSON: ``probabilities``, ``labels`` and what ``about`` says. A body over ``most_bytes`` is refused.
    """
    return _Door(_Endpoint(predict, fields, about, most_bytes))


class _Endpoint:
    def __init__(self, predict: Predict, fields: tuple[FieldSpec, ...], about: Mapping[str, Any], most_bytes: int) -> None:
        self._predict = predict
        self._fields = fields
        self._about = dict(about)
        self._most_bytes = most_bytes
        self._turn = asyncio.Semaphore(1)
        self._waiting = 0

    async def index(self, _: Request) -> Response:
        """What is served, and what it asks for."""
        fields = {field.name: {"dtype": field.dtype, "shape": ["samples", *field.shape]} for field in self._fields}
        return answer({**self._about, "fields": fields, "predict": "POST /v1/predict"})

    async def predict(self, request: Request) -> Response:
        """One batch."""
        kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        self._demand_place()
        body = await read_body(request.scope, request.receive, limit=self._most_bytes)
        self._demand_place()
        self._waiting += 1  # only now: whoever never ends its body would keep the place
        try:
            async with self._turn:
                text = await asyncio.to_thread(self._answered, body, kind)
        finally:
            self._waiting -= 1
        return Response(text, media_type="application/json")

    def _demand_place(self) -> None:
        if self._waiting >= _MOST_WAITING:
            raise Busy(f"{_MOST_WAITING} requests wait already; try again in a moment")

    def _answered(self, body: bytes, kind: str) -> bytes:
        """In a thread: reading and writing large bodies takes as long as a small model does."""
        made = self._predict(_samples(body, kind, self._fields))
        return msgspec.json.encode(
            {"probabilities": made.probabilities.astype(np.float32).tolist(), "labels": made.labels.tolist(), **self._about}
        )


def _samples(body: bytes, kind: str, fields: tuple[FieldSpec, ...]) -> Mapping[str, Array]:
    names = [field.name for field in fields]
    if kind == _SAFETENSORS:
        try:
            samples, _ = tensors_from_bytes(body)
        except InvalidInput as error:
            raise MessageError(f"the body is not a safetensors file: {error}") from error
        _demand_known(samples, names)
        return samples
    if kind != "application/json":
        raise MessageError(f"content type {kind[:80]!r} is not read here; send application/json or {_SAFETENSORS}")
    said = strict_json(body)
    if not isinstance(said, dict):
        raise MessageError(f'the body must be a JSON object of fields, such as {{"{names[0]}": [...]}}')
    _demand_known(said, names)
    return {field.name: _array(said[field.name], field) for field in fields if field.name in said}


def _demand_known(said: Mapping[str, Any], names: list[str]) -> None:
    if strange := [name for name in said if name not in names]:
        raise MessageError(f"field {strange[0][:80]!r} is not one that this model asks for: {', '.join(names)}")


def _array(value: Any, field: FieldSpec) -> Array:
    """Nested lists of numbers as an array; whether they fit the field, the predictor says."""
    try:
        made = np.array(value)
    except (ValueError, OverflowError) as error:
        raise MessageError(f"field {field.name!r} must hold lists that are as long as one another: {error}") from error
    if made.dtype.kind not in "biuf":
        raise MessageError(f"field {field.name!r} must hold numbers only, in lists")
    return made


class _Door:
    """Turns every error into a `Problem`, in one place."""

    def __init__(self, endpoint: _Endpoint) -> None:
        routes = [Route("/", endpoint.index, methods=["GET"]), Route("/v1/predict", endpoint.predict, methods=["POST"])]
        self._router = Router(routes, redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self  # makes the router raise its 404 and 405 instead of answering in plain text
        await self._answered(self._router(scope, receive, send), scope, receive, send)

    async def _answered(self, served: Awaitable[None], scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await served
        except Gone:
            await hang_up()(scope, receive, send)
        except (GridschedError, HTTPException) as error:
            await problem(error)(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - the last door: whatever it is, the caller gets a reference and the log the story
            await problem(error)(scope, receive, send)
