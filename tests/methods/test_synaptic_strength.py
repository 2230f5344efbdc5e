"""SynapticStrength: exact conversion, its gradients, ranking of connections, and the schedule."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from surgery import states

import tfprune
from tfprune.method import LayerTensors, WeightSpec

L = keras.layers
to_numpy = keras.ops.convert_to_numpy
tensor = keras.ops.convert_to_tensor
SPEC = WeightSpec("kernel", (3, 3, 2, 4), ("kh", "kw", "cin", "cout"))


def conv_bn(x, channels, kernel=3, activation="relu", **options):
    x = L.Conv2D(channels, kernel, padding="same", use_bias=False, **options)(x)
    x = L.BatchNormalization()(x)
    return L.Activation(activation)(x) if activation else x


def randomised(model, seed=0):
    """Weights and statistics that are far from those of a fresh net; some scales are negative."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        for variable in getattr(layer, "_trainable_variables", []):
            variable.assign(rng.normal(0.2, 0.5, size=variable.shape))
        if isinstance(layer, L.BatchNormalization):
            layer.moving_mean.assign(rng.normal(size=layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 2, layer.moving_variance.shape))
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return model


def plain_net():
    inputs = keras.Input((10, 10, 3))
    x = conv_bn(inputs, 6)
    x = L.MaxPooling2D()(x)
    x = conv_bn(x, 8, activation="leaky_relu")
    x = L.DepthwiseConv2D(3, use_bias=False)(x)
    x = L.BatchNormalization()(x)
    x = L.ReLU()(x)
    x = L.Flatten()(x)
    return keras.Model(inputs, L.Dense(4)(L.Dropout(0.2)(x)))


def residual_net():
    inputs = keras.Input((8, 8, 3))
    x = conv_bn(inputs, 6)
    y = conv_bn(conv_bn(x, 6), 6, activation=None)
    x = L.ReLU()(L.Add()([x, y]))
    y = conv_bn(x, 5)
    x = L.Concatenate()([x, y])
    x = conv_bn(x, 6, activation="sigmoid")
    return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(conv_bn(x, 4, 1))))


def nested_net():
    inner = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(4, 3), L.BatchNormalization()])
    inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(5, 3)(L.ReLU()(inner(inputs)))
    return keras.Model(inputs, L.Dense(2)(L.GlobalMaxPooling2D()(x)))


NETS = {"plain": plain_net, "residual": residual_net, "nested": nested_net}


@pytest.mark.parametrize("name", NETS)
def test_conversion_changes_no_output(name):
    model = randomised(NETS[name]())
    before = [to_numpy(v) for v in model.variables]
    x = np.random.default_rng(1).normal(size=(16, *model.input_shape[1:])).astype("float32")
    pruned = tfprune.prune(model, tfprune.SynapticStrength(target_sparsity=0.5))
    for training in (False, True):
        expected = to_numpy(model(x, training=training and name == "residual"))
        found = to_numpy(pruned(x, training=training and name == "residual"))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    if name != "residual":
        for variable, value in zip(model.variables, before, strict=True):
            np.testing.assert_array_equal(variable, value)


def test_scales_move_where_the_graph_allows_it_and_stay_elsewhere():
    method = tfprune.SynapticStrength(keep_ends=False)
    pruned = tfprune.prune(randomised(residual_net()), method)
    sources = [state.facts.scales_from for state in states(pruned).values()]
    # input; block's first (its input is also summed); block's second; after the sum; after the
    # concatenation; 1x1 after a sigmoid; classifier behind a global pooling
    assert [bool(source) for source in sources] == [False, False, True, False, False, False, True]
    for path, layer in tfprune.training.layers.weighted_layers(pruned):
        if path in sources:
            gamma = to_numpy(layer.gamma)
            assert np.all(gamma <= 1) and (gamma == 1).any() and not layer.gamma.trainable
    plain = tfprune.strip(pruned)
    assert all(
        layer.gamma.trainable for layer in plain.layers if isinstance(layer, L.BatchNormalization)
    )


def test_strength_starts_at_scale_times_norm():
    model = randomised(plain_net())
    gamma = to_numpy(model.layers[2].gamma)
    kernel = to_numpy(model.layers[5].kernel)
    pruned = tfprune.prune(model, tfprune.SynapticStrength(keep_ends=False))
    state = list(states(pruned).values())[1]
    norms = np.sqrt((kernel**2).sum((0, 1))) * np.where(gamma > 0, gamma, 1)[:, None]
    np.testing.assert_allclose(to_numpy(state.latents("kernel")["strength"]), norms, rtol=1e-5)


