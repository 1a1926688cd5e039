"""Records go in and come out the same, on every database."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from operator import attrgetter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gridsched.core.access import Invite
from gridsched.core.consent import Consent, opted_out
from gridsched.core.cut import units_of
from gridsched.core.errors import Conflict, InvalidInput, NotFound
from gridsched.core.fleet import Presence
from gridsched.core.job import JobSpec
from gridsched.core.ledger import Account, Transfer, TransferKind
from gridsched.core.method import Method
from gridsched.core.round import Epoch, Round, RoundState, Version
from gridsched.core.work import UnitKind, UnitState, WorkUnit
from gridsched.store import draft
from gridsched.store.sql import SqlStore, SqlTx
from gridsched.store.tables import KINDS
from tests.contract.records import made

NOON = datetime(2018, 1, 28, 12, tzinfo=UTC)
ONE_STORE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=15, deadline=None)


def key_of(record: Any) -> tuple[Any, ...]:
    kind = KINDS[type(record)]
    return tuple(attrgetter(kind.paths[name])(record) for name in kind.key)


def presences(names: Iterable[str]) -> list[Presence]:
    return [Presence(node_id=name) for name in names]


def units() -> list[WorkUnit]:
    spec = JobSpec(
        job_id="digits", name="digits", zone="de-lu", program="a" * 64, dataset="b" * 64, initial="c" * 64, samples=100,
        test_dataset=None, test_samples=0, seed=2**63 - 1, method=Method(samples_per_unit=25),
    )  # fmt: skip
    rnd = Round(round_id="digits.r0", job_id="digits", number=0, epoch=0, base="c" * 64, state=RoundState.OPEN, opened_at=NOON)
    return units_of(spec, rnd)


def test_a_number_that_no_column_holds_is_refused_by_name(store: SqlStore) -> None:
    with pytest.raises(InvalidInput, match="cannot hold a value"), store.write() as tx:
        tx.put(replace(opted_out("pc", NOON), min_reward_micro_per_kwh=10**30))
    with store.read() as tx:
        assert tx.find(Consent) == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_comes_back_as_it_was_stored(store: SqlStore, kind: type[Any]) -> None:
    @ONE_STORE
    @given(made(kind))
    def stored_and_read(record: Any) -> None:
        with store.write() as tx:
            tx.delete(kind)
            tx.put(record)
        with store.read() as tx:
            assert tx.get(kind, *key_of(record)) == record

    stored_and_read()


def test_moments_come_back_in_utc_to_the_microsecond(store: SqlStore) -> None:
    berlin = timezone(timedelta(hours=1))
    moment = datetime(2018, 1, 28, 13, 0, 0, 123457, tzinfo=berlin)
    with store.write() as tx:
        tx.put(Presence(node_id="n1", seen_at=moment))
        found = tx.must(Presence, "n1").seen_at
    assert found == moment
    assert found is not None
    assert found.utcoffset() == timedelta(0)


def test_a_bare_word_comes_back_as_the_member_it_names(store: SqlStore) -> None:
    unit = replace(units()[0], state="leased")  # type: ignore[arg-type]
    with store.write() as tx:
        tx.put(unit)
        assert tx.must(WorkUnit, unit.unit_id).state is UnitState.LEASED


def test_a_naive_moment_is_not_stored(store: SqlStore) -> None:
    with pytest.raises(TypeError), store.write() as tx:
        tx.put(Presence(node_id="n1", seen_at=datetime(2018, 1, 28)))  # noqa: DTZ001
    with store.read() as tx:
        assert tx.count(Presence) == 0


def test_money_beyond_what_a_float_can_count_stays_exact(store: SqlStore) -> None:
    with store.write() as tx:
        tx.put(Account(account_id="operator", debits_posted=2**53 + 1))
        assert tx.must(Account, "operator").debits_posted == 2**53 + 1


def test_insert_refuses_what_exists_and_names_it(store: SqlStore) -> None:
    with store.write() as tx:
        tx.insert(Presence(node_id="n1", speed=1.0))
        with pytest.raises(Conflict, match="Presence n1 exists already"):
            tx.insert(Presence(node_id="n1", speed=2.0))
        tx.insert(Presence(node_id="n2"))
    with store.read() as tx:
        assert [(p.node_id, p.speed) for p in tx.find(Presence)] == [("n1", 1.0), ("n2", 0.0)]


def test_insert_of_several_stores_all_or_none(store: SqlStore) -> None:
    with store.write() as tx:
        tx.insert(Presence(node_id="n2"))
        with pytest.raises(Conflict):
            tx.insert(Account(account_id="operator"), *presences(["n1", "n2", "n3"]))
    with store.read() as tx:
        assert [p.node_id for p in tx.find(Presence)] == ["n2"]
        assert tx.count(Account) == 0


def test_a_second_transfer_of_one_sequence_is_a_conflict(store: SqlStore) -> None:
    first = Transfer(transfer_id="a", kind=TransferKind.PAYOUT, debit="x", credit="y", amount_micro=1, at=NOON, sequence=1)
    with pytest.raises(Conflict, match="unique"), store.write() as tx:
        tx.insert(first, replace(first, transfer_id="b"))
    with store.read() as tx:
        assert tx.count(Transfer) == 0


def test_put_replaces_and_of_two_with_one_key_the_later_stays(store: SqlStore) -> None:
    with store.write() as tx:
        tx.put(Presence(node_id="n1", speed=1.0))
        tx.put(
            Presence(node_id="n1", speed=2.0), Account(account_id="a"), Presence(node_id="n1", speed=3.0), Presence(node_id="n1", speed=4.0)
        )
        assert tx.must(Presence, "n1").speed == 4.0
        assert tx.count(Presence) == 1


def test_swap_replaces_only_what_is_as_expected(store: SqlStore) -> None:
    unit = units()[0]
    leased = replace(unit, state=UnitState.LEASED, leases=1)
    with store.write() as tx:
        assert not tx.swap(leased, state=UnitState.OPEN)
        tx.insert(unit)
        assert tx.swap(leased, state=UnitState.OPEN, leases=0, continuation=None)
        assert not tx.swap(replace(leased, leases=2), state=UnitState.OPEN)
        assert tx.must(WorkUnit, unit.unit_id) == leased


def test_must_names_what_is_not_there(store: SqlStore) -> None:
    with store.read() as tx:
        assert tx.get(Version, "digits", 3) is None
        with pytest.raises(NotFound, match="there is no Version digits 3"):
            tx.must(Version, "digits", 3)
        with pytest.raises(TypeError, match="has the key"):
            tx.get(Version, "digits")


def test_find_takes_equal_any_of_and_null(store: SqlStore) -> None:
    present = [replace(p, present=True, seen_at=NOON) for p in presences(["n1", "n2"])]
    with store.write() as tx:
        tx.put(*present, Presence(node_id="n3"))
        assert tx.find(Presence, present=True) == present
        assert tx.find(Presence, node_id=("n1", "n3", "n9")) == [present[0], Presence(node_id="n3")]
        assert tx.find(Presence, node_id=["n1"], seen_at={NOON}) == [present[0]]
        assert tx.find(Presence, seen_at=None) == [Presence(node_id="n3")]
        assert tx.find(Presence, node_id=()) == []
        assert tx.count(Presence, present=True) == 2
        assert tx.count(Presence, node_id=frozenset(("n1", "n3"))) == 2


def test_find_takes_more_values_than_a_statement_has_placeholders(store: SqlStore) -> None:
    names = [f"n{number:06}" for number in range(70_000)]
    with store.write() as tx:
        tx.put(*presences(names[::1000]))
        assert len(tx.find(Presence, node_id=names)) == 70


def test_find_orders_as_told_then_by_key_and_stops_at_the_limit(store: SqlStore) -> None:
    epochs = [Epoch(job_id=job, number=number, started_at=NOON, units=number % 2) for job in ("b", "a") for number in range(3)]
    with store.write() as tx:
        tx.put(*epochs)
        assert [(e.job_id, e.number) for e in tx.find(Epoch)] == [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1), ("b", 2)]
        found = tx.find(Epoch, order="-units, -number", limit=4)
        assert [(e.job_id, e.number) for e in found] == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]
        assert [e.number for e in tx.find(Epoch, order="-number", limit=1, job_id="b")] == [2]


def test_text_is_ordered_by_its_bytes_on_every_database(store: SqlStore) -> None:
    names = ["Z", "a", "_", "ä", "B", "-", "aa", "a-b"]
    with store.write() as tx:
        tx.put(*presences(names))
        assert [p.node_id for p in tx.find(Presence)] == sorted(names)


def test_values_inside_a_nested_record_can_be_searched(store: SqlStore) -> None:
    all_units = units()
    with store.write() as tx:
        tx.insert(*all_units)
        assert (
            tx.find(WorkUnit, job_id="digits", kind=UnitKind.TRAIN, epoch=0, version=0, state=(UnitState.OPEN, UnitState.LEASED))
            == all_units
        )
        assert tx.count(WorkUnit, kind=UnitKind.EVALUATE) == 0


def test_an_unknown_word_is_not_asked_for(store: SqlStore) -> None:
    with store.read() as tx, pytest.raises(ValueError, match="opne"):
        tx.find(WorkUnit, state="opne")


def test_delete_removes_what_matches_and_counts_it(store: SqlStore) -> None:
    with store.write() as tx:
        tx.put(*presences(["n1", "n2", "n3"]))
        assert tx.delete(Presence, node_id=("n1", "n2", "n9")) == 2
        assert [p.node_id for p in tx.find(Presence)] == ["n3"]


def test_what_raises_leaves_nothing(store: SqlStore) -> None:
    with suppress(ZeroDivisionError), store.write() as tx:
        tx.put(Presence(node_id="n1"))
        1 / 0  # noqa: B018
    with store.read() as tx:
        assert tx.count(Presence) == 0


def test_a_savepoint_is_undone_alone_at_any_depth(store: SqlStore) -> None:
    with store.write() as tx:
        tx.put(Presence(node_id="before"))
        with suppress(ZeroDivisionError), tx.savepoint():
            with tx.savepoint():
                tx.put(Presence(node_id="inner"))
            assert tx.count(Presence) == 2
            1 / 0  # noqa: B018
        with tx.savepoint():
            with suppress(ZeroDivisionError), tx.savepoint():
                tx.put(Presence(node_id="lost"))
                1 / 0  # noqa: B018
            tx.put(Presence(node_id="after"))
    with store.read() as tx:
        assert [p.node_id for p in tx.find(Presence)] == ["after", "before"]


def test_a_read_sees_one_moment_while_others_write(store: SqlStore) -> None:
    with store.read() as reader:
        assert reader.count(Presence) == 0
        with store.write() as tx:
            tx.put(Presence(node_id="n1"))
        assert reader.count(Presence) == 0
    with store.read() as reader:
        assert reader.count(Presence) == 1


def test_a_read_cannot_write(store: SqlStore) -> None:
    with store.write() as tx:
        tx.put(Presence(node_id="n1"))
    with pytest.raises(Exception, match=r"read.?only"), store.read() as tx:
        tx.put(Presence(node_id="n2"))
    with store.read() as tx:
        assert tx.count(Presence) == 1


CODES = "abcd"
STEPS = st.tuples(st.sampled_from(["put", "insert", "swap"]), st.sampled_from(CODES), st.sampled_from("xyz"))
CLEARS = st.tuples(st.just("delete"), st.sampled_from(CODES), st.just(""))
PARTS = st.recursive(STEPS | CLEARS, lambda inner: st.tuples(st.sampled_from(["keep", "undo"]), st.lists(inner, max_size=6)), max_leaves=20)


class Undone(Exception):
    """Leaves a savepoint."""


def carry_out(tx: SqlTx, model: dict[str, Invite], part: Any) -> None:
    """Do ``part`` to the store and to a dictionary, then ask both the same questions."""
    if part[0] in ("keep", "undo"):
        before = dict(model)
        with suppress(Undone), tx.savepoint():
            for inner in part[1]:
                carry_out(tx, model, inner)
            if part[0] == "undo":
                model.clear()
                model.update(before)
                raise Undone
    else:
        write(tx, model, *part)
    agree(tx, model)


def write(tx: SqlTx, model: dict[str, Invite], step: str, code: str, zone: str) -> None:
    invite = Invite(code_hash=code, zone=zone, made_at=NOON, expires_at=NOON, used_by=zone if zone != "x" else None)
    if step == "delete":
        assert tx.delete(Invite, code_hash=code) == (model.pop(code, None) is not None)
    elif step == "insert" and code in model:
        with pytest.raises(Conflict):
            tx.insert(invite)
    elif step == "swap":
        expected = code in model and model[code].zone in ("x", "y")
        assert tx.swap(invite, zone=("x", "y")) == expected
        model |= {code: invite} if expected else {}
    else:
        (tx.insert if step == "insert" else tx.put)(invite)
        model[code] = invite


def agree(tx: SqlTx, model: dict[str, Invite]) -> None:
    by_key = [model[code] for code in sorted(model)]
    assert tx.find(Invite) == by_key
    assert tx.find(Invite, code_hash=("a", "c", "nobody")) == [invite for invite in by_key if invite.code_hash in "ac"]
    assert tx.find(Invite, zone=["x", "z"], made_at=NOON) == [invite for invite in by_key if invite.zone in "xz"]
    assert tx.find(Invite, used_by=None) == [invite for invite in by_key if invite.used_by is None]
    assert tx.find(Invite, order="-used_by", limit=2) == sorted(by_key, key=lambda invite: invite.used_by or "", reverse=True)[:2]
    assert tx.count(Invite, zone="y") == sum(invite.zone == "y" for invite in by_key)
    assert [tx.get(Invite, code) for code in CODES] == [model.get(code) for code in CODES]


@pytest.mark.parametrize("much", [1, 64], ids=["sent soon", "sent late"])
@given(before=st.lists(STEPS, max_size=6), parts=st.lists(PARTS, max_size=6))
@settings(ONE_STORE, max_examples=60)
def test_any_writes_and_savepoints_read_and_leave_what_a_dictionary_would(
    store: SqlStore, much: int, before: list[Any], parts: list[Any]
) -> None:
    model: dict[str, Invite] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draft, "_MUCH", much)
        with store.write() as tx:
            tx.delete(Invite)
            for step in before:
                write(tx, model, *step)
        with store.write() as tx:
            for part in parts:
                carry_out(tx, model, part)
    with store.read() as tx:
        agree(tx, model)
