"""Who is calling, and how often they may.

A bearer token is known by its sha256 alone. Recognised callers are remembered, so that the hot path asks no database; a
revocation forgets them at once.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.types import Scope

from gridsched.core.access import Role, Token, secret_hash
from gridsched.core.errors import Busy, Forbidden, Unauthorized
from gridsched.core.fleet import Node
from gridsched.ports import Store
from gridsched.web.messages import header

__all__ = ["SUBPROTOCOL", "Caller", "Gate", "Pace", "refuse_foreign"]

SUBPROTOCOL = "gridsched.v2"
"""What a page offers when it opens a WebSocket, beside its token: a browser lets it set no header there."""

_OFFERED = "token."
_REMEMBERED = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """``name`` is a node's id or the name of an operator's token."""

    name: str
    role: Role


class Pace:
    """Token buckets (Turner 1986): each key may do ``per_s`` calls a second, with ``saved`` of them (0: two seconds' worth) saved up."""

    def __init__(self, per_s: float, *, saved: int = 0) -> None:
        self._per_s = per_s
        self._full = saved or max(2 * per_s, 1.0)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, at_s: float, *, name: str) -> None:
        """One call at ``at_s`` of a monotonic clock; raises `Busy` with ``name`` where ``key`` has used its share up."""
        left, before_s = self._buckets.get(key, (self._full, at_s))
        left = min(left + (at_s - before_s) * self._per_s, self._full)
        if left < 1:
            raise Busy(f"{name} calls more than {self._per_s:g} times a second; slow down")
        self._buckets[key] = (left - 1, at_s)
        if len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)


class Gate:
    """Used on the event loop only; the store is asked in a thread."""

    def __init__(self, store: Store, *, calls_per_s: float) -> None:
        self._store = store
        self._pace = Pace(calls_per_s)
        self._strangers = Pace(calls_per_s)
        self._known: OrderedDict[str, Caller] = OrderedDict()
        self._forgotten = 0

    async def node(self, scope: Scope) -> str:
        """The id of the node that calls; raises `Unauthorized`, `Forbidden` for another role's token, `Busy`."""
        caller = await self.caller(scope)
        if caller.role is not Role.NODE:
            raise Forbidden(f"{caller.name} is a token of role {caller.role}; this door is for nodes")
        return caller.name

    async def demand(self, scope: Scope, role: Role) -> Caller:
        """The caller, whose role must cover ``role``."""
        caller = await self.caller(scope)
        if not caller.role.covers(role):
            raise Forbidden(f"{caller.name} is a token of role {caller.role}; this needs {role}")
        return caller

    async def caller(self, scope: Scope) -> Caller:
        """Whoever holds the bearer token of this request."""
        token_hash = _token_hash(scope)
        caller = await self._recognised(token_hash)
        self._pace.take(token_hash, asyncio.get_running_loop().time(), name=caller.name)
        return caller

    async def stands(self, scope: Scope) -> bool:
        """Whether the token of a connection just opened still holds: it may have been revoked while that was accepted."""
        try:
            await self._recognised(_token_hash(scope))
        except Unauthorized:
            return False
        return True

    def stranger(self) -> None:
        """A call without a token; all of them share one pace, so that codes cannot be tried out quickly."""
        self._strangers.take("", asyncio.get_running_loop().time(), name="whoever tries to join")

    def forget(self, name: str) -> None:
        """``name`` has been revoked: its next call asks the store, also where a look-up is under way right now."""
        self._forgotten += 1
        for token_hash in [key for key, caller in self._known.items() if caller.name == name]:
            del self._known[token_hash]

    async def _recognised(self, token_hash: str) -> Caller:
        return self._known.get(token_hash) or await self._look_up(token_hash)

    async def _look_up(self, token_hash: str) -> Caller:
        """What the store says, asked again where a token was revoked meanwhile: it may be this one."""
        while True:
            forgotten = self._forgotten
            caller = await asyncio.to_thread(self._stored, token_hash)
            if caller is None:
                raise Unauthorized("this token is not valid here; a node joins again with a new code, an operator asks for a new token")
            if forgotten == self._forgotten:
                break
        self._known[token_hash] = caller
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return caller

    def _stored(self, token_hash: str) -> Caller | None:
        with self._store.read() as tx:
            for node in tx.find(Node, token_hash=token_hash, revoked_at=None):
                return Caller(name=node.node_id, role=Role.NODE)
            token = tx.get(Token, token_hash)
        return None if token is None or token.revoked_at is not None else Caller(name=token.name, role=token.role)


def refuse_foreign(scope: Scope) -> None:
    """Raise `Forbidden` where a browser says that another site's page is calling: browsers open WebSockets to any host."""
    origin, host = header(scope, b"origin"), header(scope, b"host") or b""
    if origin is not None and urlsplit(origin.decode("latin-1")).netloc.lower() != host.decode("latin-1").lower():
        raise Forbidden("a page of another site may not call here; open the page that this server serves (/join)")


def _token_hash(scope: Scope) -> str:
    authorization = header(scope, b"authorization") or b""
    scheme, _, token = authorization.partition(b" ")
    offered = [name.removeprefix(_OFFERED) for name in scope.get("subprotocols", ()) if name.startswith(_OFFERED)]
    given = [token.strip().decode("latin-1")] if scheme.lower() == b"bearer" else offered[:1]
    if not any(given):  # an empty one is nobody's, whatever the store says
        raise Unauthorized("this needs the header Authorization: Bearer TOKEN")
    return secret_hash(given[0])
