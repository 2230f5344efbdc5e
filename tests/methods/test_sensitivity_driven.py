"""SensitivityDriven: S against automatic differentiation per weight, the update, the thresholds."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from surgery import mask_of, states

import tfprune
from tfprune.needs import OutputSensitivity
from tfprune.training.sensitivity import serve

L = keras.layers
to_numpy = keras.ops.convert_to_numpy
KINDS = {
    "dense": ((5,), lambda: [L.Dense(6, activation="relu")]),
    "conv": ((5, 5, 2), lambda: [L.Conv2D(4, 3, activation="tanh"), L.Flatten()]),
    "lstm": ((4, 3), lambda: [L.LSTM(5)]),
    "gru": ((4, 3), lambda: [L.GRU(5, return_sequences=True), L.GRU(4)]),
}
FIXED = {"lam": 0.01, "threshold": 0.0}


def build(kind="dense", activation="softmax", optimizer=None):
    keras.utils.set_random_seed(1)
    shape, inner = KINDS[kind]
    model = keras.Sequential([keras.Input(shape), *inner(), L.Dense(3, activation=activation)])
    model.compile(optimizer or keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    return model


def data(kind="dense", size=12):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(size, *KINDS[kind][0])).astype("float32")
    return x, rng.integers(0, 3, size)


def by_automatic_differentiation(model, x, y, kind="unspecific", per_sample=False):
    """Weight path -> S, from Jacobians of the logits of a twin without softmax."""
    twin = keras.models.clone_model(model)
    twin.layers[-1].activation = keras.activations.linear
    twin.set_weights(model.get_weights())
    variables = twin.trainable_variables
    with tf.GradientTape(persistent=True) as tape:
        logits = twin(x, training=True)
    jacobians = [tape.jacobian(logits, v.value).numpy() for v in variables]
    found = []
    for jacobian in jacobians:
        if kind == "specific":
            chosen = [jacobian[np.arange(len(y)), y]]
        else:
            chosen = [jacobian[:, k] for k in range(jacobian.shape[1])]
        total = 0.0
        for one in chosen:
            total = total + (np.abs(one).mean(0) if per_sample else np.abs(one.mean(0)))
        found.append(total / len(chosen))
    return found


@pytest.fixture
def heard(monkeypatch):
    """What the methods were handed in the last step, in the order of the weights."""
    seen = {}
    original = serve.hand_on

    def spy(listening, signals, step, stepped):
        for state in listening:
            for name in state.specs:
                key = (state.path_in_model, name)
                tf.py_function(
                    lambda v, key=key: seen.__setitem__(key, v.numpy()),
                    [signals[id(state), name]],
                    [],
                )
        original(listening, signals, step, stepped)

    monkeypatch.setattr(serve, "hand_on", spy)
    return seen


def one_epoch(model, x, y, **options):
    return model.fit(
        x, y, options.pop("batch_size", len(x)), options.pop("epochs", 1), verbose=0,
        shuffle=False, callbacks=[tfprune.PruningCallback()], **options,
    )  # fmt: skip


def cases():
    """(kind, which, per sample); recurrent layers take long to trace."""
    few = {"gru": [("specific", True)], "lstm": [("specific", True), ("unspecific", False)]}
    for case in itertools.product(KINDS, ["unspecific", "specific"], [False, True]):
        quick = case[0] not in few or case[1:] in few[case[0]]
        yield pytest.param(*case, marks=() if quick else (pytest.mark.slow,))


@pytest.mark.parametrize("kind, which, per_sample", cases())
def test_sensitivity_of_every_weight(kind, which, per_sample, heard):
    x, y = data(kind)
    model = build(kind)
    method = tfprune.SensitivityDriven(kind=which, classes=None, per_sample=per_sample, **FIXED)
    one_epoch(tfprune.prune(model, method), x, y)
    expected = by_automatic_differentiation(model, x, y, which, per_sample)
    values = [v for _, v in heard.items()]
    by_shape = sorted(values, key=lambda v: (v.shape, float(v.sum())))
    wanted = sorted(expected, key=lambda v: (v.shape, float(v.sum())))
    assert len(by_shape) == len(wanted)
    for found, true in zip(by_shape, wanted, strict=True):
        np.testing.assert_allclose(found, true, rtol=2e-4, atol=2e-6)


def test_the_update_after_a_step_of_any_optimizer(heard):
    x, y = data()
    for make in (
        lambda: keras.optimizers.SGD(0.1, momentum=0.9),
        lambda: keras.optimizers.Adam(0.01),
        lambda: keras.optimizers.AdamW(0.01),
    ):
        plain = build(optimizer=make())
        pruned = tfprune.prune(plain, tfprune.SensitivityDriven(classes=None, **FIXED))
        pruned.compile(make(), "sparse_categorical_crossentropy")
        heard.clear()
        one_epoch(pruned, x, y)
        plain.fit(x, y, len(x), verbose=0, shuffle=False)
        latents = [
            to_numpy(state.latents(name)["latent"])
            for state in states(pruned).values()
            for name in state.specs
        ]
        for value, signal, dense in zip(latents, heard.values(), plain.get_weights(), strict=True):
            expected = dense * (1 - 0.01 * np.maximum(1 - signal, 0))
            np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)


def test_drawn_outputs_estimate_all_of_them_without_bias():
    x, y = data()
    model = build(activation="linear")
    expected = by_automatic_differentiation(model, x, y)
    pruned = tfprune.prune(model, tfprune.SensitivityDriven(classes=1))
    listening = list(states(pruned).values())
    with tf.GradientTape(persistent=True) as tape:
        outputs = pruned(x, training=True)
    total = [0.0] * len(expected)
    for step in range(300):
        found = serve.measure(listening, tape, outputs, None, step).values()
        total = [a + to_numpy(b) / 300 for a, b in zip(total, found, strict=True)]
    for mean, true in zip(total, expected, strict=True):
        assert np.abs(mean - true).max() < 0.2 * true.max()


def test_every_second_step_shrinks_twice_as_much(heard):
    x, y = data()
    model = build()
    before = model.get_weights()[0]
    method = tfprune.SensitivityDriven(classes=None, every=2, **FIXED)
    pruned = tfprune.prune(model, method)
    one_epoch(pruned, x, y, epochs=1)
    np.testing.assert_array_equal(pruned.get_weights()[0], before)
    one_epoch(pruned, x, y, epochs=1)
    shrunk = before * (1 - 0.02 * np.maximum(1 - next(iter(heard.values())), 0))
    np.testing.assert_allclose(pruned.get_weights()[0], shrunk, rtol=1e-5)


def test_zeros_stay_zero_and_thresholds_fall_after_each_epoch():
    x, y = data(size=40)
    model = build(optimizer=keras.optimizers.SGD(0.05))
    pruned = tfprune.prune(model, tfprune.SensitivityDriven(lam=0.02, threshold=0.05))
    history = one_epoch(pruned, x, y, batch_size=8, epochs=8).history["sparsity"]
    assert history[0] == 0 and history[-1] > 0.02
    assert all(a <= b for a, b in itertools.pairwise(history))
    state = states(pruned)["dense"]
    alive = np.abs(to_numpy(state.latents("kernel")["latent"]))[mask_of(state)["kernel"]]
    assert alive.min() > 0.03


def test_sensitive_weights_are_spared():
    """Two inputs; the outputs hang on the first alone: the weights of the other go."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), L.Dense(3, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.set_weights([np.full((2, 3), 0.5, "float32")])
    x = np.array([[2.0, 1e-4]] * 8, "float32")
    pruned = tfprune.prune(model, tfprune.SensitivityDriven(lam=0.1, threshold=0.3, classes=None))
    one_epoch(pruned, x, np.zeros((8, 3), "float32"), batch_size=4, epochs=4)
    kernel = tfprune.strip(pruned).get_weights()[0]
    assert np.all(kernel[1] == 0)
    np.testing.assert_allclose(kernel[0], 0.5 * (1 - 0.1 * (1 - 2 / 3)) ** 6, rtol=1e-3)


