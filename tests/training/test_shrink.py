"""strip(shrink=True): fewer channels, the same function, on random graphs and by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfprune
from tfprune.training.shrinking import shrunk

L = keras.layers


def block(x, channels, rng):
    options = {"padding": str(rng.choice(["same", "valid"])), "use_bias": bool(rng.integers(2))}
    x = L.Conv2D(channels, int(rng.choice([1, 3])), **options)(x)
    if rng.random() < 0.7:
        x = L.BatchNormalization()(x)
    return L.Activation(str(rng.choice(["relu", "tanh", "linear", "relu"])))(x)


def residual(x, rng):
    inner = L.ReLU()(L.Conv2D(int(rng.integers(2, 7)), 3, padding="same")(x))
    inner = L.BatchNormalization()(L.Conv2D(x.shape[-1], 3, padding="same")(inner))
    return L.ReLU()(L.Add()([x, inner]))


def grown(x, rng):
    return L.Concatenate()([x, L.Conv2D(4, 3, padding="same", activation="relu")(x)])


def depthwise(x, rng):
    return L.DepthwiseConv2D(3, padding="same", depth_multiplier=int(rng.integers(1, 3)))(x)


def random_net(rng):
    inputs = keras.Input((14, 14, 3))
    x = block(inputs, 6, rng)
    for _ in range(rng.integers(2, 5)):
        kinds = (residual, grown, depthwise, lambda x, rng: block(x, int(rng.integers(3, 8)), rng))
        x = kinds[rng.integers(len(kinds))](x, rng)
    x = L.MaxPooling2D()(x)
    x = L.Flatten()(x) if rng.random() < 0.5 else L.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, L.Dense(3)(L.Dense(8, activation="relu")(x)))


def with_dead_channels(model, rng):
    """Random weights and statistics; whole rows and columns of the kernels are zero."""
    for layer in model.layers:
        for variable in layer.trainable_variables:
            variable.assign(0.5 * rng.normal(size=variable.shape))
        if isinstance(layer, L.BatchNormalization):
            layer.moving_mean.assign(0.3 * rng.normal(size=layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 2, layer.moving_variance.shape))
        if hasattr(layer, "kernel"):
            cin, cout = layer.kernel.shape[-2:]
            mask = rng.random((cin, cout)) > 0.4
            mask[rng.random(cin) < 0.3] = False
            mask[:, rng.random(cout) < 0.3] = False
            layer.kernel.assign(keras.ops.convert_to_numpy(layer.kernel) * mask)
    return model


@pytest.mark.parametrize("seed", range(6))
def test_random_graphs_compute_the_same_with_fewer_channels(seed):
    rng = np.random.default_rng(seed)
    model = with_dead_channels(random_net(rng), rng)
    small = shrunk(model)
    x = rng.normal(size=(4, 14, 14, 3)).astype("float32")
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(
        small.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max()
    )
    assert small.count_params() < 0.9 * model.count_params()


def test_channels_counted_by_hand():
    model = keras.Sequential(
        [keras.Input((6, 6, 2)), L.Conv2D(4, 3, name="a"), L.ReLU(), L.Conv2D(3, 3, name="b")]
    )
    first, last = model.layers[0], model.layers[2]
    kernels = [np.ones(layer.kernel.shape, "float32") for layer in (first, last)]
    kernels[0][..., 1] = 0  # constant: its bias goes into b's
    kernels[1][:, :, 2] = 0  # read by nobody
    first.set_weights([kernels[0], np.array([0.1, 0.7, 0.2, 0.3], "float32")])
    last.set_weights([kernels[1], np.zeros(3, "float32")])
    small = shrunk(model)
    assert small.layers[0].kernel.shape == (3, 3, 2, 2)
    assert small.layers[2].kernel.shape == (3, 3, 2, 3)
    np.testing.assert_allclose(small.layers[2].bias, 9 * 0.7, rtol=1e-6)


def test_a_layer_that_lost_everything_keeps_a_channel():
    model = keras.Sequential([keras.Input((5,)), L.Dense(4), L.Dense(2)])
    model.layers[0].set_weights([np.zeros((5, 4), "float32"), np.ones(4, "float32")])
    small = shrunk(model)
    x = np.random.rand(3, 5).astype("float32")
    np.testing.assert_allclose(small(x), model(x), rtol=1e-5)
    assert small.layers[0].units == 1


def test_strip_shrinks_a_pruned_net():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(16, 3, padding="same")(inputs)))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(16, 3, padding="same")(x)))
    model = keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x)))
    model.compile(keras.optimizers.SGD(0.001), "mse")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 8, 8, 3)), rng.normal(size=(32, 3))
    pruned = tfprune.prune(model, tfprune.SynapticStrength(0.95, keep_ends=False))
    pruned.fit(x, y, 8, 4, verbose=0, callbacks=[tfprune.PruningCallback()])
    small = tfprune.strip(pruned, shrink=True)
    assert small.count_params() < 0.6 * model.count_params() and small.compiled
    expected = pruned.predict(x, verbose=0)
    np.testing.assert_allclose(small.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5)
    small.fit(x, y, verbose=0)
    with pytest.raises(ValueError, match="in place"):
        tfprune.strip(pruned, in_place=True, shrink=True)
