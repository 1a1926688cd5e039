"""First release."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Column

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "accounts",
        Column("account_id", TEXT, autoincrement=False, nullable=False),
        Column("debits_pending", sa.BigInteger(), nullable=False),
        Column("debits_posted", sa.BigInteger(), nullable=False),
        Column("credits_pending", sa.BigInteger(), nullable=False),
        Column("credits_posted", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "consents",
        Column("node_id", TEXT, autoincrement=False, nullable=False),
        Column("opted_in", sa.Boolean(), nullable=False),
        Column("since", sa.BigInteger(), nullable=False),
        Column("until", sa.BigInteger(), nullable=True),
        Column("max_w", sa.Double(), nullable=True),
        Column("min_reward_micro_per_kwh", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("node_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "datasets",
        Column("name", TEXT, autoincrement=False, nullable=False),
        Column("digest", TEXT, nullable=False),
        Column("samples", sa.BigInteger(), nullable=False),
        Column("size_bytes", sa.BigInteger(), nullable=False),
        Column("added_at", sa.BigInteger(), nullable=False),
        Column("attribution", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "decisions",
        Column("decision_id", TEXT, autoincrement=False, nullable=False),
        Column("zone", TEXT, nullable=False),
        Column("policy", TEXT, nullable=False),
        Column("policy_digest", TEXT, nullable=False),
        Column("decided_at", sa.BigInteger(), nullable=False),
        Column("target_w", sa.Double(), nullable=False),
        Column("tier", TEXT, nullable=False),
        Column("reason", TEXT, nullable=False),
        Column("detail", TEXT, nullable=False),
        Column("inputs", sa.Text(), nullable=False),
        Column("reward_micro_per_kwh", sa.BigInteger(), nullable=False),
        Column("reward_micro_per_unit", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("decision_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_decisions_zone_decided_at", "decisions", ["zone", "decided_at"])

    op.create_table(
        "epochs",
        Column("job_id", TEXT, autoincrement=False, nullable=False),
        Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        Column("started_at", sa.BigInteger(), nullable=False),
        Column("ended_at", sa.BigInteger(), nullable=True),
        Column("useful_j", sa.Double(), nullable=False),
        Column("wasted_j", sa.Double(), nullable=False),
        Column("idle_j", sa.Double(), nullable=False),
        Column("reward_micro", sa.BigInteger(), nullable=False),
        Column("cost_micro", sa.Double(), nullable=False),
        Column("units", sa.BigInteger(), nullable=False),
        Column("loss", sa.Double(), nullable=True),
        Column("accuracy", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("job_id", "number"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "fact_subjects",
        Column("subject", TEXT, autoincrement=False, nullable=False),
        Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("subject", "seq"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "facts",
        Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        Column("at", sa.BigInteger(), nullable=False),
        Column("kind", TEXT, nullable=False),
        Column("body", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_facts_kind_seq", "facts", ["kind", "seq"])

    op.create_table(
        "invites",
        Column("code_hash", TEXT, autoincrement=False, nullable=False),
        Column("zone", TEXT, nullable=False),
        Column("made_at", sa.BigInteger(), nullable=False),
        Column("expires_at", sa.BigInteger(), nullable=False),
        Column("used_by", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("code_hash"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "jobs",
        Column("job_id", TEXT, autoincrement=False, nullable=False),
        Column("zone", TEXT, nullable=False),
        Column("priority", sa.BigInteger(), nullable=False),
        Column("spec", sa.Text(), nullable=False),
        Column("state", TEXT, nullable=False),
        Column("submitted_at", sa.BigInteger(), nullable=False),
        Column("version", sa.BigInteger(), nullable=False),
        Column("reason", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("job_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_jobs_state", "jobs", ["state"])

    op.create_table(
        "leases",
        Column("lease_id", TEXT, autoincrement=False, nullable=False),
        Column("unit_id", TEXT, nullable=False),
        Column("job_id", TEXT, nullable=False),
        Column("node_id", TEXT, nullable=False),
        Column("zone", TEXT, nullable=False),
        Column("generation", sa.BigInteger(), nullable=False),
        Column("state", TEXT, nullable=False),
        Column("reason", TEXT, nullable=False),
        Column("power_w", sa.Double(), nullable=False),
        Column("decision_id", TEXT, nullable=False),
        Column("reward_micro_per_kwh", sa.BigInteger(), nullable=False),
        Column("reward_micro_per_unit", sa.BigInteger(), nullable=False),
        Column("offered_at", sa.BigInteger(), nullable=False),
        Column("not_before", sa.BigInteger(), nullable=False),
        Column("expires_at", sa.BigInteger(), nullable=False),
        Column("ends_at", sa.BigInteger(), nullable=False),
        Column("changed_at", sa.BigInteger(), nullable=False),
        Column("active_s", sa.Double(), nullable=False),
        Column("energy_j", sa.Double(), nullable=False),
        Column("idle_j", sa.Double(), nullable=False),
        Column("cost_micro", sa.Double(), nullable=False),
        Column("step", sa.BigInteger(), nullable=False),
        Column("steps_executed", sa.BigInteger(), nullable=False),
        Column("wants_hand_over", sa.Boolean(), nullable=False),
        Column("settled", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("lease_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_leases_job_id_state", "leases", ["job_id", "state"])
    op.create_index("ix_leases_node_id_state", "leases", ["node_id", "state"])
    op.create_index("ix_leases_state", "leases", ["state"])
    op.create_index("ix_leases_unit_id", "leases", ["unit_id"])

    op.create_table(
        "meter_readings",
        Column("node_id", TEXT, autoincrement=False, nullable=False),
        Column("at", sa.BigInteger(), autoincrement=False, nullable=False),
        Column("register_j", sa.Double(), nullable=False),
        Column("delta_j", sa.Double(), nullable=False),
        Column("method", TEXT, nullable=False),
        Column("lease_id", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("node_id", "at"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "nodes",
        Column("node_id", TEXT, autoincrement=False, nullable=False),
        Column("zone", TEXT, nullable=False),
        Column("device", TEXT, nullable=False),
        Column("power_w", sa.Double(), nullable=False),
        Column("memory_bytes", sa.BigInteger(), nullable=False),
        Column("runtime", TEXT, nullable=False),
        Column("meter", TEXT, nullable=False),
        Column("token_hash", TEXT, nullable=False),
        Column("joined_at", sa.BigInteger(), nullable=False),
        Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("node_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_nodes_token_hash", "nodes", ["token_hash"])
    op.create_index("ix_nodes_zone", "nodes", ["zone"])

    op.create_table(
        "presences",
        Column("node_id", TEXT, autoincrement=False, nullable=False),
        Column("instance", TEXT, nullable=False),
        Column("seen_at", sa.BigInteger(), nullable=True),
        Column("present", sa.Boolean(), nullable=False),
        Column("device", TEXT, nullable=False),
        Column("register_j", sa.Double(), nullable=True),
        Column("register_at", sa.BigInteger(), nullable=True),
        Column("drawn_w", sa.Double(), nullable=False),
        Column("speed", sa.Double(), nullable=False),
        Column("reliability", sa.Double(), nullable=False),
        Column("served_j", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("node_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "readings",
        Column("zone", TEXT, autoincrement=False, nullable=False),
        Column("signal", TEXT, autoincrement=False, nullable=False),
        Column("start", sa.BigInteger(), autoincrement=False, nullable=False),
        Column("end", sa.BigInteger(), autoincrement=False, nullable=False),
        Column("value", sa.Double(), nullable=False),
        Column("quality", TEXT, autoincrement=False, nullable=False),
        Column("source", TEXT, autoincrement=False, nullable=False),
        Column("known_at", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("zone", "signal", "end", "start", "source", "quality", "known_at"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "rounds",
        Column("round_id", TEXT, autoincrement=False, nullable=False),
        Column("job_id", TEXT, nullable=False),
        Column("number", sa.BigInteger(), nullable=False),
        Column("epoch", sa.BigInteger(), nullable=False),
        Column("base", TEXT, nullable=False),
        Column("state", TEXT, nullable=False),
        Column("opened_at", sa.BigInteger(), nullable=False),
        Column("closed_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("round_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_rounds_job_id_number", "rounds", ["job_id", "number"])
    op.create_index("ix_rounds_state", "rounds", ["state"])

    op.create_table(
        "tokens",
        Column("token_hash", TEXT, autoincrement=False, nullable=False),
        Column("name", TEXT, nullable=False),
        Column("role", TEXT, nullable=False),
        Column("made_at", sa.BigInteger(), nullable=False),
        Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("token_hash"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "transfers",
        Column("transfer_id", TEXT, autoincrement=False, nullable=False),
        Column("kind", TEXT, nullable=False),
        Column("debit", TEXT, nullable=False),
        Column("credit", TEXT, nullable=False),
        Column("amount_micro", sa.BigInteger(), nullable=False),
        Column("at", sa.BigInteger(), nullable=False),
        Column("lease_id", TEXT, nullable=True),
        Column("pending_id", TEXT, nullable=True),
        Column("sequence", sa.BigInteger(), nullable=False),
        Column("before", TEXT, nullable=False),
        Column("digest", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("transfer_id"),
        sa.UniqueConstraint("sequence", name=op.f("uq_transfers_sequence")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_transfers_credit_sequence", "transfers", ["credit", "sequence"])
    op.create_index("ix_transfers_debit_sequence", "transfers", ["debit", "sequence"])
    op.create_index("ix_transfers_lease_id", "transfers", ["lease_id"])
    op.create_index("ix_transfers_pending_id", "transfers", ["pending_id"])

    op.create_table(
        "units",
        Column("unit_id", TEXT, autoincrement=False, nullable=False),
        Column("job_id", TEXT, nullable=False),
        Column("kind", TEXT, nullable=False),
        Column("version", sa.BigInteger(), nullable=False),
        Column("epoch", sa.BigInteger(), nullable=False),
        Column("spec", sa.Text(), nullable=False),
        Column("round_id", TEXT, nullable=False),
        Column("index", sa.BigInteger(), nullable=False),
        Column("state", TEXT, nullable=False),
        Column("leases", sa.BigInteger(), nullable=False),
        Column("continuation", TEXT, nullable=True),
        Column("continuation_step", sa.BigInteger(), nullable=False),
        Column("update", TEXT, nullable=True),
        Column("update_norm", sa.Double(), nullable=True),
        Column("accepted_lease", TEXT, nullable=True),
        Column("accepted_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("unit_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_units_job_id_state", "units", ["job_id", "state"])
    op.create_index("ix_units_round_id", "units", ["round_id"])
    op.create_index("ix_units_state", "units", ["state"])

    op.create_table(
        "versions",
        Column("job_id", TEXT, autoincrement=False, nullable=False),
        Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        Column("digest", TEXT, nullable=False),
        Column("parent", TEXT, nullable=True),
        Column("round_id", TEXT, nullable=True),
        Column("epoch", sa.BigInteger(), nullable=False),
        Column("updates", sa.Text(), nullable=False),
        Column("size_bytes", sa.BigInteger(), nullable=False),
        Column("made_at", sa.BigInteger(), nullable=False),
        Column("loss", sa.Double(), nullable=True),
        Column("accuracy", sa.Double(), nullable=True),
        Column("test_samples", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "number"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "zones",
        Column("zone", TEXT, autoincrement=False, nullable=False),
        Column("policy_digest", TEXT, nullable=False),
        Column("state", sa.Text(), nullable=False),
        Column("paused", sa.Boolean(), nullable=False),
        Column("decision_id", TEXT, nullable=False),
        Column("reward_micro_per_kwh", sa.BigInteger(), nullable=False),
        Column("reward_micro_per_unit", sa.BigInteger(), nullable=False),
        Column("price_eur_mwh", sa.Double(), nullable=True),
        Column("day", sa.BigInteger(), nullable=True),
        Column("energy_j", sa.Double(), nullable=False),
        Column("money_micro", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("zone"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("zones")
    op.drop_table("versions")
    op.drop_table("units")
    op.drop_table("transfers")
    op.drop_table("tokens")
    op.drop_table("rounds")
    op.drop_table("readings")
    op.drop_table("presences")
    op.drop_table("nodes")
    op.drop_table("meter_readings")
    op.drop_table("leases")
    op.drop_table("jobs")
    op.drop_table("invites")
    op.drop_table("facts")
    op.drop_table("fact_subjects")
    op.drop_table("epochs")
    op.drop_table("decisions")
    op.drop_table("datasets")
    op.drop_table("consents")
    op.drop_table("accounts")
