"""What methods may ask of training: gradients, samples, draws, penalties; each against NumPy."""

from __future__ import annotations

import dataclasses

import contract.hooks as hooks
import keras
import numpy as np
import pytest

import tfprune
from tfprune.needs import LossGradient, OutputSensitivity
from tfprune.training.calibration import first_samples

L = keras.layers
to_numpy = keras.ops.convert_to_numpy
ONCE = tfprune.ConstantSparsity(0.5, begin_step=3, end_step=3)


def net(units=3, **options):
    keras.utils.set_random_seed(1)
    layer = L.Dense(units, use_bias=False, name="one", **options)
    return keras.Sequential([keras.Input((4,)), layer])


def data(samples=8):
    rng = np.random.default_rng(0)
    return rng.normal(size=(samples, 4)).astype("float32"), rng.normal(size=(samples, 3))


def fit(model, method, optimizer=None, epochs=1, **settings):
    pruned = tfprune.prune(model, method, settings.pop("schedule", ONCE))
    pruned.compile(optimizer or keras.optimizers.SGD(0.1), "mse", **settings)
    x, y = data()
    callback = tfprune.PruningCallback(calibration_data=x)
    pruned.fit(x, y, 2, epochs, shuffle=False, verbose=0, callbacks=[callback])
    return pruned


def plain_steps(weight, rate, steps, correct=lambda w, g: w):
    """Weights and gradients of SGD on the mean squared error, by NumPy, before any pruning."""
    x, y = data()
    gradients = []
    for step in range(steps):
        batch = slice(2 * step, 2 * step + 2)
        error = x[batch] @ weight - y[batch]
        gradients.append(2 * x[batch].T @ error / error.size)
        weight = correct(weight - rate * gradients[-1], gradients[-1])
    return weight, gradients


@pytest.mark.parametrize("eager", [False, True])
def test_the_gradient_of_the_step_reaches_the_state_and_the_mask(eager):
    model = net()
    start = np.array(to_numpy(model.layers[0].kernel))
    pruned = fit(model, hooks.FirstOrderTaylor(), run_eagerly=eager)
    weight, gradients = plain_steps(start, 0.1, 3)
    mean = 0.0
    for gradient in gradients:
        mean = 0.5 * mean + 0.5 * gradient
    scores = np.abs(weight * mean)
    mask = to_numpy(pruned.layers[0].prune_state.masks["kernel"])
    assert mask.sum() == 6 and scores[mask].min() > scores[~mask].max()
    state = pruned.layers[0].prune_state.scalars["kernel_gradient"]
    assert np.abs(to_numpy(state) - mean).max() > 1e-4, "the fourth step was not observed"


def test_weights_follow_their_gradient_after_the_step():
    model = net()
    start = np.array(to_numpy(model.layers[0].kernel))
    later = tfprune.ConstantSparsity(0.5, begin_step=9, end_step=9)
    with pytest.warns(UserWarning, match="can never fire|Nothing was pruned"):
        pruned = fit(model, hooks.SignDescent(0.01), schedule=later)
    weight, _ = plain_steps(start, 0.1, 4, lambda w, g: w - 0.01 * np.sign(g))
    np.testing.assert_allclose(pruned.layers[0].kernel, weight, rtol=1e-4, atol=1e-5)


def test_gradients_of_an_accumulating_optimizer_correct_only_at_its_steps():
    model = net()
    start = np.array(to_numpy(model.layers[0].kernel))
    optimizer = keras.optimizers.SGD(0.0, gradient_accumulation_steps=2)
    later = tfprune.ConstantSparsity(0.5, begin_step=9, end_step=9)
    with pytest.warns(UserWarning, match="can never fire|Nothing was pruned"):
        pruned = fit(model, hooks.SignDescent(0.01), optimizer, schedule=later)
    moved = np.abs(to_numpy(pruned.layers[0].kernel) - start)
    assert moved.max() == pytest.approx(0.02, rel=1e-3), "two steps, four batches"


