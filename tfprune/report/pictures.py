"""What the page draws of a kernel: where its non-zeros lie, and how large they are."""

from __future__ import annotations

import dataclasses
import struct
import zlib

import keras
import numpy as np

from tfprune.graph.layers import find_variable, own_variables, prunable_names
from tfprune.pruned.layers import effective_weights

SIDE = 64  # cells of a density map, per side at most
BINS = 41
ABOVE, BELOW = (37, 99, 168), (214, 106, 30)
SAMPLE = 1_000_000  # entries that a histogram looks at, at most


@dataclasses.dataclass(frozen=True)
class Picture:
    """Of a layer's first prunable kernel, seen as a matrix [everything else, last axis].

    Attributes:
        density: [rows, cols] float32 in [0, 1], at most 64 x 64; each cell the fraction of
            non-zeros in its block of the matrix.
        counts: [41] histogram of the non-zero entries over [-limit, limit].
        limit: largest |w|.
    """

    density: np.ndarray
    counts: np.ndarray
    limit: float


def picture(layer: keras.Layer) -> Picture | None:
    """The picture of a layer, or None where it has no prunable kernel or an empty one."""
    wanted = [id(find_variable(layer, name)) for name in prunable_names(layer)]
    names = [name for name, variable in own_variables(layer).items() if id(variable) in wanted]
    if not names:
        return None
    kernel = effective_weights(layer)[names[0]]
    if not kernel.size:
        return None
    matrix = kernel.reshape(-1, kernel.shape[-1])
    counts, limit = _histogram(kernel.reshape(-1))
    return Picture(shrink(matrix != 0), counts, limit)


def shrink(kept: np.ndarray) -> np.ndarray:
    """Mean over blocks, so that at most SIDE rows and columns are left."""
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


def png(density: np.ndarray, colour: tuple[int, int, int]) -> bytes:
    """A picture in one colour whose opacity is the density: it suits light and dark pages.

    Args:
        density: [rows, cols] in [0, 1].
        colour: red, green, blue, 0 to 255.
    """
    pixels = np.empty((*density.shape, 4), np.uint8)
    pixels[..., :3] = colour
    pixels[..., 3] = np.round(255 * np.sqrt(density))  # a lone non-zero stays visible
    return png_file(pixels)


def signed_pixels(values: np.ndarray, limit: float) -> np.ndarray:
    """Values [rows, cols] as RGBA pixels: blue above 0, orange below, opaque at +-limit."""
    values = np.nan_to_num(values)
    pixels = np.empty((*values.shape, 4), np.uint8)
    pixels[..., :3] = np.where(values[..., None] < 0, BELOW, ABOVE)
    pixels[..., 3] = np.round(255 * np.minimum(np.abs(values) / (limit or 1.0), 1.0))
    return pixels


def png_file(pixels: np.ndarray) -> bytes:
    """RGBA pixels, uint8 [rows, cols, 4], as the bytes of a PNG file."""
    rows, cols, _ = pixels.shape
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), pixels.reshape(rows, -1)], axis=1)
    header = struct.pack(">IIBBBBB", cols, rows, 8, 6, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
