"""PruningCallback beside other callbacks: logs, checkpoints, early stopping, in any order."""

from __future__ import annotations

import csv
import importlib.util
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from toys import DECAY, TARGET, build, data, dense_model, fit, masks_of

import tfprune
from tfprune.pruned.layers import effective_weights, pruned_layers


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


# In a model of wrappers nothing arranges the callbacks: there PruningCallback has to stand first.
@pytest.mark.parametrize(("place", "wrapped"), [(0, False), (1, False), (3, False), (0, True)])
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
    assert min(history["sparsity"]) >= 0 and max(history["sparsity"]) < 1


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
    with pytest.warns(UserWarning, match=r"Target missed"):
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
