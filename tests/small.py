"""The small dense model, data and `fit` of the tests of what is refused."""

from __future__ import annotations

import keras
import numpy as np


def build(units=4, compiled=True):
    model = keras.Sequential(
        [
            keras.layers.Input((6,)),
            keras.layers.Dense(8, activation="relu", name="one"),
            keras.layers.Dense(units, name="two"),
        ]
    )
    if compiled:
        model.compile("sgd", "mse")
    return model


def data(rows=40):
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, 6)), rng.normal(size=(rows, 4))


def fit(model, *callbacks, **settings):
    x, y = data()
    return model.fit(x, y, 8, verbose=0, callbacks=list(callbacks), **settings)
