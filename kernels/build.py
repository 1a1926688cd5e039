"""Compiles the kernels into ``gridsched/_built/kernels.wasm``: the same bytes from the same sources, in any folder and at any time.

Run from a checkout; ``make setup`` does so when a source has changed::

    python kernels/build.py

The compiler is Zig's clang from the PyPI package ``ziglang`` (extra ``build``). Its release is pinned, for another one may order
other bytes, and with them the runtime name that work units carry (``wasm-`` and the first digits of the module's SHA-256).
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gridsched.train.plan.kernels import HEAP, KERNELS, Kernel

__all__ = ["TARGET", "compiled", "dispatcher", "main"]

SOURCES = Path(__file__).resolve().parent
TARGET = SOURCES.parent / "gridsched" / "_built" / "kernels.wasm"
STACK_BYTES = 1 << 16
DISPATCHER = "dispatcher.c"

# No contraction to fused multiply-adds and no relaxed SIMD: the bits are those that the sources say, on every processor.
_COMPILE = ["-target", "wasm32-freestanding", "-std=c17", "-O3", "-msimd128", "-mbulk-memory", "-ffp-contract=off", "-fno-builtin"]
_COMPILE += ["-nostdlib", "-g0", "-fno-sanitize=all", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wstrict-prototypes", "-Werror"]
# A module that would need more than HEAP bytes for itself does not fit the initial memory, and the linker says so.
# With the stack first, its overflow leaves the memory (a trap) instead of running over data.
_LINK = ["--no-entry", "--stack-first", "-z", f"stack-size={STACK_BYTES}", f"--initial-memory={HEAP}", "--strip-all"]

_TYPES = {"p": "void *", "i": "int32_t ", "f": "float ", "d": "double "}
_READ = {"p": "(void *)(uintptr_t)word[{at}]", "i": "(int32_t)word[{at}]", "f": "as_float(word[{at}])", "d": "as_double(word + {at})"}
_HEAD = """\
// Written by kernels/build.py from gridsched/train/plan/kernels.py.
#include "module.h"

static float as_float(uint32_t bits) {
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

__attribute__((unused)) static double as_double(const uint32_t *words) {
    double value;
    __builtin_memcpy(&value, words, sizeof value);
    return value;
}
"""
_RUN = """\
// Executes the calls in `code`, `words` long. 0, or 1 + the index of the word where no known and whole call begins.
int32_t EXPORT(run)(const uint32_t *code, int32_t words) {
    for (int32_t at = 0; at < words;) {
        const uint32_t *word = code + at;
        int32_t left = words - at;
        switch (word[0]) {
"""
_END = """\
        default:
            return 1 + at;
        }
    }
    return 0;
}
"""


def dispatcher(kernels: Iterable[Kernel]) -> str:
    """The C source of ``run``: reads a call's words, calls the kernel, goes on behind them."""
    rows = list(kernels)
    return "\n".join([_HEAD, *map(_prototype, rows), "", _RUN + "".join(map(_case, rows)) + _END])


def _prototype(kernel: Kernel) -> str:
    return f"void {kernel.name}({', '.join(_TYPES[letter] + name for letter, name in kernel.arguments)});"


def _case(kernel: Kernel) -> str:
    read, at = [], 1
    for letter, _ in kernel.arguments:
        read.append(_READ[letter].format(at=at))
        at += 2 if letter == "d" else 1
    return f"""\
        case {kernel.number}:
            if (left < {at}) return 1 + at;
            {kernel.name}({", ".join(read)});
            at += {at};
            break;
"""


def compiled(sources: Path = SOURCES, kernels: Iterable[Kernel] = tuple(KERNELS.values())) -> bytes:
    """The module made of all C files in ``sources`` and the dispatcher of ``kernels``.

    :raises subprocess.CalledProcessError: if they do not compile or do not fit; the compiler has said why
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for source in sorted([*sources.glob("*.c"), *sources.glob("*.h")]):
            shutil.copy(source, folder)
        (folder / DISPATCHER).write_text(dispatcher(kernels), encoding="utf-8")
        # Called within the folder, so that no path of this machine can come into the bytes.
        zig = [sys.executable, "-m", "ziglang"]
        names = sorted(path.stem for path in folder.glob("*.c"))

        def compile_one(name: str) -> None:
            subprocess.run([*zig, "cc", *_COMPILE, "-c", f"{name}.c", "-o", f"{name}.o"], cwd=folder, check=True)

        with ThreadPoolExecutor(os.cpu_count()) as workers:
            list(workers.map(compile_one, names))
        subprocess.run([*zig, "wasm-ld", *_LINK, *(f"{name}.o" for name in names), "-o", "kernels.wasm"], cwd=folder, check=True)
        return (folder / "kernels.wasm").read_bytes()


def main() -> None:
    """Compile, and write the module if it is another than before."""
    if importlib.util.find_spec("ziglang") is None:
        sys.exit("kernels/build.py needs Zig's C compiler: pip install -c constraints.txt -e '.[build]'")
    try:
        module = compiled()
    except subprocess.CalledProcessError as failed:
        sys.exit(f"The kernels were not built, for the reasons above: {failed.cmd[-1]}")
    if TARGET.exists() and TARGET.read_bytes() == module:
        return
    TARGET.parent.mkdir(exist_ok=True)
    # Written beside and renamed: another process may be reading the old one.
    beside = TARGET.with_suffix(".new")
    beside.write_bytes(module)
    beside.replace(TARGET)
    print(f"wrote {TARGET} ({len(module):,} bytes)")


if __name__ == "__main__":
    main()
