"""A whole daemon on a real socket, with a clock that stands still: what a node, an operator and a stranger see from outside."""

import hashlib
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from gridsched.core.access import Role, secret_hash
from gridsched.core.job import JobSpec
from gridsched.core.lease import LIVE, Lease
from gridsched.core.method import Codec, Method
from gridsched.core.settings import Control, Settings, Site, StoreAddress, Web, ZoneTable
from gridsched.core.signal import Quality, Reading, SignalKind
from gridsched.core.work import UnitState, WorkUnit
from gridsched.daemon import Daemon
from gridsched.flow import admit, ingest
from gridsched.node.state import Home, Identity
from gridsched.testing import ManualClock
from gridsched.testing.simulation import POLICY
from gridsched.train.codec import encode
from gridsched.train.version import Version as Model
from gridsched.web.app import server
from tests.sim.conftest import fast_folder

ZONE = "de-lu"
PROGRAM, SAMPLES = "a" * 64, "b" * 64
SHAPE = (4, 3)
LIMITS = Web(port=0, max_body_bytes=4_000, max_blob_bytes=3_000_000)


class House:
    """The daemon, its address, and one token of each role (``viewer``, ``operator``, ``admin``)."""

    def __init__(self, folder: Path, web: Web) -> None:
        (folder / "policy.toml").write_text(POLICY, encoding="utf-8")
        (folder / "data").mkdir()
        self.clock = ManualClock()
        minute = timedelta(minutes=1)
        settings = Settings(
            folder=folder,
            site=Site(data=folder / "data"),
            store=StoreAddress(url=f"sqlite:///{folder / 'data' / 'site.sqlite'}"),
            web=web,
            control=Control(every=minute, sync_every=minute, lease_ttl=4 * minute, absent_after=3 * minute, start_jitter=0 * minute),
            zones=(ZoneTable(name=ZONE, policy=folder / "policy.toml"),),
        )
        self.daemon = Daemon(settings, clock=self.clock)
        self.daemon.start()
        for role in (Role.VIEWER, Role.OPERATOR, Role.ADMIN):
            self.do(partial(admit.new_token, name=f"a-{role}", role=role, token_hash=secret_hash(role.value)))
        self._session = requests.Session()
        self._session.trust_env = False
        self._begin()

    def _begin(self) -> None:
        ready = threading.Event()
        self._server = server(self.daemon.app, self.daemon.settings.web, ready=ready.set)
        self._thread = threading.Thread(target=self._server.run, name="web")
        self._thread.start()
        assert ready.wait(10), "the server did not come up"
        self.port: int = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._session.close()
        self._end()

    def _end(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self.daemon.close()

    def start_again(self) -> None:
        """A second daemon over the same site, at another address."""
        self._end()
        self.daemon = Daemon(self.daemon.settings, clock=self.clock)
        self.daemon.start()
        self._begin()

    # -- from outside

    def call(self, method: str, path: str, *, token: str = "", **how: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers.update(how.pop("headers", {}))
        return self._session.request(method, self.url + path, headers=headers, timeout=10, **how)

    def get(self, path: str, *, token: str = "viewer", **how: Any) -> Any:
        answer = self.call("GET", path, token=token, **how)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: object = None, *, token: str = "operator") -> requests.Response:
        return self.call("POST", path, token=token, json={} if body is None else body)

    def join(self, node_id: str = "pc") -> str:
        """Invite and enrol a node over the wire, say hello, and opt in; its token."""
        code = self.post("/v1/invites", {"zone": ZONE}).json()["code"]
        told = {"code": code, "node_id": node_id, "device": "pc", "power_w": 100.0, "memory_bytes": 10**9, "runtime": "r", "meter": "m"}
        answer = self.call("POST", "/v1/join", json=told)
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["token"]
        assert self.post("/v1/node/hello", {"instance": "one", "runtime": "torch-x"}, token=token).status_code == 200
        assert self.post("/v1/node/consent", {"opted_in": True}, token=token).status_code == 200
        return token

    # -- from inside

    def do(self, verb: Any) -> Any:
        return self.daemon.writer.submit(verb).result(10)

    def job(self, job_id: str = "j", *, passes: int = 1) -> None:
        """A job with a real first version; nobody looks at its program and samples here. A unit has 8 steps a pass."""
        initial = Model(tensors={"w": np.zeros(SHAPE, np.float32)}).to_bytes()
        method = Method(epochs=1, batch_size=8, samples_per_unit=64, units_per_round=2, passes=passes)
        spec = JobSpec(
            job_id=job_id, name=job_id, program=PROGRAM, dataset=SAMPLES, samples=128, test_dataset=None, test_samples=0,
            initial=self.daemon.blobs.put(initial), seed=1, method=method, zone=ZONE,
        )  # fmt: skip
        self.do(partial(admit.submit, spec=spec, initial_bytes=len(initial)))

    def surplus(self, watts: float) -> None:
        now = self.clock.now()
        end = now + timedelta(minutes=15)
        reading = Reading(
            zone=ZONE, signal=SignalKind.SURPLUS, start=now, end=end, value=watts, quality=Quality.MEASURED, source="meter", known_at=now
        )
        self.do(partial(ingest.store, readings=[reading], source="meter"))

    def tick(self) -> None:
        self.daemon.control(ZONE)

    def lease(self, node_id: str = "pc") -> Lease:
        with self.daemon.store.read() as tx:
            (found,) = tx.find(Lease, node_id=node_id, state=LIVE)
        return found

    def accepted(self) -> list[str]:
        """Units whose updates were taken."""
        with self.daemon.store.read() as tx:
            return [unit.unit_id for unit in tx.find(WorkUnit, state=UnitState.ACCEPTED)]

    def working(self, node_id: str = "pc") -> str:
        """A node that holds an active lease; its token."""
        token = self.join(node_id)
        self.job()
        self.surplus(1000.0)
        self.tick()
        lease = self.lease(node_id)
        report = {"lease_id": lease.lease_id, "generation": lease.generation, "state": "running", "step": 1, "steps_executed": 1}
        meter = {"register_j": 0.0, "age_s": 0.0, "power_w": 50.0, "method": "estimated"}
        answer = self.post("/v1/node/sync", {"instance": "one", "lease": report, "meter": meter}, token=token)
        assert answer.status_code == 200, answer.text
        return token

    def finish(self, token: str, delta: object, *, node_id: str = "pc", digests: Sequence[tuple[int, str]] = ()) -> requests.Response:
        """Upload an update (an array, or bytes as they are) and hand the unit in."""
        lease = self.lease(node_id)
        data = delta if isinstance(delta, bytes) else encode({"w": np.asarray(delta)}, Codec.RAW)
        digest = hashlib.sha256(data).hexdigest()
        assert self.call("PUT", f"/v1/blobs/{digest}", token=token, data=data).status_code == 204
        notice = {"instance": "one", "lease_id": lease.lease_id, "generation": lease.generation, "steps_executed": 8, "update": digest}
        return self.post("/v1/node/update", notice | {"metrics": {"loss": 1.0}, "digests": list(digests)}, token=token)


def build(web: Web) -> Iterator[House]:
    folder = fast_folder()
    house = House(folder, web)
    yield house
    house.close()
    shutil.rmtree(folder)


def worked_home(house: House, folder: Path) -> Home:
    """The home of a node that has handed a unit in."""
    token = house.working("pc")
    house.finish(token, np.full(SHAPE, 1e-3, np.float32))
    home = Home(folder)
    home.make()
    home.set_identity(Identity(url=house.url, node_id="pc", token=token, zone=ZONE, power_w=100.0, runtime="r", clock_speed=1.0))
    return home


@contextmanager
def fresh_house(web: Web = LIMITS) -> Iterator[House]:
    """A house of its own for one test, closed also where that fails."""
    making = build(web)
    try:
        yield next(making)
    finally:
        next(making, None)


@pytest.fixture
def house() -> Iterator[House]:
    """An empty house with small limits."""
    yield from build(LIMITS)


@pytest.fixture
def slow_house() -> Iterator[House]:
    """A house that hears each token once a second, with two calls saved up."""
    yield from build(replace(LIMITS, calls_per_s=1.0))
