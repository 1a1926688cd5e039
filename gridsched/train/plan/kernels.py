"""The kernels a plan may call, in the order of their numbers: one table for the planner, the C dispatcher and the hosts.

A call is a row of 32-bit words: the kernel's number, then its arguments in the order below. A letter tells what each word is:
``p`` a byte address in the module's memory (0: none, where the kernel's comment allows it), ``i`` a whole number, ``f`` the bits of
a float32, ``d`` those of a float64 in two words, the lower first. Tensors are float32, contiguous and row-major unless a name says
otherwise: ``_i64`` little-endian 64-bit integers, ``_u8`` bytes, ``_i32`` 32-bit integers. ``i6`` is six words, one for each axis of
a strided tensor: its sizes, or its steps in elements (0 along an axis that is repeated). ``kernels/build.py`` writes the dispatcher
from this table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["HEAP", "KERNELS", "Kernel", "conv2d_scratch_bytes"]

HEAP = 1 << 21
"""The first byte of memory that a plan may use; the module's own data and stack lie below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """``arguments`` are ``(letter, name)`` pairs, the C function's own parameters in order."""

    number: int
    name: str
    arguments: tuple[tuple[str, str], ...]

    @property
    def words(self) -> int:
        """How long a call is, with the kernel's number."""
        return 1 + sum(2 if letter == "d" else 1 for letter, _ in self.arguments)


_TABLE = """
    gemm                   p a, p b, p c, i m, i n, i k, i transpose_a, i transpose_b, i accumulate
    gemm_batched           p a, p b, p c, i m, i n, i k, i transpose_a, i transpose_b, i accumulate, i batch, i step_a, i step_b, i step_c
    add_to_rows            p bias, p y, i rows, i columns
    sum_of_rows            p x, p y, i rows, i columns, i accumulate
    conv2d                 p x, p weight, p bias, p y, p scratch, i n, i c, i h, i w, i o, i kh, i kw, i sh, i sw, i ph, i pw, i dh, i dw, i groups
    conv2d_grad_input      p dy, p weight, p dx, p scratch, i n, i c, i h, i w, i o, i kh, i kw, i sh, i sw, i ph, i pw, i dh, i dw, i groups
    conv2d_grad_weight     p dy, p x, p dweight, p dbias, p scratch, i n, i c, i h, i w, i o, i kh, i kw, i sh, i sw, i ph, i pw, i dh, i dw, i groups
    max_pool2d             p x, p y, p index_i32, i planes, i h, i w, i kh, i kw, i sh, i sw, i ph, i pw, i oh, i ow
    max_pool2d_grad        p dy, p index_i32, p dx, i planes, i h, i w, i oh, i ow
    avg_pool2d             p x, p y, i planes, i h, i w, i kh, i kw, i sh, i sw, i ph, i pw, i oh, i ow, i count_padding
    avg_pool2d_grad        p dy, p dx, i planes, i h, i w, i kh, i kw, i sh, i sw, i ph, i pw, i oh, i ow, i count_padding
    batch_norm             p x, p weight, p bias, p y, p mean, p rstd, p running_mean, p running_var, i n, i c, i inner, f momentum, f eps
    batch_norm_evaluate    p x, p weight, p bias, p y, p running_mean, p running_var, i n, i c, i inner, f eps
    batch_norm_grad        p dy, p x, p weight, p mean, p rstd, p dx, p dweight, p dbias, i n, i c, i inner
    layer_norm             p x, p weight, p bias, p y, p mean, p rstd, i rows, i columns, f eps
    layer_norm_grad        p dy, p x, p weight, p mean, p rstd, p dx, p dweight, p dbias, i rows, i columns
    group_norm             p x, p weight, p bias, p y, p mean, p rstd, i n, i c, i inner, i groups, f eps
    group_norm_grad        p dy, p x, p weight, p mean, p rstd, p dx, p dweight, p dbias, i n, i c, i inner, i groups
    softmax                p x, p y, i rows, i columns
    softmax_grad           p dy, p y, p dx, i rows, i columns
    log_softmax            p x, p y, i rows, i columns
    log_softmax_grad       p dy, p y, p dx, i rows, i columns
    attention_softmax      p scores, p y, i matrices, i rows, i columns, f scale, i causal
    attention_softmax_grad p dy, p y, p dscores, i matrices, i rows, i columns, f scale
    cross_entropy          p logits, p target_i64, p log_probability, p loss, i rows, i columns, i ignore
    cross_entropy_grad     p dloss, p log_probability, p target_i64, p dlogits, i rows, i columns, i ignore
    correct                p outputs, p target_i64, p count_i32, i rows, i columns
    embedding              p weight, p index_i64, p y, i n, i width, i rows
    embedding_grad         p dy, p index_i64, p dweight, i n, i width, i rows, i padding
    gru_cell               p input_gates, p hidden_gates, p hidden, p y, p saved, i n, i width
    gru_cell_grad          p dy, p hidden, p saved, p dinput_gates, p dhidden_gates, p dhidden, i n, i width
    lstm_cell              p input_gates, p hidden_gates, p cell, p y, p cell_y, p saved, i n, i width
    lstm_cell_grad         p dy, p dcell_y, p cell, p saved, p dgates, p dcell, i n, i width
    dropout                p x, p y, p seed_i64, i stream, i n, f share
    sgd                    p parameter, p gradient, p momentum_buffer, i n, f lr, f momentum, f weight_decay
    adamw                  p parameter, p gradient, p mean, p square, p step_i32, i n, d lr, d beta1, d beta2, f eps, d weight_decay
    pull_back              p gradient, p parameter, p anchor, i n, f prox
    fill                   p y, i n, f value
    fill_i64               p y_i64, i n, i value
    fill_u8                p y_u8, i n, i value
    arange_i64             p y_i64, i n, i start, i step
    cast                   p x, p y, i n, i from, i to
    add                    p a, p b, p y, i n
    add_scaled             p x, p y, p scale, i n
    unary                  p x, p y, i n, i what, f a, f b
    unary_grad             p dy, p x, p y, p dx, i n, i what, f a, f b
    affine_i64             p x_i64, p y_i64, i n, i scale, i add
    binary                 p a, p b, p y, i what, i6 size, i6 step_a, i6 step_b
    binary_i64             p a_i64, p b_i64, p y_i64, i what, i6 size, i6 step_a, i6 step_b
    compare                p a, p b, p y_u8, i what, i6 size, i6 step_a, i6 step_b
    compare_i64            p a_i64, p b_i64, p y_u8, i what, i6 size, i6 step_a, i6 step_b
    logic                  p a_u8, p b_u8, p y_u8, i what, i6 size, i6 step_a, i6 step_b
    choose                 p condition_u8, p a, p b, p y, i6 size, i6 step_c, i6 step_a, i6 step_b
    copy                   p x, p y, i item_bytes, i6 size, i6 step_x, i6 step_y
    reduce                 p x, p y, i outer, i n, i inner, i what
    reduce_index           p x, p index_i64, i outer, i n, i inner, i what
    index_select           p x, p index_i64, p y, i outer, i rows, i n, i inner
    index_add              p dy, p index_i64, p dx, i outer, i rows, i n, i inner
    gather                 p x, p index_i64, p y, i outer, i rows, i n, i inner
    gather_add             p dy, p index_i64, p dx, i outer, i rows, i n, i inner
    one_hot                p index_i64, p y_i64, i n, i classes
"""  # noqa: E501 - a row is a line


