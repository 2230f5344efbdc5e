"""Every kernel of the table against the definition, on convolutions drawn at random."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from native.convs import close, draw_weights, slow, specs

from tfprune.maths import sparse_weights
from tfprune.ops import ConvSpec, conv, library, reference_conv2d

pytestmark = pytest.mark.skipif(not library.available(), reason="built without native kernels")
KERNELS = library.kernels()
SAME = {"padding": (1, 1, 1, 1), "basis": "dct"}


@pytest.fixture(params=KERNELS)
def kernel(request):
    library.select_kernel(request.param)
    yield request.param
    library.select_kernel(None)


def run(x, weights, threads=1):
    packed = np.frombuffer(weights.to_bytes(), np.uint8)
    return conv.packed_conv2d(x, packed, weights.spec, threads).numpy()


@settings(max_examples=40, deadline=None)
@given(
    spec=specs(),
    density=st.sampled_from([0.0, 0.03, 0.1, 0.5, 1.0]),
    bias=st.booleans(),
    size=st.tuples(st.integers(0, 3), st.integers(1, 18), st.integers(1, 18)),
    seed=st.integers(0, 99),
    threads=st.integers(1, 3),
)
@example(ConvSpec(70, 33, **SAME), 0.1, True, (2, 9, 13), 0, 1)
@example(ConvSpec(16, 16, **SAME), 0.02, True, (1, 32, 32), 0, 2)
@example(ConvSpec(3, 5, (5, 5), padding=(2, 2, 2, 2), basis="dct"), 0.3, True, (3, 7, 2), 0, 1)
@example(ConvSpec(300, 8, **SAME), 0.05, False, (1, 7, 7), 0, 1)
@example(ConvSpec(2, 3, **SAME), 0.5, True, (5, 1, 1), 0, 1)
@example(ConvSpec(150, 8, kernel_size=(1, 1), strides=(2, 3)), 0.2, True, (1, 1, 1), 0, 2)
@example(ConvSpec(90, 9, (1, 1), groups=3, activation="relu6"), 0.5, True, (1, 1, 1), 0, 1)
@example(ConvSpec(9, 7, (1, 1), activation="relu"), 0.0, True, (1, 1, 1), 0, 1)
@example(ConvSpec(9, 7, (1, 1), padding=(0, 1, 1, 0)), 1.0, True, (1, 1, 1), 0, 1)
@example(ConvSpec(9, 7, (1, 1), padding=(1, 0, 0, 0)), 1.0, True, (1, 1, 1), 0, 1)
@example(ConvSpec(9, 7, (1, 1), padding=(0, 1, 0, 0)), 1.0, True, (1, 1, 1), 0, 1)
@example(ConvSpec(9, 7, (1, 1), padding=(0, 0, 1, 0)), 1.0, True, (1, 1, 1), 0, 1)
@example(ConvSpec(9, 7, (1, 1), padding=(0, 0, 0, 1)), 1.0, True, (1, 1, 1), 0, 1)
@example(ConvSpec(9, 7, padding=(2, 0, 1, 1)), 0.5, True, (2, 9, 9), 0, 1)  # of equal size
@example(ConvSpec(9, 7, padding=(1, 1, 0, 2), basis="dct"), 0.5, True, (2, 9, 9), 0, 1)
def test_kernels_compute_the_definition(spec, density, bias, size, seed, threads):
    weights = draw_weights(spec, density, bias, seed)
    x = np.random.default_rng(seed).normal(size=(*size, spec.in_channels)).astype("float32")
    expected = slow(x, weights)
    for name in KERNELS:
        library.select_kernel(name)
        close(run(x, weights, threads), expected)
    library.select_kernel(None)
    close(reference_conv2d(x, weights), expected)


def test_a_map_of_many_tiles_and_bands(kernel):
    weights = draw_weights(ConvSpec(200, 20, **SAME), 0.05, True, 0)
    x = np.random.default_rng(0).normal(size=(2, 40, 61, 200)).astype("float32")
    close(run(x, weights, threads=2), reference_conv2d(x, weights))


@settings(max_examples=40, deadline=None)
@given(
    kernel_size=st.sampled_from([(3, 3), (5, 5), (7, 7), (3, 2), (2, 3), (4, 1), (11, 11)]),
    strides=st.sampled_from([(1, 1), (1, 1), (2, 2), (2, 1), (1, 3)]),
    dilations=st.sampled_from([(1, 1), (1, 1), (2, 2), (3, 1)]),
    padding=st.tuples(*[st.integers(0, 4)] * 4),
    channels=st.tuples(st.sampled_from([3, 16, 21, 70]), st.integers(1, 9)),
    groups=st.sampled_from([1, 1, 2]),
    basis=st.sampled_from(["dct", "spatial"]),
    density=st.sampled_from([0.02, 0.3]),
    size=st.tuples(st.integers(1, 3), st.integers(11, 40), st.integers(11, 40)),
    seed=st.integers(0, 99),
    threads=st.integers(1, 2),
)
@example((3, 3), (1, 1), (1, 1), (0,) * 4, (64, 5), 1, "dct", 0.3, (2, 40, 40), 0, 1)  # bands
@example((3, 3), (2, 2), (1, 1), (0,) * 4, (64, 5), 1, "dct", 0.02, (2, 40, 40), 0, 2)
@example((5, 5), (2, 2), (2, 2), (1, 2, 3, 4), (70, 3), 2, "dct", 0.3, (3, 33, 39), 0, 1)
def test_output_pixels_that_are_not_the_inputs(
    kernel_size, strides, dilations, padding, channels, groups, basis, density, size, seed, threads
):
    options = {"strides": strides, "dilations": dilations, "padding": padding, "basis": basis}
    cin, cout = (groups * count for count in channels)
    weights = draw_weights(
        ConvSpec(cin, cout, kernel_size, groups=groups, **options), density, True, seed
    )
    x = np.random.default_rng(seed).normal(size=(*size, cin)).astype("float32")
    expected = reference_conv2d(x, weights)
    for name in KERNELS:
        library.select_kernel(name)
        close(run(x, weights, threads), expected)
    library.select_kernel(None)


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        (ConvSpec(256, 256, **SAME), (1, 7, 7)),  # fewer tiles than threads
        (ConvSpec(128, 96, **SAME), (3, 14, 13)),
        (ConvSpec(64, 64, strides=(2, 2), padding=(1, 1, 1, 1), basis="dct"), (1, 33, 47)),
        (ConvSpec(128, 128, groups=2), (2, 19, 9)),
    ],
)
def test_what_threads_share_is_put_together(kernel, spec, size):
    weights = draw_weights(spec, 0.1, True, 0)
    x = np.random.default_rng(0).normal(size=(*size, spec.in_channels)).astype("float32")
    expected = reference_conv2d(x, weights)
    for threads in (1, 2):
        close(run(x, weights, threads), expected)


def test_values_that_are_not_finite_stay_where_they_are_read(kernel):
    weights = draw_weights(ConvSpec(4, 6, **SAME, activation="relu"), 1.0, True, 0)
    for value in (np.nan, np.inf, -np.inf):
        x = np.zeros((1, 9, 9, 4), "float32")
        x[0, 4, 4, 1] = value
        y = run(x, weights)
        near = y[0, 3:6, 3:6]
        assert not np.isfinite(near).all()
        y[0, 3:6, 3:6] = 0
        assert np.isfinite(y).all()
    tiny = np.full((1, 9, 9, 4), 1e-42, "float32")
    close(run(tiny, weights), reference_conv2d(tiny, weights))


@pytest.mark.parametrize(
    "spec",
    [
        ConvSpec(12, 16, **SAME),
        ConvSpec(24, 32, groups=2, **SAME),
        ConvSpec(12, 16, (5, 5), padding=(2, 2, 2, 2), basis="dct"),
        ConvSpec(12, 16, (3, 2), strides=(2, 1), basis="dct"),
        ConvSpec(12, 16, basis="spatial"),
    ],
)
def test_structured_sparsity(kernel, spec):
    """Whole kernels, whole rows, blocks of output channels, whole frequencies."""
    rng = np.random.default_rng(0)
    taps, cin, cout = spec.kernel_size, spec.in_channels // spec.groups, spec.out_channels
    dense = rng.normal(size=(*taps, cin, cout))
    masks = {
        "kernels": rng.random((1, 1, cin, cout)) < 0.3,
        "rows": rng.random((*taps, cin, 1)) < 0.3,
        "blocks": np.repeat(rng.random((*taps, cin, cout // 4)) < 0.3, 4, axis=3),
        "frequencies": rng.random((*taps, 1, 1)) < 0.3,
    }
    x = rng.normal(size=(2, 10, 11, spec.in_channels)).astype("float32")
    for mask in masks.values():
        weights = sparse_weights.SparseWeights.from_dense(dense * mask, spec)
        close(run(x, weights), slow(x, weights))


@pytest.mark.parametrize("activation", ["linear", "relu", "relu6"])
def test_a_single_vector_keeps_what_is_not_a_number(kernel, activation):
    weights = draw_weights(ConvSpec(20, 6, (1, 1), activation=activation), 0.5, True, 0)
    vector = np.zeros((1, 1, 1, 20), "float32")
    vector[..., 3] = np.nan
    reads = weights.dense()[0, 0, 3] != 0
    assert reads.any() and np.isnan(run(vector, weights)[0, 0, 0, reads]).all()


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "float16"])
def test_stored_halves_are_computed_in_float32(storage):
    weights = draw_weights(ConvSpec(8, 8, **SAME), 0.3, True, 1)
    data = weights.to_bytes(storage)
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 8)).astype("float32")
    y = conv.packed_conv2d(x, np.frombuffer(data, np.uint8), weights.spec)
    close(y, slow(x, sparse_weights.SparseWeights.from_bytes(data)))
    close(y, slow(x, weights), {"float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-3}[storage])


@pytest.mark.parametrize("storage", ["bfloat16", "float16"])
def test_every_half_is_read_exactly(storage):
    """Among them subnormal ones of either sign."""
    bits = np.arange(2**16, dtype=np.uint32)
    if storage == "bfloat16":
        values = (bits << 16).view(np.float32)
    else:
        values = bits.astype(np.uint16).view(np.float16).astype(np.float32)
    values = values[np.isfinite(values)]
    rows = np.arange(len(values) + 1)
    spec = ConvSpec(1, len(values), (1, 1))
    columns, bias = np.zeros(len(values), np.int32), np.zeros(0, np.float32)
    data = sparse_weights.SparseWeights(spec, values, columns, rows, bias).to_bytes(storage)
    y = conv.packed_conv2d(np.ones((1, 1, 1, 1), "float32"), np.frombuffer(data, np.uint8), spec)
    tiny = np.finfo(np.float32).tiny  # below it, TensorFlow's threads compute with 0
    np.testing.assert_allclose(np.ravel(y), values, rtol=0, atol=tiny)


def test_other_input_types_are_computed_in_float32():
    weights = draw_weights(ConvSpec(8, 8, **SAME), 0.3, True, 1)
    x = tf.cast(np.random.default_rng(0).normal(size=(1, 8, 8, 8)), tf.bfloat16)
    y = conv.packed_conv2d(x, np.frombuffer(weights.to_bytes(), np.uint8), weights.spec)
    assert y.dtype == tf.bfloat16
    close(tf.cast(y, tf.float32), slow(tf.cast(x, tf.float32).numpy(), weights), 1e-2)


def test_kernels_are_listed_best_first_and_chosen_by_name():
    assert KERNELS[-2:] == ["portable", "reference"]
    with pytest.raises(ValueError, match=r"must be one of .*'sse9'"):
        library.select_kernel("sse9")
