"""Rules for recurrent layers: the inputs' part of the gates in one product for all times, then cell after cell.

Within a layer everything is [time, batch, ...], so that a time's share is one piece of memory and neither gates nor gradients are copied.
"""

from collections.abc import Callable, Sequence

from gridsched.train.plan.rules import Number, covers, expect
from gridsched.train.plan.rules_cast import dropout
from gridsched.train.plan.rules_linear import linear, multiplied
from gridsched.train.plan.rules_pieces import cat, select, stack
from gridsched.train.plan.rules_shape import permute, strided
from gridsched.train.plan.tape import Gradients, Tape, Value

__all__ = ["gru", "lstm"]


def _part(whole: Value, index: int) -> Value:
    """One along the first axis, in place."""
    shape = whole.shape[1:]
    size = 4
    for length in shape:
        size *= length
    return Value(whole.buffer, shape, whole.dtype, whole.offset + index * size)


def _copy(tape: Tape, source: Value, goal: Value) -> None:
    strided(tape, source, goal, (source.count,), (1,), (1,))


def _weights(params: Sequence[Value], has_biases: bool, of: int) -> list[tuple[Value, Value, Value | None, Value | None]]:
    """The four of each layer and direction."""
    step = 4 if has_biases else 2
    expect(len(params) == step * of, f"{len(params)} weights for {of} layers; projections are not covered")
    groups = [params[index * step : (index + 1) * step] for index in range(of)]
    for w_input, w_hidden, *biases in groups:
        rows = w_hidden.shape[:1]
        expect(w_input.shape[:1] == rows and all(bias.shape == rows for bias in biases), f"weights of {w_input.shape} and {w_hidden.shape}")
    return [(group[0], group[1], group[2] if has_biases else None, group[3] if has_biases else None) for group in groups]


_Layer = Callable[[Tape, Value, Sequence[Value], tuple[Value, Value, Value | None, Value | None], bool], tuple[Value, ...]]


def _stacked(
    tape: Tape, layer: _Layer, x: Value, starts: Sequence[Value], params: Sequence[Value], has_biases: bool, layers: int, share: Number,
    train: bool, both_ways: bool, batch_first: bool,
) -> tuple[Value, ...]:  # fmt: skip
    """All layers and directions of a recurrent network: outputs [batch, time, width] or [time, batch, width], and the last states."""
    expect(x.rank == 3 and x.dtype == "float32", f"a tensor of {x.dtype} {x.shape} where [batch, time, width] is needed")
    ways = 2 if both_ways else 1
    x = permute(tape, x, (1, 0, 2)) if batch_first else x
    last: list[tuple[Value, ...]] = []
    weights = _weights(params, has_biases, layers * ways)
    for depth in range(layers):
        outputs = []
        for way in range(ways):
            at = depth * ways + way
            y, *ends = layer(tape, x, [select(tape, start, 0, at) for start in starts], weights[at], way == 1)
            outputs.append(y)
            last.append(tuple(ends))
        x = cat(tape, outputs, 2) if both_ways else outputs[0]
        x = dropout(tape, x, share, train) if depth + 1 < layers else x
    ends = [stack(tape, [states[index] for states in last], 0) for index in range(len(starts))]
    return (permute(tape, x, (1, 0, 2)) if batch_first else x, *ends)


def _order(times: int, backwards: bool) -> list[int]:
    return list(range(times))[::-1] if backwards else list(range(times))


def _before(states: Value, start: Value, order: Sequence[int], step: int) -> Value:
    return _part(states, order[step - 1]) if step else start


def _gru_layer(
    tape: Tape, x: Value, starts: Sequence[Value], weights: tuple[Value, Value, Value | None, Value | None], backwards: bool
) -> tuple[Value, ...]:
    (start,), (w_input, w_hidden, b_input, b_hidden) = starts, weights
    (times, n, _), width = x.shape, w_hidden.shape[1]
    expect(start.shape == (n, width) and w_hidden.shape[0] == 3 * width, f"a first state of {start.shape}, weights of {w_hidden.shape}")
    gates = linear(tape, x, w_input, b_input)
    y, saved = tape.new((times, n, width)), tape.new((times, n, 4 * width))
    order = _order(times, backwards)
    for step, time in enumerate(order):
        hidden, of_hidden = _before(y, start, order, step), tape.new((n, 3 * width))
        _gates_of_hidden(tape, hidden, w_hidden, b_hidden, of_hidden)
        tape.call("gru_cell", _part(gates, time), of_hidden, hidden, _part(y, time), _part(saved, time), n, width)
    end = tape.new((n, width))
    _copy(tape, _part(y, order[-1]), end)

    def back(gradients: Gradients) -> None:
        dy, dend = gradients
        dgates, dof_hidden = tape.like(gates), tape.new((times, n, 3 * width))
        flow = dend
        for step, time in reversed(list(enumerate(order))):
            d = _joined(tape, None if dy is None else _part(dy, time), flow)
            flow = tape.new((n, width))
            hidden = _before(y, start, order, step)
            tape.call("gru_cell_grad", d, hidden, _part(saved, time), _part(dgates, time), _part(dof_hidden, time), flow, n, width)
            tape.call("gemm", _part(dof_hidden, time), w_hidden, flow, n, width, 3 * width, 0, 0, 1)
        assert flow is not None
        tape.give(start, flow)
        tape.give(gates, dgates)
        _give_hidden_weights(tape, dof_hidden, _shifted(tape, y, start, backwards), w_hidden, b_hidden)

    tape.record([y, end], [gates, start, w_hidden, b_hidden], back)
    return y, end


