"""Pruning in every way that Keras trains: the masks follow the schedule in all of them."""

from __future__ import annotations

import csv
import functools
import importlib.util
import itertools
import os
import subprocess
import sys
import warnings

import keras
import numpy as np
import oracles
import pytest
import tensorflow as tf
from keras import ops

import tfprune
from tfprune.training import pruned_layers
from tfprune.training.layers import effective_weights

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


@pytest.mark.parametrize(
    "settings", [{}, {"jit_compile": True}, {"run_eagerly": True}, {"steps_per_execution": 1}]
)
def test_compile_settings(settings):
    model = build(**settings)
    history, sparsity = fit(model)
    follows_the_schedule(sparsity, range(20))
    trained_well(model, history)


@pytest.mark.parametrize("settings", [{"jit_compile": True}, {"run_eagerly": True}])
def test_surgery_does_the_same_in_every_mode(settings):
    """Same draws, same masks; run_eagerly and XLA differ from the graph by rounding alone."""
    schedule = tfprune.SurgerySchedule(gamma=0.05, begin_step=0, end_step=15)
    results = []
    for mode in ({}, settings):
        model = build(method=tfprune.NetworkSurgery(c=0.1), schedule=schedule, **mode)
        x, y = data()
        model.fit(x, y, 8, 2, verbose=0, shuffle=False, callbacks=[tfprune.PruningCallback()])
        results.append(masks_of(model))
    for path, mask in results[0].items():
        assert (mask != results[1][path]).mean() < 0.03 and not mask.all()


def test_several_steps_per_execution_catch_up():
    model = build(steps_per_execution=7)
    history, sparsity = fit(model)
    assert sorted(sparsity) == [0, 7, 10, 17]
    assert history["sparsity/one"][-1] == pytest.approx(wanted(15), abs=0.02)
    assert sparsity[17] == pytest.approx(TARGET, abs=0.01)  # what was due at 15 is done at 17
    trained_well(model, history)


def test_what_was_due_in_the_last_execution_is_done_at_the_end():
    model = build(steps_per_execution=10, schedule=tfprune.ConstantSparsity(0.5, 15, 18, 1))
    fit(model)
    assert masks_of(model)["one"].mean() == 0.5


def test_gradient_accumulation_counts_optimizer_steps():
    optimizer = keras.optimizers.SGD(0.05, gradient_accumulation_steps=5)
    model = build(optimizer=optimizer, schedule=tfprune.PolynomialDecay(0.0, TARGET, frequency=1))
    callback = tfprune.PruningCallback()
    x, y = data()
    history = model.fit(x, y, 8, 4, verbose=0, callbacks=[callback]).history
    assert callback.pruner.schedules()[0].end_step == round(0.7 * 7)
    assert history["sparsity"][-1] == pytest.approx(TARGET, abs=0.01)
    trained_well(model, history)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("accumulate", [None, 2])
def test_mixed_precision(policy, accumulate):
    keras.config.set_dtype_policy(policy)
    optimizer = keras.optimizers.SGD(0.05, gradient_accumulation_steps=accumulate)
    model = build(optimizer=optimizer, schedule=tfprune.PolynomialDecay(0.0, TARGET))
    history, _ = fit(model, epochs=4)
    assert history["sparsity"][-1] == pytest.approx(TARGET, abs=0.01)
    for _, layer in pruned_layers(model):
        assert layer.prune_state.latents("kernel")["latent"].dtype == "float32"
    assert history["loss"][-1] < history["loss"][0]


def two_devices():
    """Without collectives, whose keys clash where several strategies live in one process."""
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=reduction)


@pytest.mark.parametrize("prune_inside", [True, False])
@pytest.mark.parametrize("eager", [False, True])
def test_two_devices(prune_inside, eager):
    strategy = two_devices()
    with strategy.scope():
        model = dense_model()
        if prune_inside:
            model = tfprune.prune(model, tfprune.Magnitude(), DECAY)
        model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse", run_eagerly=eager)
    if not prune_inside:
        model = tfprune.prune(model, tfprune.Magnitude(), DECAY)
    history, sparsity = fit(model)
    assert strategy.num_replicas_in_sync == 2
    follows_the_schedule(sparsity, range(20))
    trained_well(model, history)


