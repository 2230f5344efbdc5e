"""Pruning in every way that Keras trains: the masks follow the schedule in all of them."""

from __future__ import annotations

import functools
import warnings

import keras
import numpy as np
import processes
import pytest
import tensorflow as tf
from keras import ops
from toys import (
    DECAY,
    TARGET,
    build,
    data,
    dense_model,
    fit,
    follows_the_schedule,
    masks_of,
    trained_well,
    wanted,
)

import tfprune
from tfprune.pruned.layers import pruned_layers


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
@pytest.mark.parametrize("eager", [False, pytest.param(True, marks=pytest.mark.slow)])
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
    done = processes.run(MIRRORED)
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


@pytest.mark.parametrize("epochs", [2, 5])
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
    with pytest.warns(UserWarning, match=r"Nothing was pruned.*total_steps"):
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
    with pytest.warns(UserWarning, match=r"can never fire"):
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


def test_sample_and_class_weights_and_train_on_batch():
    model = build()
    x, y = data()
    fit(model, sample_weight=np.linspace(0, 1, 80).astype("float32"))
    before = masks_of(model)
    model.train_on_batch(x[:8], y[:8])
    for path, mask in masks_of(model).items():
        np.testing.assert_array_equal(mask, before[path])
