"""A house with a store and nothing else: verbs are called one by one, and the facts and rows they leave are looked at."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from gridsched.core.access import secret_hash
from gridsched.core.facts import Fact
from gridsched.core.fleet import Node
from gridsched.core.job import JobSpec
from gridsched.core.lease import LIVE, Lease
from gridsched.core.method import Method
from gridsched.core.policy import Decision, Policy
from gridsched.core.signal import Quality, Reading, SignalKind
from gridsched.flow import admit, assign, collect, decide
from gridsched.flow.rules import Rules
from gridsched.plugins import parse_policy
from gridsched.ports import Reply, Tx
from gridsched.store.sql import SqlStore
from gridsched.testing import ManualClock
from gridsched.testing.simulation import POLICY
from gridsched.wire import ConsentChoice, HandOver, Hello, Join, LeaseReport, MeterReport, Orders, Sync
from tests.sim.conftest import fast_folder

T = TypeVar("T")
A, B, C = "a" * 64, "b" * 64, "c" * 64


class House:
    """Verbs over a real SQLite store, one durable commit each."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.store = SqlStore(f"sqlite:///{folder / 'site.sqlite'}")
        self.store.upgrade()
        self.rules = Rules(start_jitter=timedelta(0))
        self.policy: Policy = parse_policy(POLICY, "test")

    def do(self, verb: Callable[[Tx, datetime], Sequence[Fact] | Reply[T]]) -> tuple[Any, list[Fact]]:
        """The verb's answer (None where it has none) and its facts, committed."""
        with self.store.write() as tx:
            result = verb(tx, self.clock.now())
        return (result.value, list(result.facts)) if isinstance(result, Reply) else (None, list(result))

    def rows(self, kind: type[T], /, **where: Any) -> list[T]:
        with self.store.read() as tx:
            return tx.find(kind, **where)

    def join(
        self, node_id: str = "pc", *, power_w: float = 100.0, runtime: str = "torch-x", memory: int = 10**9, opt_in: bool = True
    ) -> Node:
        self.do(partial(admit.new_invite, zone="de-lu", code_hash=secret_hash(f"c-{node_id}"), valid_for=timedelta(hours=1)))
        message = Join(
            code=f"c-{node_id}", node_id=node_id, device="pc", power_w=power_w, memory_bytes=memory, runtime=runtime, meter="estimate"
        )
        self.do(partial(admit.join, message=message, token=f"t-{node_id}", rules=self.rules))
        self.do(partial(collect.hello, node_id=node_id, message=Hello(instance="one", runtime=runtime), rules=self.rules))
        if opt_in:
            self.do(partial(collect.choose, node_id=node_id, message=ConsentChoice(opted_in=True), rules=self.rules))
        return self.rows(Node, node_id=node_id)[0]

    def job(self, job_id: str = "j", *, wasm_lacks: str = "", **changes: Any) -> JobSpec:
        values: dict[str, Any] = {
            "job_id": job_id,
            "name": job_id,
            "program": A,
            "dataset": B,
            "samples": 128,
            "test_dataset": C,
            "test_samples": 10,
            "initial": A,
            "seed": 1,
            "zone": "de-lu",
            "method": Method(epochs=1, batch_size=8, samples_per_unit=64, units_per_round=2),
        }
        spec = JobSpec(**values | changes)
        self.do(partial(admit.submit, spec=spec, initial_bytes=1, wasm_lacks=wasm_lacks))
        return spec

    def surplus(self, watts: float, *, minutes: float = 15) -> None:
        now = self.clock.now()
        reading = Reading(
            zone="de-lu",
            signal=SignalKind.SURPLUS,
            start=now,
            end=now + timedelta(minutes=minutes),
            value=watts,
            quality=Quality.MEASURED,
            source="t",
            known_at=now,
        )
        with self.store.write() as tx:
            tx.store_readings([reading])

    def tick(self) -> tuple[Decision, list[Fact]]:
        """Decide and assign, as the control tick does."""
        decision, facts = self.do(partial(decide.zone, policy=self.policy))
        _, more = self.do(partial(assign.tick, decision=decision, policy=self.policy, rules=self.rules))
        return decision, facts + more

    def sync(
        self,
        node_id: str = "pc",
        *,
        state: str = "running",
        step: int = 0,
        executed: int | None = None,
        register_j: float | None = None,
        instance: str = "one",
        device: str = "free",
        age_s: float = 0.0,
        reason: str = "",
    ) -> tuple[Orders, list[Fact]]:
        """One sync on whatever lease the node holds."""
        lease = self.lease(node_id)
        report = (
            LeaseReport(
                lease_id=lease.lease_id,
                generation=lease.generation,
                state=state,
                step=step,
                steps_executed=step if executed is None else executed,
                speed=1.0,
                reason=reason,
            )
            if lease
            else None
        )
        meter = None if register_j is None else MeterReport(register_j=register_j, age_s=age_s, power_w=50.0, method="estimated")
        message = Sync(instance=instance, device=device, lease=report, meter=meter)
        answers, facts = self.do(partial(collect.sync_many, items=[(node_id, message)], rules=self.rules))
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers[0], facts

    def lease(self, node_id: str = "pc") -> Lease | None:
        found = self.rows(Lease, node_id=node_id, state=LIVE)
        return found[0] if found else None

    def held(self, node_id: str = "pc") -> Lease:
        lease = self.lease(node_id)
        assert lease is not None, f"{node_id} holds no lease"
        return lease

    def working(self, node_id: str = "pc", *, watts: float = 1000.0) -> Lease:
        """Joined, offered, granted: a node at work."""
        self.join(node_id)
        self.surplus(watts)
        self.tick()
        self.sync(node_id, register_j=0.0)
        return self.held(node_id)

    def hand_over(self, node_id: str, continuation: str | None = C, *, step: int = 8) -> None:
        """The consumer opts out, and the node gives its unit back, perhaps with a middle."""
        lease = self.held(node_id)
        message = HandOver(
            instance="one",
            lease_id=lease.lease_id,
            generation=lease.generation,
            continuation=continuation,
            step=step,
            steps_executed=step,
            reason="opted_out",
        )
        self.do(partial(collect.choose, node_id=node_id, message=ConsentChoice(opted_in=False), rules=self.rules))
        self.do(partial(collect.hand_over, node_id=node_id, message=message, rules=self.rules))


@pytest.fixture
def house() -> Iterator[House]:
    """An empty house."""
    folder = fast_folder()
    made = House(folder)
    yield made
    made.store.close()
    shutil.rmtree(folder)


def of(facts: Sequence[Fact], kind: type[T]) -> list[T]:
    """The facts of one kind."""
    return [fact for fact in facts if isinstance(fact, kind)]
