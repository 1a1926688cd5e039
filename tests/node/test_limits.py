"""What the owner's limits make of the device's state."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from gridsched.core.errors import ConfigError, InvalidInput
from gridsched.core.fleet import DeviceState
from gridsched.node import limits
from gridsched.node.limits import DeviceSample, Limits, device_state, sample_device
from gridsched.node.settings import NodeSettings, parse_settings, settings_text

ROOMY = DeviceSample(free_disk_bytes=10**12)
LIMITS = Limits(pause_when_user_active=True, user_idle_s=300, max_temperature_c=80, not_on_battery=True, min_free_disk_bytes=10**9)


@pytest.mark.parametrize(
    ("sample", "state"),
    [
        (ROOMY, DeviceState.FREE),
        (replace(ROOMY, free_disk_bytes=10**9), DeviceState.FREE),
        (replace(ROOMY, free_disk_bytes=10**9 - 1), DeviceState.DISK_FULL),
        (replace(ROOMY, temperature_c=79.9), DeviceState.FREE),
        (replace(ROOMY, temperature_c=80.0), DeviceState.HOT),
        (replace(ROOMY, on_battery=True), DeviceState.ON_BATTERY),
        (replace(ROOMY, on_battery=False), DeviceState.FREE),
        (replace(ROOMY, user_idle_s=299.0), DeviceState.USER_ACTIVE),
        (replace(ROOMY, user_idle_s=300.0), DeviceState.FREE),
        (replace(ROOMY, free_disk_bytes=0, temperature_c=99.0, on_battery=True, user_idle_s=0.0), DeviceState.DISK_FULL),
        (replace(ROOMY, temperature_c=99.0, on_battery=True, user_idle_s=0.0), DeviceState.HOT),
        (replace(ROOMY, on_battery=True, user_idle_s=0.0), DeviceState.ON_BATTERY),
    ],
)
def test_the_gravest_limit_is_named(sample: DeviceSample, state: DeviceState) -> None:
    assert device_state(sample, LIMITS) is state


def test_a_limit_that_is_off_never_stops_work() -> None:
    off = Limits(pause_when_user_active=False, max_temperature_c=None, not_on_battery=False, min_free_disk_bytes=0)
    worst = DeviceSample(free_disk_bytes=0, temperature_c=119.0, on_battery=True, user_idle_s=0.0)
    assert device_state(worst, off) is DeviceState.FREE


def test_a_hot_device_works_again_only_when_it_has_cooled_by_five_degrees() -> None:
    assert device_state(replace(ROOMY, temperature_c=76.0), LIMITS, before=DeviceState.HOT) is DeviceState.HOT
    assert device_state(replace(ROOMY, temperature_c=74.9), LIMITS, before=DeviceState.HOT) is DeviceState.FREE
    assert device_state(replace(ROOMY, temperature_c=76.0), LIMITS, before=DeviceState.FREE) is DeviceState.FREE


def test_a_senseless_temperature_is_refused() -> None:
    with pytest.raises(InvalidInput, match="between 20 and 120"):
        Limits(max_temperature_c=300)


def test_this_machine_can_be_sampled(tmp_path: Path) -> None:
    assert sample_device(tmp_path).free_disk_bytes > 0


@pytest.mark.parametrize(("plugged", "told"), [(None, None), (True, False), (False, True)])
def test_a_machine_that_cannot_tell_what_feeds_it_is_not_on_battery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugged: bool | None, told: bool | None
) -> None:
    monkeypatch.setattr(psutil, "sensors_battery", lambda: SimpleNamespace(power_plugged=plugged), raising=False)
    monkeypatch.setattr(limits, "_SUPPLIES", tmp_path)
    assert sample_device(tmp_path).on_battery is told


@pytest.mark.parametrize(("scope", "told"), [("Device", None), ("System", True), ("", True)])
def test_the_battery_of_a_mouse_does_not_feed_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: str, told: bool | None
) -> None:
    monkeypatch.setattr(psutil, "sensors_battery", lambda: SimpleNamespace(power_plugged=False), raising=False)
    monkeypatch.setattr(limits, "_SUPPLIES", tmp_path)
    supply = tmp_path / "hidpp_battery_0"
    supply.mkdir()
    (supply / "type").write_text("Battery\n")
    if scope:
        (supply / "scope").write_text(f"{scope}\n")
    assert sample_device(tmp_path).on_battery is told


def test_the_first_settings_file_says_what_the_defaults_are() -> None:
    assert parse_settings(settings_text(NodeSettings(), power_w=100.0)) == NodeSettings()


def test_a_misspelt_limit_names_the_right_one_and_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"max_temperature_c") as caught:
        parse_settings('threads = "two"\n[limits]\nmax_temperatur_c = 80\nmin_free_disk = 5\n')
    assert "threads" in str(caught.value)
    assert "min_free_disk" in str(caught.value)
