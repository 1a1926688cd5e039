"""The share of nodes that a zone holds out, for audits between two control ticks; whose work is in the middle of a unit.

Of middles that are there already, all who have handed the unit over are taken to have a part in them.
"""

import json
from itertools import groupby
from operator import itemgetter

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Column

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def _added() -> dict[str, tuple[Column, ...]]:
    return {
        "units": (Column("middle_of", sa.Text(), nullable=False, server_default="[]"),),
        "zones": (Column("hold_out_share", sa.Double(), nullable=False, server_default="0"),),
    }


def upgrade() -> None:
    for table, columns in _added().items():
        with op.batch_alter_table(table) as batch:
            for column in columns:
                batch.add_column(column)
    units = sa.table("units", sa.column("unit_id"), sa.column("continuation"), sa.column("middle_of"))
    leases = sa.table("leases", sa.column("unit_id"), sa.column("lease_id"), sa.column("generation"), sa.column("state"))
    found = (
        sa.select(leases.c.unit_id, leases.c.lease_id)
        .join(units, units.c.unit_id == leases.c.unit_id)
        .where(units.c.continuation.is_not(None), leases.c.state == "handed_over")
        .order_by(leases.c.unit_id, leases.c.generation)
    )
    rows = op.get_bind().execute(found).all()
    for unit_id, its in groupby(rows, key=itemgetter(0)):
        middle_of = json.dumps([lease_id for _, lease_id in its], separators=(",", ":"))
        op.execute(sa.update(units).where(units.c.unit_id == unit_id).values(middle_of=middle_of))


def downgrade() -> None:
    for table, columns in _added().items():
        with op.batch_alter_table(table) as batch:
            for column in columns:
                batch.drop_column(column.name)
