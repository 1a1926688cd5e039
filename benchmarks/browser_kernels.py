"""What single kernels take in wasmtime, beside PyTorch with one thread: where a training step's time goes.

The convolutions, pools and products are those of the reference network (conv 3-16, relu, pool, conv 16-32, relu, pool, dense;
batch 32 of 32 x 32 x 3); the rest are shapes of the shipped examples. Kernel and PyTorch take turns and medians of the thread's
processor time are compared, so that who else works on the machine counts little. Run from a checkout, with part of a name to
choose::

    python benchmarks/browser_kernels.py [conv]
"""

import functools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.kernels.host import Argument, Host  # noqa: E402 - found by the line above

MODULE = ROOT / "gridsched" / "_built" / "kernels.wasm"
ROUNDS = 21
SECONDS = 0.01
"""About how long one side's turn takes."""
GOAL = 1.3
"""Of the reference network's kernels together, each as often as a step calls it."""

REFERENCE = ("conv 3-16", "conv 3-16 dW", "pool 16x32x32", "pool 16x32x32 grad", "conv 16-32", "conv 16-32 dX", "conv 16-32 dW")

Case = tuple[str, tuple[Argument, ...], Callable[[], object]]
rng = np.random.default_rng(1)


def normal(*shape: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    return rng.standard_normal(shape).astype(np.float32)


def convolutions(name: str, n: int, c: int, size: int, o: int) -> Iterator[tuple[str, Case]]:
    x, weight, bias, dy = normal(n, c, size, size), normal(o, c, 3, 3), normal(o), normal(n, o, size, size)
    scratch, numbers = normal(1 << 21), (n, c, size, size, o, 3, 3, 1, 1, 1, 1, 1, 1, 1)
    tx, tw, tb, td = map(torch.from_numpy, (x, weight, bias, dy))

    def back(*wanted: bool) -> object:
        return torch.ops.aten.convolution_backward(td, tx, tw, [o], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, wanted)

    yield name, ("conv2d", (x, weight, bias, normal(*dy.shape), scratch, *numbers), lambda: functional.conv2d(tx, tw, tb, padding=1))
    yield f"{name} dX", ("conv2d_grad_input", (dy, weight, normal(*x.shape), scratch, *numbers), lambda: back(True, False, False))
    gradients = (normal(*weight.shape), normal(o))
    yield f"{name} dW", ("conv2d_grad_weight", (dy, x, *gradients, scratch, *numbers), lambda: back(False, True, True))


def pools(name: str, n: int, c: int, size: int) -> Iterator[tuple[str, Case]]:
    half = size // 2
    x, dy = normal(n, c, size, size), normal(n, c, half, half)
    index = np.zeros(dy.shape, np.int32)
    tx, td = torch.from_numpy(x), torch.from_numpy(dy)
    _, where = functional.max_pool2d(tx, 2, return_indices=True)
    index[...] = where.numpy()
    square = (n * c, size, size)
    yield (
        name,
        ("max_pool2d", (x, normal(*dy.shape), index.copy(), *square, 2, 2, 2, 2, 0, 0, half, half), lambda: functional.max_pool2d(tx, 2)),
    )
    grad = torch.ops.aten.max_pool2d_with_indices_backward
    yield (
        f"{name} grad",
        (
            "max_pool2d_grad",
            (dy, index, normal(*x.shape), *square, half, half),
            lambda: grad(td, tx, [2, 2], [2, 2], [0, 0], [1, 1], False, where),
        ),
    )


def products() -> Iterator[tuple[str, Case]]:
    for m, n, k, transpose_a, transpose_b in (
        (32, 10, 2048, 0, 1),
        (64, 128, 784, 0, 1),
        (128, 784, 64, 1, 0),
        (64, 784, 128, 0, 0),
        (256, 256, 256, 0, 0),
        (1024, 192, 64, 0, 1),
        (32, 384, 128, 0, 1),
    ):
        a, b = normal(*((k, m) if transpose_a else (m, k))), normal(*((n, k) if transpose_b else (k, n)))
        ta, tb = torch.from_numpy(a), torch.from_numpy(b)
        left, right = ta.T if transpose_a else ta, tb.T if transpose_b else tb
        yield (
            f"gemm {m}x{n}x{k} {'nt'[transpose_a]}{'nt'[transpose_b]}",
            ("gemm", (a, b, normal(m, n), m, n, k, transpose_a, transpose_b, 0), functools.partial(torch.matmul, left, right)),
        )


def rows() -> Iterator[tuple[str, Case]]:
    x, y, weight, bias = normal(2048, 64), normal(2048, 64), normal(64), normal(64)
    tx, tw, tb = map(torch.from_numpy, (x, weight, bias))
    yield (
        "layer_norm 2048x64",
        ("layer_norm", (x, weight, bias, y, normal(2048), normal(2048), 2048, 64, 1e-5), lambda: functional.layer_norm(tx, (64,), tw, tb)),
    )
    yield "softmax 2048x64", ("softmax", (x, y, 2048, 64), lambda: torch.softmax(tx, -1))
    image, like = normal(32, 16, 16, 16), normal(32, 16, 16, 16)
    state = [normal(16) for _ in range(4)]
    ti, tws, tbs = map(torch.from_numpy, (image, state[0], state[1]))
    call = (image, state[0], state[1], like, state[2], state[3], None, None, 32, 16, 256, 0.1, 1e-5)
    yield "batch_norm 32x16x256", ("batch_norm", call, lambda: functional.batch_norm(ti, None, None, tws, tbs, training=True))


def optimizers(n: int) -> Iterator[tuple[str, Case]]:
    state = [normal(n) for _ in range(3)] + [np.abs(normal(n))]
    held = [torch.from_numpy(one.copy()) for one in state]

    def momentum() -> None:
        held[2].mul_(0.9).add_(held[1])
        held[0].add_(held[2], alpha=-1e-9)

    def adamw() -> None:
        held[2].lerp_(held[1], 0.1)
        held[3].mul_(0.999).addcmul_(held[1], held[1], value=0.001)
        held[0].addcdiv_(held[2], held[3].sqrt().div_(0.1).add_(1e-8), value=-1e-9)

    yield f"sgd {n}", ("sgd", (*state[:3], n, 1e-9, 0.9, 0.0), momentum)
    yield f"adamw {n}", ("adamw", (*state, np.array([5], np.int32), n, 1e-9, 0.9, 0.999, 1e-8, 0.0), adamw)


def cases() -> Iterator[tuple[str, Case]]:
    yield from convolutions("conv 3-16", 32, 3, 32, 16)
    yield from pools("pool 16x32x32", 32, 16, 32)
    yield from convolutions("conv 16-32", 32, 16, 16, 32)
    yield from products()
    yield from rows()
    yield from optimizers(100_000)


def seconds_of(work: Callable[[], object], times: int) -> float:
    began = time.thread_time()
    for _ in range(times):
        work()
    return (time.thread_time() - began) / times


def measured(host: Host, case: Case) -> dict[str, float]:
    """Medians of turns taken alternately, in milliseconds."""
    kernel, arguments, peer = case
    words, _ = host.prepared(kernel, *arguments)

    def own() -> None:
        assert host.run(words) == 0

    turns = {side: max(1, int(SECONDS / seconds_of(work, 2))) for side, work in (("wasm", own), ("torch", peer))}
    found: dict[str, list[float]] = {"wasm": [], "torch": []}
    for _ in range(ROUNDS):
        found["wasm"].append(seconds_of(own, turns["wasm"]))
        found["torch"].append(seconds_of(peer, turns["torch"]))
    ms = {side: statistics.median(times) * 1e3 for side, times in found.items()}
    best = min(found["wasm"]) / min(found["torch"])
    return {
        "wasm_ms": round(ms["wasm"], 4),
        "torch_ms": round(ms["torch"], 4),
        "ratio": round(ms["wasm"] / ms["torch"], 2),
        "best_ratio": round(best, 2),
    }


def main() -> None:
    torch.set_num_threads(1)
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    host = Host.of(MODULE.read_bytes())
    found = {}
    with torch.no_grad():
        for name, case in cases():
            if wanted in name:
                found[name] = measured(host, case)
                part = found[name]
                print(f"{name:26s} {part['wasm_ms']:9.3f} ms, torch {part['torch_ms']:9.3f} ms: {part['ratio']:.2f}", flush=True)
    parts = [found[name] for name in REFERENCE if name in found]
    ratio = (
        round(sum(part["wasm_ms"] for part in parts) / sum(part["torch_ms"] for part in parts), 2) if len(parts) == len(REFERENCE) else None
    )
    report = {"kernels": found, "reference_ratio": ratio, "goal": GOAL, "reached": ratio is not None and ratio <= GOAL}
    print(json.dumps({**report, "module_bytes": MODULE.stat().st_size, "load": os.getloadavg()[0]}))


if __name__ == "__main__":
    main()
