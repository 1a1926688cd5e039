"""Readers of image archives: what the standard files hold, and a clear word about every damaged one."""

import gzip
import io
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from gridsched.core.errors import DatasetError
from gridsched.train.images import cifar10, fashion_mnist

BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def fashion_folder(folder: Path, samples: int = 3) -> Path:
    for part in ("train", "t10k"):
        pixels = np.arange(samples * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(samples, 28, 28)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pixels)))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(samples, dtype=np.uint8) % 10)))
    return folder


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return path


def pixels_of(number: int, samples: int = 2) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (samples, 3072), np.uint8)


def binary(number: int) -> bytes:
    pixels = pixels_of(number)
    return b"".join(bytes([(number + i) % 10]) + row.tobytes() for i, row in enumerate(pixels))


def text(word: bytes) -> bytes:
    """A byte string as Python 2 pickled it."""
    return b"U" + bytes([len(word)]) + word


def pickled(number: int, *, reconstruct: bytes = b"numpy.core.multiarray\n_reconstruct", kind: bytes = b"u1") -> bytes:
    """A batch as Python 2 wrote CIFAR-10's: protocol 2, byte strings, an array of numpy's."""
    pixels = pixels_of(number)
    array = (
        b"c" + reconstruct + b"\n" + b"cnumpy\nndarray\n" + b"K\x00\x85" + text(b"b") + b"\x87R"
        + b"(K\x01K" + bytes([len(pixels)]) + b"M\x00\x0c\x86"
        + b"cnumpy\ndtype\n" + text(kind) + b"K\x00K\x01\x87R(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + b"\x89T" + struct.pack("<I", pixels.nbytes) + pixels.tobytes() + b"tb"
    )  # fmt: skip
    labels = b"](" + b"".join(b"K" + bytes([(number + i) % 10]) for i in range(len(pixels))) + b"e"
    names = b"](" + text(b"a.png") + text(b"b.png") + b"e"
    about = text(b"batch_label") + text(b"training batch")
    return b"\x80\x02}(" + about + text(b"labels") + labels + text(b"data") + array + text(b"filenames") + names + b"u."


@pytest.mark.fashion_mnist
def test_fashion_mnist_as_debian_ships_it() -> None:
    train, test = fashion_mnist(scaled=False)
    assert train["x"].shape == (60_000, 1, 28, 28)
    assert test["x"].dtype == np.uint8
    assert np.bincount(train["y"]).tolist() == [6000] * 10
    assert np.bincount(test["y"]).tolist() == [1000] * 10
    assert round(float(train["x"].mean()), 3) == 72.94  # the mean pixel, 0.2860 of 255, that everyone normalises by


def test_fashion_mnist_is_scaled_or_left_as_bytes(tmp_path: Path) -> None:
    folder = fashion_folder(tmp_path)
    train, test = fashion_mnist(folder)
    as_bytes, _ = fashion_mnist(folder, scaled=False)
    assert train["x"].dtype == np.float32
    assert train["x"].shape == test["x"].shape == (3, 1, 28, 28)
    assert train["x"].max() == 1.0
    assert train["y"].tolist() == [0, 1, 2]
    assert np.array_equal(np.rint(train["x"] * 255).astype(np.uint8), as_bytes["x"])


def test_without_the_package_the_remedy_is_said(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="apt install dataset-fashion-mnist"):
        fashion_mnist(tmp_path / "no")
    with pytest.raises(DatasetError, match=r"train-images.*apt install dataset-fashion-mnist"):
        fashion_mnist(tmp_path)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"no gzip", "cannot be read as gzip"),
        (gzip.compress(idx(np.zeros((3, 28, 28), np.uint8)), mtime=0)[:-9], "cannot be read as gzip"),
        (gzip.compress(b"\0\0\x08", mtime=0), "not an IDX file"),
        (gzip.compress(b"\0\0\x0d" + idx(np.zeros((3, 28, 28), np.uint8))[3:], mtime=0), "not an IDX file"),
        (gzip.compress(idx(np.zeros((3, 28), np.uint8)), mtime=0), "not an IDX file"),
        (gzip.compress(idx(np.zeros((3, 28, 28), np.uint8))[:-1], mtime=0), "and has 2351"),
        (gzip.compress(bytes((0, 0, 8, 3)) + b"\xff" * 12, mtime=0), "and has 0"),
        (gzip.compress(idx(np.zeros((2, 28, 28), np.uint8)), mtime=0), "2 images and 3 labels"),
    ],
    ids=["no gzip", "cut short", "too short", "not bytes", "an axis less", "a byte less", "absurd", "another number"],
)
def test_damaged_images_are_refused_by_name(tmp_path: Path, data: bytes, said: str) -> None:
    path = fashion_folder(tmp_path) / "train-images-idx3-ubyte.gz"
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=f"{path.name}.*{said}"):
        fashion_mnist(tmp_path)


