"""The agent: keeps what runs on this machine in step with what its owner, its device and the daemon say.

Everything is decided in one thread. Other threads (three lines to the daemon, the push channel, the child's voice) only put
functions into the inbox. ``tick`` is one turn: look, decide (`gridsched.node.decide`), carry out one move, speak when it is time.
Stopping the child never waits for the network, and nothing is lost while the daemon is away.
"""

import logging
import queue
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from gridsched.node.cache import BlobCache
from gridsched.node.contact import Contact, real_seconds
from gridsched.node.decide import Action, Local, Move, Phase, next_action
from gridsched.node.device import Device
from gridsched.node.finished import FinishedUnits
from gridsched.node.held import Held
from gridsched.node.limits import DeviceSample, sample_device
from gridsched.node.line import Lines
from gridsched.node.memory import Memory
from gridsched.node.metering import Metering
from gridsched.node.pipe import Event, Failed, Need, Progress, Ready
from gridsched.node.returns import Returns
from gridsched.node.settings import NodeSettings
from gridsched.node.show import describe
from gridsched.node.state import Home, Identity, Status
from gridsched.node.supply import Supply
from gridsched.node.trainer import Trainer
from gridsched.ports import Meter
from gridsched.wire import Order, Orders, Sync

__all__ = ["Agent"]

log = logging.getLogger(__name__)

_TURN_S = 0.1
_STATUS_S = 0.5
_OBSTINATE_S = 30.0
_LEAVE_S = 5.0
_SHORTEST_SAVE_S = 0.2
_SOON_S = 0.25  # that a unit has begun may wait for its end to be told with it; that one has stopped may not
_REMEMBERED = 16


