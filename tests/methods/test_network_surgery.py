"""NetworkSurgery in real training runs, against a NumPy twin given the same draws and weights."""

from __future__ import annotations

import dataclasses
import itertools
from typing import ClassVar

import keras
import numpy as np
import oracles
import pytest
from surgery import KINDS, PAPER, Watch, build, fit, latents, mask_of, replay, run, scalar, states

import tfprune
from tfprune.pruned.layers import effective_weights, pruned_layers


@pytest.fixture(scope="module")
def trained():
    method = tfprune.NetworkSurgery(c={"conv": 0.3, "dense": -0.4})
    return (*run(method, PAPER), {"conv": 0.3, "dense": -0.4})


def test_masks_are_those_of_the_twin_at_every_step(trained):
    _, rows, c = trained
    assert len(rows) == 32
    for number, path in enumerate(KINDS):
        masks, _ = replay(rows, path, c[path], PAPER, number)
        for step, row in enumerate(rows):
            for name, mask in row[path][1].items():
                np.testing.assert_array_equal(mask, masks[step][name], f"{path} {name} {step}")


def test_thresholds_are_frozen_at_the_first_update(trained):
    model, rows, c = trained
    for number, path in enumerate(KINDS):
        first = oracles.surgery_threshold(list(rows[0][path][0].values()), c[path])
        _, threshold = replay(rows, path, c[path], PAPER, number)
        assert scalar(states(model)[path], "threshold") == pytest.approx(first, rel=1e-5)
        assert threshold == first
        last = oracles.surgery_threshold(list(rows[-1][path][0].values()), c[path])
        assert last != pytest.approx(first, rel=1e-2)


def test_splicing_happens_and_the_mask_is_frozen_after_the_stop(trained):
    _, rows, _ = trained
    kernels = [row["conv"][1]["kernel"] for row in rows]
    spliced = sum(int((~before & after).sum()) for before, after in itertools.pairwise(kernels))
    assert spliced > 0
    for row in rows[25:]:
        for path in KINDS:
            for name, mask in row[path][1].items():
                np.testing.assert_array_equal(mask, rows[24][path][1][name])


def test_masked_weights_keep_learning_after_the_stop(trained):
    _, rows, _ = trained
    for path in KINDS:
        pruned = ~rows[-1][path][1]["kernel"]
        moved = rows[-1][path][0]["kernel"] - rows[25][path][0]["kernel"]
        assert pruned.any() and (moved[pruned] != 0).all()


def test_biases_are_masked_with_the_layers_threshold(trained):
    model, rows, _ = trained
    assert any((~row[path][1]["bias"]).any() for row in rows for path in KINDS)
    for path, layer in pruned_layers(model):
        weights, state = effective_weights(layer), states(model)[path]
        for name, mask in mask_of(state).items():
            np.testing.assert_array_equal(weights[name] == 0, ~mask)
            np.testing.assert_array_equal(weights[name][mask], latents(state)[name][mask])


def test_thresholds_are_saved_and_kept_by_the_next_update(trained, tmp_path):
    model, _, _ = trained
    model.save(tmp_path / "model.keras")
    again = tfprune.load_model(tmp_path / "model.keras")
    for path, state in states(model).items():
        assert scalar(states(again)[path], "threshold") == scalar(state, "threshold") > 0


def test_biases_can_be_left_alone():
    model, rows = run(tfprune.NetworkSurgery(c=0.5, prune_biases=False), PAPER, epochs=2)
    for path, layer in pruned_layers(model):
        assert set(states(model)[path].specs) == {"kernel"}
        assert (effective_weights(layer)["bias"] != 0).all()
        wanted = oracles.surgery_threshold([rows[0][path][0]["kernel"]], 0.5)
        assert scalar(states(model)[path], "threshold") == pytest.approx(wanted, rel=1e-5)


def test_one_number_for_c_and_one_by_default():
    for c, method in ((-0.7, tfprune.NetworkSurgery(c=-0.7)), (1.0, tfprune.NetworkSurgery())):
        model, rows = run(method, PAPER, epochs=1)
        for path in KINDS:
            wanted = oracles.surgery_threshold(list(rows[0][path][0].values()), c)
            assert scalar(states(model)[path], "threshold") == pytest.approx(wanted, rel=1e-5)
            assert scalar(states(model)[path], "c") == pytest.approx(c)


def test_a_very_negative_c_prunes_nothing():
    model, _ = run(tfprune.NetworkSurgery(c=-50.0), PAPER, epochs=1)
    for state in states(model).values():
        assert scalar(state, "threshold") == 0.0 and state.sparsity() == 0.0


def test_zero_weights_do_not_count_in_the_moments():
    model = build()
    kernel = model.get_layer("dense").kernel
    kernel.assign(np.where(np.arange(kernel.shape[0])[:, None] % 2, kernel, 0.0))
    model = tfprune.prune(model, tfprune.NetworkSurgery(c=0.5), PAPER)
    first = latents(states(model)["dense"])
    fit(model, epochs=1)
    assert (first["kernel"] == 0).mean() == 0.5
    wanted = oracles.surgery_threshold(list(first.values()), 0.5)
    assert scalar(states(model)["dense"], "threshold") == pytest.approx(wanted, rel=1e-5)


