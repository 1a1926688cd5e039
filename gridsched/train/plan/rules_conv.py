"""Rules for convolutions and pools, [batch, channels, height, width]; those of one axis are of height 1."""

from collections.abc import Sequence

from gridsched.train.plan.kernels import conv2d_scratch_bytes
from gridsched.train.plan.rules import Number, covers, expect, pair
from gridsched.train.plan.rules_reduce import mean
from gridsched.train.plan.rules_shape import reshape
from gridsched.train.plan.tape import Gradients, Tape, Value

__all__ = ["conv2d"]

_Sizes = int | tuple[int, ...]


def _length(size: int, window: int, stride: int, padding: int, dilation: int = 1, *, ceil: bool = False) -> int:
    """How many windows fit along an axis."""
    room = size + 2 * padding - dilation * (window - 1) - 1
    expect(room >= 0 and min(window, stride, dilation) > 0 and padding >= 0, f"a window of {window} on {size} elements")
    if not ceil:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= size + padding else count


@covers("conv2d.default")
def conv2d(
    tape: Tape, x: Value, weight: Value, bias: Value | None = None, stride: _Sizes = 1, padding: _Sizes = 0, dilation: _Sizes = 1,
    groups: int = 1,
) -> Value:  # fmt: skip
    """``x`` [n, c, h, w] with weight [o, c / groups, kh, kw]."""
    expect(x.rank == weight.rank == 4 and {x.dtype, weight.dtype} == {"float32"}, f"x of {x.dtype} {x.shape}, weight of {weight.shape}")
    (n, c, h, w), (o, channels, kh, kw) = x.shape, weight.shape
    expect(groups > 0 and c == channels * groups and o % groups == 0, f"{c} channels in {groups} groups of {channels}")
    expect(bias is None or bias.shape == (o,), "a bias of another shape")
    (sh, sw), (ph, pw), (dh, dw) = pair(stride), pair(padding), pair(dilation)
    oh, ow = _length(h, kh, sh, ph, dh), _length(w, kw, sw, pw, dw)
    sizes = (n, c, h, w, o, kh, kw, sh, sw, ph, pw, dh, dw, groups)
    y = tape.new((n, o, oh, ow))

    room = conv2d_scratch_bytes(c=c, h=h, w=w, o=o, kh=kh, kw=kw, sh=sh, sw=sw, ph=ph, pw=pw, dh=dh, dw=dw, groups=groups)

    def scratch() -> Value:
        return tape.new((room,), "uint8")

    tape.call("conv2d", x, weight, bias, y, scratch(), *sizes)

    def back(gradients: Gradients) -> None:
        (dy,) = gradients
        assert dy is not None
        if x.follows:
            dx = tape.like(x)
            tape.call("conv2d_grad_input", dy, weight, dx, scratch(), *sizes)
            tape.give(x, dx)
        dweight = tape.like(weight) if weight.follows else None
        dbias = tape.like(bias) if bias is not None and bias.follows else None
        if dweight is not None or dbias is not None:
            tape.call("conv2d_grad_weight", dy, x, dweight, dbias, scratch(), *sizes)
        for value, gradient in ((weight, dweight), (bias, dbias)):
            if value is not None and gradient is not None:
                tape.give(value, gradient)

    tape.record([y], [x, weight, bias], back)
    return y


