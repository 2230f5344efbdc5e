"""The orthonormal DCT-II over the spatial axes of a kernel, and the bands of its coefficients.

    B[u, x] = s_u cos(pi (2x + 1) u / 2k),   s_0 = sqrt(1/k), s_u = sqrt(2/k) for u > 0
    F = B w B^T,   w = B^T F B               (2-D; one matrix per axis in 1-D and 3-D)

B is orthogonal, so the gradient is transformed as the weight is: dL/dF = B (dL/dw) B^T. In a
training step each direction is one matmul with the Kronecker product of the axes' matrices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from tfprune.maths.checks import check_pattern
from tfprune.maths.dct import dct_matrix, kernel_basis
from tfprune.maths.spec import WeightSpec

Tensor = Any
SPATIAL = ("kd", "kh", "kw")
_LARGEST_KRONECKER = 256  # coefficients; beyond, one matmul per axis is cheaper than one for all


def extent(spec: WeightSpec) -> tuple[int, ...]:
    """Sizes of the spatial axes of a weight, () where it has none."""
    shape, axes = spec.unrolled
    return tuple(n for n, axis in zip(shape, axes, strict=False) if axis in SPATIAL)


def size(spec: WeightSpec) -> int:
    """Coefficients of one kernel, prod(extent); 1 where there is nothing to transform."""
    return math.prod(extent(spec))


def canonical(tensor: Tensor, spec: WeightSpec) -> Tensor:
    """A weight (or its mask, coefficients, ...) as [k, cin, cout], k = frequencies or positions.

    A depthwise kernel has one input per output: [k, 1, cin * multiplier]. A weight whose axes have
    no names is one matrix: [1, everything else, last axis].
    """
    shape, axes = spec.unrolled
    if not axes:
        return ops.reshape(tensor, (1, -1, spec.shape[-1] if spec.shape else 1))
    order, tensor = _order(axes), ops.reshape(tensor, shape)
    if order != tuple(range(len(axes))):
        tensor = ops.transpose(tensor, order)
    return ops.reshape(tensor, canonical_shape(spec))


def canonical_shape(spec: WeightSpec) -> tuple[int, int, int]:
    """The shape of `canonical`."""
    shape, axes = spec.unrolled
    if not axes:
        last = spec.shape[-1] if spec.shape else 1
        return (1, spec.size // max(last, 1), last)
    sizes = dict(zip(axes, shape, strict=True))
    outputs = math.prod(sizes[a] for a in axes if a not in SPATIAL and a != _input_axis(axes))
    return (size(spec), sizes.get(_input_axis(axes), 1), outputs)


def from_canonical(tensor: Tensor, spec: WeightSpec) -> Tensor:
    """The inverse of `canonical`."""
    shape, axes = spec.unrolled
    if not axes:
        return ops.reshape(tensor, spec.shape)
    order = _order(axes)
    if order != tuple(range(len(axes))):
        tensor = ops.reshape(tensor, tuple(shape[i] for i in order))
        tensor = ops.transpose(tensor, tuple(int(i) for i in np.argsort(order)))
    return ops.reshape(tensor, spec.shape)


def _input_axis(axes: Sequence[str]) -> str:
    """The axis that a sum runs over; a depthwise kernel has none."""
    return "" if "multiplier" in axes else "vocabulary" if "vocabulary" in axes else "cin"


def _order(axes: Sequence[str]) -> tuple[int, ...]:
    """Spatial axes first, then the input, then the outputs, each group in the order it has."""
    rank = {axis: i for i, axis in enumerate((*SPATIAL, _input_axis(axes)))}
    return tuple(sorted(range(len(axes)), key=lambda i: rank.get(axes[i], len(rank))))


def per_frequency(values: np.ndarray, spec: WeightSpec) -> Tensor:
    """A tensor of the weight's shape with `values[f]` in all elements of frequency f, [k]."""
    dtype = "int16" if values.dtype.kind in "iu" else "float32"
    full = np.broadcast_to(values[:, None, None], canonical_shape(spec)).astype(dtype)
    return from_canonical(ops.convert_to_tensor(full), spec)


