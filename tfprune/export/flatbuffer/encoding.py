"""The smallest form of a weight tensor in a file: type of its values, their scales, dense or rows.

    int8      w = scale * q, |q| <= 127; a single scale, or a scale per output channel where a
              channel would lose more than 5 % of its norm by a single one
    rows      CSR over the last axis; a nonzero takes its value and an index of 1, 2 or 4 bytes

Weights that are small whole numbers, as the basis of the 3x3 DCT, are int8 without an error. What
would lose too much in a type keeps the next larger type.
"""

from __future__ import annotations

import dataclasses

import numpy as np

MIN_BYTES = 256  # bytes below which nothing is gained by another form
OVERHEAD = 400  # bytes of the tensors and ops that unpack weights
SHARED_LOSS, CHANNEL_LOSS = 0.05, 0.1  # of the norm of an output channel, by its kind of scale
BYTES_OF_SCALE = 24  # a scale and a zero point, of two tensors


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor as it is stored.

    Attributes:
        kind: "float32", "float16" or "int8".
        values: an array of that type.
        scales: float32, [1] or [output channels].
        axis: the axis of the output channels.
        rows: whether zeros are left out, as CSR.
        bytes: what it takes in the file, about.
    """

    kind: str
    values: np.ndarray
    scales: np.ndarray
    axis: int
    rows: bool
    bytes: int

    @property
    def kept(self) -> np.ndarray:
        """Mask of the values that CSR rows hold, at least one, since DENSIFY does not take none."""
        kept = self.values != 0
        kept.flat[0] |= not kept.any()
        return kept


def smallest(
    values: np.ndarray, storage: str, axis: int = 0, norms: np.ndarray | None = None
) -> Stored:
    """The smallest form of a float32 tensor whose last axis makes the columns of rows.

    Args:
        values: in TFLite's order, [cout, kh, kw, cin], [cout, cin] or [1, kh, kw, cout].
        storage: "float32", "float16" or "int8".
        axis: the axis of the output channels.
        norms: [output channels], what the error of a channel is compared with; None: its own norm.
    """
    plain = Stored("float32", values, np.ones(1), axis, False, values.nbytes)
    if values.nbytes < MIN_BYTES:
        return plain
    kind, stored, scales = _typed(values, storage, axis, norms)
    count = max(int(np.count_nonzero(stored)), 1)
    columns = stored.shape[-1]
    rows = csr_bytes(count, stored.size // columns, columns, stored.itemsize)
    size = min(rows, stored.nbytes) + OVERHEAD
    size += BYTES_OF_SCALE * len(scales) if len(scales) > 1 else 0
    if size >= plain.bytes:
        return plain
    return Stored(kind, stored, scales, axis, rows < stored.nbytes, size)


def csr_bytes(count: int, rows: int, columns: int, value_bytes: int) -> int:
    """Size of a CSR matrix in a file, in bytes.

    Args:
        count: nonzeros.
        rows, columns: size of the matrix.
        value_bytes: bytes of a value.
    """
    index = 1 if columns <= 256 else 2 if columns <= 65536 else 4
    pointer = 1 if count < 256 else 2 if count < 65536 else 4
    return count * (value_bytes + index) + (rows + 1) * pointer


def _typed(
    values: np.ndarray, storage: str, axis: int, norms: np.ndarray | None
) -> tuple[str, np.ndarray, np.ndarray]:
    """Kind, values and scales of the smallest type that loses little."""
    unscaled = np.ones(1, np.float32)
    largest = float(np.abs(values).max(initial=0.0))
    if largest <= 127 and np.array_equal(values, np.round(values)):
        return "int8", values.astype(np.int8), unscaled
    if storage == "int8":
        others = tuple(i for i in range(values.ndim) if i != axis)
        per_channel = np.abs(values).max(axis=others)
        ranges = ((np.array([largest]), SHARED_LOSS), (per_channel, CHANNEL_LOSS))
        for scales, limit in ranges:
            scales = np.maximum(scales.astype(np.float32) / 127, np.finfo(np.float32).tiny)
            shape = [len(scales) if i == axis else 1 for i in range(values.ndim)]
            rounded = np.clip(np.round(values / scales.reshape(shape)), -127, 127)
            if _lost(values, rounded * scales.reshape(shape), others, norms) <= limit:
                return "int8", rounded.astype(np.int8), scales
    if storage in ("int8", "float16") and largest < np.finfo(np.float16).max:
        half = values.astype(np.float16)
        others = tuple(i for i in range(values.ndim) if i != axis)
        if _lost(values, half.astype(np.float32), others, norms) <= SHARED_LOSS:
            return "float16", half, unscaled
    return "float32", values, unscaled


def _lost(
    values: np.ndarray, stored: np.ndarray, others: tuple[int, ...], norms: np.ndarray | None
) -> float:
    """The largest fraction of its norm that an output channel loses."""
    if norms is None:
        norms = np.sqrt(np.square(values, dtype=np.float64).sum(axis=others))
    error = np.sqrt(np.square(stored - values, dtype=np.float64).sum(axis=others))
    return float(np.max(error / np.where(norms > 0, norms, 1.0), initial=0.0))
