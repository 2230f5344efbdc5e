"""Mask rules: which elements of a score tensor stay. 1 (True) keeps, 0 (False) prunes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

Tensor = Any

LOW, HIGH = 0.9, 1.1  # hysteresis thresholds over t
_SMALLEST = 1.1754944e-38  # smallest normal float32
_LARGEST = 3.4028235e38
_HALVINGS = 8 + 26  # to a factor of two over the range of float32, then to neighbouring numbers


def keep_largest(score: Tensor, sparsity: Tensor | float) -> Tensor:
    """Keep exactly `size - round(sparsity * size)` elements, the largest; of equals, the first.

    Args:
        score: float tensor of any shape, finite. Larger = keep.
        sparsity: scalar in [0, 1).

    Returns:
        Boolean tensor of the shape of `score`. `tests/oracles.py` holds the sorting reference.
    """
    flat = ops.reshape(ops.cast(score, "float32"), (-1,))
    size = int(flat.shape[0])
    pruned = ops.round(ops.cast(sparsity, "float32") * float(size))
    kept = size - ops.cast(pruned, "int32")
    threshold = kth_largest(flat, kept)
    above = flat > threshold
    missing = kept - _count(above)
    equal = flat == threshold
    first = ops.cumsum(ops.cast(equal, "int32")) <= missing
    keep = ops.logical_or(above, ops.logical_and(equal, first))
    return ops.reshape(keep, ops.shape(score))


def keep_largest_of_all(scores: Sequence[Tensor], sparsity: Tensor | float) -> list[Tensor]:
    """`keep_largest` over several tensors as if they were one: the layers share one threshold."""
    return _cut(keep_largest(_joined(scores), sparsity), scores)


def largest_pruned(kept: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Tensor:
    """The largest of the values, not negative, whose mask is 0; 0 where every mask is 1."""
    pruned = [ops.max(ops.where(mask, 0.0, values[name])) for name, mask in kept.items()]
    return ops.max(ops.stack(pruned))


def keep_groups(
    scores: Sequence[Tensor], weights: Sequence[np.ndarray], kept: Tensor | float
) -> list[Tensor]:
    """Keep the groups of largest score until their weights add up to about `kept`.

    The last group is kept if that comes nearer to `kept`; at least one group that weighs something
    stays. Of equal scores, the first.

    Args:
        scores: float tensors, not negative; one element a group, all tensors ranked together.
        weights: what each group weighs, arrays of the shapes of `scores`, not negative.
        kept: scalar, the weight to keep.

    Returns:
        Boolean tensors of the shapes of `scores`. `tests/oracles.py` holds the sorting reference.
    """
    flat = _joined(scores)
    load = np.concatenate([np.ravel(weight) for weight in weights]).astype("float32")
    kept = ops.cast(kept, "float32")
    least = np.min(load[load > 0], initial=np.inf)
    threshold = _by_halving(flat, ops.maximum(kept, min(least, load.sum())), load)
    above = flat > threshold
    already = _count(above, load)
    equal = ops.cast(flat == threshold, "float32") * load
    nearer = already + ops.cumsum(equal) - equal / 2 <= kept
    first = ops.logical_and(already == 0, ops.logical_and(ops.cumsum(equal) == equal, equal > 0))
    chosen = ops.logical_and(flat == threshold, ops.logical_or(nearer, first))
    return _cut(ops.logical_or(above, chosen), scores)


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """The elements of all tensors as one vector, float32."""
    return ops.concatenate([ops.reshape(ops.cast(t, "float32"), (-1,)) for t in tensors])


def _cut(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """A vector as tensors of the shapes of `like`."""
    pieces, start = [], 0
    for tensor in like:
        size = math.prod(tensor.shape)
        pieces.append(ops.reshape(flat[start : start + size], tensor.shape))
        start += size
    return pieces


def kth_largest(flat: Tensor, k: Tensor) -> Tensor:
    """The k-th largest element (k = 1 is the largest) of a 1-D float32 tensor, by bisection.

    34 counting passes find the largest float32 `t` with `count(flat >= t) >= k`, ten times faster
    than a sort of 400,000 elements on a CPU. Scores with negative elements are sorted.
    """
    return ops.cond(ops.any(flat < 0), lambda: _by_sorting(flat, k), lambda: _by_halving(flat, k))


def _by_sorting(flat: Tensor, k: Tensor) -> Tensor:
    ascending = ops.sort(flat)
    return ops.take(ascending, ops.minimum(flat.shape[0] - k, flat.shape[0] - 1))


def _by_halving(flat: Tensor, k: Tensor, weights: np.ndarray | None = None) -> Tensor:
    """The largest float32 `t` such that the elements `>= t` weigh at least `k`; 0 if none does."""

    def enough(threshold: Tensor) -> Tensor:
        return _count(flat >= threshold, weights) >= k

    def halve(step: Tensor, bounds: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        low, high = bounds
        geometric = ops.sqrt(low) * ops.sqrt(high)
        middle = ops.where(step < 8, geometric, low * 0.5 + high * 0.5)  # high - low may flush to 0
        good = enough(middle)
        return ops.where(good, middle, low), ops.where(good, high, middle)

    start = (ops.cast(_SMALLEST, "float32"), ops.cast(_LARGEST, "float32"))
    low, _ = ops.fori_loop(0, _HALVINGS, halve, start)
    return ops.where(enough(start[0]), low, ops.zeros_like(low))


def hysteresis(magnitude: Tensor, mask: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Prune below `low`, splice above `high`, leave the mask as it is in between.

        h(w) = 0 if |w| <= low;  mask if low < |w| <= high;  1 if |w| > high

    Args:
        magnitude: |w|, any shape.
        mask: boolean tensor of that shape.
        low, high: scalars or broadcastable tensors, low <= high.

    Reference: Guo, Yao, Chen, NIPS 2016, eq. 3.
    """
    return ops.where(magnitude > high, True, ops.logical_and(mask, magnitude > low))


def moments(values: Sequence[Tensor], sizes: Sequence[Any] | None = None) -> tuple[Tensor, Tensor]:
    """Mean mu and standard deviation of |w| over the nonzeros of all tensors together.

    Args:
        values: tensors of any shapes.
        sizes: for each, how many weights an element stands for (an array of its shape); None: one.

    Returns:
        Two float32 scalars; both 0 where every element is zero.
    """
    flat = ops.concatenate([ops.abs(ops.cast(ops.reshape(t, (-1,)), "float32")) for t in values])
    weight = ops.cast(flat > 0, "float32")
    if sizes is not None:
        weight = weight * np.concatenate([np.ravel(size) for size in sizes]).astype("float32")
    count = ops.sum(weight)
    mean = ops.divide_no_nan(ops.sum(flat * weight), count)
    return mean, ops.sqrt(ops.divide_no_nan(ops.sum(weight * ops.square(flat - mean)), count))


def _count(flags: Tensor, weights: np.ndarray | None = None) -> Tensor:
    if weights is None:
        return ops.sum(ops.cast(flags, "int32"))
    return ops.sum(ops.cast(flags, "float32") * weights)