def test_gradients_against_finite_differences():
    method = tfprune.SynapticStrength()
    rng = np.random.default_rng(0)
    values = {
        "direction": rng.normal(size=SPEC.shape).astype("float32"),
        "strength": rng.normal(size=(2, 4)).astype("float32"),
    }
    slope = rng.normal(size=SPEC.shape).astype("float32")

    def loss(latents):
        return tf.reduce_sum(slope * tf.sin(method.decode(latents, SPEC)))

    with tf.GradientTape() as tape:
        latents = {name: tf.constant(v) for name, v in values.items()}
        tape.watch(list(latents.values()))
        value = loss(latents)
    for name, gradient in tape.gradient(value, latents).items():
        for index in list(np.ndindex(*values[name].shape))[::5]:
            up, down = ({k: v.copy() for k, v in values.items()} for _ in range(2))
            up[name][index] += 1e-2
            down[name][index] -= 1e-2
            slope_there = (float(loss(up)) - float(loss(down))) / 2e-2
            assert float(gradient[index]) == pytest.approx(slope_there, rel=2e-2, abs=2e-2)


def test_a_zero_kernel_has_no_strength_and_a_finite_gradient():
    method = tfprune.SynapticStrength()
    weight = np.ones(SPEC.shape, "float32")
    weight[:, :, 0, 1] = 0
    latents = method.encode(tensor(weight), SPEC)
    assert to_numpy(latents["strength"])[0, 1] == 0
    np.testing.assert_allclose(method.decode(latents, SPEC), weight, rtol=1e-6)
    with tf.GradientTape() as tape:
        source = {name: tf.identity(v) for name, v in latents.items()}
        tape.watch(list(source.values()))
        value = tf.reduce_sum(method.decode(source, SPEC))
    assert all(np.isfinite(g).all() for g in tape.gradient(value, source).values())


def layer_of(strengths, name, kernel=None):
    spec = WeightSpec("kernel", (3, 3, *strengths.shape), SPEC.axes)
    direction = np.ones(spec.shape, "float32") if kernel is None else kernel
    return LayerTensors(
        name,
        {"kernel": spec},
        {"kernel": tensor(strengths)},
        {"kernel": tensor(np.ones(strengths.shape, bool))},
        {},
        1.0,
        {"kernel": {"direction": tensor(direction), "strength": tensor(strengths)}},
    )


def test_connections_of_all_layers_are_ranked_together():
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=shape).astype("float32") for shape in ((4, 6), (6, 10)))
    layers = [layer_of(a, "a"), layer_of(b, "b")]
    found = tfprune.SynapticStrength().update_network(
        layers, [tensor(np.float32(0.75))] * 2, [tensor(True)] * 2
    )
    kept = np.concatenate([to_numpy(masks["kernel"]).ravel() for masks, _ in found])
    values = np.abs(np.concatenate([a.ravel(), b.ravel()]))
    assert kept.sum() == 21 and values[kept].min() > values[~kept].max()


def test_entropy_ranks_by_the_variance_of_the_kernel():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 4, 6)).astype("float32")
    kernel[:, :, 0] = 5.0  # strong, but flat: no variance
    strengths = np.sqrt((kernel**2).sum((0, 1)))
    found = tfprune.SynapticStrength(score_by="entropy").update_network(
        [layer_of(strengths, "a", kernel)], [tensor(np.float32(0.25))], [tensor(True)]
    )
    mask = to_numpy(found[0][0]["kernel"])
    assert not mask[0].any() and mask[1:].all()


def run(method, schedule=None, epochs=10):
    model = randomised(plain_net())
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(32, 10, 10, 3)), rng.normal(size=(32, 4))
    pruned = tfprune.prune(model, method, schedule)
    pruned.compile(keras.optimizers.SGD(1e-4), "mse")
    history = pruned.fit(x, y, 8, epochs, verbose=0, callbacks=[tfprune.PruningCallback()])
    return pruned, history.history


def test_whole_kernels_go_and_the_ends_stay():
    pruned, history = run(tfprune.SynapticStrength(target_sparsity=0.6))
    assert list(states(pruned)) == ["conv2d_1", "depthwise_conv2d"] or len(states(pruned)) == 2
    kernel = to_numpy(next(iter(states(pruned).values())).effective("kernel"))
    zeros = (kernel == 0).reshape(9, -1)
    assert np.all(zeros.all(0) | ~zeros.any(0)) and zeros.all(0).mean() > 0.4
    assert history["sparsity"][0] == 0 and history["sparsity"][-1] == pytest.approx(0.6, abs=0.02)


