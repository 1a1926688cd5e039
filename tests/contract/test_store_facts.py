"""The journal gives back the facts that were committed, in order, by kind and by what they name."""

import contextlib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from gridsched.core import facts as module
from gridsched.core.errors import GridschedError
from gridsched.core.facts import Fact, LeasePaused, NodeJoined, NodePresent, kind_of
from gridsched.store.sql import SqlStore
from gridsched.store.tables import Noted
from tests.contract.records import made

NOON = datetime(2018, 1, 28, 12, tzinfo=UTC)
KINDS = [kind for name in module.__all__ if isinstance(kind := getattr(module, name), type) and kind is not Fact]
PAUSED = LeasePaused(
    at=NOON, lease_id="digits.r0.u1.l1", unit_id="digits.r0.u1", job_id="digits", node_id="attic-pc", zone="de-lu", generation=1,
    reason="no_surplus", power_w=120.0, step=7,
)  # fmt: skip
JOINED = NodeJoined(at=NOON, node_id="attic-pc", zone="de-lu", device="pc", power_w=120.0)
PRESENT = NodePresent(at=NOON, node_id="workshop", zone="de-lu")


def journal(store: SqlStore, *facts: Fact) -> None:
    with store.write() as tx:
        tx.append(facts)


@pytest.mark.parametrize("kind", KINDS, ids=kind_of)
def test_every_fact_comes_back_as_it_was(store: SqlStore, kind: type[Fact]) -> None:
    @given(made(kind))
    @settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def appended_and_read(fact: Any) -> None:
        with store.write() as tx:
            before = tx.count(Noted)
            tx.append([fact])
            assert tx.facts(since=before) == [(before + 1, fact)]

    appended_and_read()


def test_facts_are_numbered_from_one_without_gaps_also_after_a_rollback(store: SqlStore) -> None:
    journal(store, JOINED, PRESENT)
    with contextlib.suppress(ZeroDivisionError), store.write() as tx:
        tx.append([PAUSED])
        1 / 0  # noqa: B018
    journal(store, PAUSED)
    with store.read() as tx:
        assert tx.facts() == [(1, JOINED), (2, PRESENT), (3, PAUSED)]
        assert tx.facts(since=1, limit=1) == [(2, PRESENT)]
        assert tx.facts(since=3) == []


def test_facts_are_found_by_kind_and_by_every_id_they_name(store: SqlStore) -> None:
    journal(store, JOINED, PRESENT, PAUSED)
    with store.read() as tx:
        assert [seq for seq, _ in tx.facts(kinds=["node_joined", "lease_paused"])] == [1, 3]
        assert [seq for seq, _ in tx.facts(subject="attic-pc")] == [1, 3]
        assert [seq for seq, _ in tx.facts(subject="digits.r0.u1.l1")] == [3]
        assert [seq for seq, _ in tx.facts(subject="de-lu", kinds=("node_present",))] == [2]
        assert [seq for seq, _ in tx.facts(subject="de-lu", since=1, limit=1)] == [2]
        assert tx.facts(subject="nobody") == []


def test_one_id_named_twice_by_one_fact_gives_the_fact_once(store: SqlStore) -> None:
    journal(store, NodePresent(at=NOON, node_id="home", zone="home"))
    with store.read() as tx:
        assert len(tx.facts(subject="home")) == 1


def test_a_fact_of_a_newer_release_is_named(store: SqlStore) -> None:
    with store.write() as tx:
        tx.insert(Noted(seq=1, at=NOON, kind="moon_landed", body="{}"))
    with store.read() as tx, pytest.raises(GridschedError, match="moon_landed"):
        tx.facts()
