from datetime import UTC, datetime, timedelta

from gridsched.demo.spark import bar, begun_columns, by_column, strip

DAY = datetime(2018, 1, 27, 23, tzinfo=UTC)


def at(hours: float) -> datetime:
    return DAY + timedelta(hours=hours)


def test_a_column_is_the_mean_of_what_fell_into_it_and_none_where_nothing_did() -> None:
    values = [(at(0), 10.0), (at(5.9), 30.0), (at(6), 7.0), (at(13), None), (at(18), -4.0)]
    assert by_column(values, day=DAY, columns=4) == [20.0, 7.0, None, -4.0]


def test_what_is_outside_the_day_is_left_out() -> None:
    assert by_column([(at(-0.1), 1.0), (at(24), 2.0)], day=DAY, columns=3) == [None, None, None]


def test_columns_begin_one_after_another_and_never_more_than_there_are() -> None:
    assert [begun_columns(at(h), day=DAY, columns=4) for h in (-7, -0.1, 0, 5.9, 6, 23.9, 24, 60)] == [0, 0, 1, 1, 2, 4, 4, 4]


def test_a_strip_draws_heights_blanks_and_what_is_yet_to_come() -> None:
    drawn = strip([0.0, 4.0, 8.0, 99.0, None, 1.0], top=8.0, colour="green", begun=5)
    assert drawn.plain == "▁▅██ ·"


def test_a_negative_value_has_its_own_colour_and_the_height_of_its_size() -> None:
    drawn = strip([-8.0, 8.0], top=8.0, colour="yellow", below="cyan")
    assert drawn.plain == "██"
    assert [str(span.style) for span in drawn.spans] == ["cyan", "yellow"]


def filled(value: float, *, top: float = 10.0) -> str:
    drawn = bar(value, top=top, width=4, colour="red")
    assert len(drawn.plain) == 4
    return drawn.plain[: len(drawn.plain) - sum(span.end - span.start for span in drawn.spans)]


def test_a_bar_is_as_wide_as_told_whatever_its_value() -> None:
    assert [filled(v) for v in (-1.0, 0.0, 2.5, 3.75, 10.0, 50.0)] == ["", "", "━", "━╸", "━━━━", "━━━━"]
    assert filled(5.0, top=0.0) == ""
