"""compact: the same outputs by sparse layers, in models of many kinds, and in files."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfprune
from tfprune import ops
from tfprune.inference.sparse_layers import SparseConv

L = keras.layers


def sparse(model, density=0.2, seed=0, dct=False):
    """Random weights and statistics; kernels with zeros, of weights or of DCT coefficients."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        for variable in getattr(layer, "_trainable_variables", []):
            value = rng.normal(0, 0.4, size=variable.shape)
            if "kernel" in variable.path:
                value = value * (rng.random(variable.shape) < density)
                if dct and len(variable.shape) == 4:
                    vertical, horizontal = (basis(n) for n in variable.shape[:2])
                    value = np.einsum("up,vq,uvio->pqio", vertical, horizontal, value)
            variable.assign(value)
        if isinstance(layer, L.BatchNormalization):
            layer.moving_mean.assign(0.3 * rng.normal(size=layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 2, layer.moving_variance.shape))
    return model


def basis(size):
    u, p = np.mgrid[:size, :size]
    rows = np.cos(np.pi * (2 * p + 1) * u / (2 * size)) * np.sqrt(2 / size)
    rows[0] /= np.sqrt(2)
    return rows


def plain_net():
    inputs = keras.Input((12, 12, 3))
    x = L.Conv2D(8, 3, padding="same", use_bias=False, name="a")(inputs)
    x = L.ReLU(6.0)(L.BatchNormalization()(x))
    x = L.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2, name="b")(x)
    x = L.Activation("relu")(L.BatchNormalization(scale=False)(x))
    x = L.Conv2D(8, (5, 3), dilation_rate=2, padding="same", activation="tanh", name="c")(x)
    x = L.BatchNormalization(center=False)(x)
    x = L.Conv2D(12, 1, groups=2, name="d")(x)
    return keras.Model(inputs, L.Dense(4, activation="softmax", name="e")(L.Flatten()(x)))


def residual_net():
    inputs = keras.Input((10, 10, 4))
    x = L.Conv2D(6, 3, padding="same", name="a")(inputs)
    y = L.ReLU()(L.BatchNormalization()(L.Conv2D(6, 3, padding="same", name="b")(x)))
    x = L.ReLU()(L.Add()([x, L.BatchNormalization()(L.Conv2D(6, 3, padding="same")(y))]))
    return keras.Model(inputs, [L.GlobalAveragePooling2D()(x), L.Conv2D(3, 3, strides=2)(x)])


def line_net():
    return keras.Sequential(
        [
            keras.Input((20, 5)),
            L.Conv1D(8, 3, padding="causal", dilation_rate=2, activation="relu"),
            L.Conv1D(8, 4, strides=2, padding="same", activation="gelu"),
            L.GlobalMaxPooling1D(),
            L.Dense(6, activation="relu6"),
            L.Dense(3),
        ]
    )


def nested_net():
    inner = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(6, 3), L.BatchNormalization()])
    shared = L.Conv2D(6, 3, padding="same")
    inputs = keras.Input((8, 8, 3))
    x = shared(shared(L.ReLU()(inner(inputs))))
    return keras.Model(inputs, L.Dense(2)(L.GlobalMaxPooling2D()(x)))


NETS = {"plain": plain_net, "residual": residual_net, "line": line_net, "nested": nested_net}


def same(found, expected):
    found, expected = (keras.tree.flatten(x) for x in (found, expected))
    for one, other in zip(found, expected, strict=True):
        assert np.abs(one - other).max() <= 1e-5 * max(np.abs(other).max(), 1e-2)


