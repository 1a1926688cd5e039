"""A program file from the network: read exactly, or refused with what is wrong and where."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from gridsched.core.errors import InvalidInput, ProgramError, UnsupportedOperator
from gridsched.train.program import constants, from_bytes, to_bytes
from gridsched.train.tensors import Array, strict_json, tensors_from_bytes, tensors_to_bytes
from tests.train.builders import hard_net

KEY = "gridsched.program"


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The bytes of a good program after ``change`` to its JSON."""
    tensors, metadata = tensors_from_bytes(to_bytes(*hard_net()))
    data = json.loads(metadata[KEY])
    change(data)
    return tensors_to_bytes(tensors, {KEY: json.dumps(data)})


def set_op(data: dict[str, Any]) -> None:
    data["evaluate"]["nodes"][1]["op"] = "aten.from_file.default"


def set_forward_ref(data: dict[str, Any]) -> None:
    data["train"]["nodes"][0]["args"][0] = {"node": data["train"]["nodes"][-1]["name"]}


def set_update(data: dict[str, Any]) -> None:
    node = next(node for node in data["train"]["nodes"] if node["op"] == "aten.add_.Tensor")
    node["args"][0] = {"tensor": "conv.weight"}


def set_update_in_evaluation(data: dict[str, Any]) -> None:
    node = next(node for node in data["train"]["nodes"] if node["op"] == "aten.add_.Tensor")
    data["evaluate"]["nodes"].append(node | {"name": "again"})


def set_norm_in_evaluation(data: dict[str, Any]) -> None:
    node = next(node for node in data["evaluate"]["nodes"] if node["op"] == "aten.batch_norm.default")
    node["args"][5] = True


def set_norm_of_a_parameter(data: dict[str, Any]) -> None:
    node = next(node for node in data["train"]["nodes"] if node["op"] == "aten.batch_norm.default")
    node["args"][4] = {"tensor": "norm.weight"}


def set_shape(data: dict[str, Any]) -> None:
    data["tensors"][0]["shape"] = [1 << 30, 1 << 30]


def nest(data: dict[str, Any]) -> None:
    value: Any = 1
    for _ in range(12):
        value = [value]
    data["train"]["nodes"][0]["args"].append(value)


def test_a_program_survives_the_round_trip_in_equal_bytes() -> None:
    program, tensors = hard_net()
    data = to_bytes(program, tensors)
    again, arrays = from_bytes(data)
    assert again == program
    assert to_bytes(again, arrays) == data


def test_a_program_may_travel_without_its_model_tensors_but_not_without_its_constants() -> None:
    program, tensors = hard_net()
    assert from_bytes(to_bytes(program, constants(program, tensors)))[0] == program


def test_the_file_is_what_the_safetensors_library_reads() -> None:
    _, tensors = hard_net()
    read = safetensors.numpy.load(to_bytes(*hard_net()))
    assert {name: array.tobytes() for name, array in read.items()} == {name: array.tobytes() for name, array in tensors.items()}


def test_what_the_safetensors_library_writes_is_read() -> None:
    _, tensors = hard_net()
    read, metadata = tensors_from_bytes(safetensors.numpy.save(tensors, {"a": "b"}))
    assert metadata == {"a": "b"}
    assert {name: array.tobytes() for name, array in read.items()} == {name: array.tobytes() for name, array in tensors.items()}