def test_a_label_that_no_class_has_is_refused(tmp_path: Path) -> None:
    (fashion_folder(tmp_path) / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.array([1, 2, 10], np.uint8))))
    with pytest.raises(DatasetError, match="label 10 is not one of 0 to 9"):
        fashion_mnist(tmp_path)


@pytest.mark.parametrize("kind", ["binary", "python"])
def test_both_archives_of_cifar_10_hold_the_same(tmp_path: Path, kind: str) -> None:
    make, folder, ending = (binary, "cifar-10-batches-bin", ".bin") if kind == "binary" else (pickled, "cifar-10-batches-py", "")
    files = {f"{folder}/{name}{ending}": make(number) for number, name in enumerate(BATCHES)}
    train, test = cifar10(archive(tmp_path / "cifar.tar.gz", {f"{folder}/readme.html": b"about", **files}), scaled=False)
    assert train["x"].shape == (10, 3, 32, 32)
    assert train["y"].tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert np.array_equal(train["x"][2:4].reshape(2, -1), pixels_of(1))
    assert np.array_equal(test["x"].reshape(2, -1), pixels_of(5))
    scaled, _ = cifar10(tmp_path / "cifar.tar.gz")
    assert np.allclose(scaled["x"], train["x"] / 255)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (pickled(0)[:-40], "data_batch_3 is not a batch"),
        (b"", "data_batch_3 is not a batch"),
        (b"\x80\x02]q.", "data_batch_3 is not a batch"),
        (b"cos\nsystem\n(S'echo hacked'\ntR.", "asks for os.system"),
        (b"\x80\x02cbuiltins\neval\nX\x03\x00\x00\x001+1\x85R.", "asks for builtins.eval"),
        (pickled(0, reconstruct=b"numpy.core.multiarray\nscalar"), "asks for numpy.core.multiarray.scalar"),
        (pickled(0, kind=b"O8"), "not an array of bytes"),
        (pickled(0).replace(b"M\x00\x0c\x86", b"M\x00\x0d\x86"), "data_batch_3 is not a batch"),
        (pickled(0).replace(b"](K\x00", b"](K\x0b"), "label 11 is not one of"),
    ],
    ids=["cut short", "empty", "a list", "a command", "code", "another function", "objects", "another shape", "a strange label"],
)
def test_a_pickle_that_is_no_batch_is_refused_and_runs_nothing(
    tmp_path: Path, batch: bytes, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    files = {f"cifar-10-batches-py/{name}": pickled(number) for number, name in enumerate(BATCHES)}
    files["cifar-10-batches-py/data_batch_3"] = batch
    with pytest.raises(DatasetError, match=said):
        cifar10(archive(tmp_path / "cifar.tar.gz", files))
    assert "hacked" not in capfd.readouterr().out


def test_an_archive_that_is_not_cifar_10_is_refused_by_name(tmp_path: Path) -> None:
    files = {f"{name}.bin": binary(number) for number, name in enumerate(BATCHES)}
    with pytest.raises(DatasetError, match=r"there is no file .*cs.toronto.edu"):
        cifar10(tmp_path / "no.tar.gz")
    (tmp_path / "text.tar.gz").write_text("text")
    with pytest.raises(DatasetError, match=r"text.tar.gz cannot be read as a tar archive"):
        cifar10(tmp_path / "text.tar.gz")
    with pytest.raises(DatasetError, match=r"holds neither test_batch.bin nor test_batch"):
        cifar10(archive(tmp_path / "other.tar.gz", {"a.txt": b"a"}))
    with pytest.raises(DatasetError, match=r"lacks data_batch_2.bin"):
        cifar10(archive(tmp_path / "less.tar.gz", {name: data for name, data in files.items() if name != "data_batch_2.bin"}))
    with pytest.raises(DatasetError, match=r"data_batch_2.bin has 6145 bytes"):
        cifar10(archive(tmp_path / "short.tar.gz", files | {"data_batch_2.bin": binary(1)[:-1]}))
    with pytest.raises(DatasetError, match="label 200 is not one of 0 to 9"):
        cifar10(archive(tmp_path / "label.tar.gz", files | {"data_batch_2.bin": b"\xc8" + binary(1)[1:]}))
    whole = archive(tmp_path / "whole.tar.gz", files).read_bytes()
    (tmp_path / "whole.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match="cannot be read as a tar archive"):
        cifar10(tmp_path / "whole.tar.gz")
