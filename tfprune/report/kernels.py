"""What reports show of a kernel: where its non-zeros lie, and how large they are."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from tfprune.graph.layers import find_variable, own_variables, prunable_names
from tfprune.pruned.layers import effective_weights

SIDE = 64  # cells of a density map, per side at most
BINS = 41
SAMPLE = 1_000_000  # weights that a histogram counts, at most


@dataclasses.dataclass(frozen=True)
class Picture:
    """A layer's first prunable kernel, as a matrix [everything else, last axis].

    Attributes:
        density: float32 [lines, columns] in [0, 1], at most 64 x 64; each cell is the fraction of
            non-zeros in its block of the matrix.
        counts: int [41], histogram of the non-zero weights over [-limit, limit].
        limit: largest |w|.
    """

    density: np.ndarray
    counts: np.ndarray
    limit: float


def picture(layer: keras.Layer) -> Picture | None:
    """The picture of a layer, or None where it has no prunable kernel or an empty one."""
    prunable = [id(find_variable(layer, name)) for name in prunable_names(layer)]
    names = [name for name, variable in own_variables(layer).items() if id(variable) in prunable]
    if not names:
        return None
    kernel = effective_weights(layer)[names[0]]
    if not kernel.size:
        return None
    matrix = kernel.reshape(-1, kernel.shape[-1])
    counts, limit = _histogram(kernel.reshape(-1))
    return Picture(shrink(matrix != 0), counts, limit)


def shrink(kept: np.ndarray) -> np.ndarray:
    """Mean over blocks of a matrix, so that at most SIDE lines and columns are left."""
    out = kept.astype(np.float32)
    for axis in (0, 1):
        size = out.shape[axis]
        starts = np.unique(np.linspace(0, size, min(size, SIDE), endpoint=False).astype(int))
        widths = np.diff([*starts, size]).astype(np.float32)
        out = np.add.reduceat(out, starts, axis=axis)
        out /= widths[:, None] if axis == 0 else widths
    return out


def _histogram(values: np.ndarray) -> tuple[np.ndarray, float]:
    finite = values[:: -(-values.size // SAMPLE)].astype(np.float64)
    finite = finite[np.isfinite(finite) & (finite != 0)]
    limit = float(np.abs(finite).max()) if finite.size else 0.0
    counts, _ = np.histogram(finite, bins=BINS, range=(-limit or -1.0, limit or 1.0))
    return counts, limit