def test_target_sparsity_is_reached():
    x, y = data(size=40)
    pruned = tfprune.prune(build(), tfprune.SensitivityDriven(target_sparsity=0.7))
    one_epoch(pruned, x, y, batch_size=8, epochs=6)
    assert all(abs(s.sparsity() - 0.7) < 0.03 for s in states(pruned).values())


def test_a_tolerance_finds_the_largest_threshold():
    x, y = data(size=60)
    model = build(optimizer=keras.optimizers.SGD(0.05))
    model.fit(x, y, 10, 10, verbose=0)
    found = []
    for tolerance in (0.0, 0.5):
        method = tfprune.SensitivityDriven(lam=0.0, tolerance=tolerance, patience=1)
        pruned = tfprune.prune(model, method)
        pruned.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
        callback = tfprune.PruningCallback(validation_data=(x, y))
        before = model.evaluate(x, y, verbose=0)
        pruned.fit(x, y, 20, 4, verbose=0, callbacks=[callback])
        assert pruned.evaluate(x, y, verbose=0) <= (1 + tolerance) * before * 1.02
        found.append(next(iter(states(pruned).values())).sparsity())
    assert found[1] > found[0] and found[1] > 0.1
    with pytest.raises(ValueError, match="validation_data"):
        one_epoch(tfprune.prune(model, tfprune.SensitivityDriven(tolerance=0.1)), x, y)


