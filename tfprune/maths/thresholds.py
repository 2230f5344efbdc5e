"""What the methods with hysteresis thresholds share: moments, their timing, checks of `c`.

    threshold  t = max(mu + c * std, 0),  a = 0.9 t,  b = 1.1 t
    mask       0 if |w| <= a;  as it is if a < |w| <= b;  1 if |w| > b

Reference: Guo, Yao, Chen, NIPS 2016, eq. 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

Tensor = Any
LOW, HIGH = 0.9, 1.1
UNSET = -1.0


def moments(values: Sequence[Tensor], sizes: Sequence[Any] | None = None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of |w| over the non-zero entries of all tensors together.

    Args:
        values: tensors of any shapes.
        sizes: for each, how many entries an entry stands for (an array of its shape); None: one.

    Returns:
        Two float32 scalars; both 0 where every entry is zero.
    """
    flat = ops.concatenate([ops.abs(ops.cast(ops.reshape(t, (-1,)), "float32")) for t in values])
    weight = ops.cast(flat > 0, "float32")
    if sizes is not None:
        weight = weight * np.concatenate([np.ravel(size) for size in sizes]).astype("float32")
    count = ops.sum(weight)
    mean = ops.divide_no_nan(ops.sum(flat * weight), count)
    return mean, ops.sqrt(ops.divide_no_nan(ops.sum(weight * ops.square(flat - mean)), count))
