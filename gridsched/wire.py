"""What crosses the network between daemon and node: versioned JSON messages, parsed strictly.

A node only ever pulls. The one call it repeats is **sync**: it reports what it does and gets its orders, so a lost
or repeated message changes nothing (orders say what should be, not what to do next). A WebSocket push carries the
same `Orders`, only sooner. Durations are seconds of the daemon's clock; ``clock_speed`` says how many of them pass in a real second.

======  =============================  ==========================  =======================
method  path                           request                     answer
======  =============================  ==========================  =======================
POST    /v1/join                       `Join` (no token)           `Joined`
POST    /v1/node/hello                 `Hello`                     `Orders`
POST    /v1/node/sync                  `Sync`                      `Orders`
POST    /v1/node/consent               `ConsentChoice`             `Orders`
POST    /v1/node/hand-over             `HandOver`                  `Orders`
POST    /v1/node/update                `UpdateNotice`              `Orders`
GET     /v1/node/statement             -                           `Statement`
GET     /v1/node/offer                 -                           `Offer`
GET     /v1/node/record                -                           JSON: all rows and facts about it
POST    /v1/node/leave                 `Leave`                     `Left`
GET     /v1/blobs/{digest}             - (Range allowed)           bytes
HEAD    /v1/blobs/{digest}             -                           Content-Length; 404; Upload-Offset of a part
PUT     /v1/blobs/{digest}             bytes (Content-Range)       204, or 202 with Upload-Offset
GET     /v1/node/channel (WebSocket)   -                           `Orders` as they change
======  =============================  ==========================  =======================

Errors are `Problem` with the status of `gridsched.core.errors.HTTP_STATUS`.
"""

from typing import TypeVar

import msgspec

from gridsched.core.errors import MessageError
from gridsched.core.fleet import LocalData
from gridsched.core.work import UnitSpec

__all__ = [
    "VERSION",
    "ConsentChoice",
    "ConsentView",
    "Desired",
    "HandOver",
    "Hello",
    "Join",
    "Joined",
    "LeaseReport",
    "Leave",
    "Left",
    "MeterReport",
    "Offer",
    "OfferedJob",
    "Order",
    "Orders",
    "Problem",
    "Statement",
    "StatementLine",
    "Sync",
    "UpdateNotice",
    "decode",
    "encode",
]

VERSION = 2
Desired = str
"""``run`` | ``pause`` | ``hand_over`` (save, upload the continuation, give the unit back) | ``stop`` (drop it)."""


class _Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields not named here are an error: a misspelt limit must not be ignored."""


class Join(_Message, frozen=True):
    """Enrolment with a one-time ``code``. ``power_w`` is the most the device draws, ``memory_bytes`` what it offers."""

    code: str
    node_id: str
    device: str
    power_w: float
    memory_bytes: int
    runtime: str
    meter: str
    version: int = VERSION


class Joined(_Message, frozen=True):
    """The node's token, shown once, and what its zone pays now."""

    node_id: str
    token: str
    zone: str
    clock_speed: float
    reward_micro_per_kwh: int
    reward_micro_per_unit: int


class Hello(_Message, frozen=True):
    """The first message of an agent process; takes the node over from an earlier ``instance``, whose calls are refused from then on.

    ``memory_bytes`` is what it offers now (None: as before), ``data`` are the datasets that it holds for itself, by name.
    """

    instance: str
    runtime: str
    memory_bytes: int | None = None
    data: dict[str, LocalData] = {}
    version: int = VERSION


class LeaseReport(_Message, frozen=True):
    """What the node does with its lease.

    ``state``: starting | running | paused | refused (with ``reason``). ``step`` is the position in the unit, ``steps_executed``
    counts all steps run under this lease, ``speed`` is in steps per clock second of work, ``saved_step`` is durable on the node.
    """

    lease_id: str
    generation: int
    state: str
    step: int = 0
    steps_executed: int = 0
    saved_step: int = 0
    speed: float = 0.0
    reason: str = ""


class MeterReport(_Message, frozen=True):
    """The cumulative register in joules, read ``age_s`` ago by the node's monotonic clock; ``power_w`` is the present draw."""

    register_j: float
    age_s: float
    power_w: float
    method: str


class Sync(_Message, frozen=True):
    """``device``: free | user_active | hot | on_battery | disk_full. ``clock_s`` is the node's own calendar, for its owner only."""

    instance: str
    device: str = "free"
    lease: LeaseReport | None = None
    meter: MeterReport | None = None
    clock_s: float | None = None


