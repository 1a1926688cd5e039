"""``gridsched audit``: an honest unit is right to the bit, a tampered one is found out, and what cannot be judged says why."""

import hashlib
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from gridsched import auditor
from gridsched.auditor import Outcome, audit
from gridsched.cli import app
from gridsched.core.errors import OutOfMemory
from gridsched.core.method import Codec, Method
from gridsched.core.settings import Web
from gridsched.core.work import UnitSpec, UnitState
from gridsched.flow import admit
from gridsched.flow.case import Case
from gridsched.sites import make_site
from gridsched.train import codec
from gridsched.train.dataset import Dataset, DatasetManifest
from gridsched.train.unit import Outcome as Done
from gridsched.train.unit import run
from gridsched.train.version import read_version
from gridsched.train.wasm_runtime import WasmRuntime, hardware_class
from tests.train.builders import hard_net
from tests.web.builders import INNER, job_of
from tests.web.conftest import House

METHOD = Method(epochs=1, batch_size=2, samples_per_unit=64, units_per_round=1, inner=replace(INNER, lr=0.01))
UNIT = "j.r0.u0"


class Node(House):
    """A house with one wasm node, which holds the lease of the job's first unit."""

    def begin(self, method: Method = METHOD) -> None:
        self.do(partial(admit.submit, spec=job_of(self, method=method), initial_bytes=1))
        self.token = self.join()
        assert self.post("/v1/node/hello", {"instance": "one", "runtime": hardware_class()}, token=self.token).status_code == 200
        self.surplus(1000.0)
        self.tick()
        orders = self.post("/v1/node/sync", {"instance": "one"}, token=self.token).json()
        self.spec = msgspec.convert(orders["order"]["unit"], UnitSpec)

    def compute(self, **changes: Any) -> Done:
        blobs, (program, tensors) = self.daemon.blobs, hard_net()
        samples = Dataset(DatasetManifest.from_bytes(blobs.get(self.spec.dataset)), blobs.verified)
        base = read_version(blobs.path(self.spec.base)).tensors
        return run(replace(self.spec, **changes), WasmRuntime(program, tensors), samples, base)

    def hand_in(self, done: Done, *, times: float = 1.0, digests: bool = True) -> None:
        """Upload what was done, ``times`` over, and say how it came about."""
        altered = {name: (array * times).astype(array.dtype) for name, array in done.delta.items()}
        buffers = read_version(self.daemon.blobs.path(self.spec.base)).buffers
        data = codec.encode_update(altered if times != 1 else done.delta, self.spec, buffers=buffers)
        digest, lease = hashlib.sha256(data).hexdigest(), self.lease()
        assert self.call("PUT", f"/v1/blobs/{digest}", token=self.token, data=data).status_code == 204
        trail = [[(index + 1) * self.spec.digest_every, name] for index, name in enumerate(done.digests)] if digests else []
        notice = {"instance": "one", "lease_id": lease.lease_id, "generation": lease.generation, "steps_executed": self.spec.steps}
        told = notice | {"update": digest, "metrics": {"loss": 1.0}, "digests": trail}
        answer = self.post("/v1/node/update", told, token=self.token)
        assert answer.status_code == 200, answer.text
        assert self.accepted() == [UNIT], answer.text

    def audited(self, *words: str) -> Result:
        return CliRunner().invoke(app, ["audit", UNIT, "--url", self.url, "--token", "viewer", *words])

    def case(self) -> Case:
        return msgspec.convert(self.get(f"/v1/units/{UNIT}"), Case)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path, Web(port=0))
    yield made
    made.close()


def test_an_honest_unit_is_right_bit_for_bit_at_its_daemon_and_from_the_sites_files(house: Node, tmp_path: Path) -> None:
    house.begin()
    house.hand_in(house.compute())
    found = house.audited()
    assert found.exit_code == 0, found.output
    assert f"{UNIT} is right: the same update and 1 digests along the way, bit for bit ({hardware_class()})" in found.output
    site = tmp_path / "site"
    make_site(site)
    shutil.copytree(tmp_path / "data", site / "data", dirs_exist_ok=True)
    (site / "data" / "site.sqlite").rename(site / "data" / "gridsched.sqlite")
    for extra in ("-wal", "-shm"):
        if (site / "data" / f"site.sqlite{extra}").exists():
            (site / "data" / f"site.sqlite{extra}").rename(site / "data" / f"gridsched.sqlite{extra}")
    elsewhere = {"GRIDSCHED_URL": "http://127.0.0.1:9", "GRIDSCHED_TOKEN": "viewer"}  # a site that is named needs no daemon all the same
    offline = CliRunner().invoke(app, ["audit", UNIT, "--site", str(site)], env=elsewhere)
    assert offline.exit_code == 0, offline.output
    assert "bit for bit" in offline.output


def test_an_honest_unit_whose_update_is_rounded_and_its_statistics_are_not_is_right_bit_for_bit(house: Node) -> None:
    house.begin(replace(METHOD, codec=Codec.INT8))
    assert house.spec.exact_buffers
    house.hand_in(house.compute())
    found = house.audited()
    assert found.exit_code == 0, found.output


def test_an_update_that_was_altered_after_honest_training_is_found_out(house: Node) -> None:
    house.begin()
    house.hand_in(house.compute(), times=1.001)
    found = house.audited()
    assert found.exit_code == 1, found.output
    assert "DIFFERS: its 1 digests along the way are right and its result is not" in found.output


