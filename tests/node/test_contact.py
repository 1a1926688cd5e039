"""What is said to the daemon, and whose answers are believed: a choice ends with the daemon's own word on it."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TypeVar

import pytest

from gridsched import wire
from gridsched.core.errors import GridschedError, InvalidInput, Unauthorized
from gridsched.node.client import Client
from gridsched.node.contact import Contact
from gridsched.node.state import Choice, Home
from tests.node.fake_daemon import TOKEN, FakeDaemon, Fault

T = TypeVar("T")
NOON = datetime(2018, 5, 1, 12, tzinfo=UTC)


class OneCall:
    """A line that asks when the test says so."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.waiting: list[Callable[[], None]] = []

    def call(self, ask: Callable[[Client], T], then: Callable[[T], None], failed: Callable[[GridschedError], None]) -> None:
        def one() -> None:
            try:
                answer = ask(self._client)
            except GridschedError as error:
                failed(error)
            else:
                then(answer)

        self.waiting.append(one)

    def close(self) -> None:
        self._client.close()


class Desk:
    """A contact that has greeted; ``turn`` lets time pass until it speaks again, and lets it be answered."""

    def __init__(self, home: Home, daemon: FakeDaemon) -> None:
        self.home, self.now_s = home, 0.0
        self.line = OneCall(Client(daemon.url, TOKEN))
        self.contact = Contact(home, home.identity(), self.line, self._compose, lambda: self.now_s)
        self.turn()
        assert self.contact.open

    def _compose(self) -> Callable[[], wire.Sync]:
        return lambda: wire.Sync(instance=self.contact.instance)

    def choose(self, choice: Choice) -> None:
        self.home.set_choice(choice)
        self.contact.look()

    def ask(self) -> None:
        self.now_s += 20.0
        self.contact.turn(self.now_s)

    def answer(self) -> None:
        self.line.waiting.pop(0)()

    def turn(self) -> None:
        self.ask()
        self.answer()


@pytest.fixture
def desk(home: Home, daemon: FakeDaemon) -> Iterator[Desk]:
    made = Desk(home, daemon)
    yield made
    made.line.close()


@pytest.mark.parametrize("status", [302, 401, 403, 409, 413, 422])
def test_an_opt_out_that_a_login_page_answered_is_kept_and_told_to_the_daemon_later(
    desk: Desk, home: Home, daemon: FakeDaemon, status: int
) -> None:
    choice = Choice(opted_in=False, made_at=NOON)
    desk.choose(choice)
    daemon.faults.append(Fault("/v1/node/", status))
    desk.turn()
    assert desk.contact.fatal is None
    assert (desk.contact.unsent, desk.contact.opted_in, home.sent_choice()) == (choice, False, "")
    desk.turn()
    assert [told.opted_in for told in daemon.of(wire.ConsentChoice)] == [False]
    assert (desk.contact.unsent, home.sent_choice()) == (None, choice.choice_id)


def test_a_choice_that_the_daemon_itself_refuses_is_not_said_again(desk: Desk, home: Home, daemon: FakeDaemon) -> None:
    choice = Choice(opted_in=True, for_s=9e9, made_at=NOON)
    desk.choose(choice)
    daemon.faults.append(Fault("/v1/node/consent", InvalidInput("opting in for 9e9 s is not a time")))
    desk.turn()
    assert (desk.contact.unsent, home.sent_choice()) == (None, choice.choice_id)
    desk.turn()
    assert not daemon.of(wire.ConsentChoice)


def test_a_report_that_is_refused_leaves_a_choice_made_meanwhile_to_be_told(desk: Desk, home: Home, daemon: FakeDaemon) -> None:
    choice = Choice(opted_in=False, made_at=NOON)
    daemon.faults.append(Fault("/v1/node/sync", InvalidInput("a report that does not parse")))
    desk.ask()
    desk.choose(choice)
    desk.answer()
    assert (desk.contact.unsent, home.sent_choice()) == (choice, "")
    desk.turn()
    assert [told.opted_in for told in daemon.of(wire.ConsentChoice)] == [False]


def test_a_refused_choice_does_not_take_the_newer_one_with_it(desk: Desk, home: Home, daemon: FakeDaemon) -> None:
    desk.choose(Choice(opted_in=True, for_s=9e9, made_at=NOON))
    daemon.faults.append(Fault("/v1/node/consent", InvalidInput("opting in for 9e9 s is not a time")))
    desk.ask()
    newer = Choice(opted_in=False, made_at=NOON)
    desk.choose(newer)
    desk.answer()
    assert desk.contact.unsent == newer
    desk.turn()
    assert home.sent_choice() == newer.choice_id


def test_the_daemons_own_word_that_the_token_is_void_still_ends_the_agent(desk: Desk, daemon: FakeDaemon) -> None:
    daemon.faults.append(Fault("/v1/node/sync", Unauthorized("this node is revoked; join again with a new code")))
    desk.turn()
    assert isinstance(desk.contact.fatal, Unauthorized)
