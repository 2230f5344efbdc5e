"""Scales of normalizations move only through what is positively homogeneous; outputs stay."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfprune

L = keras.layers
METHOD = tfprune.SynapticStrength(target_sparsity=0.5, keep_ends=False)

# Layers f with f(g x) != g f(x) for some g > 0, so that no scale may move through them.
BOUNDED = {
    "ReLU(6)": lambda: L.ReLU(6.0),
    "ReLU(max_value=0.5)": lambda: L.ReLU(max_value=0.5),
    "ReLU(threshold=0.3)": lambda: L.ReLU(threshold=0.3),
    "relu6": lambda: L.Activation("relu6"),
    "elu": lambda: L.Activation("elu"),
    "sigmoid": lambda: L.Activation("sigmoid"),
    "ELU": L.ELU,
    "Softmax": L.Softmax,
}
HOMOGENEOUS = {
    "ReLU()": L.ReLU,
    "ReLU(negative_slope=0.2)": lambda: L.ReLU(negative_slope=0.2),
    "LeakyReLU": L.LeakyReLU,
    "relu": lambda: L.Activation("relu"),
    "leaky_relu": lambda: L.Activation("leaky_relu"),
    "linear": lambda: L.Activation("linear"),
}


def net(activation: keras.Layer, epsilon: float = 1e-3) -> keras.Model:
    """A convolution, a normalization, an activation and a convolution; all scales positive."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            L.Conv2D(6, 3, padding="same", name="first"),
            L.BatchNormalization(epsilon=epsilon, name="norm"),
            activation,
            L.Conv2D(4, 3, name="second"),
        ]
    )
    rng = np.random.default_rng(0)
    norm = model.get_layer("norm")
    norm.gamma.assign(rng.uniform(0.5, 3, 6))
    norm.beta.assign(rng.normal(0.5, 1, 6))
    norm.moving_mean.assign(rng.normal(size=6))
    norm.moving_variance.assign(rng.uniform(0.05, 0.2, 6))
    return model


def assert_outputs_stay(model: keras.Model) -> keras.Model:
    """Prune a copy of a model, where the normalization's outputs pass 6, and compare outputs."""
    x = np.random.default_rng(1).normal(size=(4, *model.input_shape[1:])).astype("float32")
    middle = keras.Model(model.inputs[0], model.get_layer("norm").output)(x)
    assert float(keras.ops.max(middle)) > 6 and float(keras.ops.min(middle)) < 0
    wanted = model.predict(x, verbose=0)
    pruned = tfprune.prune(model, METHOD)
    error = np.abs(pruned.predict(x, verbose=0) - wanted).max()
    assert error <= 1e-5 * np.abs(wanted).max()
    return pruned


@pytest.mark.parametrize("name", BOUNDED)
def test_scales_stay_in_front_of_what_is_not_homogeneous(name: str) -> None:
    model = net(BOUNDED[name]())
    pruned = assert_outputs_stay(model)
    norm = pruned.get_layer("norm")
    np.testing.assert_array_equal(norm.gamma, model.get_layer("norm").gamma)
    assert norm.gamma.trainable


@pytest.mark.parametrize("name", HOMOGENEOUS)
def test_scales_move_through_what_is_homogeneous(name: str) -> None:
    norm = assert_outputs_stay(net(HOMOGENEOUS[name]())).get_layer("norm")
    np.testing.assert_allclose(norm.gamma, 1)
    assert not norm.gamma.trainable


def test_outputs_of_a_net_like_mobilenet_stay() -> None:
    """Depthwise and pointwise convolutions, each with a normalization and ReLU(6) behind it."""
    inputs = x = keras.Input((12, 12, 3))
    for i in range(2):
        x = L.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
        x = L.ReLU(6.0)(L.BatchNormalization(name="norm" if not i else None)(x))
        x = L.Conv2D(8, 1, use_bias=False)(x)
        x = L.ReLU(6.0)(L.BatchNormalization()(x))
    model = keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x)))
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.gamma.assign(rng.uniform(2, 4, layer.gamma.shape))
            layer.moving_variance.assign(rng.uniform(0.02, 0.1, layer.gamma.shape))
    assert_outputs_stay(model)


@pytest.mark.parametrize("epsilon", [1e-3, 0.1])
def test_variances_as_small_as_epsilon_keep_the_outputs(epsilon: float) -> None:
    model = net(L.ReLU(), epsilon)
    norm = model.get_layer("norm")
    norm.moving_variance.assign(epsilon * np.array([0, 0.1, 0.5, 1, 2, 10]))
    pruned = assert_outputs_stay(model)
    assert pruned.get_layer("norm").epsilon == epsilon
