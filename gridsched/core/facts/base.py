"""What all facts have, and the name under which one is stored and counted."""

import re
from dataclasses import dataclass
from datetime import datetime

__all__ = ["Fact", "kind_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something that has happened at ``at`` (the daemon's clock)."""

    at: datetime


def kind_of(fact: Fact | type[Fact]) -> str:
    """The fact's name in snake case."""
    name = (fact if isinstance(fact, type) else type(fact)).__name__
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
