"""Functions of a schedule's progress: a ramp to a sparsity, and straight lines between points."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from keras import ops

from tfprune.maths.checks import check_not_negative, check_number

Tensor = Any
Points = tuple[tuple[float, float], ...]


@dataclasses.dataclass(frozen=True)
class Ramp:
    """A polynomial ease-out: quick at first, ever more slowly towards the end.

        s(p) = final + (initial - final) * (1 - min(p / span, 1))^power

    Args:
        initial, final: values at progress 0 and from `span` on, such as sparsities in [0, 1).
        power: > 0; 1 is a straight line.
        span: share of the progress that the ramp takes, in [0, 1]; 0 is a step to `final`.

    Reference: Zhu, Gupta, "To prune, or not to prune", 2017, eq. 1 (power 3).
    """

    initial: float
    final: float
    power: float = 3.0
    span: float = 1.0

    def at(self, progress: float) -> float:
        """The value at a progress in [0, 1]."""
        risen = min(progress / self.span, 1.0) if self.span else 1.0
        left = float((1 - risen) ** self.power)
        return self.final + (self.initial - self.final) * left


def check_points(name: str, setting: Any) -> float | Points:
    """Return a setting that is a number >= 0, or points [(progress, value), ...], as it is kept.

    Args:
        name: of the setting, for messages.
        setting: a number, or pairs whose progress rises strictly in [0, 1] and whose values are
            not negative.

    Raises:
        TypeError, ValueError: for anything else.
    """
    if not isinstance(setting, list | tuple):
        return check_not_negative(name, setting)
    points = tuple((check_number(name, at), check_number(name, value)) for at, value in setting)
    for at, value in points:
        check_not_negative(name, value)
        if not 0 <= at <= 1:
            raise ValueError(
                f"The progress values in `{name}` must be in [0, 1]. Received: {setting!r}."
            )
    if not points or any(a[0] >= b[0] for a, b in itertools.pairwise(points)):
        raise ValueError(f"The progress values in `{name}` must rise. Received: {setting!r}.")
    return points


def at_progress(setting: float | Sequence[tuple[float, float]], progress: Tensor) -> Tensor:
    """The value of a checked setting at a progress, a float32 scalar.

    Args:
        setting: a number, or the points that straight lines join; constant before the first and
            after the last.
        progress: scalar.
    """
    if not isinstance(setting, tuple):
        return ops.cast(setting, "float32")
    progress = ops.cast(progress, "float32")
    value = ops.cast(setting[0][1], "float32")
    for (first, low), (last, high) in itertools.pairwise(setting):
        value = value + (high - low) * ops.clip((progress - first) / (last - first), 0.0, 1.0)
    return value
