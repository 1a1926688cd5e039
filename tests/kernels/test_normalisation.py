"""Batch, layer and group normalisation against float64, by one reference: means over some axes, weights along another."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels.closeness import Array, assert_close, empty, normal, seeds
from tests.kernels.host import Host

ULPS = 64
"""Of the greatest element: inputs lie three deviations from zero, and the mean is taken off them."""
EPS_ADDED = 1e-3

small = st.integers(1, 6)
inner_of = st.sampled_from([1, 2, 3, 16, 37, 300])


def normalised(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Normalised x, mean and reciprocal root of the variance; the two keep the axes."""
    wide = x.astype(np.float64)
    mean = wide.mean(axis=axes, keepdims=True)
    rstd = 1 / np.sqrt(wide.var(axis=axes, keepdims=True) + EPS_ADDED)
    return (wide - mean) * rstd, mean, rstd


def gradient(x: Array, scaled_dy: Array, axes: tuple[int, ...]) -> Array:
    """Of the input, of the gradient behind the weights."""
    hat, _, rstd = normalised(x, axes)
    return np.asarray(
        rstd * (scaled_dy - scaled_dy.mean(axis=axes, keepdims=True) - hat * (scaled_dy * hat).mean(axis=axes, keepdims=True))
    )


def assert_gradients(x: Array, dy: Array, weight: Array, axes: tuple[int, ...], own: int, found: tuple[Array, Array, Array]) -> None:
    """``own``: the axis along which weights lie; dweight and dbias are sums over all others."""
    others = tuple(axis for axis in range(x.ndim) if axis != own)
    along = weight.reshape([-1 if axis == own else 1 for axis in range(x.ndim)]).astype(np.float64)
    hat, _, rstd = normalised(x, axes)
    dx, dweight, dbias = found
    # Where all but nothing is left of a gradient, it is measured by what it is the rest of.
    np.testing.assert_allclose(dx, gradient(x, dy * along, axes), atol=2e-5 * float(np.abs(rstd * along * dy).max()) + 1e-7)
    np.testing.assert_allclose(dweight, (dy * hat).sum(axis=others), atol=1e-5 * float(np.abs(dy * hat).sum(axis=others).max()) + 1e-6)
    np.testing.assert_allclose(dbias, dy.sum(axis=others, dtype=np.float64), atol=1e-6 * float(np.abs(dy).sum(axis=others).max()))


@given(n=small, c=small, inner=inner_of, seed=seeds)
def test_batch_norm_trains_and_remembers(host: Host, n: int, c: int, inner: int, seed: int) -> None:
    n += n * inner == 1
    x, dy, weight, bias = normal(seed, n, c, inner) + 3, normal(seed + 1, n, c, inner), normal(seed + 2, c), normal(seed + 3, c)
    y, dx, mean, rstd, dweight, dbias = empty(n, c, inner), empty(n, c, inner), *(empty(c) for _ in range(4))
    running_mean, running_var = normal(seed + 4, c), np.abs(normal(seed + 5, c))
    hat, wanted_mean, _ = normalised(x, (0, 2))
    moved_mean = 0.75 * running_mean + 0.25 * wanted_mean.ravel()
    moved_var = 0.75 * running_var + 0.25 * x.astype(np.float64).var(axis=(0, 2), ddof=1)
    host.call("batch_norm", x, weight, bias, y, mean, rstd, running_mean, running_var, n, c, inner, 0.25, EPS_ADDED)
    assert_close(y, hat * weight[:, None] + bias[:, None], ulps=4 * ULPS)
    assert_close(running_mean, moved_mean, ulps=ULPS)
    assert_close(running_var, moved_var, ulps=ULPS)
    host.call("batch_norm_grad", dy, x, weight, mean, rstd, dx, dweight, dbias, n, c, inner)
    assert_gradients(x, dy, weight, (0, 2), 1, (dx, dweight, dbias))


@given(n=small, c=small, inner=inner_of, seed=seeds)
def test_batch_norm_evaluates_by_what_it_remembers(host: Host, n: int, c: int, inner: int, seed: int) -> None:
    x, weight, bias, y = normal(seed, n, c, inner), normal(seed + 2, c), normal(seed + 3, c), empty(n, c, inner)
    mean, var = normal(seed + 4, c), np.abs(normal(seed + 5, c))
    wanted = (x - mean[:, None].astype(np.float64)) / np.sqrt(var.astype(np.float64) + EPS_ADDED)[:, None] * weight[:, None] + bias[:, None]
    host.call("batch_norm_evaluate", x, weight, bias, y, mean, var, n, c, inner, EPS_ADDED)
    assert_close(y, wanted, ulps=ULPS)