class Agent:
    """One agent process, made from its parts, so that tests put others in their place; `gridsched.node.start` makes the real ones.

    ``trainer`` is made by a function that is given where to deliver the child's events and its death.
    """

    def __init__(
        self,
        home: Home,
        identity: Identity,
        settings: NodeSettings,
        meter: Meter,
        *,
        lines: Callable[[Callable[[Callable[[], None]], None]], Lines],
        trainer: Callable[[Callable[[Event], None], Callable[[str], None]], Trainer],
        monotonic: Callable[[], float] = real_seconds,
        sample: Callable[[Path], DeviceSample] = sample_device,
        memory: Memory | None = None,
    ) -> None:
        self._home = home
        self._identity = identity
        self._settings = settings
        self._monotonic = monotonic
        self._sample = sample
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lines = lines(self._inbox.put)
        self._trainer = trainer(
            lambda event: self._inbox.put(lambda: self._on_event(event)), lambda words: self._inbox.put(lambda: self._on_death(words))
        )
        self._metering = Metering(home, meter, speed=identity.clock_speed, monotonic=monotonic)
        self._memory = memory or Memory(settings.limits.max_memory_bytes, identity.runtime_bytes)
        offered = self._memory.offered() if identity.runtime_bytes else None
        self.contact = Contact(home, identity, self._lines.talk, self._compose, monotonic, memory_bytes=offered)
        self._returns = Returns(
            home, self.contact, self._lines.talk, self._lines.send, meter=self._metering.reporter, over=self._on_over, monotonic=monotonic
        )
        self._supply = Supply(
            BlobCache(home.blobs, limit_bytes=settings.cache_bytes),
            self._lines.fetch,
            got=self._trainer.fetched,
            lost=self._trainer.lost,
            stuck=self._note_stuck,
        )
        self._held: Held | None = None
        self._parting: Held | None = None
        self._over: list[tuple[str, int]] = []
        self._runs = 0
        self._idle_since_s = monotonic()
        self._leaving_s: float | None = None
        self._device = Device(home.folder, settings.limits, sample)
        self._finished = FinishedUnits(self._returns, stuck=self._note_stuck)
        self._status: Status | None = None
        self._status_s = -_STATUS_S
        self.reason = "starting"

    # The loop.

    def run(self) -> None:
        """Work until asked to leave, or until going on makes no sense: that error is raised, after everything was saved."""
        try:
            while not self._gone():
                self.tick()
                self._listen(_TURN_S)
        finally:
            self._trainer.quit(within_s=10.0)
            self._lines.close()
            self._show(Phase.NONE, "stopped")
        if self.contact.fatal is not None:
            raise self.contact.fatal

    def leave(self) -> None:
        """Save, hand over if the daemon answers soon, and end. Safe to call from a signal handler, and again."""
        self._inbox.put(self._on_leave)

    def push(self, orders: Orders) -> None:
        """Orders from the channel, on any thread."""
        said_s = self._monotonic()
        self._inbox.put(lambda: self.contact.hear(orders, said_s))

    def tick(self) -> None:
        """One turn."""
        now_s = self._monotonic()
        self._finished.post(now_s)
        if self._device.look(now_s):
            self.contact.hurry()
        self.contact.look()
        order = self._order()
        if order is not None and order.desired == "run":
            self._supply.foresee(order.unit.base, order.steps)
        self._supply.turn(now_s)
        action = next_action(order, self._local(order, now_s))
        self._move(action, order, now_s)
        self._watch_child(now_s)
        self.contact.turn(now_s)
        self._returns.turn(now_s, self._held)
        if now_s - self._status_s >= _STATUS_S:
            self._show(self._phase(order), action.reason)

    def drain(self) -> None:
        """Take what has come in, without waiting."""
        while not self._inbox.empty():
            self._inbox.get()()

    def _listen(self, seconds: float) -> None:
        with suppress(queue.Empty):
            self._inbox.get(timeout=seconds)()
        self.drain()

    def _gone(self) -> bool:
        if self.contact.fatal is not None:
            return True
        if self._leaving_s is None:
            return False
        done = self._held is None and self._order() is None and not (self._returns.waiting or self._finished)
        return done or self._monotonic() >= self._leaving_s

    def _on_leave(self) -> None:
        if self._leaving_s is None:
            log.info("leaving: saving and handing over", extra={"action": "leave"})
            self._leaving_s = self._monotonic() + _LEAVE_S

    # Looking.

    def _order(self) -> Order | None:
        """The daemon's order, unless the lease is one that is known to be over."""
        orders = self.contact.orders
        if orders is None or orders.order is None or (orders.order.lease_id, orders.order.generation) in self._over:
            return None
        if self._held is None and self._returns.holds(orders.order.lease_id):
            # Finished by an agent before this one; the lease is kept alive until the daemon has answered.
            steps = orders.order.unit.steps
            self._held = Held(order=orders.order, run=0, phase=Phase.FINISHED, since_s=self._monotonic(), step=steps, executed_before=steps)
        if self._held is not None and self._held.is_of(orders.order.lease_id, orders.order.generation):
            self._held.order = orders.order
        return orders.order

    def _phase(self, order: Order | None) -> Phase:
        if self._held is not None:
            return self._held.phase
        return Phase.FINISHED if order is not None and self._returns.holds(order.lease_id) else Phase.NONE

    def _local(self, order: Order | None, now_s: float) -> Local:
        held = self._held
        identity = held.order if held is not None else order
        local = Local(
            phase=self._phase(order),
            lease_id=identity.lease_id if identity is not None else "",
            generation=identity.generation if identity is not None else 0,
            unit_id=identity.unit.unit_id if identity is not None else "",
            opted_in=self.contact.opted_in,
            consent_ended=self.contact.consent_ended(now_s),
            device=self._device.state,
            silent=self.contact.silent(now_s),
            waited=self.contact.waited(now_s),
            leaving=self._leaving_s is not None,
            shelve_after_s=self._settings.release_memory_after.total_seconds(),
        )
        if held is None:
            return local
        return replace(
            local,
            may_go_on=held.may_go_on,
            saved=held.saved,
            waited=local.waited and now_s >= held.not_before_s,
            paused_s=(now_s - held.since_s) * self.contact.speed,
        )

    def _note_stuck(self, where: str, why: str) -> None:
        if self._device.stuck(where, why):
            self.contact.hurry()

    # Moving.

    def _move(self, action: Action, order: Order | None, now_s: float) -> None:
        self.reason = action.reason
        if action.move is Move.NOTHING:
            return
        self._status_s = now_s - _STATUS_S  # to be shown at once
        log.info("%s: %s", action.move.value, action.reason, extra={"action": action.move.value, "reason": action.reason})
        if action.move is Move.DROP:
            self._drop(now_s, lost=True)
        elif action.move is Move.SHELVE:
            self._trainer.quit()
            self._must().turn(Phase.SHELVED, now_s)
        elif action.move is Move.PAUSE:
            self._must().rest(action.reason)
            self._trainer.hold()
        else:
            assert order is not None
            self._move_to(action, order, now_s)
        self.contact.hurry(within_s=_SOON_S if action.move is Move.START else 0.0)

    def _move_to(self, action: Action, order: Order, now_s: float) -> None:
        if action.move is Move.START:
            self._start(order, now_s)
        elif action.move is Move.GO_ON:
            self._must().go_on()
            self._trainer.let(self._share(order))
        elif action.move is Move.ADOPT:
            self._must().adopt(order)
        elif action.move is Move.HAND_OVER:
            self._hand_over(order, action.reason, now_s)

    def _must(self) -> Held:
        assert self._held is not None
        return self._held

    def _start(self, order: Order, now_s: float) -> None:
        self._runs += 1
        if self._held is None:
            self._home.prune()
            self._held = Held(
                order=order, run=self._runs, phase=Phase.STARTING, since_s=now_s, executed_before=self._home.effort(order.lease_id)
            )
        if lacking := self._memory.lacks(order.unit.memory_bytes, child=self._trainer.pid):
            self._refuse(self._held, lacking, now_s)
            return
        self._held.new_run(self._runs, now_s)
        save_every_s = max(self._settings.save_every.total_seconds() / self.contact.speed, _SHORTEST_SAVE_S)
        try:
            self._trainer.train(self._held.train(save_every_s=save_every_s, share=self._share(order)))
        except OSError as error:
            self._on_death(f"cannot be started: {error}")

    def _share(self, order: Order) -> float:
        """The part of the time that keeps the mean draw within the leased power, and to how hard the owner lets it work."""
        return min(max(order.power_w / self._identity.power_w, 0.01), 1.0) * self._settings.limits.cpu_share

    def _hand_over(self, order: Order, reason: str, now_s: float) -> None:
        held = self._held
        if held is None:
            held = self._held = Held(order=order, run=0, phase=Phase.HANDING_OVER, since_s=now_s, saved=True)
        elif held.phase is Phase.STARTING or not self._trainer.alive:
            self._trainer.drop(held.run)
            held.saved = True
        elif not (held.phase is Phase.PAUSED and held.saved):
            held.saved = False
            self._trainer.hold()
        held.may_go_on = False
        held.turn(Phase.HANDING_OVER, now_s, reason)

    def _drop(self, now_s: float, *, lost: bool) -> None:
        """``lost``: the daemon has taken the lease back, and may not know of all that was done under it."""
        held, self._held, self._parting = self._held, None, self._held if lost else None
        self._idle_since_s = now_s
        self._supply.forget()
        if held is not None:
            self._trainer.drop(held.run)
            self._note_stuck("child", "")

    def _on_over(self, lease_id: str, generation: int, refused: bool) -> None:
        """The daemon has closed this lease; orders that were on their way when it did are stale."""
        self._over = [*self._over[-_REMEMBERED:], (lease_id, generation)]
        if self._leaving_s is not None:
            self._leaving_s = self._monotonic()  # the daemon may offer more; this node is gone
        if self._held is not None and self._held.is_of(lease_id, generation):
            self._drop(self._monotonic(), lost=refused)

    def _watch_child(self, now_s: float) -> None:
        held = self._held
        if held is None:
            limit_s = self._settings.release_memory_after.total_seconds() / self.contact.speed
            if self._trainer.alive and now_s - self._idle_since_s >= limit_s:
                self._trainer.quit()
        elif held.phase is Phase.HANDING_OVER and not held.saved and now_s - held.since_s >= _OBSTINATE_S:
            log.warning("the training process does not stop; ending it", extra={"action": "worker_killed"})
            self._trainer.kill()

    # The child's voice.

    def _on_event(self, event: Event) -> None:
        now_s, held = self._monotonic(), self._held
        if isinstance(event, Ready):
            self.contact.trains_with(event.runtime)
        elif isinstance(event, Need):
            if held is not None:
                self._supply.order(event.digest)
        elif held is None or event.run != held.run:
            return
        elif isinstance(event, Progress):
            self._on_progress(event, held, now_s)
        else:
            self._note_stuck("child", "")  # it has written what there was, or never will
            if isinstance(event, Failed):
                self._refuse(held, event.detail, now_s)
            else:
                held.done(event, now_s)
                self._finished.add(event, held)

    def _on_progress(self, event: Progress, held: Held, now_s: float) -> None:
        before = held.phase, held.saved
        held.progress(event, now_s)
        self._note_stuck("child", event.stuck)
        self._home.set_effort(held.order.lease_id, held.steps_executed)
        if held.phase is Phase.PAUSED and held.may_go_on and not event.stuck:
            self._trainer.let(self._share(held.order))  # it rests though nobody asked it to
        if (held.phase, held.saved) != before:
            self.contact.hurry(within_s=_SOON_S if held.phase is Phase.RUNNING else 0.0)

    def _refuse(self, held: Held, why: str, now_s: float) -> None:
        log.error("unit %s cannot be run here: %s", held.order.unit.unit_id, why, extra={"action": "unit_refused"})
        held.turn(Phase.REFUSED, now_s, why)
        self.contact.hurry()

    def _on_death(self, words: str) -> None:
        """The child died unasked: begin again from what is saved, later each time, and give up in the end."""
        held, now_s = self._held, self._monotonic()
        log.warning("the training process %s", words, extra={"action": "worker_died"})
        self._device.stuck("child", "")
        if held is None or held.phase in (Phase.FINISHED, Phase.REFUSED):
            return
        if held.phase is Phase.HANDING_OVER:
            held.saved = True
            return
        held.died(now_s, f"the training process {words}")
        self.contact.hurry()

    # Telling.

    def _compose(self) -> Callable[[], Sync]:
        """The sync as things stand; the meter's age is filled in when it is sent."""
        self._metering.pace(self.contact.speed)
        held, self._parting = self._parting or self._held, None
        report = None if held is None else held.report(speed=self.contact.speed)
        device, meter = self._device.state.value, self._metering.reporter()
        self._note_stuck("register", self._metering.stuck)
        return lambda: Sync(instance=self.contact.instance, device=device, lease=report, meter=meter(), clock_s=self.contact.wall_s())

    def _show(self, phase: Phase, reason: str) -> None:
        self._status_s = self._monotonic()
        status = describe(
            self._identity.node_id,
            phase,
            reason,
            contact=self.contact,
            held=self._held,
            register=self._metering.register,
            device=self._device,
            returns=self._returns,
        )
        if status != self._status:
            self._home.set_status(status)
            self._status = status