def test_an_operator_outside_the_allow_list_is_named_with_its_place() -> None:
    with pytest.raises(UnsupportedOperator, match=r"evaluate graph, node 1 .*aten\.from_file\.default"):
        from_bytes(changed(set_op))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data.update(extra=1), "unknown key 'extra'"),
        (lambda data: data.pop("fields"), "missing key 'fields'"),
        (lambda data: data.update(format=2), "format 2"),
        (lambda data: data["tensors"][0].update(dtype="object"), "dtype 'object'"),
        (lambda data: data["tensors"][0].update(shape=[4, 1, 3]), "should be float32"),
        (lambda data: data["tensors"][0].update(shape=[-1]), "absurd shape"),
        (lambda data: data["tensors"][0].update(shape=[1.5]), "whole numbers"),
        (lambda data: data["tensors"][0].update(role="secret"), "unknown role"),
        (lambda data: data["tensors"].append(data["tensors"][0]), "named twice"),
        (lambda data: data["train"]["nodes"][0].update(name="import os"), "not a usable name"),
        (lambda data: data["train"]["nodes"][0].update(name="class"), "not a usable name"),
        (lambda data: data["train"]["nodes"][0]["kwargs"].update({"a=print(1), b": 1}), "not a usable name"),
        (lambda data: data["tensors"][0].update(name="conv.weight;import os"), "identifiers and numbers"),
        (lambda data: data["train"]["nodes"].append(data["train"]["nodes"][0]), "same name"),
        (lambda data: data["train"]["nodes"][0]["args"].append({"device": "cuda"}), "'device' 'cuda' is not known"),
        (lambda data: data["train"]["nodes"][0]["args"].append({"dtype": "os.system"}), "is not known"),
        (lambda data: data["train"].update(loss=1), "must refer to a result"),
        (lambda data: data.update(target="z"), "not a field"),
        (lambda data: data.update(aliases={"a": "nowhere"}), "alias 'a'"),
        (set_forward_ref, "not defined before it"),
        (set_update, "only buffers may be written"),
        (set_update_in_evaluation, r"evaluate graph, node \d+ \(again\): aten\.add_\.Tensor writes to buffer 'norm.num_batches_tracked'"),
        (set_norm_in_evaluation, "aten.batch_norm.default writes to buffer 'norm.running_mean'; write buffers only in training"),
        (set_norm_of_a_parameter, "aten.batch_norm.default writes to tensor 'norm.weight'; only buffers"),
        (set_shape, "absurd shape"),
        (nest, "nest deeper"),
    ],
)
def test_a_damaged_program_is_refused_with_the_reason(change: Callable[[dict[str, Any]], object], reason: str) -> None:
    with pytest.raises(ProgramError, match=reason):
        from_bytes(changed(change))


@given(st.data())
def test_a_program_cut_anywhere_is_refused(data: st.DataObject) -> None:
    whole = to_bytes(*hard_net())
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ProgramError):
        from_bytes(whole[:cut])


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_but_program_error(data: bytes) -> None:
    with pytest.raises(ProgramError):
        from_bytes(data)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_gives_a_valid_program(position: int, flip: int) -> None:
    whole = bytearray(to_bytes(*hard_net()))
    whole[position % len(whole)] ^= flip
    try:
        program, _ = from_bytes(bytes(whole))
    except ProgramError:
        return
    assert program.operators


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "at least 8 bytes"),
        ((2**63).to_bytes(8, "little") + b"{}", "not a safetensors file"),
        ((100).to_bytes(8, "little") + b"{}", "longer than the file"),
        ((2).to_bytes(8, "little") + b"[]", "not a JSON object"),
        ((2).to_bytes(8, "little") + b"{}x", "1 bytes after"),
    ],
)
def test_a_wrong_header_says_what_is_wrong(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        tensors_from_bytes(data)


def with_header(header: dict[str, Any], data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}, "does not fit"),
        ({"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}, "does not fit"),
        ({"dtype": "PICKLE", "shape": [2], "data_offsets": [0, 8]}, "unknown dtype"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}, "cut short"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}, "gap or an overlap"),
        ({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}, "impossible shape"),
        ({"dtype": "F32", "shape": [True, 2], "data_offsets": [0, 8]}, "impossible shape"),
        ({"dtype": "F32", "shape": [2**62, 0], "data_offsets": [0, 0]}, "impossible shape"),
        ({"dtype": "U8", "shape": [2**40, 0, 2**40], "data_offsets": [0, 0]}, "impossible shape"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}, "impossible offsets"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 8], "code": 1}, "exactly dtype"),
    ],
)
def test_a_tensor_entry_that_lies_is_refused(entry: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        tensors_from_bytes(with_header({"a": entry}, bytes(8)))


def test_json_with_a_doubled_key_is_refused() -> None:
    with pytest.raises(InvalidInput, match="twice"):
        strict_json('{"a": 1, "a": 2}')


def test_deeply_nested_json_is_refused() -> None:
    with pytest.raises(InvalidInput):
        strict_json("[" * 200_000)


def test_bytes_do_not_depend_on_the_order_of_names_or_on_memory_layout() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    one: dict[str, Array] = {"a": array, "b": np.zeros(2, np.int64)}
    other: dict[str, Array] = {"b": np.zeros(2, np.int64), "a": np.asfortranarray(array)}
    assert tensors_to_bytes(one) == tensors_to_bytes(other)
