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
            Column("audit_reason", TEXT, nullable=False, server_default=""),
            Column("audit_at", sa.BigInteger(), nullable=True),
            Column("answer", TEXT, nullable=False, server_default=""),
        ),
        "versions": (
            Column("staleness", sa.Text(), nullable=False, server_default="[]"),
            Column("outer", TEXT, nullable=True),
            Column("step", TEXT, nullable=True),
            Column("step_bytes", sa.BigInteger(), nullable=False, server_default="0"),
        ),
        "nodes": (
            Column("quarantined_at", sa.BigInteger(), nullable=True),
            Column("quarantine_reason", TEXT, nullable=False, server_default=""),
            Column("data", sa.Text(), nullable=False, server_default="{}"),
        ),
        "epochs": (
            Column("cut", sa.BigInteger(), nullable=False, server_default="0"),
            Column("audit_j", sa.Double(), nullable=False, server_default="0"),
        ),
        "presences": (
            Column("verified", sa.BigInteger(), nullable=False, server_default="0"),
            Column("cut_at", sa.BigInteger(), nullable=True),
        ),
    }


def upgrade() -> None:
    for table, columns in _added().items():
        with op.batch_alter_table(table) as batch:
            for column in columns:
                batch.add_column(column)
    op.drop_index("ix_leases_state", "leases")
    op.create_index("ix_leases_state_settled", "leases", ["state", "settled"])


def downgrade() -> None:
    op.drop_index("ix_leases_state_settled", "leases")
    op.create_index("ix_leases_state", "leases", ["state"])
    for table, columns in _added().items():
        with op.batch_alter_table(table) as batch:
            for column in columns:
                batch.drop_column(column.name)
