"""Standard image archives as fields of a dataset: Fashion-MNIST from its Debian package, CIFAR-10 from either of its archives.

Nothing is downloaded: the files are the owner's own. They are read as strictly as if they were not, and no file can run code.
"""

import gzip
import io
import pickle  # noqa: TID251 - CIFAR-10's better known archive holds pickles; `_Plain` below makes nothing but data of them
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gridsched.core.errors import DatasetError
from gridsched.train.tensors import Array

__all__ = ["FASHION_MNIST", "Fields", "cifar10", "fashion_mnist"]

Fields = dict[str, Array]
"""``x`` [n, channels, height, width] and ``y`` [n] int64, the label."""

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""

_LABELS = 10
_MOST_BYTES = 256 << 20
_CIFAR_PIXELS = 3 * 32 * 32
_CIFAR_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_CIFAR_TEST = "test_batch"
_UNREADABLE = (OSError, EOFError, zlib.error, tarfile.TarError)


def fashion_mnist(folder: Path = FASHION_MNIST, *, scaled: bool = True) -> tuple[Fields, Fields]:
    """Training and test samples of Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): 60,000 and 10,000 images in ten classes.

    ``x`` is float32 [n, 1, 28, 28] from 0 to 1, or, not ``scaled``, uint8 from 0 to 255, a quarter of the bytes to store and send.
    Raises DatasetError, which names the file and what is wrong with it.
    """
    if not folder.is_dir():
        raise DatasetError(f"there is no folder {folder}; for Fashion-MNIST run: apt install dataset-fashion-mnist")
    return _idx_pair(folder, "train", scaled=scaled), _idx_pair(folder, "t10k", scaled=scaled)


def _idx_pair(folder: Path, part: str, *, scaled: bool) -> Fields:
    images, labels = folder / f"{part}-images-idx3-ubyte.gz", folder / f"{part}-labels-idx1-ubyte.gz"
    return _fields(_idx(images, axes=3)[:, None], _idx(labels, axes=1), f"{images} and {labels.name}", scaled=scaled)


def _idx(path: Path, *, axes: int) -> npt.NDArray[np.uint8]:
    """An array of bytes in the format IDX (two zero bytes, type 8, number of axes, each axis's length in four bytes, the data)."""
    try:
        with gzip.open(path) as file:
            data = file.read(_MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise DatasetError(f"there is no file {path}; for Fashion-MNIST run: apt install dataset-fashion-mnist") from error
    except _UNREADABLE as error:
        raise DatasetError(f"{path} cannot be read as gzip: {error}; install or download it again") from error
    head = 4 + 4 * axes
    if len(data) < head or data[:4] != bytes((0, 0, 8, axes)):
        raise DatasetError(f"{path} is not an IDX file of bytes with {axes} axes; install or download it again")
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", axes, offset=4))
    if len(data) - head != np.prod(shape, dtype=object):
        raise DatasetError(f"{path} says it holds {shape} bytes and has {len(data) - head}; install or download it again")
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)


def cifar10(archive: Path, *, scaled: bool = True) -> tuple[Fields, Fields]:
    """Training and test samples of CIFAR-10 (Krizhevsky 2009) from ``cifar-10-binary.tar.gz`` or ``cifar-10-python.tar.gz``.

    ``x`` is float32 [n, 3, 32, 32] from 0 to 1, or, not ``scaled``, uint8 from 0 to 255. Raises DatasetError.
    """
    batches = _members(archive)
    for ending, read in ((".bin", _binary_batch), ("", _pickled_batch)):
        if _CIFAR_TEST + ending in batches:
            return _cifar_parts(archive, batches, ending, read, scaled=scaled)
    raise DatasetError(f"{archive} holds neither {_CIFAR_TEST}.bin nor {_CIFAR_TEST}; it is not one of CIFAR-10's archives")


def _members(archive: Path) -> dict[str, bytes]:
    """The archive's batches by file name, wherever in it they lie."""
    wanted = {name + ending for name in (*_CIFAR_TRAIN, _CIFAR_TEST) for ending in ("", ".bin")}
    found = {}
    try:
        with tarfile.open(archive) as file:
            for member in file:
                name = Path(member.name).name
                if name in wanted and (opened := file.extractfile(member)) is not None:
                    found[name] = opened.read(_MOST_BYTES)
    except FileNotFoundError as error:
        raise DatasetError(f"there is no file {archive}; CIFAR-10's archives are at https://www.cs.toronto.edu/~kriz/cifar.html") from error
    except _UNREADABLE as error:
        raise DatasetError(f"{archive} cannot be read as a tar archive: {error}; download it again") from error
    return found


