"""Every structure of model: identity at the start, training, exact strip, original untouched."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from pruned import structures
from pruned.structures import CASES
from pruned.user_classes import WithoutConfig

import tfprune
from tfprune.pruned.layers import STATE, left_out, pruned_layers

TIMING = tfprune.ConstantSparsity(0.6, begin_step=1, end_step=3, frequency=1)


def flat(outputs: Any) -> list[np.ndarray]:
    return [np.asarray(out) for out in keras.tree.flatten(outputs)]


def equal(one: Any, other: Any) -> bool:
    pairs = list(zip(flat(one), flat(other), strict=True))
    return all(np.array_equal(a, b) for a, b in pairs)


def train(model: keras.Model, x: Any, steps: int = 4) -> keras.callbacks.History:
    y = structures.targets(model(x))
    size = len(keras.tree.flatten(x)[0])
    if not model.compiled:
        model.compile("adam", "mse")
    return model.fit(
        x,
        y,
        batch_size=size,
        epochs=steps,
        verbose=0,
        callbacks=[tfprune.PruningCallback()],
    )


def snapshot(model: keras.Model) -> dict[str, Any]:
    """All that must not change in the user's model."""
    config = None if model.__class__ is WithoutConfig else model.get_config()
    every = model._flatten_layers()
    return {
        "types": [type(layer) for layer in every],
        "attributes": [sorted(vars(layer)) for layer in every],
        "trainable": [v.path for v in model.trainable_variables],
        "config": config,
        "compiled": model.compiled,
        "optimizer": id(model.optimizer) if model.compiled else None,
    }


@pytest.mark.parametrize("name", CASES)
def test_structure(name: str) -> None:
    model, x = structures.build(name), structures.data(name)
    in_place = not CASES[name].rebuilds
    model.compile("adam", "mse")
    dense, weights, before = model(x), model.get_weights(), snapshot(model)

    pruned = tfprune.prune(model, tfprune.Magnitude(), TIMING, in_place=in_place)
    assert equal(pruned(x), dense)
    assert pruned.compiled

    history = train(pruned, x)
    assert history.history["sparsity"][-1] == pytest.approx(0.6, abs=0.05)
    states = [getattr(layer, STATE) for _, layer in pruned_layers(pruned)]
    assert all(state.sparsity() > 0.2 for state in states)
    found = pruned(x)
    assert not equal(found, dense)

    plain = tfprune.strip(pruned, in_place=in_place)
    assert not tfprune.is_pruned(plain)
    assert equal(plain(x), found)
    assert [type(layer) for layer in plain._flatten_layers()] == before["types"]
    if not in_place:
        assert snapshot(model) == before
        assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), weights, strict=True))


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("shared_layer", "dense dense_1"),
        ("shared_model", "sequential/dense sequential/dense_1"),
        (
            "user_layers",
            "blocks/first blocks/point0 blocks/point1 centered_conv2d bilinear scaled_dense",
        ),
        ("tied_embedding", "tied_embedding/embedding"),
        ("with_lambda", "dense dense_1"),
    ],
)
def test_which_layers_are_pruned(name: str, paths: str) -> None:
    pruned = tfprune.prune(structures.build(name), tfprune.Magnitude(), TIMING)
    found = pruned_layers(pruned)
    assert sorted(path for path, _ in found) == sorted(paths.split())
    assert [layer.prune_state.path_in_model for _, layer in found] == [path for path, _ in found]


def test_recurrent_cells_are_all_found() -> None:
    pruned = tfprune.prune(structures.build("recurrent"), tfprune.Magnitude(), TIMING)
    paths = [path for path, _ in pruned_layers(pruned)]
    assert len(paths) == len(set(paths)) == 6
    assert {path.split("/")[-1] for path in paths} == {"dense", "dense_1", "lstm_cell", "gru_cell"}


def test_what_cannot_be_pruned_passes_through_and_is_listed() -> None:
    pruned = tfprune.prune(structures.build("convolutions"), tfprune.Magnitude(), TIMING)
    reasons = dict(left_out(pruned))
    assert set(reasons) == {"batch_normalization", "layer_normalization"}
    assert all("has no kernel" in reason for reason in reasons.values())


def test_declared_weights_are_pruned_and_the_rest_is_not() -> None:
    pruned = tfprune.prune(structures.build("user_layers"), tfprune.Magnitude(), TIMING)
    train(pruned, structures.data("user_layers"))
    weights = tfprune.pruned.layers.effective_weights(dict(pruned_layers(pruned))["bilinear"])
    zeros = {name: float(np.mean(value == 0)) for name, value in weights.items()}
    assert zeros["left"] == zeros["right"] == pytest.approx(0.6, abs=0.05)
    assert zeros["shift"] == 0


