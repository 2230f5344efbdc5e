"""Multiply-adds of layers whose kernels are kept as sparse DCT coefficients.

    dense    uses * k * cin * cout
    sparse   uses * (kept coefficients + DCT of the input channels that are needed),

and never more than the dense layer, which can take its place. Biases count nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfprune.maths import transforms
from tfprune.maths.spec import WeightSpec

Specs = Sequence[Mapping[str, WeightSpec]]


def per_use(spec: WeightSpec, stored: Any) -> float:
    """The DCT of the inputs of one use of a kernel, for the channels with a weight left."""
    if spec.is_bias or transforms.size(spec) == 1:
        return 0.0
    return _channels(spec, stored) * transforms.transform_macs(spec)


def _channels(spec: WeightSpec, stored: Any) -> int:
    """Channels to transform: inputs (outputs of a transposed convolution) with a weight left."""
    shape, axes = spec.unrolled
    left = np.asarray(stored).reshape(shape) != 0
    transposed = "multiplier" not in axes and axes.index("cout") < axes.index("cin")
    axis = axes.index("cout" if transposed else "cin")
    live = left.any(axis=tuple(i for i in range(len(axes)) if i != axis))
    return int(live.sum()) * spec.groups


def per_weight(spec: WeightSpec) -> float:
    """Cost of a kept weight; 0 where the dense layer is cheaper than any mask."""
    return 0.0 if spec.is_bias or _everywhere(spec) >= spec.size else spec.uses or 0.0


def dense(specs: Specs) -> float:
    """All layers, dense."""
    return sum(spec.size * (spec.uses or 0.0) for spec in _kernels(specs))


def fixed(specs: Specs) -> float:
    """What no mask saves: the DCT of all inputs, or the dense layer where that is cheaper."""
    return sum(min(_everywhere(s), s.size) * (s.uses or 0.0) for s in _kernels(specs))


def sparse(specs: Specs, masks: Sequence[Mapping[str, Any]]) -> float:
    """Multiply-adds of kept weights and what is fixed; masks are NumPy arrays by layer and name."""
    kept = sum(
        mask.sum() * per_weight(layer_specs[name])
        for layer_specs, layer_masks in zip(specs, masks, strict=True)
        for name, mask in layer_masks.items()
    )
    return float(kept) + fixed(specs)


def left_for_weights(specs: Specs, speedup: float) -> float:
    """Multiply-adds that kept weights may take at a speed-up.

    Raises:
        ValueError: if what is fixed costs too much already.
    """
    total, always = dense(specs), fixed(specs)
    if total / speedup <= always:
        raise ValueError(
            f"`target_speedup` must be below {total / always:.2f} for these layers: the DCT of "
            "their inputs, or the dense layer where that is cheaper, takes "
            f"{always:,.0f} of {total:,.0f} multiply-adds. Received: {speedup!r}."
        )
    return total / speedup - always


def _everywhere(spec: WeightSpec) -> float:
    return per_use(spec, np.ones(spec.shape, bool))


def _kernels(specs: Specs) -> Iterator[WeightSpec]:
    return (spec for layer in specs for spec in layer.values() if not spec.is_bias)