class ConsentChoice(_Message, frozen=True):
    """``for_s`` None: until withdrawn. ``max_w`` None: the node's own power."""

    opted_in: bool
    for_s: float | None = None
    max_w: float | None = None
    min_reward_micro_per_kwh: int = 0


class HandOver(_Message, frozen=True):
    """The unit's middle, given back; ``continuation`` (a stored blob) is None where no step was saved."""

    instance: str
    lease_id: str
    generation: int
    continuation: str | None
    step: int
    steps_executed: int
    reason: str
    meter: MeterReport | None = None


class UpdateNotice(_Message, frozen=True):
    """A finished unit. ``update`` is a stored blob (None for an evaluation); ``digests`` are (step, parameter digest) audit points."""

    instance: str
    lease_id: str
    generation: int
    update: str | None
    steps_executed: int
    metrics: dict[str, float]
    digests: list[tuple[int, str]] = []
    meter: MeterReport | None = None


class Order(_Message, frozen=True):
    """What should be true of the node's lease. ``unit`` is all the trainer needs; ``runtime_seed`` none: it is in the unit.

    ``wait_s`` spreads starts; ``ttl_s`` is how long the node may go on without hearing from the daemon.
    ``continuation`` is where to go on from, unless the node itself has a later one of the same unit.
    ``steps`` are a way to the unit's version from older ones, shorter than its whole file: (version, step to the next) digests,
    the last of which ends at ``unit.base``. A hint: a node that holds none of them downloads the file.
    """

    lease_id: str
    generation: int
    desired: Desired
    reason: str
    power_w: float
    ttl_s: float
    wait_s: float
    unit: UnitSpec
    continuation: str | None = None
    continuation_step: int = 0
    steps: list[tuple[str, str]] = []


class ConsentView(_Message, frozen=True):
    """The consumer's choice as the daemon has it; ``left_s`` None: no end."""

    opted_in: bool
    left_s: float | None
    max_w: float | None
    min_reward_micro_per_kwh: int


class Orders(_Message, frozen=True):
    """``order`` is None where the node holds no lease: stop whatever runs. ``node_reason`` says why, in the words of `NodeReason`."""

    node_id: str
    clock_speed: float
    sync_every_s: float
    node_reason: str
    consent: ConsentView
    reward_micro_per_kwh: int
    reward_micro_per_unit: int
    earned_micro: int
    order: Order | None = None
    notice: str = ""


class Leave(_Message, frozen=True):
    """The node goes for good; ``erase``: with what is stored about it, as far as nobody else's books rest on it."""

    erase: bool = False


class Left(_Message, frozen=True):
    """The node has gone."""

    node_id: str


class StatementLine(_Message, frozen=True):
    """One transfer; positive amounts were earned, negative ones paid out."""

    transfer_id: str
    kind: str
    at: str
    lease_id: str | None
    amount_micro: int
    energy_j: float | None
    digest: str


class Statement(_Message, frozen=True):
    """All a node has earned; ``pending_micro`` is reserved and not yet final."""

    node_id: str
    balance_micro: int
    pending_micro: int
    energy_j: float
    lines: list[StatementLine]


class OfferedJob(_Message, frozen=True):
    """A job that a node may be asked to train; ``accuracy`` is that of its newest evaluated version."""

    job_id: str
    name: str
    dataset: str
    attribution: str
    epoch: int
    epochs: int
    accuracy: float | None


class Offer(_Message, frozen=True):
    """What a node's zone offers now: ``target_w`` may be drawn because of ``reason`` (the policy's own word), for these jobs."""

    zone: str
    target_w: float
    reason: str
    reward_micro_per_kwh: int
    reward_micro_per_unit: int
    jobs: list[OfferedJob]


class Problem(_Message, frozen=True):
    """``error`` is the class's name, ``detail`` a public sentence that names the thing and the remedy."""

    error: str
    detail: str
    reason: str = ""


M = TypeVar("M")
_encoder = msgspec.json.Encoder()


def encode(message: object) -> bytes:
    """Any message (or `UnitSpec`) as JSON bytes."""
    return _encoder.encode(message)


def decode(data: bytes | str, kind: type[M]) -> M:
    """``data`` as a ``kind``; raises `MessageError` naming the field."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise MessageError(f"this is not a {kind.__name__}: {error}") from error
