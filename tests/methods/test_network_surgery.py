"""NetworkSurgery in real training runs, against a NumPy twin given the same draws and weights."""

from __future__ import annotations

import dataclasses
import json

import keras
import numpy as np
import oracles
import pytest

import tfprune
from tfprune.training import pruned_layers
from tfprune.training.layers import effective_weights

KINDS = {"conv": "kernel of 3 x 3 x 2 x 4", "dense": "kernel of 36 x 3"}


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


PAPER = tfprune.SurgerySchedule(gamma=0.1, power=1.0, begin_step=0, end_step=24, seed=5)


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
    spliced = sum(
        int((~before & after).sum()) for before, after in zip(kernels, kernels[1:], strict=False)
    )
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
    return [b.tobytes() != a.tobytes() for a, b in zip(masks, masks[1:], strict=False)]


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

    asked: list[tuple[int, int]] = []  # noqa: RUF012

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


def linear(kernel, bias):
    layer = keras.layers.Dense(bias.size, name="dense")
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
    model = linear(weights["kernel"].astype("float32"), weights["bias"].astype("float32"))
    for name in ("kernel_regularizer", "bias_regularizer"):
        setattr(model.layers[0], name, keras.regularizers.L2(decay / 2))
    schedule = tfprune.SurgerySchedule(gamma=0.05, begin_step=0, end_step=40, seed=2)
    model = rebuilt_with_decay(model, decay)
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


def rebuilt_with_decay(model, decay):
    """The same model whose regularizers add `decay * w` to the gradient."""
    layer = model.layers[0]
    penalty = keras.regularizers.L2(decay / 2)
    new = keras.layers.Dense(
        layer.units, name=layer.name, kernel_regularizer=penalty, bias_regularizer=penalty
    )
    copy = keras.Sequential([keras.layers.Input(model.input_shape[1:]), new])
    new.set_weights(layer.get_weights())
    copy.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    return copy


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


@pytest.mark.parametrize("target", [0.25, 0.7, 0.93])
def test_target_mode_reaches_exactly_the_count(target):
    schedule = tfprune.SurgerySchedule(begin_step=0, end_step=12, target_sparsity=target)
    model, rows = run(tfprune.NetworkSurgery(target_sparsity=target), schedule, epochs=2)
    for path, state in states(model).items():
        pruned = sum(int((~mask).sum()) for mask in rows[-1][path][1].values())
        size = sum(mask.size for mask in rows[-1][path][1].values())
        assert pruned == oracles.count_pruned(target, size)
        assert state.sparsity() == pytest.approx(pruned / size)


def test_target_mode_solves_for_the_threshold_and_its_c():
    schedule = tfprune.SurgerySchedule(begin_step=0, end_step=12, target_sparsity=0.6)
    model, rows = run(tfprune.NetworkSurgery(target_sparsity=0.6), schedule, epochs=2)
    for path, state in states(model).items():
        before = [rows[11][path][1][name] for name in state.specs]
        now = [rows[12][path][0][name] for name in state.specs]
        threshold, c = scalar(state, "threshold"), scalar(state, "c")
        for name, old, weight in zip(state.specs, before, now, strict=True):
            wanted = oracles.hysteresis(np.abs(weight), old, 0.9 * threshold, 1.1 * threshold)
            got = rows[12][path][1][name]
            assert (wanted != got).sum() <= 1  # the entry that is the threshold itself, by rounding
        assert oracles.surgery_threshold(now, c) == pytest.approx(threshold, rel=1e-4)


def test_target_mode_with_the_methods_own_schedule():
    model, _ = run(tfprune.NetworkSurgery(target_sparsity=0.8), None)
    assert all(abs(state.sparsity() - 0.8) < 0.02 for state in states(model).values())


def test_a_schedule_without_a_target_takes_the_methods_or_is_refused():
    schedule = tfprune.SurgerySchedule(gamma=0.01, begin_step=0, end_step=10)
    method = tfprune.NetworkSurgery(target_sparsity=0.8)
    try:
        model, _ = run(method, schedule, epochs=2)
    except ValueError as error:
        assert "target_sparsity" in str(error)
        return
    assert all(abs(state.sparsity() - 0.8) < 0.02 for state in states(model).values())


