"""A convolution as 1x1 convolutions with filters of 3x3 or 5x5 in front of them or behind.

    y = K (*) x = sum over f of W[f] . (B[f] * x)

B[f] is a basis of the DCT, or a single tap (a shift), whichever leaves fewer nonzeros in W. W[f] .
and B[f] * may be swapped. A filter is centred on the pixel that an output stands for, so its taps
reach from -1 to 1 or from -2 to 2: no other depthwise filters run in XNNPACK's sparse mode.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfprune.inference.as_convolution import dct_coefficients, sparsest
from tfprune.maths.dct import integer_rows
from tfprune.maths.sparse_weights import ConvSpec

REACH = 2  # taps to either side of the middle


@dataclasses.dataclass(frozen=True)
class Part:
    """W[f] [cout, cin], and its filter [3, 3] or [5, 5]; None for the pixel itself."""

    filter: np.ndarray | None
    weights: np.ndarray


def parts(kernel: np.ndarray, top: int, left: int, stride: int) -> tuple[list[Part], str]:
    """Parts of a kernel whose W is not all zeros, at least one, and their basis.

    Args:
        kernel: [cout, kh, kw, cin], as TFLite keeps it.
        top, left: taps above and left of the pixel that an output stands for.
        stride: where it is 1, a tap in the middle needs no filter.

    Raises:
        ValueError: if the taps reach too far.
    """
    values = np.ascontiguousarray(np.moveaxis(kernel, 0, -1))
    kh, kw, cin, cout = values.shape
    packed = sparsest(ConvSpec(cin, cout, (kh, kw)), values, np.zeros(cout, np.float32))
    basis = packed.spec.basis
    result = []
    for taps, weights in _parts_of(packed.dense(), basis):
        filt = centred(taps, top, left)
        if filt.shape == (1, 1):
            weights, filt = weights * filt[0, 0], np.ones((1, 1), np.float32)
        alone = filt.shape == (1, 1) and stride == 1
        result.append(Part(None if alone else at_least_three(filt), weights))
    return result, basis


def basis_parts(kernel: np.ndarray, basis: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Taps [kh, kw] and weights [cout, cin] of a kernel [cout, kh, kw, cin] in a basis."""
    values = np.moveaxis(kernel, 0, -1)
    dense = dct_coefficients(values) if basis == "dct" else values
    return _parts_of(dense, basis)


def _parts_of(dense: np.ndarray, basis: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Parts that are not all zeros, at least one, of weights [kh, kw, cin, cout] in a basis."""
    kh, kw = dense.shape[:2]
    (vertical, down), (horizontal, across) = (_basis(size, basis) for size in (kh, kw))
    indices = [(u, v) for u in range(kh) for v in range(kw) if dense[u, v].any()]
    return [
        (
            np.outer(vertical[u], horizontal[v]),
            np.ascontiguousarray(dense[u, v].T * (down[u] * across[v]), np.float32),
        )
        for u, v in indices or [(kh - 1, kw - 1)]
    ]


def _basis(size: int, basis: str) -> tuple[np.ndarray, np.ndarray]:
    return integer_rows(size) if basis == "dct" else (np.eye(size), np.ones(size))


def centred(taps: np.ndarray, top: int, left: int) -> np.ndarray:
    """Extend taps to a square filter around a pixel.

    Args:
        taps: [kh, kw].
        top, left: taps above and left of that pixel.

    Raises:
        ValueError: if a nonzero tap is further away than 2.
    """
    y, x = np.nonzero(taps)
    far = max((max(abs(y - top)), max(abs(x - left)))) if len(y) else 0
    if far > REACH:
        raise ValueError(f"its taps reach {far} pixels to a side, and must reach {REACH} at most")
    filt = np.zeros((2 * far + 1, 2 * far + 1), np.float32)
    filt[y - top + far, x - left + far] = taps[y, x]
    return filt


def at_least_three(filt: np.ndarray) -> np.ndarray:
    """A filter of a single tap with zeros around it; others as they are."""
    return np.pad(filt, 1) if filt.shape == (1, 1) else filt


def middle(values: np.ndarray) -> np.ndarray:
    """A filter [3, 3, c] that multiplies channel c by values[c]."""
    filt = np.zeros((3, 3, len(values)), np.float32)
    filt[1, 1] = values
    return filt
