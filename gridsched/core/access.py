"""Who may do what: roles, bearer tokens and one-time enrolment codes, all stored as hashes."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

__all__ = ["Invite", "Role", "Token", "secret_hash"]


class Role(StrEnum):
    """Each role may do what the ones before it may; ``node`` stands apart and sees only its own things."""

    NODE = "node"
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def covers(self, needed: "Role") -> bool:
        """Whether this role may do what ``needed`` is asked for."""
        if Role.NODE in (self, needed):
            return self is needed
        order = (Role.VIEWER, Role.OPERATOR, Role.ADMIN)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A bearer token of an operator-side user; nodes keep theirs in `Node.token_hash`."""

    token_hash: str
    name: str
    role: Role
    made_at: datetime
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Invite:
    """A code that lets one node join ``zone`` once, until ``expires_at``."""

    code_hash: str
    zone: str
    made_at: datetime
    expires_at: datetime
    used_by: str | None = None


def secret_hash(secret: str) -> str:
    """sha256 of a random secret of at least 128 bits; no salt is needed for those."""
    return hashlib.sha256(secret.encode()).hexdigest()