def test_two_passes_conv_layers_then_dense_layers():
    first = tfprune.SurgerySchedule(gamma=0.0, begin_step=0, end_step=9)
    second = tfprune.SurgerySchedule(gamma=0.0, begin_step=16, end_step=28)
    model, rows = run(tfprune.NetworkSurgery(c=0.5), {"conv": first, "dense": second})
    assert all(mask.all() for row in rows[:16] for mask in row["dense"][1].values())
    assert not rows[16]["dense"][1]["kernel"].all()
    for row in rows[10:]:
        np.testing.assert_array_equal(row["conv"][1]["kernel"], rows[9]["conv"][1]["kernel"])
    wanted = oracles.surgery_threshold(list(rows[16]["dense"][0].values()), 0.5)
    assert scalar(states(model)["dense"], "threshold") == pytest.approx(wanted, rel=1e-5)


def test_two_methods_side_by_side():
    methods = {"conv": tfprune.NetworkSurgery(c=0.1), "dense": tfprune.Magnitude(0.5)}
    model, rows = run(methods, None)
    wanted = oracles.surgery_threshold(list(rows[0]["conv"][0].values()), 0.1)
    assert scalar(states(model)["conv"], "threshold") == pytest.approx(wanted, rel=1e-5)
    assert states(model)["dense"].sparsity() == 0.5


def test_xor_needs_splicing():
    """Four inputs, sixteen hidden units: the first surgery breaks the net, splicing mends it."""
    rng = np.random.default_rng(0)
    x = rng.choice([-1.0, 1.0], size=(256, 2)) + rng.normal(scale=0.1, size=(256, 2))
    y = (x[:, :1] * x[:, 1:] > 0).astype("float32")
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.layers.Input((2,)),
            keras.layers.Dense(16, activation="tanh"),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.03), "binary_crossentropy", metrics=["accuracy"])
    model.fit(x, y, 32, 15, verbose=0)
    assert model.evaluate(x, y, verbose=0)[1] > 0.99
    schedule = tfprune.SurgerySchedule(gamma=1e-3, begin_step=0, end_step=150)
    pruned = tfprune.prune(model, tfprune.NetworkSurgery(c=0.9), schedule)
    watch = Watch()
    history = pruned.fit(
        x, y, 32, 25, verbose=0, callbacks=[tfprune.PruningCallback(), watch]
    ).history
    kept = [
        np.concatenate([m.ravel() for _, masks in row.values() for m in masks.values()])
        for row in watch.rows
    ]
    assert (~kept[0] & kept[-1]).any()
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert pruned.evaluate(x, y, verbose=0)[1] > 0.99 and history["sparsity"][-1] > 0.4


SETTINGS = [
    ({"c": "1"}, TypeError, "c.*Received: '1'"),
    ({"c": float("nan")}, ValueError, "c.*finite.*Received: nan"),
    ({"c": {"conv": "x"}}, TypeError, "c.*Received: 'x'"),
    ({"c": {"(": 1.0}}, ValueError, "regular expression"),
    ({"c": {3: 1.0}}, ValueError, "regular expression.*Received: 3"),
    ({"c": {}}, ValueError, "empty"),
    ({"c": [1.0, 2.0]}, TypeError, r"c.*Received: \[1.0, 2.0\]"),
    ({"c": 1.0, "target_sparsity": 0.5}, ValueError, "not both.*c=1.0, target_sparsity=0.5"),
    ({"target_sparsity": 1.0}, ValueError, r"\[0, 1\).*Received: 1\.0"),
    ({"target_sparsity": float("nan")}, ValueError, "Received: nan"),
    ({"target_sparsity": "0.9"}, TypeError, "Received: '0.9'"),
    ({"prune_biases": "yes"}, TypeError, "prune_biases.*Received: 'yes'"),
]


@pytest.mark.parametrize(("settings", "error", "message"), SETTINGS)
def test_bad_settings(settings, error, message):
    with pytest.raises(error, match=message):
        tfprune.NetworkSurgery(**settings)


def test_a_c_for_a_layer_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="nosuch"):
        tfprune.prune(build(), tfprune.NetworkSurgery(c={"nosuch": 2.0, "conv": 1.0}))


def test_config_round_trip():
    method = tfprune.NetworkSurgery(c={"conv": -0.5, ".*": 2}, prune_biases=False)
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(method)))
    assert keras.saving.deserialize_keras_object(saved) == method