def _read(table: str) -> Mapping[str, Kernel]:
    kernels = {}
    for number, line in enumerate(table.strip().splitlines()):
        name, _, arguments = line.strip().partition(" ")
        pairs = tuple(pair for item in arguments.split(",") for pair in _expand(*item.split()))
        kernels[name] = Kernel(number=number, name=name, arguments=pairs)
    return MappingProxyType(kernels)


def _expand(letter: str, name: str) -> list[tuple[str, str]]:
    return [(letter, name)] if len(letter) == 1 else [(letter[0], f"{name}{axis}") for axis in range(int(letter[1:]))]


KERNELS: Mapping[str, Kernel] = _read(_TABLE)
"""By name."""


def conv2d_scratch_bytes(
    *, c: int, h: int, w: int, o: int, kh: int, kw: int, sh: int, sw: int, ph: int, pw: int, dh: int, dw: int, groups: int
) -> int:
    """What ``scratch`` must hold for ``conv2d`` and both its gradients, whatever the number of samples.

    One unfolded group of a sample; or, with strides of 1, padded copies of its channels on both sides with the weights once more
    (kernels/correlate.c) or with transformed tiles and weights (kernels/winograd.c).
    """
    channels, outputs, taps = c // groups, o // groups, kh * kw
    reach_h, reach_w = dh * (kh - 1), dw * (kw - 1)
    oh, ow = (h + 2 * ph - reach_h - 1) // sh + 1, (w + 2 * pw - reach_w - 1) // sw + 1
    unfolded = channels * taps * oh * ow
    if (sh, sw) != (1, 1):
        return 4 * unfolded
    both = _eights(channels) + _eights(outputs)
    planes = both * (max(h, oh) + max(reach_h, 8)) * (_eights(max(w, ow)) + max(reach_w, 8))
    straight = max(channels, outputs) * taps * (max(_eights(channels), _eights(outputs)) + 1)
    tiled = 36 * (_eights(channels) * _eights(outputs) + 64 * both + 32) if (kh, kw, dh, dw) == (3, 3, 1, 1) else 0
    return 4 * max(unfolded, planes + max(straight, tiled))


def _eights(count: int) -> int:
    return -(-count // 8) * 8
