"""What is said to the daemon and what it said last: hello, sync, the owner's choice."""

import logging
import math
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from gridsched.clock import SystemClock
from gridsched.core.errors import DuplicateIdentity, Forbidden, GridschedError, InvalidInput, StorageFull, Unauthorized
from gridsched.node.channel import backoff_s
from gridsched.node.client import Client
from gridsched.node.line import Line
from gridsched.node.state import Choice, Home, Identity
from gridsched.wire import ConsentChoice, Hello, Orders, Sync

__all__ = ["Contact", "choice_message", "real_seconds"]

log = logging.getLogger(__name__)

_SHORTEST_SYNC_S = 0.05
_FATAL = (DuplicateIdentity, Unauthorized, Forbidden)


def real_seconds() -> float:
    """Monotonic seconds that also pass while the machine is suspended: a lease does not wait for a lid to open."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def choice_message(choice: Choice, now: datetime, speed: float) -> ConsentChoice:
    """``choice`` as it stands at ``now``: the time it was made for has been running since it was made, daemon or no daemon."""
    left_s = choice.for_s
    if left_s is not None:
        left_s -= max((now - choice.made_at).total_seconds(), 0.0) * speed
    return ConsentChoice(
        opted_in=choice.opted_in and (left_s is None or left_s > 0),
        for_s=left_s if choice.opted_in and left_s is not None and left_s > 0 else None,
        max_w=choice.max_w,
        min_reward_micro_per_kwh=choice.min_reward_micro_per_kwh,
    )


class Contact:
    """One call at a time on the ``talk`` line, which others share for theirs: what is said later arrives later.

    ``compose`` gives a function that makes the sync's message at the moment it is sent; ``memory_bytes`` is what this machine offers
    to units (None: what it offered when it joined). ``orders`` is what the daemon said last;
    ``fatal`` is set where going on makes no sense.
    """

    def __init__(
        self,
        home: Home,
        identity: Identity,
        talk: Line,
        compose: Callable[[], Callable[[], Sync]],
        monotonic: Callable[[], float] = real_seconds,
        *,
        memory_bytes: int | None = None,
    ) -> None:
        self.instance = secrets.token_hex(8)
        self.runtime = identity.runtime
        self.speed = identity.clock_speed
        self.orders: Orders | None = None
        self.fatal: GridschedError | None = None
        self.choice: Choice | None = None
        self.last_contact: datetime | None = None
        self.connected = False
        self._home = home
        self._talk = talk
        self._compose = compose
        self._monotonic = monotonic
        self._wall = SystemClock()
        self._greeted = False
        self._data_stamp: tuple[tuple[str, int], ...] = ()
        self._memory_bytes = memory_bytes
        self._calling = False
        self._failures = 0
        self._due_s = 0.0
        self._news_s = math.inf
        self._stamp = -1
        self._unsent: Choice | None = None
        self._silent_at_s = 0.0
        self._start_at_s = 0.0
        self._consent_ends_s: float | None = None

    # What is known.

    @property
    def open(self) -> bool:
        """Whether the daemon knows this agent and takes its reports."""
        return self._greeted and self.fatal is None

    @property
    def unsent(self) -> Choice | None:
        """The owner's choice while the daemon has not acknowledged it: it rules here all the same."""
        return self._unsent

    def silent(self, now_s: float) -> bool:
        """Whether the lease's time to live has passed since the daemon was last heard."""
        return now_s >= self._silent_at_s

    def waited(self, now_s: float) -> bool:
        """Whether the start's delay is over."""
        return now_s >= self._start_at_s

    def consent_ended(self, now_s: float) -> bool:
        """Whether the time opted in for is over."""
        return self._consent_ends_s is not None and now_s >= self._consent_ends_s

    @property
    def opted_in(self) -> bool:
        """The owner's word where it is newer than the daemon's; what a page or another program chose comes from there."""
        if self._unsent is not None:
            return self._unsent.opted_in
        return self.orders is not None and self.orders.consent.opted_in

    def wall_s(self) -> float:
        """This machine's own idea of the time, in seconds since 1970."""
        return self._wall.now().timestamp()

    # Speaking.

    def turn(self, now_s: float) -> None:
        """Say what is due, if nothing is being said."""
        if self._calling or self.fatal is not None:
            return
        if now_s < min(self._due_s, self._news_s) and (self._failures or self._unsent is None):
            return
        if not self._greeted:
            self._data_stamp = self._home.local.stamp()
            hello = Hello(instance=self.instance, runtime=self.runtime, memory_bytes=self._memory_bytes, data=self._home.local.all())
            self._call(lambda client: client.hello(hello), self._greet)
        elif (choice := self._unsent) is not None:
            message = choice_message(choice, self._wall.now(), self.speed)
            self._call(lambda client: client.choose(message), lambda: self._chosen(choice), lambda error: self._refused(choice, error))
        else:
            self._news_s = math.inf
            message_of = self._compose()
            self._call(lambda client: client.sync(message_of()), lambda: None)

    def hurry(self, *, within_s: float = 0.0) -> None:
        """Something has changed: report it with the next turn, or some time ``within_s``; unless the daemon is away."""
        if not self._failures:
            self._news_s = min(self._news_s, self._monotonic() + within_s)

    def trains_with(self, runtime: str) -> None:
        """The child's hardware class; the daemon is told where it differs from what it was told before."""
        if runtime != self.runtime:
            self.runtime, self._greeted = runtime, False
            self.hurry()

    def hear(self, orders: Orders, said_s: float) -> None:
        """Take orders that answer what was said at ``said_s``, or that were pushed then."""
        self.orders = orders
        self.speed = orders.clock_speed
        self.last_contact = self._wall.now()
        left_s = orders.consent.left_s
        self._consent_ends_s = None if left_s is None or not orders.consent.opted_in else said_s + left_s / self.speed
        if orders.order is not None:
            self._silent_at_s = said_s + orders.order.ttl_s / self.speed
            self._start_at_s = said_s + orders.order.wait_s / self.speed

    def reported(self, orders: Orders, said_s: float) -> None:
        """Take orders that answer the end of a lease: what could wait to be told of that lease need not be told any more."""
        if self._news_s > self._monotonic():
            self._news_s = math.inf
        self.hear(orders, said_s)

    def missed(self, error: GridschedError, now_s: float) -> None:
        """A call failed; the daemon is left alone for a while, or for good."""
        if isinstance(error, _FATAL):
            self.fatal = error
        if not self._failures:
            log.warning("no contact with the daemon: %s", error, extra={"action": "contact_lost"})
        self.connected, self._news_s = False, math.inf
        self._due_s = now_s + backoff_s(self._failures, first_s=0.25, longest_s=15.0)
        self._failures += 1

    def _call(
        self, ask: Callable[[Client], Orders], then: Callable[[], None], otherwise: Callable[[GridschedError], None] = lambda _: None
    ) -> None:
        self._calling = True
        said: list[float] = []

        def timed(client: Client) -> Orders:
            said.append(self._monotonic())
            return ask(client)

        def answered(orders: Orders) -> None:
            self._calling = False
            if self._failures:
                log.info("the daemon answers again", extra={"action": "contact_back"})
            self._failures, self.connected = 0, True
            self._due_s = said[0] + max(orders.sync_every_s / orders.clock_speed, _SHORTEST_SYNC_S)
            then()
            self.hear(orders, said[0])

        def failed(error: GridschedError) -> None:
            self._calling = False
            otherwise(error)
            self.missed(error, self._monotonic())

        self._talk.call(timed, answered, failed)

    def _greet(self) -> None:
        self._greeted = True

    def _chosen(self, choice: Choice) -> None:
        with suppress(StorageFull):  # then the next agent says it again, which changes nothing
            self._home.set_sent_choice(choice.choice_id)
        if self._unsent is choice:
            self._unsent = None

    def _refused(self, choice: Choice, error: GridschedError) -> None:
        """What the daemon itself will never take is not said again; whatever else failed is."""
        if isinstance(error, InvalidInput):
            log.error("the daemon does not take this choice: %s", error, extra={"action": "choice_refused"})
            self._chosen(choice)

    def look(self) -> None:
        """See whether the owner has chosen anew, or added data; what they chose holds from this moment, whatever the daemon knows."""
        if self._greeted and self._home.local.stamp() != self._data_stamp:
            self._greeted = False
            self.hurry()
        stamp = self._home.choice_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        self.choice = self._home.choice()
        sent = self.choice is None or self.choice.choice_id == self._home.sent_choice()
        self._unsent = None if sent else self.choice
