"""Maps of sensitivity: their numbers, blank where pruned, and one picture per epoch."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfprune
from tfprune.report.figures.sensitivity import sensitivity_maps


def pruned_net() -> tuple[keras.Model, np.ndarray, np.ndarray]:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((5, 5, 1)),
            layers.Conv2D(3, 3, name="conv"),
            layers.Flatten(),
            layers.Dense(4, activation="softmax", name="dense"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 5, 5, 1)).astype("float32"), rng.integers(0, 4, 20)
    return tfprune.prune(model, tfprune.SensitivityDriven(target_sparsity=0.5)), x, y


def test_maps_hold_the_sensitivity_of_what_is_kept(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pruned, x, y = pruned_net()
    maps = tfprune.SensitivityMaps(x[:8], folder=tmp_path, every=2)
    history = pruned.fit(x, y, 5, 3, verbose=0, callbacks=[tfprune.PruningCallback(), maps])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch_0001.png", "epoch_0003.png"]
    assert (tmp_path / "epoch_0001.png").read_bytes().startswith(b"\x89PNG")

    found = sensitivity_maps(pruned, x[:8])
    assert history.history["sensitivity/dense"][-1] == pytest.approx(np.nanmean(found["dense"]))
    plain = tfprune.strip(pruned)
    plain.layers[-1].activation = keras.activations.linear
    kernel = plain.layers[-1].kernel
    with tf.GradientTape() as tape:
        outputs = plain(x[:8])
    jacobian = tape.jacobian(outputs, kernel.value).numpy()
    expected = np.abs(jacobian.mean(0)).mean(0)
    alive = np.isfinite(found["dense"])
    assert alive.mean() == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(found["dense"][alive], expected[alive], rtol=1e-4, atol=1e-7)


def test_a_plain_model_has_no_maps() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="no pruned layer"):
        sensitivity_maps(model, np.zeros((2, 3), "float32"))


def test_measuring_leaves_the_state_of_a_recurrent_layer() -> None:
    layers = keras.layers
    inputs = keras.Input((5, 4), batch_size=6)
    model = keras.Model(inputs, layers.Dense(3)(layers.LSTM(4, stateful=True)(inputs)))
    pruned = tfprune.prune(model, tfprune.SensitivityDriven())
    x = np.ones((6, 5, 4), "float32")
    maps = sensitivity_maps(pruned, x)
    assert all(np.asarray(m).any() for m in maps.values())
    assert not any(np.asarray(state).any() for state in pruned.layers[1].states)
