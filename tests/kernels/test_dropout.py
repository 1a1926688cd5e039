"""Draws by counting: what is kept depends on seed, stream and place alone."""

import numpy as np
import pytest

from tests.kernels.closeness import Array, empty, normal
from tests.kernels.host import Host

N = 100_000
MASK = (1 << 64) - 1


def kept(host: Host, *, seed: int = 7, stream: int = 0, n: int = N, share: float = 0.3) -> Array:
    y = empty(n)
    host.call("dropout", np.ones(n, np.float32), y, np.array([seed], np.uint64), stream, n, share)
    return y


def mixed(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_the_share_is_dropped_and_the_rest_keeps_the_mean(host: Host, share: float) -> None:
    y = kept(host, share=share)
    assert set(np.unique(y)) <= {np.float32(0), np.float32(1) / (np.float32(1) - np.float32(share))}
    # Five deviations of a binomial.
    assert abs((y == 0).mean() - share) <= 5 * (share * (1 - share) / N) ** 0.5


def test_a_share_of_one_leaves_nothing(host: Host) -> None:
    np.testing.assert_array_equal(kept(host, share=1.0), np.zeros(N))


def test_draws_are_those_of_splitmix(host: Host) -> None:
    golden = 0x9E3779B97F4A7C15
    key = mixed((7 + golden * 3) & MASK)
    words = [mixed((key + golden * (at + 1)) & MASK) for at in range(8)]
    u = [((word >> (32 * half)) & 0xFFFFFFFF) >> 8 for word in words for half in range(2)]
    np.testing.assert_array_equal(kept(host, stream=3, n=15, share=0.5) != 0, [bits >= 1 << 23 for bits in u[:15]])


def test_places_do_not_depend_on_how_many_there_are(host: Host) -> None:
    np.testing.assert_array_equal(kept(host, n=99), kept(host)[:99])


def test_seeds_and_streams_drop_independently(host: Host) -> None:
    first = kept(host, share=0.5) == 0
    for other in (kept(host, seed=8, share=0.5), kept(host, stream=1, share=0.5)):
        assert abs((first == (other == 0)).mean() - 0.5) < 5 * 0.5 / N**0.5


def test_the_backward_pass_drops_the_same_places(host: Host) -> None:
    x, y = normal(1, N), empty(N)
    host.call("dropout", x, y, np.array([7], np.uint64), 0, N, 0.3)
    np.testing.assert_array_equal(y == 0, kept(host) == 0)
