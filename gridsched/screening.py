"""Stored updates held against one another: which of a round are odd, and whether an audit's is the audited one but for rounding.

Both read blobs, so both are done in the executor, outside any transaction; what follows is for `flow.audit` to say.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from gridsched.core.errors import InvalidInput, NotFound
from gridsched.core.round import Round
from gridsched.core.trust import Auditing, AuditReason
from gridsched.core.work import UnitState, WorkUnit
from gridsched.flow import audit
from gridsched.flow.rules import Rules
from gridsched.ports import Blobs, Store, Writer
from gridsched.train.screen import MOST_TRACES, Trace, differ, suspicions, trace
from gridsched.train.version import read_version

__all__ = ["SAME_BUT_FOR_ROUNDING", "Screen"]

_ROUNDS_BACK = 8
_AT_ONCE = 256
"""Units of a large round that are compared with one another; the traces of so many are kept in memory, 64 kB each at most."""

SAME_BUT_FOR_ROUNDING = 1e-3
"""Relative L2 distance: honest updates of short units lie 1e-6 apart in two hardware classes, those of other samples 0.3."""


@dataclass(slots=True, kw_only=True)
class Screen:
    """Looks at updates for a site that audits; the traces of late ones are kept at hand."""

    store: Store
    writer: Writer
    blobs: Blobs
    rules: Rules
    _traces: dict[str, Trace] = field(default_factory=dict, init=False)

    def holds_up(self, rnd: Round, units: Sequence[WorkUnit]) -> bool:
        """Whether a round that is about to be merged must wait, because some of its ``units`` are odd and will be done again."""
        trust = self.rules.trust
        if trust is None or not units:
            return False
        with self.store.read() as tx:
            rounds = tuple(f"{rnd.job_id}.r{number}" for number in range(max(rnd.number - _ROUNDS_BACK, 0), rnd.number))
            before = tx.find(WorkUnit, round_id=rounds, state=UnitState.ACCEPTED, audits="") if rounds else []
        newest = sorted(before, key=lambda unit: (unit.spec.version, unit.accepted_at))[-MOST_TRACES:]
        in_order = sorted(units, key=lambda unit: (unit.accepted_at, unit.unit_id))
        buffers = read_version(self.blobs.path(rnd.base)).buffers
        kept = [seen for unit in newest if (seen := self._trace_of_old(unit, trust, buffers)) is not None]
        odd: dict[str, AuditReason] = {}
        for start in range(0, len(in_order), _AT_ONCE):
            part = [self._trace(unit, trust, buffers) for unit in in_order[start : start + _AT_ONCE]]
            odd |= suspicions(part, kept)
            kept = part[-MOST_TRACES:]
        return bool(odd) and self.writer.submit(partial(audit.suspect, suspicions=odd, rules=self.rules)).result() > 0

    def _trace_of_old(self, unit: WorkUnit, trust: Auditing, buffers: frozenset[str]) -> Trace | None:
        """None for an update that is not there any more, or cannot be read: it is merged, and was only to be compared with."""
        try:
            return self._trace(unit, trust, buffers) if unit.update else None
        except (InvalidInput, NotFound, OSError):
            return None

    def _trace(self, unit: WorkUnit, trust: Auditing, buffers: frozenset[str]) -> Trace:
        assert unit.update is not None
        key = f"{unit.unit_id} {unit.update}"
        if key not in self._traces:
            if len(self._traces) > 2 * _AT_ONCE:
                self._traces.clear()
            self._traces[key] = trace(
                self.blobs.path(unit.update),
                unit_id=unit.unit_id,
                number=int(unit.round_id.rpartition(".r")[2]),
                steps=unit.spec.steps,
                norm=unit.update_norm or 0.0,
                buffers=buffers,
                seed=int.from_bytes(hashlib.sha256(trust.secret).digest()[:8], "big"),
            )
        return self._traces[key]

    def twins(self, unit: WorkUnit, update: str, buffers: frozenset[str]) -> tuple[str, ...]:
        """The audited unit and its other audits, as far as their results are that of the audit ``unit`` but for rounding."""
        if not unit.audits or unit.spec.steps > audit.LONGEST_ACROSS:
            return ()
        with self.store.read() as tx:
            others = [tx.must(WorkUnit, unit.audits), *audit.audits_of(tx, unit.audits)]
        mine = self.blobs.path(update)
        return tuple(
            other.unit_id
            for other in others
            if other.state is UnitState.ACCEPTED
            and other.update not in (None, update)
            and self.blobs.has(other.update or "")
            and differ(self.blobs.path(other.update or ""), mine, buffers=buffers) <= SAME_BUT_FOR_ROUNDING
        )
