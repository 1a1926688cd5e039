"""What a study found, as a document, as rows of words, and as panels to draw."""

from collections.abc import Mapping, Sequence
from typing import Any

from gridsched.report.study import Line, Panel
from gridsched.study.churn import Outcome
from gridsched.study.switching import How

__all__ = ["churn_document", "churn_panels", "churn_rows", "peers_document", "peers_panels", "peers_rows"]

_WORDS = {How.OPT_OUT: "opting out and in", How.POWER_CUT: "power cut (kill -9) and back"}


def churn_document(found: Sequence[Outcome], job_id: str) -> dict[str, Any]:
    """All figures, and whether the runs that came to their end came to the same bits."""
    ended = [one for one in found if one.done >= 1]
    same = len({one.digest for one in ended}) == 1
    bits = "all in the same bits" if same else "NOT in the same bits"
    most = max(one.nodes for one in found)
    return {
        "title": f"{most} nodes switched off and on every X seconds",
        "about": f"job {job_id}; {len(ended)} of {len(found)} runs came to their end, {bits}; "
        "each node is held to its share of this machine; energy is estimated from processor time; "
        "audits are units of nodes not yet trusted, done again elsewhere and compared: one node alone has nobody for that",
        "same_bits": same,
        "runs": [one.as_dict() for one in found],
    }


def churn_rows(found: Sequence[Outcome]) -> list[Mapping[str, str]]:
    """One row a run; times and energies also against the same nodes in peace."""
    peace = next(one for one in found if one.every_s is None and one.nodes > 1)
    return [
        {
            "run": one.arm,
            "accuracy": "" if one.accuracy is None else f"{one.accuracy:.2%}",
            "final bits": _bits(one, peace),
            "time": f"{one.wall_s:.0f} s ({one.wall_s / peace.wall_s:.2f} x)"
            if one.done >= 1
            else f"{one.done:.0%} done in {one.wall_s:.0f} s",
            "useful Wh/epoch": _watt_hours(one, one.useful_j),
            "audits Wh/epoch": _watt_hours(one, one.audit_j),
            "wasted Wh/epoch": _watt_hours(one, one.wasted_j - one.audit_j),
            "energy": _against(one, peace),
            "power cuts": str(one.cuts),
        }
        for one in found
    ]


def _bits(one: Outcome, peace: Outcome) -> str:
    if one.done < 1:
        return "(not done)"
    return f"{one.digest[:8]}{'' if one.digest == peace.digest else ' DIFFERENT'}"


def _against(one: Outcome, peace: Outcome) -> str:
    peaceful_j = peace.useful_j + peace.wasted_j
    return f"{(one.useful_j + one.wasted_j) / peaceful_j:.3f} x" if peaceful_j and peace.ended and one.ended else ""


def _watt_hours(one: Outcome, energy_j: float) -> str:
    return f"{energy_j / 3600:.3f}" if one.ended else "no epoch"


def churn_panels(found: Sequence[Outcome]) -> list[Panel]:
    """Accuracy, time and energy over X."""
    alone = next(one for one in found if one.every_s is None and one.nodes == 1)
    peace = next(one for one in found if one.every_s is None and one.nodes > 1)

    def lines(value: Any) -> list[Line]:
        drawn = []
        for how, words in _WORDS.items():
            runs = sorted((one for one in found if one.how == how), key=lambda one: one.every_s or 0.0)
            if runs:
                drawn.append(
                    Line(name=words, x=[one.every_s or 0.0 for one in runs], y=[value(one) if one.done >= 1 else None for one in runs])
                )
        return [*drawn, Line(name=f"{peace.nodes} nodes in peace", y=[value(peace)]), Line(name="one node alone", y=[value(alone)])]

    every = "switched every X seconds"
    return [
        Panel(title="Accuracy (%)", x_title=every, lines=lines(lambda one: one.accuracy), log=True, percent=True),
        Panel(title="Time (s)", x_title=every, lines=lines(lambda one: one.wall_s), log=True),
        Panel(title="Energy per epoch (Wh)", x_title=every, lines=lines(lambda one: (one.useful_j + one.wasted_j) / 3600), log=True),
    ]


def peers_document(found: Sequence[Outcome], job_id: str) -> dict[str, Any]:
    """All figures of gridsched's runs and the peers'."""
    most = max(one.nodes for one in found)
    return {
        "title": f"{most} nodes without power and with it every X seconds: gridsched and its peers",
        "about": f"job {job_id}; torch.distributed saves a checkpoint at the end of every epoch and begins again there after each cut; "
        "energy is estimated from processor time in the same way for all; it is all that was drawn, spread over the epochs that ended, "
        "but for what units under way at the end had drawn with gridsched, which alone does units of nodes not yet trusted again (audits)",
        "runs": [one.as_dict() for one in found],
    }


def peers_rows(found: Sequence[Outcome]) -> list[Mapping[str, str]]:
    """One row a run; the energy is all that was drawn, spread over the epochs that ended."""
    return [
        {
            "run": one.arm,
            "accuracy": "" if one.accuracy is None else f"{one.accuracy:.2%}",
            "done": f"{one.done:.0%}",
            "time": f"{one.wall_s:.0f} s",
            "Wh/epoch": _watt_hours(one, _spent_j(one)),
            "of it audits": _watt_hours(one, one.audit_j),
            "power cuts": str(one.cuts),
        }
        for one in found
    ]


def peers_panels(found: Sequence[Outcome]) -> list[Panel]:
    """How far each came and what it took, over X."""
    sides: dict[str, list[Outcome]] = {"gridsched": []}
    for one in found:
        peer = "" if one.digest else one.arm.partition(":")[0]
        sides.setdefault(peer or "gridsched", []).append(one)

    def lines(value: Any, *, ended: bool) -> list[Line]:
        drawn = []
        for name, runs in sides.items():
            cut = sorted((one for one in runs if one.every_s is not None), key=lambda one: one.every_s or 0.0)
            drawn.append(
                Line(
                    name=name, x=[one.every_s or 0.0 for one in cut], y=[value(one) if one.done >= 1 or not ended else None for one in cut]
                )
            )
        for name, runs in sides.items():
            drawn += [Line(name=f"{name}, in peace", y=[value(one)]) for one in runs if one.every_s is None and one.nodes > 1]
        return drawn

    every = "a power cut every X seconds"
    return [
        Panel(title="Done when time was up (%)", x_title=every, lines=lines(lambda one: one.done, ended=False), log=True, percent=True),
        Panel(title="Accuracy (%)", x_title=every, lines=lines(lambda one: one.accuracy, ended=True), log=True, percent=True),
        Panel(title="Time to the last epoch (s)", x_title=every, lines=lines(lambda one: one.wall_s, ended=True), log=True),
        Panel(title="Energy per epoch (Wh)", x_title=every, lines=lines(lambda one: _spent_j(one) / 3600, ended=True), log=True),
    ]


def _spent_j(one: Outcome) -> float:
    return one.useful_j + one.wasted_j + one.idle_j
