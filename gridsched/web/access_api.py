"""Who is let in: invitations for nodes, tokens for people and programs on the operator's side, and how each is taken back."""

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gridsched.core.access import Invite, Role, Token, secret_hash
from gridsched.core.errors import InvalidInput
from gridsched.core.job import is_name
from gridsched.flow import admit
from gridsched.ports import Reply, Tx
from gridsched.web import invitation, views
from gridsched.web.board import Board
from gridsched.web.messages import answer, strict
from gridsched.web.reception import Reception

__all__ = ["AccessApi"]

_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # no 0, O, 1, I: codes are read aloud and typed
_CODE_GROUPS, _GROUP = 4, 4
_MOST_CODES = 500
_SHOWN = 1000


class _Invite(msgspec.Struct, forbid_unknown_fields=True):
    zone: str
    for_s: float = 24 * 3600.0
    count: int = 1


class _Withdraw(msgspec.Struct, forbid_unknown_fields=True):
    zone: str = ""
    code: str = ""


class _Picture(msgspec.Struct, forbid_unknown_fields=True):
    base: str
    code: str


class _NewToken(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    role: Role


class AccessApi:
    """Codes and tokens are shown once, when they are made; what is kept of them are hashes."""

    def __init__(self, reception: Reception, board: Board) -> None:
        self._at = reception
        self._board = board

    def routes(self) -> list[BaseRoute]:
        """One line a door: path, handler, role, method."""
        look, order, rule, door = Role.VIEWER, Role.OPERATOR, Role.ADMIN, self._at.door
        return [
            door("/v1/invites", self.invites, look),
            door("/v1/invites", self.invite, order, "POST"),
            door("/v1/invites/withdraw", self.withdraw, order, "POST"),
            door("/v1/invites/picture", self.picture, order, "POST"),
            door("/v1/tokens", self.tokens, rule),
            door("/v1/tokens", self.new_token, rule, "POST"),
            door("/v1/tokens/{name}/revoke", self.revoke_token, rule, "POST"),
        ]

    # -- nodes

    async def invites(self, _: Request) -> Response:
        names = ("zone", "made_at", "expires_at", "used_by")
        rows = await self._at.read(lambda tx: tx.find(Invite, order="-made_at", limit=_SHOWN))
        return answer([{name: views.plain(getattr(row, name)) for name in names} for row in rows])

    async def invite(self, request: Request) -> Response:
        wanted = strict(await self._at.body(request), _Invite)
        zone = self._zone(wanted.zone)
        if not 0 < wanted.for_s <= 366 * 86400:
            raise InvalidInput(f"an invitation lasts between a second and a year, not {wanted.for_s} s")
        if not 1 <= wanted.count <= _MOST_CODES:
            raise InvalidInput(f"ask for 1 to {_MOST_CODES} codes at a time, not {wanted.count}")
        codes = [_new_code() for _ in range(wanted.count)]
        valid_for = timedelta(seconds=wanted.for_s)
        expires_at: datetime = await self._at.change(
            request,
            partial(_invite, zone=zone, codes=codes, valid_for=valid_for),
            verb="invite",
            thing=f"zone {zone}",
            detail=f"{wanted.count} code{'s' if wanted.count > 1 else ''} for {str(valid_for).removesuffix(', 0:00:00')}",
        )
        return answer({"code": codes[0], "codes": codes, "zone": zone, "expires_at": expires_at.isoformat()}, status=201)

    async def withdraw(self, request: Request) -> Response:
        wanted = strict(await self._at.body(request), _Withdraw)
        if bool(wanted.zone) == bool(wanted.code):
            raise InvalidInput("name either a code, or the zone whose open invitations all end")
        if wanted.code:
            end, thing = partial(admit.withdraw_invites, code=wanted.code), "one code"
        else:
            zone = self._zone(wanted.zone)
            end, thing = partial(admit.withdraw_invites, zone=zone), f"zone {zone}"
        return answer({"withdrawn": await self._at.change(request, end, verb="withdraw_invites", thing=thing)})

    async def picture(self, request: Request) -> Response:
        """The address that enrols a device, and its QR code; the code is neither looked up nor kept."""
        wanted = strict(await self._at.body(request), _Picture)
        url = invitation.join_url(wanted.base, wanted.code)
        return answer({"url": url, "svg": invitation.svg(url)})

    def _zone(self, name: str) -> str:
        policies = self._at.doors.policies
        if name not in policies:
            raise InvalidInput(f"there is no zone {name!r}; this daemon has {', '.join(policies)}")
        return name

    # -- people and programs

    async def tokens(self, _: Request) -> Response:
        names = ("name", "role", "made_at", "revoked_at")
        rows = await self._at.read(lambda tx: tx.find(Token, order="-made_at", limit=_SHOWN))
        return answer([{name: views.plain(getattr(row, name)) for name in names} for row in rows])

    async def new_token(self, request: Request) -> Response:
        wanted = strict(await self._at.body(request), _NewToken)
        if not is_name(wanted.name):
            raise InvalidInput(f"token name {wanted.name[:80]!r} must be lower-case letters, digits, - and _, at most 63")
        if wanted.role is Role.NODE:
            raise InvalidInput("a node gets its token by joining; make it an invitation instead")
        token = secrets.token_urlsafe(32)
        make = partial(admit.new_token, name=wanted.name, role=wanted.role, token_hash=secret_hash(token))
        await self._at.change(request, make, verb="make_token", thing=f"token {wanted.name}", detail=f"role {wanted.role}")
        return answer({"name": wanted.name, "role": wanted.role, "token": token}, status=201)

    async def revoke_token(self, request: Request) -> Response:
        """The token's next call is refused, and a console that it has open is closed."""
        name = request.path_params["name"]
        await self._at.change(request, partial(admit.revoke_token, name=name), verb="revoke_token", thing=f"token {name}")
        self._at.gate.forget(name)
        self._board.hang_up(name)
        return answer({"name": name})


def _new_code() -> str:
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP)) for _ in range(_CODE_GROUPS))


def _invite(tx: Tx, now: datetime, *, zone: str, codes: Sequence[str], valid_for: timedelta) -> Reply[datetime]:
    facts = [fact for code in codes for fact in admit.new_invite(tx, now, zone=zone, code_hash=secret_hash(code), valid_for=valid_for)]
    return Reply(now + valid_for, facts)
