"""Granularity: which elements of a weight are pruned together, for hardware that likes structure.

| granularity | elements that stand or fall together | groups of a [kh, kw, cin, cout] kernel |
|---|---|---|
| coefficient | one | kh * kw * cin * cout |
| block4, block8 | 4 or 8 neighbouring output channels of one (cin, u, v) | [k, cin, cout / 4] |
| input4 | 4 neighbouring input channels of one (cout, u, v) | [k, cin / 4, cout] |
| row | all output channels of one (cin, u, v) | [k, cin] |
| frequency | one (u, v) of the whole layer | [k] |
| band | all (u, v) with one u + v of the whole layer | [2k - 1] |

A group is judged by the root mean square of its elements. The last block of a row is shorter where
cout (of input4: cin) is no multiple. Biases, and `frequency` and `band` in weights that have no
spatial axes, are single elements.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from keras import ops

from tfprune.maths import transforms
from tfprune.maths.spec import WeightSpec

Tensor = Any
GRANULARITIES = ("coefficient", "block4", "block8", "input4", "row", "frequency", "band")


def check_granularity(granularity: Any) -> None:
    """Raise ValueError unless `granularity` is one of `GRANULARITIES`."""
    if granularity not in GRANULARITIES:
        raise ValueError(
            f"`granularity` must be one of {', '.join(GRANULARITIES)}. Received: {granularity!r}."
        )


@dataclasses.dataclass(frozen=True)
class Groups:
    """The groups of one weight; tensors of groups have the shape `shape`, [k or bands, ...]."""

    spec: WeightSpec
    granularity: str = "coefficient"

    @property
    def kind(self) -> str:
        """The granularity in force: `coefficient` where the one asked for has no meaning."""
        whole = self.granularity in ("frequency", "band")
        single = self.spec.is_bias or (whole and transforms.size(self.spec) == 1)
        return "coefficient" if single else self.granularity

    @property
    def block(self) -> int:
        """Channels in a block, output channels or (input4) input channels."""
        blocks = self.kind.startswith(("block", "input"))
        return int(self.kind.removeprefix("block").removeprefix("input")) if blocks else 1

    @property
    def axis(self) -> int:
        """The axis of [k, cin, cout] that blocks lie along."""
        return 1 if self.kind.startswith("input") else 2

    @property
    def sizes(self) -> np.ndarray:
        """Number of elements of each group, int64 of shape `shape`."""
        k, cin, cout = transforms.canonical_shape(self.spec)
        if self.kind == "band":
            return (np.bincount(transforms.bands(self.spec)) * cin * cout)[:, None, None]
        if self.kind == "frequency":
            return np.full((k, 1, 1), cin * cout)
        if self.kind == "row":
            return np.full((k, cin, 1), cout)
        channels = (k, cin, cout)[self.axis]
        starts = np.arange(0, channels, self.block)
        lengths = np.minimum(channels - starts, self.block)
        if self.axis == 1:
            return np.broadcast_to(lengths[:, None], (k, len(starts), cout))
        return np.broadcast_to(lengths, (k, cin, len(starts)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a tensor of groups."""
        return self.sizes.shape

    @property
    def band_of(self) -> np.ndarray:
        """The band of each group along the first axis, int [shape[0]]."""
        bands = transforms.bands(self.spec)
        return np.arange(bands.max() + 1) if self.kind == "band" else bands

    def magnitude(self, latent: Tensor) -> Tensor:
        """Root mean square of each group, float32 of shape `shape`; |F| for single coefficients."""
        elements = ops.abs(ops.cast(transforms.canonical(latent, self.spec), "float32"))
        if self.kind == "coefficient":
            return elements
        squares = ops.square(elements)
        if self.kind in ("frequency", "band"):
            sums = ops.sum(squares, axis=(1, 2), keepdims=True)
            sums = self._per_band(sums) if self.kind == "band" else sums
        elif self.kind == "row":
            sums = ops.sum(squares, axis=2, keepdims=True)
        else:
            axis, shape = self.axis, self.shape
            missing = shape[axis] * self.block - squares.shape[axis]
            padded = ops.pad(squares, [(0, missing if i == axis else 0) for i in range(3)])
            blocks = (*shape[: axis + 1], self.block, *shape[axis + 1 :])
            sums = ops.sum(ops.reshape(padded, blocks), axis=axis + 1)
        return ops.sqrt(sums / ops.convert_to_tensor(self.sizes.astype("float32")))

    def _per_band(self, sums: Tensor) -> Tensor:
        rows = np.eye(self.shape[0], dtype="float32")[transforms.bands(self.spec)].T
        return ops.reshape(ops.matmul(rows, ops.reshape(sums, (-1, 1))), (-1, 1, 1))

    def of_mask(self, mask: Tensor) -> Tensor:
        """Whether each group is kept, from a mask of the weight's shape; bool of shape `shape`."""
        elements = transforms.canonical(mask, self.spec)
        if self.kind == "band":
            return ops.take(
                elements[:, :1, :1], np.unique(transforms.bands(self.spec), return_index=True)[1], 0
            )
        if self.kind == "frequency":
            return elements[:, :1, :1]
        if self.axis == 1:
            return elements[:, :: self.block]
        return elements[:, :, :1] if self.kind == "row" else elements[:, :, :: self.block]

    def to_mask(self, kept: Tensor) -> Tensor:
        """The mask of the weight's shape, from a bool tensor of groups."""
        full = transforms.canonical_shape(self.spec)
        if self.kind == "band":
            kept = ops.take(kept, transforms.bands(self.spec), axis=0)
        if self.block > 1:
            kept = ops.repeat(kept, self.block, axis=self.axis)[:, : full[1], : full[2]]
        return transforms.from_canonical(ops.broadcast_to(kept, full), self.spec)
