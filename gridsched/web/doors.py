"""What the doors open onto: the parts of the daemon that web handlers use, handed in as one record."""

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import CollectorRegistry

from gridsched.core.errors import InvalidInput
from gridsched.core.rule import Policy
from gridsched.core.settings import Web
from gridsched.core.units import utc
from gridsched.core.work import WorkUnit
from gridsched.flow.collect import Checked
from gridsched.flow.rules import Rules
from gridsched.ports import Blobs, Clock, PolicyFiles, Store, Writer

__all__ = ["Doors", "moment"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """``check_update`` reads a stored update (slow, runs in ``executor``) and says whether it may be merged into its unit's round.

    ``registry`` is what ``/metrics`` shows; ``policies`` by zone, ``policy_files`` where they come from; ``executor`` must take blocking
    work from several requests at once.
    """

    store: Store
    writer: Writer
    blobs: Blobs
    clock: Clock
    rules: Rules
    limits: Web
    executor: Executor
    registry: CollectorRegistry
    check_update: Callable[[WorkUnit, str], Checked]
    policies: Mapping[str, Policy]
    policy_files: PolicyFiles


def moment(text: str, *, name: str) -> datetime:
    """The aware UTC time in a query parameter."""
    try:
        return utc(datetime.fromisoformat(text))
    except ValueError as error:
        raise InvalidInput(f"{name}={text!r} is not a moment; write it like 2018-05-01T00:00:00Z") from error
