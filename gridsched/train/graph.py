"""The nouns of a portable model: graphs of operators, the tensors and batch fields they use, and what makes them valid.

Whoever builds a ``Program``, the exporter or the reader of a file from the network, it is checked here, once, at birth.
"""

import keyword
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gridsched.core.errors import ProgramError, UnsupportedOperator
from gridsched.train.operators import ALLOWED
from gridsched.train.tensors import DTYPES, Array, element_count

__all__ = [
    "LAYOUTS",
    "NAMED",
    "REF_KINDS",
    "ROLES",
    "FieldSpec",
    "Graph",
    "Named",
    "Node",
    "Program",
    "Ref",
    "TensorSpec",
    "Value",
    "model_of",
    "model_tensors",
    "references",
]

_MAX_NODES = 100_000
_MAX_ELEMENTS = 1 << 40
_NORMS = ("aten.batch_norm.default", "aten.instance_norm.default")
_RUNNING, _BY_BATCH = slice(3, 5), 5  # places of their arguments, the same in both
REF_KINDS = ("node", "field", "tensor")
ROLES = ("parameter", "frozen", "buffer", "constant")
LAYOUTS = ("contiguous", "channels_last")
NAMED = {
    "dtype": frozenset(DTYPES),
    "memory_format": frozenset({"contiguous_format", "preserve_format", "channels_last", "channels_last_3d"}),
    "layout": frozenset({"strided"}),
}


@dataclass(frozen=True, slots=True)
class Ref:
    """A value used by name: the result of an earlier ``node``, a ``field`` of the batch, or a stored ``tensor``."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Named:
    """A dtype, memory format or layout, by its name in torch."""

    kind: str
    name: str


Value = Ref | Named | None | bool | int | float | str | tuple["Value", ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operator call; later nodes refer to its result by ``name``."""

    name: str
    op: str
    args: tuple[Value, ...]
    kwargs: Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Nodes in order of execution. ``loss`` is a scalar; ``outputs`` is the model's answer, its first axis the batch."""

    nodes: tuple[Node, ...]
    loss: Ref
    outputs: Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """A stored tensor, by the name it has in ``module.state_dict()``.

    ``role``: ``parameter`` is trained, ``frozen`` is a parameter that is not, ``buffer`` is model state such as running
    statistics, ``constant`` belongs to the program and to no version. ``layout`` is ``contiguous`` or ``channels_last``;
    it decides which kernels run, so it is part of what makes bits equal.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    role: str
    layout: str = "contiguous"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSpec:
    """A named field of the batch. ``shape`` is that of one sample: the batch axis comes before it."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A model without code.

    ``target`` is the field that ``outputs`` is a classification of, or None where that has no meaning.
    ``aliases`` maps further names of one shared tensor (tied weights) to the name it is stored under.
    """

    train: Graph
    evaluate: Graph
    tensors: tuple[TensorSpec, ...]
    fields: tuple[FieldSpec, ...]
    target: str | None = None
    aliases: Mapping[str, str]

    def __post_init__(self) -> None:
        _check_program(self)

    def names(self, *roles: str) -> tuple[str, ...]:
        """Names of the tensors in these roles, in stored order."""
        return tuple(spec.name for spec in self.tensors if spec.role in roles)

    def spec(self, name: str) -> TensorSpec:
        """The tensor ``name``; KeyError if there is none."""
        for spec in self.tensors:
            if spec.name == name:
                return spec
        raise KeyError(name)

    @property
    def operators(self) -> frozenset[str]:
        """All operators of both graphs: a runtime that covers these can run the program."""
        return frozenset(node.op for graph in (self.train, self.evaluate) for node in graph.nodes)


def model_tensors(program: Program, *, frozen: bool = True) -> tuple[str, ...]:
    """The tensors that make a model version: everything but the program's own constants.

    With ``frozen`` False, without the parameters that are not trained.
    """
    return program.names("parameter", "frozen", "buffer") if frozen else program.names("parameter", "buffer")


def model_of(program: Program, tensors: Mapping[str, Array], *, frozen: bool = True) -> dict[str, Array]:
    """The model tensors among ``tensors``; other names (outer state) are skipped. Raises ProgramError where one is missing."""
    wanted = model_tensors(program, frozen=frozen)
    if missing := [name for name in wanted if name not in tensors]:
        raise ProgramError(f"the version lacks {missing[0]!r} and {len(missing) - 1} more tensors of the program")
    return {name: tensors[name] for name in wanted}


def references(value: Value) -> Iterator[Ref]:
    """All references inside an argument."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from references(item)


# Checks: once, at birth, whoever made the program.


