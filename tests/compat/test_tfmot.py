"""With tensorflow_model_optimization beside: one class of schedules, driving both libraries.

Each part runs in a process of its own, as importing tfmot turns `tf.keras` into Keras 2.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

import tfprune

needs_tfmot = pytest.mark.skipif(
    not importlib.util.find_spec("tensorflow_model_optimization"),
    reason="tensorflow_model_optimization is not installed",
)
needs_tf_keras = pytest.mark.skipif(
    not importlib.util.find_spec("tf_keras"),
    reason="tf_keras is not installed",
)


def run(program: str) -> None:
    env = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    env["PYTHONPATH"] = os.path.dirname(os.path.dirname(tfprune.__file__))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=env, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]


NO_SIDE_EFFECT = """
import os, sys
import keras, tensorflow as tf
before, loaded = dict(os.environ), set(sys.modules)
import tfprune
assert dict(os.environ) == before and "TF_USE_LEGACY_KERAS" not in before
heavy = ("tf_keras", "tensorflow_model_optimization", "matplotlib", "sklearn", "tqdm",
         "tensorflow_datasets", "ai_edge_litert")
new = [name for name in sys.modules if name not in loaded and name in heavy]
assert not new, new
assert tf.keras.layers.Dense is keras.layers.Dense  # tf.keras is Keras 3
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
"""


def test_importing_tfprune_changes_nothing():
    run(NO_SIDE_EFFECT)


SAME_CLASS = """
import {first}
import {second}
import tensorflow_model_optimization as tfmot, tfprune
base = tfmot.sparsity.keras.PruningSchedule
for cls in (tfprune.PruningSchedule, tfprune.ConstantSparsity, tfprune.PolynomialDecay,
            tfprune.SurgerySchedule):
    assert issubclass(cls, base), cls
assert issubclass(tfmot.sparsity.keras.ConstantSparsity, base)
assert isinstance(tfprune.ConstantSparsity(0.5, 0, 1, 1), base)
assert not issubclass(tfmot.sparsity.keras.ConstantSparsity, tfprune.PruningSchedule)
"""


@needs_tfmot
@pytest.mark.parametrize("first", ["tfprune", "tensorflow_model_optimization"])
def test_ours_are_subclasses_of_tfmots_in_either_order(first):
    second = {"tfprune": "tensorflow_model_optimization"}.get(first, "tfprune")
    run(SAME_CLASS.format(first=first, second=second))


OURS_DRIVE_TFMOT = """
import tfprune
import numpy as np, tensorflow as tf
import tensorflow_model_optimization as tfmot, tf_keras
layers = [tf_keras.layers.Dense(40, input_shape=(20,)), tf_keras.layers.Dense(5)]
model = tf_keras.Sequential(layers)
schedule = {schedule}
pruned = tfmot.sparsity.keras.prune_low_magnitude(model, pruning_schedule=schedule)
pruned.compile("sgd", "mse")
x = np.random.default_rng(0).normal(size=(80, 20)).astype("float32")
pruned.fit(x, x[:, :5], batch_size=8, epochs=2, verbose=0,
           callbacks=[tfmot.sparsity.keras.UpdatePruningStep()])
plain = tfmot.sparsity.keras.strip_pruning(pruned)
got = float(np.mean(plain.layers[0].get_weights()[0] == 0))
assert abs(got - 0.75) < 0.01, got
"""


@needs_tfmot
@pytest.mark.parametrize(
    "schedule",
    [
        "tfprune.ConstantSparsity(0.75, 2, 18, 4)",
        "tfprune.PolynomialDecay(0.0, 0.75, 2, 18, frequency=3)",
    ],
)
def test_ours_drive_tfmot(schedule, tmp_path):
    run(OURS_DRIVE_TFMOT.format(schedule=schedule, folder=tmp_path))


TFMOTS_DRIVE_OURS = """
import keras, numpy as np, tfprune
model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(40), keras.layers.Dense(5)])
model.compile("sgd", "mse")
import tensorflow_model_optimization as tfmot
schedule = {schedule}
pruned = tfprune.prune(model, tfprune.Magnitude(), schedule)
x = np.random.default_rng(0).normal(size=(80, 20)).astype("float32")
history = pruned.fit(x, x[:, :5], batch_size=8, epochs=2, verbose=0,
                     callbacks=[tfprune.PruningCallback()]).history
