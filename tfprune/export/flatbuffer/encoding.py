"""The smallest form of a weight tensor in a file: type of its values, their scales, dense or rows.

    int8      w = scale * q, |q| <= 127; one scale, or one for each output channel where a channel
              would lose more than 5 % of its norm with one
    rows      all but the last axis; an entry takes its value and an index of 1, 2 or 4 bytes

Weights that are small whole numbers, as the basis of the 3x3 DCT, are int8 without an error. What
would lose too much in a type keeps the next larger one.
"""

from __future__ import annotations

import dataclasses

import numpy as np

LEAST = 256  # bytes below which nothing is gained by another form
OVERHEAD = 400  # bytes of the tensors and ops that unpack weights
ONE_SCALE, SCALES = 0.05, 0.1  # norm that an output channel may lose in int8
BYTES_OF_SCALE = 24  # a scale and a zero point, of two tensors


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor as it is stored.

    Attributes:
        kind: "float32", "float16" or "int8".
        values: of that type.
        scales: one, or one per output channel.
        axis: of the output channels.
        rows: whether zeros are left out.
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
        """Which entries rows hold: at least one, since DENSIFY does not take none."""
        kept = self.values != 0
        kept.flat[0] |= not kept.any()
        return kept


def smallest(
    values: np.ndarray, storage: str, axis: int = 0, norms: np.ndarray | None = None
) -> Stored:
    """The smallest form of a float32 tensor whose last axis makes the columns of rows.

    Args:
        values: as TFLite has them, [cout, kh, kw, cin], [cout, cin] or [1, kh, kw, cout].
        storage: "float32", "float16" or "int8".
        axis: of the output channels.
        norms: what an error of each output channel is compared with; None: its own norm.
    """
    plain = Stored("float32", values, np.ones(1), axis, False, values.nbytes)
    if values.nbytes < LEAST:
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
    """What `count` entries take in `rows` rows of `columns`."""
    index = 1 if columns <= 256 else 2 if columns <= 65536 else 4
    pointer = 1 if count < 256 else 2 if count < 65536 else 4
    return count * (value_bytes + index) + (rows + 1) * pointer


def _typed(
    values: np.ndarray, storage: str, axis: int, norms: np.ndarray | None
) -> tuple[str, np.ndarray, np.ndarray]:
    """Kind, values and scales."""
    one = np.ones(1, np.float32)
    largest = float(np.abs(values).max(initial=0.0))
    if largest <= 127 and np.array_equal(values, np.round(values)):
        return "int8", values.astype(np.int8), one
    if storage == "int8":
        others = tuple(i for i in range(values.ndim) if i != axis)
        each = np.abs(values).max(axis=others)
        for scales, most in ((np.array([largest]), ONE_SCALE), (each, SCALES)):
            scales = np.maximum(scales.astype(np.float32) / 127, np.finfo(np.float32).tiny)
            shape = [len(scales) if i == axis else 1 for i in range(values.ndim)]
            found = np.clip(np.round(values / scales.reshape(shape)), -127, 127)
            if _lost(values, found * scales.reshape(shape), others, norms) <= most:
                return "int8", found.astype(np.int8), scales
    if storage in ("int8", "float16") and largest < np.finfo(np.float16).max:
        half = values.astype(np.float16)
        others = tuple(i for i in range(values.ndim) if i != axis)
        if _lost(values, half.astype(np.float32), others, norms) <= ONE_SCALE:
            return "float16", half, one
    return "float32", values, one


def _lost(
    values: np.ndarray, found: np.ndarray, others: tuple[int, ...], norms: np.ndarray | None
) -> float:
    """The largest fraction of its norm that an output channel loses."""
    wanted = np.sqrt(np.square(values, dtype=np.float64).sum(axis=others))
    wanted = wanted if norms is None else norms
    error = np.sqrt(np.square(found - values, dtype=np.float64).sum(axis=others))
    return float(np.max(error / np.where(wanted > 0, wanted, 1.0), initial=0.0))
