"""Layers as two-dimensional convolutions, and their kernels in the basis with fewer nonzeros."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from tfprune.inference.fusing import Fusion
from tfprune.maths.dct import dct2
from tfprune.maths.sparse_weights import MOST_KERNEL, ConvSpec, SparseWeights

ROUNDING = 1e-6  # coefficients below this fraction of the largest are zeros that were rounded


def as_convolution(fusion: Fusion, kernel: np.ndarray) -> tuple[ConvSpec, np.ndarray, bool] | None:
    """A layer as a 2-D convolution, None where no native kernel takes it.

    Returns:
        What it is, its kernel [kh, kw, cin / groups, cout], and whether its padding hangs on the
        size of the image.
    """
    layer, cls = fusion.layer, fusion.call.cls
    channels = int(fusion.call.inputs[0].shape[-1])
    if cls is keras.layers.Dense:
        if len(fusion.call.inputs[0].shape) != 2:
            return None
        return ConvSpec(channels, kernel.shape[-1], (1, 1)), kernel[None, None], False
    sizes, strides, dilations = layer.kernel_size, layer.strides, layer.dilation_rate
    if max(sizes) > MOST_KERNEL:
        return None
    groups = getattr(layer, "groups", 1)
    if "Depthwise" in cls.__name__:
        groups = channels
        kernel = kernel.reshape(*sizes, 1, -1)
    if len(sizes) == 1:
        sizes, strides, dilations = (1, *sizes), (1, *strides), (1, *dilations)
        kernel = kernel[None]
    spec = ConvSpec(channels, kernel.shape[-1], sizes, strides, dilations, groups=groups)
    spec, same = _padded(spec, layer.padding)
    return spec, kernel, same


def _padded(spec: ConvSpec, padding: str) -> tuple[ConvSpec, bool]:
    """The convolution with its padding, and whether that hangs on the size of the image."""
    if padding == "valid":
        return spec, False
    reach = (spec.kernel_size[1] - 1) * spec.dilations[1]
    if padding == "causal":
        return dataclasses.replace(spec, padding=(0, 0, reach, 0)), False
    if max(spec.strides) > 1:
        return spec, True
    from tfprune.ops.conv import same_padding

    return dataclasses.replace(spec, padding=same_padding(spec)), False


def sparsest(
    spec: ConvSpec, kernel: np.ndarray, bias: np.ndarray, coefficients: np.ndarray | None = None
) -> SparseWeights:
    """Weights in the basis in which the kernel has fewer nonzeros.

    Args:
        spec: of the convolution.
        kernel: [kh, kw, cin / groups, cout].
        bias: [cout].
        coefficients: of the kernel, where they are known; None: from the kernel, less those that
            are but rounded zeros.
    """
    if coefficients is None or coefficients.shape != kernel.shape:
        coefficients = dct_coefficients(kernel)
    dct = np.count_nonzero(coefficients.astype(np.float32)) < np.count_nonzero(kernel)
    spec = dataclasses.replace(spec, basis="dct" if dct else "spatial")
    return SparseWeights.from_dense(coefficients if dct else kernel, spec, bias)


def dct_coefficients(kernel: np.ndarray) -> np.ndarray:
    """Coefficients of a kernel [kh, kw, cin, cout], float64, zero where they are but rounding."""
    coefficients = dct2(kernel)
    largest = np.abs(coefficients).max(initial=0.0, axis=(0, 1), keepdims=True)
    coefficients[np.abs(coefficients) <= ROUNDING * largest] = 0
    return coefficients
