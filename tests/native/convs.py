"""Sparse convolutions for tests: drawn at random, and computed the slow way."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tfprune.ops import ConvSpec, SparseWeights

KERNEL_SIZES = st.one_of(
    st.tuples(st.integers(1, 5), st.integers(1, 5)), st.sampled_from([(3, 3), (5, 5), (11, 11)])
)


@st.composite
def specs(draw: Any) -> ConvSpec:
    """Any convolution that the ops take; half of them keep the size of the image."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    kernel = draw(KERNEL_SIZES)
    options: dict[str, Any] = {
        "groups": groups,
        "kernel_size": kernel,
        "basis": draw(st.sampled_from(["dct", "spatial"])),
        "activation": draw(st.sampled_from(["linear", "relu", "relu6"])),
    }
    if draw(st.booleans()):
        options["padding"] = (kernel[0] // 2,) * 2 + (kernel[1] // 2,) * 2
    else:
        pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
        options["padding"] = draw(st.tuples(*[st.integers(0, 3)] * 4))
        options["strides"], options["dilations"] = draw(pair), draw(pair)
    channels = st.integers(1, 40)
    return ConvSpec(groups * draw(channels), groups * draw(channels), **options)


def draw_weights(spec: ConvSpec, density: float, bias: bool, seed: int) -> SparseWeights:
    """Normal weights with zeros."""
    rng = np.random.default_rng(seed)
    shape = (*spec.kernel_size, spec.in_channels // spec.groups, spec.out_channels)
    weights = rng.normal(size=shape) * (rng.random(shape) < density)
    return SparseWeights.from_dense(
        weights, spec, rng.normal(size=spec.out_channels) if bias else None
    )


def basis(size: int) -> np.ndarray:
    """The orthonormal DCT-II, row u is frequency u."""
    u, p = np.mgrid[:size, :size]
    scale = np.where(u == 0, math.sqrt(1 / size), math.sqrt(2 / size))
    return scale * np.cos(np.pi * (2 * p + 1) * u / (2 * size))


def slow(x: np.ndarray, weights: SparseWeights) -> np.ndarray:
    """The definition, in float64, patch by patch."""
    spec = weights.spec
    (kh, kw), (sh, sw), (dh, dw) = spec.kernel_size, spec.strides, spec.dilations
    top, bottom, left, right = spec.padding
    padded = np.pad(x.astype(np.float64), ((0, 0), (top, bottom), (left, right), (0, 0)))
    height, width = spec.output_size(*x.shape[1:3])
    dense = weights.dense().astype(np.float64)
    cin, cout = spec.in_channels // spec.groups, spec.out_channels // spec.groups
    y = np.zeros((len(x), height, width, spec.out_channels))
    for row, column in np.ndindex(height, width):
        patch = padded[:, row * sh :, column * sw :][:, : kh * dh : dh, : kw * dw : dw]
        if spec.basis == "dct":
            patch = np.einsum("up,vq,npqc->nuvc", basis(kh), basis(kw), patch)
        for group in range(spec.groups):
            inputs = slice(group * cin, (group + 1) * cin)
            outputs = slice(group * cout, (group + 1) * cout)
            y[:, row, column, outputs] = np.einsum(
                "nuvi,uvio->no", patch[..., inputs], dense[..., outputs]
            )
    if weights.bias.size:
        y += weights.bias
    if spec.activation != "linear":
        y = np.maximum(y, 0)
    return np.minimum(y, 6) if spec.activation == "relu6" else y


def close(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Equal to `tolerance` times the largest expected magnitude."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    if expected.size:
        scale = max(np.abs(expected).max(), 1e-3)
        assert np.abs(found - expected).max() <= tolerance * scale
