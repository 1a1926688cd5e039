"""The studies of data, members and rules as documents, rows of words and panels to draw."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gridsched.report.study import Line, Panel
from gridsched.study.together import Combination, Members, Share
from gridsched.train.ensemble import Rule

__all__ = ["Told", "combination_told", "data_told", "members_told"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What `report.study.write` writes."""

    document: Mapping[str, Any]
    rows: Sequence[Mapping[str, str]]
    panels: Sequence[Panel]


def data_told(found: Sequence[Share], about: str) -> Told:
    """Accuracy against the amount of data."""
    counts = [float(one.samples) for one in found]
    lines = [
        Line(name="as many epochs", x=counts, y=[one.accuracy for one in found]),
        Line(name="as many steps as with all samples", x=counts, y=[one.as_many_steps for one in found]),
    ]
    return Told(
        document={"title": "Accuracy against the amount of data", "about": about, "runs": [asdict(one) for one in found]},
        rows=[
            {"samples": f"{one.samples}", "as many epochs": f"{one.accuracy:.2%}", "as many steps": f"{one.as_many_steps:.2%}"}
            for one in found
        ],
        panels=[Panel(title="Accuracy (%)", x_title="training samples", lines=lines, log=True, percent=True)],
    )


def members_told(found: Sequence[Members], about: str) -> Told:
    """Accuracy against the number of members."""
    counts = [float(one.count) for one in found]
    lines = [
        Line(name="together, a share of the samples each", x=counts, y=[one.shares for one in found]),
        Line(name="one of those alone", x=counts, y=[one.one_share for one in found]),
        Line(name="together, a bag of all samples each", x=counts, y=[one.bags for one in found]),
        Line(name="one of those alone", x=counts, y=[one.one_bag for one in found]),
    ]
    return Told(
        document={"title": "Accuracy against the number of members", "about": about, "runs": [asdict(one) for one in found]},
        rows=[
            {
                "members": f"{one.count}",
                "shares, together": f"{one.shares:.2%}",
                "one share": f"{one.one_share:.2%}",
                "bags, together": f"{one.bags:.2%}",
                "one bag": f"{one.one_bag:.2%}",
            }
            for one in found
        ],
        panels=[Panel(title="Accuracy (%)", x_title="members", lines=lines, percent=True)],
    )


def combination_told(found: Sequence[Combination], about: str) -> Told:
    """Accuracy by rule."""
    places = [float(place) for place in range(len(Rule))]
    lines = [Line(name=f"{one.case}: use {one.best}", x=places, y=[one.by_rule[rule.value] for rule in Rule]) for one in found]
    panel = Panel(title="Accuracy (%)", x_title="rule", lines=lines, percent=True, ticks=tuple(rule.value for rule in Rule))
    return Told(
        document={
            "title": "How members' answers are combined",
            "about": about,
            "runs": [asdict(one) | {"best": one.best} for one in found],
        },
        rows=[
            {
                "members who hold": one.case,
                **{rule.value: f"{one.by_rule[rule.value]:.2%}" for rule in Rule},
                "one alone": f"{one.mean_alone:.2%}",
                "use": one.best,
            }
            for one in found
        ],
        panels=[panel],
    )
