"""Files of earlier versions load: pruned models, wrappers, packed models.

`old/` was written by the version of 2026-11-28, before the contract of a method was cut.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

import tfprune
from tfprune.pruned.layers import pruned_layers

OLD = Path(__file__).with_name("old")
to_numpy = keras.ops.convert_to_numpy


@pytest.fixture(scope="module")
def expected():
    with np.load(OLD / "expected.npz") as arrays:
        return dict(arrays)


def masks_of(name, model):
    return {
        f"{name}/{path}/{weight}": np.packbits(to_numpy(mask))
        for path, layer in pruned_layers(model)
        for weight, mask in layer.prune_state.masks.items()
    }


@pytest.mark.parametrize(("name", "inputs"), [("methods", "x"), ("wrappers", "xs")])
def test_masks_and_outputs_come_back(name, inputs, expected):
    model = keras.models.load_model(OLD / f"{name}.keras")
    masks = masks_of(name, model)
    assert masks.keys() == {key for key in expected if key.startswith(f"{name}/")}
    for key, mask in masks.items():
        np.testing.assert_array_equal(mask, expected[key], key)
    outputs = model.predict(expected[inputs], verbose=0)
    np.testing.assert_allclose(outputs, expected[name], rtol=1e-5, atol=1e-6)


def test_settings_come_back():
    model = keras.models.load_model(OLD / "methods.keras")
    methods = {path: layer.prune_state.method for path, layer in pruned_layers(model)}
    assert methods == {
        "conv": tfprune.FrequencyDomain(c=0.5, band=tfprune.bands.Beta(1.5)),
        "deep": tfprune.SynapticStrength(target_sparsity=0.4),
        "head": tfprune.SensitivityDriven(threshold=[(0.0, 0.01), (1.0, 0.2)]),
    }
    wrapped = keras.models.load_model(OLD / "wrappers.keras")
    assert wrapped.get_layer("wrapped").method == tfprune.NetworkSurgery(c=0.3)
    assert wrapped.get_layer("second").schedule.final_sparsity == 0.5


def test_training_goes_on(expected):
    model = keras.models.load_model(OLD / "methods.keras")
    x = np.repeat(expected["x"], 8, axis=0)
    history = model.fit(
        x, np.arange(32) % 3, 8, 1, verbose=0, callbacks=[tfprune.PruningCallback()]
    ).history
    assert np.isfinite(history["loss"]).all() and 0 < history["sparsity"][-1] < 1
    plain = tfprune.strip(model)
    np.testing.assert_array_equal(plain(x), model(x))


def test_packed_models_come_back(expected):
    model = keras.models.load_model(OLD / "packed.keras")
    assert {choice.form for choice in tfprune.compaction(model)} == {"sparse"}
    outputs = model.predict(expected["x"], verbose=0)
    np.testing.assert_allclose(outputs, expected["packed"], rtol=1e-5, atol=1e-6)
