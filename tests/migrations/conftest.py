"""Every test here that asks for a database runs on each one."""

from tests.databases import database, empty_database, store

__all__ = ["database", "empty_database", "store"]