def flips(rows, path):
    masks = [np.concatenate([m.ravel() for m in row[path][1].values()]) for row in rows]
    return [b.tobytes() != a.tobytes() for a, b in itertools.pairwise(masks)]


def test_the_seed_decides_and_nothing_else():
    method = tfprune.NetworkSurgery(c=0.5)
    sparse = dataclasses.replace(PAPER, gamma=0.3, end_step=31)
    one, two = (run(method, sparse)[1] for _ in range(2))
    other = run(method, dataclasses.replace(sparse, seed=6))[1]
    for path in KINDS:
        for a, b in zip(one, two, strict=True):
            np.testing.assert_array_equal(a[path][1]["kernel"], b[path][1]["kernel"])
            np.testing.assert_array_equal(a[path][0]["kernel"], b[path][0]["kernel"])
    assert flips(one, "conv") != flips(one, "dense")
    assert flips(one, "conv") != flips(other, "conv")


class Spy(tfprune.SurgerySchedule):
    """Notes which draws are asked for."""

    asked: ClassVar[list[tuple[int, int]]] = []

    def draw(self, step, layer):
        self.asked.append((step, layer))
        return super().draw(step, layer)


def test_layers_wrapped_one_by_one_draw_for_themselves():
    Spy.asked.clear()
    schedule = Spy(gamma=2.0, begin_step=0, end_step=20)
    method = tfprune.NetworkSurgery(c=0.5)
    inner = [keras.layers.Dense(8, name=name) for name in ("one", "two", "three")]
    wrapped = [tfprune.layers.NetworkSurgeryPruned(layer, method, schedule) for layer in inner]
    model = keras.Sequential([keras.layers.Input((6,)), *wrapped])
    pruner = tfprune.Pruner(model)
    for _ in range(10):
        pruner.update()
    assert sorted(Spy.asked) == [(step, layer) for step in range(10) for layer in range(3)]


def linear(kernel, bias, decay=0.0):
    """A Dense layer, its regularizers add `decay * w` to the gradient."""
    penalty = keras.regularizers.L2(decay / 2)
    layer = keras.layers.Dense(
        bias.size, name="dense", kernel_regularizer=penalty, bias_regularizer=penalty
    )
    model = keras.Sequential([keras.layers.Input((kernel.shape[0],)), layer])
    layer.set_weights([kernel, bias])
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    return model


def test_a_whole_training_in_numpy():
    """Forward at W * T, dense gradient, momentum and L2 decay on all of W: eq. 1 to 3 by hand."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(48, 10)), rng.normal(size=(48, 4))
    weights = {"kernel": rng.normal(size=(10, 4)), "bias": rng.normal(size=4)}
    decay = 0.01
    model = linear(weights["kernel"], weights["bias"], decay)
    schedule = tfprune.SurgerySchedule(gamma=0.05, begin_step=0, end_step=40, seed=2)
    pruned = tfprune.prune(model, tfprune.NetworkSurgery(c=0.2), schedule)
    watch = Watch()
    pruned.fit(x, y, 8, 8, verbose=0, shuffle=False, callbacks=[tfprune.PruningCallback(), watch])
    twin = oracles.SurgeryLayer({"kernel": (10, 4), "bias": (4,)}, 0.2)
    sgd = oracles.Momentum(0.05, 0.9, 0.0)
    for step, row in enumerate(watch.rows):
        if step <= 40:
            last = step == 40
            probability = 1.0 if last else oracles.sigma(step, 0.05, 1.0)
            twin.step(weights, probability, 0.0 if last else schedule.draw(step, 0))
        for name in weights:
            np.testing.assert_array_equal(row["dense"][1][name], twin.masks[name], f"step {step}")
            np.testing.assert_allclose(row["dense"][0][name], weights[name], atol=2e-4)
        part = slice(8 * (step % 6), 8 * (step % 6) + 8)
        masked = {name: weights[name] * twin.masks[name] for name in weights}
        gradients = oracles.linear_gradients(x[part], y[part], **masked)
        for name in weights:
            gradients[name] = gradients[name] + decay * weights[name]
        sgd.step(weights, gradients)
    assert not twin.masks["kernel"].all()


def test_decoupled_weight_decay_reaches_masked_weights():
    x = np.zeros((8, 6), "float32")
    kernel, bias = np.linspace(-1, 1, 18, dtype="float32").reshape(6, 3), np.ones(3, "float32")
    model = linear(kernel, bias)
    model.compile(keras.optimizers.SGD(0.1, weight_decay=0.5), "mse")
    schedule = tfprune.SurgerySchedule(begin_step=0, end_step=0)
    pruned = tfprune.prune(model, tfprune.NetworkSurgery(c=0.0), schedule)
    pruned.fit(x, np.ones((8, 3)), 8, 3, verbose=0, callbacks=[tfprune.PruningCallback()])
    state = states(pruned)["dense"]
    assert not mask_of(state)["kernel"].all()
    np.testing.assert_allclose(latents(state)["kernel"], kernel * 0.95**3, rtol=1e-5)
