"""A provider that lies or sleeps degrades its signal, visibly, and nothing else; the day it behaves again, so does everything."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gridsched.clock import SystemClock
from gridsched.providers.session import Limits
from tests.e2e.provider import Answer, Provider, prices
from tests.e2e.site_process import MOST_WATTS, PATIENCE_S, ZONE, Site

pytestmark = pytest.mark.long

SLOT = timedelta(seconds=2)
KNOWN_SLOTS = 6

_ADAPTER = """
[[adapter]]
use = "signals/http_json.py"
zone = "{zone}"
url = "{url}"
signal = "price"
resolution = "2s"
rows = "data"
time = "time"
value = "price"
unit = "EUR/MWh"
every = "0.5s"
"""


def fault(name: str) -> list[Answer]:
    """What the provider says instead, as often as it takes until the daemon believes it."""
    if name == "html":
        return [Answer(b"<!doctype html><title>Maintenance</title>", content_type="text/html")]
    if name == "rate_limited":  # a longer wait would be kept
        return Limits().attempts * [Answer(b"slow down", status=429, headers={"Retry-After": "1"})]
    if name == "empty":
        return [Answer(b"")]
    return [prices(SystemClock().now() - timedelta(days=1), slots=5, slot=SLOT)]


_OFTEN = """
[http]
per_minute = 600
"""


FAULTS = ("html", "rate_limited", "empty", "stale")


@dataclass(frozen=True)
class Episode:
    """What could be seen of one zone: while its provider failed, and afterwards."""

    degraded: dict[str, Any]
    failing: dict[str, Any]
    recovered: list[dict[str, Any]]
    after: dict[str, Any]


@dataclass(frozen=True)
class Story:
    site: Site
    episodes: Mapping[str, Episode]
    paused: dict[str, Any]
    resumed: dict[str, Any]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """All providers give a few slots, fail, and recover, side by side; a node trains in the first one's zone."""
    zones = {name: f"{name.replace('_', '-')}" for name in FAULTS}
    with ExitStack() as stack:
        providers = {name: stack.enter_context(Provider()) for name in FAULTS}
        adapters = "".join(_ADAPTER.format(zone=zones[name], url=providers[name].url) for name in FAULTS)
        policies = {zone: f"{zone}.toml" for zone in zones.values()}
        site = stack.enter_context(Site(tmp_path_factory.mktemp("faults") / "site", zones=policies, adapters=adapters + _OFTEN))
        site.join("n1", zone="html", cpu_share=0.1)
        site.submit(epochs=50, passes=2000, zone="html")

        for provider in providers.values():
            provider.say(prices(SystemClock().now() - SLOT, slots=KNOWN_SLOTS, slot=SLOT))
        site.wait("a unit is leased while the price is known", lambda: site.row("n1")["lease_id"])
        for name, provider in providers.items():
            for answer in fault(name):
                provider.say(answer)
        degraded = {name: site.wait(f"{name} degrades", lambda n=name: told(site, "signal_degraded", zones[n])) for name in FAULTS}  # type: ignore[misc]
        failing = {name: site.wait(f"{name} is stale", lambda n=name: stale(site, zones[n])) for name in FAULTS}  # type: ignore[misc]
        paused = site.wait("the node pauses", lambda: about(site, "lease_paused"))
        site.wait("its worker is at rest", lambda: site.nodes["n1"].status().phase in ("paused", "none", "starting"))

        for provider in providers.values():
            provider.say(prices(SystemClock().now() - SLOT, slots=300, slot=SLOT))
        recovered = {name: site.wait(f"{name} recovers", lambda n=name: told(site, "signal_recovered", zones[n])) for name in FAULTS}  # type: ignore[misc]
        after = {name: site.wait(f"{name} is used", lambda n=name: used(site, zones[n])) for name in FAULTS}  # type: ignore[misc]
        resumed = site.wait("the node goes on", lambda: about(site, "lease_resumed"))
        site.wait("its worker runs", lambda: site.nodes["n1"].status().phase == "running")
        episodes = {name: Episode(degraded[name][0], failing[name], recovered[name], after[name]) for name in FAULTS}
        yield Story(site, episodes, paused[0], resumed[0])


def told(site: Site, kind: str, zone: str) -> list[dict[str, Any]]:
    return [f for f in site.facts(kind) if f["source"].split(".")[1] == zone]


def about(site: Site, kind: str) -> list[dict[str, Any]]:
    return [f for f in site.facts(kind) if f["node_id"] == "n1"]


def stale(site: Site, zone: str) -> dict[str, Any] | None:
    status = site.status(zone)
    return status if status["reason"] == "stale_signal" else None


def used(site: Site, zone: str) -> dict[str, Any] | None:
    status = site.status(zone)
    return status if status["target_w"] == MOST_WATTS else None


def test_a_provider_that_never_answers_does_not_keep_the_daemon_from_stopping(tmp_path: Path) -> None:
    with Provider() as provider, Site(tmp_path / "site", adapters=_ADAPTER.format(zone=ZONE, url=provider.url)) as site:
        assert provider.asked.wait(PATIENCE_S)
        site.daemon.ask_to_end()
        assert site.daemon.child is not None
        assert site.daemon.child.wait(10) == 0, site.told()


@pytest.mark.parametrize("name", FAULTS)
def test_the_signal_degrades_visibly_and_recovers(story: Story, name: str) -> None:
    episode = story.episodes[name]
    assert episode.degraded["error_kind"] == name
    assert episode.degraded["detail"]
    price = episode.failing["signals"]["price"]
    assert not price["fresh"]
    assert price["age_s"] >= 0
    assert episode.failing["target_w"] == 0
    assert "price" in episode.failing["detail"]
    assert len(episode.recovered) == 1
    assert episode.after["signals"]["price"]["fresh"]


def test_the_first_failure_and_the_recovery_are_logged_and_nothing_between(story: Story) -> None:
    log = story.site.log("daemon")
    assert log.count(" fails: ") == len(FAULTS)
    assert log.count(" gives readings again") == len(FAULTS)


def test_a_node_pauses_on_a_stale_signal_and_goes_on_when_it_is_back(story: Story) -> None:
    assert story.paused["reason"] == "stale_signal"
    assert story.resumed["reason"] == "surplus_back"
    assert story.resumed["unit_id"] == story.paused["unit_id"]
    assert story.resumed["at"] > story.paused["at"]
