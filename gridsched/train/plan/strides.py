"""Shapes and steps of tensors that are walked along up to six axes."""

from collections.abc import Sequence

from gridsched.train.plan.rules import expect, refuse

__all__ = ["AXES", "axis_of", "broadcast", "merged", "row_major", "shape_of", "steps_within"]

AXES = 6


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Steps in elements of a contiguous tensor."""
    steps, step = [], 1
    for size in reversed(shape):
        steps.append(step)
        step *= size
    return tuple(reversed(steps))


def broadcast(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The common shape of tensors of which some are repeated along axes of size 1 or that they lack."""
    rank = max(len(shape) for shape in shapes)
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    found = []
    for sizes in zip(*padded, strict=True):
        size = max(sizes)
        if any(other not in (1, size) for other in sizes):
            refuse(f"shapes {', '.join(map(str, shapes))} that do not fit each other")
        found.append(size)
    return tuple(found)


def steps_within(shape: Sequence[int], whole: Sequence[int]) -> tuple[int, ...]:
    """Steps of a contiguous tensor of ``shape`` repeated to fill ``whole``."""
    own = row_major(shape)
    missing = len(whole) - len(shape)
    steps = [0 if size == 1 else step for size, step in zip(shape, own, strict=True)]
    return (0,) * missing + tuple(steps)


def merged(shape: Sequence[int], *steps: Sequence[int]) -> tuple[int, ...]:
    """``shape`` and all ``steps`` as the words of a strided call: axes that run on from each other become one."""
    axes: list[tuple[int, ...]] = []
    for axis in zip(shape, *steps, strict=True):
        if axis[0] == 1:
            continue
        if axes and all(outer == inner * axis[0] for outer, inner in zip(axes[-1][1:], axis[1:], strict=True)):
            axes[-1] = (axes[-1][0] * axis[0], *axis[1:])
        else:
            axes.append(axis)
    expect(len(axes) <= AXES, f"a tensor of shape {tuple(shape)}, which has more than {AXES} axes that cannot be merged")
    filled = [(1,) + (0,) * len(steps)] * (AXES - len(axes)) + axes
    return tuple(word for column in zip(*filled, strict=True) for word in column)


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from 0, where negative ones count from the end."""
    if type(axis) is not int or not -max(rank, 1) <= axis < max(rank, 1):
        refuse(f"axis {axis} of a tensor with {rank}")
    return axis % max(rank, 1)


def shape_of(sizes: Sequence[int], count: int) -> tuple[int, ...]:
    """``sizes`` with -1 replaced by what makes ``count`` elements."""
    known = 1
    for size in sizes:
        known *= size if size != -1 else 1
    shape = tuple(count // known if size == -1 and known else size for size in sizes)
    total = 1
    for size in shape:
        total *= size
    expect(total == count and all(size >= 0 for size in shape), f"shape {tuple(sizes)} for {count} elements")
    return shape