def test_two_devices_do_what_one_does():
    x, y = data()
    results = []
    for strategy in (None, two_devices()):
        scope = strategy.scope() if strategy else warnings.catch_warnings()
        with scope:
            model = dense_model()
            model = tfprune.prune(model, tfprune.Magnitude(), DECAY)
            model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
        model.fit(x, y, 8, 2, verbose=0, shuffle=False, callbacks=[tfprune.PruningCallback()])
        results.append((masks_of(model), [w.copy() for w in model.get_weights()]))
    for path, mask in results[0][0].items():
        np.testing.assert_array_equal(mask, results[1][0][path])
    for one, two in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


MIRRORED = """
import keras, numpy as np, tensorflow as tf, tfprune
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8), keras.layers.Dense(4)])
    model.compile("adam", "mse")
pruned = tfprune.prune(model, tfprune.NetworkSurgery(target_sparsity=0.75))
x = np.random.default_rng(0).normal(size=(64, 6))
pruned.fit(x, x[:, :4], 8, 2, verbose=0, callbacks=[tfprune.PruningCallback()])
print(strategy.num_replicas_in_sync, tfprune.is_pruned(tfprune.strip(pruned)))
print(np.mean([np.mean(w == 0) for w in tfprune.strip(pruned).get_weights()[::2]]))
"""


