"""A real Prometheus with the shipped configuration, which asks four times a second instead of every five seconds."""

import json
import math
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Prometheus", "empty_panels", "prometheus"]

VARIABLES = {"$__rate_interval": "5s", "$__range": "1m", "$zone": ".*", "$job_id": ".*", "[1h]": "[1m]", "[30m]": "[1m]"}
_PATIENCE_S = 45.0


@dataclass(frozen=True)
class Prometheus:
    """How to ask it."""

    url: str
    folder: Path

    def ask(self, path: str, **query: str) -> Any:
        """The answer to an API call."""
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
            body = json.load(answer)
        assert body["status"] == "success", body
        return body["data"]

    def instant(self, expr: str) -> list[dict[str, Any]]:
        """What a panel of single values shows now."""
        found: list[dict[str, Any]] = self.ask("query", query=filled(expr))["result"]
        return found

    def over_time(self, expr: str) -> list[dict[str, Any]]:
        """What a panel over the last minute shows."""
        end = float(self.ask("query", query="time()")["result"][0])
        found: list[dict[str, Any]] = self.ask("query_range", query=filled(expr), start=str(end - 60), end=str(end), step="0.5")["result"]
        return found

    def values(self, expr: str, *labels: str) -> dict[tuple[str, ...], float]:
        """The present values by these labels."""
        return {tuple(row["metric"][name] for name in labels): float(row["value"][1]) for row in self.instant(expr)}

    def wait(self, what: str, look: Callable[[], bool]) -> None:
        """Ask until ``look`` holds: a scrape is some tenths of a second behind."""
        until = time.monotonic() + _PATIENCE_S
        while True:
            with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                if look():
                    return
            assert time.monotonic() < until, f"not within {_PATIENCE_S:.0f} s: {what}\n{self.log()}"
            time.sleep(0.1)

    def log(self) -> str:
        """Its last words."""
        return (self.folder / "log").read_text()[-2000:]


def filled(expr: str) -> str:
    """``expr`` with Grafana's variables as Grafana would fill them, for a story of seconds."""
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    return expr


def empty_panels(asked: Prometheus, repository: Path) -> list[str]:
    """Every question of the dashboards that has no answer."""
    empty = []
    for file in sorted((repository / "grafana" / "dashboards").glob("*.json")):
        for panel in json.loads(file.read_text(encoding="utf-8"))["panels"]:
            for target in panel["targets"]:
                rows = asked.instant(target["expr"]) if target["instant"] else asked.over_time(target["expr"])
                numbers = [float(v) for row in rows for _, v in row.get("values", [row.get("value", (0, "nan"))])]
                if all(math.isnan(n) for n in numbers):
                    empty.append(f"{file.name}, {panel['title']} {target['refId']}: {target['expr']}")
    return empty


@contextmanager
def prometheus(folder: Path, repository: Path, target: str) -> Iterator[Prometheus]:
    """It scrapes ``target`` (host:port) until the end of the context."""
    config = (repository / "grafana" / "prometheus.yml").read_text(encoding="utf-8")
    config = config.replace("127.0.0.1:8080", target)
    config = config.replace("scrape_interval: 5s", "scrape_interval: 250ms\n  scrape_timeout: 250ms").replace("15s", "1s")
    (folder / "prometheus.yml").write_text(config, encoding="utf-8")
    shutil.copy(repository / "grafana" / "alerts.yml", folder)
    port = free_port()
    options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(["prometheus", *options], stdout=log, stderr=log)
    try:
        yield Prometheus(f"http://127.0.0.1:{port}", folder)
    finally:
        process.terminate()
        process.wait(10)


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
