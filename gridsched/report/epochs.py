"""What each epoch took, and a whole run in numbers."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from gridsched.core.facts import Fact, LeaseEnded, LeasePaused, PolicyDecided
from gridsched.core.ledger import Account
from gridsched.core.round import Epoch, Version
from gridsched.core.units import MICRO, kwh
from gridsched.report.strips import crashes

__all__ = ["COLUMNS", "balanced", "summary", "table"]

COLUMNS = [
    "job_id", "epoch", "started_at", "ended_at", "useful_j", "wasted_j", "audit_j", "idle_j", "energy_kwh", "useful_share", "cost_eur",
    "reward_eur", "units", "loss", "accuracy",
]  # fmt: skip


def table(epochs: Sequence[Epoch]) -> pd.DataFrame:
    """One row per epoch with `COLUMNS`, by job and number.

    ``cost_eur`` is the energy at the prices of its hours, negative where the grid paid; ``useful_share`` is NaN where nothing
    was metered; ``audit_j``, a part of ``wasted_j``, was spent on doing units again; ``ended_at`` is NaT while the epoch is open.
    """
    rows = [_row(epoch) for epoch in sorted(epochs, key=lambda e: (e.job_id, e.number))]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    moments = {name: pd.to_datetime(frame[name], utc=True) for name in ("started_at", "ended_at")}
    return frame.assign(**moments).astype({"loss": float, "accuracy": float})


def _row(epoch: Epoch) -> dict[str, Any]:
    whole_j = epoch.useful_j + epoch.wasted_j + epoch.idle_j
    return {
        "job_id": epoch.job_id,
        "epoch": epoch.number,
        "started_at": epoch.started_at,
        "ended_at": epoch.ended_at,
        "useful_j": epoch.useful_j,
        "wasted_j": epoch.wasted_j,
        "audit_j": epoch.audit_j,
        "idle_j": epoch.idle_j,
        "energy_kwh": kwh(whole_j),
        "useful_share": epoch.useful_j / whole_j if whole_j else float("nan"),
        "cost_eur": epoch.cost_micro / MICRO,
        "reward_eur": epoch.reward_micro / MICRO,
        "units": epoch.units,
        "loss": epoch.loss,
        "accuracy": epoch.accuracy,
    }


def summary(
    *, job_id: str, facts: Sequence[Fact], epochs: Sequence[Epoch], versions: Sequence[Version], accounts: Sequence[Account]
) -> dict[str, Any]:
    """A run of ``job_id`` as plain JSON values; energies in joules, money in micro-units.

    ``accuracy`` and ``final_digest`` are the newest evaluated and the newest version's, None where there is none. ``reasons``
    counts decisions by reason, ``lease_reasons`` why leases were paused or ended.
    """
    own = sorted((v for v in versions if v.job_id == job_id), key=lambda v: v.number)
    evaluated = [v.accuracy for v in own if v.accuracy is not None]
    return {
        "job_id": job_id,
        "accuracy": evaluated[-1] if evaluated else None,
        "epochs": [_epoch_of(e) for e in sorted(epochs, key=lambda e: e.number) if e.job_id == job_id],
        "pauses": sum(isinstance(f, LeasePaused) for f in facts),
        "hand_overs": sum(isinstance(f, LeaseEnded) and f.state == "handed_over" for f in facts),
        "crashes": len(crashes(facts)),
        "reasons": _count(f.reason for f in facts if isinstance(f, PolicyDecided)),
        "lease_reasons": _count(f.reason for f in facts if isinstance(f, (LeasePaused, LeaseEnded))),
        "ledger_balanced": balanced(accounts),
        "final_digest": own[-1].digest if own else None,
    }


def _epoch_of(epoch: Epoch) -> dict[str, Any]:
    names = ("number", "useful_j", "wasted_j", "audit_j", "idle_j", "cost_micro", "reward_micro", "units", "loss", "accuracy")
    return {name: getattr(epoch, name) for name in names}


def _count(reasons: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(reasons).items(), key=lambda item: (-item[1], item[0])))


def balanced(accounts: Sequence[Account]) -> bool:
    """Whether what was debited was credited, pending and posted each."""
    return all(
        sum(getattr(a, f"debits_{kind}") for a in accounts) == sum(getattr(a, f"credits_{kind}") for a in accounts)
        for kind in ("pending", "posted")
    )