def _check_program(program: Program) -> None:
    specs = {spec.name: spec for spec in program.tensors}
    fields = {field.name for field in program.fields}
    if len(specs) != len(program.tensors) or len(fields) != len(program.fields):
        raise ProgramError("a tensor or a field of the program is named twice")
    for spec in program.tensors:
        _check_tensor(spec)
    for field in program.fields:
        _check_array("field", field.name, field.dtype, field.shape)
    if program.target is not None and program.target not in fields:
        raise ProgramError(f"target {program.target!r} is not a field of the batch")
    for alias, name in program.aliases.items():
        if alias in specs or name not in specs:
            raise ProgramError(f"alias {alias!r} of {name!r} does not lead from a new name to a stored tensor")
    for label, graph in (("train", program.train), ("evaluate", program.evaluate)):
        _check_graph(label, graph, specs, fields)


def _check_tensor(spec: TensorSpec) -> None:
    _check_array("tensor", spec.name, spec.dtype, spec.shape)
    if not all(_is_word(part) or (part.isascii() and part.isdecimal()) for part in spec.name.split(".")):
        raise ProgramError(f"tensor {spec.name[:80]!r} is not named by identifiers and numbers joined by dots; rename it in the model")
    if spec.role not in ROLES or spec.layout not in LAYOUTS:
        raise ProgramError(f"tensor {spec.name!r} has unknown role {spec.role!r} or layout {spec.layout!r}")
    if spec.layout == "channels_last" and len(spec.shape) != 4:
        raise ProgramError(f"tensor {spec.name!r} cannot be channels_last with {len(spec.shape)} axes; that needs 4")
    if spec.role == "parameter" and not spec.dtype.startswith("float"):
        raise ProgramError(f"parameter {spec.name!r} is {spec.dtype}; only floating point can be trained")


def _check_array(what: str, name: str, dtype: str, shape: tuple[int, ...]) -> None:
    if not name or len(name) > 256:
        raise ProgramError(f"a {what} needs a name of 1 to 256 characters, got {name[:80]!r}")
    if dtype not in DTYPES:
        raise ProgramError(f"{what} {name!r} has dtype {dtype!r}; use one of {', '.join(DTYPES)}")
    if len(shape) > 8 or any(size < 0 for size in shape) or element_count(shape) > _MAX_ELEMENTS:
        raise ProgramError(f"{what} {name!r} has an absurd shape {str(shape)[:80]}")


def _check_graph(label: str, graph: Graph, specs: Mapping[str, TensorSpec], fields: set[str]) -> None:
    made: set[str] = set()
    known = {"node": made, "field": fields, "tensor": set(specs)}
    if len(graph.nodes) > _MAX_NODES:
        raise ProgramError(f"the {label} graph has {len(graph.nodes)} nodes; at most {_MAX_NODES} are allowed")
    for index, node in enumerate(graph.nodes):
        where = f"{label} graph, node {index} ({node.name})"
        _check_operator(where, node)
        for ref in references((*node.args, *node.kwargs.values())):
            _check_ref(where, ref, known)
        _check_update(where, node, specs, training=label == "train")
        if node.name in made:
            raise ProgramError(f"{where}: an earlier node has the same name")
        made.add(node.name)
    for what, ref in (("loss", graph.loss), ("outputs", graph.outputs)):
        _check_ref(f"{label} graph, {what}", ref, known)


def _is_word(text: str) -> bool:
    # A runtime may turn names into source code, as torch.fx does: nothing but a plain ASCII identifier may get there.
    return text.isascii() and text.isidentifier() and not keyword.iskeyword(text) and len(text) <= 256


def _check_operator(where: str, node: Node) -> None:
    for name in (node.name, *node.kwargs):
        if not _is_word(name):
            raise ProgramError(f"{where}: {name[:80]!r} is not a usable name")
    if node.op not in ALLOWED:
        raise UnsupportedOperator(
            f"{where}: operator {node.op[:120]!r} is not in the allow-list; "
            "write the model with operators of gridsched.train.program.ALLOWED"
        )


def _check_update(where: str, node: Node, specs: Mapping[str, TensorSpec], *, training: bool) -> None:
    # A write to a constant or to the batch would leak from one unit into the next, one to a parameter would bypass the optimizer.
    # What an evaluation writes would be lost where it goes on from its middle, which holds no tensors.
    for ref in _written(node):
        if ref.kind == "field" or (ref.kind == "tensor" and specs[ref.name].role != "buffer"):
            raise ProgramError(f"{where}: {node.op} writes to {ref.kind} {ref.name!r}; only buffers may be written")
        if ref.kind == "tensor" and not training:
            raise ProgramError(f"{where}: {node.op} writes to buffer {ref.name!r}; write buffers only in training (if self.training)")


def _written(node: Node) -> Iterator[Ref]:
    """What the operator writes to beside its result; a normalisation by the batch also moves its running statistics."""
    if ALLOWED[node.op] == "update":
        yield from references(node.args[:1])
    elif node.op in _NORMS and node.args[_BY_BATCH : _BY_BATCH + 1] == (True,):
        yield from references(node.args[_RUNNING])


def _check_ref(where: str, ref: Ref, known: Mapping[str, set[str]]) -> None:
    if ref.kind not in REF_KINDS or ref.name not in known[ref.kind]:
        raise ProgramError(f"{where}: it refers to {ref.kind} {ref.name[:80]!r}, which is not defined before it")
