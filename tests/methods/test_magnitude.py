"""Magnitude against its sorting twin, in real training runs."""

from __future__ import annotations

import json

import keras
import numpy as np
import oracles
import pytest
from keras import ops

import tfprune
from tfprune.pruned.layers import effective_weights, pruned_layers


def build():
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.layers.Input((6, 6, 2)),
            keras.layers.Conv2D(5, 3, name="conv"),
            keras.layers.Flatten(),
            keras.layers.Dense(4, name="dense"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    return model


def fit(model, epochs=2, callbacks=()):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(80, 6, 6, 2)), rng.normal(size=(80, 4))
    return model.fit(
        x, y, 8, epochs, verbose=0, shuffle=False,
        callbacks=[*callbacks, tfprune.PruningCallback()],
    ).history  # fmt: skip


class Watch(keras.callbacks.Callback):
    """Latent kernels and masks as each step begins."""

    def on_train_begin(self, logs=None):
        self.rows = []

    def on_train_batch_begin(self, batch, logs=None):
        states = {path: layer.prune_state for path, layer in pruned_layers(self.model)}
        self.rows.append(
            {
                path: (array(s.latents("kernel")["latent"]), array(s.masks["kernel"]))
                for path, s in states.items()
            }
        )


def array(tensor):
    return np.array(ops.convert_to_numpy(tensor))


def run(method, schedule):
    model, watch = tfprune.prune(build(), method, schedule), Watch()
    fit(model, callbacks=[watch])
    return model, watch.rows


def test_masks_are_those_of_the_twin_at_every_step():
    schedule = tfprune.PolynomialDecay(0.1, 0.85, 3, 16, 2.0, 4)
    _, rows = run(tfprune.Magnitude(), schedule)
    masks = {path: np.ones(mask.shape, bool) for path, (_, mask) in rows[0].items()}
    for step, row in enumerate(rows):
        for path, (latent, mask) in row.items():
            if step in oracles.updates(3, 16, 4):
                asked = oracles.polynomial(step, 0.1, 0.85, 3, 16, 2.0)
                masks[path] = oracles.magnitude_mask(latent, asked)
            np.testing.assert_array_equal(mask, masks[path], f"{path} at step {step}")


def test_one_threshold_for_the_whole_network():
    schedule = tfprune.PolynomialDecay(0.0, 0.8, 0, 12, frequency=3)
    model, rows = run(tfprune.Magnitude(scope="global"), schedule)
    for step in oracles.updates(0, 12, 3):
        asked = oracles.polynomial(step, 0.0, 0.8, 0, 12, 3.0)
        scores = [np.abs(latent) for latent, _ in rows[step].values()]
        wanted = oracles.keep_largest_of_all(scores, asked)
        for mask, (_, got) in zip(wanted, rows[step].values(), strict=True):
            np.testing.assert_array_equal(got, mask)
    each = [layer.prune_state.sparsity() for _, layer in pruned_layers(model)]
    assert each[0] != pytest.approx(0.8, abs=0.02)


def test_biases_are_left_alone():
    model, _ = run(tfprune.Magnitude(target_sparsity=0.5), None)
    for _, layer in pruned_layers(model):
        assert set(layer.prune_state.specs) == {"kernel"}
        assert (effective_weights(layer)["bias"] != 0).all()


@pytest.mark.parametrize("target", [0.0, 0.5, 0.9, 0.99])
def test_the_target_is_reached_to_the_entry(target):
    model, rows = run(tfprune.Magnitude(target), None)
    for _, mask in rows[-1].values():
        assert (~mask).sum() == oracles.count_pruned(target, mask.size)
    assert tfprune.is_pruned(model)


def test_pruned_weights_come_back():
    schedule = tfprune.ConstantSparsity(0.8, 0, 19, 1)
    _, rows = run(tfprune.Magnitude(), schedule)
    first, last = rows[0]["dense"][1], rows[-1]["dense"][1]
    assert (~first & last).any() and first.sum() == last.sum()


def test_pruned_weights_keep_learning():
    _, rows = run(tfprune.Magnitude(), tfprune.ConstantSparsity(0.8, 0, 0, 1))
    for path, (latent, mask) in rows[-1].items():
        assert (latent != rows[0][path][0])[~mask].all()
        np.testing.assert_array_equal(mask, rows[0][path][1])


def test_sparsity_per_layer_by_a_dict_of_schedules():
    schedules = {
        "conv": tfprune.ConstantSparsity(0.2, 0, 5, 1),
        "dense": tfprune.ConstantSparsity(0.9, 0, 5, 1),
    }
    model, _ = run(tfprune.Magnitude(), schedules)
    got = [layer.prune_state.sparsity() for _, layer in pruned_layers(model)]
    assert got == [pytest.approx(0.2, abs=0.01), pytest.approx(0.9, abs=0.01)]


def test_global_scope_with_schedules_that_differ_is_refused_or_obeyed():
    """One ranking cannot serve two sparsities; what is asked for must not be dropped silently."""
    schedules = {
        "conv": tfprune.ConstantSparsity(0.2, 0, 5, 1),
        "dense": tfprune.ConstantSparsity(0.9, 0, 5, 1),
    }
    with pytest.raises(ValueError, match=r"global"):
        tfprune.prune(build(), tfprune.Magnitude(scope="global"), schedules)


def test_all_equal_weights_reach_the_target():
    model = build()
    model.get_layer("dense").kernel.assign(np.full((80, 4), 0.5))
    model = tfprune.prune(model, tfprune.Magnitude(), tfprune.ConstantSparsity(0.75, 0, 0, 1))
    fit(model, 1)
    assert model.get_layer("dense").prune_state.sparsity() == 0.75


def test_config_round_trip():
    method = tfprune.Magnitude(0.3, scope="global")
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(method)))
    assert keras.saving.deserialize_keras_object(saved) == method
    assert tfprune.Magnitude(0.3).schedule().final_sparsity == 0.3
    assert tfprune.Magnitude().schedule().final_sparsity == 0.5
    assert tfprune.Magnitude(0.0).schedule().final_sparsity == 0.0
