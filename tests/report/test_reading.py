"""A stretch of time out of a real journal, and the commands that show it."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from gridsched.cli.report import app
from gridsched.core.facts import Fact, JobEnded, LeaseActive, NodeOptedIn, ZoneObserved
from gridsched.core.job import Job, JobSpec, JobState
from gridsched.core.method import Method
from gridsched.core.round import Epoch
from gridsched.report.reading import facts_between, newest
from gridsched.store.sql import SqlStore
from tests.story import DAY, JOB, ZONE, Story, tell

DIGEST = "ab" * 32


@pytest.fixture(scope="module")
def story() -> Story:
    return tell()


@pytest.fixture(scope="module")
def site(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site whose store holds the day."""
    return site_of(tmp_path_factory.mktemp("site"), story.facts, job_of(), *story.epochs)


def site_of(folder: Path, facts: Sequence[Fact], *records: object, zones: Sequence[str] = (ZONE,)) -> Path:
    """A site in ``folder`` whose store holds these."""
    tables = (f'[[zone]]\nname = "{zone}"\npolicy = "{zone}.toml"\n' for zone in zones)
    (folder / "data").mkdir(parents=True)
    (folder / "gridsched.toml").write_text("".join(tables), encoding="utf-8")
    store = SqlStore(f"sqlite:///{folder}/data/gridsched.sqlite")
    store.upgrade()
    with store.write() as tx:
        tx.append(facts)
        tx.insert(*records)
    store.close()
    return folder


def job_of(job_id: str = JOB, *, zone: str = ZONE, state: JobState = JobState.DONE) -> Job:
    spec = JobSpec(
        job_id=job_id,
        name="digits",
        program=DIGEST,
        dataset=DIGEST,
        samples=1437,
        test_dataset=None,
        test_samples=0,
        initial=DIGEST,
        seed=1,
        method=Method(),
        zone=zone,
    )
    return Job(spec=spec, state=state, submitted_at=DAY)


def tick(hours: float, drawn_w: float) -> ZoneObserved:
    """So many hours into the day, at 50 EUR/MWh."""
    return ZoneObserved(
        at=DAY + timedelta(hours=hours),
        zone=ZONE,
        decision_id="d",
        target_w=1000.0,
        leased_w=1000.0,
        drawn_w=drawn_w,
        reason="surplus",
        signals={"price": 50.0},
        nodes={},
    )


@pytest.fixture
def store(site: Path) -> Iterator[SqlStore]:
    opened = SqlStore(f"sqlite:///{site}/data/gridsched.sqlite")
    yield opened
    opened.close()


def run(site: Path, *words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--site", str(site)], env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("hours", [0, 7, 13, 30])
def test_a_stretch_has_all_its_facts_and_of_before_only_what_still_matters(hours: int, store: SqlStore, story: Story) -> None:
    start = DAY + timedelta(hours=hours)
    end = start + timedelta(hours=2)
    with store.read() as tx:
        found = facts_between(tx, start, end)
    assert [f for f in found if f.at >= start] == [f for f in story.facts if start <= f.at < end]
    assert not [f for f in found if isinstance(f, ZoneObserved) and f.at < start]
    assert sum(isinstance(f, NodeOptedIn) for f in found) == sum(isinstance(f, NodeOptedIn) and f.at < end for f in story.facts)
    if hours in (7, 13):
        assert any(isinstance(f, LeaseActive) and f.at < start for f in found)


def test_the_newest_fact_is_found_and_an_empty_journal_has_none(store: SqlStore, story: Story, tmp_path: Path) -> None:
    with store.read() as tx:
        assert newest(tx) == story.facts[-1].at
    empty = SqlStore(f"sqlite:///{tmp_path}/empty.sqlite")
    empty.upgrade()
    with empty.read() as tx:
        assert newest(tx) is None
        assert facts_between(tx, DAY, DAY + timedelta(days=1)) == []
    empty.close()


def test_report_epochs_shows_every_epoch_and_writes_csv(site: Path, story: Story, tmp_path: Path) -> None:
    shown = run(site, "epochs", JOB)
    assert "96.4%" in shown
    assert "-0.0" in shown
    run(site, "epochs", JOB, "--csv", str(tmp_path / "epochs.csv"))
    assert pd.read_csv(tmp_path / "epochs.csv")["useful_j"].tolist() == pytest.approx([e.useful_j for e in story.epochs])


def test_report_day_draws_the_day_that_was_asked_for(site: Path, tmp_path: Path) -> None:
    assert "2018-01-28" in run(site, "day", "--date", "2018-01-28", "--out", str(tmp_path / "day.png"))
    assert (tmp_path / "day.png").stat().st_size > 50_000


def test_report_worth_says_what_waiting_saved(site: Path) -> None:
    shown = run(site, "worth", JOB)
    assert "avoided by waiting" in shown
    assert "not known" not in shown


def test_report_day_draws_a_job_of_its_zone_and_the_zone_of_its_job(story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, set[str]]] = []
    monkeypatch.setattr("gridsched.report.day.plot", lambda *_, zone, epochs, **__: seen.append((zone, {e.job_id for e in epochs})))
    later = Epoch(job_id="other", number=0, started_at=DAY + timedelta(hours=23, minutes=59))
    records = [job_of(), job_of("other", zone="gb"), *story.epochs, later]
    site = site_of(tmp_path / "site", story.facts[:1], *records, zones=(ZONE, "gb"))
    for words in ((), ("--zone", "gb"), ("--job", "other")):
        run(site, "day", *words)
    assert seen == [(ZONE, {JOB}), ("gb", {"other"}), ("gb", {"other"})]


def test_what_is_drawn_after_a_job_was_cancelled_is_not_charged_to_it(tmp_path: Path) -> None:
    records = [job_of(state=JobState.CANCELLED), Epoch(job_id=JOB, number=0, started_at=DAY)]
    told = [tick(0, 1000), tick(0.5, 1000), tick(1, 0), JobEnded(at=DAY + timedelta(hours=1.1), job_id=JOB, state="cancelled", reason="")]
    alone = run(site_of(tmp_path / "alone", told, *records), "worth", JOB)
    assert "0 / 1 kWh" in alone
    others = [tick(1.5, 1000), tick(2, 1000), tick(2.5, 0)]
    assert run(site_of(tmp_path / "shared", [*told, *others], *records), "worth", JOB) == alone


def test_where_a_job_has_drawn_nothing_no_price_is_said_to_be_missing(tmp_path: Path) -> None:
    records = [job_of(state=JobState.RUNNING), Epoch(job_id=JOB, number=0, started_at=DAY)]
    shown = run(site_of(tmp_path / "site", [tick(0, 0), tick(0.5, 0)], *records), "worth", JOB)
    assert "nothing was drawn" in shown
    assert "missing" not in shown


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("epochs", "nobody"), "no epochs of a job nobody"),
        (("day", "--date", "28.1."), "write it like 2018-01-28"),
        (("day", "--date", "2019-01-01"), "no control tick of zone de-lu"),
        (("day", "--job", "nobody"), "there is no job nobody"),
        (("day", "--job", JOB, "--zone", "gb"), "runs in zone de-lu and not in gb"),
    ],
    ids=str,
)
def test_a_mistake_is_told_with_its_remedy(words: tuple[str, ...], says: str, site: Path) -> None:
    done = CliRunner().invoke(app, [*words, "--site", str(site)])
    assert done.exit_code == 1
    assert says in done.output
    assert "Traceback" not in done.output
