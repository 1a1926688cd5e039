"""What a node is owed below one micro-unit, so that short leases pay what a long one would."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Column

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ADDED = {"leases": "carried_micro", "presences": "owed_micro"}


def upgrade() -> None:
    for table, name in _ADDED.items():
        with op.batch_alter_table(table) as batch:
            batch.add_column(Column(name, sa.Double(), nullable=False, server_default="0"))


def downgrade() -> None:
    for table, name in _ADDED.items():
        with op.batch_alter_table(table) as batch:
            batch.drop_column(name)
