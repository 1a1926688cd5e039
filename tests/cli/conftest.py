"""What several commands are tried with."""

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest

LIBRARIES = ("matplotlib", "pandas")
THEIR_USERS = tuple(f"gridsched.report.{name}" for name in ("ahead", "backtest_plot", "compare", "day", "epochs", "lanes", "study"))


class _Absent:
    """A finder that meets nothing of the extra ``report``."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        if name in LIBRARIES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the extra ``report``."""
    for name in list(sys.modules):
        if name.partition(".")[0] in LIBRARIES or name in THEIR_USERS:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Absent(), *sys.meta_path])


def never(*_: Any, **__: Any) -> Any:
    """In the place of work that must not begin."""
    pytest.fail("the work was begun")
