"""What somebody on the operator's side has done: the rows of the audit log."""

from dataclasses import dataclass
from datetime import datetime

from gridsched.core.access import Role

__all__ = ["Deed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """``who`` (the name of a token, never the token) did ``verb`` to ``thing`` ``at``; ``detail`` says how, without any secret.

    Numbered from 1 without gaps, in the order of their commits. What was refused has changed nothing and is not in here.
    """

    number: int
    at: datetime
    who: str
    role: Role
    verb: str
    thing: str
    detail: str = ""
