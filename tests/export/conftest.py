"""Small models and inputs for the export tests."""

import keras
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _seed() -> None:
    keras.utils.set_random_seed(7)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def dense_model() -> keras.Model:
    layers = [keras.Input((6,)), keras.layers.Dense(48, "relu"), keras.layers.Dense(3)]
    return keras.Sequential(layers)


@pytest.fixture
def conv_model() -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(8, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(16, 3, strides=2, padding="same"),
            keras.layers.Flatten(),
            keras.layers.Dense(5, "softmax"),
        ]
    )
    norm = model.layers[1]
    gamma, beta, mean, variance = norm.get_weights()
    norm.set_weights([gamma * 1.5, beta + 0.2, mean - 0.1, variance * 0.6])
    return model


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    return rng.random((40, 8, 8, 3), "float32")
