"""The portable graph: what a model computes, as data.

A ``Program`` is an ordered list of operators from the allow-list, twice (training and evaluation), from a batch of named
fields to ``(loss, outputs)``, with the names, shapes and dtypes of all tensors it needs. It travels as one safetensors
file with the graph as JSON in the metadata, so neither side ever runs code or reads a pickle from the network. Reading is
strict: what this module accepts, every runtime may trust.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from gridsched.core.errors import InvalidInput, ProgramError
from gridsched.train.graph import (
    NAMED,
    REF_KINDS,
    FieldSpec,
    Graph,
    Named,
    Node,
    Program,
    Ref,
    TensorSpec,
    Value,
    model_tensors,
    references,
)
from gridsched.train.operators import ALLOWED
from gridsched.train.tensors import Array, strict_json, tensors_from_bytes, tensors_to_bytes

__all__ = [
    "ALLOWED",
    "FORMAT",
    "FieldSpec",
    "Graph",
    "Named",
    "Node",
    "Program",
    "Ref",
    "TensorSpec",
    "Value",
    "constants",
    "from_bytes",
    "model_tensors",
    "references",
    "to_bytes",
]

FORMAT = 1
_KEY = "gridsched.program"
_MAX_ITEMS = 100_000
_MAX_DEPTH = 8


def constants(program: Program, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Those of ``tensors`` that belong to the program and must travel with it."""
    return {name: tensors[name] for name in program.names("constant")}


def to_bytes(program: Program, tensors: Mapping[str, Array]) -> bytes:
    """The program and ``tensors`` as one safetensors file; equal programs give equal bytes.

    ``tensors`` holds all constants and, if wanted, model tensors: with them the file is a trainable model in itself.
    Raises ProgramError where a tensor is missing, unknown or does not fit its spec.
    """
    _check_tensors(program, tensors)
    return tensors_to_bytes(tensors, {_KEY: json.dumps(_program_json(program), separators=(",", ":"), allow_nan=False)})


def from_bytes(data: bytes | memoryview) -> tuple[Program, dict[str, Array]]:
    """Read what ``to_bytes`` wrote. Raises ProgramError (UnsupportedOperator for an operator) for everything else."""
    try:
        tensors, metadata = tensors_from_bytes(data)
        text = metadata.pop(_KEY, "null")
        program = _read_program(strict_json(text))
    except ProgramError:
        raise
    except InvalidInput as error:
        raise ProgramError(f"this is not a program file: {error}") from error
    if metadata:
        raise ProgramError(f"a program file has no metadata {min(metadata)[:80]!r}")
    _check_tensors(program, tensors)
    return program, tensors


def _check_tensors(program: Program, tensors: Mapping[str, Array]) -> None:
    specs = {spec.name: spec for spec in program.tensors}
    for name, array in tensors.items():
        if name not in specs:
            raise ProgramError(f"tensor {name!r} is not part of the program")
        if array.dtype.name != specs[name].dtype or array.shape != specs[name].shape:
            raise ProgramError(
                f"tensor {name!r} should be {specs[name].dtype} of shape {specs[name].shape}, got {array.dtype.name} of {array.shape}"
            )
    if missing := set(program.names("constant")) - set(tensors):
        raise ProgramError(f"the constant {min(missing)!r} is missing")


def _program_json(program: Program) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "fields": [{"name": item.name, "dtype": item.dtype, "shape": list(item.shape)} for item in program.fields],
        "tensors": [
            {"name": item.name, "dtype": item.dtype, "shape": list(item.shape), "role": item.role, "layout": item.layout}
            for item in program.tensors
        ],
        "aliases": dict(sorted(program.aliases.items())),
        "target": program.target,
        "train": _graph_json(program.train),
        "evaluate": _graph_json(program.evaluate),
    }


def _graph_json(graph: Graph) -> dict[str, Any]:
    nodes = [
        {
            "name": node.name,
            "op": node.op,
            "args": [_value_json(value) for value in node.args],
            "kwargs": {key: _value_json(value) for key, value in sorted(node.kwargs.items())},
        }
        for node in graph.nodes
    ]
    return {"nodes": nodes, "loss": _value_json(graph.loss), "outputs": _value_json(graph.outputs)}