@covers("conv2d.padding")
def conv2d_same(
    tape: Tape, x: Value, weight: Value, bias: Value | None = None, stride: _Sizes = 1, padding: str = "valid", dilation: _Sizes = 1,
    groups: int = 1,
) -> Value:  # fmt: skip
    """Padded by name."""
    sizes = (0, 0)
    if padding == "same":
        reach = [step * (window - 1) for step, window in zip(pair(dilation), weight.shape[2:], strict=True)]
        expect(all(size % 2 == 0 for size in reach), 'padding="same" of a window that is even')
        sizes = (reach[0] // 2, reach[1] // 2)
    return conv2d(tape, x, weight, bias, stride, sizes, dilation, groups)


def _flat(x: Value) -> tuple[int, ...]:
    expect(x.rank == 3, f"a tensor of shape {x.shape} where [batch, channels, length] is needed")
    return (x.shape[0], x.shape[1], 1, x.shape[2])


def _wide(sizes: _Sizes, height: int) -> tuple[int, int]:
    return (height, pair(sizes)[1])


@covers("conv1d.default")
def conv1d(
    tape: Tape, x: Value, weight: Value, bias: Value | None = None, stride: _Sizes = 1, padding: _Sizes = 0, dilation: _Sizes = 1,
    groups: int = 1,
) -> Value:  # fmt: skip
    """``x`` [n, c, length] with weight [o, c / groups, window]."""
    wide = reshape(tape, x, _flat(x)), reshape(tape, weight, _flat(weight))
    y = conv2d(tape, *wide, bias, _wide(stride, 1), _wide(padding, 0), _wide(dilation, 1), groups)
    return reshape(tape, y, (y.shape[0], y.shape[1], y.shape[3]))


@covers("conv1d.padding")
def conv1d_same(
    tape: Tape, x: Value, weight: Value, bias: Value | None = None, stride: _Sizes = 1, padding: str = "valid", dilation: _Sizes = 1,
    groups: int = 1,
) -> Value:  # fmt: skip
    """Padded by name."""
    wide = reshape(tape, x, _flat(x)), reshape(tape, weight, _flat(weight))
    y = conv2d_same(tape, *wide, bias, _wide(stride, 1), padding, _wide(dilation, 1), groups)
    return reshape(tape, y, (y.shape[0], y.shape[1], y.shape[3]))


@covers("max_pool2d.default")
def max_pool2d(
    tape: Tape, x: Value, window: _Sizes, stride: _Sizes = (), padding: _Sizes = 0, dilation: _Sizes = 1, ceil: bool = False
) -> Value:
    """The greatest of each window."""
    expect(pair(dilation) == (1, 1), f"dilation={dilation}")
    expect(x.rank in (3, 4) and x.dtype == "float32", f"a tensor of {x.dtype} {x.shape}")
    h, w = x.shape[-2:]
    (kh, kw), (ph, pw) = pair(window), pair(padding)
    expect(2 * ph <= kh and 2 * pw <= kw, f"padding={padding} of windows of {window}")  # else one could lie outside
    sh, sw = pair(stride if stride != () else window)
    oh, ow = _length(h, kh, sh, ph, ceil=ceil), _length(w, kw, sw, pw, ceil=ceil)
    planes = x.count // (h * w)
    y, index = tape.new((*x.shape[:-2], oh, ow)), tape.new((*x.shape[:-2], oh, ow), "int32")
    tape.call("max_pool2d", x, y, index, planes, h, w, kh, kw, sh, sw, ph, pw, oh, ow)

    def back(gradients: Gradients) -> None:
        (dy,) = gradients
        assert dy is not None
        dx = tape.like(x)
        tape.call("max_pool2d_grad", dy, index, dx, planes, h, w, oh, ow)
        tape.give(x, dx)

    tape.record([y], [x], back)
    return y


@covers("avg_pool2d.default")
def avg_pool2d(
    tape: Tape, x: Value, window: _Sizes, stride: _Sizes = (), padding: _Sizes = 0, ceil: bool = False, count_padding: bool = True,
    divisor: Number | None = None,
) -> Value:  # fmt: skip
    """The mean of each window."""
    expect(divisor is None, "divisor_override")
    expect(x.rank in (3, 4) and x.dtype == "float32", f"a tensor of {x.dtype} {x.shape}")
    h, w = x.shape[-2:]
    (kh, kw), (ph, pw) = pair(window), pair(padding)
    expect(2 * ph <= kh and 2 * pw <= kw, f"padding={padding} of windows of {window}")  # else one could lie outside
    sh, sw = pair(stride if stride != () else window)
    oh, ow = _length(h, kh, sh, ph, ceil=ceil), _length(w, kw, sw, pw, ceil=ceil)
    planes = x.count // (h * w)
    sizes = (planes, h, w, kh, kw, sh, sw, ph, pw, oh, ow, int(count_padding))
    y = tape.new((*x.shape[:-2], oh, ow))
    tape.call("avg_pool2d", x, y, *sizes)

    def back(gradients: Gradients) -> None:
        (dy,) = gradients
        assert dy is not None
        dx = tape.like(x)
        tape.call("avg_pool2d_grad", dy, dx, *sizes)
        tape.give(x, dx)

    tape.record([y], [x], back)
    return y


@covers("max_pool1d.default")
def max_pool1d(
    tape: Tape, x: Value, window: _Sizes, stride: _Sizes = (), padding: _Sizes = 0, dilation: _Sizes = 1, ceil: bool = False
) -> Value:
    """The greatest of each window."""
    wide = reshape(tape, x, _flat(x))
    y = max_pool2d(tape, wide, _wide(window, 1), _wide(stride if stride != () else window, 1), _wide(padding, 0), dilation, ceil)
    return reshape(tape, y, (*x.shape[:-1], y.shape[-1]))


@covers("avg_pool1d.default")
def avg_pool1d(
    tape: Tape, x: Value, window: _Sizes, stride: _Sizes = (), padding: _Sizes = 0, ceil: bool = False, count_padding: bool = True
) -> Value:
    """The mean of each window."""
    wide = reshape(tape, x, _flat(x))
    y = avg_pool2d(tape, wide, _wide(window, 1), _wide(stride if stride != () else window, 1), _wide(padding, 0), ceil, count_padding)
    return reshape(tape, y, (*x.shape[:-1], y.shape[-1]))


def _windows(x: Value, sizes: Sequence[int | None], axes: int) -> tuple[int, ...]:
    """Windows that make outputs of ``sizes``; covered where they are all of one size."""
    wanted = [own if size is None else size for size, own in zip(sizes, x.shape[-axes:], strict=True)]
    whole = all(size > 0 and own % size == 0 for size, own in zip(wanted, x.shape[-axes:], strict=True))
    expect(whole, f"output_size {tuple(sizes)} of {x.shape[-axes:]}, where windows differ in size")
    return tuple(own // size for size, own in zip(wanted, x.shape[-axes:], strict=True))


@covers("adaptive_avg_pool2d.default")
def adaptive_avg_pool2d(tape: Tape, x: Value, sizes: Sequence[int | None]) -> Value:
    """Means of equal windows, so many along each axis."""
    window = _windows(x, sizes, 2)
    if window == x.shape[-2:]:
        return mean(tape, x, (-2, -1), True)
    return avg_pool2d(tape, x, window)


@covers("adaptive_avg_pool1d.default")
def adaptive_avg_pool1d(tape: Tape, x: Value, sizes: Sequence[int | None]) -> Value:
    """Means of equal windows, so many in all."""
    return avg_pool1d(tape, x, _windows(x, sizes, 1))


@covers("adaptive_max_pool2d.default")
def adaptive_max_pool2d(tape: Tape, x: Value, sizes: Sequence[int | None]) -> tuple[Value]:
    """The greatest of equal windows; where they are is not told."""
    return (max_pool2d(tape, x, _windows(x, sizes, 2)),)
