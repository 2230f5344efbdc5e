"""Methods and training on Keras' other backends, each in a process of its own, where installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
import keras, numpy as np, tfprune
import contract.domain as domain

assert "tensorflow" not in sys.modules
rng = np.random.default_rng(0)
x, y = rng.normal(size=(64, 8, 8, 1)).astype("float32"), rng.integers(0, 10, 64)
layers = keras.layers
for method in (
    tfprune.NetworkSurgery(c=0.5),
    tfprune.NetworkSurgery(target_sparsity=0.7),
    tfprune.Magnitude(0.6, scope="global"),
    domain.SignedStrength(),
):
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(8, 3), layers.Flatten(),
                              layers.BatchNormalization(), layers.Reshape((36, 8)),
                              layers.LSTM(8), layers.Dense(10)])
    pruned = tfprune.prune(model, method)
    np.testing.assert_allclose(pruned.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)
    pruned.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    fit = {"batch_size": 16, "verbose": 0, "callbacks": [tfprune.PruningCallback()]}
    history = pruned.fit(x, y, epochs=3, **fit).history
    assert history["sparsity"][-1] > 0.4, history
    plain = tfprune.strip(pruned)
    np.testing.assert_array_equal(plain.predict(x, verbose=0), pruned.predict(x, verbose=0))
    pruned.save("{folder}/pruned.keras")
    again = keras.models.load_model("{folder}/pruned.keras")
    for old, new in zip(pruned.variables, again.variables):
        if "seed_generator" not in old.path:
            np.testing.assert_array_equal(
                keras.ops.convert_to_numpy(new), keras.ops.convert_to_numpy(old), old.path
            )
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_backend(backend: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    tests = Path(__file__).resolve().parent
    env = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": f"{tests.parent}:{tests}"}
    program = PROGRAM.replace("{folder}", str(tmp_path))
    run = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr[-3000:]
