"""The shipped adapters as a site loads them."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from gridsched import Adapter
from gridsched.plugins import load_adapter, shipped

RECORDED = Path(__file__).resolve().parents[3] / "shared" / "data"


@cache
def _loaded(ref: str) -> type[Any]:
    return load_adapter(f"signals/{ref}.py", shipped("adapters"))


def adapter(ref: str, table: Mapping[str, object], *, site: Path = Path()) -> Any:
    made: Adapter = _loaded(ref)(table, site=site)
    return made


def recorded(*parts: str) -> Path:
    """A recorded answer or series; skips where this machine has none."""
    path = RECORDED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no recordings here: {'/'.join(parts)} is missing")
    return path
