"""The console's own doors: who am I, the lanes, policies with validation and preview, pause all, the audit log.

What a console also asks and others do too is in `operator_api` and `job_api`; what it sees live is in `board`.
"""

import asyncio
import hashlib
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gridsched import __version__
from gridsched.core.access import Role
from gridsched.core.deed import Deed
from gridsched.core.grid import DAY
from gridsched.core.policy import Policy, day_start
from gridsched.flow import admit, preview
from gridsched.ports import Reply, Tx
from gridsched.web import timeline, views
from gridsched.web.messages import answer, strict
from gridsched.web.policy_check import check, summary
from gridsched.web.reception import Reception, caller_of, number, only, table

__all__ = ["ConsoleApi"]

_MOST_HOURS = 7 * 24


class _Draft(msgspec.Struct, forbid_unknown_fields=True):
    text: str


class _Saved(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    replaces: str


class ConsoleApi:
    """What only the operator's console asks and orders."""

    def __init__(self, reception: Reception) -> None:
        self._at = reception
        self._doors = reception.doors

    def routes(self) -> list[BaseRoute]:
        """One line a door: path, handler, role, method."""
        look, order, rule, door = Role.VIEWER, Role.OPERATOR, Role.ADMIN, self._at.door
        return [
            door("/v1/me", self.me, look),
            door("/v1/pause", partial(self.pause, paused=True), order, "POST"),
            door("/v1/resume", partial(self.pause, paused=False), order, "POST"),
            door("/v1/zones/{zone}/timeline", self.timeline, look),
            door("/v1/zones/{zone}/policy", self.policy, look),
            door("/v1/zones/{zone}/policy", self.save, rule, "PUT"),
            door("/v1/zones/{zone}/policy/check", self.check, look, "POST"),
            door("/v1/zones/{zone}/policy/preview", self.preview, look, "POST"),
            door("/v1/deeds", self.deeds, look),
        ]

    async def me(self, request: Request) -> Response:
        caller, doors = caller_of(request), self._doors
        zones = [{"zone": zone, "policy": policy.name, "timezone": policy.timezone} for zone, policy in doors.policies.items()]
        now = {"now": doors.clock.now().isoformat(), "clock_speed": doors.clock.speed, "dry_run": doors.rules.dry_run}
        return answer({"name": caller.name, "role": caller.role, "version": __version__, "zones": zones, **now})

    # -- the switch

    async def pause(self, request: Request, *, paused: bool) -> Response:
        zones = sorted(self._doors.policies)
        switch = partial(admit.pause_all, zones=zones, paused=paused, by=caller_of(request).name)
        await self._at.change(request, switch, verb="pause_all" if paused else "resume_all", thing="all zones", detail=", ".join(zones))
        return answer({"zones": zones, "paused": paused})

    # -- lanes

    async def timeline(self, request: Request) -> Response:
        only(request, "back_h", "ahead_h")
        policy, now = self._at.policy(request), self._doors.clock.now()
        back, ahead = (timedelta(hours=min(max(number(request, name, 24), 1), _MOST_HOURS)) for name in ("back_h", "ahead_h"))
        return answer(await self._at.read(lambda tx: timeline.timeline(tx, policy, now, back=back, ahead=ahead)))

    # -- policies

    async def policy(self, request: Request) -> Response:
        zone = self._at.policy(request).zone
        text = await asyncio.to_thread(self._doors.policy_files.text, zone)
        body = {"zone": zone, "name": self._doors.policy_files.name(zone), "text": text, "sha256": _sha256(text)}
        return answer(body | {"rules": summary(self._at.policy(request))})

    async def check(self, request: Request) -> Response:
        zone, draft = self._at.policy(request).zone, strict(await self._at.body(request), _Draft)
        return answer(await asyncio.to_thread(check, draft.text, partial(self._doors.policy_files.parse, zone)))

    async def preview(self, request: Request) -> Response:
        present, now = self._at.policy(request), self._doors.clock.now()
        text = strict(await self._at.body(request), _Draft).text
        draft = await asyncio.to_thread(self._doors.policy_files.parse, present.zone, text)
        return answer(await self._at.read(lambda tx: _preview(tx, now, present, draft)))

    async def save(self, request: Request) -> Response:
        """The file is written as the last part of the change: the row of the audit log and the file are there together, or neither."""
        zone, wanted = self._at.policy(request).zone, strict(await self._at.body(request), _Saved)
        policy = await asyncio.to_thread(self._doors.policy_files.parse, zone, wanted.text)
        detail = f"policy {policy.name}, {policy.digest[:12]}"

        def save(_: Tx, __: datetime) -> Reply[str]:
            kept = self._doors.policy_files.save(zone, wanted.text, replaces=wanted.replaces)
            return Reply(kept.name if kept is not None else "")

        kept: str = await self._at.change(request, save, verb="save_policy", thing=f"zone {zone}", detail=detail)
        return answer({"zone": zone, "digest": policy.digest, "sha256": _sha256(wanted.text), "kept": kept})

    # -- who did what

    async def deeds(self, request: Request) -> Response:
        only(request, "format", "limit")
        limit = number(request, "limit", 1000)
        rows = await self._at.read(lambda tx: tx.find(Deed, order="-number", limit=limit))
        return table(request, [views.plain(row) for row in rows], list(Deed.__slots__))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _preview(tx: Tx, now: datetime, present: Policy, draft: Policy) -> dict[str, Any]:
    """Tomorrow by the draft's clock, as the present policy and as ``draft`` would decide it. Both begin now, as delays and budgets do."""
    begins = day_start(draft, day_start(draft, now) + DAY + timedelta(hours=6))  # also where a day has 23 or 25 hours
    ends = day_start(draft, begins + DAY + timedelta(hours=6))
    known = preview.coming(tx, now, [present, draft], ends)
    told = {
        name: [row for row in preview.preview(tx, now, policy, known, ends) if row.start >= begins]
        for name, policy in (("present", present), ("draft", draft))
    }
    signals = {kind: timeline.values(readings, begins, ends) for kind, readings in known.items()}
    return {
        "zone": draft.zone,
        "timezone": draft.timezone,
        "start": views.plain(begins),
        "end": views.plain(ends),
        "signals": {kind.value: slots for kind, slots in signals.items() if slots},
        "present": timeline.foretold(told["present"]),
        "draft": timeline.foretold(told["draft"]),
        "reward_micro_per_kwh": {"present": present.reward.micro_per_kwh, "draft": draft.reward.micro_per_kwh},
    }