def test_mirrored_strategy_as_it_comes():
    here = os.path.dirname(os.path.dirname(tfprune.__file__))
    done = subprocess.run(
        [sys.executable, "-c", MIRRORED],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": here},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert lines[-2] == "2 False" and float(lines[-1]) == pytest.approx(0.75, abs=0.05)


@pytest.mark.parametrize("with_optimizer", [True, False])
@pytest.mark.parametrize("compiled", [True, False])
def test_a_loop_of_the_users_own(with_optimizer, compiled):
    model = tfprune.prune(dense_model(), tfprune.Magnitude(), DECAY)
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    optimizer.build(model.trainable_variables)
    x, y = data()

    def step(x, y):
        with tf.GradientTape() as tape:
            loss = ops.mean(ops.square(model(x, training=True) - y))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    step = tf.function(step) if compiled else step
    pruner = tfprune.Pruner(model, optimizer=optimizer if with_optimizer else None)
    sparsity, losses = {}, []
    for n in range(20):
        pruner.update()
        sparsity[n] = float(1 - masks_of(model)["one"].mean())
        part = slice(8 * (n % 10), 8 * (n % 10) + 8)
        losses.append(float(step(x[part], y[part])))
    pruner.finish()
    follows_the_schedule(sparsity, range(20))
    trained_well(model, {"loss": [np.mean(losses[:10]), np.mean(losses[10:])]})
    assert pruner.sparsities()["one"] == pytest.approx(sparsity[19])


class OwnStep(keras.Model):
    """A model with a training step of its own."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        self.own_steps.assign_add(1)
        return {"loss": loss}

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.own_steps = self.add_weight(name="own_steps", dtype="int32", trainable=False)


def test_an_overridden_train_step():
    model = build(OwnStep)
    history, sparsity = fit(model)
    assert int(ops.convert_to_numpy(model.own_steps)) == 20
    follows_the_schedule(sparsity, range(20))
    assert history["sparsity"][-1] == pytest.approx(TARGET, abs=0.01)


def unknown_length(batches=10):
    x, y = data()

    def rows():
        for n in range(batches):
            yield x[8 * n : 8 * n + 8], y[8 * n : 8 * n + 8]

    spec = (tf.TensorSpec((None, 6)), tf.TensorSpec((None, 4)))
    return tf.data.Dataset.from_generator(rows, output_signature=spec)


@pytest.mark.parametrize("epochs", [2, 3, 6])
@pytest.mark.parametrize("steps", [1, 5])
def test_a_dataset_of_unknown_length_reaches_the_target(epochs, steps):
    model = build(schedule=tfprune.PolynomialDecay(0.0, TARGET), steps_per_execution=steps)
    history, _ = fit(model, unknown_length(), epochs, shuffle=False)
    assert history["sparsity"][-1] == pytest.approx(TARGET, abs=0.01)


def test_a_dataset_of_unknown_length_with_the_steps_given():
    _, sparsity = fit(build(), unknown_length(), shuffle=False)
    # Keras counts an iteration for the batch that is not there, at the end of each epoch.
    follows_the_schedule(sparsity, range(max(sparsity) + 1))
    assert max(sparsity) >= 20
    model = build(schedule=tfprune.PolynomialDecay(0.0, TARGET))
    model.fit(unknown_length(), verbose=0, callbacks=[tfprune.PruningCallback(total_steps=10)])
    assert 1 - masks_of(model)["one"].mean() == pytest.approx(TARGET, abs=0.01)


def test_one_epoch_of_unknown_length_says_what_to_do():
    model = build(schedule=tfprune.PolynomialDecay(0.0, TARGET))
    with pytest.warns(UserWarning, match="Nothing was pruned.*total_steps"):
        model.fit(unknown_length(), verbose=0, callbacks=[tfprune.PruningCallback()])


def test_steps_per_epoch_of_an_endless_dataset():
    model = build(schedule=tfprune.PolynomialDecay(0.0, TARGET))
    history, _ = fit(model, unknown_length().repeat(), 3, steps_per_epoch=4, shuffle=False)
    assert history["sparsity"][-1] == pytest.approx(TARGET, abs=0.01)


def test_validation_sees_the_masks():
    model = build()
    x, y = data()
    history, _ = fit(model, validation_data=(x, y))
    assert history["val_loss"][-1] == pytest.approx(model.evaluate(x, y, verbose=0), rel=1e-5)
    plain = tfprune.strip(model)
    plain.compile("sgd", "mse")
    assert history["val_loss"][-1] == pytest.approx(plain.evaluate(x, y, verbose=0), rel=1e-5)


def test_a_short_run_with_the_defaults_is_pruned():
    model = build(method=tfprune.NetworkSurgery(target_sparsity=TARGET), schedule=None)
    history, _ = fit(model, epochs=1)
    assert history["sparsity"] == [pytest.approx(TARGET, abs=0.01)]


@pytest.mark.parametrize(("initial", "epochs"), [(5, 10), (3, 4)])
def test_initial_epoch_plans_for_the_epochs_that_are_run(initial, epochs):
    model = build(schedule=tfprune.PolynomialDecay(0.0, TARGET))
    history, _ = fit(model, epochs=epochs, initial_epoch=initial)
    assert history["sparsity"][-1] == pytest.approx(TARGET, abs=0.01)


def test_a_second_fit_stays_at_the_end_of_the_schedule():
    model = build(schedule=tfprune.PolynomialDecay(0.0, TARGET))
    fit(model)
    before = masks_of(model)
    x, y = data()
    history = model.fit(x, y, 8, 2, verbose=0, callbacks=[tfprune.PruningCallback()]).history
    for path, mask in masks_of(model).items():
        np.testing.assert_array_equal(mask, before[path])
    assert history["sparsity"] == [pytest.approx(TARGET, abs=0.01)] * 2
    model.fit(x, y, verbose=0)  # it has ended, so no callback is needed


def test_a_schedule_in_the_second_of_two_fits_is_not_called_idle():
    model = build(schedule=tfprune.ConstantSparsity(0.5, 15, 18, 1))
    x, y = data()
    with pytest.warns(UserWarning, match="can never fire"):
        model.fit(x, y, 8, verbose=0, callbacks=[tfprune.PruningCallback()])
    fit(model, epochs=1)
    assert masks_of(model)["one"].mean() == 0.5


def test_no_retracing(monkeypatch):
    traces = []
    cls = keras.layers.Dense
    original = cls.call

    @functools.wraps(original)
    def call(self, *args, **kwargs):
        traces.append(self.name)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(cls, "call", call)
    model = build()
    x, y = data()
    counts = []
    count = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: counts.append(len(traces))
    )
    model.fit(x, y, 8, 2, verbose=0, callbacks=[tfprune.PruningCallback(), count])
    model.fit(x, y, 8, 1, verbose=0, callbacks=[tfprune.PruningCallback(), count])
    assert len(counts) == 30 and len(set(counts)) == 1


def test_the_mask_update_is_traced_once(monkeypatch):
    calls = []
    original = tfprune.Magnitude.score
    monkeypatch.setattr(
        tfprune.Magnitude, "score", lambda *args: calls.append(1) or original(*args)
    )
    fit(build(schedule=tfprune.PolynomialDecay(0.0, TARGET, 0, 19, frequency=1)))
    assert 1 <= len(calls) <= 4  # two layers, and no more for twenty updates


def everything_that_logs(folder):
    return {
        "csv": keras.callbacks.CSVLogger(folder / "log.csv"),
        "stop": keras.callbacks.EarlyStopping("sparsity", mode="max", patience=9),
        "board": board(folder / "board"),
    }


HAS_BOARD = importlib.util.find_spec("tensorboard") is not None


def board(folder):
    """TensorBoard, or where that is not installed nothing."""
    return keras.callbacks.TensorBoard(folder) if HAS_BOARD else keras.callbacks.Callback()


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_sparsity_is_in_the_logs_in_any_order(tmp_path, place, wrapped):
    callbacks = list(everything_that_logs(tmp_path).values())
    callbacks.insert(place, tfprune.PruningCallback())
    if wrapped:
        wrap = tfprune.layers.MagnitudePruned
        layers = [wrap(keras.layers.Dense(n), schedule=DECAY, name=name)
                  for n, name in ((16, "one"), (4, "two"))]  # fmt: skip
        model = keras.Sequential([keras.layers.Input((6,)), *layers])
        model.compile("sgd", "mse")
    else:
        model = build()
    x, y = data()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Early stopping conditioned")
        history = model.fit(x, y, 8, 2, verbose=0, callbacks=callbacks).history
    keys = {key for key in history if key.startswith("sparsity")}
    assert len(keys) == 3 and "sparsity" in keys
    with open(tmp_path / "log.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for key in keys:
        assert [float(row[key]) for row in rows] == history[key]
    if HAS_BOARD:
        assert {f"epoch_{key}" for key in keys} <= tags_in(tmp_path / "board" / "train")


def tags_in(folder):
    events = (
        event
        for path in folder.iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(path))
    )
    return {value.tag for event in events for value in event.summary.value}


def test_logged_sparsity_is_that_of_the_weights():
    model = build(method=tfprune.NetworkSurgery(target_sparsity=0.6), schedule=None)
    history, _ = fit(model)
    zeros, sizes = 0, 0
    for path, layer in pruned_layers(model):
        weights = effective_weights(layer).values()
        zero, size = sum(int((w == 0).sum()) for w in weights), sum(w.size for w in weights)
        assert history[f"sparsity/{path}"][-1] == pytest.approx(zero / size)
        zeros, sizes = zeros + zero, sizes + size
    assert history["sparsity"][-1] == pytest.approx(zeros / sizes)
    assert 0 <= min(history["sparsity"]) and max(history["sparsity"]) < 1


def test_without_the_layers():
    model = build()
    x, y = data()
    callbacks = [tfprune.PruningCallback(per_layer=False)]
    history = model.fit(x, y, 8, 2, verbose=0, callbacks=callbacks).history
    assert set(history) == {"loss", "sparsity"}


def test_a_list_of_callbacks_made_by_the_user():
    model = build()
    x, y = data()
    callbacks = keras.callbacks.CallbackList(
        [tfprune.PruningCallback()], add_history=True, model=model, epochs=2, steps=10
    )
    history = model.fit(x, y, 8, 2, verbose=0, callbacks=callbacks).history
    assert history["sparsity"][-1] == pytest.approx(TARGET, abs=0.01)


def test_early_stopping_restores_weights_and_masks_together():
    model = build(schedule=tfprune.PolynomialDecay(0.0, TARGET, 0, 18, frequency=1))
    states = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: states.append((masks_of(model), model.get_weights()))
    )
    best = keras.callbacks.EarlyStopping(
        "sparsity", mode="min", patience=1, restore_best_weights=True
    )
    x, y = data()
    with pytest.warns(UserWarning, match="Target missed"):
        model.fit(x, y, 8, 2, verbose=0, callbacks=[note, best, tfprune.PruningCallback()])
    assert masks_of(model)["one"].mean() > 0.3
    for path, mask in masks_of(model).items():
        np.testing.assert_array_equal(mask, states[0][0][path])
    for one, two in zip(model.get_weights(), states[0][1], strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("name", ["best.keras", "best.weights.h5"])
def test_checkpoints_hold_sparse_weights_in_any_order(tmp_path, place, name):
    model, path = build(), tmp_path / name
    checkpoint = keras.callbacks.ModelCheckpoint(path, save_weights_only=name.endswith("h5"))
    callbacks = [tfprune.PruningCallback()]
    callbacks.insert(place, checkpoint)
    x, y = data()
    model.fit(x, y, 8, 2, verbose=0, callbacks=callbacks)
    if name.endswith("h5"):
        plain, again = dense_model(), build()
        plain.load_weights(path)
        again.load_weights(path)
        assert (plain.get_layer("one").get_weights()[0] == 0).mean() == pytest.approx(TARGET)
    else:
        again = keras.models.load_model(path)
    for layer, mask in masks_of(again).items():
        np.testing.assert_array_equal(mask, masks_of(model)[layer])
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


def test_a_callback_can_be_used_again():
    callback = tfprune.PruningCallback()
    x, y = data()
    for _ in range(2):
        model = build()
        model.fit(x, y, 8, 2, verbose=0, callbacks=[callback])
        assert 1 - masks_of(model)["one"].mean() == pytest.approx(TARGET)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "adagrad", "lion", "ftrl", "muon"])
def test_every_optimizer(optimizer):
    if not hasattr(keras.optimizers, optimizer.capitalize()):
        pytest.skip(f"no {optimizer} in Keras {keras.__version__}")
    history, sparsity = fit(build(optimizer=optimizer))
    follows_the_schedule(sparsity, range(20))
    assert np.isfinite(history["loss"]).all()


def test_weight_averaging_leaves_the_masks_in_force():
    optimizer = keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.5)
    model = build(optimizer=optimizer)
    history, _ = fit(model)
    trained_well(model, history)
    assert 1 - masks_of(model)["one"].mean() == pytest.approx(TARGET)


def test_sample_and_class_weights_and_train_on_batch():
    model = build()
    x, y = data()
    fit(model, sample_weight=np.linspace(0, 1, 80).astype("float32"))
    before = masks_of(model)
    model.train_on_batch(x[:8], y[:8])
    for path, mask in masks_of(model).items():
        np.testing.assert_array_equal(mask, before[path])


def test_two_models_in_turns():
    """State is the model's, not the process's."""
    one, two = build(), build()
    x, y = data()
    for model, _ in itertools.product((one, two), range(2)):
        model.fit(x, y, 8, 1, verbose=0, shuffle=False, callbacks=[tfprune.PruningCallback()])
    for path, mask in masks_of(one).items():
        np.testing.assert_array_equal(mask, masks_of(two)[path])
