"""A whole site and its nodes in one thread of time: real verbs, store, blobs, merges and ledger; only training and the network are played.

A simulated unit's update is a pure function of (base version, range, seed), like a real one, so the digest of the last version
shows whether anything was lost, doubled or merged out of place.
"""

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from gridsched.core.access import secret_hash
from gridsched.core.errors import Conflict, GridschedError, LeaseLost
from gridsched.core.facts import Fact
from gridsched.core.job import Job, JobSpec, JobState
from gridsched.core.lease import LIVE, Lease
from gridsched.core.method import Method
from gridsched.core.round import Version
from gridsched.core.settings import Control, Settings, Site, StoreAddress, Trust, ZoneTable
from gridsched.core.signal import Quality, Reading, SignalKind
from gridsched.core.work import UnitKind, UnitSpec, UnitState, WorkUnit
from gridsched.daemon import Daemon
from gridsched.flow import admit, collect, ingest
from gridsched.ports import Reply, Tx
from gridsched.testing.clock import ManualClock
from gridsched.testing.executor import InlineExecutor
from gridsched.testing.faults import FaultPlan
from gridsched.testing.node import Lie, SimulatedNode
from gridsched.train.codec import encode
from gridsched.train.version import Version as Model
from gridsched.train.version import read_version
from gridsched.wire import ConsentChoice, HandOver, Hello, Join, Orders, Sync, UpdateNotice

__all__ = ["POLICY", "Simulation"]

T = TypeVar("T")
ZONE = "de-lu"

POLICY = """
zone = "de-lu"

[when]
any = [{ signal = "surplus", above = 1, stop = 0 }]

[draw]
share_of_surplus = 1.0
max_watts = 1000

[reward]
per_kwh_eur = 0.25
per_unit_eur = 0.001

[stale_after]
surplus = "20m"
"""


