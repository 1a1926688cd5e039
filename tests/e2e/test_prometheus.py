"""A real Prometheus scrapes a real page while a day goes by, and every question the dashboard asks it has an answer."""

import math
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from gridsched.core.facts import PolicyDecided, RewardPosted
from gridsched.metrics import Metrics
from tests.e2e.prometheus import Prometheus, empty_panels, prometheus
from tests.story import JOB, ZONE, Story, tell

pytestmark = pytest.mark.prometheus

SCRAPES = 40


@dataclass(frozen=True)
class Scraped:
    """A Prometheus that has seen the whole ``story``."""

    prometheus: Prometheus
    story: Story


def page_of(story: Story) -> type[BaseHTTPRequestHandler]:
    """``/metrics`` of a day that goes on a little with every scrape."""
    metrics = Metrics()
    share = math.ceil(len(story.facts) / SCRAPES)
    parts = iter([story.facts[i : i + share] for i in range(0, len(story.facts), share)])

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            for fact in next(parts, ()):
                metrics.observe(fact)
            body, content_type = metrics.expose(self.headers.get("Accept", ""))
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Page


@pytest.fixture(scope="module")
def scraped(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    folder = tmp_path_factory.mktemp("prometheus")
    story = tell()
    page = HTTPServer(("127.0.0.1", 0), page_of(story))  # one scrape after the other: a slow one given up must not overtake the next
    threading.Thread(target=page.serve_forever, daemon=True).start()
    try:
        with prometheus(folder, repository, f"127.0.0.1:{page.server_port}") as asked:
            asked.wait("the whole day", lambda: asked.values("sum(gridsched_facts_total)") == {(): len(story.facts)})
            yield Scraped(prometheus=asked, story=story)
    finally:
        page.shutdown()
        page.server_close()


def test_every_panel_has_data(scraped: Scraped, repository: Path) -> None:
    assert not empty_panels(scraped.prometheus, repository)


def test_the_energy_per_epoch_in_prometheus_is_the_energy_in_the_books(scraped: Scraped) -> None:
    rows = scraped.prometheus.instant(f'gridsched_epoch_energy_joules{{job_id="{JOB}"}}')
    found = {(r["metric"]["epoch"], r["metric"]["use"]): float(r["value"][1]) for r in rows}
    for epoch in scraped.story.epochs:
        for use in ("useful", "wasted", "idle"):
            assert found[(str(epoch.number), use)] == pytest.approx(getattr(epoch, f"{use}_j"))
    assert len(found) == 3 * len(scraped.story.epochs)


def test_counters_equal_the_counts_of_facts(scraped: Scraped) -> None:
    facts = scraped.story.facts
    assert total(scraped, "gridsched_facts_total") == len(facts)
    assert total(scraped, "gridsched_decisions_total") == sum(isinstance(f, PolicyDecided) for f in facts)
    assert total(scraped, f'gridsched_rewards_micro_total{{zone="{ZONE}"}}') == sum(
        f.amount_micro for f in facts if isinstance(f, RewardPosted)
    )


def total(scraped: Scraped, series: str) -> float:
    return float(scraped.prometheus.instant(f"sum({series})")[0]["value"][1])


def test_no_label_was_renamed_in_the_scrape(scraped: Scraped) -> None:
    assert not [name for name in scraped.prometheus.ask("labels") if name.startswith("exported_")]


def test_the_alert_rules_are_evaluated_without_an_error(scraped: Scraped) -> None:
    rules = [rule for group in scraped.prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in rules} >= {"SignalStale", "PowerAboveTarget", "NoProgress"}
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    assert not [rule for rule in rules if rule.get("lastError")]


@pytest.mark.parametrize(
    "command", [("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")], ids=" ".join
)
def test_promtool_agrees(repository: Path, command: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *command], cwd=repository / "grafana", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
