"""How much work eight nodes get done while everything around them breaks, against the same time in peace.

    python benchmarks/train_chaos.py [--minutes 30] [--faults 60] [--seed 0] [--variants free capped]

A seeded script strikes at random moments: nodes' training processes and whole nodes killed (-9), the daemon killed and started again,
nodes stopped (SIGSTOP) and woken, opted out and in, cut off from the daemon, a saved continuation damaged and its process killed. All
of it heals after some seconds, as it does at homes. A shorter run keeps the density: ``--faults`` is then scaled with ``--minutes``.

What is compared is verified work: steps of training units that the daemon has accepted, once each, in the same wall time. The fleet has
two jobs, so that who waits for the last unit of one round works for the other job. On two cores eight training processes compete: when
one is down the others get its share of the processor, so ``free`` says what the *machine* loses. In ``capped`` every node's owner
limits it to a tenth of the machine, which it cannot exceed when others are down: that says what the *fleet* loses. As nobody can do
the work of a node while it is away, ``available`` tells the share of node time that the script itself left standing, not counting what
it takes a killed process to come back; the rest is what the product lost. A full disk is not among the faults: that needs a disk of its
own, and is tested elsewhere.

Both runs must reach the same digests, version by version, as far as both have come; and the store's promises must hold at the end.
"""

import argparse
import heapq
import random
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fleet
import psutil
from proxy import Proxy

from gridsched import owner
from gridsched.core.errors import GridschedError
from tests.e2e.site_process import NodeProcess, Site

NODES, UNITS, PASSES, ROUNDS = 8, 16, 30, 100_000
JOBS = 2
GOAL = 0.99
VARIANTS = {"free": 1.0, "capped": 0.2}
"""Each node's limit, as a share of one core."""

_HEALED_S = 60.0
_WEIGHTS = {"kill_worker": 11, "kill_node": 11, "kill_daemon": 5, "stop": 9, "opt_out": 9, "cut": 9, "damage": 6}
"""How often each fault comes in sixty; 33 of them are kills, since damage is followed by one."""

PEERS = {"torchft DiLoCo, 32 replicas on 16 cores, 62 faults (27 kills) in 30 min: share of throughput kept (published, 2026)": 0.977}


