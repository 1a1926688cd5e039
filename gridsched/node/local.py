"""Datasets that belong to this machine's owner. Jobs may learn from them here, where the owner says so; they never leave.

Each lies in a folder of its own in the node's home, cut into shards like any dataset, with a manifest beside them. The daemon is
told a dataset's name, its manifest's digest and its number of samples, and nothing else; the node has no call that would send more.
"""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from gridsched.core.errors import Conflict, InvalidInput, NotFound
from gridsched.core.fleet import LocalData
from gridsched.core.job import is_name
from gridsched.node.files import Write, write_durable
from gridsched.train.dataset import write_dataset
from gridsched.train.tensors import Array

__all__ = ["LocalStore"]

_SHARD_SAMPLES = 4096
_CARD = "dataset.json"


class LocalStore:
    """``folder/NAME/`` holds ``dataset.json`` and the files that it stands for, each named by its digest."""

    def __init__(self, folder: Path, *, write: Write = write_durable) -> None:
        self.folder = folder
        self._write = write

    def add(self, name: str, fields: Mapping[str, Array]) -> LocalData:
        """Keep ``fields`` (arrays of equal length, samples first) as dataset ``name``. The same again changes nothing.

        Raises InvalidInput for a name that cannot be one, Conflict where other data has it, StorageFull where there is no room.
        """
        if not is_name(name):
            raise InvalidInput(f"dataset name {name!r} must be lower-case letters, digits, - and _, at most 63")
        place = self.folder / name
        known = self._card(place)
        if known is None:
            shutil.rmtree(place, ignore_errors=True)  # what an earlier try has left behind

        def put(data: bytes) -> str:
            digest = hashlib.sha256(data).hexdigest()
            if known is None:
                self._write(place / digest, data)
            return digest

        manifest = write_dataset(fields, name=name, shard_samples=_SHARD_SAMPLES, put=put)
        made = LocalData(digest=put(manifest.to_bytes()), samples=manifest.samples)
        if known not in (None, made):
            raise Conflict(f"this node has other data named {name!r}; remove it first (gridsched node data remove {name}) or choose a name")
        self._write(place / _CARD, msgspec.json.encode(made))  # last: without it nothing is there
        return made

    def remove(self, name: str) -> None:
        """Delete dataset ``name``; jobs that learn from it go on without this node. Raises NotFound."""
        if not is_name(name) or self._card(self.folder / name) is None:
            raise NotFound(f"this node has no data named {name!r}; see gridsched node data list")
        (self.folder / name / _CARD).unlink()
        shutil.rmtree(self.folder / name)

    def all(self) -> dict[str, LocalData]:
        """Every dataset by name."""
        cards = {place.name: self._card(place) for place in sorted(self.folder.glob("*")) if place.is_dir()}
        return {name: card for name, card in cards.items() if card is not None}

    def path(self, digest: str) -> Path | None:
        """The file that ``digest`` names, where it is part of a dataset here."""
        return next((path for path in self.folder.glob(f"*/{digest}") if (path.parent / _CARD).exists()), None)

    def stamp(self) -> tuple[tuple[str, int], ...]:
        """Changes when a dataset is added or removed."""
        return tuple(sorted((card.parent.name, card.stat().st_mtime_ns) for card in self.folder.glob(f"*/{_CARD}")))

    def _card(self, place: Path) -> LocalData | None:
        try:
            return msgspec.json.decode((place / _CARD).read_bytes(), type=LocalData)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except msgspec.DecodeError as error:
            raise InvalidInput(f"{place / _CARD} is damaged ({error}); delete {place} and add the data again") from error
