"""The schema comes from its steps alone: up from nothing, up with rows, down again, and never by two at once."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory

from gridsched.core.consent import opted_out
from gridsched.core.facts import NodePresent
from gridsched.core.fleet import Node, Presence
from gridsched.core.lease import Lease, LeaseReason, LeaseState, offer
from gridsched.core.method import InnerOptimizer
from gridsched.core.work import UnitKind, UnitSpec, WorkUnit
from gridsched.store.migrate import config_for, downgrade, upgrade
from gridsched.store.sql import SqlStore
from gridsched.store.tables import KINDS, METADATA

NOON = datetime(2018, 1, 28, 12, tzinfo=UTC)
PREVIOUS = "0002"
"""The last release's step: its rows must be there after going up from it."""

NODE = Node(
    node_id="attic-pc", zone="de-lu", device="pc", power_w=120.0, memory_bytes=2**33, runtime="torch", meter="estimate",
    token_hash="0" * 64, joined_at=NOON,
)  # fmt: skip


def tables(store: SqlStore) -> set[str]:
    return set(sa.inspect(store.driver.engine).get_table_names()) - {"alembic_version"}


def test_up_from_nothing_is_what_the_records_ask_for(empty_database: str) -> None:
    with closing(SqlStore(empty_database)) as store:
        store.upgrade()
        assert tables(store) == set(METADATA.tables)
        with store.driver.engine.connect() as connection:
            command.check(config_for(None, connection))  # raises where a record has changed and no step says so


def test_going_up_twice_changes_nothing(empty_database: str) -> None:
    with closing(SqlStore(empty_database)) as store:
        store.upgrade()
        with store.write() as tx:
            tx.put(NODE)
        store.upgrade()
        with store.read() as tx:
            assert tx.find(Node) == [NODE]


def test_going_up_from_the_previous_release_keeps_its_rows(empty_database: str) -> None:
    with closing(SqlStore(empty_database)) as store:
        upgrade(store.driver, None, PREVIOUS)
        presence, consent = Presence(node_id="attic-pc", seen_at=NOON), opted_out("attic-pc", NOON)
        fact = NodePresent(at=NOON, node_id="attic-pc", zone="de-lu")
        insert_as_it_was(empty_database, NODE, presence, consent)
        store.upgrade()
        with store.write() as tx:
            tx.append([fact])
        with store.read() as tx:
            assert (tx.find(Node), tx.find(Presence), tx.find(type(consent))) == ([NODE], [presence], [consent])
            assert tx.facts() == [(1, fact)]


def test_middles_from_before_are_laid_to_all_who_handed_the_unit_over(empty_database: str) -> None:
    handed_over = {"j.r0.u0": ["j.r0.u0.l1", "j.r0.u0.l2"], "j.r0.u1": ["j.r0.u1.l1"]}
    with closing(SqlStore(empty_database)) as store:
        upgrade(store.driver, None, "0004")
        insert_as_it_was(
            empty_database,
            replace(unit("j.r0.u0"), continuation="c" * 64, continuation_step=4),
            unit("j.r0.u1"),
            *(lease(unit_id, name, LeaseState.HANDED_OVER) for unit_id, names in handed_over.items() for name in names),
            lease("j.r0.u0", "j.r0.u0.l3", LeaseState.EXPIRED),
        )
        store.upgrade()
        with store.read() as tx:
            found = {row.unit_id: row.middles for row in tx.find(WorkUnit)}
    assert found == {"j.r0.u0": ("j.r0.u0.l1", "j.r0.u0.l2"), "j.r0.u1": ()}


def unit(unit_id: str) -> WorkUnit:
    spec = UnitSpec(
        unit_id=unit_id, job_id="j", kind=UnitKind.TRAIN, program="p", dataset="d", base="b", version=0, epoch=0, start=0, stop=64,
        batch_size=8, passes=1, seed=1, inner=InnerOptimizer(name="sgd", lr=0.1),
    )  # fmt: skip
    return WorkUnit(spec=spec, round_id="j.r0", index=0)


def lease(unit_id: str, lease_id: str, state: LeaseState) -> Lease:
    made = offer(
        unit_id=unit_id, job_id="j", node_id="attic-pc", zone="de-lu", generation=int(lease_id[-1]), power_w=100.0, decision_id="d",
        reward_micro_per_kwh=0, reward_micro_per_unit=0, now=NOON, ttl=timedelta(minutes=1), longest=timedelta(hours=1),
        jitter=timedelta(0), reason=LeaseReason.PLANNED, runtime="torch",
    )  # fmt: skip
    return replace(made, lease_id=lease_id, state=state)


@contextmanager
def closing_engine(url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


def insert_as_it_was(url: str, *records: object) -> None:
    """Rows of today's records in the tables as they were: what has been added since is not there yet."""
    with closing_engine(url) as engine, engine.begin() as connection:
        for record in records:
            kind = KINDS[type(record)]
            there = {column["name"] for column in sa.inspect(connection).get_columns(kind.table.name)}
            values = {name: attrgetter(path)(record) for name, path in kind.paths.items() if name in there}
            connection.execute(sa.insert(kind.table).values(values))


def test_every_step_can_be_undone(empty_database: str) -> None:
    with closing(SqlStore(empty_database)) as store:
        store.upgrade()
        downgrade(store.driver, None, "base")
        assert tables(store) == set()
        store.upgrade()
        assert tables(store) == set(METADATA.tables)


def test_a_step_that_fails_leaves_the_schema_as_it_was(empty_database: str, tmp_path: Path, repository: Path) -> None:
    steps = tmp_path / "migrations"
    (steps / "versions").mkdir(parents=True)
    for path in ("env.py", "script.py.mako", "versions/0001_first_release.py"):
        (steps / path).write_text((repository / "migrations" / path).read_text())
    (steps / "versions" / "0002_broken.py").write_text(BROKEN)
    with closing(SqlStore(empty_database, migrations=steps)) as store:
        with pytest.raises(ZeroDivisionError):
            store.upgrade()
        assert tables(store) == set()


BROKEN = """
from alembic import op

revision, down_revision = "0002", "0001"

def upgrade():
    op.execute("CREATE TABLE half (id INTEGER)")
    1 / 0
"""

CHILD = "import sys; from gridsched.store.sql import SqlStore; SqlStore(sys.argv[1]).upgrade()"


def test_daemons_that_start_at_once_do_not_collide(empty_database: str, repository: Path) -> None:
    children = [
        subprocess.Popen([sys.executable, "-c", CHILD, empty_database], cwd=repository, stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for child in children:
        _, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors
    with closing(SqlStore(empty_database)) as store:
        assert tables(store) == set(METADATA.tables)


def test_the_steps_are_one_line(repository: Path) -> None:
    scripts = ScriptDirectory(str(repository / "migrations"))
    assert len(scripts.get_heads()) == 1
    assert scripts.get_bases() == ["0001"]