@pytest.mark.parametrize(
    "options",
    [
        {"jit_compile": True},
        {"steps_per_execution": 3},
        {"run_eagerly": True},
        {"metrics": ["accuracy"]},
    ],
    ids=lambda options: next(iter(options)),
)
def test_fit_modes(options):
    x, y = data(size=48)
    runs = []
    for extra in ({}, options):
        method = tfprune.SensitivityDriven(lam=0.01, threshold=0.0, classes=None)
        pruned = tfprune.prune(build(), method)
        optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
        pruned.compile(optimizer, "sparse_categorical_crossentropy", **extra)
        one_epoch(pruned, x, y, batch_size=8, epochs=2)
        runs.append(pruned.get_weights())
    for one, other in zip(*runs, strict=True):
        np.testing.assert_allclose(one, other, rtol=5e-3, atol=1e-5)


@pytest.mark.parametrize("every", [1, 2])
def test_two_devices_do_what_one_does(every):
    x, y = data(size=32)
    found = []
    for devices in (None, ["CPU:0", "CPU:1"]):
        if devices:
            reduction = tf.distribute.ReductionToOneDevice()
            strategy = tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)
        else:
            strategy = tf.distribute.get_strategy()
        with strategy.scope():
            method = tfprune.SensitivityDriven(lam=0.05, threshold=0.05, classes=None, every=every)
            pruned = tfprune.prune(build(), method)
            pruned.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        one_epoch(pruned, x, y, batch_size=8, epochs=3)
        found.append(pruned.get_weights())
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_mixed_precision():
    x, y = data()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        pruned = tfprune.prune(build(), tfprune.SensitivityDriven(lam=0.01, threshold=0.2))
        one_epoch(pruned, x, y, batch_size=4, epochs=3)
    finally:
        keras.config.set_dtype_policy("float32")
    assert any(state.sparsity() > 0 for state in states(pruned).values())
    assert all(np.isfinite(w).all() for w in pruned.get_weights())


def train_by_hand(model, optimizer, x, y, total_steps):
    """Two epochs of three batches."""
    optimizer.build(model.trainable_variables)
    loss_of = keras.losses.SparseCategoricalCrossentropy()
    pruner = tfprune.Pruner(model, total_steps, optimizer=optimizer)
    for start in (0, 8, 16) * 2:
        images, labels = x[start : start + 8], y[start : start + 8]
        pruner.update()
        with tf.GradientTape(persistent=True) as tape:
            outputs = model(images, training=True)
            loss = loss_of(labels, outputs)
        gradients = tape.gradient(loss, model.trainable_variables)
        signals = pruner.measure(tape, outputs, labels)
        optimizer.apply(gradients, model.trainable_variables)
        pruner.after_step(signals)
    return pruner