assert abs(history["sparsity"][-1] - 0.75) < 0.01, history
layer = tfprune.layers.MagnitudePruned(keras.layers.Dense(3), schedule=schedule)
layer.build((None, 4))
"""


@needs_tfmot
@pytest.mark.parametrize(
    "schedule",
    [
        "tfmot.sparsity.keras.ConstantSparsity(0.75, 2, 18, 4)",
        "tfmot.sparsity.keras.PolynomialDecay(0.0, 0.75, 2, 18, frequency=4)",
    ],
)
def test_tfmots_drive_ours(schedule):
    run(TFMOTS_DRIVE_OURS.format(schedule=schedule))


SAVED = """
import keras, numpy as np, tfprune
model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(40), keras.layers.Dense(5)])
import tensorflow_model_optimization as tfmot
schedule = tfmot.sparsity.keras.ConstantSparsity(0.75, 0, 8, 4)
pruned = tfprune.prune(model, tfprune.Magnitude(), schedule)
pruned.compile("sgd", "mse")
x = np.random.default_rng(0).normal(size=(80, 20)).astype("float32")
pruned.fit(x, x[:, :5], verbose=0, callbacks=[tfprune.PruningCallback()])
pruned.save("{folder}/model.keras")
again = tfprune.load_model("{folder}/model.keras")
np.testing.assert_array_equal(again.predict(x, verbose=0), pruned.predict(x, verbose=0))
assert again.layers[0].prune_state.schedule == tfprune.ConstantSparsity(0.75, 0, 8, 4)
again.fit(x, x[:, :5], verbose=0, callbacks=[tfprune.PruningCallback()])
"""


@needs_tfmot
def test_a_model_with_a_schedule_of_tfmots_is_saved_and_loaded(tmp_path):
    run(SAVED.format(folder=tmp_path))


NEVER = """
import warnings
import keras, numpy as np, tfprune
model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(5)])
model.compile("sgd", "mse")
import tensorflow_model_optimization as tfmot
schedule = tfmot.sparsity.keras.ConstantSparsity(0.75, 1000)
pruned = tfprune.prune(model, tfprune.Magnitude(), schedule)
x = np.zeros((80, 20), "float32")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    pruned.fit(x, x[:, :5], verbose=0, callbacks=[tfprune.PruningCallback()])
assert any("can never fire" in str(w.message) for w in caught)
"""


@needs_tfmot
def test_a_schedule_of_tfmots_that_can_never_fire():
    run(NEVER)


LEGACY = """
import tf_keras, tfprune
model = tf_keras.Sequential([tf_keras.layers.Dense(3, input_shape=(4,))])
for function in (lambda m: tfprune.prune(m, tfprune.Magnitude()), tfprune.strip):
    try:
        function(model)
    except TypeError as error:
        assert "Keras 2 model" in str(error) and "import keras" in str(error), error
    else:
        raise AssertionError("accepted")
"""


@needs_tf_keras
def test_a_keras_2_model_is_refused():
    run(LEGACY)


def test_without_tfmot_the_base_has_the_same_form():
    from tfprune.compat.tfmot import _OwnPruningSchedule, is_legacy_keras_model

    class Mine(_OwnPruningSchedule):
        def __init__(self, sparsity):
            self.sparsity = sparsity

        def __call__(self, step):
            return True, self.sparsity

        def get_config(self):
            return {"sparsity": self.sparsity}

    assert Mine.from_config(Mine(0.5).get_config())(3) == (True, 0.5)
    with pytest.raises(TypeError, match=r"abstract"):
        _OwnPruningSchedule()
    assert not is_legacy_keras_model(tfprune) and not is_legacy_keras_model(None)
