"""The training child, run in this process over real pipes with the real runtime: pause, resume, drop, full disk, orphan."""

import hashlib
import os
import queue
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path

import pytest
from torch import Tensor

from gridsched.core.errors import StorageFull
from gridsched.core.method import Codec, InnerOptimizer
from gridsched.core.work import UnitKind, UnitSpec
from gridsched.node.mailbox import Mailbox
from gridsched.node.pipe import Done, Drop, Event, Failed, Fetched, Gate, Lost, Need, Order, Progress, Train, Wake, event, line
from gridsched.node.saver import Saver
from gridsched.node.state import Home
from gridsched.node.worker import Worker
from gridsched.train.checkpoint import latest_file, load_continuation, save_continuation
from gridsched.train.codec import decode
from gridsched.train.tensors import Array, version_digest
from gridsched.train.torch_runtime import TorchRuntime, hardware_class
from gridsched.train.unit import Continuation, Metrics
from gridsched.train.version import initial_version
from tests.node.builders import peaceful_update, unit
from tests.node.fake_daemon import FakeDaemon
from tests.train.builders import exported_example, samples


class Child:
    """A worker in a thread. Before each step it asks for leave, so that a test stops it exactly where it wants."""

    def __init__(self, home: Home, save: Callable[[Path, Continuation], Path] = save_continuation) -> None:
        self.home = home
        self.said: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.steps: list[int] = []
        self.at_step: dict[int, Callable[[], None]] = {}
        self.gate = Gate(home.gate, owner=True)
        source, sink = os.pipe()
        self._source, self._sink = os.fdopen(source, "rb"), os.fdopen(sink, "wb", buffering=0)
        self._mailbox = Mailbox(self._source)
        self._mailbox.start()
        child = self

        self.at_forward: Callable[[], None] = lambda: None

        class Watched(TorchRuntime):
            def _inputs(self, batch: Mapping[str, Array]) -> list[Tensor]:
                child.at_forward()
                return super()._inputs(batch)

            def train_step(self, batch: object, seed: int) -> float:
                loss = super().train_step(batch, seed)  # type: ignore[arg-type]
                child.steps.append(seed)
                child.at_step.pop(len(child.steps), lambda: None)()
                return loss

        worker = Worker(home, self.gate, self._mailbox, self.said.put, Watched, save=save)
        self._thread = threading.Thread(target=worker.work)
        self._thread.start()

    def tell(self, message: Order) -> None:
        self._sink.write(line(message))

    def train(self, spec: UnitSpec, run: int = 1, **options: object) -> None:
        self.gate.let()
        self.tell(Train(run=run, unit=spec, save_every_s=1e9, **options))  # type: ignore[arg-type]

    def hear(self, what: Callable[[Event], bool]) -> Event:
        while True:
            event = self.said.get(timeout=20)
            if what(event):
                return event

    def paused(self) -> Progress:
        found = self.hear(lambda event: isinstance(event, Progress) and event.paused)
        assert isinstance(found, Progress)
        return found

    def done(self) -> Done:
        found = self.hear(lambda event: isinstance(event, Done | Failed))
        assert isinstance(found, Done), found
        return found

    def failed(self) -> Failed:
        found = self.hear(lambda event: isinstance(event, Done | Failed))
        assert isinstance(found, Failed), found
        return found

    def cut(self) -> None:
        """The agent's end is gone, and the worker has seen it."""
        self._sink.close()
        self._mailbox.join()

    def orphan(self) -> None:
        self._sink.close()
        self._thread.join(timeout=20)
        assert not self._thread.is_alive()

    def close(self) -> None:
        if not self._sink.closed:
            self.orphan()
        self._thread.join(timeout=20)
        self._mailbox.join()
        self._source.close()
        self.gate.__exit__(None, None, None)


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon()  # only its blobs are used


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.make()
    made.blobs.mkdir()
    return made


@pytest.fixture
def spec(daemon: FakeDaemon, home: Home) -> UnitSpec:
    made = unit(daemon)
    for digest, data in daemon.blobs.items():
        (home.blobs / digest).write_bytes(data)
    return made


@pytest.fixture
def child(home: Home) -> Iterator[Child]:
    made = Child(home)
    yield made
    made.close()


