"""strip(shrink=True): fewer channels, the same function, on random graphs and by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfprune
from tfprune.inference.shrink import shrunk

L = keras.layers


def block(x, channels, rng):
    options = {"padding": str(rng.choice(["same", "valid"])), "use_bias": bool(rng.integers(2))}
    x = L.Conv2D(channels, int(rng.choice([1, 3])), **options)(x)
    if rng.random() < 0.7:
        x = L.BatchNormalization()(x)
    return L.Activation(str(rng.choice(["relu", "tanh", "linear", "relu"])))(x)


def residual(x, rng):
    inner = L.ReLU()(L.Conv2D(int(rng.integers(2, 7)), 3, padding="same")(x))
    inner = L.BatchNormalization()(L.Conv2D(x.shape[-1], 3, padding="same")(inner))
    return L.ReLU()(L.Add()([x, inner]))


def grown(x, rng):
    return L.Concatenate()([x, L.Conv2D(4, 3, padding="same", activation="relu")(x)])


def depthwise(x, rng):
    return L.DepthwiseConv2D(3, padding="same", depth_multiplier=int(rng.integers(1, 3)))(x)


def random_net(rng):
    inputs = keras.Input((14, 14, 3))
    x = block(inputs, 6, rng)
    for _ in range(rng.integers(2, 5)):
        kinds = (residual, grown, depthwise, lambda x, rng: block(x, int(rng.integers(3, 8)), rng))
        x = kinds[rng.integers(len(kinds))](x, rng)
    x = L.MaxPooling2D()(x)
    x = L.Flatten()(x) if rng.random() < 0.5 else L.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, L.Dense(3)(L.Dense(8, activation="relu")(x)))


def with_dead_channels(model, rng):
    """Random weights and statistics; whole rows and columns of the kernels are zero."""
    for layer in model._flatten_layers():
        for variable in layer._trainable_variables:
            variable.assign(0.5 * rng.normal(size=variable.shape))
        if isinstance(layer, L.BatchNormalization):
            layer.moving_mean.assign(0.3 * rng.normal(size=layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 2, layer.moving_variance.shape))
        if hasattr(layer, "kernel") and len(layer.kernel.shape) > 1:
            cin, cout = layer.kernel.shape[-2:]
            mask = rng.random((cin, cout)) > 0.4
            mask[rng.random(cin) < 0.3] = False
            mask[:, rng.random(cout) < 0.3] = False
            layer.kernel.assign(keras.ops.convert_to_numpy(layer.kernel) * mask)
    return model


@pytest.mark.parametrize("seed", range(6))
def test_random_graphs_compute_the_same_with_fewer_channels(seed):
    rng = np.random.default_rng(seed)
    model = with_dead_channels(random_net(rng), rng)
    small = shrunk(model)
    x = rng.normal(size=(4, 14, 14, 3)).astype("float32")
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(
        small.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max()
    )
    assert small.count_params() < 0.9 * model.count_params()


def test_channels_counted_by_hand():
    model = keras.Sequential(
        [keras.Input((6, 6, 2)), L.Conv2D(4, 3, name="a"), L.ReLU(), L.Conv2D(3, 3, name="b")]
    )
    first, last = model.layers[0], model.layers[2]
    kernels = [np.ones(layer.kernel.shape, "float32") for layer in (first, last)]
    kernels[0][..., 1] = 0  # constant: its bias goes into b's
    kernels[1][:, :, 2] = 0  # read by nobody
    first.set_weights([kernels[0], np.array([0.1, 0.7, 0.2, 0.3], "float32")])
    last.set_weights([kernels[1], np.zeros(3, "float32")])
    small = shrunk(model)
    assert small.layers[0].kernel.shape == (3, 3, 2, 2)
    assert small.layers[2].kernel.shape == (3, 3, 2, 3)
    np.testing.assert_allclose(small.layers[2].bias, 9 * 0.7, rtol=1e-6)


def test_a_layer_that_lost_everything_keeps_a_channel():
    model = keras.Sequential([keras.Input((5,)), L.Dense(4), L.Dense(2)])
    model.layers[0].set_weights([np.zeros((5, 4), "float32"), np.ones(4, "float32")])
    small = shrunk(model)
    x = np.random.rand(3, 5).astype("float32")
    np.testing.assert_allclose(small(x), model(x), rtol=1e-5)
    assert small.layers[0].units == 1


def test_strip_shrinks_a_pruned_net():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(16, 3, padding="same")(inputs)))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(16, 3, padding="same")(x)))
    model = keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x)))
    model.compile(keras.optimizers.SGD(0.001), "mse")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 8, 8, 3)), rng.normal(size=(32, 3))
    pruned = tfprune.prune(model, tfprune.SynapticStrength(0.95, keep_ends=False))
    pruned.fit(x, y, 8, 4, verbose=0, callbacks=[tfprune.PruningCallback()])
    small = tfprune.strip(pruned, shrink=True)
    assert small.count_params() < 0.6 * model.count_params() and small.compiled
    expected = pruned.predict(x, verbose=0)
    np.testing.assert_allclose(small.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5)
    small.fit(x, y, verbose=0)
    with pytest.raises(ValueError, match="in place"):
        tfprune.strip(pruned, in_place=True, shrink=True)


IMAGE = (8, 8, 3)


def net(*layers, shape=IMAGE):
    return lambda: keras.Sequential([keras.Input(shape), *[make() for make in layers]])


def conv(channels=6, size=3, **options):
    return lambda: L.Conv2D(channels, size, **options)


def shared_conv():
    inputs = keras.Input(IMAGE)
    both = L.Conv2D(6, 3, padding="same")
    one = both(L.Conv2D(5, 3, padding="same")(inputs))
    other = both(L.Conv2D(5, 1)(inputs))
    return keras.Model(inputs, [L.Conv2D(3, 1)(one), L.Conv2D(2, 1)(other)])


def shared_loop():
    inputs = keras.Input(IMAGE)
    x, again, norm = (
        L.Conv2D(6, 3, padding="same")(inputs),
        L.Conv2D(6, 3, padding="same"),
        L.BatchNormalization(),
    )
    for _ in range(2):
        x = L.ReLU()(norm(again(x)))
    return keras.Model(inputs, L.Dense(3)(L.Flatten()(x)))


def shared_normalization():
    inputs = keras.Input(IMAGE)
    norm = L.BatchNormalization()
    one, other = norm(L.Conv2D(6, 3)(inputs)), norm(L.Conv2D(6, 3)(inputs))
    return keras.Model(inputs, [L.Conv2D(3, 3)(one), L.Conv2D(2, 3)(other)])


def siamese():
    left, right = keras.Input(IMAGE), keras.Input(IMAGE)
    first, second = L.Conv2D(6, 3, activation="relu"), L.Conv2D(6, 3, activation="relu")
    ends = [L.Conv2D(3, 1)(second(first(x))) for x in (left, right)]
    return keras.Model([left, right], ends)


def adapted(nested=False):
    scale = L.Normalization()
    scale.adapt(np.random.default_rng(0).uniform(3, 12, (50, 5)))
    inputs = keras.Input((5,))
    x = scale(inputs)
    if nested:
        x = keras.Model(inputs, L.Dense(4)(x))(outer := keras.Input((5,)))
        inputs = outer
    return keras.Model(inputs, L.Dense(3)(L.Dense(8, activation="relu")(x)))


def masked(end):
    inputs = keras.Input((10,), dtype="int32")
    x = L.Dense(6, activation="relu")(L.Embedding(20, 8, mask_zero=True)(inputs))
    x = L.BatchNormalization()(L.Dropout(0.1)(x))
    return keras.Model(inputs, L.Dense(3)(end(L.Dense(4)(x))))


def single_operand():
    inputs = keras.Input(IMAGE)
    x = L.Concatenate()([L.Add()([L.Conv2D(6, 3)(inputs)])])
    return keras.Model(inputs, L.Conv2D(4, 3)(x))


class ByChannels(L.Identity):
    def call(self, x):
        return x / (1e-3 + keras.ops.sum(keras.ops.abs(x), axis=-1, keepdims=True))


class Standardised(L.Conv2D):
    def call(self, x):
        kernel = self.kernel - keras.ops.mean(self.kernel, axis=(0, 1, 2), keepdims=True)
        return keras.ops.conv(x, kernel, self.strides, self.padding) + self.bias


class Twice(L.Layer):
    def call(self, x):
        return 2 * x


def nested(*layers):
    inner = keras.Sequential([keras.Input(IMAGE), L.Conv2D(4, 3), *layers])
    inputs = keras.Input(IMAGE)
    return keras.Model(inputs, L.Conv2D(3, 1)(L.Conv2D(3, 1)(inner(inputs))))


def trained_statistics():
    inputs = keras.Input((8,))
    x = L.BatchNormalization()(L.Dense(6)(inputs), training=True)
    return keras.Model(inputs, L.Dense(3)(x))


def a_model_of_its_own_call():
    class Own(keras.Model):
        def call(self, inputs):
            return 2 * super().call(inputs)

    inputs = keras.Input(IMAGE)
    return Own(inputs, L.Conv2D(3, 3)(L.Conv2D(4, 3)(inputs)))


FACTORS = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
UNUSUAL = {
    "shared convolution": shared_conv,
    "shared in a loop": shared_loop,
    "shared normalization": shared_normalization,
    "siamese": siamese,
    "another axis": net(conv(), lambda: L.BatchNormalization(axis=1), L.ReLU, conv(4)),
    "adapted": adapted,
    "adapted, nested": lambda: adapted(nested=True),
    "mask, recurrent": lambda: masked(L.LSTM(5)),
    "mask, pooling": lambda: masked(L.GlobalAveragePooling1D()),
    "single operand": single_operand,
    "long signal": net(
        lambda: L.Conv1D(6, 16, strides=4, activation="relu"),
        L.GlobalAveragePooling1D,
        lambda: L.Dense(3),
        shape=(None, 1),
    ),
    "long pool": net(
        lambda: L.Conv1D(6, 3, activation="relu"),
        lambda: L.MaxPooling1D(10),
        L.GlobalAveragePooling1D,
        lambda: L.Dense(3),
        shape=(None, 1),
    ),
    "flat, unknown": net(conv(5, 1), conv(4), L.Flatten, shape=(None, None, 3)),
    "subclass, entrywise": net(conv(8), ByChannels, conv(4)),
    "subclass, kernel": net(conv(8), lambda: Standardised(6, 3), conv(4)),
    "softmax layer": net(conv(8, activation=L.Softmax()), conv(4)),
    "softmax, depthwise": net(conv(8), lambda: L.DepthwiseConv2D(3, activation="softmax"), conv(4)),
    "activation with weights": net(conv(8, activation=L.PReLU()), conv(4)),
    "factors by channel": net(conv(), lambda: L.Rescaling(FACTORS, FACTORS), conv(4)),
    "dropout of a shape": net(conv(), lambda: L.Dropout(0.5, (None, 1, 1, 6)), conv(4)),
    "lambda": net(conv(), lambda: L.Lambda(lambda x: 2 * x), conv(4)),
    "unregistered, nested": lambda: nested(Twice()),
    "lambda, nested": lambda: nested(L.Lambda(lambda x: 2 * x)),
    "training statistics": trained_statistics,
}


def samples(model, rng, size=33):
    for tensor in model.inputs:
        shape = (4, *(size if n is None else n for n in tensor.shape[1:]))
        kind = str(tensor.dtype)
        yield rng.integers(0, 20, shape) if kind == "int32" else rng.normal(size=shape).astype(kind)


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_layers_and_calls_keep_what_they_see(name):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    model = with_dead_channels(UNUSUAL[name](), rng)
    small = shrunk(model)
    x = list(samples(model, rng))
    x = x if len(x) > 1 else x[0]
    expected, found = keras.tree.flatten(model(x)), keras.tree.flatten(small(x))
    for a, b in zip(expected, found, strict=True):
        scale = float(keras.ops.max(keras.ops.abs(a)))
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize(
    "options", [{"kernel_size": 4, "strides": 4}, {"kernel_size": 3, "dilation_rate": 12}]
)
def test_a_constant_beside_padding_is_none_in_maps_of_unknown_size(options):
    keras.utils.set_random_seed(0)
    first = conv(3, padding="same", activation="tanh", bias_initializer="ones")
    second = L.Conv2D(4, padding="same", **options)
    model = net(first, lambda: second, L.ReLU, conv(4, 1), shape=(None, None, 3))()
    kernels = [keras.ops.convert_to_numpy(layer.kernel) for layer in model.layers[:2]]
    kernels[0][..., 0] = 0  # constant, and all that the first channel of the next layer reads
    kernels[1][:, :, 1:, 0], kernels[1][:, :, 0, 0] = 0, 1
    for layer, kernel in zip(model.layers, kernels, strict=False):
        layer.kernel.assign(kernel)
    x = np.random.default_rng(0).normal(size=(2, 33, 33, 3)).astype("float32")
    np.testing.assert_allclose(shrunk(model)(x), model(x), rtol=1e-4, atol=1e-5)


class Same(L.Conv2D):
    computes_as = L.Conv2D


class Other(Same):
    pass


@pytest.mark.parametrize(("cls", "left"), [(L.Conv2D, 2), (Same, 2), (Other, 6)])
def test_a_subclass_that_says_what_it_computes_gets_smaller(cls, left):
    model = net(lambda: cls(6, 3), conv(4))()
    kernel = keras.ops.convert_to_numpy(model.layers[1].kernel) * (np.arange(6) < 2)[:, None]
    model.layers[1].kernel.assign(kernel)
    small = shrunk(model)
    assert small.layers[0].filters == left and type(small.layers[0]) is cls
    x = np.random.default_rng(0).normal(size=(2, *IMAGE)).astype("float32")
    np.testing.assert_allclose(small(x), model(x), rtol=1e-4, atol=1e-6)


def test_tables_of_preprocessing_layers_come_along():
    words = L.StringLookup(output_mode="multi_hot", vocabulary=None)
    words.adapt(np.array(["a", "b", "c"]))
    inputs = keras.Input((4,), dtype="string")
    model = keras.Model(inputs, L.Dense(3)(L.Dense(6, activation="relu")(words(inputs))))
    x = keras.ops.convert_to_tensor([["a", "b", "z", "c"]])
    np.testing.assert_allclose(shrunk(model)(x), model(x), rtol=1e-6)


def test_frozen_variables_stay_frozen():
    model = keras.Sequential([keras.Input(IMAGE), L.Conv2D(4, 3), L.BatchNormalization()])
    model.add(L.Conv2D(3, 3))
    model.layers[1].gamma.trainable = False
    model.layers[2].trainable = False
    small = shrunk(model)
    assert [v.path for v in small.trainable_variables] == [
        v.path for v in model.trainable_variables
    ]


def test_a_model_without_a_graph_is_refused():
    with pytest.raises(ValueError, match="Functional or Sequential"):
        shrunk(a_model_of_its_own_call())


@pytest.mark.parametrize("activation", ["softmax", "log_softmax", "tanh"])
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_a_net_shrinks_in_front_of_an_activation_over_all_channels(activation, kind):
    model = keras.Sequential([keras.Input((6, 6, 3)), L.Conv2D(8, 3, activation="relu")])
    if kind == "dense":
        model.add(L.GlobalAveragePooling2D())
    joint = L.Dense(5, activation) if kind == "dense" else L.Conv2D(5, 1, activation=activation)
    model.add(joint)
    model.add(L.Dense(2))
    rng = np.random.default_rng(0)
    first, middle, last = (x for x in model.layers if hasattr(x, "kernel"))
    for layer in (first, middle, last):
        layer.bias.assign(rng.normal(size=layer.bias.shape))
    kernel = rng.normal(size=middle.kernel.shape) * (np.arange(8) < 3)[:, None]
    kernel[..., 4] = 0  # the same for every input before the softmax, not behind it
    middle.kernel.assign(kernel)
    last.kernel.assign(rng.normal(size=(5, 2)) * (np.arange(5) != 1)[:, None])
    small = shrunk(model)
    x = rng.normal(size=(4, 6, 6, 3)).astype("float32")
    np.testing.assert_allclose(small(x), model(x), rtol=1e-4, atol=1e-5)
    assert small.layers[0].filters == 3
    kept = next(x for x in small.layers[::-1][1:] if hasattr(x, "kernel")).kernel.shape[-1]
    assert kept == (3 if activation == "tanh" else 5)


def test_layers_get_no_bias_without_need():
    layers = [L.Dense(4, use_bias=False, name=name) for name in "abc"]
    model = keras.Sequential([keras.Input((3,)), *layers])
    layers[1].kernel.assign(np.ones((4, 4)) * (np.arange(4) < 2)[:, None])
    small = shrunk(model)
    assert [layer.use_bias for layer in small.layers] == [False] * 3
    assert small.layers[0].units == 2
    x = np.ones((2, 3), "float32")
    np.testing.assert_allclose(small(x), model(x), rtol=1e-5)
