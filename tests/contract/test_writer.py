"""One thread writes: answers come after the commit, one bad wish hurts nobody else, and a lost database loses no writer."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from gridsched.core.errors import Busy, Conflict, InvalidInput, StorageFull
from gridsched.core.facts import Fact, NodePresent
from gridsched.core.fleet import Presence
from gridsched.core.ledger import Transfer, TransferKind
from gridsched.ports import Reply, Tx
from gridsched.store.session import Session
from gridsched.store.sql import SqlStore
from gridsched.store.writer import GroupWriter

NOON = datetime(2018, 1, 28, 12, tzinfo=UTC)
WAIT_S = 20.0


class Noon:
    speed = 1.0

    def now(self) -> datetime:
        return NOON

    def sleep(self, seconds: float) -> None:
        raise AssertionError("the writer never sleeps")


@dataclass
class Desk:
    """A writer whose first group can be held back, so that what comes meanwhile is one group."""

    store: SqlStore
    writer: GroupWriter
    told: list[Sequence[Fact]]
    go: threading.Event = field(default_factory=threading.Event)

    def hold(self) -> None:
        entered = threading.Event()

        def waits(tx: Tx, now: datetime) -> list[Fact]:
            entered.set()
            assert self.go.wait(WAIT_S)
            return []

        self.writer.submit(waits)
        assert entered.wait(WAIT_S)

    def names(self) -> list[str]:
        with self.store.read() as tx:
            return [presence.node_id for presence in tx.find(Presence)]


@pytest.fixture
def desk(store: SqlStore) -> Iterator[Desk]:
    told: list[Sequence[Fact]] = []
    held = Desk(store, GroupWriter(store, Noon(), max_queue=8, on_commit=told.append), told)
    yield held
    held.go.set()
    held.writer.close()


def arrive(tx: Tx, now: datetime, node_id: str) -> Reply[str]:
    tx.insert(Presence(node_id=node_id, seen_at=now))
    return Reply(node_id, [NodePresent(at=now, node_id=node_id, zone="de-lu")])


def arrive_all(tx: Tx, now: datetime, items: Sequence[str]) -> Reply[Sequence[str | Exception]]:
    """Items that begin with ``bad`` are refused one by one; ``worse`` spoils the whole call."""
    if any(item.startswith("worse") for item in items):
        tx.put(Presence(node_id="left-behind"))
        raise ZeroDivisionError(f"{len(items)} items")
    good = [item for item in items if not item.startswith("bad")]
    tx.put(*(Presence(node_id=item) for item in good))
    facts = [NodePresent(at=now, node_id=item, zone="de-lu") for item in good]
    return Reply([Conflict(item) if item not in good else f"{item} of {len(items)}" for item in items], facts)


def fails(tx: Tx, now: datetime) -> list[Fact]:
    tx.put(Presence(node_id="never"))
    raise ZeroDivisionError


def test_the_answer_comes_when_it_is_stored_and_the_facts_after_it(desk: Desk) -> None:
    assert desk.writer.submit(partial(arrive, node_id="n1")).result(WAIT_S) == "n1"
    assert desk.names() == ["n1"]
    with desk.store.read() as tx:
        assert [fact for _, fact in tx.facts()] == [NodePresent(at=NOON, node_id="n1", zone="de-lu")]
    desk.writer.close()
    assert [[type(fact) for fact in facts] for facts in desk.told] == [[NodePresent]]


def test_a_verb_may_return_facts_alone(desk: Desk) -> None:
    future: Future[Any] = desk.writer.submit(lambda tx, now: [NodePresent(at=now, node_id="n1", zone="de-lu")])
    assert future.result(WAIT_S) is None
    with desk.store.read() as tx:
        assert len(tx.facts()) == 1


def test_a_verb_that_raises_is_undone_alone(desk: Desk) -> None:
    desk.hold()
    futures: list[Future[Any]] = [desk.writer.submit(partial(arrive, node_id=name)) for name in ("n1", "n1", "n2")]
    broken: Future[Any] = desk.writer.submit(fails)
    last = desk.writer.submit(partial(arrive, node_id="n3"))
    desk.go.set()
    assert futures[0].result(WAIT_S) == "n1"
    assert isinstance(futures[1].exception(WAIT_S), Conflict)
    assert isinstance(broken.exception(WAIT_S), ZeroDivisionError)
    assert last.result(WAIT_S) == "n3"
    assert desk.names() == ["n1", "n2", "n3"]
    with desk.store.read() as tx:
        assert len(tx.facts()) == 3


def test_what_waits_is_one_group_with_one_commit(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    commits: list[Session] = []
    commit = Session.commit

    def counted(session: Session) -> None:
        commits.append(session)
        commit(session)

    monkeypatch.setattr(Session, "commit", counted)
    desk.hold()
    futures = [desk.writer.submit(partial(arrive, node_id=f"n{number}")) for number in range(8)]
    desk.go.set()
    assert [future.result(WAIT_S) for future in futures] == [f"n{number}" for number in range(8)]
    desk.writer.close()
    assert len(commits) == 2
    assert [len(facts) for facts in desk.told] == [0, 8]


def test_items_of_one_verb_go_to_it_in_one_call(desk: Desk) -> None:
    desk.hold()
    futures = [desk.writer.submit_many(arrive_all, name) for name in ("n1", "bad", "n2")]
    between = desk.writer.submit(partial(arrive, node_id="n9"))
    futures.append(desk.writer.submit_many(arrive_all, "n3"))
    desk.go.set()
    assert futures[0].result(WAIT_S) == "n1 of 4"
    assert isinstance(futures[1].exception(WAIT_S), Conflict)
    assert [future.result(WAIT_S) for future in futures[2:]] == ["n2 of 4", "n3 of 4"]
    assert between.result(WAIT_S) == "n9"
    assert desk.names() == ["n1", "n2", "n3", "n9"]


def test_an_item_that_spoils_the_call_fails_alone(desk: Desk) -> None:
    desk.hold()
    futures = [desk.writer.submit_many(arrive_all, name) for name in ("n1", "worse", "n2")]
    desk.go.set()
    assert [futures[0].result(WAIT_S), futures[2].result(WAIT_S)] == ["n1 of 1", "n2 of 1"]
    assert isinstance(futures[1].exception(WAIT_S), ZeroDivisionError)
    assert desk.names() == ["n1", "n2"]
    with desk.store.read() as tx:
        assert len(tx.facts()) == 2


def test_a_full_queue_is_busy_and_keeps_what_it_has(desk: Desk) -> None:
    desk.hold()
    futures = [desk.writer.submit(partial(arrive, node_id=f"n{number}")) for number in range(8)]
    with pytest.raises(Busy, match="8 writes are waiting"):
        desk.writer.submit(partial(arrive, node_id="n8"))
    desk.go.set()
    assert [future.result(WAIT_S) for future in futures] == [f"n{number}" for number in range(8)]
    assert desk.writer.submit(partial(arrive, node_id="n8")).result(WAIT_S) == "n8"


def test_a_caller_who_gave_up_while_waiting_is_not_served(desk: Desk) -> None:
    desk.hold()
    future = desk.writer.submit(partial(arrive, node_id="n1"))
    assert future.cancel()
    desk.go.set()
    assert desk.writer.submit(partial(arrive, node_id="n2")).result(WAIT_S) == "n2"
    assert desk.names() == ["n2"]


def test_closing_does_what_waits_and_refuses_what_comes(desk: Desk) -> None:
    desk.hold()
    future = desk.writer.submit(partial(arrive, node_id="n1"))
    closing = threading.Thread(target=desk.writer.close)
    closing.start()
    desk.go.set()
    closing.join(WAIT_S)
    assert future.result(0) == "n1"
    with pytest.raises(Busy, match="stopping"):
        desk.writer.submit(partial(arrive, node_id="n2"))


def test_a_listener_that_fails_costs_no_answer(store: SqlStore, caplog: pytest.LogCaptureFixture) -> None:
    def broken(facts: Sequence[Fact]) -> None:
        raise ZeroDivisionError

    writer = GroupWriter(store, Noon(), max_queue=8, on_commit=broken)
    with caplog.at_level(logging.ERROR):
        assert writer.submit(partial(arrive, node_id="n1")).result(WAIT_S) == "n1"
        assert writer.submit(partial(arrive, node_id="n2")).result(WAIT_S) == "n2"
        writer.close()
    assert [record.action for record in caplog.records] == ["after_commit_failed"] * 2  # type: ignore[attr-defined]


def test_even_an_exit_inside_a_verb_does_not_end_the_writer(desk: Desk) -> None:
    def leaves(tx: Tx, now: datetime) -> list[Fact]:
        raise SystemExit(3)

    assert isinstance(desk.writer.submit(leaves).exception(WAIT_S), SystemExit)
    assert desk.writer.submit(partial(arrive, node_id="n1")).result(WAIT_S) == "n1"


def test_a_commit_that_fails_is_told_to_everyone_in_the_group(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(session: Session) -> None:
        raise StorageFull

    desk.hold()
    futures = [desk.writer.submit(partial(arrive, node_id=name)) for name in ("n1", "n2")]
    monkeypatch.setattr(Session, "commit", full)
    desk.go.set()
    assert [type(future.exception(WAIT_S)) for future in futures] == [StorageFull, StorageFull]
    monkeypatch.undo()
    assert desk.writer.submit(partial(arrive, node_id="n1")).result(WAIT_S) == "n1"
    assert desk.names() == ["n1"]
    assert [len(facts) for facts in desk.told] in ([], [1])


def test_a_value_the_database_refuses_costs_only_its_own_verb(desk: Desk) -> None:
    desk.hold()
    futures = [desk.writer.submit(partial(arrive, node_id=name)) for name in ("n1", "n\0", "n2")]
    clash: list[Future[Any]] = [desk.writer.submit(partial(_pay, name=name)) for name in ("a", "b")]
    desk.go.set()
    assert [futures[0].result(WAIT_S), futures[2].result(WAIT_S)] == ["n1", "n2"]
    if desk.store.driver.name == "postgresql":
        assert isinstance(futures[1].exception(WAIT_S), InvalidInput)
    assert clash[0].exception(WAIT_S) is None
    assert isinstance(clash[1].exception(WAIT_S), Conflict), "a ledger has one transfer of a number"
    with desk.store.read() as tx:
        assert [transfer.transfer_id for transfer in tx.find(Transfer)] == ["a"]


def _pay(tx: Tx, now: datetime, name: str) -> list[Fact]:
    tx.insert(Transfer(transfer_id=name, kind=TransferKind.PAYOUT, debit="x", credit="y", amount_micro=1, at=now, sequence=1))
    return []


def _cut(tx: Any) -> None:
    """Lose the database in the middle of a transaction: on SQLite by a full disk, on PostgreSQL by a cut connection."""
    session = tx._session
    if session.driver.name == "sqlite":
        session.run("PRAGMA max_page_count = 1")
    else:
        with pytest.raises(Busy):
            session.run("SELECT pg_terminate_backend(pg_backend_pid())")


def big(tx: Tx, now: datetime, cut: Callable[[Any], None] = lambda tx: None, catch: bool = False) -> list[Fact]:
    cut(tx)
    try:
        tx.put(*(Presence(node_id=f"big{number:04}", instance="x" * 1000) for number in range(1000)))
    except (StorageFull, Busy):
        if not catch:
            raise
    return []


@pytest.mark.parametrize("catch", [False, True], ids=["raised", "swallowed"])
def test_a_group_whose_database_is_lost_fails_whole_and_the_next_goes_on(desk: Desk, catch: bool) -> None:
    desk.hold()
    futures: list[Future[Any]] = [
        desk.writer.submit(partial(arrive, node_id="n1")),
        desk.writer.submit(partial(big, cut=_cut, catch=catch)),
        desk.writer.submit(partial(arrive, node_id="n2")),
    ]
    desk.go.set()
    errors = [future.exception(WAIT_S) for future in futures]
    stored = desk.names()
    for name, error in (("n1", errors[0]), ("n2", errors[2])):
        assert (name in stored) == (error is None), "what was answered is there, what was refused is not"
    assert catch or isinstance(errors[1], StorageFull | Busy)
    if desk.store.driver.name == "sqlite":
        with desk.store.write() as tx:
            tx._session.run("PRAGMA max_page_count = 1000000")
    assert desk.writer.submit(big).result(WAIT_S) is None
    assert desk.writer.submit(partial(arrive, node_id="n3")).result(WAIT_S) == "n3"
    assert len([name for name in desk.names() if name.startswith("big")]) == 1000