def inputs_for(model, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(5, *model.input_shape[1:])).astype("float32")


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("dct", [False, True])
def test_outputs_stay_the_same(name, dct, tmp_path):
    model = sparse(NETS[name](), dct=dct)
    x = inputs_for(model)
    expected = model.predict(x, verbose=0)
    fast = tfprune.compact(model, choose="always")
    same(fast.predict(x, verbose=0), expected)
    assert any(isinstance(layer, SparseConv) for layer in fast._flatten_layers())
    fast.save(tmp_path / "fast.keras")
    same(keras.models.load_model(tmp_path / "fast.keras").predict(x, verbose=0), expected)
    fast.export(tmp_path / "saved", format="tf_saved_model", verbose=False)
    saved = tf.saved_model.load(str(tmp_path / "saved"))
    same(saved.serve(x), expected)


def test_what_becomes_of_each_layer():
    fast = tfprune.compact(sparse(plain_net()), choose="always")
    choices = {choice.name: choice for choice in tfprune.compaction(fast)}
    assert {c.form for c in choices.values()} == {"sparse"} and len(choices) == 5
    assert len(choices["a"].absorbed) == 2 and len(choices["b"].absorbed) == 2
    assert choices["c"].absorbed == ()  # its activation is not linear
    assert not any(isinstance(x, L.ReLU) for x in fast.layers)
    assert [type(x).__name__ for x in fast.layers].count("BatchNormalization") == 1
    assert fast.get_layer("a").spec.activation == "relu6"
    assert fast.get_layer("c").spec.activation == "linear"


def test_the_basis_with_fewer_entries_is_taken():
    for dct in (False, True):
        fast = tfprune.compact(sparse(residual_net(), dct=dct), choose="always")
        assert {c.basis for c in tfprune.compaction(fast)} == {"dct" if dct else "spatial"}
        density = [c.density for c in tfprune.compaction(fast)]
        assert min(density) > 0.1 and max(density) < 0.3


def test_dense_layers_stay_dense_and_take_their_normalization():
    model = sparse(residual_net(), density=1.0)
    x = inputs_for(model)
    for choose in ("measured", "modelled"):
        fast = tfprune.compact(model, choose=choose)
        assert {c.form for c in tfprune.compaction(fast)} == {"dense"}
        assert not any(isinstance(layer, L.BatchNormalization) for layer in fast.layers)
        same(fast.predict(x, verbose=0), model.predict(x, verbose=0))


def test_choices_are_measured_or_modelled():
    model = sparse(plain_net(), density=0.05)
    measured = tfprune.compaction(tfprune.compact(model))
    assert all(c.sparse_ms > 0 and c.dense_ms > 0 for c in measured if c.reason == "measured")
    assert all((c.form == "sparse") == (c.sparse_ms < c.dense_ms) for c in measured)
    modelled = tfprune.compaction(tfprune.compact(model, choose="modelled"))
    assert {c.form for c in modelled} == {"sparse"}
    assert all(c.sparse_ms is None for c in modelled)


@pytest.mark.parametrize(
    "method",
    [
        tfprune.FrequencyDomain(target_sparsity=0.8),
        tfprune.Magnitude(0.8),
        tfprune.SynapticStrength(0.6, keep_ends=False),
    ],
    ids=lambda m: type(m).__name__,
)
def test_pruned_nets(method):
    model = sparse(residual_net(), density=1.0)
    model.compile(keras.optimizers.SGD(1e-3), ["mse", "mse"])
    pruned = tfprune.prune(model, method)
    x = np.random.default_rng(0).normal(size=(32, 10, 10, 4)).astype("float32")
    y = [np.zeros((32, *out[1:]), "float32") for out in model.output_shape]
    pruned.fit(x, y, 8, 4, verbose=0, callbacks=[tfprune.PruningCallback()])
    fast = tfprune.compact(pruned, choose="always")
    same(fast.predict(x, verbose=0), pruned.predict(x, verbose=0))
    assert max(c.density for c in tfprune.compaction(fast)) < 0.9


