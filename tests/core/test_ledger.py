"""Double entry: any order and any repeats give one balance, a post never exceeds its reserve, and the chain shows every edit."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsched.core.errors import Conflict, InvalidInput
from gridsched.core.ledger import GENESIS, OPERATOR, Account, Transfer, TransferKind, apply, node_account, seal, verify

NOW = datetime(2018, 5, 1, tzinfo=UTC)
PC = node_account("pc")


def transfer(kind: TransferKind, amount: int, *, pending: str | None = None, name: str = "t") -> Transfer:
    return Transfer(transfer_id=name, kind=kind, debit=OPERATOR, credit=PC, amount_micro=amount, at=NOW, pending_id=pending)


RESERVE = transfer(TransferKind.RESERVE, 100, name="r")
HELD = (Account(account_id=OPERATOR, debits_pending=100), Account(account_id=PC, credits_pending=100))


def test_a_reserve_is_pending_on_both_sides() -> None:
    assert apply(RESERVE, debit=Account(account_id=OPERATOR), credit=Account(account_id=PC)) == HELD


def test_a_post_moves_its_amount_and_frees_the_rest() -> None:
    operator, pc = apply(transfer(TransferKind.POST, 60, pending="r"), debit=HELD[0], credit=HELD[1], reserve=RESERVE)
    assert (operator.debits_pending, operator.debits_posted) == (0, 60)
    assert (pc.credits_pending, pc.credits_posted, pc.balance_micro) == (0, 60, 60)


def test_a_void_frees_all() -> None:
    operator, pc = apply(transfer(TransferKind.VOID, 0, pending="r"), debit=HELD[0], credit=HELD[1], reserve=RESERVE)
    assert (operator.debits_pending, operator.debits_posted, pc.credits_pending, pc.balance_micro) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("wrong", "reserve"),
    [
        (transfer(TransferKind.POST, 101, pending="r"), RESERVE),
        (transfer(TransferKind.VOID, 1, pending="r"), RESERVE),
        (transfer(TransferKind.POST, 1, pending="other"), RESERVE),
        (transfer(TransferKind.POST, 1, pending="r"), None),
        (transfer(TransferKind.POST, 1, pending="r"), replace(RESERVE, credit="node:else")),
    ],
    ids=["more than reserved", "a void with an amount", "another reserve", "no reserve", "between other accounts"],
)
def test_a_post_that_does_not_fit_is_refused(wrong: Transfer, reserve: Transfer | None) -> None:
    with pytest.raises(Conflict, match="transfer t"):
        apply(wrong, debit=HELD[0], credit=HELD[1], reserve=reserve)


@pytest.mark.parametrize("amount", [-1, 1.5, True, None])
def test_no_float_reaches_the_ledger(amount: object) -> None:
    with pytest.raises(InvalidInput, match="whole number of micro-units"):
        Transfer(transfer_id="t", kind=TransferKind.PAYOUT, debit=PC, credit="bank", amount_micro=amount, at=NOW)  # type: ignore[arg-type]


def test_a_post_needs_a_reserve_and_a_payout_must_not_name_one() -> None:
    with pytest.raises(InvalidInput, match="needs a reserve"):
        transfer(TransferKind.POST, 1)
    with pytest.raises(InvalidInput, match="must not name a reserve"):
        transfer(TransferKind.PAYOUT, 1, pending="r")


def chain(amounts: list[int]) -> list[Transfer]:
    sealed: list[Transfer] = []
    for number, amount in enumerate(amounts, start=1):
        raw = Transfer(transfer_id=f"t{number}", kind=TransferKind.PAYOUT, debit=PC, credit="bank", amount_micro=amount, at=NOW)
        sealed.append(seal(raw, sequence=number, before=sealed[-1].digest if sealed else GENESIS))
    return sealed


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=8), st.data())
def test_any_edit_of_the_chain_shows_at_its_place(amounts: list[int], data: st.DataObject) -> None:
    links = chain(amounts)
    assert verify(links) is None
    place = data.draw(st.integers(0, len(links) - 1))
    forged = [*links[:place], replace(links[place], amount_micro=links[place].amount_micro + 1), *links[place + 1 :]]
    assert verify(forged) == place + 1
    if place < len(links) - 1:
        assert verify([*links[:place], *links[place + 1 :]]) == place + 1


@given(st.lists(st.tuples(st.integers(0, 1000), st.floats(0, 1)), max_size=20))
def test_debits_equal_credits_whatever_is_posted(pairs: list[tuple[int, float]]) -> None:
    operator, pc = Account(account_id=OPERATOR), Account(account_id=PC)
    for number, (amount, share) in enumerate(pairs):
        held = transfer(TransferKind.RESERVE, amount, name=f"r{number}")
        operator, pc = apply(held, debit=operator, credit=pc)
        post = transfer(TransferKind.POST, int(amount * share), pending=held.transfer_id, name=f"p{number}")
        operator, pc = apply(post, debit=operator, credit=pc, reserve=held)
        assert operator.debits_posted == pc.credits_posted
        assert operator.debits_pending == pc.credits_pending == 0
