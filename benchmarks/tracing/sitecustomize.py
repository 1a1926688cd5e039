"""When the steps of a round happen, written down by the processes themselves: python imports this file where it lies on its path.

``train_round.py --trace`` puts it there. A line is ``NAME SECONDS``, one file for each process in ``GRIDSCHED_TRACE``.
"""

import importlib.abc
import importlib.machinery
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = os.environ.get("GRIDSCHED_TRACE", "")
MARKED = {
    "gridsched.node.agent": {"Agent._start": "start"},
    "gridsched.train.unit": {"UnitRun.step": "step", "UnitRun.delta": "delta"},
    "gridsched.node.client": {"Client.upload": "upload", "Client.update": "notice"},
}


def mark(name: str, at_s: float) -> None:
    """One line, under the name of the node's home."""
    home = next((argument for argument in sys.argv if "/nodes/" in argument), "daemon")
    with (Path(FOLDER) / f"{Path(home).name}.{os.getpid()}").open("a", encoding="ascii") as lines:
        lines.write(f"{name} {at_s:.6f}\n")


def marking(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """``call``, with its beginning and its end written down."""

    @wraps(call)
    def marked(*args: Any, **named: Any) -> Any:
        began_s = time.time()
        try:
            return call(*args, **named)
        finally:
            mark(f"{name}>", began_s)
            mark(f"{name}.", time.time())

    return marked


class Finder(importlib.abc.MetaPathFinder):
    """Finds the marked modules as python does, and wraps what is marked once they are loaded."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, _: ModuleType | None = None) -> Any:
        """See `importlib.abc.MetaPathFinder.find_spec`."""
        spec = importlib.machinery.PathFinder.find_spec(fullname, path) if fullname in MARKED else None
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            for place, name in MARKED[fullname].items():
                owner, method = place.split(".")
                setattr(getattr(module, owner), method, marking(name, getattr(getattr(module, owner), method)))

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if FOLDER:
    sys.meta_path.insert(0, Finder())
