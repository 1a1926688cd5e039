"""Parts of a micro-unit; who paused a zone, and the audit log; what a runtime lacks for a job; how, and on what, a unit came to its result.

Of jobs that are there already nothing need be said: they ask for the first runtime by its name.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Column

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _added() -> dict[str, tuple[Column, ...]]:
    return {
        "jobs": (Column("wasm_lacks", TEXT, nullable=False, server_default=""),),
        "leases": (
            Column("carried_micro", sa.Double(), nullable=False, server_default="0"),
            Column("runtime", TEXT, nullable=False, server_default=""),
        ),
        "presences": (Column("owed_micro", sa.Double(), nullable=False, server_default="0"),),
        "units": (Column("digests", sa.Text(), nullable=False, server_default="[]"),),
        "zones": (
            Column("paused_at", sa.BigInteger(), nullable=True),
            Column("paused_by", TEXT, nullable=False, server_default=""),
        ),
    }


def upgrade() -> None:
    for table, columns in _added().items():
        with op.batch_alter_table(table) as batch:
            for column in columns:
                batch.add_column(column)
    op.create_table(
        "deeds",
        Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        Column("at", sa.BigInteger(), nullable=False),
        Column("who", TEXT, nullable=False),
        Column("role", TEXT, nullable=False),
        Column("verb", TEXT, nullable=False),
        Column("thing", TEXT, nullable=False),
        Column("detail", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("number"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("deeds")
    for table, columns in _added().items():
        with op.batch_alter_table(table) as batch:
            for column in columns:
                batch.drop_column(column.name)
