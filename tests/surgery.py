"""A small net, its training by network surgery, and the replay of it by the NumPy twin."""

from __future__ import annotations

import keras
import numpy as np
import oracles

import tfprune
from tfprune.pruned.layers import pruned_layers

KINDS = ("conv", "dense")
PAPER = tfprune.SurgerySchedule(gamma=0.1, power=1.0, begin_step=0, end_step=24, seed=5)


def data(size=32):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(size, 5, 5, 2)).astype("float32")
    return x, rng.normal(size=(size, 3)).astype("float32")


def build(optimizer=None):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.layers.Input((5, 5, 2)),
            keras.layers.Conv2D(4, 3, name="conv", bias_initializer="random_normal"),
            keras.layers.Flatten(),
            keras.layers.Dense(3, name="dense", bias_initializer="random_normal"),
        ]
    )
    rate = keras.optimizers.SGD(0.03, momentum=0.9, weight_decay=5e-4)
    model.compile(optimizer or rate, "mse")
    return model


def states(model):
    return {path: layer.prune_state for path, layer in pruned_layers(model)}


def latents(state):
    return {
        name: np.array(keras.ops.convert_to_numpy(state.latents(name)["latent"]))
        for name in state.specs
    }


def mask_of(state):
    return {n: np.array(keras.ops.convert_to_numpy(m)) for n, m in state.masks.items()}


def scalar(state, name):
    return float(keras.ops.convert_to_numpy(state.scalars[name]))


class Watch(keras.callbacks.Callback):
    """Records latents and masks before each step; PruningCallback has run by then."""

    def on_train_begin(self, logs=None):
        self.rows = []

    def on_train_batch_begin(self, batch, logs=None):
        pruned = states(self.model)
        self.rows.append({path: (latents(s), mask_of(s)) for path, s in pruned.items()})


def fit(model, epochs=4, callbacks=(), batch_size=4):
    x, y = data()
    return model.fit(
        x, y, batch_size, epochs, verbose=0, shuffle=False,
        callbacks=[*callbacks, tfprune.PruningCallback()],
    )  # fmt: skip


def run(method, schedule, **settings):
    model = tfprune.prune(build(), method, schedule)
    watch = Watch()
    fit(model, callbacks=[watch], **settings)
    return model, watch.rows


def replay(rows, path, c, schedule, number):
    """The twin's masks at each step, and its threshold, from the recorded latents."""
    twin = oracles.SurgeryLayer({n: w.shape for n, w in rows[0][path][0].items()}, c)
    gamma = schedule.gamma if schedule.gamma is not None else 1.4 / schedule.end_step
    masks = []
    for step, row in enumerate(rows):
        if step < schedule.end_step:
            probability = oracles.sigma(step, gamma, schedule.power)
            twin.step(row[path][0], probability, schedule.draw(step, number))
        elif step == schedule.end_step:
            twin.step(row[path][0], 1.0, 0.0)
        masks.append(twin.masks)
    return masks, twin.threshold
