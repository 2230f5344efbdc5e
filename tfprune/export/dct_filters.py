"""A convolution as DCT filters and coefficients, and the DCT of three taps in whole numbers."""

from __future__ import annotations

import numpy as np

from tfprune.maths.sparse_weights import SparseWeights
from tfprune.maths.transforms import dct_matrix

INTEGER_DCT = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]])  # of three taps: sqrt(3, 2, 6) * DCT


def filters_and_coefficients(weights: SparseWeights) -> tuple[np.ndarray, np.ndarray]:
    """DCT filters [kh, kw, cin, f] of the frequencies in use, and coefficients [cin * f, cout].

    Filters of three taps are whole numbers, and coefficients hold their scale.

    Args:
        weights: coefficients in the DCT basis, of a single group.
    """
    dense = weights.dense()
    kh, kw, cin, cout = dense.shape
    (vertical, down), (horizontal, across) = (integer_dct(n) for n in (kh, kw))
    basis = np.einsum("up,vq->pquv", vertical, horizontal).reshape(kh, kw, -1)
    scaled = dense * (down[:, None] * across)[..., None, None]
    by_frequency = scaled.reshape(kh * kw, cin, cout)
    used = by_frequency.any(axis=(1, 2))
    used[0] |= not used.any()
    coefficients = by_frequency[used].transpose(1, 0, 2).reshape(-1, cout)
    filters = np.repeat(basis[:, :, None, used], cin, axis=2)
    return filters.astype(np.float32), coefficients.astype(np.float32)


def integer_dct(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The DCT [frequency, tap], in whole numbers for three taps, and scales to the orthonormal DCT.

    Args:
        size: taps, >= 1.
    """
    dct = np.asarray(dct_matrix(size), np.float64)
    if size != 3:
        return dct, np.ones(size)
    return INTEGER_DCT.astype(np.float64), dct[:, 0] / INTEGER_DCT[:, 0]
