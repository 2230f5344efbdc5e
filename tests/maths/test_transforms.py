"""The DCT of kernels against SciPy, its gradient against finite differences, bands and costs."""

from __future__ import annotations

import keras
import numpy as np
import oracles
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfprune.maths import transforms
from tfprune.maths.spec import WeightSpec

to_numpy = keras.ops.convert_to_numpy
SPACE = {1: ("kw",), 2: ("kh", "kw"), 3: ("kd", "kh", "kw")}
channels = st.integers(1, 4)


@st.composite
def kernels(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    rank = draw(st.integers(1, 3))
    size = {1: 11, 2: 7, 3: 4}[rank]
    space = tuple(draw(st.integers(1, size)) for _ in range(rank))
    seed = draw(st.integers(0, 2**31))
    shape = (*space, draw(channels), draw(channels))
    return np.random.default_rng(seed).normal(size=shape).astype("float32"), rank


def spec_of(kernel: np.ndarray, rank: int, last: tuple[str, str] = ("cin", "cout")) -> WeightSpec:
    return WeightSpec("kernel", kernel.shape, (*SPACE[rank], *last))


@settings(max_examples=60, deadline=None)
@given(kernels())
def test_dct_is_scipys_and_idct_its_inverse(drawn: tuple[np.ndarray, int]) -> None:
    kernel, rank = drawn
    for last in (("cin", "cout"), ("cout", "cin"), ("cin", "multiplier")):
        spec = spec_of(kernel, rank, last)
        found = to_numpy(transforms.dct(keras.ops.convert_to_tensor(kernel), spec))
        np.testing.assert_allclose(found, oracles.dct_kernel(kernel, rank), atol=1e-5)
        back = to_numpy(transforms.idct(keras.ops.convert_to_tensor(found), spec))
        np.testing.assert_allclose(back, kernel, atol=1e-5)


def test_a_large_map_takes_one_matmul_per_axis_and_gives_the_same() -> None:
    kernel = np.random.default_rng(0).normal(size=(20, 17, 2, 3)).astype("float32")
    found = to_numpy(transforms.dct(keras.ops.convert_to_tensor(kernel), spec_of(kernel, 2)))
    np.testing.assert_allclose(found, oracles.dct_kernel(kernel, 2), atol=1e-4)


@pytest.mark.parametrize(
    ("axes", "move"), [(("kh", "kw", "cin"), (0, 1, 2)), (("cin", "kh", "kw"), (2, 0, 1))]
)
def test_a_dense_kernel_is_transformed_over_the_map_in_front(axes, move) -> None:
    spatial = np.random.default_rng(0).normal(size=(4, 3, 5, 7)).astype("float32")
    ordered = spatial.transpose(*move, 3)
    dense = ordered.reshape(60, 7)
    spec = WeightSpec("kernel", (60, 7), ("cin", "cout"), False, ordered.shape[:3], axes)
    found = to_numpy(transforms.dct(keras.ops.convert_to_tensor(dense), spec))
    expected = oracles.dct_kernel(spatial, 2).transpose(*move, 3).reshape(60, 7)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    back = to_numpy(transforms.idct(keras.ops.convert_to_tensor(found), spec))
    np.testing.assert_allclose(back, dense, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(kernels())
def test_gradient_through_the_transform(drawn: tuple[np.ndarray, int]) -> None:
    """dL/dF = B (dL/dw) B^T, and both against central differences along a random direction."""
    kernel, rank = drawn
    spec = spec_of(kernel, rank)
    rng = np.random.default_rng(1)
    slope, direction = rng.normal(size=(2, *kernel.shape)).astype("float32")

    def loss(coefficients: np.ndarray) -> tf.Tensor:
        return tf.reduce_sum(slope * tf.sin(transforms.idct(coefficients, spec)))

    with tf.GradientTape() as tape:
        variable = tf.constant(kernel)
        tape.watch(variable)
        value = loss(variable)
    gradient = tape.gradient(value, variable).numpy()
    weight = to_numpy(transforms.idct(tf.constant(kernel), spec))
    np.testing.assert_allclose(
        gradient, oracles.dct_kernel(slope * np.cos(weight), rank), atol=2e-5
    )
    step = 1e-2
    difference = loss(kernel + step * direction) - loss(kernel - step * direction)
    slope_along = float(np.sum(gradient * direction))
    assert float(difference) / (2 * step) == pytest.approx(slope_along, rel=2e-2, abs=2e-2)


@settings(max_examples=40, deadline=None)
@given(kernels())
def test_bands_are_sums_of_frequencies(drawn: tuple[np.ndarray, int]) -> None:
    kernel, rank = drawn
    spec = spec_of(kernel, rank)
    expected = oracles.band_number(kernel.shape, rank).reshape(-1, *kernel.shape[rank:])[:, 0, 0]
    np.testing.assert_array_equal(transforms.bands(spec), expected)
    x = transforms.band_positions(spec)
    assert len(x) == expected.max() + 1 and (x > 0).all() and (x < 1).all()
    if rank == 2 and kernel.shape[0] == kernel.shape[1]:
        k = kernel.shape[0]
        np.testing.assert_allclose(x, (np.arange(2 * k - 1) + 1) / (2 * k))


def test_what_has_no_extent_stays_as_it_is() -> None:
    for spec in (
        WeightSpec("kernel", (1, 1, 3, 4), ("kh", "kw", "cin", "cout")),
        WeightSpec("kernel", (3, 4), ("cin", "cout")),
        WeightSpec("bias", (4,), is_bias=True),
        WeightSpec("mine", (2, 3, 4)),
    ):
        weight = keras.ops.convert_to_tensor(np.random.rand(*spec.shape).astype("float32"))
        assert transforms.dct(weight, spec) is weight and transforms.idct(weight, spec) is weight
        assert transforms.size(spec) == 1 and transforms.bands(spec).tolist() == [0]
        assert transforms.band_positions(spec).tolist() == [0.5]
        assert transforms.transform_macs(spec) == 0


def test_multiply_adds_of_a_patch_counted_by_hand() -> None:
    axes = ("kh", "kw", "cin", "cout")
    alone = WeightSpec("kernel", (4, 4, 2, 3), axes)
    assert transforms.transform_macs(alone) == 2 * 4**3
    overlapping = WeightSpec("kernel", (3, 3, 2, 3), axes, strides=(1, 1))
    assert transforms.transform_macs(overlapping) == 3**2 + 3**3
    apart = WeightSpec("kernel", (3, 3, 2, 3), axes, strides=(3, 5))
    assert transforms.transform_macs(apart) == 2 * 3**3


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((3, 5, 2, 4), ("kh", "kw", "cin", "cout"), (15, 2, 4)),
        ((3, 5, 4, 2), ("kh", "kw", "cout", "cin"), (15, 2, 4)),
        ((3, 5, 2, 4), ("kh", "kw", "cin", "multiplier"), (15, 1, 8)),
        ((7, 4), ("vocabulary", "cout"), (1, 7, 4)),
        ((2, 3, 4), (), (1, 6, 4)),
        ((4,), (), (1, 1, 4)),
    ],
)
def test_canonical_form(shape, axes, expected) -> None:
    spec = WeightSpec("w", shape, axes)
    values = keras.ops.reshape(keras.ops.arange(int(np.prod(shape))), shape)
    form = transforms.canonical(values, spec)
    assert tuple(form.shape) == expected == transforms.canonical_shape(spec)
    np.testing.assert_array_equal(transforms.from_canonical(form, spec), values)
    if "multiplier" not in axes and len(axes) == 4:
        moved = np.moveaxis(to_numpy(values), axes.index("cin"), 2)
        np.testing.assert_array_equal(form, moved.reshape(expected))