def test_tied_weight_is_masked_at_both_ends() -> None:
    pruned = tfprune.prune(structures.build("tied_autoencoder"), tfprune.Magnitude(), TIMING)
    x = structures.data("tied_autoencoder")
    train(pruned, x)
    kernel = tfprune.pruned.layers.effective_weights(pruned.encoder)["kernel"]
    bias = keras.ops.convert_to_numpy(pruned.encoder.bias)
    assert np.mean(kernel == 0) == pytest.approx(0.6)
    expected = np.maximum(x @ kernel + bias, 0) @ kernel.T
    np.testing.assert_allclose(np.asarray(pruned(x)), expected, rtol=1e-5, atol=1e-6)


def test_regularizers_see_the_latent_weights_and_activity_penalties_stay() -> None:
    model, x = structures.build("regularized"), structures.data("regularized")
    model(x)
    losses = [float(value) for value in model.losses]
    pruned = tfprune.prune(model, tfprune.Magnitude(), TIMING)
    pruned(x)
    assert [float(value) for value in pruned.losses] == losses
    plain = tfprune.strip(pruned)
    plain(x)
    assert [float(value) for value in plain.losses] == losses


def test_constraints_hold_after_training() -> None:
    pruned = tfprune.prune(structures.build("regularized"), tfprune.Magnitude(), TIMING)
    pruned.compile(keras.optimizers.SGD(1.0), "mse")
    train(pruned, structures.data("regularized"))
    kernels = [layer._kernel.numpy() for _, layer in pruned_layers(pruned)]
    assert np.linalg.norm(kernels[1], axis=0).max() <= 0.5 + 1e-5
    assert kernels[2].min() >= 0


@pytest.mark.parametrize("warm", [False, True])
def test_in_place_changes_the_steps_that_were_traced_before(warm: bool) -> None:
    model, x = structures.build("sequential"), structures.data("sequential")
    y = structures.targets(model(x))
    model.compile("adam", "mse")
    if warm:
        model.fit(x, y, verbose=0)
        model.evaluate(x, y, verbose=0)
        model.predict(x, verbose=0)
    pruned = tfprune.prune(model, tfprune.Magnitude(), TIMING, in_place=True)
    assert pruned is model
    train(pruned, x, 5)
    out = pruned(x)
    np.testing.assert_allclose(pruned.predict(x, verbose=0), out, rtol=1e-5, atol=1e-6)
    loss = float(np.mean((np.asarray(out) - y) ** 2))
    assert pruned.evaluate(x, y, verbose=0) == pytest.approx(loss, rel=1e-5)
    tfprune.strip(pruned, in_place=True)
    model.layers[-1].kernel.assign(np.ones((8, 2)))
    np.testing.assert_allclose(model.predict(x, verbose=0), model(x), rtol=1e-5, atol=1e-6)


def test_in_place_keeps_the_optimizer_and_its_state() -> None:
    model, x = structures.build("sequential"), structures.data("sequential")
    model.compile("adam", "mse")
    model.fit(x, structures.targets(model(x)), verbose=0, epochs=2)
    optimizer = model.optimizer
    slots = [variable.numpy() for variable in optimizer.variables]
    tfprune.prune(model, tfprune.Magnitude(), TIMING, in_place=True)
    assert model.optimizer is optimizer
    assert all(np.array_equal(a, b) for a, b in zip(slots, optimizer.variables, strict=True))
    train(model, x)
    assert int(optimizer.iterations) == 6
    assert dict(pruned_layers(model))["dense"].prune_state.sparsity() == pytest.approx(
        0.6, abs=0.02
    )


def test_in_place_strip_leaves_no_trace() -> None:
    model, x = structures.build("recurrent"), structures.data("recurrent")
    model(x)
    before, variables = snapshot(model), len(model.variables)
    tfprune.prune(model, tfprune.Magnitude(), TIMING, in_place=True)
    model(x)
    assert tfprune.strip(model, in_place=True) is model
    assert snapshot(model) == before
    assert len(model.variables) == variables


@pytest.mark.parametrize(
    ("name", "freeze"),
    [
        ("user_layers", lambda model: model.layers[1].others[0]),
        ("subclassed", lambda model: model.hidden),
        ("sequential_in_functional", lambda model: model.get_layer("inner")),
        ("recurrent", lambda model: model.layers[0].forward_layer),
        ("attention", lambda model: model.layers[2]._query_dense),
    ],
)
def test_frozen_layers_stay_frozen(name: str, freeze: Any) -> None:
    model = structures.build(name)
    freeze(model).trainable = False
    wanted = [tuple(v.shape) for v in model.trainable_variables]
    pruned = tfprune.prune(model, tfprune.Magnitude(), TIMING)
    assert [tuple(v.shape) for v in pruned.trainable_variables] == wanted
    assert [tuple(v.shape) for v in tfprune.strip(pruned).trainable_variables] == wanted


def _string_lookup() -> tuple[keras.Model, Any]:
    import tensorflow as tf

    lookup = layers.StringLookup()
    lookup.adapt(np.array(["a", "b", "c"]))
    inputs = layers.Input((3,), dtype="string")
    hidden = layers.Flatten()(layers.Embedding(5, 3)(lookup(inputs)))
    return keras.Model(inputs, layers.Dense(2)(hidden)), tf.constant([["a", "b", "zz"]])