def _cifar_parts(
    archive: Path, batches: dict[str, bytes], ending: str, read: Callable[[bytes, str], tuple[Array, Array]], *, scaled: bool
) -> tuple[Fields, Fields]:
    names = [name + ending for name in (*_CIFAR_TRAIN, _CIFAR_TEST)]
    if missing := [name for name in names if name not in batches]:
        raise DatasetError(f"{archive} lacks {', '.join(missing)}; download it again")
    made = []
    for name in names:
        where = f"{archive}: {name}"
        pixels, labels = read(batches[name], where)
        made.append(_fields(pixels.reshape(-1, 3, 32, 32), labels, where, scaled=scaled))
    train = {field: np.concatenate([batch[field] for batch in made[:-1]]) for field in ("x", "y")}
    return train, made[-1]


def _binary_batch(data: bytes, where: str) -> tuple[Array, Array]:
    """Records of a label's byte and 3,072 pixels: red, green, blue, each row by row."""
    if not data or len(data) % (1 + _CIFAR_PIXELS):
        raise DatasetError(f"{where} has {len(data)} bytes, which is no number of records of {1 + _CIFAR_PIXELS}")
    records = np.frombuffer(data, np.uint8).reshape(-1, 1 + _CIFAR_PIXELS)
    return records[:, 1:], records[:, 0]


def _pickled_batch(data: bytes, where: str) -> tuple[Array, Array]:
    """A dict with ``data``, an array of bytes [n, 3072], and ``labels``, a list."""
    try:
        batch = _Plain(io.BytesIO(data), encoding="bytes").load()
        pixels = np.frombuffer(batch[b"data"].data, np.uint8).reshape(batch[b"data"].shape)
        return pixels.reshape(-1, _CIFAR_PIXELS), np.array([_label(label) for label in batch[b"labels"]], np.uint8)
    except Exception as error:  # a damaged pickle raises anything
        raise DatasetError(f"{where} is not a batch of CIFAR-10: {error}; download it again, or take cifar-10-binary.tar.gz") from error


def _label(value: object) -> int:
    if type(value) is not int or not 0 <= value < _LABELS:
        raise ValueError(f"label {value!r} is not one of 0 to {_LABELS - 1}")
    return value


class _Stored:
    """Stands in for ``numpy.ndarray`` while a pickle is read: it keeps shape and bytes and interprets nothing."""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        if type(data) is not bytes or kind != "u1" or fortran or not all(type(size) is int for size in shape):
            raise pickle.UnpicklingError("its data is not an array of bytes, row by row")
        self.shape: tuple[int, ...] = shape
        self.data: bytes = data


class _Kind(str):
    """Stands in for ``numpy.dtype``: the word it was made from."""

    __slots__ = ()

    def __new__(cls, word: bytes, *_: object) -> "_Kind":
        return super().__new__(cls, word.decode("ascii"))

    def __setstate__(self, _: object) -> None:
        """Byte order and alignment, which say nothing about single bytes."""


class _Plain(pickle.Unpickler):
    """Makes plain values and `_Stored` arrays; whatever else a pickle asks for is refused, so it can run nothing.

    See "Restricting Globals", https://docs.python.org/3/library/pickle.html. Not even numpy's own code is run.
    """

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Stored(),
            ("numpy", "ndarray"): _Stored,
            ("numpy", "dtype"): _Kind,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch of CIFAR-10 needs")
        return known[module, name]


def _fields(pixels: Array, labels: Array, where: str, *, scaled: bool) -> Fields:
    if len(pixels) != len(labels) or not len(labels):
        raise DatasetError(f"{where}: {len(pixels)} images and {len(labels)} labels do not belong together")
    if labels.max() >= _LABELS:
        raise DatasetError(f"{where}: label {labels.max()} is not one of 0 to {_LABELS - 1}")
    x = pixels.astype(np.float32) / np.float32(255) if scaled else np.ascontiguousarray(pixels)
    return {"x": x, "y": labels.astype(np.int64)}
