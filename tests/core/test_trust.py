"""How often work is done again, by whom, and what differing answers say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsched.core.errors import InvalidInput
from gridsched.core.trust import Auditing, Judgement, Vote, audit_chance, choose, drawn, judge, votes_needed

AUDITING = Auditing(share=0.05, probation=3, secret=b"one")


def votes(*answers: str) -> list[Vote]:
    return [Vote(node_id=f"n{number}", answer=answer) for number, answer in enumerate(answers)]


def test_a_newcomer_is_always_audited_and_trust_lowers_the_chance_to_the_floor() -> None:
    chances = [audit_chance(verified, AUDITING) for verified in range(100)]
    assert chances[:3] == [1.0, 1.0, 1.0]
    assert chances[4] == 1 / 4
    assert chances[20:] == [0.05] * 80
    assert chances == sorted(chances, reverse=True)


def test_without_probation_the_very_first_unit_is_audited_all_the_same() -> None:
    assert audit_chance(0, Auditing(probation=0)) == 1.0


def test_a_draw_is_repeatable_follows_the_chance_and_hangs_on_the_secret() -> None:
    other = Auditing(secret=b"two")
    ids = [f"job.r{number}.u0" for number in range(4000)]
    found = [drawn(unit_id, 0.2, AUDITING) for unit_id in ids]
    assert found == [drawn(unit_id, 0.2, AUDITING) for unit_id in ids]
    assert 0.17 < sum(found) / len(ids) < 0.23
    both = sum(a and drawn(unit_id, 0.2, other) for a, unit_id in zip(found, ids, strict=True))
    assert both < 0.08 * len(ids)
    assert all(drawn(unit_id, 1.0, AUDITING) for unit_id in ids)
    assert not any(drawn(unit_id, 0.0, AUDITING) for unit_id in ids)


def test_auditors_are_drawn_alike_whatever_the_order_they_come_in() -> None:
    names = [f"n{number}" for number in range(9)]
    assert choose("u", names, 3, AUDITING) == choose("u", names[::-1], 3, AUDITING)
    asked = {choose(f"u{number}", names, 1, AUDITING)[0] for number in range(200)}
    assert asked == set(names)
    assert choose("u", [], 2, AUDITING) == []


def test_two_equal_answers_and_no_other_are_believed_however_many_could_vote() -> None:
    assert judge(votes("a", "a"), able=100) == Judgement(answer="a", right=("n0", "n1"), wrong=())


def test_one_answer_or_one_against_another_says_nothing() -> None:
    assert judge(votes("a"), able=5) is None
    assert judge(votes("a", "b"), able=2) is None
    assert judge([], able=5) is None


def test_two_of_three_outvote_the_third() -> None:
    assert judge(votes("b", "a", "a"), able=3) == Judgement(answer="a", right=("n1", "n2"), wrong=("n0",))


def test_two_against_one_accuse_nobody_where_three_more_liars_could_be_about() -> None:
    assert votes_needed(10) == 4
    assert judge(votes("honest", "lie", "lie"), able=10) is None
    assert judge(votes("honest", "lie", "lie", "lie"), able=10) is None
    decided = judge(votes("honest", "lie", "lie", "honest", "honest", "honest"), able=10)
    assert decided is not None
    assert decided.wrong == ("n1", "n2")


def test_a_long_lead_decides_in_a_large_fleet() -> None:
    assert judge(votes("lie", *["right"] * 8), able=10_000) is None
    decided = judge(votes("lie", *["right"] * 9), able=10_000)
    assert decided is not None
    assert decided.wrong == ("n0",)


@given(st.integers(2, 26), st.data())
def test_in_a_small_fleet_a_third_who_lie_alike_never_have_an_honest_node_accused(able: int, data: st.DataObject) -> None:
    liars = data.draw(st.integers(0, able // 3))
    order = data.draw(st.permutations(["lie"] * liars + ["right"] * (able - liars)))
    for count in range(len(order) + 1):
        cast = votes(*order[:count])
        decided = judge(cast, able=able)
        if decided is not None and decided.wrong:
            assert decided.answer == "right"


@pytest.mark.parametrize("wrong", [{"share": 1.5}, {"share": -0.1}, {"probation": -1}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        Auditing(**wrong)  # type: ignore[arg-type]
