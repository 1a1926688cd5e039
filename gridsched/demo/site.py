"""Writes the demo's site: the shipped template, set to a day, a speed and this machine."""

import re
import shutil
import tomllib
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from gridsched import remote
from gridsched.core.errors import Conflict, GridschedError, InvalidInput
from gridsched.core.quantity import duration
from gridsched.core.units import utc
from gridsched.node.state import HomeLock
from gridsched.plugins import shipped

__all__ = ["DAY", "LEAD_S", "SPEED", "Profile", "profiles", "write_profile", "write_site"]

DAY = utc(datetime.fromisoformat("2018-01-28T00:00:00+01:00"))
"""A Sunday with strong wind: 24 hours, six of them with a negative price, and surplus at night, around noon and in the evening."""

SPEED = 860.0
"""A day in 100 seconds; the template's durations are made for it."""

LEAD_S = 14.0
"""Real seconds before the day begins, in which the nodes join: the evening before, on the replayed clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One of the demo's machines: its name, what it draws at most, and the share of a core it may use on the reference machine."""

    name: str
    power_w: float
    cpu_share: float
    text: str


def write_site(folder: Path, *, speed: float) -> None:
    """Make ``folder`` a site that replays `DAY` at ``speed``. What an earlier demo left there is removed; anything else is not touched.

    Raises `InvalidInput` for a folder of anything else, and `Conflict` where the earlier demo still runs.
    """
    _clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    template = shipped("examples") / "demo"
    shutil.copytree(template / "policies", folder / "policies")
    shutil.copytree(shipped("examples") / "germany-2018", folder / "germany-2018")
    shutil.copytree(shipped("adapters"), folder / "adapters", ignore=shutil.ignore_patterns("__pycache__"))
    text = (template / "gridsched.toml").read_text(encoding="utf-8")
    (folder / "gridsched.toml").write_text(at_speed(text, speed), encoding="utf-8")


def at_speed(text: str, speed: float) -> str:
    """The template with another speed. Durations scale along: what matters to processes and sockets is real time."""
    if not 10 <= speed <= 20_000:
        raise InvalidInput(f"--speed {speed:g} is outside 10 to 20,000; at {SPEED:g} a day takes 100 seconds")
    begins = DAY - timedelta(seconds=LEAD_S * speed)
    text = _set(text, "replay_from", lambda _: f"{begins:%Y-%m-%dT%H:%M:%SZ}")
    text = _set(text, "speed", lambda _: f"{speed:g}")
    for key in ("every", "sync_every", "lease_ttl", "absent_after", "longest_lease", "start_jitter", "hand_over_after"):
        text = _set(text, key, lambda written: f'"{duration(written.strip(chr(34))).total_seconds() * speed / SPEED:g}s"')
    return text


def profiles() -> list[Profile]:
    """The shipped machines, the strongest first."""
    found = []
    for path in (shipped("examples") / "demo" / "nodes").glob("*.toml"):
        text = path.read_text(encoding="utf-8")
        table: Mapping[str, Mapping[str, float]] = tomllib.loads(text)
        found.append(Profile(name=path.stem, power_w=table["meter"]["max_w"], cpu_share=table["limits"]["cpu_share"], text=text))
    return sorted(found, key=lambda profile: -profile.power_w)


def write_profile(home: Path, profile: Profile, *, pace: float, speed: float) -> None:
    """``node.toml`` of one machine. ``pace`` is how much longer a step takes here than on the reference machine, in processor time."""
    share = f"{min(max(profile.cpu_share * pace, 0.02), 1.0):.3f}"
    text = profile.text
    for key in ("cpu_share", "cores"):
        text = _set(text, key, lambda _: share)
    for key in ("release_memory_after", "save_every"):
        text = _set(text, key, lambda written: f'"{duration(written.strip(chr(34))).total_seconds() * speed / SPEED:g}s"')
    home.mkdir(parents=True, exist_ok=True)
    (home / "node.toml").write_text(text, encoding="utf-8")


def _set(text: str, key: str, value: Callable[[str], str]) -> str:
    """Every ``key = ...`` of the TOML ``text`` with its value replaced; the comment behind it stays."""
    return re.sub(rf"(?m)^({key}\s*=\s*)(\"[^\"]*\"|[^\s#]+)", lambda match: match[1] + value(match[2]), text)


def _clear(folder: Path) -> None:
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / "gridsched.toml").is_file() or 'name = "demo"' not in (folder / "gridsched.toml").read_text(encoding="utf-8"):
        raise InvalidInput(f"{folder} is neither empty nor the site of an earlier demo; choose another folder with --out")
    if _runs(folder):
        raise Conflict(f"the demo in {folder} still runs; end it with the kill command it printed, or choose another folder with --out")
    shutil.rmtree(folder)


def _runs(folder: Path) -> bool:
    """Whether an agent or the daemon of the site is up, as ``--keep`` leaves them."""
    if any(HomeLock(lock.parent).held() for lock in folder.glob("nodes/*/lock")):
        return True
    if (folder / "data" / "url").is_file():
        with suppress(GridschedError), closing(remote.connect(site=folder)) as daemon:
            return bool(daemon.get("/v1/status"))
    return False