def script(faults: int, seconds: float, seed: int) -> list[tuple[float, str]]:
    """(seconds from the beginning, fault), evenly dense and never at the same moments for two seeds."""
    chance = random.Random(seed)
    whole = [kind for kind, weight in _WEIGHTS.items() for _ in range(weight)]
    kinds = [kind for _ in range(faults // len(whole)) for kind in whole] + chance.sample(whole, faults % len(whole))
    chance.shuffle(kinds)
    return [((place + chance.uniform(0.05, 0.95)) * seconds / faults, kind) for place, kind in enumerate(kinds)]


class Fleet(Site):
    """Eight nodes, each with a way of its own to the daemon."""

    def _join(self, name: str, **how: Any) -> Any:
        direct, proxy = self.url, Proxy(int(self.url.rsplit(":", 1)[1]))
        self.proxies = {**getattr(self, "proxies", {}), name: proxy}
        try:
            self.url = proxy.url
            return super()._join(name, **how)
        finally:
            self.url = direct

    def end(self) -> None:
        """The nodes first, while they can still hand over."""
        super().end()
        for proxy in getattr(self, "proxies", {}).values():
            proxy.close()


@dataclass
class Chaos:
    """Strikes, and heals what it struck. ``away_s`` sums the seconds for which the script kept a node from working, over nodes."""

    site: Fleet
    chance: random.Random
    struck: dict[str, int] = field(default_factory=dict)
    away_s: float = 0.0
    kills: int = 0
    _healing: list[tuple[float, int, str, Callable[[], None]]] = field(default_factory=list)

    def strike(self, kind: str) -> None:
        """One fault, on a node that nothing else has happened to lately."""
        busy = {name for _, _, name, _ in self._healing}
        name = self.chance.choice([node for node in self.site.nodes if node not in busy] or list(self.site.nodes))
        self.struck[kind] = self.struck.get(kind, 0) + 1
        self.kills += kind in ("kill_worker", "kill_node", "kill_daemon", "damage")
        getattr(self, f"_{kind}")(self.site.nodes[name])

    def heal(self, *, all_of_it: bool = False) -> None:
        """Do what is due."""
        while self._healing and (all_of_it or self._healing[0][0] <= time.monotonic()):
            heapq.heappop(self._healing)[3]()

    def _later(self, node: NodeProcess, seconds: float, then: Callable[[], None], *, away: bool = True) -> None:
        self.away_s += seconds if away else 0.0
        heapq.heappush(self._healing, (time.monotonic() + seconds, sum(self.struck.values()), node.name, then))

    def _workers(self, node: NodeProcess) -> list[psutil.Process]:
        return fleet.family(node.process)[1:]

    def _kill_worker(self, node: NodeProcess) -> None:
        for process in self._workers(node):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _kill_node(self, node: NodeProcess) -> None:
        node.process.kill()
        self._later(node, self.chance.uniform(0.1, 1.0), node.process.start)  # as a service manager does

    def _kill_daemon(self, _: NodeProcess) -> None:
        self.site.daemon.kill()
        self.site.serve()

    def _stop(self, node: NodeProcess) -> None:
        self._signal(node, signal.SIGSTOP)
        self._later(node, self.chance.uniform(1.0, 5.0), lambda: self._signal(node, signal.SIGCONT))

    def _signal(self, node: NodeProcess, number: int) -> None:
        for process in fleet.family(node.process):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def _opt_out(self, node: NodeProcess) -> None:
        node.choose(opted_in=False)
        self._later(node, self.chance.uniform(1.0, 5.0), lambda: node.choose(opted_in=True))

    def _cut(self, node: NodeProcess) -> None:
        proxy = self.site.proxies[node.name]
        proxy.cut()
        self._later(node, self.chance.uniform(1.0, 8.0), proxy.mend, away=False)  # it works on meanwhile

    def _damage(self, node: NodeProcess) -> None:
        """A byte of the newest continuation changes on the disk, and then it is needed."""
        saved = sorted(node.home.work.glob("unit-*/*.safetensors"), key=lambda file: file.stat().st_mtime)
        for file in saved[-1:]:
            with suppress(OSError):
                data = bytearray(file.read_bytes())
                data[len(data) // 2] ^= 1
                file.write_bytes(data)
        self._kill_worker(node)


def run(seconds: float, plan: list[tuple[float, str]], *, cpu_share: float, seed: int) -> dict[str, Any]:
    """``seconds`` of work under ``plan``, from the moment when every node is at work; then a time to heal, and all that must hold."""
    jobs = [fleet.submission(rounds=ROUNDS, units=UNITS, passes=PASSES, seed=number) for number in range(JOBS)]
    with tempfile.TemporaryDirectory() as folder, Fleet(Path(folder) / "site") as site:
        site.join(*(f"n{number}" for number in range(NODES)), cpu_share=cpu_share, save_every="2s")
        for job in jobs:
            owner.submit(site.operator, job)
        site.wait("every node is at work", lambda: all(node.status().phase == "running" for node in site.nodes.values()))
        chaos = Chaos(site, random.Random(seed))
        began, began_s = time.monotonic(), time.time()
        before = fleet.accepted_steps(site, until_s=began_s)
        for at_s, kind in [*plan, (seconds, "")]:
            while time.monotonic() - began < at_s:
                chaos.heal()
                time.sleep(0.05)
            if kind:
                print(f"    {at_s:7.1f} s  {kind}", flush=True)
                chaos.strike(kind)
        ended_s = time.time()
        chaos.heal(all_of_it=True)
        done = fleet.accepted_steps(site, until_s=ended_s)
        _demand_progress(site, [job.spec.job_id for job in jobs])
        digests = [fleet.must_hold(site, job.spec.job_id) for job in jobs]
        return {
            "units": done[0] - before[0],
            "steps": done[1] - before[1],
            "seconds": ended_s - began_s,
            "digests": digests,
            "struck": chaos.struck,
            "kills": chaos.kills,
            "available": 1 - chaos.away_s / (NODES * seconds),
        }


def _demand_progress(site: Site, job_ids: list[str]) -> None:
    """After all has healed, every job comes to a further version, and every node is there again."""
    versions = [site.job(job_id)["version"] for job_id in job_ids]

    def go_on() -> bool:
        further = all(site.job(job_id)["version"] > version for job_id, version in zip(job_ids, versions, strict=True))
        return further and all(site.row(name)["present"] for name in site.nodes)

    site.wait("all jobs and nodes go on", go_on, within_s=_HEALED_S)
    for job_id in job_ids:
        with suppress(GridschedError):
            site.operator.post(f"/v1/jobs/{job_id}/cancel")


def compared(variant: str, options: argparse.Namespace) -> dict[str, Any]:
    """The quiet run and the struck one, of the same length."""
    seconds = 60 * options.minutes
    plan = script(options.faults, seconds, options.seed)
    quiet = run(seconds, [], cpu_share=VARIANTS[variant], seed=options.seed)
    print(f"{variant}, quiet: {quiet['units']} units, {quiet['steps'] / quiet['seconds']:.1f} steps a second", flush=True)
    struck = run(seconds, plan, cpu_share=VARIANTS[variant], seed=options.seed)
    kept = (struck["steps"] / struck["seconds"]) / (quiet["steps"] / quiet["seconds"])
    common = [min(len(a), len(b)) for a, b in zip(quiet["digests"], struck["digests"], strict=True)]
    same = all(a[:n] == b[:n] for a, b, n in zip(quiet["digests"], struck["digests"], common, strict=True))
    print(
        f"{variant}, {options.faults} faults ({struck['kills']} kills): {struck['units']} units, {kept:.1%} of the quiet run's work "
        f"where the script left {struck['available']:.1%} of node time; {'the same' if same else 'OTHER'} digests up to versions {common}",
        flush=True,
    )
    return {
        "variant": variant,
        "cpu_share": VARIANTS[variant],
        "kept": round(kept, 4),
        "available": round(struck["available"], 4),
        "kept_of_available": round(kept / struck["available"], 4),
        "same_digests": same,
        "common_versions": common,
        "quiet_units": quiet["units"],
        "units": struck["units"],
        "faults": struck["struck"],
        "kills": struck["kills"],
    }


def main() -> None:
    """Run each variant and print the verdict."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--faults", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    options = parser.parse_args()
    options.faults = options.faults or round(2 * options.minutes)
    runs = [compared(variant, options) for variant in options.variants]
    fleet.tell(
        "train_chaos",
        value=runs[0]["kept"],
        unit=f"of the quiet run's verified steps, {options.faults} faults in {options.minutes:g} minutes, {NODES} nodes",
        goal=GOAL,
        reached=runs[0]["kept"] >= GOAL and all(each["same_digests"] for each in runs),
        peers=PEERS,
        runs=runs,
    )


if __name__ == "__main__":
    main()
