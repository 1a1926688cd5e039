"""The walk over a graph: each node's arguments looked up, its rule called, what it writes put in place.

Sizes are plain numbers here, because the batch has its size when a plan is made.
"""

from collections.abc import Callable, Mapping
from typing import Any

from gridsched.core.errors import ProgramError, UnsupportedOperator
from gridsched.train.graph import Graph, Node, Ref
from gridsched.train.graph import Value as GraphValue
from gridsched.train.operators import ALLOWED
from gridsched.train.plan import rules_conv, rules_loss, rules_norm, rules_recurrent
from gridsched.train.plan.rules import RULES, expect, refuse
from gridsched.train.plan.rules_cast import cast, filled
from gridsched.train.plan.rules_shape import expand, reshape, strided
from gridsched.train.plan.tape import Tape, Value

__all__ = ["walk"]

_RULE_MODULES = (rules_conv, rules_loss, rules_norm, rules_recurrent)  # imported for what they register
_SIZES: Mapping[str, Callable[..., Any]] = {
    "getitem": lambda items, index: items[index],
    "aten.sym_size.int": lambda x, axis: x.shape[axis],
    "sym.add": lambda a, b: a + b,
    "sym.sub": lambda a, b: a - b,
    "sym.mul": lambda a, b: a * b,
    "sym.floordiv": lambda a, b: a // b,
    "sym.mod": lambda a, b: a % b,
    "sym.neg": lambda a: -a,
}
_PLACEMENT = ("layout", "memory_format")  # all tensors are contiguous here
# What a program that does not fit together makes a rule stumble over.
_MISFITS = (AssertionError, AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError, ZeroDivisionError)


def walk(tape: Tape, graph: Graph, known: Mapping[Ref, Value], label: str) -> tuple[Value, Value]:
    """Write the graph's forward pass on the tape; returns its loss and outputs.

    ``known``: the batch's fields and the stored tensors. Raises UnsupportedOperator naming the node that is not covered, and
    ProgramError naming one whose arguments do not fit.
    """
    values: dict[Ref, Any] = dict(known)
    for node in graph.nodes:
        where = f"{label} graph, node {node.name} ({node.op})"
        try:
            values[Ref("node", node.name)] = _result(tape, node, values)
        except UnsupportedOperator as error:
            raise UnsupportedOperator(f"{where}: the wasm runtime does not cover {error}") from error
        except ProgramError:
            raise
        except _MISFITS as error:
            raise ProgramError(f"{where}: its arguments do not fit: {error}") from error
    loss, outputs = values[graph.loss], values[graph.outputs]
    if not isinstance(loss, Value) or loss.count != 1 or loss.dtype != "float32" or not isinstance(outputs, Value):
        raise ProgramError(f"the {label} graph must end in a float32 loss of one element, and one tensor of outputs")
    return loss, outputs


def _result(tape: Tape, node: Node, values: dict[Ref, Any]) -> Any:
    args = [_looked_up(argument, values) for argument in node.args]
    kwargs = {key: _looked_up(argument, values) for key, argument in node.kwargs.items() if key not in _PLACEMENT}
    if node.op in _SIZES:
        return _SIZES[node.op](*args, **kwargs)
    if ALLOWED[node.op] == "update":
        return _updated(tape, node, args, kwargs, values)
    rule = RULES.get(node.op)
    if rule is None:
        refuse("this operator")
    return rule(tape, *args, **kwargs)


def _looked_up(argument: GraphValue, values: Mapping[Ref, Any]) -> Any:
    if isinstance(argument, Ref):
        return values[argument]
    if isinstance(argument, tuple):
        return tuple(_looked_up(item, values) for item in argument)
    return argument


def _updated(tape: Tape, node: Node, args: list[Any], kwargs: Mapping[str, Any], values: dict[Ref, Any]) -> Value:
    """An operator that writes to its first argument: computed aside, then put in its place."""
    old = args[0]
    new = cast(tape, _aside(tape, node.op, args, kwargs), old.dtype)
    expect(new.shape == old.shape, f"writing {new.shape} to {old.shape}")
    if old.buffer.address is not None:
        expect(old.copied_from is None, "writing to a part of a stored tensor")
        strided(tape, new, old, (old.count,), (1,), (1,))
        return Value(old.buffer, old.shape, old.dtype, old.offset)
    _refuse_views(old, values)
    # Every name of these bytes gets the new ones; what the backward pass needs of the old ones stays where it is.
    for ref, held in list(values.items()):
        if isinstance(held, Value) and held.buffer is old.buffer and held is not old:
            values[ref] = reshape(tape, new, held.shape)
    for ref, held in list(values.items()):
        if held is old:
            values[ref] = new
    return new


def _refuse_views(old: Value, values: Mapping[Ref, Any]) -> None:
    """In torch this would write through a view; here a permuted or sliced tensor is a copy, so that would get lost."""
    expect(old.copied_from is None, "writing to a part of a tensor; write to a clone of it")
    held = _tensors(values)
    expect(not any(value.copied_from is old.buffer for value in held), "writing to a tensor of which a part is still used; clone it first")


def _tensors(values: Mapping[Ref, Any]) -> list[Value]:
    found = []
    for held in values.values():
        found += [item for item in (held if isinstance(held, tuple) else (held,)) if isinstance(item, Value)]
    return found


def _aside(tape: Tape, operator: str, args: list[Any], kwargs: Mapping[str, Any]) -> Value:
    _, name, overload = operator.split(".")
    old = args[0]
    if name == "zero_":
        return filled(tape, old.shape, 0, old.dtype)
    if name == "fill_":
        return filled(tape, old.shape, args[1], old.dtype)
    if name == "copy_":
        return expand(tape, args[1], old.shape)
    rule = RULES.get(f"aten.{name.removesuffix('_')}.{overload}")
    if rule is None:
        refuse("this operator")
    result = rule(tape, *args, **kwargs)
    assert isinstance(result, Value)
    return result
