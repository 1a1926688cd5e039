"""Making a site, and telling everything that is wrong with one before it starts."""

import os
import secrets
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from gridsched import config
from gridsched.core.errors import ConfigError, GridschedError
from gridsched.core.rule import Policy
from gridsched.core.settings import Settings
from gridsched.core.signal import SignalKind
from gridsched.plugins import load_policy, shipped
from gridsched.sources import Source, open_sources
from gridsched.store.sql import SqlStore
from gridsched.train.checkpoint import write_durably

__all__ = ["Finding", "audit_secret", "check", "make_site", "operator_token", "policy_of", "write_token"]

_FOLDERS = ("adapters", "policies", "examples")
_SHORTEST = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at; ``problem`` is empty where all is well."""

    what: str
    found: str
    problem: str = ""


def make_site(folder: Path) -> Settings:
    """Copy the shipped adapters, policies, examples and a commented ``gridsched.toml`` into a new folder, with an operator token.

    Raises `ConfigError` for a folder that has something in it: a site is never overwritten.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already and not empty; name a new folder, or run gridsched check --site {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    for name in _FOLDERS:
        shutil.copytree(shipped(name), folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    shutil.copyfile(shipped("examples").parent / config.FILE, folder / config.FILE)
    settings = config.load(folder)
    write_token(settings)
    return settings


def write_token(settings: Settings) -> None:
    """Make the operator's token, readable by its owner only; one that is there stays."""
    _write_secret(settings.token_file)


def operator_token(settings: Settings) -> str | None:
    """The operator's token; None where the site has none. Raises `ConfigError` for one that could be guessed."""
    return _read_secret(settings.token_file) if settings.token_file.is_file() else None


def audit_secret(settings: Settings) -> bytes:
    """What the draws of audits hang on: made once, beside the database, so that no node can foresee them and we can repeat them.

    Raises `ConfigError` for one that could be guessed.
    """
    path = settings.site.data / "audit.secret"
    _write_secret(path)
    return _read_secret(path).encode()


def _write_secret(path: Path) -> None:
    """Make a secret that is not there yet, whole or not at all; an empty file, as a crash may have left it, is none."""
    if not path.is_file() or not path.read_bytes().strip():
        write_durably(path, [secrets.token_urlsafe(32).encode() + b"\n"])


def _read_secret(path: Path) -> str:
    secret = path.read_text(encoding="utf-8").strip()
    if len(secret) < _SHORTEST:
        raise ConfigError(
            f"{path} holds {len(secret)} characters, and a secret of fewer than {_SHORTEST} can be guessed; "
            f"delete the file and start gridsched serve again, which makes a new one"
        )
    return secret


def policy_of(settings: Settings, zone: str) -> Policy:
    """The policy that ``gridsched.toml`` gives to ``zone``; raises where the file means another zone."""
    table = next((table for table in settings.zones if table.name == zone), None)
    if table is None:
        raise ConfigError(f"there is no zone {zone!r}; gridsched.toml has {', '.join(t.name for t in settings.zones)}")
    policy = load_policy(table.policy)
    if policy.zone != zone:
        raise ConfigError(
            f"{table.policy} is a policy for zone {policy.zone!r}, but gridsched.toml gives it to {zone!r}; make the two agree"
        )
    return policy


def check(folder: Path) -> list[Finding]:
    """Look at everything that starting would need, and start nothing."""
    try:
        settings = config.load(folder)
    except GridschedError as error:
        return [Finding(what=config.FILE, found="", problem=str(error))]
    findings = [Finding(what=config.FILE, found=f"{len(settings.zones)} zones, {len(settings.adapters)} adapters")]
    sources, found = _sources(settings)
    findings += found
    for table in settings.zones:
        findings.append(_zone(settings, table.name, sources))
    return [*findings, _store(settings), _folder(settings)]


def _sources(settings: Settings) -> tuple[list[Source], list[Finding]]:
    sources: list[Source] = []
    findings = []
    for number, table in enumerate(settings.adapters, start=1):
        what = f"adapter {number} {table.use}"
        try:
            (source,) = open_sources([table], site=settings.folder)
        except GridschedError as error:
            findings.append(Finding(what=what, found="", problem=str(error)))
            continue
        sources.append(source)
        gives = ", ".join(source.adapter.signals)
        findings.append(Finding(what=what, found=f"{gives} for {source.adapter.zone}, every {source.every}"))
    return sources, findings


def _zone(settings: Settings, zone: str, sources: list[Source]) -> Finding:
    what = f"zone {zone}"
    try:
        policy = policy_of(settings, zone)
    except GridschedError as error:
        return Finding(what=what, found="", problem=str(error))
    given = Counter(signal for source in sources if source.adapter.zone == zone for signal in source.adapter.signals)
    optional = {SignalKind.LIMIT} if policy.alarm.required else {SignalKind.LIMIT, SignalKind.ALARM}
    lacking = sorted(set(policy.signals) - given.keys() - optional)
    if lacking:
        return Finding(
            what=what, found=policy.name, problem=f"policy {policy.name} needs {', '.join(lacking)}, and no adapter of zone {zone} gives it"
        )
    if alone := sorted(kind for kind, _ in policy.agree if given[kind] < 2):
        problem = f"policy {policy.name} compares sources of {', '.join(alone)}, and zone {zone} has no two; add one or leave [agree] out"
        return Finding(what=what, found=policy.name, problem=problem)
    return Finding(what=what, found=f"policy {policy.name} ({policy.digest[:12]}) looks at {', '.join(policy.signals)}")


def _store(settings: Settings) -> Finding:
    try:
        settings.site.data.mkdir(parents=True, exist_ok=True)
        store = SqlStore(settings.store.url)
        try:
            with store.read():
                pass
        finally:
            store.close()
    except (GridschedError, OSError) as error:
        return Finding(what="store", found="", problem=f"the database cannot be reached: {error}")
    return Finding(what="store", found=settings.store.url.split("://", 1)[0])


def _folder(settings: Settings) -> Finding:
    free = shutil.disk_usage(settings.site.data).free
    if not os.access(settings.site.data, os.W_OK):
        return Finding(what="data", found="", problem=f"{settings.site.data} is not writable; give this user the right, or set [site] data")
    short = "" if free > settings.blobs.quota_bytes else f" (less than the quota of {settings.blobs.quota_bytes / 1e9:.0f} GB)"
    return Finding(what="data", found=f"{settings.site.data}, {free / 1e9:.0f} GB free{short}")
