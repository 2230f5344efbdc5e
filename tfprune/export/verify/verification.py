"""The setting of what a written file is compared on, and how near it must come."""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import Any

from tfprune.export.storage import Storage


@dataclasses.dataclass(frozen=True, eq=False)
class Verification:
    """The comparison of a file with the Keras model before anyone gets it.

    Attributes:
        samples: inputs to compare on: an array [n, ...], a `tf.data.Dataset` (of inputs, or of
            pairs of inputs and targets), an iterable of batches, or for several inputs a list or
            dict of arrays in the model's input structure. None: the first 64 samples of
            `representative_data`, or 8 random ones where there are none either.
        tolerance: limit of max|d| / max|ref| and of norm(d) / norm(ref), d being file minus Keras,
            > 0; None: the limits of the storage.
        seed: seed of the random samples, >= 0.
        arm: whether to compare the first 4 samples on AArch64 too, where LiteRT has kernels for
            sparse weights that PCs never use.
        arm_python: command line of a Python on AArch64; None: the environment's
            TFPRUNE_ARM_PYTHON.

    Raises:
        TypeError: if an attribute has the wrong type.
        ValueError: if a number is out of range.
    """

    samples: Any = None
    tolerance: float | None = None
    seed: int = 0
    arm: bool = False
    arm_python: str | None = None

    def __post_init__(self) -> None:
        _check_tolerance(self.tolerance)
        if isinstance(self.seed, bool) or not isinstance(self.seed, numbers.Integral):
            raise TypeError(f"`seed` must be a whole number. Received: {self.seed!r}.")
        if self.seed < 0:
            raise ValueError(f"`seed` must not be negative. Received: {self.seed!r}.")
        if not isinstance(self.arm, bool):
            raise TypeError(f"`arm` must be True or False. Received: {self.arm!r}.")

    def limited(self, storage: Storage) -> Storage:
        """The storage with `tolerance` for its limits, where there is one."""
        if self.tolerance is None:
            return storage
        limit = float(self.tolerance)
        return dataclasses.replace(storage, max_error=limit, rms_error=limit)


def _check_tolerance(tolerance: object) -> None:
    if tolerance is None:
        return
    if isinstance(tolerance, bool) or not isinstance(tolerance, numbers.Real):
        raise TypeError(f"`tolerance` must be a positive number or None. Received: {tolerance!r}.")
    if not 0.0 < float(tolerance) < math.inf:
        raise ValueError(f"`tolerance` must be positive and finite. Received: {tolerance!r}.")
