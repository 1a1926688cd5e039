"""The one place that wires: store, adapters, clock, timetable, web. It starts things and stops them.

The timetable is data, ``(name, every, call)``: `run` hands it to APScheduler, which is an alarm clock here and nothing
more, and a simulation walks through it without one. Fetch outside the transaction, decide inside it, push after the commit.
"""

import json
import logging
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from apscheduler.schedulers.background import BackgroundScheduler

from gridsched.clock import ScaledClock, SystemClock
from gridsched.core.access import secret_hash
from gridsched.core.errors import Busy, ConfigError, GridschedError
from gridsched.core.facts import (
    HELD,
    AgentReplaced,
    AuditOpened,
    Fact,
    JobSubmitted,
    NodeOptedIn,
    NodeOptedOut,
    RoundCutShort,
    UnitAccepted,
    UnitSkipped,
    WishesChanged,
    ZonePaused,
    ZoneResumed,
)
from gridsched.core.lease import Lease, LeaseState
from gridsched.core.policy import Policy
from gridsched.core.round import Epoch
from gridsched.core.settings import Settings
from gridsched.core.trust import Auditing
from gridsched.flow import admit, assign, audit, decide, retain
from gridsched.flow.copies import raises_doubt
from gridsched.flow.rules import Rules
from gridsched.merging import Merger
from gridsched.metrics import Metrics
from gridsched.planning import Planner
from gridsched.policy_book import PolicyBook
from gridsched.ports import Clock, Reply, Tx
from gridsched.screening import Screen
from gridsched.sites import audit_secret, operator_token
from gridsched.sources import Source, open_session, open_sources
from gridsched.store.blobs import FileBlobs
from gridsched.store.sql import SqlStore
from gridsched.store.writer import GroupWriter
from gridsched.train.checkpoint import write_durably
from gridsched.train.dataset import DatasetManifest
from gridsched.web.app import build, server
from gridsched.web.channel import Hub
from gridsched.web.doors import Doors

__all__ = ["Daemon", "Task", "open_clock"]

