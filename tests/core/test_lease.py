"""The lease machine: three live states, four ends, and a generation that fences old writers off."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsched.core.errors import IllegalMove, LeaseLost
from gridsched.core.lease import LIVE, Lease, LeaseReason, LeaseState, end, grant, hold, offer, pause, renew, resume

NOW = datetime(2018, 5, 1, 12, tzinfo=UTC)
TTL = timedelta(seconds=90)
ENDS = [LeaseState.HANDED_OVER, LeaseState.RELEASED, LeaseState.EXPIRED, LeaseState.REVOKED]


def offered(longest: timedelta = timedelta(hours=6)) -> Lease:
    return offer(
        unit_id="j.r0.u1",
        job_id="j",
        node_id="pc",
        zone="de-lu",
        generation=3,
        power_w=150.0,
        decision_id="de-lu.1",
        reward_micro_per_kwh=250_000,
        reward_micro_per_unit=10,
        now=NOW,
        ttl=TTL,
        longest=longest,
    )


def at(state: LeaseState) -> Lease:
    lease = offered()
    if state is LeaseState.OFFERED:
        return lease
    if state is LeaseState.ACTIVE:
        return grant(lease, NOW)
    if state is LeaseState.PAUSED:
        return pause(lease, LeaseReason.NO_SURPLUS, NOW)
    return end(lease, state, LeaseReason.FINISHED, NOW)


MOVES = {
    "grant": lambda lease: grant(lease, NOW),
    "pause": lambda lease: pause(lease, LeaseReason.ALARM, NOW),
    "resume": lambda lease: resume(lease, LeaseReason.SURPLUS_BACK, NOW),
    "end": lambda lease: end(lease, LeaseState.EXPIRED, LeaseReason.NODE_SILENT, NOW),
    "renew": lambda lease: renew(lease, now=NOW, ttl=TTL),
}
ALLOWED = {
    LeaseState.OFFERED: {"grant", "pause", "end", "renew"},
    LeaseState.ACTIVE: {"pause", "end", "renew"},
    LeaseState.PAUSED: {"resume", "end", "renew"},
}


@pytest.mark.parametrize("state", list(LeaseState))
@pytest.mark.parametrize("move", list(MOVES))
def test_every_move_from_every_state_is_either_allowed_or_raises(state: LeaseState, move: str) -> None:
    if move in ALLOWED.get(state, set()):
        MOVES[move](at(state))
    else:
        with pytest.raises(IllegalMove, match=r"j\.r0\.u1\.l3"):
            MOVES[move](at(state))


def test_the_id_names_unit_and_generation() -> None:
    assert offered().lease_id == "j.r0.u1.l3"


def test_active_time_counts_only_while_active() -> None:
    lease = grant(offered(), NOW + timedelta(seconds=10))
    lease = pause(lease, LeaseReason.NO_SURPLUS, NOW + timedelta(seconds=40))
    lease = resume(lease, LeaseReason.SURPLUS_BACK, NOW + timedelta(seconds=100))
    lease = end(lease, LeaseState.RELEASED, LeaseReason.FINISHED, NOW + timedelta(seconds=105))
    assert lease.active_s == 35.0


def test_renewing_never_passes_the_longest_time_and_never_goes_back() -> None:
    lease = offered(longest=timedelta(minutes=3))
    later = renew(lease, now=NOW + timedelta(minutes=2), ttl=TTL)
    assert later.expires_at == later.ends_at == NOW + timedelta(minutes=3)
    assert renew(later, now=NOW, ttl=TTL).expires_at == later.expires_at


@pytest.mark.parametrize("state", list(LIVE))
def test_the_holder_of_the_newest_generation_holds_it(state: LeaseState) -> None:
    lease = at(state)
    assert hold(lease, lease_id=lease.lease_id, node_id="pc", generation=3) is lease


@pytest.mark.parametrize(
    ("lease", "node", "generation"),
    [(None, "pc", 3), (offered(), "stranger", 3), (offered(), "pc", 2), *[(at(state), "pc", 3) for state in ENDS]],
)
def test_any_other_claim_is_lost(lease: Lease | None, node: str, generation: int) -> None:
    with pytest.raises(LeaseLost, match="sync again"):
        hold(lease, lease_id="j.r0.u1.l3", node_id=node, generation=generation)


def test_resuming_calls_a_hand_over_off() -> None:
    paused = replace(at(LeaseState.PAUSED), wants_hand_over=True)
    assert not resume(paused, LeaseReason.SURPLUS_BACK, NOW).wants_hand_over


@given(st.lists(st.sampled_from(list(MOVES)), max_size=12))
def test_no_sequence_of_moves_leaves_an_end(moves: list[str]) -> None:
    lease, ended = offered(), False
    for move in moves:
        try:
            lease = MOVES[move](lease)
        except IllegalMove:
            continue
        assert not ended, "a move succeeded after the end"
        ended = not lease.live
        assert lease.draws_w() == (150.0 if lease.state in (LeaseState.OFFERED, LeaseState.ACTIVE) else 0.0)
