"""Model versions as files."""

import pytest

from gridsched.core.errors import InvalidInput
from gridsched.core.method import Codec
from gridsched.train.codec import encode
from gridsched.train.version import Version, read_version
from tests.train.test_merge import bits, delta, model


def test_a_version_survives_the_round_trip() -> None:
    version = Version(tensors=model(), buffers=frozenset({"running_var"}))
    again = read_version(version.to_bytes())
    assert (bits(again.tensors), again.outer, again.buffers) == (bits(version.tensors), {}, version.buffers)
    assert again.to_bytes() == version.to_bytes()


def test_a_file_that_is_no_version_is_refused() -> None:
    with pytest.raises(InvalidInput, match="not a model version"):
        read_version(encode(delta(0), Codec.RAW))
