"""Odd updates are seen beside honest ones, and honest ones are not odd."""

from collections.abc import Callable

import numpy as np
import pytest

from gridsched.core.method import Codec
from gridsched.core.trust import AuditReason
from gridsched.train.codec import encode
from gridsched.train.screen import Trace, differ, suspicions, trace
from gridsched.train.tensors import Array

UNITS = 8
Update = dict[str, Array]
rng = np.random.default_rng(11)
TREND = {"w": rng.normal(size=(120, 300)).astype(np.float32), "b": rng.normal(size=300).astype(np.float32)}


def update(*, seed: int, noise: float = 1.0) -> Update:
    """What a round has in common, and as much again that is the unit's own."""
    own = np.random.default_rng(seed)
    return {name: (trend + noise * own.normal(size=trend.shape)).astype(np.float32) for name, trend in TREND.items()}


def seen(made: Update, *, name: str, number: int, steps: int = 10, codec: Codec = Codec.RAW) -> Trace:
    norm = float(np.sqrt(sum(np.square(array.astype(np.float64)).sum() for array in made.values())))
    return trace(encode(made, codec), unit_id=name, number=number, steps=steps, norm=norm, buffers=(), seed=3)


def round_of(number: int, *, units: int = UNITS) -> list[Trace]:
    return [seen(update(seed=100 * number + unit), name=f"r{number}.u{unit}", number=number) for unit in range(units)]


BEFORE = [*round_of(0), *round_of(1)]


def test_honest_updates_are_not_odd() -> None:
    assert suspicions(round_of(2), BEFORE) == {}
    assert suspicions(round_of(2), []) == {}


def times(factor: float) -> Callable[[Update], Update]:
    return lambda made: {name: np.float32(factor) * array for name, array in made.items()}


def noise(made: Update) -> Update:
    drawn = np.random.default_rng(1)
    return {name: (np.sqrt(2) * drawn.normal(size=array.shape)).astype(np.float32) for name, array in made.items()}


@pytest.mark.parametrize(
    ("lie", "how"),
    [
        (times(2.0), AuditReason.SIZE),
        (times(0.5), AuditReason.SIZE),
        (times(0.0), AuditReason.SIZE),
        (times(-1.0), AuditReason.DIRECTION),
        (noise, AuditReason.DIRECTION),
        (lambda _: update(seed=100), AuditReason.COPY),
        (lambda _: {name: array * np.float32(1.01) for name, array in update(seed=202).items()}, AuditReason.COPY),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_each_lie_is_seen_alone_and_beside_another_of_its_kind(lie: Callable[[Update], Update], how: AuditReason, alone: bool) -> None:
    honest = round_of(2)
    liars = [6] if alone else [6, 7]
    for unit in liars:
        honest[unit] = seen(lie(update(seed=200 + unit)), name=f"liar-{unit}", number=2)
    found = suspicions(honest, BEFORE)
    assert set(found) == {f"liar-{unit}" for unit in liars}
    assert found["liar-6"] is how


def test_a_copy_is_seen_through_rounding() -> None:
    honest = round_of(2, units=4)
    copied = seen(update(seed=201), name="copy", number=2, codec=Codec.INT8)
    assert suspicions([*honest, copied], BEFORE) == {"copy": AuditReason.COPY}


def test_one_unit_a_round_is_compared_with_the_rounds_before() -> None:
    before = [one for number in range(6) for one in round_of(number, units=1)]
    flipped = seen(times(-1.0)(update(seed=600)), name="liar", number=6)
    assert suspicions(round_of(6, units=1), before) == {}
    assert suspicions([flipped], before) == {"liar": AuditReason.DIRECTION}


def test_with_nothing_to_compare_nothing_is_odd() -> None:
    assert suspicions(round_of(0, units=2), []) == {}


def test_a_longer_unit_is_not_odd_for_being_larger() -> None:
    longer = seen(times(3.0)(update(seed=900)), name="longer", number=2, steps=30)
    assert suspicions([*round_of(2), longer], BEFORE) == {}


def test_how_far_two_updates_lie_apart() -> None:
    one = encode(update(seed=1), Codec.RAW)
    assert differ(one, one, buffers=()) == 0
    assert differ(one, encode(times(1.001)(update(seed=1)), Codec.RAW), buffers=()) == pytest.approx(1e-3, rel=1e-2)
    assert differ(one, encode(update(seed=2), Codec.RAW), buffers=()) > 0.5
    assert differ(encode(times(0.0)(update(seed=1)), Codec.RAW), one, buffers=()) == float("inf")
