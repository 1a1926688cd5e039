"""When a job works: its hours, and how they came about."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Column

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job_schedules",
        Column("job_id", TEXT, autoincrement=False, nullable=False),
        Column("zone", TEXT, nullable=False),
        Column("timing", TEXT, nullable=False),
        Column("why", TEXT, nullable=False),
        Column("objective", TEXT, nullable=False),
        Column("deadline", sa.BigInteger(), nullable=False),
        Column("computed_at", sa.BigInteger(), nullable=False),
        Column("digest", TEXT, nullable=False),
        Column("hours", sa.Text(), nullable=False),
        Column("work_s", sa.Double(), nullable=True),
        Column("later_s", sa.Double(), nullable=False),
        Column("available_s", sa.Double(), nullable=True),
        Column("expected", sa.Double(), nullable=True),
        Column("known_until", sa.BigInteger(), nullable=True),
        Column("newest", sa.BigInteger(), nullable=True),
        Column("latest_start", sa.BigInteger(), nullable=True),
        Column("working", sa.Boolean(), nullable=False),
        Column("since", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("job_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_job_schedules_zone", "job_schedules", ["zone"])


def downgrade() -> None:
    op.drop_table("job_schedules")
