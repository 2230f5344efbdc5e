"""A small model, data, and what tests look at while it is pruned in `fit`."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import oracles
import pytest
from keras import ops

import tfprune
from tfprune.pruned.layers import effective_weights, pruned_layers

TARGET = 0.75
DECAY = tfprune.PolynomialDecay(0.0, TARGET, 2, 15, frequency=3)


def data(rows=80):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 6)).astype("float32")
    return x, rng.normal(size=(rows, 4)).astype("float32")


def dense_model(cls=keras.Model):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(16, activation="tanh", name="one")(inputs)
    return cls(inputs, keras.layers.Dense(4, name="two", dtype="float32")(hidden))


def build(cls=keras.Model, optimizer=None, schedule=DECAY, method=None, **settings):
    model = dense_model(cls)
    model.compile(optimizer or keras.optimizers.SGD(0.05, momentum=0.9), "mse", **settings)
    return tfprune.prune(model, method or tfprune.Magnitude(), schedule)


def masks_of(model):
    return {
        path: np.array(ops.convert_to_numpy(layer.prune_state.masks["kernel"]))
        for path, layer in pruned_layers(model)
    }


class Watch(keras.callbacks.Callback):
    """Optimizer iterations -> sparsity of the first kernel, as each execution begins."""

    def on_train_begin(self, logs=None):
        self.sparsity = {}

    def on_train_batch_begin(self, batch, logs=None):
        step = int(ops.convert_to_numpy(self.model.optimizer.iterations))
        self.sparsity[step] = float(1 - masks_of(self.model)["one"].mean())


def fit(model, x=None, epochs=2, callbacks=(), **settings):
    watch = Watch()
    features, y = data()
    x, y = (features, y) if x is None else (x, None)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "(Target missed|Nothing was pruned|.*can never fire).*")
        history = model.fit(
            x, y, 8 if y is not None else None, epochs, verbose=0,
            callbacks=[watch, *callbacks, tfprune.PruningCallback()], **settings,
        )  # fmt: skip
    return history.history, watch.sparsity


def wanted(step, size=96, begin=2, end=15, frequency=3):
    """Sparsity of a layer's mask at an optimizer step, by the twin."""
    done = [s for s in oracles.updates(begin, end, frequency) if s <= step]
    if not done:
        return 0.0
    asked = oracles.polynomial(done[-1], 0.0, TARGET, begin, end, 3.0)
    return oracles.count_pruned(asked, size) / size


def follows_the_schedule(sparsity, steps):
    assert sorted(sparsity) == list(steps)
    for step, value in sparsity.items():
        assert value == pytest.approx(wanted(step)), step


def trained_well(model, history):
    """Loss fell, pruned entries are exactly zero in use, and latent ones are not."""
    assert np.isfinite(history["loss"]).all() and history["loss"][-1] < history["loss"][0]
    for path, layer in pruned_layers(model):
        mask, used = masks_of(model)[path], effective_weights(layer)["kernel"]
        latent = ops.convert_to_numpy(layer.prune_state.latents("kernel")["latent"])
        np.testing.assert_array_equal(used == 0, ~mask)
        assert (latent[~mask] != 0).all() and (~mask).any()
    x, _ = data(8)
    plain = tfprune.strip(model)
    np.testing.assert_allclose(plain.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)