def test_a_loop_of_ones_own_does_what_fit_does():
    x, y = data(size=24)
    method = tfprune.SensitivityDriven(classes=None, kind="specific", **FIXED)
    schedule = tfprune.SensitivitySchedule(begin_step=0, end_step=5, frequency=1)
    fitted = tfprune.prune(build(), method, schedule)
    fitted.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    one_epoch(fitted, x, y, batch_size=8, epochs=2)

    model = tfprune.prune(build(), method, schedule)
    optimizer = keras.optimizers.SGD(0.1)
    pruner = train_by_hand(model, optimizer, x, y, total_steps=6)
    pruner.finish()
    for one, other in zip(model.get_weights(), fitted.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_a_loop_that_never_measures_is_told():
    model = tfprune.prune(
        build(), tfprune.SensitivityDriven(), tfprune.SensitivitySchedule(0, 1, 1)
    )
    pruner = tfprune.Pruner(model, total_steps=2)
    pruner.update()
    pruner.update()
    with pytest.warns(UserWarning, match="never measured"):
        pruner.finish()


def test_a_wrapped_layer_in_a_plain_model_is_served(heard):
    keras.utils.set_random_seed(0)
    wrapped = tfprune.layers.SensitivityDrivenPruned(
        L.Dense(4), tfprune.SensitivityDriven(lam=0.1, threshold=0.0), name="w"
    )
    model = keras.Sequential([keras.Input((5,)), wrapped, L.Dense(3, activation="softmax")])
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    before = wrapped.layer.get_weights()[0]
    one_epoch(model, *data())
    after = to_numpy(wrapped.layer._kernel.value)
    assert set(heard) == {("w", "kernel"), ("w", "bias")}
    assert np.all(np.abs(after) < np.abs(before))
    assert "train_step" not in vars(model) and "call" not in vars(model)


class Interrupt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt


def wrapped_net():
    settings = tfprune.SensitivityDriven(classes=None, lam=0.1, threshold=0.0)
    wrapper = tfprune.layers.SensitivityDrivenPruned(
        L.Dense(4), settings, tfprune.SensitivitySchedule(0, 100, 100)
    )
    model = keras.Sequential([keras.Input((5,)), wrapper, L.Dense(3, activation="softmax")])
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    return model


def pruned_net(optimizer=None, **settings):
    """One whose weights nothing changes but lam = 0.1."""
    method = tfprune.SensitivityDriven(**{"classes": None, **FIXED, "lam": 0.1, **settings})
    plain = build(optimizer=optimizer or keras.optimizers.SGD(0.0))
    return tfprune.prune(plain, method, tfprune.SensitivitySchedule(0, 100, 100))


def latents(model):
    each = [(s, n) for s in states(model).values() for n in s.specs]
    return [np.array(to_numpy(s.masked_variable(n))) for s, n in each]


def assert_shrunk_once(model, before, heard):
    for new, old, signal in zip(latents(model), before, heard.values(), strict=True):
        np.testing.assert_allclose(new, old * (1 - 0.1 * np.maximum(1 - signal, 0)), rtol=1e-5)


@pytest.mark.parametrize("make", [pruned_net, wrapped_net])
@pytest.mark.parametrize("again", [False, True])
def test_after_an_interrupted_fit_nothing_is_measured_twice(make, again, heard):
    x, y = data()
    model, callback = make(), tfprune.PruningCallback()
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, len(x), verbose=0, callbacks=[callback, Interrupt()])
    assert make is wrapped_net or "train_step" not in vars(model)
    before = latents(model)
    callback = callback if again else tfprune.PruningCallback()
    model.fit(x, y, len(x), verbose=0, callbacks=[callback])
    assert "train_step" not in vars(model) and "call" not in vars(model)
    assert_shrunk_once(model, before, heard)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_accumulated_gradients_make_one_step(policy, heard):
    keras.config.set_dtype_policy(policy)
    x, y = data(size=24)
    model = pruned_net(keras.optimizers.SGD(0.0, gradient_accumulation_steps=3))
    one_epoch(model, x, y, batch_size=8)
    before = latents(model)
    one_epoch(model, x, y, batch_size=8)
    assert_shrunk_once(model, before, heard)


