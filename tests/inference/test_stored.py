"""What a stripped layer was made of: coefficients as they were pruned, while its weights stay."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfprune
from tfprune.graph.layers import weighted_layers
from tfprune.inference.as_convolution import as_convolution, dct_coefficients, sparsest
from tfprune.inference.fusing import fusions
from tfprune.inference.stored import coefficients_of
from tfprune.maths.dct import dct2, dct_matrix, idct2, integer_rows

L = keras.layers
to_numpy = keras.ops.convert_to_numpy
TINY = 1e-9  # of a coefficient that is kept, far below the rounding of the others


@pytest.fixture
def pruned():
    """Two convolutions, one behind a normalization, with random masks and one tiny coefficient."""
    inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, use_bias=False, name="a")(inputs)
    x = L.ReLU()(L.BatchNormalization(name="norm")(x))
    x = L.Conv2D(4, (5, 3), padding="same", name="b")(x)
    model = keras.Model(inputs, L.Dense(2, name="c")(L.Flatten()(x)))
    scale = model.get_layer("norm")
    scale.gamma.assign([0.5, 2.0, -1.0, 3.0])
    scale.moving_variance.assign([1e-3, 0.7, 2.0, 1.3])
    pruned = tfprune.prune(model, tfprune.FrequencyDomain(target_sparsity=0.5, prune_biases=False))
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        state = pruned.get_layer(name).prune_state
        mask = rng.random(state.masks["kernel"].shape) < 0.3
        mask.flat[0] = True
        state.masks["kernel"].assign(mask)
        latent = state.masked_variable("kernel")
        values = np.array(to_numpy(latent))
        values.flat[0] = TINY
        latent.assign(values)
    return pruned


def test_coefficients_are_those_that_were_pruned(pruned):
    plain = tfprune.strip(pruned)
    for name in ("a", "b"):
        state = pruned.get_layer(name).prune_state
        coefficients = coefficients_of(plain.get_layer(name))
        np.testing.assert_array_equal(coefficients, state.stored("kernel"))
        np.testing.assert_array_equal(coefficients != 0, to_numpy(state.masks["kernel"]))
        guessed = dct_coefficients(to_numpy(plain.get_layer(name).kernel))
        assert guessed.flat[0] == 0, "the tiny coefficient cannot be told from rounding"
    assert coefficients_of(plain.get_layer("c")) is None


def test_normalizations_scale_coefficients_as_they_scale_kernels(pruned):
    plain = tfprune.strip(pruned)
    fusion = next(f for f in fusions(plain) if f.layer.name == "a")
    assert fusion.normalization is not None
    kernel, bias = fusion.arrays()
    np.testing.assert_allclose(idct2(fusion.coefficients()), kernel, atol=1e-5)
    spec, weights, _ = as_convolution(fusion, kernel)
    packed = sparsest(spec, weights, bias, fusion.coefficients())
    kept = to_numpy(pruned.get_layer("a").prune_state.masks["kernel"])
    assert packed.spec.basis == "dct" and packed.density == kept.mean()


def test_weights_that_changed_are_transformed(pruned):
    plain = tfprune.strip(pruned)
    layer = plain.get_layer("a")
    layer.kernel.assign(2 * to_numpy(layer.kernel))
    assert coefficients_of(layer) is None and coefficients_of(plain.get_layer("b")) is not None


@pytest.mark.parametrize("stripped", [True, False])
def test_compact_reads_them(pruned, stripped):
    model = tfprune.strip(pruned) if stripped else pruned
    fast = tfprune.compact(model, choose="always")
    x = np.random.default_rng(1).normal(size=(4, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(fast(x), pruned(x), rtol=1e-4, atol=1e-4)
    densities = {choice.name: choice.density for choice in tfprune.compaction(fast)}
    for name in ("a", "b"):
        kept = to_numpy(pruned.get_layer(name).prune_state.masks["kernel"])
        assert densities[name] == pytest.approx(kept.mean(), abs=1e-12)


def test_spatial_masks_need_none():
    model = keras.Sequential([keras.Input((6, 6, 2)), L.Conv2D(3, 3), L.Flatten(), L.Dense(2)])
    plain = tfprune.strip(tfprune.prune(model, tfprune.Magnitude(0.5)))
    assert all(coefficients_of(layer) is None for _, layer in weighted_layers(plain))


@pytest.mark.parametrize("shape", [(3, 3, 2, 4), (1, 5, 3, 1), (2, 4, 1, 1)])
def test_transforms_in_numpy(shape):
    kernel = np.random.default_rng(2).normal(size=shape)
    expected = np.zeros(shape)
    for u in range(shape[0]):
        for v in range(shape[1]):
            basis = np.outer(dct_matrix(shape[0])[u], dct_matrix(shape[1])[v])
            expected[u, v] = (basis[..., None, None] * kernel).sum((0, 1))
    np.testing.assert_allclose(dct2(kernel), expected, atol=1e-12)
    np.testing.assert_allclose(idct2(expected), kernel, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_integer_rows(size):
    rows, scale = integer_rows(size)
    np.testing.assert_allclose(rows * scale[:, None], dct_matrix(size), atol=1e-12)
    assert size != 3 or (rows == rows.round()).all()
