"""The operator edits a policy while the daemon runs."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from gridsched.clock import SystemClock
from gridsched.plugins import load_policy
from tests.e2e.site_process import MOST_WATTS, POLICY, ZONE, Site


def rule(*, below: float) -> str:
    return POLICY.format(zone=ZONE, below=below, watts=MOST_WATTS)


def decisions(site: Site, *, since: datetime) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = site.operator.get(f"/v1/zones/{ZONE}/decisions", since=since.isoformat())
    return found


def edited(site: Site, text: str) -> datetime:
    site.policy(text)
    return SystemClock().now()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site that decides often."""
    with Site(tmp_path / "site", every="0.3s") as made:
        yield made


def test_an_edit_counts_from_the_next_tick_and_a_broken_one_changes_nothing(site: Site) -> None:
    site.wait("surplus is used", lambda: site.status()["target_w"] == MOST_WATTS)
    before = decisions(site, since=datetime.fromisoformat("2000-01-01T00:00:00Z"))[-1]

    at = edited(site, rule(below=5))
    site.wait("the new rule holds", lambda: site.status()["target_w"] == 0)
    strict = load_policy(site.folder / "policies" / "policy.toml").digest
    first, *_ = [d for d in decisions(site, since=at) if d["policy_digest"] == strict]
    late = [d for d in decisions(site, since=at) if d["policy_digest"] == before["policy_digest"]]
    assert len(late) <= 1, "only a tick that had begun may still go by the old rule"
    assert (first["reason"], first["target_w"]) == ("no_surplus", 0.0)
    assert strict != before["policy_digest"]
    assert [f["digest"] for f in site.facts("policy_loaded")] == [before["policy_digest"], strict]

    at = edited(site, rule(below=20).replace("watts = 1000", 'wats = "lots"'))
    site.wait("some ticks go by", lambda: len(decisions(site, since=at)) >= 4)
    assert {(d["policy_digest"], d["target_w"]) for d in decisions(site, since=at)} == {(strict, 0.0)}
    told = [line for line in site.log("daemon").splitlines() if "not reloaded, the last good one stays" in line]
    assert len(told) == 1, "told once, not with every tick"
    assert f"policy of {ZONE}" in told[0]
    assert "did you mean 'watts'?" in site.log("daemon")

    edited(site, rule(below=20))
    site.wait("the mended rule holds", lambda: site.status()["target_w"] == MOST_WATTS)
    (site.folder / "policies" / "policy.toml").unlink()
    at = SystemClock().now()
    site.wait("some ticks go by", lambda: len(decisions(site, since=at)) >= 3)
    assert site.status()["target_w"] == MOST_WATTS
    assert site.log("daemon").count("not reloaded") == 2