def test_gradients_in_mixed_precision_are_those_before_the_scale_of_the_loss():
    keras.config.set_dtype_policy("mixed_float16")
    model = keras.Sequential(
        [keras.Input((4,)), L.Dense(3, use_bias=False), L.Activation("linear", dtype="float32")]
    )
    pruned = fit(model, hooks.FirstOrderTaylor(decay=0.0))
    gradient = to_numpy(pruned.layers[0].prune_state.scalars["kernel_gradient"])
    assert 1e-4 < np.abs(gradient).max() < 10


def test_a_loop_of_ones_own_hands_gradients_over():
    import tensorflow as tf

    model = net()
    start = np.array(to_numpy(model.layers[0].kernel))
    pruned = tfprune.prune(model, hooks.FirstOrderTaylor(), ONCE)
    optimizer = keras.optimizers.SGD(0.1)
    pruner = tfprune.Pruner(pruned, total_steps=4, optimizer=optimizer)
    x, y = data()
    for step in range(4):
        pruner.update()
        batch = slice(2 * step, 2 * step + 2)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(pruned(x[batch], training=True) - y[batch]))
        gradients = tape.gradient(loss, pruned.trainable_variables)
        signals = pruner.gradients(gradients, pruned.trainable_variables)
        optimizer.apply(gradients, pruned.trainable_variables)
        pruner.after_step(signals)
    pruner.finish()
    reference = fit(net(), hooks.FirstOrderTaylor())
    masks = [to_numpy(m.layers[0].prune_state.masks["kernel"]) for m in (pruned, reference)]
    np.testing.assert_array_equal(*masks)
    assert (np.array(to_numpy(pruned.layers[0].kernel)) != start).any()


def test_an_optimizer_is_itself_again_after_fit():
    pruned = fit(net(), hooks.FirstOrderTaylor())
    assert "apply" not in vars(pruned.optimizer)


def test_two_measurements_are_refused():
    @dataclasses.dataclass(frozen=True)
    class Greedy(tfprune.Magnitude):
        needs = (LossGradient(), OutputSensitivity())

    with pytest.raises(ValueError, match="one measurement"):
        tfprune.prune(net(), Greedy())


# -- calibration samples


def test_inputs_of_each_layer_reach_the_update():
    seen = {}

    @dataclasses.dataclass(frozen=True)
    class Spy(hooks.InputScaled):
        def update(self, layers, sparsities, due):
            seen.update({layer.name: layer.inputs.shape for layer in layers})
            return super().update(layers, sparsities, due)

    hidden = [L.Dense(5, name="one"), L.Dense(3, name="two")]
    pruned = fit(keras.Sequential([keras.Input((4,)), *hidden]), Spy())
    assert {name: tuple(shape) for name, shape in seen.items()} == {"one": (8, 4), "two": (8, 5)}
    assert pruned.layers[0].prune_state.sparsity() == 0.5


def test_samples_must_be_given():
    pruned = tfprune.prune(net(), hooks.InputScaled(0.5))
    with pytest.raises(ValueError, match=r"calibration_data.*Received: None"):
        tfprune.Pruner(pruned, total_steps=3)


@pytest.mark.parametrize(
    ("samples", "match"),
    [
        (np.zeros((0, 4)), "at least one sample"),
        (np.float32(3), "at least one sample"),
        ([np.zeros((3, 4)), np.zeros((2, 4))], "as many of every input"),
        (np.array([[1.0, np.nan]]), "finite"),
    ],
)
def test_bad_samples(samples, match):
    with pytest.raises(ValueError, match=match):
        first_samples(samples, 8)


# -- draws


