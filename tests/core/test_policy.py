"""What one evaluation says, reason by reason."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gridsched.core.errors import PolicyError
from gridsched.core.policy import (
    AlarmRule,
    AllOf,
    AnyOf,
    Budget,
    Comparison,
    Decision,
    Draw,
    Leaf,
    Policy,
    PolicyState,
    Reason,
    Reward,
    Tier,
    TopUp,
    Used,
    day_start,
    evaluate,
)
from gridsched.core.signal import SignalKind, snapshot
from tests.core.policies import CHEAP, MINUTE, START, SURPLUS, policy, reading, seen

AT_ONCE = Leaf(signal=SignalKind.SURPLUS, comparison=Comparison.ABOVE, start=1000.0, stop=500.0)
LITTLE_WANTED = Leaf(signal=SignalKind.RESIDUAL_LOAD, comparison=Comparison.BELOW, start=2e10, stop=2e10)
PLENTY = {SignalKind.SURPLUS: 4000.0}


def decide(rule: Policy, values: dict[SignalKind, float], **options: object) -> Decision:
    return evaluate(rule, PolicyState(), seen(START, values), START, **options)[0]  # type: ignore[arg-type]


def run(rule: Policy, values: list[dict[SignalKind, float]]) -> list[Decision]:
    """One decision a minute."""
    state, decisions = PolicyState(), []
    for minute, known in enumerate(values):
        now = START + minute * MINUTE
        decision, state = evaluate(rule, state, seen(now, known), now)
        decisions.append(decision)
    return decisions


class TestTwoSources:
    """A signal that two adapters give, one of them serving zeros."""

    RULE = policy(CHEAP, draw=Draw(watts=700.0), agree=((SignalKind.PRICE, 5.0),))

    def told(self, one: float, other: float | None, *, rule: Policy = RULE, until: int = 60) -> Decision:
        rows = [replace(reading(SignalKind.PRICE, one, START, length=60 * MINUTE), source="market")]
        if other is not None:
            rows.append(replace(reading(SignalKind.PRICE, other, START, length=until * MINUTE), source="zeros"))
        now = START + 30 * MINUTE
        return evaluate(rule, PolicyState(), snapshot("demo", now, rows, rule.stale_limits), now)[0]

    @pytest.mark.parametrize(
        ("one", "other", "target_w", "reason"),
        [
            (-9.0, None, 700, Reason.PRICE),
            (-9.0, -9.0, 700, Reason.PRICE),
            (-9.0, -4.0, 700, Reason.PRICE),
            (-9.0, 0.0, 0, Reason.DISPUTED_SIGNAL),
            (60.0, -1.0, 0, Reason.DISPUTED_SIGNAL),
            (60.0, 62.0, 0, Reason.NO_SURPLUS),
        ],
    )
    def test_what_they_tell_too_differently_is_not_believed(self, one: float, other: float | None, target_w: float, reason: Reason) -> None:
        decision = self.told(one, other)
        assert (decision.target_w, decision.reason) == (target_w, reason)
        if reason is Reason.DISPUTED_SIGNAL:
            assert "market says" in decision.detail or "and market says" in decision.detail
            assert "zeros says" in decision.detail

    def test_without_agree_the_better_source_counts_alone(self) -> None:
        assert self.told(-9.0, 0.0, rule=replace(self.RULE, agree=())).reason in (Reason.PRICE, Reason.NO_SURPLUS)

    def test_one_that_has_fallen_silent_disputes_nothing(self) -> None:
        assert self.told(-9.0, 0.0, until=30).target_w == 700

    @pytest.mark.parametrize("kind", [SignalKind.CARBON, SignalKind.ALARM])
    def test_what_is_not_looked_at_or_obeyed_anyway_is_refused(self, kind: SignalKind) -> None:
        with pytest.raises(PolicyError, match=r"\[agree\]"):
            policy(CHEAP, agree=((kind, 5.0),))


class TestReasons:
    @pytest.mark.parametrize(
        ("rule", "values", "options", "target_w", "reason"),
        [
            (policy(AT_ONCE), PLENTY, {}, 3200, Reason.SURPLUS),
            (policy(AT_ONCE), {SignalKind.SURPLUS: 1000.0}, {}, 0, Reason.NO_SURPLUS),
            (policy(SURPLUS), PLENTY, {}, 0, Reason.WAITING_START_DELAY),
            (policy(AT_ONCE), {}, {}, 0, Reason.UNKNOWN_SIGNAL),
            (policy(AT_ONCE), {**PLENTY, SignalKind.ALARM: 1.0}, {}, 0, Reason.ALARM),
            (policy(AT_ONCE), {**PLENTY, SignalKind.ALARM: 0.0}, {}, 3200, Reason.SURPLUS),
            (policy(AT_ONCE, alarm=AlarmRule(required=True)), PLENTY, {}, 0, Reason.UNKNOWN_SIGNAL),
            (policy(AT_ONCE), PLENTY, {"paused": True}, 0, Reason.PAUSED_BY_OPERATOR),
            (policy(AT_ONCE, draw=Draw(watts=0.0)), PLENTY, {}, 0, Reason.CAP_ZERO),
            (policy(AT_ONCE, draw=Draw(watts=9.0, max_w=0.0)), PLENTY, {}, 0, Reason.CAP_ZERO),
            (policy(AT_ONCE, draw=Draw(watts=900.0)), PLENTY, {}, 900, Reason.SURPLUS),
            (policy(AT_ONCE, budget=Budget(energy_j=10.0)), PLENTY, {"used": Used(energy_j=9.9)}, 3200, Reason.SURPLUS),
            (policy(AT_ONCE, budget=Budget(energy_j=10.0)), PLENTY, {"used": Used(energy_j=10.0)}, 0, Reason.BUDGET_SPENT_ENERGY),
            (policy(AT_ONCE, budget=Budget(energy_j=0.0)), PLENTY, {}, 0, Reason.BUDGET_SPENT_ENERGY),
            (policy(AT_ONCE, budget=Budget(money_micro=5)), PLENTY, {"used": Used(money_micro=5)}, 0, Reason.BUDGET_SPENT_MONEY),
            (policy(AT_ONCE, valid_from=START + MINUTE), PLENTY, {}, 0, Reason.OUTSIDE_VALIDITY),
            (policy(AT_ONCE, valid_from=START), PLENTY, {}, 3200, Reason.SURPLUS),
            (policy(AT_ONCE, valid_until=START), PLENTY, {}, 0, Reason.OUTSIDE_VALIDITY),
            (policy(CHEAP, draw=Draw(watts=700.0)), {SignalKind.PRICE: -0.01}, {}, 700, Reason.PRICE),
            (policy(CHEAP, draw=Draw(watts=700.0)), {SignalKind.PRICE: 0.0}, {}, 0, Reason.NO_SURPLUS),
            (policy(AT_ONCE), {**PLENTY, SignalKind.LIMIT: 9000.0}, {}, 3200, Reason.SURPLUS),
            (policy(AT_ONCE), {**PLENTY, SignalKind.LIMIT: 300.0}, {}, 300, Reason.SURPLUS),
            (policy(AT_ONCE), {**PLENTY, SignalKind.LIMIT: 0.0}, {}, 0, Reason.LIMITED_TO_ZERO),
            (policy(AT_ONCE), {SignalKind.SURPLUS: 0.0, SignalKind.LIMIT: 0.0}, {}, 0, Reason.NO_SURPLUS),
            (policy(LITTLE_WANTED, draw=Draw(watts=700.0)), {SignalKind.RESIDUAL_LOAD: 1.9e10}, {}, 700, Reason.LOW_RESIDUAL_LOAD),
            (policy(LITTLE_WANTED, draw=Draw(watts=700.0)), {SignalKind.RESIDUAL_LOAD: 2e10}, {}, 0, Reason.NO_SURPLUS),
        ],
    )
    def test_one_look_one_reason(
        self, rule: Policy, values: dict[SignalKind, float], options: dict[str, object], target_w: float, reason: Reason
    ) -> None:
        decision = decide(rule, values, **options)
        assert (decision.target_w, decision.reason) == (target_w, reason)
        assert decision.tier is (Tier.SURPLUS if target_w else Tier.NONE)
        assert decision.detail

    def test_the_cap_holds(self) -> None:
        assert decide(policy(AT_ONCE), {SignalKind.SURPLUS: 1e9}).target_w == 5000

    def test_a_decision_names_its_policy_its_inputs_and_what_it_pays(self) -> None:
        rule = policy(AT_ONCE, CHEAP, reward=Reward(micro_per_kwh=250_000, micro_per_unit=500))
        decision = decide(rule, {**PLENTY, SignalKind.PRICE: 30.0, SignalKind.CARBON: 100.0})
        assert (decision.zone, decision.policy, decision.policy_digest) == ("demo", "test", rule.digest)
        assert [(i.signal, i.value, i.age_s, i.source) for i in decision.inputs] == [
            (SignalKind.PRICE, 30.0, 0.0, "test"),
            (SignalKind.SURPLUS, 4000.0, 0.0, "test"),
        ]
        assert (decision.reward_micro_per_kwh, decision.reward_micro_per_unit) == (250_000, 500)


class TestUnknownIsNotSurplus:
    def test_a_stale_signal_pauses_at_once_and_is_named(self) -> None:
        rule = policy(SURPLUS, stale_after=((SignalKind.SURPLUS, MINUTE),))
        state = PolicyState()
        for minute in range(3):
            now = START + minute * MINUTE
            _, state = evaluate(rule, state, seen(now, PLENTY), now)
        now = START + 2 * MINUTE
        last = reading(SignalKind.SURPLUS, 4000.0, now)
        for later, reason in [(2 * MINUTE, Reason.SURPLUS), (2 * MINUTE + timedelta(seconds=1), Reason.STALE_SIGNAL)]:
            decision, state = evaluate(rule, state, snapshot("demo", now + later, [last]), now + later)
            assert decision.reason is reason
            assert (reason is Reason.SURPLUS) or "surplus from test is stale" in decision.detail

    def test_the_policys_limit_decides_whatever_the_snapshot_was_built_with(self) -> None:
        rule = policy(AT_ONCE, stale_after=((SignalKind.SURPLUS, timedelta(0)),))
        now = START + 2 * MINUTE
        generous = snapshot("demo", now, [reading(SignalKind.SURPLUS, 4000.0, START)], {SignalKind.SURPLUS: timedelta(days=1)})
        assert generous.value(SignalKind.SURPLUS) == 4000.0
        assert evaluate(rule, PolicyState(), generous, now)[0].reason is Reason.STALE_SIGNAL

    def test_an_unknown_signal_does_not_spoil_an_any_that_another_carries(self) -> None:
        rule = policy(AT_ONCE, CHEAP, draw=Draw(watts=700.0))
        assert decide(rule, {SignalKind.PRICE: -5.0}).reason is Reason.PRICE
        assert decide(rule, {SignalKind.PRICE: 5.0}).reason is Reason.UNKNOWN_SIGNAL

    def test_an_unknown_signal_never_carries_an_all(self) -> None:
        rule = policy(when=AllOf((AT_ONCE, CHEAP)))
        assert decide(rule, PLENTY).reason is Reason.UNKNOWN_SIGNAL
        assert decide(rule, {SignalKind.PRICE: 5.0}).reason is Reason.NO_SURPLUS
        assert decide(rule, {**PLENTY, SignalKind.PRICE: -5.0}).target_w == 3200

    def test_a_negative_price_with_an_unknown_surplus_draws_the_minimum_only(self) -> None:
        with_minimum = Draw(share_of=SignalKind.SURPLUS, share=0.8, min_w=150.0)
        without = Draw(share_of=SignalKind.SURPLUS, share=0.8)
        assert decide(policy(CHEAP, draw=with_minimum), {SignalKind.PRICE: -5.0}).target_w == 150
        assert decide(policy(CHEAP, draw=without), {SignalKind.PRICE: -5.0}).reason is Reason.UNKNOWN_SIGNAL
        assert decide(policy(CHEAP, draw=without), {SignalKind.PRICE: -5.0, SignalKind.SURPLUS: -9.0}).reason is Reason.NO_SURPLUS

    def test_an_alarm_that_was_heard_and_then_lost_pauses(self) -> None:
        rule = policy(AT_ONCE)
        now = START + timedelta(hours=1)
        lost = [reading(SignalKind.ALARM, 0.0, START), reading(SignalKind.SURPLUS, 4000.0, now)]
        assert evaluate(rule, PolicyState(), snapshot("demo", now, lost), now)[0].reason is Reason.STALE_SIGNAL

    def test_an_alarm_that_falls_silent_before_it_clears_must_still_be_clear_for_a_while(self) -> None:
        rule = policy(AT_ONCE, alarm=AlarmRule(clear_for=2 * MINUTE))
        alarm, clear = {**PLENTY, SignalKind.ALARM: 1.0}, {**PLENTY, SignalKind.ALARM: 0.0}
        reasons = [d.reason for d in run(rule, [alarm, PLENTY, clear, clear, PLENTY, clear, clear, clear])]
        silent, held = Reason.UNKNOWN_SIGNAL, Reason.ALARM  # what was clear before a silence does not count
        assert reasons == [held, silent, held, held, silent, held, held, Reason.SURPLUS]

    @pytest.mark.parametrize(("after", "target_w"), [(3, 300.0), (70, 300.0), (900, 300.0), (960, 300.0), (1027, 3200.0)])
    def test_between_two_messages_of_a_meter_the_utilitys_limit_holds(self, after: int, target_w: float) -> None:
        """Each is for a minute, the second comes six seconds late, and none after it."""
        now = START + MINUTE + timedelta(seconds=after)
        said = [reading(SignalKind.LIMIT, 300.0, at) for at in (START, START + timedelta(seconds=66))]
        live = reading(SignalKind.SURPLUS, 4000.0, now)
        assert evaluate(policy(AT_ONCE), PolicyState(), snapshot("demo", now, [*said, live]), now)[0].target_w == target_w


class TestDelays:
    def test_it_starts_after_the_start_delay_and_stops_after_the_stop_delay(self) -> None:
        high, low = PLENTY, {SignalKind.SURPLUS: 400.0}
        targets = [d.target_w for d in run(policy(SURPLUS), [high, high, high, high, low, low, low, low, high])]
        assert targets == [0, 0, 3200, 3200, 320, 320, 320, 0, 0]

    def test_a_dip_shorter_than_the_stop_delay_is_ridden_out_and_one_below_start_only_is_no_dip(self) -> None:
        high, middle, low = PLENTY, {SignalKind.SURPLUS: 700.0}, {SignalKind.SURPLUS: 100.0}
        reasons = {d.reason for d in run(policy(SURPLUS), [high, high, high, low, low, middle, middle, middle, low, low])[2:]}
        assert reasons == {Reason.SURPLUS}

    def test_a_peak_shorter_than_the_start_delay_starts_nothing(self) -> None:
        high, low = PLENTY, {SignalKind.SURPLUS: 400.0}
        assert {d.target_w for d in run(policy(SURPLUS), [high, high, low, high, high, low])} == {0}

    def test_an_alarm_stops_at_once_and_must_be_clear_for_a_while(self) -> None:
        rule = policy(AT_ONCE, alarm=AlarmRule(clear_for=2 * MINUTE))
        alarm, clear = {**PLENTY, SignalKind.ALARM: 1.0}, {**PLENTY, SignalKind.ALARM: 0.0}
        targets = [d.target_w for d in run(rule, [clear, alarm, clear, clear, clear, alarm])]
        assert targets == [3200, 0, 0, 0, 3200, 0]

    def test_the_state_survives_json(self) -> None:
        _, state = evaluate(policy(SURPLUS, CHEAP), PolicyState(), seen(START, PLENTY), START)
        assert PolicyState.from_json(state.to_json()) == state

    def test_after_a_gap_an_alarm_that_held_is_remembered_alone_and_has_not_begun_to_clear(self) -> None:
        rule = policy(SURPLUS, AT_ONCE)
        seen_by = [{**PLENTY, SignalKind.ALARM: 1.0}, {**PLENTY, SignalKind.ALARM: 0.0}]
        state = PolicyState()
        for minute, known in enumerate(seen_by):
            now = START + minute * MINUTE
            _, state = evaluate(rule, state, seen(now, known), now)
        assert state.leaves[rule.alarm.leaf.key].pending_since is not None
        left = state.after_a_gap(rule).leaves
        assert [(key, leaf.on, leaf.pending_since) for key, leaf in left.items()] == [(rule.alarm.leaf.key, True, None)]

    def test_a_clock_that_steps_back_neither_shortens_nor_stretches_a_delay(self) -> None:
        rule = policy(SURPLUS)
        _, state = evaluate(rule, PolicyState(), seen(START, PLENTY), START)
        back = START - timedelta(hours=1)
        _, state = evaluate(rule, state, seen(back, PLENTY), back)
        reasons = []
        for minute in (1, 2):
            now = back + minute * MINUTE
            decision, state = evaluate(rule, state, seen(now, PLENTY), now)
            reasons.append(decision.reason)
        assert reasons == [Reason.WAITING_START_DELAY, Reason.SURPLUS]


class TestTopUp:
    RULE = TopUp(allowed=True, watts=600.0, max_price_eur_mwh=60.0)

    @pytest.mark.parametrize(
        ("values", "wanted", "expected"),
        [
            ({SignalKind.SURPLUS: 0.0, SignalKind.PRICE: 60.0}, True, (600, Tier.TOP_UP)),
            ({SignalKind.SURPLUS: 0.0, SignalKind.PRICE: 60.1}, True, (0, Tier.NONE)),
            ({SignalKind.SURPLUS: 0.0}, True, (0, Tier.NONE)),
            ({SignalKind.SURPLUS: 0.0, SignalKind.PRICE: 60.0}, False, (0, Tier.NONE)),
            ({SignalKind.SURPLUS: 4000.0, SignalKind.PRICE: 60.0}, True, (3200, Tier.SURPLUS)),
            ({SignalKind.SURPLUS: 0.0, SignalKind.PRICE: 6.0, SignalKind.ALARM: 1.0}, True, (0, Tier.NONE)),
        ],
    )
    def test_it_is_taken_only_when_wanted_allowed_and_cheap_enough(
        self, values: dict[SignalKind, float], wanted: bool, expected: tuple[float, Tier]
    ) -> None:
        decision = decide(policy(AT_ONCE, top_up=self.RULE), values, wants_top_up=wanted)
        assert (decision.target_w, decision.tier) == expected

    def test_it_stays_under_the_cap(self) -> None:
        rule = policy(AT_ONCE, top_up=self.RULE, draw=Draw(share_of=SignalKind.SURPLUS, share=1.0, max_w=200.0))
        assert decide(rule, {SignalKind.PRICE: 6.0, SignalKind.SURPLUS: 0.0}, wants_top_up=True).target_w == 200


class TestPolicyRecord:
    def test_equal_content_has_equal_digests_and_any_change_another(self) -> None:
        changes: list[dict[str, object]] = [
            {"name": "other"},
            {"zone": "other"},
            {"when": AllOf((SURPLUS,))},
            {"draw": Draw(watts=1.0)},
            {"reward": Reward(micro_per_kwh=1)},
            {"budget": Budget(energy_j=1.0)},
            {"hold_out_share": 0.1},
            {"valid_until": START},
            {"stale_after": ((SignalKind.PRICE, MINUTE),)},
            {"alarm": AlarmRule(required=True)},
        ]
        digests = [policy().digest, *(policy(**change).digest for change in changes)]
        assert policy().digest == digests[0]
        assert len(set(digests)) == len(digests)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"when": AnyOf(())}, "no condition"),
            ({"when": Leaf(signal=SignalKind.ALARM, comparison=Comparison.ABOVE, start=0, stop=0)}, "never means surplus"),
            ({"valid_from": START, "valid_until": START}, "swap the two"),
            ({"valid_from": datetime(2026, 1, 1)}, "no UTC offset"),  # noqa: DTZ001 - the point
            ({"timezone": "Berlin"}, "IANA name"),
            ({"zone": "DE LU"}, "lower-case"),
            ({"hold_out_share": 1.0}, "below 1"),
            ({"stale_after": ((SignalKind.PRICE, timedelta(days=32)),)}, "price: .* give 31d at most"),
        ],
    )
    def test_a_policy_that_cannot_be_meant_is_refused(self, changes: dict[str, object], said: str) -> None:
        with pytest.raises(PolicyError, match=said):
            policy(**changes)

    @pytest.mark.parametrize(
        ("comparison", "start", "stop", "signal", "said"),
        [
            (Comparison.ABOVE, 100.0, 200.0, SignalKind.SURPLUS, "at or below 100 W"),
            (Comparison.BELOW, 40.0, 20.0, SignalKind.PRICE, "at or above 40 EUR/MWh"),
            (Comparison.BELOW, 100.0, 200.0, SignalKind.SURPLUS, "draw more when there is less"),
        ],
    )
    def test_contradictory_thresholds_are_refused(
        self, comparison: Comparison, start: float, stop: float, signal: SignalKind, said: str
    ) -> None:
        with pytest.raises(PolicyError, match=said):
            Leaf(signal=signal, comparison=comparison, start=start, stop=stop)

    @pytest.mark.parametrize(
        ("now", "began"),
        [
            (datetime(2026, 6, 1, 21, 59, tzinfo=UTC), datetime(2026, 5, 31, 22, tzinfo=UTC)),
            (datetime(2026, 6, 1, 22, 0, tzinfo=UTC), datetime(2026, 6, 1, 22, tzinfo=UTC)),
            (datetime(2026, 3, 29, 22, 0, tzinfo=UTC), datetime(2026, 3, 29, 22, tzinfo=UTC)),  # the day had 23 hours
            (datetime(2026, 3, 29, 21, 59, tzinfo=UTC), datetime(2026, 3, 28, 23, tzinfo=UTC)),
            (datetime(2026, 10, 25, 22, 59, tzinfo=UTC), datetime(2026, 10, 24, 22, tzinfo=UTC)),  # and this one 25
        ],
    )
    def test_the_budget_day_begins_at_local_midnight(self, now: datetime, began: datetime) -> None:
        assert day_start(policy(timezone="Europe/Berlin"), now) == began

    @pytest.mark.parametrize(
        ("timezone", "midnight"),
        [("Atlantic/Azores", datetime(2026, 10, 25, 0, tzinfo=UTC)), ("America/Havana", datetime(2026, 11, 1, 4, tzinfo=UTC))],
    )
    def test_where_midnight_comes_twice_the_budget_day_begins_at_the_first(self, timezone: str, midnight: datetime) -> None:
        """The clock is set back from one to midnight."""
        rule = policy(timezone=timezone)
        minutes = (0, 30, 59, 60, 90, 119, 120, 180, 25 * 60 - 1)
        assert {day_start(rule, midnight + minute * MINUTE) for minute in minutes} == {midnight}
        assert day_start(rule, midnight + 25 * 60 * MINUTE) == midnight + timedelta(hours=25)


def test_between_its_two_thresholds_a_rule_says_what_it_waits_for() -> None:
    rule = policy(AT_ONCE, draw=Draw(watts=900.0))
    above, between = run(rule, [{SignalKind.SURPLUS: 4000.0}, {SignalKind.SURPLUS: 700.0}])
    assert above.detail == "surplus 4000 W is above 1000: up to 900 W"
    assert between.detail == "surplus 700 W has not been back at 500 yet: up to 900 W"