_log = logging.getLogger(__name__)
_SOON = timedelta(seconds=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """``call`` is due every ``every`` of the daemon's clock, or up to ``jitter`` later: so that sites do not ask in chorus."""

    name: str
    every: timedelta
    call: Callable[[], None]
    jitter: timedelta = timedelta(0)


class Daemon:
    """All parts of a site, wired and at rest; `start` wakes them, `run` serves until told to stop."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None, executor: Executor | None = None, dry_run: bool = False) -> None:
        """``dry_run``: decide and explain, and grant nothing."""
        self.settings = settings
        self.clock = clock or open_clock(settings)
        self.rules = _rules(settings, self.clock, dry_run=dry_run)
        self.metrics = Metrics()
        self.blobs = FileBlobs(settings.site.data / "blobs", quota_bytes=settings.blobs.quota_bytes, clock=self.clock)
        self.store = SqlStore(settings.store.url)
        self.writer = GroupWriter(self.store, self.clock, max_queue=settings.web.max_queue, on_commit=self._after_commit)
        self.executor = executor or ThreadPoolExecutor(max_workers=2, thread_name_prefix="heavy")
        screen = Screen(store=self.store, writer=self.writer, blobs=self.blobs, rules=self.rules) if self.rules.trust is not None else None
        self.merger = Merger(store=self.store, writer=self.writer, blobs=self.blobs, max_norm=self.rules.max_update_norm, screen=screen)
        self.planner = Planner(
            store=self.store, writer=self.writer, clock=self.clock, margin=2 * settings.control.every + self.rules.sync_every
        )
        self.policies = PolicyBook(settings)
        self._ends: dict[str, _End] = {}
        self._to_plan: set[str] = set()
        self.sources = open_sources(settings.adapters, site=settings.folder)
        self._stopping = threading.Event()
        self.http = open_session(settings, sleep=self._stopping.wait, now=self.clock.now)
        self._merging = threading.Lock()
        self._to_merge = threading.Event()
        self._doors = Doors(
            store=self.store,
            writer=self.writer,
            blobs=self.blobs,
            clock=self.clock,
            rules=self.rules,
            limits=settings.web,
            executor=self.executor,
            registry=self.metrics.registry,
            check_update=self.merger.check,
            policies=self.policies.by_zone,
            policy_files=self.policies,
        )
        self.channel = Hub(store=self.store, writer=self.writer, clock=self.clock, rules=self.rules)
        self.app = build(self._doors, self.channel)

    # -- life

    def start(self) -> None:
        """Bring the schema up to date, take up what was left, and come up idle: the first control tick decides afresh."""
        self.store.upgrade()
        self._do(partial(assign.restart, rules=self.rules))
        self._do(self._admit_operator)
        with self.store.read() as tx:
            self.metrics.recall(tx.find(Epoch), self.policies.by_zone.values())
        self.merge()

    def run(self, *, host: str | None = None, port: int | None = None, ready: Callable[[str], None]) -> None:
        """Serve until SIGTERM or SIGINT; ``ready`` is told the address once it answers."""
        self.start()
        web = self.settings.web
        listener = socket.create_server((host or web.host, web.port if port is None else port))
        address, number = listener.getsockname()[:2]
        url = f"{'https' if web.tls_cert else 'http'}://{address}:{number}"
        scheduler = self._schedule()
        try:
            server(self.app, web, ready=lambda: self._announce(url, ready)).run(sockets=[listener])
        finally:
            scheduler.shutdown(wait=False)
            self.close()

    def _announce(self, url: str, ready: Callable[[str], None]) -> None:
        """Leave the address where the command line on this machine looks for it."""
        (self.settings.site.data / "url").write_text(url + "\n", encoding="utf-8")
        ready(url)

    def _schedule(self) -> BackgroundScheduler:
        """The timetable, on an alarm clock of real seconds; each task has a thread, so that one that is slow delays none of the others."""
        tasks = self.timetable()
        scheduler = BackgroundScheduler(
            executors={"default": {"type": "threadpool", "max_workers": len(tasks)}},
            timezone="UTC",
            job_defaults={"max_instances": 1, "coalesce": True, "misfire_grace_time": None},
        )
        for task in tasks:
            seconds = max(task.every.total_seconds() / self.clock.speed, 0.05)
            jitter = task.jitter.total_seconds() / self.clock.speed
            scheduler.add_job(_guarded(task), "interval", seconds=seconds, jitter=jitter, id=task.name, next_run_time=SystemClock().now())
        scheduler.start()
        return scheduler

    def close(self) -> None:
        """Let what is under way finish, but wait for no provider; then stop everything."""
        self.http.close()
        self._stopping.set()
        self.executor.shutdown(wait=True, cancel_futures=True)
        self.writer.close()
        self.store.close()

    # -- what happens, and when

    def timetable(self) -> list[Task]:
        """Everything the daemon does of its own accord."""
        control = self.settings.control
        tasks = [
            Task(name=f"poll {source.name}", every=source.pace, call=partial(self.poll, source), jitter=source.pace / 10)
            for source in self.sources
        ]
        for zone in self.policies.by_zone:
            tasks.append(Task(name=f"plan {zone}", every=control.every, call=partial(self.plan, zone)))
            tasks.append(Task(name=f"control {zone}", every=control.every, call=partial(self.control, zone)))
            tasks.append(Task(name=f"drain {zone}", every=self._drain_pace, call=partial(self.drain, zone)))
        return [
            *tasks,
            Task(name="sweep", every=min(control.every, control.sync_every), call=self.sweep),
            Task(name="merge", every=control.every, call=self.merge),
            Task(name="tidy blobs", every=timedelta(hours=6), call=self.tidy),
        ]

    def poll(self, source: Source) -> None:
        """Ask one adapter, outside any transaction."""
        source.poll(self.http, self.writer, self.clock.now())

    def plan(self, zone: str) -> None:
        """Choose the hours of the zone's jobs with a deadline, where something has changed that they follow from."""
        self.planner.plan(self.policies.by_zone[zone])

    def control(self, zone: str) -> None:
        """One control tick: decide, then assign, in one transaction."""
        policy = self.policies.current(zone)
        self._ends[zone] = self.writer.submit(self._tick(policy)).result()

    def drain(self, zone: str) -> None:
        """One more control tick, shortly before a slot ends: where the next one allows less, its decision makes nodes stop in time.

        Most times there is nothing to do, and finding that out costs nothing.
        """
        end = self._ends.get(zone)
        if end is not None and end.at is not None and self.clock.now() >= end.at - end.lead - self._drain_pace:
            self.control(zone)
            self._ends[zone] = replace(self._ends[zone], at=None)  # what lies behind this end is for the next regular tick

    @property
    def _drain_pace(self) -> timedelta:
        """How often to look whether a slot is about to end: a part of the time that nodes may need to hear of it."""
        return self.rules.heard_within / 4

    def _tick(self, policy: Policy) -> Callable[[Tx, datetime], Reply["_End"]]:
        return partial(_control, policy=policy, rules=self.rules, connected=self.channel.present(), pace=self._drain_pace)

    def sweep(self) -> None:
        """Notice silent nodes, ended leases, and audits that nobody comes to."""
        self._do(partial(assign.sweep, rules=self.rules))
        if self.rules.trust is not None:
            self._do(partial(audit.sweep, rules=self.rules))

    def merge(self) -> None:
        """Merge complete rounds, one caller at a time.

        Another one that comes meanwhile leaves its wish: the first may have looked for the last time before the other's round was complete.
        """
        at_once = replace(self.rules, start_jitter=timedelta(0))  # who goes on from round to round has never stopped drawing
        self._to_merge.set()
        while self._to_merge.is_set() and self._merging.acquire(blocking=False):
            try:
                self._to_merge.clear()
                while self.merger.merge_ready():
                    for zone, policy in self.policies.by_zone.items():
                        self._do(partial(assign.again, zone=zone, policy=policy, rules=at_once))
            finally:
                self._merging.release()

    def tidy(self) -> None:
        """Remove stored files that nothing has named for a while; while a manifest cannot be read, only what was never whole."""
        with self.store.read() as tx:
            named, manifests = retain.named(tx), retain.manifests(tx)
        for digest in manifests:
            try:
                named |= {shard.digest for shard in DatasetManifest.from_bytes(self.blobs.get(digest)).shards}
            except GridschedError as error:
                _log.warning("no stored file is removed: the shards of a dataset are not known: %s", error, extra={"action": "not_tidied"})
                named |= set(self.blobs.digests())
        self.blobs.sweep(named, older_than=self.clock.now() - self.settings.blobs.keep)

    def _do(self, verb: Callable[[Tx, datetime], Sequence[Fact] | Reply[object]]) -> None:
        self.writer.submit(verb).result()

    def _after_commit(self, facts: Sequence[Fact]) -> None:
        for fact in facts:
            self.metrics.observe(fact)
        concerned = [fact.node_id for fact in facts if isinstance(fact, (*HELD, NodeOptedIn, NodeOptedOut, AgentReplaced))]
        if concerned:
            self.channel.nudge(list(dict.fromkeys(concerned)))
        for fact in facts:
            if isinstance(fact, (ZonePaused, ZoneResumed)):
                self._decide_now(fact.zone)
        if any(isinstance(fact, (AuditOpened, JobSubmitted, NodeOptedIn)) or raises_doubt(fact) for fact in facts):
            self._plan_now()
        if any(isinstance(fact, (JobSubmitted, WishesChanged)) for fact in facts):
            for zone in self.policies.by_zone:
                self.executor.submit(_guarded(Task(name=f"plan {zone}", every=_SOON, call=partial(self.plan, zone))))
        if any(isinstance(fact, (UnitAccepted, UnitSkipped, RoundCutShort)) for fact in facts):
            self.executor.submit(_guarded(Task(name="merge", every=_SOON, call=self.merge)))

    def _decide_now(self, zone: str) -> None:
        """A control tick out of turn, for whoever reaches for the switch; where the queue is full, the timetable's next will do."""
        policy = self.policies.by_zone.get(zone)
        if policy is not None:
            with suppress(Busy):
                self.writer.submit(self._tick(policy))

    def _plan_now(self) -> None:
        """There is new work, a new hand for it, or a hand less: plan under the standing decisions instead of waiting for the next tick.

        Whatever else happens before that is done needs no plan of its own.
        """
        for zone, policy in self.policies.by_zone.items():
            if zone not in self._to_plan:
                self._to_plan.add(zone)
                try:
                    plan: Future[None] = self.writer.submit(partial(assign.again, zone=zone, policy=policy, rules=self.rules))
                except Busy:
                    self._to_plan.discard(zone)
                else:  # done also where the database has failed it before it began
                    plan.add_done_callback(partial(self._planned, zone))

    def _planned(self, zone: str, _: "Future[None]") -> None:
        self._to_plan.discard(zone)

    def _admit_operator(self, tx: Tx, now: datetime) -> Sequence[Fact]:
        token = operator_token(self.settings)
        return [] if token is None else admit.site_token(tx, now, token_hash=secret_hash(token))


@dataclass(frozen=True, slots=True)
class _End:
    """Until when what a decision saw holds, and how long nodes need to hear of another one."""

    at: datetime | None
    lead: timedelta


def _control(tx: Tx, now: datetime, *, policy: Policy, rules: Rules, connected: set[str], pace: timedelta) -> Reply[_End]:
    view = decide.see(tx, now, policy)
    drawing = {lease.node_id for lease in tx.find(Lease, zone=policy.zone, state=(LeaseState.OFFERED, LeaseState.ACTIVE))}
    lead = rules.heard_within if drawing and drawing <= connected else rules.sync_every
    decided = decide.zone(tx, now, policy, view=view, ahead=lead + pace, rules=rules)
    signals = {kind.value: state.value for kind, state in view.states.items() if state.fresh}
    facts = [*decided.facts, *assign.tick(tx, now, decided.value, policy=policy, rules=rules, signals=signals)]
    return Reply(_End(decide.next_edge(tx, policy, view) if decided.value.target_w > 0 else None, lead), facts)


def open_clock(settings: Settings) -> Clock:
    """The machine's clock, or a replay's. A replay goes on where it would be by now if the daemon was stopped in between."""
    real = SystemClock()
    replay = settings.clock
    if replay is None:
        return real
    anchor = settings.site.data / "replay.json"
    began = real.now()
    meant = {"replay_from": replay.replay_from.isoformat(), "speed": replay.speed}
    known = _anchored(anchor)
    if {key: known.get(key) for key in meant} == meant:
        began = datetime.fromisoformat(str(known["began"]))
    else:
        write_durably(anchor, [json.dumps(meant | {"began": began.isoformat()}).encode()])
    return ScaledClock(replay.replay_from + (real.now() - began) * replay.speed, replay.speed, real=real)


def _anchored(anchor: Path) -> Mapping[str, object]:
    """What a replay began with; nothing where there was none before."""
    if not anchor.is_file():
        return {}
    try:
        known: Mapping[str, object] = json.loads(anchor.read_text(encoding="utf-8"))
        datetime.fromisoformat(str(known["began"]))
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise ConfigError(f"{anchor} is damaged ({error}); delete it, and the replay begins at replay_from again") from error
    return known


def _rules(settings: Settings, clock: Clock, *, dry_run: bool) -> Rules:
    control = settings.control
    return Rules(
        clock_speed=clock.speed,
        sync_every=control.sync_every,
        lease_ttl=control.lease_ttl,
        longest_lease=control.longest_lease,
        absent_after=control.absent_after,
        start_jitter=control.start_jitter,
        hand_over_after=control.hand_over_after,
        copies=control.copies,
        trust=_auditing(settings),
        dry_run=dry_run,
    )


def _auditing(settings: Settings) -> Auditing | None:
    trust = settings.trust
    return Auditing(share=trust.share, probation=trust.probation, secret=audit_secret(settings)) if trust.audits else None


def _guarded(task: Task) -> Callable[[], None]:
    """``task.call`` that logs what it raises: one failed tick must not take the timetable down."""

    def call() -> None:
        try:
            task.call()
        except Busy as error:
            _log.warning("%s skipped: %s", task.name, error, extra={"action": "task_skipped", "task": task.name})
        except Exception:  # noqa: BLE001 - whatever it is, the next tick must come
            _log.exception("%s failed", task.name, extra={"action": "task_failed", "task": task.name})

    return call
