"""What holds for every policy and every day."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from gridsched.core.policy import AllOf, AnyOf, Comparison, Condition, Decision, Draw, Leaf, Policy, PolicyState, TopUp, evaluate
from gridsched.core.signal import Quality, Reading, SignalKind, snapshot
from tests.core.policies import CHEAP, MINUTE, START, policy, seen

Known = dict[SignalKind, float]

surplus_w = st.integers(min_value=-3, max_value=6).map(lambda step: 500.0 * step)
price = st.sampled_from([-500.0, -1.0, 0.0, 3.0, 50.0, 4000.0])


@st.composite
def surplus_leaf(draw: st.DrawFn) -> Leaf:
    start = draw(st.sampled_from([0.0, 500.0, 1000.0, 2000.0]))
    return Leaf(
        signal=SignalKind.SURPLUS,
        comparison=Comparison.ABOVE,
        start=start,
        stop=start - draw(st.sampled_from([0.0, 500.0])),
        start_delay=draw(st.integers(0, 4)) * MINUTE,
        stop_delay=draw(st.integers(0, 4)) * MINUTE,
    )


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    leaves: list[Condition] = [draw(surplus_leaf())]
    if draw(st.booleans()):
        leaves.append(CHEAP)
    combine = draw(st.sampled_from([AnyOf, AllOf]))
    minimum = draw(st.sampled_from([0.0, 150.0]))
    share = Draw(
        share_of=SignalKind.SURPLUS, share=draw(st.floats(0, 1)), min_w=minimum, max_w=draw(st.sampled_from([None, 150.0, 2000.0]))
    )
    return policy(
        when=combine(tuple(leaves)),
        draw=draw(st.sampled_from([share, Draw(watts=800.0)])),
        top_up=draw(st.sampled_from([TopUp(), TopUp(allowed=True, watts=300.0, max_price_eur_mwh=20.0)])),
        stale_after=((SignalKind.SURPLUS, timedelta(0)),),
    )


def run(rule: Policy, day: Sequence[Known], *, wants_top_up: bool = False) -> list[Decision]:
    state, decisions = PolicyState(), []
    for minute, known in enumerate(day):
        now = START + minute * MINUTE
        decision, state = evaluate(rule, state, seen(now, known), now, wants_top_up=wants_top_up)
        decisions.append(decision)
    return decisions


minutes = st.lists(st.tuples(surplus_w, st.integers(0, 4), price), min_size=1, max_size=40)


@given(policies(), minutes, st.booleans())
def test_more_surplus_never_lowers_the_target(rule: Policy, day: list[tuple[float, int, float]], wanted: bool) -> None:
    less = [{SignalKind.SURPLUS: w, SignalKind.PRICE: eur} for w, _, eur in day]
    more = [{SignalKind.SURPLUS: w + 500.0 * extra, SignalKind.PRICE: eur} for w, extra, eur in day]
    for low, high in zip(run(rule, less, wants_top_up=wanted), run(rule, more, wants_top_up=wanted), strict=True):
        assert high.target_w >= low.target_w


@given(surplus_leaf(), st.lists(st.one_of(surplus_w, st.none()), min_size=1, max_size=60))
def test_the_target_never_flaps_faster_than_its_delays(leaf: Leaf, day: list[float | None]) -> None:
    rule = policy(leaf, draw=Draw(watts=800.0), stale_after=((SignalKind.SURPLUS, timedelta(0)),))
    decisions = run(rule, [{} if w is None else {SignalKind.SURPLUS: w} for w in day])
    known = [w is not None for w in day]
    runs = [(on, [index for index, _ in steps]) for on, steps in groupby(enumerate(d.target_w > 0 for d in decisions), key=lambda s: s[1])]
    for (on, steps), (_, following) in pairwise(runs):
        lasted = (following[0] - steps[0]) * MINUTE
        if not on:
            assert lasted >= leaf.start_delay
        elif known[following[0]]:  # a signal that goes missing stops at once
            assert lasted >= leaf.stop_delay


@given(policies(), minutes)
def test_a_target_is_finite_not_negative_and_under_the_cap(rule: Policy, day: list[tuple[float, int, float]]) -> None:
    for decision in run(rule, [{SignalKind.SURPLUS: w, SignalKind.PRICE: eur} for w, _, eur in day], wants_top_up=True):
        assert 0 <= decision.target_w < 1e6
        assert decision.target_w <= (1e6 if rule.draw.max_w is None else rule.draw.max_w)


def _row(start: datetime, value: float, known_at: datetime) -> Reading:
    return Reading(
        zone="demo",
        signal=SignalKind.SURPLUS,
        start=start,
        end=start + 5 * MINUTE,
        value=value,
        quality=Quality.MEASURED,
        source="test",
        known_at=known_at,
    )


rows = st.lists(
    st.builds(
        lambda slot, value, known: _row(START + slot * 5 * MINUTE, value, START + known * MINUTE),
        st.integers(0, 8),
        surplus_w,
        st.integers(0, 60),
    ),
    max_size=30,
)


@given(policies(), rows, st.integers(0, 40), st.randoms(use_true_random=False))
def test_scrambling_what_is_learned_later_changes_nothing(rule: Policy, day: list[Reading], until: int, random: Random) -> None:
    cut = START + until * MINUTE
    scrambled = [row if row.known_at <= cut else replace(row, value=row.value + random.randint(-9, 9) * 777.0) for row in day]
    random.shuffle(scrambled)
    outcomes = []
    for readings in (day, scrambled):
        state, decisions = PolicyState(), []
        for minute in range(until + 1):
            now = START + minute * MINUTE
            decision, state = evaluate(rule, state, snapshot("demo", now, readings), now)
            decisions.append(decision)
        outcomes.append(decisions)
    assert outcomes[0] == outcomes[1]