@given(rows=st.integers(1, 9), columns=st.integers(2, 70), seed=seeds)
def test_layer_norm_and_its_gradients(host: Host, rows: int, columns: int, seed: int) -> None:
    x, dy, weight, bias = (
        normal(seed, rows, columns) + 3,
        normal(seed + 1, rows, columns),
        normal(seed + 2, columns),
        normal(seed + 3, columns),
    )
    y, dx, mean, rstd = empty(rows, columns), empty(rows, columns), empty(rows), empty(rows)
    dweight, dbias = empty(columns), empty(columns)
    host.call("layer_norm", x, weight, bias, y, mean, rstd, rows, columns, EPS_ADDED)
    assert_close(y, normalised(x, (1,))[0] * weight + bias, ulps=4 * ULPS)
    host.call("layer_norm_grad", dy, x, weight, mean, rstd, dx, dweight, dbias, rows, columns)
    assert_gradients(x, dy, weight, (1,), 1, (dx, dweight, dbias))


@given(n=small, groups=st.integers(1, 3), per_group=st.integers(1, 3), inner=st.sampled_from([2, 5, 16, 37]), seed=seeds)
def test_group_norm_and_its_gradients(host: Host, n: int, groups: int, per_group: int, inner: int, seed: int) -> None:
    c = groups * per_group
    x, dy, weight, bias = normal(seed, n, c, inner) + 3, normal(seed + 1, n, c, inner), normal(seed + 2, c), normal(seed + 3, c)
    y, dx, mean, rstd, dweight, dbias = empty(n, c, inner), empty(n, c, inner), empty(n, groups), empty(n, groups), empty(c), empty(c)
    split = x.reshape(n, groups, per_group, inner)
    along = weight.reshape(groups, per_group, 1)
    host.call("group_norm", x, weight, bias, y, mean, rstd, n, c, inner, groups, EPS_ADDED)
    hat = normalised(split, (2, 3))[0]
    assert_close(y, (hat * along + bias.reshape(along.shape)).reshape(x.shape), ulps=4 * ULPS)
    host.call("group_norm_grad", dy, x, weight, mean, rstd, dx, dweight, dbias, n, c, inner, groups)
    parts = dy.reshape(split.shape)
    scale = float(np.abs(normalised(split, (2, 3))[2]).max() * np.abs(parts * along).max())
    np.testing.assert_allclose(dx.reshape(split.shape), gradient(split, parts * along.astype(np.float64), (2, 3)), atol=2e-5 * scale + 1e-7)
    np.testing.assert_allclose(dweight, (parts * hat).sum(axis=(0, 3)).ravel(), atol=1e-4)
    np.testing.assert_allclose(dbias, dy.sum(axis=(0, 2), dtype=np.float64), atol=1e-5 * n * inner)


def test_weights_and_gradients_may_be_none(host: Host) -> None:
    x, dy = normal(1, 4, 6), normal(2, 4, 6)
    ones, zeros = np.ones(6, np.float32), np.zeros(6, np.float32)
    for kernel, sizes, stats, last in (
        ("layer_norm", (4, 6), 4, (EPS_ADDED,)),
        ("group_norm", (4, 6, 1, 2), 8, (EPS_ADDED,)),
        ("batch_norm", (4, 6, 1), 6, (0.5, EPS_ADDED)),
    ):
        with_ones, without, dx, other = (empty(4, 6) for _ in range(4))
        mean, rstd = empty(stats), empty(stats)
        running = (None, None) if kernel == "batch_norm" else ()
        host.call(kernel, x, ones, zeros, with_ones, mean, rstd, *running, *sizes, *last)
        host.call(kernel, x, None, None, without, mean, rstd, *running, *sizes, *last)
        assert with_ones.tobytes() == without.tobytes()
        host.call(f"{kernel}_grad", dy, x, ones, mean, rstd, dx, empty(6), empty(6), *sizes)
        host.call(f"{kernel}_grad", dy, x, None, mean, rstd, other, None, None, *sizes)
        assert dx.tobytes() == other.tobytes()
        dweight = empty(6)
        host.call(f"{kernel}_grad", dy, x, None, mean, rstd, None, dweight, None, *sizes)
        assert not np.isnan(dweight).any()
