"""Pools against windows taken one by one."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.kernels.closeness import Array, as_tensor, assert_close, empty, normal, seeds
from tests.kernels.host import Host

ULPS = 8
Shape = tuple[int, ...]


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """planes, h, w, kh, kw, sh, sw, ph, pw, oh, ow; sometimes a last window reaches over the edge, as with torch's ceil_mode."""
    h, w = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    kh, kw, sh, sw = (2, 2, 2, 2) if draw(st.booleans()) else (draw(st.integers(1, 4)) for _ in range(4))
    ph, pw = draw(st.integers(0, kh // 2)), draw(st.integers(0, kw // 2))
    oh, ow = (h + 2 * ph - kh) // sh + 1, (w + 2 * pw - kw) // sw + 1
    assume(oh > 0 and ow > 0)
    if draw(st.booleans()):
        oh, ow = oh + (oh * sh < h + ph), ow + (ow * sw < w + pw)
    return draw(st.integers(1, 3)), h, w, kh, kw, sh, sw, ph, pw, oh, ow


def windows(shape: Shape) -> "list[tuple[int, int, slice, slice, int]]":
    """oy, ox, rows and columns on the plane, and how many elements the window has with its padding."""
    _, h, w, kh, kw, sh, sw, ph, pw, oh, ow = shape
    found = []
    for oy in range(oh):
        for ox in range(ow):
            top, left = oy * sh - ph, ox * sw - pw
            bottom, right = min(top + kh, h + ph), min(left + kw, w + pw)
            seen = slice(max(top, 0), min(bottom, h)), slice(max(left, 0), min(right, w))
            found.append((oy, ox, *seen, (bottom - top) * (right - left)))
    return found


@given(shape=shapes(), seed=seeds, coarse=st.booleans())
def test_the_first_greatest_of_a_window_is_taken_and_gets_the_gradient(host: Host, shape: Shape, seed: int, coarse: bool) -> None:
    planes, h, w, *_, oh, ow = shape
    x, dy = normal(seed, planes, h, w), normal(seed + 1, planes, oh, ow)
    x = np.round(x) if coarse else x
    y, index, dx = empty(planes, oh, ow), np.full((planes, oh, ow), -1, np.int32), empty(planes, h, w)
    host.call("max_pool2d", x, y, index, *shape)
    places = np.arange(h * w).reshape(h, w)
    wanted_dx = np.zeros((planes, h, w))
    for oy, ox, rows, columns, _ in windows(shape):
        for plane in range(planes):
            best = places[rows, columns].flat[int(x[plane][rows, columns].argmax())]
            assert index[plane, oy, ox] == best
            assert y[plane, oy, ox] == x[plane].flat[best]
            wanted_dx[plane].flat[best] += dy[plane, oy, ox]
    host.call("max_pool2d_grad", dy, index, dx, planes, h, w, oh, ow)
    assert_close(dx, wanted_dx, ulps=ULPS)


@pytest.mark.parametrize("at", range(4))
def test_a_nan_is_greatest(host: Host, at: int) -> None:
    x, y, index = np.tile(as_tensor(1, 2, 3, 4), 16).reshape(16, 2, 2), empty(16), np.zeros(16, np.int32)
    x[:, at // 2, at % 2] = np.nan
    row = np.ascontiguousarray(x.transpose(1, 0, 2).reshape(2, 32))
    host.call("max_pool2d", row, y, index, 1, 2, 32, 2, 2, 2, 2, 0, 0, 1, 16)
    assert np.isnan(y).all()
    np.testing.assert_array_equal(index, np.arange(16) * 2 + at // 2 * 32 + at % 2)


@given(shape=shapes(), count_padding=st.booleans(), seed=seeds)
def test_a_mean_counts_padding_if_it_is_told_to(host: Host, shape: Shape, count_padding: bool, seed: int) -> None:
    planes, h, w, *_, oh, ow = shape
    x, dy, y, dx = normal(seed, planes, h, w), normal(seed + 1, planes, oh, ow), empty(planes, oh, ow), empty(planes, h, w)
    wanted_y, wanted_dx = np.zeros(y.shape), np.zeros(dx.shape)
    for oy, ox, rows, columns, size in windows(shape):
        seen: Array = x[:, rows, columns].astype(np.float64)
        count = size if count_padding else seen[0].size
        wanted_y[:, oy, ox] = seen.sum(axis=(1, 2)) / count
        wanted_dx[:, rows, columns] += (dy[:, oy, ox] / count)[:, None, None]
    host.call("avg_pool2d", x, y, *shape, count_padding)
    assert_close(y, wanted_y, ulps=ULPS)
    host.call("avg_pool2d_grad", dy, dx, *shape, count_padding)
    assert_close(dx, wanted_dx, ulps=ULPS)
