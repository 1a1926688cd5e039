"""A real Prometheus scrapes the real daemon while a job runs: what it shows is what the API says."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gridsched.node.client import Client
from gridsched.wire import ConsentChoice, Hello, Join, Sync, UpdateNotice
from tests.e2e.prometheus import Prometheus, empty_panels, prometheus
from tests.e2e.site_process import ZONE, Site

pytestmark = [pytest.mark.prometheus, pytest.mark.long]


@dataclass(frozen=True)
class Watched:
    """A daemon on which a job has run to its end, and a Prometheus that has watched it from the start."""

    site: Site
    job_id: str
    prometheus: Prometheus


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Watched]:
    with Site(tmp_path_factory.mktemp("watched") / "site") as site:
        folder = tmp_path_factory.mktemp("prometheus")
        with prometheus(folder, repository, site.url.removeprefix("http://")) as asked:
            job_id = site.submit(epochs=3, passes=20)
            empty_handed(site)
            site.join("n1", "n2")
            site.finish(job_id)
            facts = len(site.facts())
            asked.wait("the last scrape has seen all", lambda: asked.values("sum(gridsched_facts_total)")[()] >= facts)
            yield Watched(site, job_id, asked)


def empty_handed(site: Site) -> None:
    """A node that takes a unit, brings nothing and leaves: refused, and done again by others."""
    code = site.operator.post("/v1/invites", {"zone": ZONE, "for_s": 60.0})["code"]
    stranger = Client(site.url)
    about = {"device": "test", "power_w": 50.0, "memory_bytes": 10**9, "runtime": "torch-test", "meter": "none"}
    token = stranger.join(Join(code=code, node_id="empty-handed", **about)).token  # type: ignore[arg-type]
    node = Client(site.url, token)
    node.hello(Hello(instance="a", runtime="torch-test"))
    node.choose(ConsentChoice(opted_in=True))
    order = site.wait("it is offered a unit", lambda: node.sync(Sync(instance="a")).order)
    node.update(UpdateNotice(instance="a", lease_id=order.lease_id, generation=order.generation, update=None, steps_executed=0, metrics={}))
    node.choose(ConsentChoice(opted_in=False))
    for client in (stranger, node):
        client.close()


def test_every_panel_of_every_dashboard_has_data(watched: Watched, repository: Path) -> None:
    assert not empty_panels(watched.prometheus, repository)


def test_the_energy_of_each_epoch_is_the_one_in_the_books(watched: Watched) -> None:
    shown = watched.prometheus.values(f'gridsched_epoch_energy_joules{{job_id="{watched.job_id}"}}', "epoch", "use")
    epochs = watched.site.operator.get(f"/v1/jobs/{watched.job_id}/epochs")
    assert len(epochs) == 3
    assert shown == pytest.approx({(str(e["number"]), use): e[f"{use}_j"] for e in epochs for use in ("useful", "wasted", "idle")})
    assert sum(shown.values()) > 0


def test_the_rewards_shown_are_the_ones_posted(watched: Watched) -> None:
    posted = watched.site.facts("reward_posted")
    shown = watched.prometheus.values("gridsched_rewards_micro_total", "zone")
    assert shown == {(ZONE,): sum(fact["amount_micro"] for fact in posted)}
    assert shown[(ZONE,)] == sum(row["earned_micro"] for row in watched.site.operator.get("/v1/nodes")) > 0


def test_the_nodes_are_shown_by_the_reason_the_status_gives(watched: Watched) -> None:
    def agree() -> bool:
        shown = watched.prometheus.values("gridsched_nodes > 0", "reason")
        return shown == {(reason,): count for reason, count in watched.site.status()["nodes"].items()}

    watched.prometheus.wait("both have seen the same tick", agree)
    assert watched.site.status()["nodes"]["available"] == 2


def test_accuracy_and_counts_are_those_of_the_job(watched: Watched) -> None:
    job = watched.site.job(watched.job_id)
    assert watched.prometheus.values("gridsched_model_accuracy_ratio", "job_id") == {(watched.job_id,): job["accuracy"]}
    assert watched.prometheus.values("gridsched_model_version", "job_id") == {(watched.job_id,): job["version"]}
    accepted = watched.site.facts("unit_accepted")
    assert watched.prometheus.values("sum(gridsched_units_accepted_total)")[()] == len(accepted)
    assert watched.prometheus.values("sum(gridsched_updates_rejected_total)")[()] == len(watched.site.facts("update_rejected")) == 1
