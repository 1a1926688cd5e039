"""Schema steps, each applied once: what ``gridsched serve`` and ``gridsched db upgrade`` do before anything else."""

from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from gridsched.plugins import shipped
from gridsched.store.drivers import Driver

__all__ = ["config_for", "downgrade", "upgrade"]


def config_for(migrations: Path | None, connection: sa.Connection) -> Config:
    """What alembic's commands need to work on ``connection`` with the steps in ``migrations`` (None: the shipped ones)."""
    config = Config()
    config.set_main_option("script_location", str(migrations or shipped("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def upgrade(driver: Driver, migrations: Path | None, revision: str = "head") -> None:
    """Apply every step up to ``revision`` in one transaction that holds a lock: all of them, or none.

    On SQLite the lock is the database's own write lock, on PostgreSQL an advisory one; both end with the transaction,
    so a process that is killed in the middle leaves neither a half-made schema nor a lock behind.
    """
    _in_one_transaction(driver, lambda config: command.upgrade(config, revision), migrations)


def downgrade(driver: Driver, migrations: Path | None, revision: str) -> None:
    """Undo steps down to ``revision``, in the same way. What only newer tables held is lost."""
    _in_one_transaction(driver, lambda config: command.downgrade(config, revision), migrations)


def _in_one_transaction(driver: Driver, step: Callable[[Config], None], migrations: Path | None) -> None:
    with driver.engine.connect() as connection:
        for statement in driver.lock_schema:
            connection.exec_driver_sql(statement)
        try:
            step(config_for(migrations, connection))
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
        finally:
            connection.invalidate()  # its settings were for this one task
