"""How a job trains: units done again elsewhere or at home, stale updates, outer state apart, and what nodes hold themselves."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Column

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def _added() -> dict[str, tuple[Column, ...]]:
    return {
        "units": (
            Column("only_node", TEXT, nullable=False, server_default=""),
            Column("audits", TEXT, nullable=False, server_default=""),
        ),
        "versions": (
            Column("staleness", sa.Text(), nullable=False, server_default="[]"),
            Column("outer", TEXT, nullable=True),
            Column("step", TEXT, nullable=True),
        ),
        "nodes": (
            Column("quarantined_at", sa.BigInteger(), nullable=True),
            Column("quarantine_reason", TEXT, nullable=False, server_default=""),
            Column("data", sa.Text(), nullable=False, server_default="{}"),
        ),
        "presences": (Column("verified", sa.BigInteger(), nullable=False, server_default="0"),),
    }


def upgrade() -> None:
    for table, columns in _added().items():
        with op.batch_alter_table(table) as batch:
            for column in columns:
                batch.add_column(column)


def downgrade() -> None:
    for table, columns in _added().items():
        with op.batch_alter_table(table) as batch:
            for column in columns:
                batch.drop_column(column.name)
