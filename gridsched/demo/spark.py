"""Small pictures made of characters: the strip of a day, and a bar. Pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from rich.text import Text

__all__ = ["bar", "begun_columns", "by_column", "strip"]

_BLOCKS = "▁▂▃▄▅▆▇█"
_FAINT = "grey27"


def by_column(values: Iterable[tuple[datetime, float | None]], *, day: datetime, columns: int) -> list[float | None]:
    """The mean of the values in each of ``columns`` equal parts of the day; None where nothing is known."""
    part = timedelta(days=1) / columns
    found: list[list[float]] = [[] for _ in range(columns)]
    for at, value in values:
        column = (at - day) // part
        if value is not None and 0 <= column < columns:
            found[column].append(value)
    return [sum(column) / len(column) if column else None for column in found]


def begun_columns(now: datetime, *, day: datetime, columns: int) -> int:
    """How many columns of the day have begun at ``now``."""
    return min(max((now - day) // (timedelta(days=1) / columns) + 1, 0), columns)


def strip(values: Sequence[float | None], *, top: float, colour: str, below: str = "", begun: int | None = None) -> Text:
    """One character a value, as high as its share of ``top``; negative ones in the colour ``below``.

    Nothing known is a blank; what lies beyond ``begun`` columns is yet to come.
    """
    text = Text(no_wrap=True)
    for column, value in enumerate(values):
        if begun is not None and column >= begun:
            text.append("·", style=_FAINT)
        elif value is None:
            text.append(" ")
        else:
            style = _FAINT if abs(value) < top / 100 else below if value < 0 else colour
            text.append(_BLOCKS[min(int(abs(value) / top * len(_BLOCKS)), len(_BLOCKS) - 1)], style=style)
    return text


def bar(value: float, *, top: float, width: int, colour: str) -> Text:
    """``value`` of ``top`` as a line of ``width`` characters, fine to half a one."""
    full, half = divmod(round(min(max(value / top if top else 0.0, 0.0), 1.0) * width * 2), 2)
    text = Text("━" * full + "╸" * half, style=colour, no_wrap=True)
    text.append("━" * (width - len(text)), style=_FAINT)
    return text