def _text() -> tuple[keras.Model, Any]:
    import tensorflow as tf

    vectorize = layers.TextVectorization(output_sequence_length=3)
    vectorize.adapt(np.array(["a b c", "b c d"]))
    inputs = layers.Input((), dtype="string")
    hidden = layers.Flatten()(layers.Embedding(8, 3)(vectorize(inputs)))
    return keras.Model(inputs, layers.Dense(2)(hidden)), tf.constant(["a b c", "d c"])


def _discretization() -> tuple[keras.Model, Any]:
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    bins = layers.Discretization(num_bins=4)
    bins.adapt(x)
    inputs = layers.Input((4,))
    hidden = layers.Flatten()(layers.Embedding(5, 3)(bins(inputs)))
    return keras.Model(inputs, layers.Dense(2)(hidden)), x


@pytest.mark.parametrize("make", [_string_lookup, _text, _discretization])
def test_adapted_preprocessing_layers_keep_what_they_learned(make: Any) -> None:
    model, x = make()
    pruned = tfprune.prune(model, tfprune.Magnitude(), TIMING)
    assert equal(pruned(x), model(x))
    assert equal(tfprune.strip(pruned)(x), model(x))


def absolute(y: Any, found: Any) -> Any:
    return keras.ops.mean(keras.ops.abs(y - found))


@pytest.mark.parametrize("loss", [absolute, lambda y, found: absolute(y, found)])
def test_copy_is_compiled_with_the_users_own_loss_and_metric(loss: Any) -> None:
    model, x = structures.build("sequential"), structures.data("sequential")
    model.compile(keras.optimizers.SGD(0.25, momentum=0.9), loss, metrics=[absolute])
    pruned = tfprune.prune(model, tfprune.Magnitude(), TIMING)
    assert pruned.compiled
    assert pruned.optimizer is not model.optimizer
    assert float(pruned.optimizer.learning_rate) == 0.25
    assert "absolute" in train(pruned, x).history
    assert tfprune.strip(pruned).compiled


def test_uncompiled_model_stays_uncompiled() -> None:
    pruned = tfprune.prune(structures.build("sequential"), tfprune.Magnitude(), TIMING)
    assert not pruned.compiled
    assert not tfprune.strip(pruned).compiled


def test_subclassed_model_without_config_needs_in_place() -> None:
    model = structures.build("without_config")
    weights = model.get_weights()
    with pytest.raises(ValueError, match="in_place=True"):
        tfprune.prune(model, tfprune.Magnitude(), TIMING)
    assert not tfprune.is_pruned(model)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), weights, strict=True))


def test_shared_layer_counts_its_steps_once() -> None:
    pruned = tfprune.prune(structures.build("shared_layer"), tfprune.Magnitude(), TIMING)
    train(pruned, structures.data("shared_layer"), 4)
    assert [layer.prune_state.count("last_step") for _, layer in pruned_layers(pruned)] == [3, 3]


def test_copy_shares_no_layer_with_the_original() -> None:
    for name in ("shared_model", "functional_in_sequential", "user_layers", "subclassed"):
        model = structures.build(name)
        pruned = tfprune.prune(model, tfprune.Magnitude(), TIMING)
        assert not {id(x) for x in model._flatten_layers()} & {
            id(x) for x in pruned._flatten_layers()
        }


def test_lambda_layer_of_the_original_gets_no_second_node() -> None:
    model = structures.build("with_lambda")
    [held] = [layer for layer in model.layers if isinstance(layer, layers.Lambda)]
    tfprune.prune(model, tfprune.Magnitude(), TIMING)
    assert len(held._inbound_nodes) == 1
    assert held.output.shape == (None, 6)


def test_warns_where_a_layer_does_not_use_its_weight() -> None:
    class Ignores(layers.Dense):
        def call(self, x: Any) -> Any:
            return keras.ops.matmul(x, self._kernel)

    keras.backend.clear_session()
    model = keras.Sequential([layers.Input((4,)), Ignores(2), layers.Dense(2)])
    pruned = tfprune.prune(model, tfprune.Magnitude(), TIMING)
    with pytest.warns(UserWarning, match=r"does not use the attributes \['kernel'\]"):
        pruned(np.ones((1, 4), "float32"))


def test_kernel_cannot_be_replaced_quantized_or_adapted() -> None:
    pruned = tfprune.prune(structures.build("sequential"), tfprune.Magnitude(), TIMING)
    layer = pruned.layers[0]
    with pytest.raises(AttributeError, match="cannot be replaced"):
        layer.kernel = np.ones((4, 8))
    with pytest.raises(ValueError, match="strip"):
        layer.quantize("int8")
    with pytest.raises(ValueError, match="strip"):
        pruned.quantize("int8")
    with pytest.raises(ValueError, match="strip"):
        layer.enable_lora(2)