def test_without_penalty_at_the_first_step_it_is_the_product_of_scale_and_norm():
    model = randomised(plain_net())
    gamma = to_numpy(model.layers[2].gamma)
    kernel = to_numpy(model.layers[5].kernel)
    product = np.where(gamma > 0, gamma, 1)[:, None] * np.sqrt((kernel**2).sum((0, 1)))
    now = tfprune.SynapticSchedule(begin_step=0, end_step=0)
    method = tfprune.SynapticStrength(target_sparsity=0.25, lam=0.0)
    pruned = tfprune.prune(model, method, now, filters=["conv2d_1"])
    tfprune.Pruner(pruned, total_steps=1).update()
    (state,) = states(pruned).values()
    mask = to_numpy(state.masks["kernel"])
    assert (~mask).sum() == 12 and product[mask].min() > product[~mask].max()


def test_scales_stay_fixed_in_a_model_read_from_a_file(tmp_path):
    pruned, _ = run(tfprune.SynapticStrength(target_sparsity=0.5, keep_ends=False), epochs=1)
    pruned.save(tmp_path / "net.keras")
    back = keras.models.load_model(tmp_path / "net.keras")
    held = [layer.gamma.trainable for layer in back.layers if hasattr(layer, "gamma")]
    assert held == [False] * 3
    assert len(back.trainable_variables) == len(pruned.trainable_variables)
    plain = tfprune.strip(back)
    assert all(layer.gamma.trainable for layer in plain.layers if hasattr(layer, "gamma"))


APPLICATIONS = {
    "MobileNetV2": {"alpha": 0.35},
    "ResNet50V2": {},
    "DenseNet121": {},
    "EfficientNetB0": {},
    "Xception": {},
}
SMALL = "MobileNetV2"


@pytest.mark.parametrize(
    "name", [SMALL, *(pytest.param(n, marks=pytest.mark.slow) for n in APPLICATIONS if n != SMALL)]
)
def test_conversion_of_known_architectures_is_exact(name):
    keras.utils.set_random_seed(0)
    build = getattr(keras.applications, name)
    shape = (72, 72, 3)
    model = build(
        weights=None,
        input_shape=shape,
        classes=10,
        classifier_activation=None,
        **APPLICATIONS[name],
    )
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            for variable, low, high in ((layer.gamma, 0.2, 1.5), (layer.moving_variance, 0.5, 2)):
                variable.assign(rng.uniform(low, high, variable.shape))
            layer.beta.assign(rng.normal(0, 0.3, layer.beta.shape))
    x = rng.uniform(-1, 1, (4, *shape)).astype("float32")
    expected = model.predict(x, verbose=0)
    pruned = tfprune.prune(model, tfprune.SynapticStrength(0.5, keep_ends=False))
    error = np.abs(pruned.predict(x, verbose=0) - expected).max()
    assert error <= 1e-5 * np.abs(expected).max()
    folded = sum(bool(state.facts.scales_from) for state in states(pruned).values())
    assert folded >= {"ResNet50V2": 32, "DenseNet121": 100, "Xception": 1}.get(name, 0)


def test_rounds_prune_step_by_step():
    schedule = tfprune.SynapticSchedule(
        0.6, rounds=3, begin_step=3, end_step=30, frequency=1, begin_fraction=0.0
    )
    levels = [schedule.sparsity(step) for step in range(0, 40)]
    assert sorted(set(np.round(levels, 6))) == [0.0, 0.2, 0.4, 0.6]
    assert levels[29] == pytest.approx(0.4) and levels[30] == 0.6
    _, history = run(tfprune.SynapticStrength(target_sparsity=0.6), schedule)
    assert len({round(value, 2) for value in history["sparsity"]}) == 4


def test_the_penalty_ends_with_the_last_pruning():
    pruned, _ = run(tfprune.SynapticStrength(target_sparsity=0.5, lam=0.1), epochs=1)
    assert sum(float(loss) for loss in pruned.losses) == 0
    fresh = tfprune.prune(randomised(plain_net()), tfprune.SynapticStrength(0.5, lam=0.1))
    total = sum(
        float(np.abs(to_numpy(s.latents("kernel")["strength"])).sum())
        for s in states(fresh).values()
    )
    assert sum(float(loss) for loss in fresh.losses) == pytest.approx(0.1 * total, rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"lam": -1.0}, ValueError, "lam"),
        ({"score_by": "norm"}, ValueError, "strength, entropy"),
        ({"regrow": 1}, TypeError, "True or False"),
        ({"target_sparsity": 1.0}, ValueError, "target_sparsity"),
    ],
)
def test_settings_are_checked(settings, error, words):
    with pytest.raises(error, match=words):
        tfprune.SynapticStrength(**settings)
