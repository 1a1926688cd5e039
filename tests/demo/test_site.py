from datetime import timedelta
from pathlib import Path

import pytest

from gridsched.config import load
from gridsched.core.errors import Conflict, InvalidInput
from gridsched.demo.site import DAY, LEAD_S, SPEED, profiles, write_profile, write_site
from gridsched.node.settings import read_settings
from gridsched.node.state import HomeLock
from gridsched.plugins import load_policy
from tests.web.conftest import fresh_house


def test_the_site_is_valid_and_its_day_begins_after_the_lead(tmp_path: Path) -> None:
    write_site(tmp_path / "site", speed=430.0)
    settings = load(tmp_path / "site", environ={})
    assert settings.clock is not None
    assert settings.clock.speed == 430.0
    assert settings.clock.replay_from + timedelta(seconds=LEAD_S * 430.0) == DAY
    assert load_policy(settings.zones[0].policy).zone == settings.zones[0].name == "demo"


def test_another_speed_keeps_every_pace_in_real_seconds(tmp_path: Path) -> None:
    write_site(tmp_path / "usual", speed=SPEED)
    write_site(tmp_path / "twice", speed=2 * SPEED)
    usual, twice = (load(tmp_path / name, environ={}) for name in ("usual", "twice"))
    for name in ("every", "sync_every", "lease_ttl", "absent_after", "longest_lease", "hand_over_after"):
        assert getattr(twice.control, name) / getattr(usual.control, name) == pytest.approx(2, rel=1e-4)


def test_the_readings_are_not_polled_at_another_pace_than_the_template_says_per_real_second(tmp_path: Path) -> None:
    write_site(tmp_path, speed=2 * SPEED)
    assert {adapter.options["every"] for adapter in load(tmp_path, environ={}).adapters} == {"600s"}


def test_an_earlier_demo_is_replaced_and_anything_else_is_refused(tmp_path: Path) -> None:
    write_site(tmp_path / "old", speed=SPEED)
    (tmp_path / "old" / "data").mkdir()
    write_site(tmp_path / "old", speed=SPEED)
    assert not (tmp_path / "old" / "data").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not delete")
    with pytest.raises(InvalidInput, match="choose another folder with --out"):
        write_site(tmp_path / "mine", speed=SPEED)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_a_demo_whose_agent_still_runs_is_left_alone(tmp_path: Path) -> None:
    write_site(tmp_path, speed=SPEED)
    written = (tmp_path / "gridsched.toml").read_text()
    home = tmp_path / "nodes" / "pc"
    home.mkdir(parents=True)
    with HomeLock(home), pytest.raises(Conflict, match=r"still runs.*--out"):
        write_site(tmp_path, speed=2 * SPEED)
    assert home.is_dir()
    assert (tmp_path / "gridsched.toml").read_text() == written
    write_site(tmp_path, speed=2 * SPEED)
    assert not home.exists()


def test_a_demo_whose_daemon_still_answers_is_left_alone(tmp_path: Path) -> None:
    write_site(tmp_path, speed=SPEED)
    (tmp_path / "data").mkdir()
    (tmp_path / "operator.token").write_text("viewer\n")
    with fresh_house() as house:
        (tmp_path / "data" / "url").write_text(f"{house.url}\n")
        with pytest.raises(Conflict, match="still runs"):
            write_site(tmp_path, speed=SPEED)
    assert (tmp_path / "operator.token").is_file()
    write_site(tmp_path, speed=SPEED)
    assert not (tmp_path / "operator.token").exists()


@pytest.mark.parametrize("speed", [0.0, 9.9, 20_001.0, float("nan")])
def test_an_impossible_speed_is_refused(tmp_path: Path, speed: float) -> None:
    with pytest.raises(InvalidInput, match="--speed"):
        write_site(tmp_path, speed=speed)


def test_each_profile_is_a_valid_node_toml_and_a_slow_machine_gives_more_of_itself(tmp_path: Path) -> None:
    found = profiles()
    assert [(p.name, p.power_w) for p in found] == [("pc", 130.0), ("old-desktop", 100.0), ("raspberry-pi", 10.0)]
    for profile in found:
        write_profile(tmp_path / profile.name, profile, pace=1.5, speed=SPEED)
        settings = read_settings(tmp_path / profile.name / "node.toml")
        assert settings.limits.cpu_share == pytest.approx(1.5 * profile.cpu_share)
        assert settings.meter_options == {**settings.meter_options, "max_w": profile.power_w, "cores": settings.limits.cpu_share}
    write_profile(tmp_path / "all", found[0], pace=100.0, speed=SPEED)
    assert read_settings(tmp_path / "all" / "node.toml").limits.cpu_share == 1.0
