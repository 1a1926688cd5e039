"""Convolution and its gradients against sums in float64, over all the ways the kernels go about them."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gridsched.train.plan.kernels import conv2d_scratch_bytes
from tests.kernels.closeness import Array, assert_close, empty, normal, seeds
from tests.kernels.host import Host

PLAIN_ULPS = 16
TILED_ULPS = 160
"""Of the greatest element. Winograd's transforms weigh by up to 8, twice; a plain sum's error is some ten times less."""


@dataclass(frozen=True, slots=True)
class Case:
    """A convolution's sizes, in the order of the kernels' arguments."""

    n: int
    c: int
    h: int
    w: int
    o: int
    kh: int
    kw: int
    sh: int
    sw: int
    ph: int
    pw: int
    dh: int
    dw: int
    groups: int

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    @property
    def oh(self) -> int:
        return (self.h + 2 * self.ph - self.dh * (self.kh - 1) - 1) // self.sh + 1

    @property
    def ow(self) -> int:
        return (self.w + 2 * self.pw - self.dw * (self.kw - 1) - 1) // self.sw + 1

    def scratch(self) -> Array:
        """Just as much as a planner is told to give; the host sees what is written behind it."""
        sizes = {name: getattr(self, name) for name in self.__slots__ if name != "n"}
        return empty(conv2d_scratch_bytes(**sizes) // 4)

    def taps(self, padded: Array) -> "list[tuple[int, int, Array]]":
        """For each place of the weights, the inputs it meets: a view [n, c, oh, ow] of the padded input."""
        down, right = self.sh * (self.oh - 1) + 1, self.sw * (self.ow - 1) + 1
        return [
            (y, x, padded[:, :, y * self.dh : y * self.dh + down : self.sh, x * self.dw : x * self.dw + right : self.sw])
            for y in range(self.kh)
            for x in range(self.kw)
        ]

    def padded(self, x: Array) -> Array:
        return np.pad(x.astype(np.float64), ((0, 0), (0, 0), (self.ph, self.ph), (self.pw, self.pw)))


def grouped(array: Array, axis: int, groups: int) -> Array:
    """``axis`` split into (groups, per group)."""
    return array.reshape(*array.shape[:axis], groups, -1, *array.shape[axis + 1 :]).astype(np.float64)


def output_of(case: Case, x: Array, weight: Array, bias: Array) -> Array:
    y = np.zeros((case.n, case.groups, case.o // case.groups, case.oh, case.ow))
    for ky, kx, seen in case.taps(case.padded(x)):
        y += np.einsum("ngchw,goc->ngohw", grouped(seen, 1, case.groups), grouped(weight, 0, case.groups)[..., ky, kx])
    return y.reshape(case.n, case.o, case.oh, case.ow) + bias[:, None, None]


def gradients_of(case: Case, x: Array, weight: Array, dy: Array) -> tuple[Array, Array]:
    """Of the input and of the weights."""
    padded = np.zeros(case.padded(x).shape)
    dweight = np.zeros(weight.shape)
    parts = grouped(dy, 1, case.groups)
    for ky, kx, met in case.taps(padded):
        part = np.einsum("ngohw,goc->ngchw", parts, grouped(weight, 0, case.groups)[..., ky, kx])
        met[...] += part.reshape(met.shape)
    for ky, kx, seen in case.taps(case.padded(x)):
        dweight[:, :, ky, kx] = np.einsum("ngohw,ngchw->goc", parts, grouped(seen, 1, case.groups)).reshape(case.o, -1)
    return padded[:, :, case.ph : case.ph + case.h, case.pw : case.pw + case.w], dweight


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """All strides, dilations, paddings and groups."""
    several, few, strides = st.integers(1, 12), st.integers(1, 4), st.sampled_from([1, 1, 2, 3])
    groups, kh, kw = draw(st.sampled_from([1, 1, 2, 3])), draw(few), draw(few)
    c, o = groups * draw(st.integers(1, 5)), groups * draw(st.integers(1, 6))
    padding = draw(st.integers(0, kh)), draw(st.integers(0, kw))
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (2, 3)]))
    case = Case(
        draw(st.integers(1, 3)), c, draw(several), draw(several), o, kh, kw, draw(strides), draw(strides), *padding, *dilation, groups
    )
    assume(
        case.oh > 0 and case.ow > 0 and case.h + 2 * case.ph >= case.dh * (kh - 1) + 1 and case.w + 2 * case.pw >= case.dw * (kw - 1) + 1
    )
    return case


@st.composite
def tiled_cases(draw: st.DrawFn) -> Case:
    """3 x 3 weights over enough channels to go by tiles."""
    c, o, h, w = (draw(st.integers(low, 14)) for low in (4, 8, 7, 7))
    padding = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    return Case(draw(st.integers(1, 4)), c, h, w, o, 3, 3, 1, 1, *padding, 1, 1, 1)


def check(host: Host, case: Case, seed: int, ulps: float) -> None:
    x, weight = normal(seed, case.n, case.c, case.h, case.w), normal(seed + 1, case.o, case.c // case.groups, case.kh, case.kw)
    bias, dy = normal(seed + 2, case.o), normal(seed + 3, case.n, case.o, case.oh, case.ow)
    y, dx, dweight, dbias = (empty(*like.shape) for like in (dy, x, weight, bias))
    host.call("conv2d", x, weight, bias, y, case.scratch(), *case.numbers)
    assert_close(y, output_of(case, x, weight, bias), ulps=ulps)
    wanted_dx, wanted_dweight = gradients_of(case, x, weight, dy)
    host.call("conv2d_grad_input", dy, weight, dx, case.scratch(), *case.numbers)
    assert_close(dx, wanted_dx, ulps=ulps)
    host.call("conv2d_grad_weight", dy, x, dweight, dbias, case.scratch(), *case.numbers)
    assert_close(dweight, wanted_dweight, ulps=ulps)
    assert_close(dbias, dy.sum(axis=(0, 2, 3), dtype=np.float64), ulps=PLAIN_ULPS)


@given(case=cases(), seed=seeds)
def test_a_convolution_and_its_gradients_of_any_shape(host: Host, case: Case, seed: int) -> None:
    check(host, case, seed, TILED_ULPS if (case.kh, case.kw) == (3, 3) else PLAIN_ULPS)


@given(case=tiled_cases(), seed=seeds)
def test_a_convolution_and_its_gradients_by_tiles(host: Host, case: Case, seed: int) -> None:
    check(host, case, seed, TILED_ULPS)


def test_no_bias_is_none_and_no_gradient_is_written_where_none_is_wanted(host: Host) -> None:
    case = Case(2, 3, 6, 6, 4, 3, 3, 1, 1, 1, 1, 1, 1, 1)
    x, weight, dy = normal(1, 2, 3, 6, 6), normal(2, 4, 3, 3, 3), normal(3, 2, 4, 6, 6)
    y, zero, dweight, dbias = empty(2, 4, 6, 6), np.zeros(4, np.float32), empty(4, 3, 3, 3), empty(4)
    host.call("conv2d", x, weight, None, y, case.scratch(), *case.numbers)
    assert_close(y, output_of(case, x, weight, zero), ulps=PLAIN_ULPS)
    host.call("conv2d_grad_weight", dy, x, dweight, None, case.scratch(), *case.numbers)
    host.call("conv2d_grad_weight", dy, x, None, dbias, case.scratch(), *case.numbers)
    assert not np.isnan(dweight).any()
    assert not np.isnan(dbias).any()


@pytest.mark.parametrize("size", [5, 9])
def test_a_sample_has_the_same_bits_in_every_batch(host: Host, size: int) -> None:
    several, alone = Case(3, 4, size, size, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1), Case(1, 4, size, size, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1)
    x, weight = normal(1, 3, 4, size, size), normal(2, 8, 4, 3, 3)
    y, last = empty(3, 8, size, size), empty(1, 8, size, size)
    host.call("conv2d", x, weight, None, y, several.scratch(), *several.numbers)
    host.call("conv2d", x[2:].copy(), weight, None, last, alone.scratch(), *alone.numbers)
    assert last.tobytes() == y[2:].tobytes()
