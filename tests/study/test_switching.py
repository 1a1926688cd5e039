"""Nodes that are switched off and on: half of the time each, in turns."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsched.core.errors import InvalidInput
from gridsched.study.switching import Switching

SECONDS = st.floats(0.5, 500)


@given(st.integers(1, 9), SECONDS, SECONDS)
def test_every_node_is_off_as_long_as_it_is_on(nodes: int, every_s: float, at_s: float) -> None:
    plan = Switching(nodes=nodes, every_s=every_s)
    looks = [at_s + every_s * part / 500 for part in range(1000)]
    for node in range(nodes):
        assert 0.49 < sum(plan.on(node, look) for look in looks) / 1000 < 0.51
        changes = sum(plan.on(node, a) is not plan.on(node, b) for a, b in pairwise(looks))
        assert changes in (1, 2), "on once and off once in twice that time"


@given(st.integers(1, 9), SECONDS, SECONDS)
def test_about_half_of_the_nodes_are_on_at_any_time(nodes: int, every_s: float, at_s: float) -> None:
    plan = Switching(nodes=nodes, every_s=every_s)
    on = sum(plan.on(node, at_s) for node in range(nodes))
    assert abs(on - nodes / 2) <= 1


def test_no_time_at_all_is_refused() -> None:
    with pytest.raises(InvalidInput, match="above 0"):
        Switching(nodes=2, every_s=0)
