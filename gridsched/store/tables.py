"""Which records are kept, in which table, under which key.

A table's columns follow from its record's fields (see `columns`), so a record that changes without a migration fails
``tests/migrations``. A few values inside a nested record are columns of their own, so that they can be searched.
No foreign keys: verbs keep records whole under test, a consumer's erasure must be able to leave anonymous leases behind, and
each would cost a look-up on every heartbeat.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from types import MappingProxyType
from typing import Any, get_type_hints

import sqlalchemy as sa
from sqlalchemy.schema import SchemaItem

from gridsched.core.access import Invite, Token
from gridsched.core.consent import Consent
from gridsched.core.deed import Deed
from gridsched.core.fleet import Node, Presence
from gridsched.core.job import Dataset, Job
from gridsched.core.lease import Lease
from gridsched.core.ledger import Account, Transfer
from gridsched.core.meter import MeterReading
from gridsched.core.policy import Decision
from gridsched.core.round import Epoch, Round, Version
from gridsched.core.signal import Reading
from gridsched.core.timing import JobSchedule
from gridsched.core.work import WorkUnit
from gridsched.core.zone import ZoneState
from gridsched.store.columns import column_type

__all__ = ["KINDS", "METADATA", "Kind", "Named", "Noted"]

METADATA = sa.MetaData(naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s"})


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of record: its table, the names of its key, and ``paths``, where each column's value is found in a record."""

    record: type[Any]
    table: sa.Table
    key: tuple[str, ...]
    paths: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """A fact as it is kept: ``seq`` counts all facts from 1 without gaps, ``body`` is its JSON."""

    seq: int
    at: datetime
    kind: str
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Fact ``seq`` names ``subject``: a node, lease, job, zone ..."""

    subject: str
    seq: int


def _kind(
    record: type[Any],
    name: str,
    key: str,
    *,
    within: Mapping[str, str] = MappingProxyType({}),
    index: tuple[str, ...] = (),
    unique: tuple[str, ...] = (),
) -> Kind:
    """``key``, ``index`` and ``unique`` name columns, separated by spaces; ``within`` maps further columns to where they are found."""
    paths = {**within, **{f.name: f.name for f in fields(record)}}
    keys = tuple(key.split())
    columns = [_column(column, _hint(record, path), primary=column in keys) for column, path in paths.items()]
    constraints: list[SchemaItem] = [sa.PrimaryKeyConstraint(*keys)]
    constraints += [sa.Index(None, *names.split()) for names in index]
    constraints += [sa.UniqueConstraint(*names.split()) for names in unique]
    # One tree instead of two on SQLite: the row lives in the tree of its key.
    table = sa.Table(name, METADATA, *columns, *constraints, sqlite_with_rowid=False)
    return Kind(record, table, keys, MappingProxyType(paths))


def _column(name: str, hint: Any, *, primary: bool) -> sa.Column[Any]:
    type_, nullable = column_type(hint)
    return sa.Column(name, type_, nullable=nullable and not primary, autoincrement=False if primary else "auto")


def _hint(record: type[Any], path: str) -> Any:
    """The annotation of ``path`` (dotted) in ``record``: a field's, or what a property returns."""
    name, _, rest = path.partition(".")
    member = getattr(record, name, None)
    hint = get_type_hints(member.fget)["return"] if isinstance(member, property) else get_type_hints(record)[name]
    return _hint(hint, rest) if rest else hint


# The end first: a control tick asks for what has not ended long ago, which is then the last stretch of the tree.
_READING_KEY = "zone signal end start source quality known_at"
_UNIT_COLUMNS = {name: f"spec.{name}" for name in ("unit_id", "job_id", "kind", "version", "epoch")}
_TRANSFER_INDEX = ("credit sequence", "debit sequence", "lease_id", "pending_id")
_JOB_COLUMNS = {name: f"spec.{name}" for name in ("job_id", "zone", "priority")}

KINDS: Mapping[type[Any], Kind] = MappingProxyType(
    {
        kind.record: kind
        for kind in (
            _kind(Reading, "readings", _READING_KEY),
            _kind(Decision, "decisions", "decision_id", within={"decision_id": "decision_id"}, index=("zone decided_at",)),
            _kind(ZoneState, "zones", "zone"),
            _kind(Node, "nodes", "node_id", index=("zone", "token_hash")),
            _kind(Presence, "presences", "node_id"),
            _kind(Consent, "consents", "node_id"),
            _kind(Lease, "leases", "lease_id", index=("node_id state", "unit_id", "job_id state", "state settled")),
            _kind(Job, "jobs", "job_id", within=_JOB_COLUMNS, index=("state",)),
            _kind(JobSchedule, "job_schedules", "job_id", index=("zone",)),
            _kind(Dataset, "datasets", "name"),
            _kind(Round, "rounds", "round_id", index=("job_id number", "state")),
            _kind(WorkUnit, "units", "unit_id", within=_UNIT_COLUMNS, index=("job_id state", "round_id", "state")),
            _kind(Version, "versions", "job_id number"),
            _kind(Epoch, "epochs", "job_id number"),
            _kind(MeterReading, "meter_readings", "node_id at"),
            _kind(
                Transfer,
                "transfers",
                "transfer_id",
                index=("credit sequence", "debit sequence", "lease_id", "pending_id"),
                unique=("sequence",),
            ),
            _kind(Account, "accounts", "account_id"),
            _kind(Token, "tokens", "token_hash"),
            _kind(Invite, "invites", "code_hash"),
            _kind(Deed, "deeds", "number"),
            _kind(Noted, "facts", "seq", index=("kind seq",)),
            _kind(Named, "fact_subjects", "subject seq"),
        )
    }
)
