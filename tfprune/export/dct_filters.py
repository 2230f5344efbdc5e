"""A convolution as DCT filters and coefficients."""

from __future__ import annotations

import numpy as np

from tfprune.maths.dct import integer_rows
from tfprune.maths.sparse_weights import SparseWeights


def filters_and_coefficients(weights: SparseWeights) -> tuple[np.ndarray, np.ndarray]:
    """DCT filters [kh, kw, cin, f] of the frequencies in use, and coefficients [cin * f, cout].

    Filters of three taps are whole numbers, and coefficients hold their scale.

    Args:
        weights: coefficients in the DCT basis, of a single group.
    """
    dense = weights.dense()
    kh, kw, cin, cout = dense.shape
    (vertical, down), (horizontal, across) = (integer_rows(n) for n in (kh, kw))
    basis = np.einsum("up,vq->pquv", vertical, horizontal).reshape(kh, kw, -1)
    scaled = dense * (down[:, None] * across)[..., None, None]
    by_frequency = scaled.reshape(kh * kw, cin, cout)
    used = by_frequency.any(axis=(1, 2))
    used[0] |= not used.any()
    coefficients = by_frequency[used].transpose(1, 0, 2).reshape(-1, cout)
    filters = np.repeat(basis[:, :, None, used], cin, axis=2)
    return filters.astype(np.float32), coefficients.astype(np.float32)
