"""What commands write into files: whatever would keep them from it is told before the work, not after it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from gridsched.core.errors import ConfigError, InvalidInput

__all__ = ["importing", "may_draw", "may_write", "writing"]

_EXTRA = {"matplotlib": "report", "pandas": "report", "torch": "train"}


@contextmanager
def importing() -> Iterator[None]:
    """Around imports that are late: where a library of an extra is not installed, a `ConfigError` says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        extra = _EXTRA.get(error.name or "")
        if extra is None:
            raise
        raise ConfigError(f"{error.name} is not installed, and this needs it: pip install 'gridsched[{extra}]'") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around what writes ``path``: the system's refusal becomes an `InvalidInput` that names it."""
    try:
        yield
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror or error}; choose another place") from error


def may_write(path: Path | None) -> None:
    """Raise `InvalidInput` now where ``path`` could not be written in the end; None is nothing to write."""
    if path is not None:
        _look(path, path.parent)


def may_draw(path: Path | None) -> None:
    """Raise now where a picture could not be drawn at ``path`` in the end. A picture's folder is made, if it is not there."""
    if path is None:
        return
    with importing():
        import_module("gridsched.report.lanes")  # what every picture is drawn with
    if path.suffix.lower() != ".png":
        raise InvalidInput(f"{path} must end in .png")
    with writing(path):
        nearest = next((folder for folder in path.parents if folder.exists()), Path())
    _look(path, nearest)


def _look(path: Path, folder: Path) -> None:
    with writing(path):
        if path.is_dir():
            why = "it is a folder"
        elif not folder.is_dir():
            why = f"there is no folder {folder}"
        elif not os.access(path if path.exists() else folder, os.W_OK):
            why = "permission denied"
        else:
            return
    raise InvalidInput(f"{path} cannot be written: {why}; choose another place")
