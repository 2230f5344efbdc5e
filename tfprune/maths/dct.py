"""The orthonormal DCT-II in NumPy: its matrix, and whole kernels through it.

B[u, x] = s_u cos(pi (2x + 1) u / 2k),   s_0 = sqrt(1/k), s_u = sqrt(2/k) for u > 0
"""

from __future__ import annotations

import functools
import math

import numpy as np


@functools.cache
def dct_matrix(size: int) -> np.ndarray:
    """The orthonormal DCT-II matrix B, float64 [size, size], rows by frequency."""
    u, x = np.mgrid[:size, :size]
    basis: np.ndarray = np.cos(np.pi * (2 * x + 1) * u / (2 * size)) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis


@functools.cache
def kernel_basis(extent: tuple[int, ...]) -> np.ndarray:
    """The DCT over all axes as one matrix, [prod(extent)] * 2: Kronecker product of the axes'."""
    return functools.reduce(np.kron, [dct_matrix(size) for size in extent], np.eye(1))


def dct2(kernel: np.ndarray) -> np.ndarray:
    """The DCT of kernels [kh, kw, ...], float64, in NumPy.

    F = B w B^T over the first two axes
    """
    vertical, horizontal = (dct_matrix(n) for n in kernel.shape[:2])
    weights = kernel.astype(np.float64)
    return np.asarray(np.einsum("up,vq,pq...->uv...", vertical, horizontal, weights))


def idct2(coefficients: np.ndarray) -> np.ndarray:
    """The inverse of `dct2`.

    w = B^T F B over the first two axes
    """
    vertical, horizontal = (dct_matrix(n) for n in coefficients.shape[:2])
    weights = coefficients.astype(np.float64)
    return np.asarray(np.einsum("up,vq,uv...->pq...", vertical, horizontal, weights))


def integer_rows(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the DCT of one axis, in whole numbers where there are such.

    Returns:
        rows [size, size], and the factor [size] that makes each one orthonormal. Three taps have
        [1, 1, 1], [1, 0, -1], [1, -2, 1] over sqrt(3), sqrt(2), sqrt(6).
    """
    orthonormal = dct_matrix(size)
    if size != 3:
        return orthonormal, np.ones(size)
    rows = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]], np.float64)
    return rows, orthonormal[:, 0] / rows[:, 0]