def test_half_of_the_weights_are_left_out_of_each_batch():
    pruned = tfprune.prune(net(400), hooks.TargetedDropout(), ONCE)
    kernel = to_numpy(pruned.layers[0].kernel)
    eye = np.eye(4, dtype="float32")
    with pytest.warns(UserWarning, match="without a tfprune.PruningCallback"):
        first, second = (to_numpy(pruned(eye, training=True)) for _ in range(2))
    assert np.isin(first, [0, *kernel.ravel()]).all()
    for drawn in (first, second):
        assert 0.45 < (drawn == 0).mean() < 0.55
    assert (first != second).any()
    np.testing.assert_allclose(pruned(eye, training=False), kernel, rtol=1e-6)


@pytest.mark.parametrize("kind", ["dense", "convolution", "embedding"])
def test_outputs_have_the_variance_of_their_weights(kind):
    """Over many draws: mean w x, variance var x^2; an embedding draws its weights."""
    layers = {
        "dense": (L.Dense(2, activation="relu"), (3,)),
        "convolution": (L.Conv2D(2, 3, padding="same", activation="relu"), (4, 4, 2)),
        "embedding": (L.Embedding(5, 2), (6,)),
    }
    keras.utils.set_random_seed(3)
    layer, shape = layers[kind]
    model = keras.Sequential([keras.Input(shape), layer])
    pruned = tfprune.prune(model, hooks.SignalToNoise(), ONCE)
    inner = pruned.layers[0]
    if kind != "embedding":
        inner.bias.assign([50.0, 60.0])  # so that no output is cut by the ReLU
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, (1, *shape)) if kind == "embedding" else rng.normal(size=(1, *shape))
    x = x.astype("float32")
    batch, calls = (x, 400) if kind == "embedding" else (np.repeat(x, 4000, axis=0), 1)
    with pytest.warns(UserWarning, match="without a tfprune.PruningCallback"):
        outputs = np.concatenate([to_numpy(pruned(batch, training=True)) for _ in range(calls)])
    mean = to_numpy(pruned(x, training=False))[0]
    variance = np.exp(-4.0)
    if kind == "dense":
        expected = np.full(2, variance * (x**2).sum())
    elif kind == "embedding":
        expected = np.full((6, 2), variance)
    else:
        padded = np.pad(x[0] ** 2, [(1, 1), (1, 1), (0, 0)]).sum(-1)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).sum((-1, -2))
        expected = np.repeat(variance * windows[..., None], 2, axis=-1)
    draws = len(outputs)
    np.testing.assert_allclose(outputs.mean(0), mean, atol=5 * np.sqrt(expected.max() / draws))
    np.testing.assert_allclose(outputs.var(0), expected, rtol=5 * np.sqrt(2 / draws))
    assert kind == "embedding" or inner.activation is keras.activations.relu


def test_both_latents_of_a_weight_are_penalised_and_the_penalty_warms_up():
    schedule = tfprune.PolynomialDecay(0.0, 0.5, begin_step=0, end_step=4, frequency=1)
    pruned = tfprune.prune(net(), hooks.SignalToNoise(), schedule)
    state = pruned.layers[0].prune_state
    state.extras["kernel"]["log_variance"].assign(np.full((4, 3), -3.0))
    state.plan(schedule)
    penalties = []
    for step in range(6):
        state.counters["last_step"].assign(step)
        pruned(np.zeros((1, 4)))
        penalties.append(float(sum(pruned.losses)))
    np.testing.assert_allclose(penalties, np.minimum(np.arange(6) / 4, 1) * 12e-3, rtol=1e-5)


def test_draws_go_on_where_a_file_was_written(tmp_path):
    pruned = tfprune.prune(net(50), hooks.TargetedDropout(), ONCE)
    eye = np.eye(4, dtype="float32")
    with pytest.warns(UserWarning, match="without a tfprune.PruningCallback"):
        pruned(eye, training=True)
    pruned.save(tmp_path / "drawn.keras")
    again = keras.models.load_model(tmp_path / "drawn.keras")
    with pytest.warns(UserWarning, match="without a tfprune.PruningCallback"):
        outputs = [to_numpy(model(eye, training=True)) for model in (pruned, again)]
    np.testing.assert_array_equal(*outputs)