def test_other_training_is_found_out_at_its_first_digest(house: Node) -> None:
    house.begin()
    house.hand_in(house.compute(seed=2))
    found = house.audited()
    assert found.exit_code == 1, found.output
    assert "DIFFERS: its parameters differ first between steps 1 and 20: accepted" in found.output


def test_a_wrong_result_without_digests_is_found_out_all_the_same(house: Node) -> None:
    house.begin()
    house.hand_in(house.compute(seed=2), digests=False)
    assert "DIFFERS: its result is another" in house.audited().output


def test_where_files_are_gone_nobody_can_say_and_the_reason_is_told(house: Node) -> None:
    house.begin()
    house.hand_in(house.compute())
    house.daemon.blobs.path(house.spec.base).unlink()
    found = house.audited()
    assert found.exit_code == 2, found.output
    assert "cannot be judged here: it cannot be computed again" in found.output


@pytest.mark.parametrize(
    ("unit", "token", "says"),
    [("j.r9.u9", "viewer", "there is no unit j.r9.u9"), (UNIT, "nobody", "this token is not valid here")],
    ids=["unknown unit", "wrong token"],
)
def test_where_the_daemon_gives_no_unit_nothing_is_said_to_differ(house: Node, unit: str, token: str, says: str) -> None:
    found = CliRunner().invoke(app, ["audit", unit, "--url", house.url, "--token", token])
    assert found.exit_code == 2, found.output
    assert says in found.output


def test_where_no_daemon_answers_nothing_is_said_to_differ() -> None:
    with socket.socket() as taken:  # bound, and listening to nobody
        taken.bind(("127.0.0.1", 0))
        found = CliRunner().invoke(app, ["audit", UNIT, "--url", f"http://127.0.0.1:{taken.getsockname()[1]}", "--token", "viewer"])
    assert found.exit_code == 2, found.output
    assert "does not answer" in found.output


def test_a_site_that_is_none_and_a_daemon_of_another_release_are_no_word_on_the_unit(
    house: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = CliRunner().invoke(app, ["audit", UNIT, "--site", str(tmp_path / "nowhere")])
    assert found.exit_code == 2, found.output
    monkeypatch.setattr("gridsched.remote.Operator.get", lambda *_: {"unit": UNIT})
    other = house.audited()
    assert other.exit_code == 2, other.output
    assert "use the daemon's release here" in other.output


def test_a_unit_that_does_not_fit_into_this_machine_cannot_be_judged_here(house: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    house.begin()
    house.hand_in(house.compute())

    def full(*_: object) -> float:
        raise OutOfMemory("the step needs 5 GiB and this machine has 4")

    monkeypatch.setattr(WasmRuntime, "train_step", full)
    found = house.audited()
    assert found.exit_code == 2, found.output
    assert "it cannot be computed again: the step needs 5 GiB" in found.output


def test_a_unit_that_is_not_accepted_or_whose_data_stayed_at_home_is_not_computed(house: Node) -> None:
    house.begin()
    assert "so there is no accepted result" in house.audited().output
    case = replace(house.case(), state=UnitState.ACCEPTED, spec=replace(house.spec, local="steps"))
    assert (found := audit(case, house.daemon.blobs.verified)).outcome is Outcome.CANNOT
    assert "never left its node" in found.detail


@pytest.mark.parametrize(
    ("classes", "runtime", "says"),
    [
        (("wasm-00000000",), "", "drift apart"),  # other kernels: another class
        ((), "wasm", "a class that is not known any more"),
        (("torch-x",), "wasm", "draws other random numbers"),
        ((hardware_class(), "torch-x"), "wasm", "draws other random numbers"),
    ],
)
def test_another_class_is_held_to_no_bits(house: Node, classes: tuple[str, ...], runtime: str, says: str) -> None:
    house.begin()
    house.hand_in(house.compute())
    found = audit(replace(house.case(), classes=classes), house.daemon.blobs.verified, runtime=runtime)
    assert found.outcome is Outcome.CANNOT
    assert says in found.detail


@pytest.mark.parametrize(("times", "outcome"), [(1.0001, Outcome.SAME), (1.01, Outcome.DIFFERS)])
def test_a_short_unit_of_another_class_is_compared_but_for_rounding(house: Node, times: float, outcome: Outcome) -> None:
    house.begin(replace(METHOD, samples_per_unit=30))
    house.hand_in(house.compute(), times=times)
    found = audit(replace(house.case(), classes=("wasm-00000000",)), house.daemon.blobs.verified)
    assert found.outcome is outcome, found.detail


def test_torch_is_compared_by_torch_with_the_threads_of_its_class() -> None:
    assert auditor._threads(("torch-2.13.0-x86_64-avx2-cpu-4t",)) == 4
    assert auditor._threads(("wasm-0123abcd",)) == 1
    assert auditor._threads(("torch-2.13.0-cuda12.6-t4",)) == 1
    assert auditor._threads(()) == 1


def test_a_trail_that_no_unit_of_that_length_has_is_not_kept(house: Node) -> None:
    house.begin()
    done = house.compute()
    house.hand_in(replace(done, digests=("nonsense", *done.digests)))
    assert house.case().digests == ()
    assert np.isfinite(done.metrics.loss)
    assert house.audited().exit_code == 0
