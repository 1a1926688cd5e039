"""The adapters of a site at work: fetched off the timetable, outside any transaction, each failing alone.

A broken adapter degrades its signal visibly and nothing else: the first failure and the recovery become facts, what lies
between is only counted.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from gridsched.adapter import Adapter, Http, Publication
from gridsched.core.errors import AdapterError, Busy, ConfigError, GridschedError
from gridsched.core.facts import Fact
from gridsched.core.quantity import duration
from gridsched.core.rows import Batch
from gridsched.core.settings import AdapterTable, Settings
from gridsched.flow import ingest
from gridsched.plugins import load_adapter
from gridsched.ports import Reply, Tx, Writer
from gridsched.providers.session import Limits, Session, masked

__all__ = ["Source", "open_session", "open_sources", "secrets_of"]

_log = logging.getLogger(__name__)

_SECRET_WORDS = ("auth", "key", "password", "secret", "token")
_SHORTEST_SECRET = 4  # what is shorter guards nothing, and masking it would hide every other word


@dataclass(slots=True, kw_only=True)
class Source:
    """One configured adapter. ``broken`` is the kind of the failure that lasts, or empty; ``secrets`` are masked in what it says."""

    name: str
    adapter: Adapter
    every: timedelta
    secrets: Sequence[str] = ()
    broken: str = field(default="", init=False)
    _asked: datetime | None = field(default=None, init=False)
    _newest: datetime | None = field(default=None, init=False)

    @property
    def pace(self) -> timedelta:
        """How often the timetable comes by. `poll` passes over the times when the provider has nothing new to tell."""
        window = _publication(self.adapter)
        return self.every if window is None else min(self.every, window.every)

    def due(self, now: datetime) -> bool:
        """Whether to ask at ``now``: at the usual pace, or at the publication's while the next day is awaited."""
        window = _publication(self.adapter)
        if window is None or self._asked is None:
            return True
        wait = self.pace if window.awaited(now, self._newest) else self.every
        return now - self._asked > wait - self.pace / 2  # the timetable never comes by to the second

    def poll(self, http: Http, writer: Writer, now: datetime) -> None:
        """Fetch once, where it is due, and hand what came to `ingest`; never raises."""
        if not self.due(now):
            return
        self._asked = now
        try:
            batch = self.adapter.fetch(http, now)
        except AdapterError as error:
            self._fail(writer, error.kind, str(error))
        except Busy as error:  # the daemon is stopping: nothing was learned about the provider
            _log.debug("%s: %s", self.name, error)
        except Exception as error:  # noqa: BLE001 - an adapter is the operator's own code: its bug must not stop the others
            self._fail(writer, "bug", f"{type(error).__name__}: {error}")
        else:
            self._take(writer, batch)

    def _take(self, writer: Writer, batch: Batch) -> None:
        if batch.dropped:
            _log.warning("%s: %d rows set aside", self.name, len(batch.dropped), extra={"action": "rows_dropped", "source": self.name})
        self._newest = max((reading.start for reading in batch), default=self._newest)
        _try(writer, partial(ingest.store, readings=batch.readings, source=self.name))
        if self.broken:
            _log.warning("%s gives readings again", self.name, extra={"action": "source_recovered", "source": self.name})
            _try(writer, partial(ingest.recovered, source=self.name))
            self.broken = ""

    def _fail(self, writer: Writer, kind: str, detail: str) -> None:
        if self.broken == kind:
            return
        self.broken = kind
        detail = masked(detail, self.secrets)
        _log.warning("%s fails: %s", self.name, detail, extra={"action": "source_degraded", "source": self.name, "kind": kind})
        _try(writer, partial(ingest.degraded, source=self.name, kind=kind, detail=detail))


def _publication(adapter: Adapter) -> Publication | None:
    """When its provider publishes, where the adapter says so."""
    return getattr(adapter, "publishes", None)


def _try(writer: Writer, verb: Callable[[Tx, datetime], Sequence[Fact] | Reply[None]]) -> None:
    try:
        writer.submit(verb).result()
    except GridschedError as error:
        _log.error("what a source said could not be stored: %s", error, extra={"action": "ingest_failed"})


def open_sources(tables: Sequence[AdapterTable], *, site: Path) -> list[Source]:
    """The site's adapters, made from their tables; raises one `ConfigError` with every problem."""
    sources, problems = [], []
    for number, table in enumerate(tables, start=1):
        options = dict(table.options)
        every = options.pop("every", None)
        try:
            adapter: Adapter = load_adapter(table.use, site / "adapters")(options, site=site)
            name = f"{Path(table.use).stem}.{adapter.zone}.{number}"
            pace = adapter.every if every is None else duration(every)
            sources.append(Source(name=name, adapter=adapter, every=pace, secrets=secrets_of(table)))
        except GridschedError as error:
            problems.append(masked(f"[[adapter]] {number} ({table.use}): {error}", secrets_of(table)))
    if problems:
        raise ConfigError("\n".join(problems))
    return sources


def open_session(settings: Settings, *, sleep: Callable[[float], object], now: Callable[[], datetime]) -> Session:
    """The adapters' one way out, within the site's limits and with their tables' secrets kept out of errors."""
    polite = settings.http
    limits = Limits(per_minute=polite.per_minute, burst=polite.burst, hosts=polite.hosts)
    secrets = [secret for table in settings.adapters for secret in secrets_of(table)]
    return Session(monotonic=time.monotonic, sleep=sleep, now=now, limits=limits, secrets=secrets)


def secrets_of(table: AdapterTable) -> list[str]:
    """What must never reach a log or a screen: options, however deep, whose names say so, and all that came from the environment.

    A secret that came from there is masked wherever it stands, also in a URL's path or under a name that says nothing.
    """
    found = [*_named(table.options, ""), *(value.strip() for value in table.secrets)]
    return [secret for secret in dict.fromkeys(found) if len(secret) >= _SHORTEST_SECRET]


def _named(value: object, name: str) -> Iterator[str]:
    """The options whose names say that they are secrets."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _named(inner, str(key).lower())
    elif isinstance(value, str) and _is_secret(name):
        yield value
        yield from value.split()[1:]  # "Bearer abc": the scheme is no secret, and the rest is one by itself


def _is_secret(name: str) -> bool:
    return any(word in name for word in _SECRET_WORDS) and not name.endswith("_url")
