"""What a node's consumer may ask of its daemon: the statement, all that is stored of the node, and its end."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from gridsched.core.errors import Unauthorized
from gridsched.node.client import Client
from gridsched.node.state import Home, HomeLock
from gridsched.wire import Leave, Statement

__all__ = ["leave", "record", "statement"]


def statement(home: Home) -> Statement:
    """What the node has earned. Raises ConfigError where none lives in ``home``, Unreachable where the daemon does not answer."""
    with _client(home) as client:
        return client.statement()


def record(home: Home) -> bytes:
    """All that the daemon stores about the node, as JSON. Raises as `statement` does."""
    with _client(home) as client:
        return client.record()


def leave(home: Home, *, erase: bool) -> None:
    """Take the node away for good, with ``erase`` with what is stored about it, and forget here who it was.

    Raises Conflict while its agent runs, and Unreachable where the daemon does not answer: then nothing has changed. One that the daemon
    has shut out already has left.
    """
    with HomeLock(home.folder):
        with _client(home) as client, suppress(Unauthorized):
            client.leave(Leave(erase=erase))
        home.retire()


@contextmanager
def _client(home: Home) -> Iterator[Client]:
    identity = home.identity()
    client = Client(identity.url, identity.token)
    try:
        yield client
    finally:
        client.close()
