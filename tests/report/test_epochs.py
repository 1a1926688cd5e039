"""A run in tables and numbers."""

import json
import math
from dataclasses import replace

import pandas as pd
import pytest

from gridsched.core.ledger import Account
from gridsched.core.round import Epoch, Version
from gridsched.report.epochs import COLUMNS, balanced, summary, table
from tests.story import DAY, JOB, Story, tell


@pytest.fixture(scope="module")
def story() -> Story:
    return tell()


FIRST = Version(job_id=JOB, number=0, digest="", parent=None, round_id=None, epoch=0, updates=(), size_bytes=1, made_at=DAY)


def version(number: int, *, accuracy: float | None = None, job_id: str = JOB) -> Version:
    return replace(FIRST, job_id=job_id, number=number, digest=f"{number:064x}", accuracy=accuracy)


def test_the_table_has_a_row_per_epoch_in_order_whatever_order_they_come_in(story: Story) -> None:
    frame = table(story.epochs[::-1])
    assert list(frame.columns) == COLUMNS
    assert frame["epoch"].tolist() == list(range(len(story.epochs)))
    assert frame["energy_kwh"].sum() == pytest.approx(sum(e.useful_j + e.wasted_j + e.idle_j for e in story.epochs) / 3.6e6)
    assert frame["cost_eur"].iloc[0] < 0
    assert frame["reward_eur"].iloc[0] == pytest.approx(story.epochs[0].reward_micro / 1e6)
    assert isinstance(frame["started_at"].dtype, pd.DatetimeTZDtype)
    assert set(frame["accuracy"]) == {e.accuracy for e in story.epochs}


def test_an_epoch_without_energy_end_or_accuracy_has_gaps_and_not_zeros(story: Story) -> None:
    row = table([Epoch(job_id=JOB, number=0, started_at=DAY)]).iloc[0]
    assert math.isnan(row["useful_share"])
    assert math.isnan(row["accuracy"])
    assert row["ended_at"] is pd.NaT


def test_what_audits_took_is_told_as_a_part_of_what_was_wasted() -> None:
    row = table([Epoch(job_id=JOB, number=0, started_at=DAY, useful_j=60.0, wasted_j=40.0, audit_j=30.0)]).iloc[0]
    assert (row["audit_j"], row["wasted_j"], row["useful_share"]) == (30.0, 40.0, 0.6)


def test_no_epochs_make_an_empty_table() -> None:
    assert table([]).empty


def test_the_summary_tells_the_run_in_plain_json(story: Story) -> None:
    accounts = [Account(account_id="operator", debits_posted=30), Account(account_id="node:a", credits_posted=30)]
    versions = [version(7), version(6, accuracy=0.964), version(9, accuracy=0.1, job_id="another")]
    told = json.loads(json.dumps(summary(job_id=JOB, facts=story.facts, epochs=story.epochs, versions=versions, accounts=accounts)))
    assert told["accuracy"] == 0.964
    assert told["final_digest"] == f"{7:064x}"
    assert [e["accuracy"] for e in told["epochs"]] == [e.accuracy for e in story.epochs]
    assert {"useful_j", "wasted_j", "idle_j", "reward_micro", "accuracy"} <= set(told["epochs"][0])
    assert (told["pauses"], told["hand_overs"], told["crashes"]) == (7, 1, 1)
    assert told["reasons"] == {"surplus": 4, "no_surplus": 3}
    assert next(iter(told["lease_reasons"])) == "finished"
    assert told["ledger_balanced"] is True


def test_a_ledger_balances_pending_and_posted_each() -> None:
    assert balanced([])
    assert not balanced([Account(account_id="operator", debits_posted=30, credits_pending=30)])
    assert not balanced([Account(account_id="operator", debits_pending=5), Account(account_id="node:a", credits_pending=4)])