def test_an_undisturbed_unit_gives_its_update_and_audit_points(child: Child, spec: UnitSpec) -> None:
    child.train(spec)
    done = child.done()
    assert done.update is not None
    assert child.home.update_path(done.update).read_bytes() == peaceful_update(spec)
    assert [step for step, _ in done.digests] == [5]
    assert done.executed == 7
    assert done.metrics["samples"] == 14


def test_a_unit_that_diverged_ends_in_a_line_that_the_agent_can_read(child: Child, spec: UnitSpec) -> None:
    child.train(replace(spec, inner=InnerOptimizer(lr=1e30)))
    done = child.done()
    assert event(line(done)) == done
    assert done.metrics == {"samples": 14.0}, "of a loss that is NaN there is no word"


def test_the_running_statistics_of_a_rounded_update_are_not_rounded(child: Child, spec: UnitSpec) -> None:
    child.train(replace(spec, codec=Codec.INT8, exact_buffers=True))
    update = child.done().update
    assert update is not None
    sent, made = decode(child.home.update_path(update).read_bytes()), decode(peaceful_update(spec))
    exact = {name for name, array in made.items() if sent[name].tobytes() == array.tobytes()}
    assert exact >= {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert not exact & {"conv.weight", "out.weight"}


@pytest.mark.parametrize("step", range(1, 7))
def test_a_pause_comes_within_one_step_and_changes_no_bit(child: Child, spec: UnitSpec, step: int) -> None:
    child.at_step[step] = child.gate.shut
    child.train(spec)
    paused = child.paused()
    assert (paused.step, paused.saved_step) == (step, step)
    child.gate.let()
    child.tell(Wake())
    done = child.done()
    assert done.update is not None
    assert child.home.update_path(done.update).read_bytes() == peaceful_update(spec)
    assert len(child.steps) == 7, "no step was run twice"


def test_an_orphan_saves_and_another_child_goes_on_to_the_same_bits(child: Child, home: Home, spec: UnitSpec) -> None:
    child.at_step[3] = child.gate.shut
    child.train(spec)
    child.paused()
    child.at_step[5] = child.cut
    child.gate.let()
    child.tell(Wake())
    child._thread.join(timeout=20)
    found = latest_file(home.middles(spec.unit_id, hardware_class()))
    assert found is not None
    assert found[0] == 5
    heir = Child(home)
    heir.train(spec)
    done = heir.done()
    assert done.update is not None
    assert home.update_path(done.update).read_bytes() == peaceful_update(spec)
    assert done.executed == 7 - found[0]
    heir.close()


def test_the_daemons_continuation_is_used_where_it_is_further_than_ones_own(
    child: Child, home: Home, spec: UnitSpec, tmp_path: Path
) -> None:
    child.at_step[4] = child.gate.shut
    child.train(spec)
    child.paused()
    child.tell(Drop(run=1))
    found = latest_file(home.middles(spec.unit_id, hardware_class()))
    assert found is not None
    digest = found[1].stem.split("-")[1]
    found[1].replace(home.blobs / digest)
    child.train(spec, run=2, continuation=digest, continuation_step=4)
    assert child.done().executed == 3


def test_a_damaged_continuation_costs_steps_but_not_the_unit(child: Child, home: Home, spec: UnitSpec) -> None:
    child.at_step[4] = child.gate.shut
    child.train(spec)
    child.paused()
    child.tell(Drop(run=1))
    found = latest_file(home.middles(spec.unit_id, hardware_class()))
    assert found is not None
    found[1].write_bytes(found[1].read_bytes()[:-7])
    child.train(spec, run=2)
    done = child.done()
    assert done.executed == 7
    assert done.update is not None
    assert home.update_path(done.update).read_bytes() == peaceful_update(spec)


@pytest.mark.parametrize("left", [5, 7], ids=["from its own middle", "from the beginning"])
@pytest.mark.parametrize("lack", ["lost", "no continuation", "of another shape", "without its optimizer"])
def test_a_continuation_that_nobody_has_or_can_use_costs_steps_but_not_the_unit(
    child: Child, home: Home, spec: UnitSpec, lack: str, left: int
) -> None:
    child.at_step[2] = child.gate.shut
    child.train(spec)
    child.paused()
    child.tell(Drop(run=1))
    mine = load_continuation(home.middles(spec.unit_id, hardware_class()))
    assert mine is not None
    further = replace(mine, step=4)
    data = {
        "lost": b"never stored",
        "no continuation": b"MZ" * 100,
        "of another shape": replace(further, tensors={name: array.reshape(-1)[:1] for name, array in mine.tensors.items()}).to_bytes(),
        "without its optimizer": replace(
            further, tensors={name: array + 1 for name, array in mine.tensors.items() if name.startswith("model/")}
        ).to_bytes(),
    }[lack]
    digest = hashlib.sha256(data).hexdigest()
    if lack != "lost":
        (home.blobs / digest).write_bytes(data)
    if left == 7:
        home.forget(spec.unit_id)
    child.train(spec, run=2, continuation=digest, continuation_step=4)
    if lack == "lost":
        child.hear(lambda event: isinstance(event, Need))
        child.tell(Lost(digest=digest, why="NotFound: there is no such blob"))
    done = child.done()
    assert done.executed == left
    assert done.update is not None
    assert home.update_path(done.update).read_bytes() == peaceful_update(spec)


def test_a_version_that_nobody_has_any_more_refuses_the_unit_by_its_name(child: Child, home: Home, spec: UnitSpec) -> None:
    (home.blobs / spec.base).unlink()
    child.train(spec)
    child.hear(lambda event: isinstance(event, Need))
    child.tell(Lost(digest=spec.base, why="NotFound: there is no such blob"))
    assert child.failed().detail == (f"NotFound: unit {spec.unit_id}: blob {spec.base[:12]} cannot be had: NotFound: there is no such blob")


def test_a_dropped_run_ends_without_a_word_and_the_next_begins_warm(child: Child, spec: UnitSpec) -> None:
    child.at_step[2] = child.gate.shut
    child.train(spec)
    child.paused()
    child.tell(Drop(run=1))
    other = replace(spec, unit_id="job.r0.u1", start=14, stop=28)
    child.train(other, run=2)
    assert child.done().run == 2


def test_what_is_missing_is_asked_for_and_waited_for(child: Child, home: Home, spec: UnitSpec, daemon: FakeDaemon) -> None:
    for file in home.blobs.iterdir():
        file.unlink()
    child.train(spec)
    asked = []
    while True:
        event = child.hear(lambda event: isinstance(event, Need | Done))
        if isinstance(event, Done):
            break
        assert isinstance(event, Need)
        asked.append(event.digest)
        (home.blobs / event.digest).write_bytes(daemon.blobs[event.digest])
        child.tell(Fetched(digest=event.digest))
    assert asked[:2] == [spec.program, spec.dataset]


def test_a_blob_that_rotted_on_disk_is_fetched_anew(child: Child, home: Home, spec: UnitSpec, daemon: FakeDaemon) -> None:
    (home.blobs / spec.base).write_bytes(b"rot")
    child.train(spec)
    need = child.hear(lambda event: isinstance(event, Need))
    assert isinstance(need, Need)
    assert need.digest == spec.base
    (home.blobs / spec.base).write_bytes(daemon.blobs[spec.base])
    child.tell(Fetched(digest=spec.base))
    assert child.done().executed == 7


def test_a_full_disk_is_told_and_nothing_is_lost(home: Home, spec: UnitSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    full = [True]

    def save(folder: Path, saved: Continuation) -> Path:
        if full[0]:
            raise StorageFull("no room to write the continuation")
        return save_continuation(folder, saved)

    monkeypatch.setattr("gridsched.node.worker._RETRY_S", 0.01)
    child = Child(home, save)
    child.at_step[3] = child.gate.shut
    child.train(spec)
    stuck = child.paused()
    assert (stuck.saved_step, stuck.stuck) == (0, "no room to write the continuation")
    full[0] = False
    healed = child.hear(lambda event: isinstance(event, Progress) and not event.stuck)
    assert isinstance(healed, Progress)
    assert healed.saved_step == 3
    child.gate.let()
    child.tell(Wake())
    done = child.done()
    assert done.update is not None
    assert home.update_path(done.update).read_bytes() == peaceful_update(spec)
    child.close()


def test_a_unit_that_cannot_be_run_says_why(child: Child, spec: UnitSpec) -> None:
    child.train(replace(spec, stop=10_000))
    failed = child.hear(lambda event: isinstance(event, Failed))
    assert isinstance(failed, Failed)
    assert "10000" in failed.detail


def test_a_unit_over_the_owner_s_own_data_asks_nobody_for_it(child: Child, home: Home, spec: UnitSpec) -> None:
    own = home.local.add("steps", samples())
    for path in home.blobs.iterdir():
        if path.name not in (spec.program, spec.base):
            path.unlink()
    child.train(replace(spec, dataset=own.digest, local="steps"))
    assert child.done().update is not None
    assert child.said.empty()


def test_own_data_that_was_removed_or_changed_on_disk_refuses_the_unit_by_name(child: Child, home: Home, spec: UnitSpec) -> None:
    own = home.local.add("steps", samples())
    shard = next(path for path in (home.local.folder / "steps").iterdir() if path.name not in (own.digest, "dataset.json"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    child.train(replace(spec, dataset=own.digest, local="steps"))
    failed = child.hear(lambda event: isinstance(event, Failed))
    assert "has changed since data 'steps' was added" in failed.detail  # type: ignore[union-attr]
    home.local.remove("steps")
    child.train(replace(spec, dataset=own.digest, local="steps"), run=2)
    failed = child.hear(lambda event: isinstance(event, Failed) and event.run == 2)
    assert "data 'steps' is not on this node any more" in failed.detail  # type: ignore[union-attr]


def test_a_shard_of_own_data_that_has_gone_is_named_and_asked_of_nobody(child: Child, home: Home, spec: UnitSpec) -> None:
    own = home.local.add("steps", samples())
    shard = next(path for path in (home.local.folder / "steps").iterdir() if path.name not in (own.digest, "dataset.json"))
    shard.unlink()
    child.train(replace(spec, dataset=own.digest, local="steps"))
    said = child.hear(lambda event: isinstance(event, Failed | Need))
    assert isinstance(said, Failed), said
    assert said.detail.startswith("DatasetError")
    assert f"file {shard.name[:12]} of data 'steps' is not on this node any more; add it again" in said.detail


def test_own_data_is_read_only_by_a_unit_that_names_it(child: Child, home: Home, spec: UnitSpec) -> None:
    own = home.local.add("steps", samples())
    child.train(replace(spec, dataset=own.digest))
    need = child.hear(lambda event: isinstance(event, Need | Done))
    assert isinstance(need, Need), need
    assert need.digest == own.digest


def test_a_child_at_rest_says_so_again_and_again(child: Child, spec: UnitSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridsched.node.worker._SAY_AGAIN_S", 0.01)
    child.at_step[3] = child.gate.shut
    child.train(spec)
    first, again = child.paused(), child.paused()
    assert (first.step, again.step, again.saved_step) == (3, 3, 3)


def test_an_evaluation_brings_its_figures_and_no_update(child: Child, spec: UnitSpec) -> None:
    child.train(replace(spec, unit_id="job.e0", kind=UnitKind.EVALUATE))
    done = child.done()
    assert done.update is None
    assert done.metrics.keys() >= {"loss", "samples"}
    assert done.metrics["samples"] == 14


def test_another_units_continuation_is_passed_over(child: Child, home: Home, spec: UnitSpec) -> None:
    child.at_step[4] = child.gate.shut
    child.train(spec)
    child.paused()
    child.tell(Drop(run=1))
    mine = replace(spec, unit_id="job.r0.u1")
    home.unit_folder(spec.unit_id).rename(home.unit_folder(mine.unit_id))
    child.train(mine, run=2)
    assert child.done().executed == 7


def test_a_middle_from_before_another_release_is_passed_over(child: Child, home: Home, spec: UnitSpec) -> None:
    child.at_step[4] = child.gate.shut
    child.train(spec)
    child.paused()
    child.tell(Drop(run=1))
    mine = home.middles(spec.unit_id, hardware_class())
    found = load_continuation(mine)
    assert found is not None
    old = replace(found, step=5, hardware_class="torch-0.0.0")
    theirs = [save_continuation(home.middles(spec.unit_id, "torch-0.0.0"), replace(old, step=step)) for step in (5, 6)]
    save_continuation(home.unit_folder(spec.unit_id), old)  # where a release before this put it
    shutil.rmtree(mine)
    child.at_step[4 + 2] = child.gate.shut
    child.train(spec, run=2)
    assert child.paused().saved_step == 2
    assert latest_file(mine) is not None, "what it saves itself is kept, though it is not as far"
    child.gate.let()
    child.tell(Wake())
    done = child.done()
    assert all(path.exists() for path in theirs)
    assert done.executed == 7
    assert done.update is not None
    assert home.update_path(done.update).read_bytes() == peaceful_update(spec)


def test_a_disk_that_fills_up_while_training_goes_on_stops_nothing(home: Home, spec: UnitSpec) -> None:
    tried = threading.Event()

    def full(folder: Path, saved: Continuation) -> Path:
        tried.set()
        raise StorageFull("no room to write the continuation")

    child = Child(home, full)
    child.at_step[6] = lambda: None if tried.wait(20) else pytest.fail("never saved")
    child.gate.let()
    child.tell(Train(run=1, unit=spec, save_every_s=0.0))
    done = child.done()
    assert done.update is not None
    assert home.update_path(done.update).read_bytes() == peaceful_update(spec)
    child.close()


def test_a_version_of_another_model_is_refused_by_the_name_of_what_is_wrong(child: Child, home: Home, spec: UnitSpec) -> None:
    program, tensors = exported_example("tabular_mlp")
    other = initial_version(program, tensors).to_bytes()
    (home.blobs / version_digest(other)).write_bytes(other)
    child.train(replace(spec, base=version_digest(other)))
    failed = child.failed()
    assert failed.detail.startswith(f"ProgramError: unit {spec.unit_id}: the version lacks 'conv.weight'")


def test_a_blob_that_is_no_version_is_refused_and_the_child_lives(child: Child, spec: UnitSpec) -> None:
    child.train(replace(spec, base=spec.dataset))
    assert "InvalidInput" in child.failed().detail
    child.train(spec, run=2)
    assert child.done().executed == 7


def test_an_operator_that_this_torch_lacks_is_named(child: Child, home: Home, spec: UnitSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridsched.train.torch_runtime.torch.ops.aten.batch_norm", None)
    child.train(spec)
    assert "UnsupportedOperator" in (detail := child.failed().detail)
    assert "no operator aten.batch_norm.default" in detail


def test_lack_of_memory_costs_the_unit_but_not_the_child(child: Child, spec: UnitSpec) -> None:
    def lacking() -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 17592186044416 bytes")

    child.at_forward = lacking
    child.train(spec)
    assert child.failed().detail.startswith(f"OutOfMemory: unit {spec.unit_id}: a training step on 2 samples needs more memory")
    child.at_forward = lambda: None
    child.train(spec, run=2)
    done = child.done()
    assert done.update is not None
    assert child.home.update_path(done.update).read_bytes() == peaceful_update(spec)


# The hand that saves.


@pytest.mark.parametrize(("copy_s", "write_s"), [(0.2, 0.0), (0.0, 0.2), (0.1, 0.1)])
def test_a_large_models_continuations_take_at_most_a_percent_of_the_time(tmp_path: Path, copy_s: float, write_s: float) -> None:
    now, worked = [0.0], [0.0]
    made: list[float] = []

    def make() -> Continuation:
        made.append(now[0])
        now[0] += copy_s
        return Continuation(unit_id="u1", step=len(made), hardware_class="none", tensors={}, metrics=Metrics())

    def save(folder: Path, saved: Continuation) -> Path:
        worked[0] += write_s
        return folder

    saver = Saver(tmp_path, save, every_s=1.0, monotonic=lambda: now[0], effort=lambda: worked[0])
    for _ in range(1000):
        now[0] += 0.1
        saver.offer(make)
        saver.settle()
    assert made[0] == pytest.approx(1.0, abs=0.11)
    assert [after - before for before, after in pairwise(made)] == pytest.approx([20.2] * 4, abs=0.25)
    assert saver.step == len(made)


def test_nothing_is_copied_while_the_last_one_is_still_being_written(tmp_path: Path) -> None:
    go_on, made = threading.Event(), []

    def slow(folder: Path, saved: Continuation) -> Path:
        assert go_on.wait(20)
        return folder

    def make() -> Continuation:
        made.append(1)
        return Continuation(unit_id="u1", step=1, hardware_class="none", tensors={}, metrics=Metrics())

    saver = Saver(tmp_path, slow, every_s=0.0, monotonic=count().__next__)
    for _ in range(300):
        saver.offer(make)
    assert len(made) == 1
    go_on.set()
    saver.settle()
