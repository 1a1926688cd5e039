"""The consumer's word: nobody works without it, and its limits hold to the second."""

from datetime import UTC, datetime, timedelta

import pytest

from gridsched.core.access import Role
from gridsched.core.consent import Consent, ConsentReason, opted_out
from gridsched.core.errors import InvalidInput

NOW = datetime(2018, 5, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
IN = Consent(node_id="pc", opted_in=True, since=NOW, until=NOW + HOUR, max_w=150.0, min_reward_micro_per_kwh=100)


@pytest.mark.parametrize(
    ("consent", "at", "reward", "why"),
    [
        (opted_out("pc", NOW), NOW, 10**9, ConsentReason.OPTED_OUT),
        (IN, NOW - timedelta(seconds=1), 100, ConsentReason.OPTED_OUT),
        (IN, NOW, 100, None),
        (IN, NOW, 99, ConsentReason.REWARD_TOO_LOW),
        (IN, NOW + HOUR - timedelta(microseconds=1), 100, None),
        (IN, NOW + HOUR, 100, ConsentReason.CONSENT_ENDED),
    ],
    ids=["never said yes", "not yet", "from its first moment", "a micro too little", "to its last moment", "its end is outside"],
)
def test_refuses(consent: Consent, at: datetime, reward: int, why: ConsentReason | None) -> None:
    assert consent.refuses(reward_micro_per_kwh=reward, now=at) is why


@pytest.mark.parametrize(("max_w", "power_w"), [(None, 200.0), (150.0, 150.0), (900.0, 200.0), (0.0, 0.0)])
def test_a_limit_of_zero_means_zero_and_none_means_the_node_s_own(max_w: float | None, power_w: float) -> None:
    assert Consent(node_id="pc", opted_in=True, since=NOW, max_w=max_w).power_w(200.0) == power_w


def test_impossible_choices_are_refused() -> None:
    with pytest.raises(InvalidInput, match="ends before it begins"):
        Consent(node_id="pc", opted_in=True, since=NOW, until=NOW)
    with pytest.raises(InvalidInput, match="max watts must be 0 or more"):
        Consent(node_id="pc", opted_in=True, since=NOW, max_w=-1.0)


def test_roles_cover_what_is_below_them_and_never_a_node() -> None:
    assert [[a.covers(b) for b in Role] for a in Role] == [
        [True, False, False, False],
        [False, True, False, False],
        [False, True, True, False],
        [False, True, True, True],
    ]
