"""Run by alembic, on a connection that `gridsched.store.migrate` hands in or on the database of ``-x url=...``.

To make a step after a record has changed: ``alembic -c migrations/alembic.ini -x url=sqlite:////tmp/head.sqlite upgrade head``,
then the same with ``revision --autogenerate -m "what changes"``; read what it wrote, and give it data where rows need it.
"""

from typing import Any, Literal

import sqlalchemy as sa
from alembic import context

from gridsched.store.tables import METADATA


def _plain(what: str, item: Any, _context: Any) -> str | Literal[False]:
    """Steps name plain column types, so that they still run when ours have changed; TEXT is `gridsched.store.columns.text()`."""
    if what != "type":
        return False
    impl = item.impl if isinstance(item, sa.types.TypeDecorator) else item
    if isinstance(impl, sa.Text):
        return "TEXT" if "COLLATE" in impl.compile(sa.make_url("postgresql+psycopg://").get_dialect()()) else "sa.Text()"
    return f"sa.{type(impl).__name__}()"


def _run(connection: sa.Connection) -> None:
    context.configure(
        connection=connection, target_metadata=METADATA, render_item=_plain, render_as_batch=connection.dialect.name == "sqlite"
    )
    with context.begin_transaction():
        context.run_migrations()


handed_in = context.config.attributes.get("connection")
if handed_in is not None:
    _run(handed_in)
else:
    with sa.create_engine(context.get_x_argument(as_dictionary=True)["url"]).begin() as opened:
        _run(opened)