def dct(weight: Tensor, spec: WeightSpec) -> Tensor:
    """Spatial weight -> DCT-II coefficients, of the same shape and dtype.

    F = B w B^T;  gradient dL/dw = B^T (dL/dF) B
    """
    return _apply(weight, spec, inverse=False)


def idct(coefficients: Tensor, spec: WeightSpec) -> Tensor:
    """DCT-II coefficients -> spatial weight, of the same shape and dtype.

    w = B^T F B;  gradient dL/dF = B (dL/dw) B^T
    """
    return _apply(coefficients, spec, inverse=True)


def _apply(tensor: Tensor, spec: WeightSpec, inverse: bool) -> Tensor:
    sizes = extent(spec)
    if math.prod(sizes) == 1:
        return tensor
    stacked = canonical(tensor, spec)
    if math.prod(sizes) <= _LARGEST_KRONECKER:
        matrix = kernel_basis(sizes)
        flat = ops.reshape(stacked, (matrix.shape[0], -1))
        flat = ops.matmul(_constant(matrix.T if inverse else matrix, tensor), flat)
        return from_canonical(ops.reshape(flat, canonical_shape(spec)), spec)
    moved = ops.reshape(stacked, (*sizes, -1))
    for axis, n in enumerate(sizes):
        matrix = dct_matrix(n).T if inverse else dct_matrix(n)
        front = ops.moveaxis(moved, axis, 0)
        flat = ops.matmul(_constant(matrix, tensor), ops.reshape(front, (n, -1)))
        moved = ops.moveaxis(ops.reshape(flat, ops.shape(front)), 0, axis)
    return from_canonical(ops.reshape(moved, canonical_shape(spec)), spec)


def _constant(matrix: np.ndarray, like: Tensor) -> Tensor:
    return ops.convert_to_tensor(matrix.astype("float32"), dtype=like.dtype)


def bands(spec: WeightSpec) -> np.ndarray:
    """The band u + v (+ w) of each coefficient of a kernel, int [k]; 0 for k = 1."""
    sizes = extent(spec) or (1,)
    return np.asarray(np.indices(sizes).reshape(len(sizes), -1).sum(axis=0))


def band_positions(spec: WeightSpec) -> np.ndarray:
    """x_j = (j + 1) / (bands + 1) of each band j, float64 in (0, 1); bands = 2k - 1 for k x k."""
    count = int(bands(spec).max()) + 1
    return (np.arange(count) + 1) / (count + 1)


def transform_macs(spec: WeightSpec) -> int:
    """Multiply-adds to transform one input patch of one channel, one matmul per axis.

    kh * kw * (kh + kw) for a 2-D kernel; where neighbouring patches overlap (a convolution's), each
    column is transformed once and serves all patches that it lies in: kh^2 * stride + kh * kw * kw.
    """
    sizes = extent(spec)
    if math.prod(sizes) == 1:
        return 0
    if len(sizes) == 2 and spec.strides:
        height, width = sizes
        return height * height * min(spec.strides[-1], width) + height * width * width
    return math.prod(sizes) * sum(sizes)


def check_supports(supports: Any) -> dict[str, tuple[int, int]] | None:
    """{regular expression of layer names: (height, width)} as it will be kept; None stays None.

    Raises:
        TypeError, ValueError: if it is something else.
    """
    if supports is None:
        return None
    if not isinstance(supports, Mapping):
        raise TypeError(
            "`supports` must be a dict {regular expression: (height, width)}. "
            f"Received: {supports!r}."
        )
    for pattern, size in supports.items():
        check_pattern("supports", pattern)
        whole = isinstance(size, Sequence) and all(isinstance(n, int) and n > 0 for n in size)
        if not whole or len(size) != 2:
            raise ValueError(
                f"`supports` must hold pairs of positive integers. Received: {pattern!r}: {size!r}."
            )
    return {pattern: (size[0], size[1]) for pattern, size in supports.items()}
