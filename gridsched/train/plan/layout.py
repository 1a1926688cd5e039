"""What lies where in every plan of a program: its tensors first, wherever the optimizer; then slots, anchors and a few numbers."""

from collections.abc import Mapping, Sequence

from gridsched.core.errors import UnsupportedOperator
from gridsched.core.method import InnerOptimizer
from gridsched.train.graph import Program
from gridsched.train.plan.arena import aligned
from gridsched.train.plan.format import Place
from gridsched.train.plan.kernels import HEAP
from gridsched.train.plan.tape import ITEM_BYTES, Buffer, Value

__all__ = ["Layout", "address_of", "place_of", "places_of", "slot_names"]


class Layout:
    """Places by name. ``end`` is the first byte behind them, where a plan's own memory begins.

    ``sums`` of micro-batches' gradients and ``fields`` of a batch are added by the plans that have them. Raises UnsupportedOperator
    where a dtype is not covered.
    """

    def __init__(self, program: Program, inner: InnerOptimizer) -> None:
        self.end = HEAP
        self.tensors = {spec.name: self._take(spec.shape, spec.dtype, f"tensor {spec.name!r}") for spec in program.tensors}
        self._parameters = {name: self.tensors[name] for name in program.names("parameter")}
        for value in self._parameters.values():
            value.follows = True
        self.slots = {
            f"{slot}/{name}": self._take(value.shape, "float32", slot)
            for slot in slot_names(inner)
            for name, value in self._parameters.items()
        }
        self.anchors = self._for_parameters("anchor") if inner.prox else {}
        self.seed = self._take((), "int64", "seed")
        self.step = self._take((), "int32", "step")
        self.share = self._take((), "float32", "share")
        self.loss = self._take((), "float32", "loss")
        self.sums: dict[str, Value] = {}
        self.fields: dict[str, Value] = {}

    def _take(self, shape: Sequence[int], dtype: str, what: str) -> Value:
        if dtype not in ITEM_BYTES:
            raise UnsupportedOperator(f"{what} is {dtype}; the wasm runtime covers {', '.join(ITEM_BYTES)}")
        value = Value(Buffer(0, self.end), tuple(shape), dtype)
        value.buffer.size = value.count * ITEM_BYTES[dtype]
        self.end = aligned(self.end + value.buffer.size)
        return value

    def _for_parameters(self, what: str) -> dict[str, Value]:
        return {name: self._take(value.shape, "float32", what) for name, value in self._parameters.items()}

    def add_sums(self) -> None:
        """Room for the sums of micro-batches' gradients."""
        self.sums = self._for_parameters("sum")

    def add_fields(self, program: Program, batch: int) -> None:
        """Room for a batch."""
        self.fields = {field.name: self._take((batch, *field.shape), field.dtype, f"field {field.name!r}") for field in program.fields}


def slot_names(inner: InnerOptimizer) -> tuple[str, ...]:
    """The optimizer's slots, as in torch_optimizers.py."""
    if inner.name == "adamw":
        return ("exp_avg", "exp_avg_sq")
    return ("momentum",) if inner.momentum else ()


def address_of(value: Value) -> int:
    """Where a placed value begins."""
    assert value.buffer.address is not None
    return value.buffer.address + value.offset


def place_of(value: Value) -> Place:
    """A placed value, as plans tell of it."""
    return Place(address=address_of(value), dtype=value.dtype, shape=value.shape)


def places_of(values: Mapping[str, Value]) -> dict[str, Place]:
    """Placed values by name."""
    return {name: place_of(value) for name, value in values.items()}
