"""Metrics, their README, the dashboard and the alerts speak of the same things, and Grafana's schema knows every key."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from gridsched.metrics import Metrics

VARIABLES = {"zone": ".*", "job_id": ".*", "__rate_interval": "1m", "__range": "1h", "__interval": "15s"}
Table = dict[str, tuple[str, ...]]


@pytest.fixture(scope="module")
def folder(repository: Path) -> Path:
    return repository / "grafana"


@pytest.fixture(scope="module")
def dashboard(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "dashboards" / "gridsched.json").read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def metrics() -> Table:
    """Every metric's name with its labels, as it is scraped."""
    found = {}
    for collector in Metrics().registry._collector_to_names:
        family = getattr(collector, "_name", "")
        if family.startswith("gridsched"):
            kind = getattr(collector, "_type", "")
            found[family + ("_total" if kind == "counter" else "")] = tuple(getattr(collector, "_labelnames", ()))
    return found


def expressions(dashboard: dict[str, Any], folder: Path) -> Iterator[tuple[str, str]]:
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            expr = target["expr"]
            for name, value in VARIABLES.items():
                expr = expr.replace(f"${name}", value)
            yield f"panel {panel['title']}", expr
    for alert, expr in re.findall(r"- alert: (\w+)\n(?:\s+#.*\n)*\s+expr: (.+)\n", (folder / "alerts.yml").read_text(encoding="utf-8")):
        yield f"alert {alert}", expr


def test_the_readme_lists_every_metric_with_its_labels_and_no_other(folder: Path, metrics: Table) -> None:
    rows = re.findall(r"^\| `(gridsched_\w+)` \| ([^|]*) \|", (folder / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {name: tuple(re.findall(r"`(\w+)`", labels)) for name, labels in rows} == metrics


def test_dashboard_and_alerts_use_only_metrics_that_exist_with_labels_they_have(
    folder: Path, dashboard: dict[str, Any], metrics: Table
) -> None:
    checked = 0
    for where, expr in expressions(dashboard, folder):
        promql_parser.parse(expr)
        for name, matchers in re.findall(r"\b(gridsched_\w+)(?:\{([^}]*)\})?", expr):
            assert name in metrics, f"{where} uses {name}, which gridsched/metrics.py does not have"
            unknown = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) - set(metrics[name])
            assert not unknown, f"{where} asks {name} for labels it does not have: {sorted(unknown)}"
            checked += 1
    assert checked > 20


def test_the_variables_come_from_metrics_that_have_them(dashboard: dict[str, Any], metrics: Table) -> None:
    variables = {v["name"]: v for v in dashboard["templating"]["list"]}
    assert set(variables) == {"datasource", "zone", "job_id"}
    for name in ("zone", "job_id"):
        found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variables[name]["query"]["query"])
        assert found is not None
        assert found[2] == name
        assert name in metrics[found[1]]


def test_every_alert_is_tested_and_says_what_to_do(folder: Path) -> None:
    rules, tests = ((folder / name).read_text(encoding="utf-8") for name in ("alerts.yml", "alerts_test.yml"))
    alerts = re.findall(r"- alert: (\w+)", rules)
    assert {"SignalStale", "PowerAboveTarget", "NoProgress"} <= set(alerts)
    assert rules.count("action: ") == rules.count("summary: ") == len(alerts)
    for alert in alerts:
        cases = re.findall(rf"alertname: {alert}\n(\s+exp_alerts:)?", tests)
        assert "" in cases, f"{alert} has no test in which it stays quiet"
        assert any(cases), f"{alert} has no test in which it fires"


def test_grafana_knows_every_key_of_the_dashboard(dashboard: dict[str, Any]) -> None:
    plugins.register_default_plugins()
    assert json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard))) == dashboard


def test_the_first_panels_answer_the_first_questions_and_each_has_a_unit_and_a_story(dashboard: dict[str, Any]) -> None:
    panels = sorted(dashboard["panels"], key=lambda p: (p["gridPos"]["y"], p["gridPos"]["x"]))
    assert [p["title"] for p in panels[:6]] == [
        "Energy used per epoch",
        "Drawn power against target",
        "Surplus and price",
        "Nodes by state and reason",
        "Rewards paid",
        "Model quality",
    ]
    assert all(p["fieldConfig"]["defaults"]["unit"] and p["description"] for p in panels)
    assert all(p["datasource"]["uid"] == t["datasource"]["uid"] == "${datasource}" for p in panels for t in p["targets"])
    assert len({p["id"] for p in panels}) == len(panels)


def test_panels_do_not_overlap(dashboard: dict[str, Any]) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert taken.setdefault(cell, panel["title"]) == panel["title"]