class Simulation:
    """A site in ``folder`` with a clock of its own. `tick` moves time on; `run` until a job has ended."""

    def __init__(
        self,
        folder: Path,
        *,
        faults: FaultPlan | None = None,
        step: timedelta = timedelta(minutes=1),
        store_url: str | None = None,
        policy: str = POLICY,
        control: Control | None = None,
        trust: Trust | None = None,
        on_facts: Callable[[Sequence[Fact]], None] | None = None,
    ) -> None:
        self.clock = ManualClock()
        self.faults = faults or FaultPlan()
        self.step = step
        self.nodes: list[SimulatedNode] = []
        self.calls = 0
        self.restarts = 0
        self.facts: list[Fact] = []
        self._listen = on_facts
        policy_file = folder / "policy.toml"
        folder.mkdir(parents=True, exist_ok=True)
        policy_file.write_text(policy, encoding="utf-8")
        self.settings = Settings(
            folder=folder,
            site=Site(data=folder / "data"),
            store=StoreAddress(url=store_url or f"sqlite:///{folder / 'data' / 'site.sqlite'}"),
            control=control or Control(every=step, sync_every=step, lease_ttl=step * 4, absent_after=step * 3, start_jitter=timedelta(0)),
            trust=trust or Trust(audits=False),
            zones=(ZoneTable(name=ZONE, policy=policy_file),),
        )
        (folder / "data").mkdir(exist_ok=True)
        (folder / "data" / "audit.secret").write_text("the same draws in every run", encoding="utf-8")
        self._open()

    def _open(self) -> None:
        self.heavy = InlineExecutor()
        self.daemon = Daemon(self.settings, clock=self.clock, executor=self.heavy)
        after = self.daemon.writer.on_commit

        def committed(facts: Sequence[Fact]) -> None:
            self.facts += facts
            after(facts)
            if self._listen:
                self._listen(facts)

        self.daemon.writer.on_commit = committed
        self.daemon.start()
        self._sync = partial(collect.sync_many, rules=self.daemon.rules)

    # -- building

    def add_node(
        self,
        node_id: str,
        *,
        power_w: float,
        steps_per_s: float,
        opt_in: bool = True,
        runtime: str = "torch-sim",
        lie: Lie | None = None,
    ) -> SimulatedNode:
        """Invite, join, and opt in. ``lie`` makes what the node returns from what it honestly would."""
        code = f"code-{node_id}"
        self.call(partial(admit.new_invite, zone=ZONE, code_hash=secret_hash(code), valid_for=timedelta(hours=1)))
        join = Join(
            code=code,
            node_id=node_id,
            device="pc",
            power_w=power_w,
            memory_bytes=10**9,
            runtime=runtime,
            meter="estimate",
        )
        self.call(partial(admit.join, message=join, token=f"token-{node_id}", rules=self.daemon.rules))
        node = SimulatedNode(node_id=node_id, power_w=power_w, steps_per_s=steps_per_s, code=code, runtime=runtime, lie=lie)
        self.nodes.append(node)
        if opt_in:
            self.call(partial(collect.choose, node_id=node_id, message=ConsentChoice(opted_in=True), rules=self.daemon.rules))
        return node

    def add_job(
        self, *, samples: int = 512, test_samples: int = 64, seed: int = 1, job_id: str = "sim", method: Method | None = None, **wishes: Any
    ) -> JobSpec:
        """A job over a tiny played model; ``wishes`` are its owner's, as in `JobSpec`."""
        rng = np.random.default_rng(seed)
        model = Model(tensors={"w": rng.normal(size=(7, 3)).astype(np.float32), "b": np.zeros(3, np.float32)}).to_bytes()
        blobs = self.daemon.blobs
        spec = JobSpec(
            job_id=job_id,
            name=job_id,
            program=blobs.put(b"program"),
            dataset=blobs.put(b"dataset"),
            samples=samples,
            test_dataset=blobs.put(b"test") if test_samples else None,
            test_samples=test_samples,
            initial=blobs.put(model),
            seed=seed,
            method=method or Method(epochs=2, batch_size=8, samples_per_unit=64, units_per_round=4),
            zone=ZONE,
            **wishes,
        )
        self.call(partial(admit.submit, spec=spec, initial_bytes=len(model)))
        return spec

    def signal(self, kind: SignalKind, value: float, *, minutes: float = 15.0) -> None:
        """A measured value for the next ``minutes``."""
        now = self.clock.now()
        reading = Reading(
            zone=ZONE,
            signal=kind,
            start=now,
            end=now + timedelta(minutes=minutes),
            value=value,
            quality=Quality.MEASURED,
            source="sim",
            known_at=now,
        )
        self.call(partial(ingest.store, readings=[reading], source="sim"))

    def publish(
        self, kind: SignalKind, values: Sequence[float], *, start: datetime, slot: timedelta = timedelta(hours=1), source: str = "sim"
    ) -> None:
        """Values for slots one after another from ``start``, learned now, as a provider publishes a day."""
        now = self.clock.now()
        readings = [
            Reading(
                zone=ZONE,
                signal=kind,
                start=start + number * slot,
                end=start + (number + 1) * slot,
                value=value,
                quality=Quality.MEASURED,
                source=source,
                known_at=now,
            )
            for number, value in enumerate(values)
        ]
        self.call(partial(ingest.store, readings=readings, source=source))

    # -- time

    def call(self, verb: Callable[[Tx, datetime], Sequence[Fact] | Reply[T]]) -> T:
        """One verb through the real writer; a `kill_daemon` fault strikes before it."""
        self._maybe_die()
        return self.daemon.writer.submit(verb).result()

    def _maybe_die(self) -> None:
        self.calls += 1
        if self.faults.fires("kill_daemon", call=self.calls):
            self.daemon.writer.close()
            self.daemon.store.close()
            self.restarts += 1
            self._open()

    def tick(self) -> None:
        """One step of time: nodes work and sync, the timetable's tasks run, heavy work is done."""
        now = self.clock.advance(self.step)
        for node in self.nodes:
            self._node(node, now)
        for task in self.daemon.timetable():
            if task.name.startswith(("plan", "control", "drain", "sweep", "merge")):
                self._maybe_die()
                self._due(task.name)()
        self.heavy.run_all()

    def _due(self, name: str) -> Callable[[], None]:
        """The task as the daemon of this moment has it: the one before may just have died."""
        return next(task.call for task in self.daemon.timetable() if task.name == name)

    def run(
        self, job_id: str = "sim", *, ticks: int, surplus_w: Callable[[datetime], float], each: Callable[[], None] | None = None
    ) -> int:
        """Tick until the job has ended, at most ``ticks`` times; how many it took. ``each`` runs after every tick."""
        for number in range(1, ticks + 1):
            self.run_once(surplus_w(self.clock.now()))
            if each:
                each()
            if self.ended(job_id):
                return number
        raise AssertionError(f"job {job_id} has not ended after {ticks} ticks; {self.progress(job_id)}")

    def run_once(self, surplus_w: float) -> None:
        """One tick with that surplus."""
        self.signal(SignalKind.SURPLUS, surplus_w, minutes=self.step.total_seconds() / 60 + 1)
        self.tick()

    def ended(self, job_id: str) -> bool:
        """Whether the job is done."""
        with self.daemon.store.read() as tx:
            return tx.must(Job, job_id).state is not JobState.RUNNING

    def progress(self, job_id: str) -> str:
        """One line for a failure message."""
        with self.daemon.store.read() as tx:
            units = tx.find(WorkUnit, job_id=job_id, state=(UnitState.OPEN, UnitState.LEASED))
            return f"waiting {[(u.unit_id, u.state.value) for u in units]}, leases {tx.find(Lease, state=LIVE)}"

    def final_digest(self, job_id: str = "sim") -> str:
        """The digest of the job's newest version."""
        with self.daemon.store.read() as tx:
            return tx.find(Version, job_id=job_id, order="-number", limit=1)[0].digest

    def close(self) -> None:
        """Stop the daemon."""
        self.daemon.close()

    # -- one node

    def _node(self, node: SimulatedNode, now: datetime) -> None:
        if node.down_until is not None:
            if now < node.down_until:
                return
            node.down_until = None
        node.work(now)
        if self._stricken(node, now):
            return
        if not node.instance:
            node.starts += 1
            node.instance = f"{node.node_id}-{node.starts}"
            hello = Hello(instance=node.instance, runtime=node.runtime)
            self._obey(
                node, self._send(node, "hello", partial(collect.hello, node_id=node.node_id, message=hello, rules=self.daemon.rules))
            )
            return
        if node.unit is not None and int(node.step) >= node.unit.steps:
            self._finish(node)
            return
        if self.faults.fires("drop", node=node.node_id, message="sync"):
            return
        self._maybe_die()
        sync = Sync(instance=node.instance, lease=node.report(), meter=node.meter())
        self._obey(node, self.daemon.writer.submit_many(self._sync, (node.node_id, sync)).result())

    def _stricken(self, node: SimulatedNode, now: datetime) -> bool:
        number = node.unit.version if node.unit else None
        seen = {"node": node.node_id, "step": int(node.step) if node.unit else None, "round": number}
        if node.unit and self.faults.fires("crash", **seen):
            node.crash(until=now + self.step * 2)
            return True
        if node.unit and self.faults.fires("opt_out", **seen):
            node.out_until = now + self.step * 3
            self._choose(node, opted_in=False)
            return True
        if node.out_until is not None and now >= node.out_until:
            node.out_until = None
            self._choose(node, opted_in=True)
        return False

    def _choose(self, node: SimulatedNode, *, opted_in: bool) -> None:
        choice = ConsentChoice(opted_in=opted_in)
        self._obey(node, self.call(partial(collect.choose, node_id=node.node_id, message=choice, rules=self.daemon.rules)))

    def _send(self, node: SimulatedNode, message: str, verb: Callable[[Tx, datetime], Reply[Orders]]) -> Orders | None:
        """The answer, or None where the message or its answer was lost, or the lease has moved on."""
        if self.faults.fires("drop", node=node.node_id, message=message):
            return None
        try:
            answer = self.call(verb)
        except LeaseLost:
            node.lease, node.unit, node.running = None, None, False
            return None
        except (Conflict, GridschedError):
            return None
        return None if self.faults.fires("lose_answer", node=node.node_id, message=message) else answer

    def _obey(self, node: SimulatedNode, orders: Orders | None) -> None:
        if orders is None:
            return
        order = orders.order
        if order is None:
            node.lease, node.unit, node.running = None, None, False
            return
        if (order.lease_id, order.generation) != node.lease:
            start = max(node.disk.get(order.unit.unit_id, 0), order.continuation_step)
            node.lease, node.unit, node.step = (order.lease_id, order.generation), order.unit, float(start)
            node.executed = node.effort.get(order.lease_id, 0)
        node.running = order.desired == "run"
        if not node.running:
            node.disk[order.unit.unit_id] = int(node.step)
        if order.desired == "hand_over":
            self._hand_over(node)

    def _hand_over(self, node: SimulatedNode) -> None:
        assert node.lease is not None
        assert node.unit is not None
        step = int(node.step)
        continuation = self.daemon.blobs.put(f"{node.unit.unit_id} {step}".encode())
        message = HandOver(
            instance=node.instance,
            lease_id=node.lease[0],
            generation=node.lease[1],
            continuation=continuation,
            step=step,
            steps_executed=node.executed,
            reason="opted_out",
            meter=node.meter(),
        )
        verb = partial(collect.hand_over, node_id=node.node_id, message=message, rules=self.daemon.rules)
        self._obey(node, self._send(node, "hand_over", verb))

    def _finish(self, node: SimulatedNode) -> None:
        assert node.lease is not None
        assert node.unit is not None
        update, metrics = self.train(node.unit, node.lie)
        message = UpdateNotice(
            instance=node.instance,
            lease_id=node.lease[0],
            generation=node.lease[1],
            update=update,
            steps_executed=node.executed,
            metrics=metrics,
            meter=node.meter(),
        )
        unit = self._unit(node.unit.unit_id)
        checked = self.daemon.merger.check(unit, update)
        verb = partial(collect.update, node_id=node.node_id, message=message, checked=checked, rules=self.daemon.rules)
        self._obey(node, self._send(node, "update", verb))

    def _unit(self, unit_id: str) -> WorkUnit:
        with self.daemon.store.read() as tx:
            return tx.must(WorkUnit, unit_id)

    def train(self, unit: UnitSpec, lie: Lie | None = None) -> tuple[str | None, dict[str, float]]:
        """The played unit: an update (or metrics) that depends on base, range and seed alone, unless the node has a ``lie``."""
        blobs = self.daemon.blobs
        base = read_version(blobs.path(unit.base)).tensors
        if unit.kind is UnitKind.EVALUATE:
            loss = float(np.abs(base["w"]).mean())
            metrics = {"loss": loss, "samples": float(unit.samples), "correct": float(unit.samples // 2)}
            return None, lie(unit, metrics) if lie is not None else metrics
        seed = hashlib.sha256(f"{unit.base} {unit.start} {unit.stop} {unit.epoch} {unit.seed}".encode()).digest()
        rng = np.random.default_rng(list(seed))
        delta = {name: (0.01 * rng.normal(size=array.shape)).astype(array.dtype) for name, array in base.items()}
        returned = lie(unit, delta) if lie is not None else delta
        return blobs.put(encode(returned, unit.codec)), {"loss": 1.0, "samples": float(unit.samples)}