def _value_json(value: Value) -> Any:
    if isinstance(value, Ref | Named):
        return {value.kind: value.name}
    if isinstance(value, tuple):
        return [_value_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    return value


def _read_program(data: Any) -> Program:
    keys = {"format", "fields", "tensors", "aliases", "target", "train", "evaluate"}
    _expect_keys("the program", data, keys)
    if data["format"] != FORMAT:
        raise ProgramError(f"program format {data['format']!r} is not known here (this is {FORMAT}); update gridsched")
    if data["target"] is not None and not isinstance(data["target"], str):
        raise ProgramError("target must be the name of a field or null")
    aliases = data["aliases"]
    if not isinstance(aliases, dict) or not all(isinstance(name, str) for name in aliases.values()):
        raise ProgramError("aliases must map names to names")
    return Program(
        train=_read_graph("train", data["train"]),
        evaluate=_read_graph("evaluate", data["evaluate"]),
        tensors=tuple(TensorSpec(**_read_spec("tensor", item, "role", "layout")) for item in _items("tensors", data["tensors"])),
        fields=tuple(FieldSpec(**_read_spec("field", item)) for item in _items("fields", data["fields"])),
        target=data["target"],
        aliases=aliases,
    )


def _read_spec(what: str, data: Any, *texts: str) -> dict[str, Any]:
    _expect_keys(f"a {what}", data, {"name", "dtype", "shape", *texts})
    for key in ("name", "dtype", *texts):
        if not isinstance(data[key], str):
            raise ProgramError(f"{key} of a {what} must be text, got {str(data[key])[:80]!r}")
    shape = data["shape"]
    if not isinstance(shape, list) or not all(type(size) is int for size in shape):
        raise ProgramError(f"{what} {data['name'][:80]!r} needs a list of whole numbers as its shape")
    return {**data, "shape": tuple(shape)}


def _read_graph(label: str, data: Any) -> Graph:
    _expect_keys(f"the {label} graph", data, {"nodes", "loss", "outputs"})
    nodes = tuple(_read_node(label, index, item) for index, item in enumerate(_items("nodes", data["nodes"])))
    return Graph(nodes=nodes, loss=_read_ref(f"{label} loss", data["loss"]), outputs=_read_ref(f"{label} outputs", data["outputs"]))


def _read_node(label: str, index: int, data: Any) -> Node:
    where = f"{label} graph, node {index}"
    _expect_keys(where, data, {"name", "op", "args", "kwargs"})
    if not isinstance(data["name"], str) or not isinstance(data["op"], str) or not isinstance(data["kwargs"], dict):
        raise ProgramError(f"{where}: name and op must be text and kwargs an object")
    args = tuple(_read_value(where, item, 0) for item in _items(f"{where} args", data["args"]))
    kwargs = {key: _read_value(where, item, 0) for key, item in data["kwargs"].items()}
    return Node(name=data["name"], op=data["op"], args=args, kwargs=kwargs)


def _read_value(where: str, data: Any, depth: int) -> Value:
    if depth > _MAX_DEPTH:
        raise ProgramError(f"{where}: arguments nest deeper than {_MAX_DEPTH}")
    if isinstance(data, list):
        return tuple(_read_value(where, item, depth + 1) for item in data)
    if isinstance(data, dict):
        return _read_tagged(where, data)
    assert data is None or isinstance(data, bool | int | float | str)  # JSON has nothing else
    return data


def _read_tagged(where: str, data: Mapping[str, Any]) -> Value:
    kind, name = next(iter(data.items()), ("", None))
    if len(data) != 1 or not isinstance(name, str):
        raise ProgramError(f"{where}: {str(data)[:80]} is not an argument")
    if kind in REF_KINDS:
        return Ref(kind, name)
    if kind in NAMED and name in NAMED[kind]:
        return Named(kind, name)
    if kind == "float" and name in ("inf", "-inf", "nan"):
        return float(name)
    raise ProgramError(f"{where}: {kind[:40]!r} {name[:80]!r} is not known")


def _read_ref(where: str, data: Any) -> Ref:
    value = _read_value(where, data, 0)
    if not isinstance(value, Ref):
        raise ProgramError(f"{where} must refer to a result")
    return value


def _items(what: str, data: Any) -> list[Any]:
    if not isinstance(data, list) or len(data) > _MAX_ITEMS:
        raise ProgramError(f"{what} must be a list of at most {_MAX_ITEMS}")
    return data


def _expect_keys(what: str, data: Any, keys: set[str]) -> None:
    if not isinstance(data, dict):
        raise ProgramError(f"{what} must be a JSON object")
    if difference := keys ^ set(data):
        raise ProgramError(f"{what}: {'unknown' if min(difference) in data else 'missing'} key {min(difference)[:80]!r}")
