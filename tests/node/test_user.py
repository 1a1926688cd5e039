"""Whether somebody sits at the machine: its terminals, and what the desktop tells the login manager."""

from collections.abc import Mapping

import pytest

from gridsched.clock import SystemClock
from gridsched.node.user import Desktop, user_idle_s


class Login:
    """What ``loginctl`` would show, and how often it was asked."""

    def __init__(self, seat: str = "2", **session: str) -> None:
        self.asked: list[tuple[str, ...]] = []
        self._seat, self._session = seat, session

    def __call__(self, *words: str) -> Mapping[str, str]:
        self.asked.append(words)
        return {"ActiveSession": self._seat} if words[0] == "show-seat" else self._session


def ago(seconds: float) -> str:
    return str(int((SystemClock().now().timestamp() - seconds) * 1e6))


def test_a_desktop_in_use_is_used_now_and_one_at_rest_since_it_said_so() -> None:
    used = Login(Class="user", Type="wayland", IdleHint="no", IdleSinceHint=ago(5000))
    assert Desktop(used).idle_s() == pytest.approx(0, abs=5)
    resting = Login(Class="user", Type="x11", IdleHint="yes", IdleSinceHint=ago(5000))
    assert Desktop(resting).idle_s() == pytest.approx(5000, abs=5)
    assert resting.asked[1][:2] == ("show-session", "2")


@pytest.mark.parametrize(
    "login",
    [
        Login(seat=""),
        Login(Class="greeter", Type="wayland", IdleHint="no", IdleSinceHint="0"),
        Login(Class="user", Type="tty", IdleHint="no", IdleSinceHint="0"),
        Login(),
    ],
    ids=["nobody", "the greeter", "a text console", "no answer"],
)
def test_where_no_desktop_is_in_use_nothing_is_told(login: Login) -> None:
    assert Desktop(login).idle_s() is None


def test_a_desktop_that_never_says_that_it_rests_counts_as_used() -> None:
    assert Desktop(Login(Class="user", Type="x11", IdleHint="yes", IdleSinceHint="")).idle_s() == pytest.approx(0, abs=5)


def test_the_login_manager_is_asked_every_ten_seconds_and_not_oftener() -> None:
    now_s, login = [100.0], Login(Class="user", Type="x11", IdleHint="no", IdleSinceHint="0")
    desktop = Desktop(login, monotonic=lambda: now_s[0])
    for now_s[0] in (100.0, 109.0, 110.0):
        desktop.idle_s()
    assert len(login.asked) == 4


def test_this_machine_can_be_asked() -> None:
    idle_s = user_idle_s()
    assert idle_s is None or idle_s >= 0
