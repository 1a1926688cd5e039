"""Every error gridsched raises on purpose, drawn once.

::

    GridschedError
    ├── InvalidInput (also ValueError)     what a person or a peer sent is wrong; the message names it and the remedy
    │   ├── ConfigError                    gridsched.toml or a command's options
    │   ├── PolicyError                    a policy file
    │   ├── ProgramError                   a program that cannot be exported, read or run
    │   │   └── UnsupportedOperator        an operator outside the allow-list
    │   ├── DatasetError                   samples, shards or manifests
    │   ├── MessageError                   a message on the wire that does not parse
    │   ├── OtherRelease                   a node or page of another release than the daemon
    │   └── UpdateRefused                  an update that must not be merged (carries a Refusal reason)
    ├── AdapterError                       a provider gave nothing usable (carries a kind)
    ├── StaleSignal                        a reading older than the policy allows
    ├── Unauthorized                       no valid token
    ├── Forbidden                          a valid token without the right
    ├── NotFound
    ├── Conflict                           the world has moved on
    │   ├── LeaseLost                      an old lease generation
    │   ├── DuplicateIdentity              two agents with one node's token
    │   └── IllegalMove                    a state machine's forbidden step
    ├── TooLarge                           over a stated limit
    ├── Busy                               a bounded queue is full
    ├── BlobCorrupt                        bytes that do not match their digest
    ├── StorageFull                        the disk or a quota is full
    ├── OutOfMemory                        a unit needs more memory than this node has
    └── Unreachable                        no answer from the daemon; nothing is known to have happened

The docstring of each class is its default message; ``HTTP_STATUS`` is the one table from error to status code.
"""

from collections.abc import Mapping
from types import MappingProxyType

__all__ = [
    "HTTP_STATUS",
    "AdapterError",
    "BlobCorrupt",
    "Busy",
    "ConfigError",
    "Conflict",
    "DatasetError",
    "DuplicateIdentity",
    "Forbidden",
    "GridschedError",
    "IllegalMove",
    "InvalidInput",
    "LeaseLost",
    "MessageError",
    "NotFound",
    "OtherRelease",
    "OutOfMemory",
    "PolicyError",
    "ProgramError",
    "StaleSignal",
    "StorageFull",
    "TooLarge",
    "Unauthorized",
    "Unreachable",
    "UnsupportedOperator",
    "UpdateRefused",
    "http_status",
]


class GridschedError(Exception):
    """gridsched could not do this."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class InvalidInput(GridschedError, ValueError):
    """The input is not valid."""


class ConfigError(InvalidInput):
    """The configuration is not valid."""


class PolicyError(InvalidInput):
    """The policy is not valid."""


class ProgramError(InvalidInput):
    """The program cannot be used."""


class UnsupportedOperator(ProgramError):
    """The program uses an operator outside the allow-list."""


class DatasetError(InvalidInput):
    """The dataset cannot be used."""


class MessageError(InvalidInput):
    """The message does not parse."""


class OtherRelease(InvalidInput):
    """This is of another release than the daemon; load the page again, or install the daemon's release."""


class UpdateRefused(InvalidInput):
    """The update was refused."""

    def __init__(self, message: str = "", *, reason: str = "invalid") -> None:
        super().__init__(message)
        self.reason = reason


class AdapterError(GridschedError):
    """The provider gave nothing usable."""

    def __init__(self, message: str = "", *, kind: str = "unusable", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after_s = retry_after_s


class StaleSignal(GridschedError):
    """The newest reading is older than the policy allows."""


class Unauthorized(GridschedError):
    """A valid token is needed; join again with a new code."""


class Forbidden(GridschedError):
    """This token may not do that."""


class NotFound(GridschedError):
    """There is no such thing."""


class Conflict(GridschedError):
    """The request conflicts with what has happened since."""


class LeaseLost(Conflict):
    """The lease has moved on to a newer generation; what was drawn in good faith is still paid."""


class DuplicateIdentity(Conflict):
    """Another agent runs with this node's identity; stop one of the two."""


class IllegalMove(Conflict):
    """This state does not allow that move."""


class TooLarge(GridschedError):
    """The body is larger than the limit."""


class Busy(GridschedError):
    """The queue is full; try again in a moment."""


class BlobCorrupt(GridschedError):
    """The bytes do not match their digest."""


class StorageFull(GridschedError):
    """There is no room left to store this."""


class OutOfMemory(GridschedError):
    """There is not enough memory for this."""


class Unreachable(GridschedError):
    """The daemon does not answer; check its address and the network, or try again in a moment."""


HTTP_STATUS: Mapping[type[GridschedError], int] = MappingProxyType(
    {
        InvalidInput: 422,
        MessageError: 400,
        Unauthorized: 401,
        Forbidden: 403,
        NotFound: 404,
        Conflict: 409,
        TooLarge: 413,
        Busy: 503,
        BlobCorrupt: 422,
        StorageFull: 507,
        AdapterError: 502,
        StaleSignal: 503,
        GridschedError: 500,
    }
)


def http_status(error: GridschedError) -> int:
    """The status code of the nearest class in ``HTTP_STATUS``."""
    return next(HTTP_STATUS[kind] for kind in type(error).__mro__ if kind in HTTP_STATUS)
