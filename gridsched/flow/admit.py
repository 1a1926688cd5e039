"""Who and what is let in: nodes by one-time code, people by token, datasets and jobs by their owners."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from gridsched.core.access import Invite, Role, Token, secret_hash
from gridsched.core.consent import opted_out
from gridsched.core.errors import Conflict, Forbidden, NotFound, OtherRelease
from gridsched.core.facts import Fact, NodeJoined, ZonePaused, ZoneResumed
from gridsched.core.fleet import Node, Presence
from gridsched.core.job import Dataset, Job, JobSpec
from gridsched.core.lease import LIVE, Lease, LeaseReason, LeaseState
from gridsched.core.zone import ZoneState
from gridsched.flow import advance, local
from gridsched.flow.assign import close_lease
from gridsched.flow.rules import Rules
from gridsched.ports import Reply, Tx
from gridsched.wire import VERSION, Join, Joined

__all__ = [
    "add_dataset",
    "cancel",
    "join",
    "new_invite",
    "new_token",
    "pause_all",
    "pause_zone",
    "revoke_node",
    "revoke_token",
    "site_token",
    "submit",
    "withdraw_invites",
]

_SITE = "operator"
"""The name of the token in the site's own file, ``operator.token``."""


def new_invite(tx: Tx, now: datetime, *, zone: str, code_hash: str, valid_for: timedelta) -> list[Fact]:
    """A code, known to us by its hash alone, that lets one node join ``zone`` until ``now + valid_for``."""
    tx.insert(Invite(code_hash=code_hash, zone=zone, made_at=now, expires_at=now + valid_for))
    return []


def withdraw_invites(tx: Tx, now: datetime, *, zone: str = "", code: str = "") -> Reply[int]:
    """End one open invitation, by its ``code``, or all open ones of ``zone``; how many were ended. What was used stays as it is."""
    if code:
        found = tx.get(Invite, secret_hash(code))
        if found is None:
            raise NotFound("this code is not known; codes are good for one node and are shown only once")
        if found.used_by is not None:
            raise Conflict(f"node {found.used_by} has joined with this code; shut it out with: gridsched revoke {found.used_by}")
        invites = [found]
    else:
        invites = list(tx.find(Invite, zone=zone, used_by=None))
    still_open = [invite for invite in invites if invite.expires_at > now]
    for invite in still_open:
        tx.put(replace(invite, expires_at=now))
    return Reply(len(still_open))


def new_token(tx: Tx, now: datetime, *, name: str, role: Role, token_hash: str) -> list[Fact]:
    """A bearer token for a person or a program on the operator's side. One name has one valid token: the audit log tells them apart."""
    if name == _SITE or tx.find(Token, name=name, revoked_at=None):
        raise Conflict(f"there is a valid token named {name} already; choose another name, or revoke that one first")
    tx.insert(Token(token_hash=token_hash, name=name, role=role, made_at=now))
    return []


def site_token(tx: Tx, now: datetime, *, token_hash: str) -> list[Fact]:
    """The token in the site's file is valid and no other of its name: who deletes the file and starts again makes the old one worthless."""
    for token in tx.find(Token, name=_SITE, revoked_at=None):
        if token.token_hash != token_hash:
            tx.put(replace(token, revoked_at=now))
    known = tx.get(Token, token_hash)
    if known is None or known.revoked_at is not None:
        tx.put(Token(token_hash=token_hash, name=_SITE, role=Role.ADMIN, made_at=now))
    return []


def revoke_token(tx: Tx, now: datetime, *, name: str) -> list[Fact]:
    """Make the valid token of this name worthless from now on."""
    if name == _SITE:
        raise Conflict(
            "the token named operator is in the site's own file: delete operator.token and start the daemon again; "
            "it makes a new one, and the old one is worth nothing from then on"
        )
    valid = tx.find(Token, name=name, revoked_at=None)
    if not valid:
        raise NotFound(f"there is no valid token named {name!r}; see gridsched token list")
    for token in valid:
        tx.put(replace(token, revoked_at=now))
    return []


