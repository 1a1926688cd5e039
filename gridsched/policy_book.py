"""The zones' policies and the files they are read from: loaded, noticed when edited, and saved for whoever edits them in the console."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

from gridsched.core.errors import ConfigError, Conflict, PolicyError
from gridsched.core.rule import Policy
from gridsched.core.settings import Settings
from gridsched.policy_file import load_policy, parse_policy
from gridsched.train.checkpoint import write_durably

__all__ = ["PolicyBook"]

_log = logging.getLogger(__name__)
_NAMED = 12


class PolicyBook:
    """An edited file counts from the next control tick on; a broken edit is reported and the last good policy kept.

    Implements `gridsched.ports.PolicyFiles`. What `save` replaces is kept in the site's ``data/policies/``.
    """

    def __init__(self, settings: Settings) -> None:
        self._files = {zone.name: zone.policy for zone in settings.zones}
        self._kept = settings.site.data / "policies"
        self._seen = {zone: path.stat().st_mtime_ns for zone, path in self._files.items() if path.is_file()}
        self._by_zone = {zone: _checked(zone, load_policy(path), path) for zone, path in self._files.items()}

    @property
    def by_zone(self) -> Mapping[str, Policy]:
        """The policies that rule; the same mapping at all times."""
        return self._by_zone

    def current(self, zone: str) -> Policy:
        """The zone's policy, read again where its file has changed; where that fails, whyever, the last good one, and it is told once."""
        path = self._files[zone]
        try:
            changed = path.stat().st_mtime_ns if path.exists() else 0
            if changed != self._seen.get(zone):
                self._seen[zone] = changed
                self._by_zone[zone] = _checked(zone, load_policy(path), path)
        except Exception as error:  # noqa: BLE001 - whatever is in an edited file, the zone is decided by the last good one
            _log.error("policy of %s not reloaded, the last good one stays: %s", zone, error, extra={"action": "policy_kept", "zone": zone})
        return self._by_zone[zone]

    def name(self, zone: str) -> str:
        """The policy's name, which is its file's."""
        return self._files[zone].stem

    def text(self, zone: str) -> str:
        """The file as it is now; raises `PolicyError` where it cannot be read."""
        path = self._files[zone]
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PolicyError(f"{path}: cannot be read as UTF-8 text: {error}") from error

    def parse(self, zone: str, text: str) -> Policy:
        """The policy in ``text``, which must rule ``zone``; raises `PolicyError` with every problem."""
        path = self._files[zone]
        return _checked(zone, parse_policy(text, path.stem), path)

    def save(self, zone: str, text: str, *, replaces: str) -> Path | None:
        """Put ``text`` in the file's place, whole or not at all, and keep what was there: where, or None where nothing has changed.

        ``replaces`` is the sha256 of the text that was edited: raises `Conflict` where the file has become another since,
        and `PolicyError` for a text that is no policy of ``zone``.
        """
        self.parse(zone, text)
        path, before = self._files[zone], self.text(zone)
        if before == text:
            return None
        digest = hashlib.sha256(before.encode()).hexdigest()
        if digest != replaces:
            raise Conflict(f"{path.name} has changed since you opened it; load it again and make your change there")
        kept = self._kept / f"{path.stem}.{digest[:_NAMED]}.toml"
        write_durably(kept, [before.encode()])
        mode = path.stat().st_mode
        write_durably(path, [text.encode()])
        path.chmod(mode)
        return kept


def _checked(zone: str, policy: Policy, path: Path) -> Policy:
    if policy.zone != zone:
        raise ConfigError(f"{path} is a policy for zone {policy.zone!r}, but gridsched.toml gives it to {zone!r}; make the two agree")
    return policy
