"""Blobs for the child where some cannot be had: the others still come, and whoever waits for one that never will is told."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from gridsched.core.errors import BlobCorrupt, Busy, Forbidden, GridschedError, NotFound, StorageFull, TooLarge, Unreachable
from gridsched.node.cache import BlobCache
from gridsched.node.client import Client
from gridsched.node.line import Line
from gridsched.node.supply import Supply


class Shelf:
    """A cache and a line of straw: what is not in ``troubles`` is there at once. With ``slow`` the answer waits until ``answer``."""

    def __init__(self) -> None:
        self.troubles: dict[str, GridschedError] = {}
        self.asked: list[str] = []
        self.slow = False
        self._answers: list[Callable[[], None]] = []

    def fetch(self, digest: str, client: Client, *, steps: object = ()) -> Path:
        self.asked.append(digest)
        if digest in self.troubles:
            raise self.troubles[digest]
        return Path(digest)

    def call(self, ask: Callable[[Client], Path], then: Callable[[Path], None], failed: Callable[[GridschedError], None]) -> None:
        def answer() -> None:
            try:
                found = ask(cast("Client", None))
            except GridschedError as error:
                failed(error)
            else:
                then(found)

        self._answers.append(answer)
        if not self.slow:
            self.answer()

    def answer(self) -> None:
        self._answers.pop(0)()


class Bench:
    """``full`` holds the present reason why the disk takes nothing."""

    def __init__(self) -> None:
        self.shelf = Shelf()
        self.now_s = 0.0
        self.got: list[str] = []
        self.lost: list[tuple[str, str]] = []
        self.full = ""
        self.supply = Supply(
            cast("BlobCache", self.shelf),
            cast("Line", self.shelf),
            got=self.got.append,
            lost=lambda digest, error: self.lost.append((digest, str(error))),
            stuck=self._stuck,
        )

    def _stuck(self, where: str, why: str) -> None:
        assert where == "cache"
        self.full = why

    def turns(self, times: int) -> None:
        for _ in range(times):
            self.supply.turn(self.now_s)
            self.now_s += 20.0


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize("error", [NotFound("no blob a"), TooLarge("a is too large"), Forbidden("a is not yours")])
def test_a_blob_that_can_never_be_had_is_told_once_and_the_next_one_comes(bench: Bench, error: GridschedError) -> None:
    bench.shelf.troubles["a"] = error
    bench.supply.order("a")
    bench.supply.order("b")
    bench.turns(5)
    assert (bench.shelf.asked, bench.got, bench.lost) == (["a", "b"], ["b"], [("a", str(error))])


@pytest.mark.parametrize("error", [Unreachable(), Busy(), BlobCorrupt("rot"), StorageFull("no room")])
def test_a_blob_that_may_be_had_later_lets_the_others_go_first_and_is_tried_again(bench: Bench, error: GridschedError) -> None:
    bench.shelf.troubles["a"] = error
    for digest in "abc":
        bench.supply.order(digest)
    bench.turns(5)
    assert (bench.shelf.asked, bench.got, bench.lost) == (["a", "b", "c", "a"], ["b", "c"], [])
    bench.shelf.troubles.clear()
    bench.turns(2)
    assert bench.got == ["b", "c", "a"]


def test_one_foreseen_that_cannot_be_had_matters_to_nobody_until_the_child_asks_for_it(bench: Bench) -> None:
    bench.shelf.troubles["a"] = NotFound("no blob a")
    bench.supply.foresee("a")
    bench.turns(3)
    assert (bench.shelf.asked, bench.lost) == (["a"], [])
    bench.supply.order("a")
    bench.turns(3)
    assert bench.lost == [("a", "no blob a")]


def test_what_a_run_wanted_is_forgotten_with_it(bench: Bench) -> None:
    bench.shelf.troubles["a"] = Unreachable()
    bench.supply.order("a")
    bench.turns(1)
    bench.supply.forget()
    bench.supply.order("b")
    bench.turns(5)
    assert (bench.shelf.asked, bench.got) == (["a", "b"], ["b"])


@pytest.mark.parametrize("error", [None, NotFound("no blob a"), StorageFull("no room")])
def test_an_answer_for_a_run_that_is_over_tells_nobody_anything(bench: Bench, error: GridschedError | None) -> None:
    bench.shelf.slow = True
    if error is not None:
        bench.shelf.troubles["a"] = error
    bench.supply.order("a")
    bench.turns(1)
    bench.supply.forget()
    bench.shelf.answer()
    assert (bench.got, bench.lost, bench.full) == ([], [], "")
    bench.supply.order("b")
    bench.turns(2)
    bench.shelf.answer()
    assert bench.got == ["b"]


def test_a_full_disk_is_forgotten_with_the_run_whose_blob_did_not_fit(bench: Bench) -> None:
    bench.shelf.troubles["a"] = StorageFull("no room")
    bench.supply.order("a")
    bench.turns(1)
    assert bench.full == "no room"
    bench.supply.forget()
    assert bench.full == ""


def test_what_is_foreseen_again_after_a_run_is_over_is_fetched_again(bench: Bench) -> None:
    bench.supply.foresee("a")
    bench.turns(1)
    bench.supply.forget()
    bench.supply.foresee("a")
    bench.turns(1)
    assert bench.shelf.asked == ["a", "a"]