def join(tx: Tx, now: datetime, message: Join, *, token: str, rules: Rules) -> Reply[Joined]:
    """Enrol a node with a one-time code. It starts opted out: nobody works for us without having said yes."""
    if message.version != VERSION:
        raise OtherRelease(
            f"this node speaks protocol {message.version}, the daemon {VERSION}; install the daemon's release, or load the page again"
        )
    invite = tx.get(Invite, secret_hash(message.code))
    if invite is None:
        raise Forbidden("this code is not known; ask the operator for a new one (gridsched invite)")
    if invite.used_by is not None:
        raise Forbidden(f"this code has been used by node {invite.used_by}; ask the operator for a new one")
    if now >= invite.expires_at:
        raise Forbidden(f"this code ended at {invite.expires_at:%Y-%m-%d %H:%M} UTC; ask the operator for a new one")
    if tx.get(Node, message.node_id) is not None:
        raise Conflict(f"a node named {message.node_id} has joined already; choose another with --name")
    node = Node(
        node_id=message.node_id,
        zone=invite.zone,
        device=message.device,
        power_w=message.power_w,
        memory_bytes=message.memory_bytes,
        runtime=message.runtime,
        meter=message.meter,
        token_hash=secret_hash(token),
        joined_at=now,
    )
    tx.put(replace(invite, used_by=node.node_id))
    tx.insert(node, Presence(node_id=node.node_id), opted_out(node.node_id, now))
    zone = tx.get(ZoneState, node.zone) or ZoneState(zone=node.zone)
    joined = Joined(
        node_id=node.node_id,
        token=token,
        zone=node.zone,
        clock_speed=rules.clock_speed,
        reward_micro_per_kwh=zone.reward_micro_per_kwh,
        reward_micro_per_unit=zone.reward_micro_per_unit,
    )
    return Reply(joined, [NodeJoined(at=now, node_id=node.node_id, zone=node.zone, device=node.device, power_w=node.power_w)])


def revoke_node(tx: Tx, now: datetime, node_id: str) -> list[Fact]:
    """Shut a node out: its token is worth nothing from now on, its leases end, what it earned stays its own."""
    node = tx.must(Node, node_id)
    tx.put(replace(node, revoked_at=now))
    facts: list[Fact] = []
    for lease in tx.find(Lease, node_id=node_id, state=LIVE):
        facts += close_lease(tx, now, lease, LeaseState.REVOKED, LeaseReason.NODE_LEFT)
    return facts + local.shut_out(tx, now, node)


def add_dataset(tx: Tx, now: datetime, dataset: Dataset) -> list[Fact]:
    """Name a dataset whose manifest and shards are stored. The same again changes nothing."""
    known = tx.get(Dataset, dataset.name)
    if known is not None and known.digest != dataset.digest:
        raise Conflict(f"dataset {dataset.name} exists with other samples; add this one under a new name")
    if known is None:
        tx.insert(replace(dataset, added_at=now))
    return []


def submit(tx: Tx, now: datetime, spec: JobSpec, *, initial_bytes: int, wasm_lacks: str = "") -> list[Fact]:
    """Take a job in; see `advance.submit`."""
    return advance.submit(tx, now, spec, initial_bytes=initial_bytes, wasm_lacks=wasm_lacks)


def cancel(tx: Tx, now: datetime, job_id: str) -> list[Fact]:
    """End a running job at its owner's word."""
    if tx.get(Job, job_id) is None:
        raise NotFound(f"there is no job {job_id}; see gridsched job list")
    return advance.cancel(tx, now, job_id)


def pause_zone(tx: Tx, now: datetime, zone: str, *, paused: bool, by: str = "") -> list[Fact]:
    """The operator's switch; the zone's next decision obeys it, and the facts ask for one at once. Switched twice, it says so once."""
    before = tx.get(ZoneState, zone) or ZoneState(zone=zone)
    if before.paused is paused:
        return []
    tx.put(replace(before, paused=paused, paused_at=now if paused else None, paused_by=by if paused else ""))
    return [(ZonePaused if paused else ZoneResumed)(at=now, zone=zone, by=by)]


def pause_all(tx: Tx, now: datetime, zones: Iterable[str], *, paused: bool, by: str) -> list[Fact]:
    """The same switch for all ``zones`` in one transaction: there is no moment at which some are paused and others are not."""
    return [said for zone in zones for said in pause_zone(tx, now, zone, paused=paused, by=by)]
