"""The agent against a daemon over real sockets, with a child of straw and a clock moved by hand."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from gridsched import wire
from gridsched.clock import SystemClock
from gridsched.core.errors import Busy, DuplicateIdentity, GridschedError, LeaseLost, StorageFull, TooLarge, Unauthorized, UpdateRefused
from gridsched.core.fleet import DeviceState
from gridsched.core.work import UnitSpec
from gridsched.node.agent import Agent
from gridsched.node.client import Client
from gridsched.node.decide import Phase
from gridsched.node.files import write_durable
from gridsched.node.limits import DeviceSample
from gridsched.node.line import Lines
from gridsched.node.pipe import Done, Event, Failed, Need, Progress, Ready, Train
from gridsched.node.settings import NodeSettings, read_settings
from gridsched.node.start import Told, choose
from gridsched.node.state import Choice, Home, Status
from gridsched.ports import Register
from gridsched.train.checkpoint import save_numbered
from gridsched.train.torch_runtime import hardware_class
from tests.node.builders import joined, order, told, unit
from tests.node.fake_daemon import TOKEN, FakeDaemon, Fault

T = TypeVar("T")
NOON = datetime(2018, 5, 1, 12, tzinfo=UTC)


class Straw:
    """Stands for the training child: notes what it is told; the test says what it does."""

    def __init__(self, on_event: Callable[[Event], None], on_exit: Callable[[str], None]) -> None:
        self.say = on_event
        self.die_with = on_exit
        self.told: list[str] = []
        self.run = 0
        self.message: Train | None = None
        self.alive = False
        self.pid: int | None = None

    def train(self, message: Train) -> None:
        self.alive, self.run, self.message = True, message.run, message
        self.told.append("train")

    def let(self, share: float) -> None:
        self.told.append("let")

    def hold(self) -> None:
        self.told.append("hold")

    def drop(self, run: int) -> None:
        self.told.append("drop")

    def quit(self, *, within_s: float = 0.0) -> None:
        self.alive = False
        self.told.append("quit")

    def kill(self) -> None:
        self.die()

    def fetched(self, digest: str) -> None:
        self.told.append(f"fetched {digest[:6]}")

    def lost(self, digest: str, error: GridschedError) -> None:
        self.told.append(f"lost {digest[:6]}: {error}")

    def at(self, step: int, *, paused: bool = False, saved: int = 0, stuck: str = "") -> None:
        self.say(Progress(run=self.run, paused=paused, step=step, executed=step, saved_step=saved, worked_s=1.0, stuck=stuck))

    def die(self) -> None:
        self.alive = False
        self.die_with("killed by signal 9")


class InlineLine:
    """Asks at once, over a real socket; the answer waits in the inbox like any other."""

    def __init__(self, client: Client, deliver: Callable[[Callable[[], None]], None]) -> None:
        self._client, self._deliver = client, deliver

    def call(self, ask: Callable[[Client], T], then: Callable[[T], None], failed: Callable[[GridschedError], None]) -> None:
        try:
            answer = ask(self._client)
        except GridschedError as problem:
            error = problem
            self._deliver(lambda: failed(error))
        else:
            self._deliver(lambda: then(answer))

    def close(self) -> None:
        self._client.close()


class Idle:
    """A meter at rest."""

    def read(self) -> Register:
        return Register(energy_j=1.0, power_w=5.0, method="estimated")


class Bench:
    """An agent on its bench; ``turn`` moves the clock and lets it act until nothing more comes in."""

    def __init__(self, home: Home, daemon: FakeDaemon, settings: NodeSettings | None = None) -> None:
        self.home, self.daemon = home, daemon
        self.now_s = 1000.0
        self.sample = DeviceSample(free_disk_bytes=10**12)
        self._made: list[Straw] = []
        self.agent = Agent(
            home,
            home.identity(),
            settings or read_settings(home.settings),
            Idle(),
            lines=self._lines,
            trainer=self._trainer,  # type: ignore[arg-type]
            monotonic=lambda: self.now_s,
            sample=lambda _: self.sample,
        )
        self.straw = self._made[0]

    def _lines(self, deliver: Callable[[Callable[[], None]], None]) -> Lines:
        identity = self.home.identity()
        self.lines = [InlineLine(Client(identity.url, TOKEN), deliver) for _ in range(3)]
        return Lines(talk=self.lines[0], send=self.lines[1], fetch=self.lines[2])

    def _trainer(self, on_event: Callable[[Event], None], on_exit: Callable[[str], None]) -> Straw:
        self._made.append(Straw(on_event, on_exit))
        return self._made[-1]

    def turn(self, seconds: float = 0.0, times: int = 4) -> None:
        self.agent.drain()
        self.now_s += seconds
        for _ in range(times):
            self.now_s += 0.1
            self.agent.tick()
            self.agent.drain()

    @property
    def held(self) -> Any:
        return self.agent._held

    def phase(self) -> Phase:
        return self.held.phase if self.held is not None else Phase.NONE

    def finish(self, spec: UnitSpec, update: bytes = b"delta") -> str:
        digest = hashlib.sha256(update).hexdigest()
        write_durable(self.home.update_path(digest), update)
        self.straw.say(
            Done(run=self.straw.run, update=digest, executed=spec.steps, metrics={"loss": 0.5, "samples": 14.0}, digests=[(5, "d")])
        )
        return digest

    def close(self) -> None:
        for line in self.lines:
            line.close()


@pytest.fixture
def spec(daemon: FakeDaemon) -> UnitSpec:
    return unit(daemon)


@pytest.fixture
def bench(home: Home, daemon: FakeDaemon) -> Iterator[Bench]:
    made = Bench(home, daemon)
    yield made
    made.close()


@pytest.fixture
def working(bench: Bench, daemon: FakeDaemon, spec: UnitSpec) -> Bench:
    """At step 3 of a unit."""
    daemon.order = order(spec)
    bench.turn()
    assert bench.straw.told == ["train"]
    bench.straw.at(3)
    bench.turn()
    assert bench.phase() is Phase.RUNNING
    return bench


def test_it_greets_then_syncs_then_starts_what_is_ordered(working: Bench, daemon: FakeDaemon) -> None:
    assert [type(message) for message in daemon.heard[:2]] == [wire.Hello, wire.Sync]
    report = daemon.last_report()
    assert report is not None
    assert (report.state, report.step, report.steps_executed) == ("running", 3, 3)
    assert daemon.of(wire.Sync)[-1].meter is not None


def order_of(daemon: FakeDaemon) -> wire.Order:
    assert daemon.order is not None
    return daemon.order


def test_a_pushed_pause_is_obeyed_without_asking_the_daemon(working: Bench, daemon: FakeDaemon) -> None:
    daemon.order = told(order_of(daemon), desired="pause", reason="alarm")
    daemon.stop()
    working.agent.push(daemon.orders())
    working.turn(times=1)
    assert working.straw.told == ["train", "hold"]
    assert working.agent.reason == "alarm"
    daemon.start()


def test_a_delayed_start_waits(bench: Bench, daemon: FakeDaemon, spec: UnitSpec) -> None:
    daemon.order, daemon.sync_every_s = order(spec, wait_s=5.0), 1000.0
    bench.turn(times=20)
    assert bench.straw.told == []
    bench.turn(5.0)
    assert bench.straw.told == ["train"]


def test_what_a_unit_starts_from_is_fetched_while_its_start_is_waited_for(
    bench: Bench, daemon: FakeDaemon, spec: UnitSpec, home: Home
) -> None:
    daemon.order, daemon.sync_every_s = order(spec, wait_s=5.0), 1000.0
    bench.turn()
    assert (home.blobs / spec.base).read_bytes() == daemon.blobs[spec.base]
    assert bench.straw.told == [], "nobody has asked for it yet"


def test_that_a_unit_has_begun_is_told_with_its_end_where_that_comes_soon(bench: Bench, daemon: FakeDaemon, spec: UnitSpec) -> None:
    daemon.order, daemon.sync_every_s = order(spec), 1000.0
    bench.turn(times=2)
    syncs = len(daemon.of(wire.Sync))
    bench.straw.at(3)
    bench.finish(spec)
    bench.turn(times=1)
    assert len(daemon.of(wire.UpdateNotice)) == 1
    bench.turn(1.0)
    assert len(daemon.of(wire.Sync)) == syncs


def test_what_changes_while_a_report_is_under_way_is_told_with_the_next(working: Bench, daemon: FakeDaemon) -> None:
    daemon.sync_every_s = 1000.0
    working.turn(1.0)
    working.now_s += 1000.0
    working.agent.tick()  # says its sync; the answer waits in the inbox
    working.sample = DeviceSample(free_disk_bytes=10**12, on_battery=True)
    working.now_s += 2.0
    working.agent.tick()
    working.turn()
    assert daemon.of(wire.Sync)[-1].device == "on_battery"


def test_silence_pauses_at_the_end_of_the_leases_life_and_an_answer_ends_it(working: Bench, daemon: FakeDaemon) -> None:
    daemon.stop()
    working.turn(58.0)
    assert working.straw.told == ["train"], "it goes on while the lease lives"
    working.turn(2.0)
    assert working.straw.told == ["train", "hold"]
    assert working.agent.reason == "daemon_silent"
    working.straw.at(4, paused=True, saved=4)
    working.turn(500.0)
    assert working.phase() is Phase.PAUSED
    daemon.start()
    working.turn(20.0)
    assert working.straw.told == ["train", "hold", "let"]


def test_the_leases_life_is_counted_in_the_daemons_seconds(daemon: FakeDaemon, tmp_path: Path, spec: UnitSpec) -> None:
    daemon.clock_speed = 100.0
    daemon.order = order(spec, ttl_s=6000.0)
    bench = Bench(joined(tmp_path, daemon), daemon)
    bench.turn()
    bench.straw.at(1)
    daemon.stop()
    bench.turn(57.0)
    assert bench.straw.told == ["train"]
    bench.turn(3.0)
    assert bench.straw.told == ["train", "hold"]
    bench.close()
    daemon.start()


def test_paused_long_its_memory_is_freed_and_resuming_starts_anew(working: Bench, daemon: FakeDaemon) -> None:
    daemon.order = told(order_of(daemon), desired="pause", reason="no_surplus")
    working.turn(1.0)
    working.straw.at(4, paused=True, saved=4)
    working.turn(599.0)
    assert working.straw.told == ["train", "hold"]
    working.turn(2.0)
    assert working.straw.told == ["train", "hold", "quit"]
    daemon.order = told(order_of(daemon), desired="run")
    working.turn(1.0)
    assert working.straw.told[-1] == "train"
    working.straw.at(2)
    working.turn(1.0)
    report = daemon.last_report()
    assert report is not None
    assert report.steps_executed == 6, "steps of both runs count"


def test_opting_out_saves_then_tells_then_hands_over(working: Bench, daemon: FakeDaemon, home: Home, spec: UnitSpec) -> None:
    home.set_choice(Choice(opted_in=False, made_at=NOON))
    working.turn(times=1)
    working.turn(times=1)
    assert working.straw.told == ["train", "hold"]
    save_numbered(home.middles(spec.unit_id, hardware_class()), 4, b"the middle")
    working.straw.at(4, paused=True, saved=4)
    working.turn(1.0)
    handed = daemon.of(wire.HandOver)[0]
    assert (handed.step, handed.reason, handed.steps_executed) == (4, "opted_out", 4)
    assert handed.continuation is not None
    assert daemon.blobs[handed.continuation] == b"the middle"
    kinds = [type(message) for message in daemon.heard]
    assert kinds.index(wire.ConsentChoice) < kinds.index(wire.HandOver)
    assert working.phase() is Phase.NONE
    assert not home.unit_folder(spec.unit_id).exists()


def test_opting_out_works_while_the_daemon_is_away_and_is_told_later(
    working: Bench, daemon: FakeDaemon, home: Home, spec: UnitSpec
) -> None:
    daemon.stop()
    home.set_choice(Choice(opted_in=False, made_at=NOON))
    working.turn()
    assert working.straw.told == ["train", "hold"]
    save_numbered(home.middles(spec.unit_id, hardware_class()), 3, b"the middle")
    working.straw.at(3, paused=True, saved=3)
    working.turn(300.0)
    daemon.start()
    working.turn(20.0)
    working.turn(20.0)
    assert daemon.of(wire.ConsentChoice)[-1].opted_in is False
    assert daemon.of(wire.HandOver)[-1].step == 3


def test_a_choice_that_no_agent_acted_on_is_told_by_the_next_one(home: Home, daemon: FakeDaemon) -> None:
    home.set_choice(Choice(opted_in=True, for_s=7200.0, max_w=80.0, made_at=NOON))
    bench = Bench(home, daemon)
    bench.agent.contact._wall = SystemClock(wall=lambda: NOON)
    bench.turn()
    (told_of,) = daemon.of(wire.ConsentChoice)
    assert (told_of.opted_in, told_of.max_w) == (True, 80.0)
    assert told_of.for_s == pytest.approx(7200.0, abs=60.0)
    bench.close()
    again = Bench(home, daemon)
    again.turn()
    assert len(daemon.of(wire.ConsentChoice)) == 1
    again.close()


def test_without_an_agent_the_command_tells_the_daemon_itself_or_leaves_it_to_the_next(home: Home, daemon: FakeDaemon) -> None:
    choice = Choice(opted_in=True, made_at=NOON)
    assert choose(home, choice) is Told.DAEMON
    assert daemon.of(wire.ConsentChoice)[-1].opted_in
    daemon.stop()
    assert choose(home, replace(choice, opted_in=False, choice_id="later")) is Told.LATER
    found = home.choice()
    assert found is not None
    assert not found.opted_in
    assert home.sent_choice() != "later"
    daemon.start()


def test_a_finished_unit_is_handed_in_and_the_next_begins_in_the_same_child(
    working: Bench, daemon: FakeDaemon, spec: UnitSpec, home: Home
) -> None:
    daemon.next_orders = [order(replace(spec, unit_id="job.r0.u1"))]
    digest = working.finish(spec)
    working.turn(1.0)
    notice = daemon.of(wire.UpdateNotice)[0]
    assert (notice.update, notice.steps_executed, notice.digests) == (digest, 7, [(5, "d")])
    assert daemon.blobs[digest] == b"delta"
    assert [word for word in working.straw.told if word != "drop"] == ["train", "train"]
    assert list(home.outbox.iterdir()) == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault("/v1/node/update", "drop", times=2),
        Fault("/v1/node/update", Busy("full"), times=3),
        Fault("/v1/blobs/", "drop", times=2, method="PUT"),
        Fault("/v1/blobs/", "cut", method="PUT"),
        Fault("/v1/blobs/", StorageFull("quota"), times=2, method="PUT"),
        Fault("/v1/node/update", 302, times=2),
        Fault("/v1/node/update", 409, times=2),
        Fault("/v1/blobs/", 413, times=2, method="PUT"),
        Fault("/v1/node/update", TooLarge("over the limit"), times=4),
    ],
    ids=[
        "notice lost", "daemon busy", "upload lost", "upload cut", "quota full", "login page", "proxy", "proxy of small files",
        "no notice is small enough",
    ],
)  # fmt: skip
def test_a_finished_unit_survives_every_failure_on_its_way(working: Bench, daemon: FakeDaemon, spec: UnitSpec, fault: Fault) -> None:
    daemon.faults.append(fault)
    digest = working.finish(spec)
    for _ in range(8):
        working.turn(20.0)
    assert fault.times == 0
    assert [notice.update for notice in daemon.of(wire.UpdateNotice)] == [digest]


def test_too_long_a_notice_is_sent_again_without_its_digests(working: Bench, daemon: FakeDaemon, spec: UnitSpec) -> None:
    daemon.faults.append(Fault("/v1/node/update", TooLarge("over the limit")))
    digest = working.finish(spec)
    working.turn(1.0)
    assert [(notice.update, notice.digests) for notice in daemon.of(wire.UpdateNotice)] == [(digest, [])]


def test_a_finished_unit_survives_the_agent(working: Bench, daemon: FakeDaemon, spec: UnitSpec, home: Home) -> None:
    daemon.faults.append(Fault("/v1/blobs/", "drop", times=10**6, method="HEAD"))
    working.finish(spec)
    working.turn(1.0)
    daemon.faults.clear()
    heir = Bench(home, daemon)
    heir.turn(1.0)
    assert len(daemon.of(wire.UpdateNotice)) == 1
    assert "train" not in heir.straw.told, "a finished unit is not run again"
    heir.close()


@pytest.mark.parametrize("error", [LeaseLost("moved on"), UpdateRefused("NaN in w", reason="not_finite")])
def test_a_refused_update_is_dropped_and_work_goes_on(
    working: Bench, daemon: FakeDaemon, spec: UnitSpec, home: Home, error: GridschedError
) -> None:
    daemon.faults.append(Fault("/v1/node/update", error))
    working.finish(spec)
    working.turn(1.0)
    assert list(home.outbox.iterdir()) == []
    daemon.order = order(replace(spec, unit_id="job.r0.u1"), generation=1)
    working.turn(1.0)
    assert working.straw.told[-1] == "train"


def test_a_lease_taken_back_is_dropped_unsaved_and_its_last_words_are_told_before_the_next_unit(
    working: Bench, daemon: FakeDaemon, spec: UnitSpec
) -> None:
    working.straw.at(7)
    daemon.order = order(replace(spec, unit_id="job.r0.u1"), generation=1)
    working.agent.push(daemon.orders())
    working.turn(1.0)
    assert "hold" not in working.straw.told, "nothing is saved of what another has finished"
    assert working.straw.told[-2:] == ["drop", "train"]
    told_of = [sync.lease for sync in daemon.of(wire.Sync) if sync.lease is not None]
    parting = [report for report in told_of if report.lease_id == f"{spec.unit_id}.l1"][-1]
    assert parting.steps_executed == 7
    assert told_of[-1].lease_id != parting.lease_id


def test_a_push_that_was_overtaken_does_not_start_a_finished_unit_again(working: Bench, daemon: FakeDaemon, spec: UnitSpec) -> None:
    stale = daemon.orders()
    working.finish(spec)
    working.turn(1.0)
    daemon.sync_every_s = 1000.0
    working.agent.push(stale)
    working.turn(times=1)
    working.agent.tick()
    assert working.straw.told.count("train") == 1


def test_a_child_that_dies_is_begun_again_at_once_then_later_then_never(working: Bench, daemon: FakeDaemon) -> None:
    working.straw.die()
    working.turn()
    assert working.straw.told.count("train") == 2
    for _ in range(3):
        working.straw.die()
        working.turn(20.0)
    assert working.straw.told.count("train") == 5
    working.straw.die()
    working.turn(60.0)
    assert working.straw.told.count("train") == 5
    report = daemon.last_report()
    assert report is not None
    assert report.state == "refused"
    assert "signal 9" in report.reason


def test_progress_forgives_earlier_deaths(working: Bench) -> None:
    for step in range(4, 14):
        working.straw.die()
        working.turn(40.0)
        working.straw.at(step)
        working.turn()
    assert working.phase() is Phase.RUNNING


def test_a_child_that_dies_while_handing_over_costs_only_what_was_not_saved(
    working: Bench, daemon: FakeDaemon, home: Home, spec: UnitSpec
) -> None:
    save_numbered(home.middles(spec.unit_id, hardware_class()), 2, b"an earlier middle")
    daemon.order = told(order_of(daemon), desired="hand_over", reason="paused_too_long")
    working.turn()
    working.straw.die()
    working.turn(1.0)
    handed = daemon.of(wire.HandOver)[0]
    assert (handed.step, handed.reason) == (2, "paused_too_long")


def test_a_middle_of_another_hardware_class_is_not_handed_over_as_this_leases_work(
    bench: Bench, daemon: FakeDaemon, home: Home, spec: UnitSpec
) -> None:
    save_numbered(home.middles(spec.unit_id, "torch-0.0.0"), 5, b"before another release")
    save_numbered(home.unit_folder(spec.unit_id), 6, b"before this release")
    daemon.order = order(spec, desired="hand_over", reason="paused_too_long")
    bench.turn()
    (handed,) = daemon.of(wire.HandOver)
    assert (handed.step, handed.continuation) == (0, None)


def test_a_child_of_another_class_than_at_joining_hands_over_what_it_saved_itself(
    working: Bench, daemon: FakeDaemon, home: Home, spec: UnitSpec
) -> None:
    save_numbered(home.middles(spec.unit_id, hardware_class()), 5, b"as at joining")
    save_numbered(home.middles(spec.unit_id, "torch-9.9 x/y"), 4, b"the middle")
    working.straw.say(Ready(runtime="torch-9.9 x/y"))
    daemon.order = told(order_of(daemon), desired="hand_over", reason="paused_too_long")
    working.turn(1.0)
    working.straw.at(4, paused=True, saved=4)
    working.turn(1.0)
    (handed,) = daemon.of(wire.HandOver)
    assert handed.continuation is not None
    assert (handed.step, daemon.blobs[handed.continuation]) == (4, b"the middle")
    assert not home.unit_folder(spec.unit_id).exists()


def test_a_child_that_never_stops_is_ended(working: Bench, daemon: FakeDaemon) -> None:
    daemon.order = told(order_of(daemon), desired="hand_over")
    working.turn()
    working.turn(29.0)
    assert not daemon.of(wire.HandOver)
    working.turn(2.0)
    assert daemon.of(wire.HandOver)


def test_a_full_disk_pauses_and_is_told_until_there_is_room(working: Bench, daemon: FakeDaemon) -> None:
    working.straw.at(4, stuck="no room left")
    working.turn(1.0)
    assert working.straw.told == ["train", "hold"]
    assert daemon.of(wire.Sync)[-1].device == DeviceState.DISK_FULL
    working.straw.at(4, paused=True, saved=4)
    working.turn(1.0)
    assert daemon.of(wire.Sync)[-1].device == DeviceState.FREE
    assert working.straw.told == ["train", "hold", "let"]


@pytest.mark.parametrize("way", ["dropped", "finished", "failed", "died"])
def test_a_full_disk_is_forgotten_with_the_run_that_met_it(working: Bench, daemon: FakeDaemon, spec: UnitSpec, way: str) -> None:
    working.straw.at(4, paused=True, stuck="no room left")
    working.turn(1.0)
    assert daemon.of(wire.Sync)[-1].device == DeviceState.DISK_FULL
    if way == "dropped":
        daemon.order = None
    elif way == "finished":
        working.finish(spec)
    elif way == "failed":
        working.straw.say(Failed(run=working.straw.run, detail="DatasetError"))
    else:
        working.straw.die()
    working.turn(1.0)
    assert daemon.of(wire.Sync)[-1].device == DeviceState.FREE
    daemon.order = order(replace(spec, unit_id="job.r0.u1"))
    working.turn(1.0)
    assert working.phase() is Phase.STARTING


def test_a_middle_that_could_not_be_saved_stays_in_memory_however_long_the_disk_is_full(working: Bench) -> None:
    working.straw.at(4, stuck="no room left")
    working.turn()
    working.straw.at(4, paused=True, stuck="no room left")
    working.turn(9000.0)
    assert working.straw.told == ["train", "hold"]
    working.straw.at(4, paused=True, saved=4)
    working.turn(1.0)
    assert working.straw.told == ["train", "hold", "let"]


def test_a_child_that_rests_though_nobody_asked_it_to_is_let_go_on(working: Bench) -> None:
    working.straw.at(4, paused=True, saved=4)
    working.turn()
    assert working.straw.told == ["train", "let"]
    working.straw.at(5)
    working.turn()
    assert (working.straw.told, working.phase()) == (["train", "let"], Phase.RUNNING)


def test_an_outbox_on_a_full_disk_is_filled_once_there_is_room(daemon: FakeDaemon, home: Home, spec: UnitSpec) -> None:
    full = [False]

    def write(path: Path, data: bytes) -> None:
        if full[0]:
            raise StorageFull(f"no room left to write {path}")
        write_durable(path, data)

    daemon.order = order(spec)
    bench = Bench(Home(home.folder, write=write), daemon)
    bench.turn()
    full[0] = True
    bench.finish(spec)
    bench.turn(3.0)
    assert not daemon.of(wire.UpdateNotice)
    assert daemon.of(wire.Sync)[-1].device == DeviceState.DISK_FULL
    full[0] = False
    bench.turn(3.0)
    assert len(daemon.of(wire.UpdateNotice)) == 1
    bench.close()


def test_a_hot_device_pauses_and_the_daemon_hears_why(home: Home, daemon: FakeDaemon, spec: UnitSpec) -> None:
    home.settings.write_text(home.settings.read_text() + "max_temperature_c = 80\n")
    daemon.order = order(spec)
    bench = Bench(home, daemon)
    bench.turn()
    bench.straw.at(1)
    bench.sample = replace(bench.sample, temperature_c=91.0)
    bench.turn(3.0)
    assert bench.straw.told == ["train", "hold"]
    assert daemon.of(wire.Sync)[-1].device == "hot"
    bench.close()


@pytest.mark.parametrize("error", [DuplicateIdentity(), Unauthorized("this node is revoked; join again with a new code")])
def test_it_stops_for_good_where_going_on_makes_no_sense(working: Bench, daemon: FakeDaemon, error: GridschedError) -> None:
    daemon.faults.append(Fault("/v1/node/sync", error, times=10**6))
    working.turn(1.0)
    with pytest.raises(type(error), match=str(error)):
        working.agent.run()
    assert working.straw.told[-1] == "quit"


def test_two_agents_with_one_identity_elsewhere_end_as_one(working: Bench, daemon: FakeDaemon, tmp_path: Path) -> None:
    other = Bench(joined(tmp_path / "elsewhere", daemon), daemon)
    other.turn()
    working.turn(1.0)
    assert isinstance(working.agent.contact.fatal, DuplicateIdentity)
    assert other.agent.contact.fatal is None
    other.close()


def test_another_hardware_class_than_at_joining_is_told(working: Bench, daemon: FakeDaemon) -> None:
    working.straw.say(Ready(runtime="torch-9.9-x"))
    working.turn(1.0)
    assert [hello.runtime for hello in daemon.of(wire.Hello)][-1] == "torch-9.9-x"
    assert working.agent.contact.fatal is None


def hellos(daemon: FakeDaemon) -> list[wire.Hello]:
    return [message for message in daemon.heard if isinstance(message, wire.Hello)]


def test_the_owner_s_own_data_is_told_by_name_digest_and_count_as_it_changes(working: Bench, daemon: FakeDaemon, home: Home) -> None:
    assert hellos(daemon)[-1].data == {}
    added = home.local.add("steps", {"x": np.zeros((3, 2), np.float32)})
    working.turn()
    assert hellos(daemon)[-1].data == {"steps": added}
    home.local.remove("steps")
    working.turn()
    assert hellos(daemon)[-1].data == {}


def test_a_unit_that_needs_more_memory_than_is_free_is_refused_before_it_begins(bench: Bench, daemon: FakeDaemon, spec: UnitSpec) -> None:
    daemon.order = order(replace(spec, memory_bytes=10**15))
    bench.turn()
    assert "train" not in bench.straw.told
    report = daemon.last_report()
    assert report is not None
    assert (report.state, report.reason[:31]) == ("refused", "memory: the unit needs 10000000")


def test_a_blob_the_child_lacks_is_fetched_over_a_bad_line(working: Bench, daemon: FakeDaemon, spec: UnitSpec) -> None:
    daemon.faults += [Fault("/v1/blobs/", "cut"), Fault("/v1/blobs/", "drop")]
    working.straw.say(Need(digest=spec.base))
    for _ in range(3):
        working.turn(20.0)
    assert working.straw.told[-1] == f"fetched {spec.base[:6]}"


def test_the_child_is_told_which_blob_the_daemon_does_not_have_and_the_next_unit_begins(
    working: Bench, daemon: FakeDaemon, spec: UnitSpec
) -> None:
    gone = "0" * 64
    working.straw.say(Need(digest=gone))
    working.turn(1.0)
    assert working.straw.told == ["train", f"lost 000000: there is no /v1/blobs/{gone}"]
    working.straw.say(Failed(run=working.straw.run, detail="NotFound"))
    working.turn(1.0)
    report = daemon.last_report()
    assert report is not None
    assert (report.state, report.reason) == ("refused", "NotFound")
    daemon.order = order(replace(spec, unit_id="job.r0.u1"))
    working.turn(1.0)
    assert (working.straw.told[-1], working.phase()) == ("train", Phase.STARTING)
    working.straw.say(Need(digest=spec.dataset))
    working.turn(1.0)
    assert working.straw.told[-1] == f"fetched {spec.dataset[:6]}"


def test_a_newer_lease_on_the_same_unit_takes_over_its_work(working: Bench, daemon: FakeDaemon, spec: UnitSpec) -> None:
    daemon.order = order(spec, generation=2)
    working.turn(1.0)
    working.straw.at(5)
    working.turn(1.0)
    assert working.straw.told == ["train"]
    report = daemon.last_report()
    assert report is not None
    assert (report.generation, report.step, report.steps_executed) == (2, 5, 2)


def test_less_power_than_registered_is_asked_of_the_child_as_a_share(bench: Bench, daemon: FakeDaemon, spec: UnitSpec) -> None:
    daemon.order = order(spec, power_w=40.0)
    bench.turn()
    assert bench.straw.message is not None
    assert bench.straw.message.share == pytest.approx(0.4)


def test_leaving_hands_over_and_ends(working: Bench, daemon: FakeDaemon, home: Home, spec: UnitSpec) -> None:
    save_numbered(home.middles(spec.unit_id, hardware_class()), 3, b"the middle")
    working.agent.leave()
    working.turn()
    working.straw.at(3, paused=True, saved=3)
    working.turn(1.0)
    working.agent.run()
    assert daemon.of(wire.HandOver)[0].reason == "node_left"


def test_leaving_while_the_daemon_is_away_ends_soon_and_keeps_the_work(
    working: Bench, daemon: FakeDaemon, home: Home, spec: UnitSpec
) -> None:
    save_numbered(home.middles(spec.unit_id, hardware_class()), 3, b"the middle")
    daemon.stop()
    working.agent.leave()
    working.turn()
    working.straw.at(3, paused=True, saved=3)
    working.turn(6.0)
    working.agent.run()
    assert home.unit_folder(spec.unit_id).exists()
    daemon.start()


def test_the_status_file_says_what_it_does_and_why(working: Bench, daemon: FakeDaemon, home: Home) -> None:
    daemon.order = told(order_of(daemon), desired="pause", reason="no_surplus")
    working.turn(1.0)
    working.straw.at(4, paused=True, saved=4)
    working.turn(1.0)
    found = home.status()
    assert isinstance(found, Status)
    assert (found.phase, found.reason, found.step, found.steps, found.connected) == ("paused", "no_surplus", 4, 7, True)
    assert (found.earned_micro, found.energy_j > 0) == (1234, False)
