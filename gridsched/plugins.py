"""What a site brings along: adapters loaded by path, policies read from files, and the shipped folders to begin with.

Nothing is discovered: the configuration names every adapter and policy. An adapter is operator-owned code and is run as such.
"""

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from gridsched.core.errors import ConfigError, NotFound
from gridsched.core.quantity import unknown_key
from gridsched.policy_file import load_policies, load_policy, parse_policy

__all__ = ["SHIPPED", "load_adapter", "load_policies", "load_policy", "parse_policy", "shipped"]

SHIPPED = ("adapters", "examples", "grafana", "migrations", "policies")

_PACKAGE = Path(__file__).resolve().parent


def shipped(folder: str) -> Path:
    """Where the shipped ``folder`` lies: beside the package in a checkout, inside it in an installed wheel."""
    if folder not in SHIPPED:
        raise NotFound(f"{unknown_key(folder, SHIPPED).replace('unknown key', 'no shipped folder')}")
    for place in (_PACKAGE / "_shipped" / folder, _PACKAGE.parent / folder):
        if place.is_dir():
            return place
    raise NotFound(f"the shipped folder {folder!r} is neither in {_PACKAGE / '_shipped'} nor beside {_PACKAGE}; install gridsched again")


def load_adapter(ref: str, base: Path) -> type[Any]:
    """The adapter class that ``ref`` names: a path below ``base`` (``signals/awattar.py``), or ``module:Class`` of an installed package.

    A file must define exactly one class with ``name`` and ``fetch`` or ``read``. Raises ConfigError that names the file and the remedy.
    """
    if ":" in ref and not ref.endswith(".py"):
        return _from_package(ref)
    path = (base / ref).resolve()
    if not path.is_relative_to(base.resolve()):
        raise ConfigError(f"adapter {ref!r} lies outside {base}; put it there, or install it and name it module:Class")
    if not path.is_file():
        known = sorted(str(found.relative_to(base)) for found in base.rglob("*.py")) if base.is_dir() else []
        raise ConfigError(f"adapter {ref!r}: no such file in {base}; there is {', '.join(known) or 'nothing'}")
    module = _run(path)
    found = [thing for thing in vars(module).values() if _is_adapter(thing) and thing.__module__ == module.__name__]
    if len(found) != 1:
        names = ", ".join(thing.__name__ for thing in found) or "none"
        raise ConfigError(f"adapter {ref!r} must define exactly one class with name and fetch; it has {names}")
    adapter: type[Any] = found[0]
    return adapter


def _run(path: Path) -> ModuleType:
    """The module in ``path``, under a name of its own."""
    name = f"gridsched_site_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses look their own module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(f"adapter {path} does not load: {type(error).__name__}: {error}") from error
    return module


def _from_package(ref: str) -> type[Any]:
    module_name, _, class_name = ref.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"adapter {ref!r} does not load: {error}; is its package installed?") from error
    if not _is_adapter(found):
        raise ConfigError(f"adapter {ref!r} is not a class with name and fetch")
    return found  # type: ignore[no-any-return]


def _is_adapter(thing: object) -> bool:
    return isinstance(thing, type) and hasattr(thing, "name") and (hasattr(thing, "fetch") or hasattr(thing, "read"))
