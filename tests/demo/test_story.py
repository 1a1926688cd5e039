from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gridsched.demo.scene import NodeRow, Scene
from gridsched.demo.story import Act, Cue, Incident, next_cues, write_story

NOW = datetime(2018, 1, 28, 3, tzinfo=UTC)
NODES = ("pc", "old-desktop", "raspberry-pi")
OUT = Incident(act=Act.OPT_OUT, node="pc", after_units=5, share=0.4, back=Act.OPT_IN, away_units=3, away_longest=timedelta(hours=2))


def scene(*, units: int, step: int = 50, lease: str = "active", now: datetime = NOW, **more: object) -> Scene:
    row = NodeRow(node_id="pc", power_w=180.0, state="working", lease=lease, unit="d.r0.u1", step=step, steps=100)
    return replace(Scene(now=now, day=NOW, speed=860.0, nodes=(row,), units=units), **more)  # type: ignore[arg-type]


def cue(act: Act = Act.OPT_OUT, *, units: int = 5, at: datetime = NOW) -> Cue:
    return Cue(incident=0, act=act, node="pc", units=units, at=at)


@pytest.mark.parametrize(
    ("seen", "due"),
    [
        (scene(units=4), False),
        (scene(units=5), True),
        (scene(units=5, step=39), False),
        (scene(units=5, step=70), True),
        (scene(units=5, step=71), False),
        (scene(units=5, lease="paused"), False),
        (scene(units=9, job_state="done"), False),
        (scene(units=9, nodes=()), False),
    ],
    ids=["too early", "in the middle", "not far enough", "just before the end", "too near the end", "not running", "job over", "not there"],
)
def test_an_incident_waits_for_its_node_to_be_in_the_middle_of_a_unit(seen: Scene, due: bool) -> None:
    assert [c.act for c in next_cues((OUT,), {}, seen)] == ([Act.OPT_OUT] if due else [])


@pytest.mark.parametrize(
    ("seen", "due"),
    [
        (scene(units=7), False),
        (scene(units=8), True),
        (scene(units=5, now=NOW + timedelta(hours=1, minutes=59)), False),
        (scene(units=5, now=NOW + timedelta(hours=2)), True),
        (scene(units=5, job_state="done"), True),
    ],
    ids=["still away", "enough work done", "not long enough", "long enough", "job over"],
)
def test_it_is_undone_after_enough_work_or_time(seen: Scene, due: bool) -> None:
    assert [c.act for c in next_cues((OUT,), {0: [cue()]}, seen)] == ([Act.OPT_IN] if due else [])


def test_each_incident_happens_once() -> None:
    assert next_cues((OUT,), {0: [cue(), cue(Act.OPT_IN)]}, scene(units=40)) == []


def test_the_daemon_is_killed_by_work_alone_and_needs_no_way_back() -> None:
    script = (Incident(act=Act.KILL_DAEMON, after_units=10),)
    assert [c.act for c in next_cues(script, {}, scene(units=10, nodes=()))] == [Act.KILL_DAEMON]
    assert next_cues(script, {0: [cue(Act.KILL_DAEMON)]}, scene(units=48)) == []


def test_a_seed_writes_one_story_and_other_seeds_write_others() -> None:
    stories = [write_story(NODES, 48, seed=seed) for seed in range(20)]
    assert stories == [write_story(NODES, 48, seed=seed) for seed in range(20)]
    assert len({repr(story) for story in stories}) == 20


@pytest.mark.parametrize("seed", range(20))
def test_every_story_has_a_leaver_and_another_victim_within_the_work_there_is(seed: int) -> None:
    out, kill, daemon = write_story(NODES, 48, seed=seed, kill_daemon=True)
    assert (out.act, kill.act, daemon.act) == (Act.OPT_OUT, Act.KILL, Act.KILL_DAEMON)
    assert out.node != kill.node
    assert {out.node, kill.node} < set(NODES)
    assert "pc" not in {out.node, kill.node}
    assert all(0 < incident.after_units + incident.away_units < 40 for incident in (out, kill, daemon))