def test_reports_count_what_is_left():
    model = sparse(residual_net())
    pruned = tfprune.prune(model, tfprune.Magnitude(0.5))
    found = tfprune.report(tfprune.compact(model, choose="always")).to_dict()
    assert [row["kind"] for row in found["layers"]] == ["SparseConv"] * 4
    dense = tfprune.report(pruned).to_dict()
    assert found["macs"] == dense["macs"]
    kernels = sum(int(np.prod(x.kernel.shape)) for x in model.layers if isinstance(x, L.Conv2D))
    assert found["kernel_parameters"] == dense["kernel_parameters"] == kernels
    assert 0.15 < found["kernel_nonzero"] / kernels < 0.25
    assert 0.15 < found["macs_kept"] / found["macs"] < 0.25 and found["transform_macs"] == 0


def test_open_sizes_and_batches():
    inputs = keras.Input((None, None, 3))
    model = sparse(keras.Model(inputs, L.Conv2D(5, 3, strides=2, padding="same")(inputs)))
    fast = tfprune.compact(model)
    assert tfprune.compaction(fast)[0].reason.startswith("by its density")
    for size in ((7, 9), (8, 8), (1, 2)):
        x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32")
        same(fast.predict(x, verbose=0), model.predict(x, verbose=0))
    assert fast.compute_output_shape((None, 9, None, 3)) == (None, 5, None, 5)


def test_stored_halves():
    model = sparse(plain_net(), density=0.5)
    x = inputs_for(model)
    expected, sizes = model.predict(x, verbose=0), {}
    for storage in ("float32", "bfloat16", "float16"):
        fast = tfprune.compact(model, "always", storage)
        sizes[storage] = sum(getattr(layer, "packed_bytes", 0) for layer in fast.layers)
        error = np.abs(fast.predict(x, verbose=0) - expected)
        assert error.max() < {"float32": 1e-5, "bfloat16": 0.2, "float16": 0.02}[storage]
    assert sizes["float16"] == sizes["bfloat16"] < 0.85 * sizes["float32"]


def test_jit_compile_is_left_out():
    fast = tfprune.compact(sparse(plain_net()), choose="always")
    x = inputs_for(fast)
    expected = fast.predict(x, verbose=0)
    fast.compile("sgd", "mse", jit_compile="auto")
    assert fast.jit_compile is False
    same(fast.predict(x, verbose=0), expected)


def test_the_twin_computes_the_same(monkeypatch):
    """Also after other weights were put into a model that has been traced."""
    fast = tfprune.compact(sparse(residual_net()), choose="always")
    x = inputs_for(fast)
    layer = next(layer for layer in fast.layers if isinstance(layer, SparseConv))
    first = layer.get_weights()
    weights = layer.sparse_weights
    doubled = dataclasses.replace(weights, values=2 * weights.values).to_bytes()
    second = [np.frombuffer(doubled, np.uint8)]

    def predictions():
        fast.predict_function = None
        for kept in (first, second):
            layer.set_weights(kept)
            yield fast.predict(x, verbose=0)

    expected = list(predictions())
    monkeypatch.setattr(ops.conv, "native", lambda: None)
    for found, one in zip(predictions(), expected, strict=True):
        same(found, one)


def test_gradients_reach_the_inputs():
    model = sparse(residual_net())
    fast = tfprune.compact(model, choose="always")
    x = tf.constant(inputs_for(model))

    @tf.function
    def slope(net, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.add_n([tf.reduce_sum(tf.sin(y)) for y in net(x)])
        return tape.gradient(loss, x)

    same(slope(fast, x).numpy(), slope(model, x).numpy())


def test_refusals():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    model = Own()
    model(np.ones((1, 2)))
    with pytest.raises(ValueError, match="Functional or Sequential"):
        tfprune.compact(model)
    with pytest.raises(ValueError, match="`choose` must be one of"):
        tfprune.compact(plain_net(), choose="best")
    with pytest.raises(ValueError, match="`storage` must be one of"):
        tfprune.compact(plain_net(), storage="int8")
    with pytest.raises(TypeError):
        tfprune.compact("model.keras")
