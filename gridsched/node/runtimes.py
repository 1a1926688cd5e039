"""What runs a program on this machine: PyTorch where it is installed, else the kernels that also run in a page.

Nothing of either is imported before one is chosen, so that a node without PyTorch needs none and loads none.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gridsched.core.errors import ConfigError
from gridsched.train.program import Program
from gridsched.train.tensors import Array
from gridsched.train.unit import Runtime

__all__ = ["RUNTIMES", "Chosen", "MakeRuntime", "choose"]

MakeRuntime = Callable[[Program, Mapping[str, Array]], Runtime]

RUNTIMES = ("auto", "torch", "wasm")

_NO_TORCH = "PyTorch is not installed: pip install 'gridsched[train]', or use the small runtime with --runtime wasm"
_NO_WASM = "wasmtime is not installed: pip install 'gridsched[wasm]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """``make`` runs a program; ``effort`` is what an owner's limit is a share of (see `gridsched.node.worker.Worker`), in seconds."""

    hardware_class: str
    make: MakeRuntime
    effort: Callable[[], float]


def choose(wanted: str, *, device: str, threads: int) -> Chosen:
    """The runtime that ``wanted`` names; ``auto`` is PyTorch, or where that is not installed the small one.

    Raises ConfigError, with what to install, for one that is not there.
    """
    if wanted == "wasm":
        return _wasm(device, without=_NO_WASM)
    try:
        return _torch(device, threads)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        if wanted == "torch":
            raise ConfigError(_NO_TORCH) from error
    return _wasm(device, without="no training runtime is installed: pip install 'gridsched[wasm]' is small, 'gridsched[train]' fast")


def _torch(device: str, threads: int) -> Chosen:
    from gridsched.train.torch_runtime import TorchRuntime, hardware_class, pick_device

    kind = pick_device(device).type
    return Chosen(
        hardware_class=hardware_class(kind, threads),
        make=lambda program, tensors: TorchRuntime(program, tensors, device=kind, threads=threads),
        effort=time.process_time if kind == "cpu" else time.monotonic,
    )


def _wasm(device: str, *, without: str) -> Chosen:
    if device not in ("cpu", "auto"):
        raise ConfigError(f'the wasm runtime computes on the processor; set device = "cpu", or runtime = "torch" for {device}')
    try:
        from gridsched.train.wasm_runtime import WasmRuntime, hardware_class
    except ModuleNotFoundError as error:
        if error.name != "wasmtime":
            raise
        raise ConfigError(without) from error
    return Chosen(hardware_class=hardware_class(), make=WasmRuntime, effort=time.process_time)