def test_accumulated_gradients_in_a_loop_of_ones_own():
    x, y = data(size=24)
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)
    model, fitted = (
        pruned_net(),
        pruned_net(keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)),
    )
    one_epoch(fitted, x, y, batch_size=8, epochs=2)
    train_by_hand(model, optimizer, x, y, total_steps=2)
    for one, other in zip(latents(model), latents(fitted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_frozen_layers_are_not_shrunk():
    plain = build()
    plain.layers[0].trainable = False
    method = tfprune.SensitivityDriven(classes=None, lam=0.1, threshold=0.0)
    model = tfprune.prune(plain, method, tfprune.SensitivitySchedule(0, 100, 100))
    before = latents(model)
    one_epoch(model, *data())
    same = [np.array_equal(a, b) for a, b in zip(before, latents(model), strict=True)]
    assert same == [True, True, False, True]  # the second bias is zero


@pytest.mark.parametrize("per_sample", [False, True])
def test_one_output_is_that_of_every_example(per_sample):
    x, _ = data()
    plain = keras.Sequential(
        [keras.Input((5,)), L.Dense(4, "relu"), L.Dense(1, activation="sigmoid")]
    )
    found = []
    for kind, y in (("unspecific", None), ("specific", np.arange(12) % 2), ("specific", None)):
        model = tfprune.prune(plain, tfprune.SensitivityDriven())
        signal = OutputSensitivity(kind, None, 1, per_sample)
        each = serve.measure_on(model, list(states(model).values()), signal, x, y)
        found.append([to_numpy(value) for value in each.values()])
    for one, *others in zip(*found, strict=True):
        assert one.any()
        for other in others:
            np.testing.assert_array_equal(one, other)


def test_rows_of_one_example_are_summed_before_the_absolute_value():
    inputs = keras.Input((4, 3))
    rows = keras.ops.reshape(inputs, (-1, 3))
    merged = keras.ops.reshape(L.Dense(2, activation="tanh")(rows), (-1, 8))
    plain = keras.Model(inputs, L.Dense(3)(merged))
    x = data("lstm")[0]
    expected = by_automatic_differentiation(plain, x, None, per_sample=True)
    model = tfprune.prune(plain, tfprune.SensitivityDriven())
    signal = OutputSensitivity(classes=None, per_sample=True)
    found = serve.measure_on(model, list(states(model).values()), signal, x)
    for value, true in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(value, true, rtol=2e-4, atol=2e-6)


class OwnStep(keras.Model):
    """With batches that Keras does not know, and a step that may pass the model by."""

    def __init__(self, around=False):
        super().__init__()
        self.inner, self.around = L.Dense(3), around

    def call(self, x):
        return self.inner(x)

    def train_step(self, data):
        x, y, weights, more = data
        with tf.GradientTape() as tape:
            logits = self.inner(x) if self.around else self(x, training=True)
            losses = keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)
            loss = tf.reduce_mean(losses * weights * more)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"loss": loss}


def fit_own_step(around=False, **settings):
    x, y = data()
    model = OwnStep(around)
    model(x)
    model = tfprune.prune(model, tfprune.SensitivityDriven(**settings), in_place=True)
    model.compile("sgd")
    ones = np.ones(len(x), "float32")
    batches = tf.data.Dataset.from_tensor_slices((x, y, ones, ones)).batch(4)
    return model.fit(batches, verbose=0, callbacks=[tfprune.PruningCallback()])


def test_batches_of_a_step_of_ones_own_are_unpacked_only_for_their_targets():
    fit_own_step()
    with pytest.raises(ValueError, match="Data is expected to be in format"):
        fit_own_step(kind="specific")


def test_a_step_that_passes_the_model_by_is_told_what_to_do():
    with pytest.raises(RuntimeError, match=r"must call the model itself.*self\(x, training=True\)"):
        fit_own_step(around=True)


def test_lam_follows_its_points_and_ends_with_the_schedule():
    method = tfprune.SensitivityDriven(lam=[(0.25, 0.0), (0.5, 0.4), (1.0, 0.2)])
    ones, zeros = keras.ops.ones((1,)), keras.ops.zeros((1,))
    progress = (-0.1, 0.0, 0.375, 0.5, 0.75, 1.0, 1.1)
    kept = [float(method.after_step(ones, ones > 0, zeros, p, None)[0]) for p in progress]
    np.testing.assert_allclose(kept, [1, 1, 0.8, 0.6, 0.7, 0.8, 1], rtol=1e-6)
    config = keras.saving.serialize_keras_object(method)
    assert keras.saving.deserialize_keras_object(config) == method


def test_a_growing_threshold_prunes_more_and_more_and_then_stays():
    x, y = data(size=40)
    method = tfprune.SensitivityDriven(lam=0.0, threshold=[(0.0, 0.0), (1.0, 0.3)])
    pruned = tfprune.prune(build(), method, tfprune.SensitivitySchedule(end_fraction=0.5))
    history = one_epoch(pruned, x, y, batch_size=8, epochs=8).history["sparsity"]
    assert history[0] < history[2] < history[4] == history[7]


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"lam": -1.0}, ValueError, "lam"),
        ({"lam": [(0.5, 1.0), (0.5, 2.0)]}, ValueError, "rise"),
        ({"threshold": [(0, 0.1), (5, 0.2)]}, ValueError, r"in \[0, 1\]"),
        ({"kind": "both"}, ValueError, "unspecific, specific"),
        ({"threshold": 0.1, "tolerance": 0.1}, ValueError, "at most one"),
        ({"patience": 0}, ValueError, "patience"),
        ({"every": 0}, ValueError, "every"),
        ({"classes": 0}, ValueError, "classes"),
        ({"per_sample": 1}, TypeError, "per_sample"),
    ],
)
def test_settings_are_checked(settings, error, words):
    with pytest.raises(error, match=words):
        tfprune.SensitivityDriven(**settings)
