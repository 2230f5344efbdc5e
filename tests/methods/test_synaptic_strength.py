"""SynapticStrength: exact conversion, its gradients, ranking of connections, and the schedule."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from surgery import states

import tfprune
from tfprune.maths.spec import LayerTensors, WeightSpec

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
    for path, layer in tfprune.graph.layers.weighted_layers(pruned):
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
        return tf.reduce_sum(slope * tf.sin(method.domain.decode(latents, SPEC)))

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
    latents = method.domain.encode(tensor(weight), SPEC)
    assert to_numpy(latents["strength"])[0, 1] == 0
    np.testing.assert_allclose(method.domain.decode(latents, SPEC), weight, rtol=1e-6)
    with tf.GradientTape() as tape:
        source = {name: tf.identity(v) for name, v in latents.items()}
        tape.watch(list(source.values()))
        value = tf.reduce_sum(method.domain.decode(source, SPEC))
    assert all(np.isfinite(g).all() for g in tape.gradient(value, source).values())


def layer_of(strengths, name, kernel=None):
    shape = (3, 3, *strengths.shape) if kernel is None else kernel.shape
    spec = WeightSpec("kernel", shape, SPEC.axes)
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
    found = tfprune.SynapticStrength().update(
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
    found = tfprune.SynapticStrength(score_by="entropy").update(
        [layer_of(strengths, "a", kernel)], [tensor(np.float32(0.25))], [tensor(True)]
    )
    mask = to_numpy(found[0][0]["kernel"])
    assert not mask[0].any() and mask[1:].all()


def test_entropy_compares_kernels_of_one_entry_with_larger_ones():
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], size=(3, 3, 4, 6))
    large = (signs * rng.uniform(0.12, 0.18, signs.shape)).astype("float32")
    small = rng.uniform(0.01, 0.3, size=(1, 1, 4, 6)).astype("float32")
    norms = [np.sqrt((kernel**2).sum((0, 1))) for kernel in (large, small)]
    layers = [layer_of(norms[0], "a", large), layer_of(norms[1], "b", small)]
    found = tfprune.SynapticStrength(score_by="entropy").update(
        layers, [tensor(np.float32(0.5))] * 2, [tensor(True)] * 2
    )
    variances = np.concatenate([large.var((0, 1)).ravel(), np.square(small).ravel()])
    kept = np.concatenate([to_numpy(masks["kernel"]).ravel() for masks, _ in found])
    assert variances[kept].min() > variances[~kept].max()


def test_connections_are_ranked_once_a_round():
    def updates(**settings):
        schedule = tfprune.SynapticSchedule(0.6, begin_step=3, **settings)
        return [step for step in range(-2, 40) if schedule.due(step)]

    assert updates(end_step=30, frequency=1, rounds=3) == [12, 21, 30]
    assert updates(end_step=30, frequency=4, rounds=3) == [15, 23, 30]
    assert updates(end_step=30, frequency=1) == [30]
    assert updates(end_step=3, frequency=1, rounds=2) == [3]
    assert updates(end_step=6, frequency=50, rounds=9) == [6]


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


def sequential(*layers, shape=(8, 8, 3)):
    return keras.Sequential([keras.Input(shape), *layers])


def around(*between, channels=6):
    """A convolution, a normalization, what is given, and a convolution."""
    return sequential(L.Conv2D(channels, 3, padding="same"), *between, L.Conv2D(4, 3))


def relu(x):
    return keras.ops.minimum(keras.ops.maximum(x, 0.0), 0.5)


class ByChannels(L.Identity):
    def call(self, x):
        return x / (1e-3 + keras.ops.sum(keras.ops.abs(x), axis=-1, keepdims=True))


class Standardised(L.Conv2D):
    def call(self, x):
        kernel = self.kernel / keras.ops.sqrt(keras.ops.mean(self.kernel**2, (0, 1, 2)))
        return keras.ops.conv(x, kernel, self.strides, self.padding) + self.bias


def shared_normalization():
    inputs = keras.Input((8, 8, 3))
    norm = L.BatchNormalization()
    one, other = (L.Conv2D(4, 3)(norm(L.Conv2D(6, 3)(inputs))) for _ in range(2))
    return keras.Model(inputs, [one, other])


UNUSUAL = {
    "rows": lambda: around(L.BatchNormalization(axis=1), L.ReLU(), channels=8),
    "rows, fewer": lambda: around(L.BatchNormalization(axis=1), L.ReLU()),
    "rows, flat": lambda: sequential(
        L.Conv2D(6, 3, padding="same"), L.BatchNormalization(axis=1), L.Flatten(), L.Dense(4)
    ),
    "rows, dense": lambda: sequential(
        L.Conv1D(12, 3, padding="same"), L.BatchNormalization(axis=1), L.Dense(4), shape=(6, 6)
    ),
    "subclass between": lambda: around(L.BatchNormalization(), ByChannels()),
    "subclass reads": lambda: sequential(
        L.Conv2D(6, 3), L.BatchNormalization(), L.ReLU(), Standardised(4, 3)
    ),
    "a function called relu": lambda: around(L.BatchNormalization(), L.Activation(relu)),
    "a layer as activation": lambda: around(L.BatchNormalization(), L.Activation(L.Softmax())),
    "shared": shared_normalization,
    "flat": lambda: sequential(L.Conv2D(6, 3), L.BatchNormalization(), L.Flatten(), L.Dense(4)),
}


def all_outputs(model, x):
    return [to_numpy(y) for y in keras.tree.flatten(model(x))]


def assert_same_function(model, change, x=None):
    if x is None:
        x = np.random.default_rng(1).normal(size=(4, *model.input_shape[1:])).astype("float32")
    before = all_outputs(model, x)
    for a, b in zip(before, all_outputs(change(model), x), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5 * np.abs(a).max())


def in_place(model, **settings):
    method = tfprune.SynapticStrength(0.5, keep_ends=False, **settings)
    return tfprune.prune(model, method, in_place=True)


@pytest.mark.parametrize("name", UNUSUAL)
def test_conversion_is_exact_around_unusual_layers(name):
    assert_same_function(randomised(UNUSUAL[name]()), in_place)


class CallsInside(keras.Model):
    """Calls a normalization outside of the graph that it is also in."""

    def __init__(self):
        super().__init__()
        inputs = keras.Input((8, 8, 3))
        self.norm = L.BatchNormalization()
        self.graph = keras.Model(inputs, L.Conv2D(4, 3)(L.ReLU()(self.norm(inputs))))

    def call(self, x):
        return keras.ops.mean(self.graph(x), (1, 2)) + keras.ops.mean(self.norm(x))


def test_conversion_leaves_layers_that_are_called_elsewhere():
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    model = CallsInside()
    model(x)
    assert_same_function(randomised(model), in_place, x)
    model = randomised(around(L.BatchNormalization(), L.ReLU()))
    other = keras.Model(model.inputs, L.Conv2D(2, 1)(model.layers[2].output))
    before = all_outputs(other, x)
    in_place(model)
    np.testing.assert_allclose(all_outputs(other, x), before, rtol=1e-4, atol=1e-5)


class Renamed(L.BatchNormalization):
    computes_as = L.BatchNormalization


@pytest.mark.parametrize("cls", [L.BatchNormalization, Renamed, type("Own", (Renamed,), {})])
def test_a_normalization_of_your_own_folds_if_it_says_what_it_computes(cls):
    model = randomised(around(cls(), L.ReLU()))
    source = list(states(in_place(model)).values())[1].facts.scales_from
    assert bool(source) == ("computes_as" in vars(cls) or cls is L.BatchNormalization)


def test_models_made_by_add_fold_in_place():
    model = keras.Sequential()
    for layer in (keras.Input((8, 8, 3)), L.Conv2D(4, 3), L.BatchNormalization(), L.Conv2D(4, 3)):
        model.add(layer)
    sources = [state.facts.scales_from for state in states(in_place(model)).values()]
    assert sources == ["", model.layers[1].name]


def test_a_sequential_model_without_a_graph_is_pruned():
    model = keras.Sequential([L.Concatenate(), L.Dense(5), L.Dense(4)])
    model([np.zeros((1, 3)), np.zeros((1, 2))])
    assert len(states(in_place(model))) == 2


@pytest.mark.parametrize("tiny", [1e-3, 1e-6, 1e-20, 1e-42])
def test_tiny_scales_stay(tiny):
    model = randomised(around(L.BatchNormalization(), L.ReLU()))
    norm = model.layers[1]
    norm.gamma.assign([tiny, tiny, 0.5, 0.7, 2.0, 1.0])
    norm.beta.assign(np.abs(norm.beta))
    assert_same_function(model, in_place)
    np.testing.assert_array_equal(norm.gamma, np.float32([tiny, tiny, 1, 1, 1, 1]))


@pytest.mark.parametrize(
    ("dtype", "size"), [("float16", 1e-4), ("float16", 60), ("float32", 1e-30), ("float32", 1e30)]
)
def test_kernels_of_any_size_keep_their_values(dtype, size):
    model = sequential(*(L.Conv2D(4, 3, dtype=dtype) for _ in range(2)))
    rng = np.random.default_rng(0)
    for layer in model.layers:
        layer.kernel.assign(size * rng.normal(size=layer.kernel.shape))
    kernels = [to_numpy(layer.kernel) for layer in model.layers]
    for state, kernel in zip(states(in_place(model)).values(), kernels, strict=True):
        np.testing.assert_allclose(to_numpy(state.effective("kernel")), kernel, rtol=2e-3)


def test_zero_kernels_learn():
    zeros = L.Conv2D(4, 3, kernel_initializer="zeros")
    pruned = in_place(sequential(L.Conv2D(6, 3, activation="relu"), zeros), lam=0.0)
    assert not to_numpy(zeros.kernel).any()
    pruned.compile(keras.optimizers.SGD(0.1), "mse")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 8, 8, 3)), rng.normal(size=(16, 4, 4, 4))
    pruned.fit(x, y, verbose=0, callbacks=[tfprune.PruningCallback(total_steps=100)])
    assert (to_numpy(zeros.kernel) != 0).mean() > 0.9


def small_net():
    model = randomised(
        sequential(
            *(L.Conv2D(6, 3, padding="same", name="a"), L.BatchNormalization(name="na"), L.ReLU()),
            *(L.Conv2D(6, 3, padding="same", name="b"), L.BatchNormalization(name="nb"), L.ReLU()),
            *(L.GlobalAveragePooling2D(), L.Dense(3, name="c")),
        )
    )
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=shape).astype("float32") for shape in ((16, 8, 8, 3), (16, 3)))
    return model, x, y


def gammas(model):
    layers = [x for x in model._flatten_layers() if isinstance(x, L.BatchNormalization)]
    return [x.gamma.trainable for x in layers]


def test_a_trained_model_is_pruned_in_place_trained_stripped_and_trained():
    model, x, y = small_net()
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    model.fit(x, y, 8, verbose=0)
    with pytest.warns(UserWarning, match="optimizer starts afresh"):
        in_place(model)
    history = model.fit(x, y, 8, 8, verbose=0, callbacks=[tfprune.PruningCallback()])
    assert history.history["sparsity"][-1] == pytest.approx(0.5, abs=0.01)
    expected = all_outputs(model, x)
    with pytest.warns(UserWarning, match="optimizer starts afresh"):
        tfprune.strip(model, in_place=True)
    np.testing.assert_allclose(all_outputs(model, x), expected, rtol=1e-4, atol=1e-5)
    model.fit(x, y, 8, verbose=0)


def test_layers_with_different_schedules_are_refused():
    schedules = {"a|b": tfprune.SynapticSchedule(0.2), "c": tfprune.SynapticSchedule(0.8)}
    with pytest.raises(ValueError, match="one schedule"):
        tfprune.prune(small_net()[0], tfprune.SynapticStrength(keep_ends=False), schedules)


def test_scales_stay_held_and_come_back_as_they_were():
    model, *_ = small_net()
    model.get_layer("na").gamma.trainable = False
    pruned = tfprune.prune(model, tfprune.SynapticStrength(0.5, keep_ends=False))
    pruned.trainable = False
    assert gammas(tfprune.strip(pruned)) == [False, False]
    pruned = tfprune.prune(model, tfprune.SynapticStrength(0.5, keep_ends=False))
    assert gammas(tfprune.strip(pruned)) == [False, True] and gammas(pruned) == [False, False]
    pruned.trainable = False
    pruned.trainable = True
    assert gammas(pruned) == [False, False] and gammas(tfprune.strip(pruned)) == [True, True]


@pytest.mark.parametrize("place", [False, True])
def test_scales_come_back_in_a_model_around(place):
    model, x, _ = small_net()
    pruned = tfprune.prune(model, tfprune.SynapticStrength(0.5, keep_ends=False))
    inputs = keras.Input((8, 8, 3))
    outer = keras.Model(inputs, L.Dense(2)(pruned(inputs)))
    expected = all_outputs(outer, x)
    plain = tfprune.strip(outer, in_place=place)
    assert gammas(plain) == [True, True]
    np.testing.assert_allclose(all_outputs(plain, x), expected, rtol=1e-4, atol=1e-5)


def test_scales_stay_held_where_strip_fails():
    class Odd(keras.Model):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def call(self, x):
            return self.inner(x)

    model, x, _ = small_net()
    odd = Odd(model)
    odd(x)
    in_place(odd)
    with pytest.raises(ValueError, match="cannot be copied"):
        tfprune.strip(odd)
    assert gammas(odd) == [False, False]


def test_a_target_counts_in_whole_connections(recwarn):
    model = sequential(L.Conv2D(5, 3), shape=(8, 8, 5))
    pruned = in_place(model)
    pruned.compile("sgd", "mse")
    x, y = np.zeros((8, 8, 8, 5)), np.zeros((8, 6, 6, 5))
    pruned.fit(x, y, 2, 5, verbose=0, callbacks=[tfprune.PruningCallback()])
    assert not [w for w in recwarn if "Target" in str(w.message)]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (tfprune.SynapticStrength(0.5), ["b"]),
        ({".*": tfprune.SynapticStrength(0.5)}, ["b"]),
        ({"[ab]": tfprune.SynapticStrength(0.5), "c": tfprune.Magnitude(0.5)}, ["b", "c"]),
        ({"[ab]": tfprune.SynapticStrength(0.5, keep_ends=False)}, ["a", "b"]),
    ],
)
def test_ends_are_those_of_the_model(method, expected):
    assert list(states(tfprune.prune(small_net()[0], method))) == expected


def test_a_direction_that_is_not_finite_stops_the_update():
    now = tfprune.SynapticSchedule(begin_step=0, end_step=2, frequency=1)
    method = tfprune.SynapticStrength(0.5, keep_ends=False, score_by="entropy")
    pruned = tfprune.prune(small_net()[0], method, now)
    slot = pruned.get_layer("a")._kernel
    slot.assign(np.full(slot.shape, np.nan))
    with pytest.raises(ValueError, match="must stay finite"):
        for pruner in [tfprune.Pruner(pruned, 10)] * 3:
            pruner.update()
    assert states(pruned)["a"].sparsity() == 0


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