def _gates_of_hidden(tape: Tape, hidden: Value, weight: Value, bias: Value | None, goal: Value) -> None:
    n, width = hidden.shape
    multiplied(tape, hidden, weight, goal, (n, weight.shape[0], width), flip_b=True)
    if bias is not None:
        tape.call("add_to_rows", bias, goal, n, weight.shape[0])


def _joined(tape: Tape, a: Value | None, b: Value | None) -> Value:
    """The sum of two gradients, either of which may be missing."""
    if a is None or b is None:
        found = a if b is None else b
        assert found is not None
        return found
    y = tape.new(b.shape)
    tape.call("add", b, a, y, y.count)
    return y


def _shifted(tape: Tape, states: Value, start: Value, backwards: bool) -> Value:
    """The state before each time, [time, batch, width]."""
    times = states.shape[0]
    y = tape.like(states)
    first = times - 1 if backwards else 0
    _copy(tape, start, _part(y, first))
    if times > 1:
        rows = (times - 1, *states.shape[1:])
        _copy(tape, Value(states.buffer, rows, offset=_part(states, int(backwards)).offset), _part(y, int(not backwards)))
    return y


def _give_hidden_weights(tape: Tape, dgates: Value, before: Value, weight: Value, bias: Value | None) -> None:
    """Gradients of the weights that all times share, in one product."""
    rows, (height, width) = before.shape[0] * before.shape[1], weight.shape
    if weight.follows:
        dweight = multiplied(tape, dgates, before, tape.like(weight), (height, width, rows), flip_a=True)
        tape.give(weight, dweight)
    if bias is not None and bias.follows:
        dbias = tape.like(bias)
        tape.call("sum_of_rows", dgates, dbias, rows, bias.count, 0)
        tape.give(bias, dbias)


def _lstm_layer(
    tape: Tape, x: Value, starts: Sequence[Value], weights: tuple[Value, Value, Value | None, Value | None], backwards: bool
) -> tuple[Value, ...]:
    (start, cell), (w_input, w_hidden, b_input, b_hidden) = starts, weights
    (times, n, _), width = x.shape, w_hidden.shape[1]
    expect(start.shape == cell.shape == (n, width) and w_hidden.shape[0] == 4 * width, f"a first state of {start.shape}")
    gates = linear(tape, x, w_input, b_input)
    y, cells, saved = tape.new((times, n, width)), tape.new((times, n, width)), tape.new((times, n, 5 * width))
    order = _order(times, backwards)
    for step, time in enumerate(order):
        of_hidden = tape.new((n, 4 * width))
        _gates_of_hidden(tape, _before(y, start, order, step), w_hidden, b_hidden, of_hidden)
        before = _before(cells, cell, order, step)
        tape.call("lstm_cell", _part(gates, time), of_hidden, before, _part(y, time), _part(cells, time), _part(saved, time), n, width)
    end, cell_end = tape.new((n, width)), tape.new((n, width))
    _copy(tape, _part(y, order[-1]), end)
    _copy(tape, _part(cells, order[-1]), cell_end)

    def back(gradients: Gradients) -> None:
        dy, flow, cell_flow = gradients
        dgates = tape.like(gates)
        for step, time in reversed(list(enumerate(order))):
            own = None if dy is None else _part(dy, time)
            d = None if own is None and flow is None else _joined(tape, own, flow)
            dcell = tape.new((n, width))
            before = _before(cells, cell, order, step)
            tape.call("lstm_cell_grad", d, cell_flow, before, _part(saved, time), _part(dgates, time), dcell, n, width)
            flow, cell_flow = tape.new((n, width)), dcell
            multiplied(tape, _part(dgates, time), w_hidden, flow, (n, width, 4 * width))
        assert flow is not None
        assert cell_flow is not None
        tape.give(start, flow)
        tape.give(cell, cell_flow)
        tape.give(gates, dgates)
        _give_hidden_weights(tape, dgates, _shifted(tape, y, start, backwards), w_hidden, b_hidden)

    tape.record([y, end, cell_end], [gates, start, cell, w_hidden, b_hidden], back)
    return y, end, cell_end


@covers("gru.input")
def gru(
    tape: Tape, x: Value, start: Value, params: Sequence[Value], has_biases: bool, layers: int, share: Number, train: bool,
    both_ways: bool, batch_first: bool,
) -> tuple[Value, ...]:  # fmt: skip
    """Gated recurrent units (Cho et al. 2014, arXiv:1406.1078): outputs and last states."""
    return _stacked(tape, _gru_layer, x, [start], params, has_biases, layers, share, train, both_ways, batch_first)


@covers("lstm.input")
def lstm(
    tape: Tape, x: Value, starts: Sequence[Value], params: Sequence[Value], has_biases: bool, layers: int, share: Number, train: bool,
    both_ways: bool, batch_first: bool,
) -> tuple[Value, ...]:  # fmt: skip
    """Long short-term memory (Hochreiter and Schmidhuber 1997): outputs, last states and last cells."""
    return _stacked(tape, _lstm_layer, x, starts, params, has_biases, layers, share, train, both_ways, batch_first)
