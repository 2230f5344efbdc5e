"""A normalization's epsilon counts wherever it becomes part of another layer: variances near it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from sparse_nets import inputs_of, zeros

import tfprune
from tfprune.export import Verification

L = keras.layers


def net(epsilon: float) -> keras.Model:
    """Two sparse convolutions with normalizations, whose variances lie around epsilon."""
    inputs = x = keras.Input((12, 12, 3))
    for width, stride in ((16, 2), (64, 1)):
        x = L.Conv2D(width, 3, stride, padding="same", use_bias=False)(x)
        x = L.ReLU()(L.BatchNormalization(epsilon=epsilon)(x))
    model = zeros(keras.Model(inputs, L.Dense(5)(L.GlobalAveragePooling2D()(x))))
    rng = np.random.default_rng(3)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.gamma.assign(rng.uniform(0.01, 0.1, layer.gamma.shape))
            layer.moving_variance.assign(epsilon * 10 ** rng.uniform(-2, 0.5, layer.gamma.shape))
    return model


Outputs = Callable[[keras.Model, np.ndarray, Path], np.ndarray]


def exported(target: str) -> Outputs:
    """Outputs of the file for a target."""

    def outputs(model: keras.Model, x: np.ndarray, folder: Path) -> np.ndarray:
        result = tfprune.export_tflite(
            model,
            folder / "m.tflite",
            target=target,
            verification=Verification(samples=x),
        )
        return tfprune.export.predict_tflite(result.path, x)

    return outputs


def pruned(model: keras.Model, x: np.ndarray, _: Path) -> np.ndarray:
    """Outputs of a pruned copy whose scales moved, stripped."""
    method = tfprune.SynapticStrength(target_sparsity=0.5, keep_ends=False)
    return np.asarray(tfprune.strip(tfprune.prune(model, method))(x))


WAYS: dict[str, Outputs] = {
    "compact": lambda model, x, _: np.asarray(tfprune.compact(model, choose="always")(x)),
    "dense": exported("dense"),
    "smallest": exported("smallest"),
    "mobile-sparse": exported("mobile-sparse"),
    "prune and strip": pruned,
}


@pytest.mark.parametrize("epsilon", [1e-3, 0.05])
@pytest.mark.parametrize("way", WAYS)
def test_outputs_stay_where_variances_are_as_small_as_epsilon(
    way: str, epsilon: float, tmp_path: Path
) -> None:
    model = net(epsilon)
    x = inputs_of(model)
    wanted = np.asarray(model(x))
    error = np.abs(WAYS[way](model, x, tmp_path) - wanted).max()
    assert error <= 1e-4 * np.abs(wanted).max()
