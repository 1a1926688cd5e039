"""What goes back to the daemon: finished updates and handed-over continuations. Tried until answered, whatever is restarted."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gridsched.core.errors import BlobCorrupt, Conflict, DuplicateIdentity, GridschedError, InvalidInput, TooLarge
from gridsched.node.channel import backoff_s
from gridsched.node.client import Client
from gridsched.node.contact import Contact
from gridsched.node.held import Held
from gridsched.node.line import Line
from gridsched.node.state import Finished, Home
from gridsched.train.checkpoint import latest_file
from gridsched.wire import HandOver, MeterReport, Orders, UpdateNotice

__all__ = ["Returns"]

log = logging.getLogger(__name__)

_FINAL = (InvalidInput, Conflict)
"""Answers after which trying again would not help: the work is given up. Too large a notice says nothing of the work it tells of."""

MakeReport = Callable[[], MeterReport | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parcel:
    """``blob`` (digest, file) is sent first; ``post`` then tells of it, or of its absence where it was too large to store."""

    blob: tuple[str, Path] | None
    post: Callable[[Client, bool], Orders]
    close: Callable[[GridschedError | None], None]


class Returns:
    """One parcel at a time: its blob goes over ``send``, then its notice over ``talk`` among the other reports.

    ``meter`` gives a function that makes the meter's report at the moment it is sent; ``over`` is told of each lease that the
    daemon has closed, and whether it refused what was done.
    """

    def __init__(
        self,
        home: Home,
        contact: Contact,
        talk: Line,
        send: Line,
        *,
        meter: Callable[[], MakeReport],
        over: Callable[[str, int, bool], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._home = home
        self._contact = contact
        self._talk = talk
        self._send = send
        self._meter = meter
        self._over = over
        self._monotonic = monotonic
        self._waiting = {item.lease_id: item for item in home.posted()}
        self._busy = False
        self._failures = 0
        self._due_s = 0.0
        self.accepted = 0

    @property
    def waiting(self) -> int:
        """Finished units that the daemon has not answered."""
        return len(self._waiting)

    def holds(self, lease_id: str) -> bool:
        """Whether that lease's unit is finished and waits here."""
        return lease_id in self._waiting

    def add(self, finished: Finished) -> None:
        """Keep a finished unit and send it off. Raises StorageFull."""
        self._home.post(finished)
        self._waiting[finished.lease_id] = finished

    def turn(self, now_s: float, held: Held | None) -> None:
        """Send the next parcel, when nothing is on its way. A hand-over waits until the owner's choice behind it is known."""
        if self._busy or now_s < self._due_s or not self._contact.open:
            return
        if self._waiting:
            self._dispatch(self._update(next(iter(self._waiting.values()))))
        elif held is not None and held.ready and self._contact.unsent is None:
            self._dispatch(self._middle(held))

    def _update(self, item: Finished) -> _Parcel:
        report = self._meter()

        def notice(stored: bool, digests: list[tuple[int, str]]) -> UpdateNotice:
            return UpdateNotice(
                instance=self._contact.instance,
                lease_id=item.lease_id,
                generation=item.generation,
                update=item.update if stored else None,
                steps_executed=item.steps_executed,
                metrics=dict(item.metrics),
                digests=digests,
                meter=report(),
            )

        def post(client: Client, stored: bool) -> Orders:
            try:
                return client.update(notice(stored, item.digests))
            except TooLarge as error:
                if not item.digests:
                    raise
                log.warning("unit %s is handed in without its digests: %s", item.unit_id, error, extra={"action": "digests_left_out"})
                return client.update(notice(stored, []))

        def close(error: GridschedError | None) -> None:
            self.accepted += error is None
            self._home.unpost(item)
            self._waiting.pop(item.lease_id, None)
            self._over(item.lease_id, item.generation, error is not None)

        blob = None if item.update is None else (item.update, self._home.update_path(item.update))
        return _Parcel(blob=blob, post=post, close=close)

    def _middle(self, held: Held) -> _Parcel:
        order, steps, reason, report = held.order, held.steps_executed, held.reason, self._meter()
        blob, step = self._newest(held)

        def post(client: Client, stored: bool) -> Orders:
            mine = blob is not None and stored
            return client.hand_over(
                HandOver(
                    instance=self._contact.instance,
                    lease_id=order.lease_id,
                    generation=order.generation,
                    continuation=blob[0] if blob is not None and stored else order.continuation,
                    step=step if mine else order.continuation_step,
                    steps_executed=steps,
                    reason=reason,
                    meter=report(),
                )
            )

        def close(error: GridschedError | None) -> None:
            self._home.forget(order.unit.unit_id)
            self._over(order.lease_id, order.generation, error is not None)

        return _Parcel(blob=blob, post=post, close=close)

    def _newest(self, held: Held) -> tuple[tuple[str, Path] | None, int]:
        """(digest and file, step) of the newest continuation by the class that the daemon knows, where it is further than its own."""
        try:
            found = latest_file(self._home.middles(held.order.unit.unit_id, self._contact.runtime))
        except BlobCorrupt:
            found = None
        if found is None or found[0] <= held.order.continuation_step:
            return None, 0
        step, path = found
        return (path.stem.split("-")[1], path), step

    # On its way.

    def _dispatch(self, parcel: _Parcel) -> None:
        self._busy = True
        if parcel.blob is None:
            self._notify(parcel, stored=False)
            return
        digest, path = parcel.blob
        if not path.exists():
            self._closed(parcel, BlobCorrupt(f"{path} is gone; the unit is left to another node"))
            return

        def failed(error: GridschedError) -> None:
            if isinstance(error, TooLarge):
                self._notify(parcel, stored=False)
            else:
                self._put_off(error)

        self._send.call(lambda client: client.upload(digest, path), lambda _: self._notify(parcel, stored=True), failed)

    def _notify(self, parcel: _Parcel, *, stored: bool) -> None:
        said: list[float] = []

        def ask(client: Client) -> Orders:
            said.append(self._monotonic())
            return parcel.post(client, stored)

        def answered(orders: Orders) -> None:
            self._closed(parcel, None)
            self._contact.reported(orders, said[0])

        def failed(error: GridschedError) -> None:
            if isinstance(error, _FINAL) and not isinstance(error, DuplicateIdentity):
                self._closed(parcel, error)
                self._contact.hurry()
            else:
                self._put_off(error)

        self._talk.call(ask, answered, failed)

    def _closed(self, parcel: _Parcel, error: GridschedError | None) -> None:
        self._busy, self._failures = False, 0
        if error is not None:
            log.warning("the daemon does not take this work: %s", error, extra={"action": "return_refused"})
        parcel.close(error)

    def _put_off(self, error: GridschedError) -> None:
        self._busy = False
        now_s = self._monotonic()
        self._due_s = now_s + backoff_s(self._failures, first_s=0.25, longest_s=15.0)
        self._failures += 1
        self._contact.missed(error, now_s)
