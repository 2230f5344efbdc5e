"""What training refuses or warns about: callbacks, schedules, steps, methods."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import warnings

import keras
import pytest
from small import build, data, fit

import tfprune


def nested(pruned):
    outer = keras.Sequential([keras.layers.Input((6,)), pruned])
    outer.compile("sgd", "mse")
    return outer


def wrapped():
    model = keras.Sequential(
        [keras.layers.Input((6,)), tfprune.layers.MagnitudePruned(keras.layers.Dense(4))]
    )
    model.compile("sgd", "mse")
    return model


MODELS = {
    "pruned": lambda: tfprune.prune(build(), tfprune.Magnitude()),
    "in_place": lambda: tfprune.prune(build(), tfprune.Magnitude(), in_place=True),
    "nested": lambda: nested(tfprune.prune(build(), tfprune.Magnitude())),
    "wrapped": wrapped,
}


@pytest.mark.parametrize("kind", ["pruned", "in_place"])
@pytest.mark.parametrize("callbacks", [None, [], [keras.callbacks.Callback()]])
def test_no_callback(kind, callbacks):
    x, y = data()
    with pytest.raises(ValueError, match=r"callbacks=\[tfprune.PruningCallback\(\)\]"):
        MODELS[kind]().fit(x, y, verbose=0, callbacks=callbacks)


@pytest.mark.parametrize("kind", ["nested", "wrapped"])
def test_no_callback_for_a_part_of_a_model(kind):
    """Its `fit` is Keras' own, and a loop of the user's own may be meant: a warning."""
    with pytest.warns(UserWarning, match=r"without a tfprune\.PruningCallback"):
        fit(MODELS[kind]())


@pytest.mark.parametrize("kind", MODELS)
def test_two_callbacks(kind):
    with pytest.raises(ValueError, match=r"one PruningCallback.*Received: two"):
        fit(MODELS[kind](), tfprune.PruningCallback(), tfprune.PruningCallback())


def test_a_callback_without_a_pruned_model():
    with pytest.raises(ValueError, match=r"no pruned layer.*tfprune.prune"):
        fit(build(), tfprune.PruningCallback())


def test_the_model_that_was_pruned_rather_than_the_pruned_one():
    model = build()
    tfprune.prune(model, tfprune.Magnitude())
    with pytest.raises(ValueError, match=r"the model that it returns"):
        fit(model, tfprune.PruningCallback())


@pytest.mark.parametrize("total", [0, -5, 2.5, "100"])
def test_bad_total_steps(total):
    with pytest.raises((TypeError, ValueError), match=r"total_steps.*Received"):
        tfprune.PruningCallback(total_steps=total)
    with pytest.raises((TypeError, ValueError), match=r"total_steps.*Received"):
        tfprune.Pruner(tfprune.prune(build(), tfprune.Magnitude()), total_steps=total)


def test_a_pruner_that_must_know_the_steps():
    pruner = tfprune.Pruner(tfprune.prune(build(), tfprune.Magnitude()))
    with pytest.raises(ValueError, match=r"total_steps"):
        pruner.update()


class Foreign:
    """A schedule that tfprune knows nothing of."""

    def __init__(self, begin, sparsity=0.5):
        self.begin, self.asked = begin, sparsity

    def __call__(self, step):
        return step >= self.begin, self.asked

    def get_config(self):
        return {"begin": self.begin}


@pytest.mark.parametrize(
    "schedule",
    [
        tfprune.ConstantSparsity(0.5, 5, 9, 1),
        tfprune.PolynomialDecay(0.0, 0.5, begin_step=1000),
        {"one": tfprune.ConstantSparsity(0.5, 0, 2, 1), "two": tfprune.ConstantSparsity(0.5, 50)},
        Foreign(1000),
    ],
)
def test_a_schedule_that_can_never_fire_is_warned_about_at_the_start(schedule):
    model, begun = tfprune.prune(build(), tfprune.Magnitude(), schedule), []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        note = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: begun.append(len(caught))
        )
        fit(model, tfprune.PruningCallback(), note)
    early = [str(warning.message) for warning in caught[: begun[0]]]
    assert sum("can never fire" in message for message in early) == 1


def test_a_schedule_that_fires_is_not_warned_about():
    model = tfprune.prune(build(), tfprune.Magnitude(), tfprune.ConstantSparsity(0.5, 4, 4, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(model, tfprune.PruningCallback())


def test_a_missed_target_is_warned_about():
    schedule = tfprune.PolynomialDecay(0.0, 0.9, 0, 100, frequency=1)
    model = tfprune.prune(build(), tfprune.Magnitude(), schedule)
    with pytest.warns(UserWarning, match=r"Target missed: one.* instead of 0\.9000"):
        fit(model, tfprune.PruningCallback())


def test_two_sparsities_that_disagree():
    with pytest.raises(ValueError, match=r"0\.9.*0\.5|0\.5.*0\.9"):
        tfprune.prune(build(), tfprune.Magnitude(0.9), tfprune.ConstantSparsity(0.5))


@pytest.mark.parametrize("sparsity", [1.0, -0.5, float("nan"), 50])
def test_a_foreign_schedule_that_asks_for_nonsense(sparsity):
    model = tfprune.prune(build(), tfprune.Magnitude(), Foreign(0, sparsity))
    with pytest.raises(ValueError, match=r"sparsity.*Received"):
        fit(model, tfprune.PruningCallback())


def test_weights_of_a_pruned_layer_cannot_be_replaced_or_quantised():
    layer = tfprune.prune(build(), tfprune.Magnitude()).get_layer("one")
    with pytest.raises(AttributeError, match=r"kernel.*strip"):
        layer.kernel = 3
    for name, arguments in (("quantize", ("int8",)), ("enable_lora", (2,))):
        with pytest.raises(ValueError, match=rf"{name}.*strip"):
            getattr(layer, name)(*arguments)


def test_methods_that_cannot_be_registered():
    class NotOne:
        pass

    class NotFrozen(tfprune.Method):
        pass

    for cls, message in ((NotOne, "subclass"), (NotFrozen, "frozen dataclass"), (3, "subclass")):
        with pytest.raises(TypeError, match=message):
            tfprune.register(cls)

    @dataclasses.dataclass(frozen=True)
    class Magnitude(tfprune.Method):
        pass

    with pytest.raises(ValueError, match=r"'Magnitude' is registered already"):
        tfprune.register(Magnitude)


def test_a_method_without_rules():
    @dataclasses.dataclass(frozen=True)
    class Empty(tfprune.Method):
        pass

    model = tfprune.prune(build(), Empty())
    with pytest.raises(NotImplementedError, match=r"Empty must define `score`"):
        fit(model, tfprune.PruningCallback())


def test_a_method_that_needs_what_is_not_served():
    @dataclasses.dataclass(frozen=True)
    class Needy(tfprune.Magnitude):
        needs = ("moon_phase",)

    with pytest.raises(ValueError, match=r"moon_phase"):
        tfprune.prune(build(), Needy())


KERAS_2 = """
import pytest, numpy, tensorflow, tf_keras, tfprune
inputs = tf_keras.Input((4,))
for model in (tf_keras.Sequential([tf_keras.layers.Dense(3, input_shape=(4,))]),
              tf_keras.Model(inputs, tf_keras.layers.Dense(3)(inputs))):
    for function in (lambda m: tfprune.prune(m, tfprune.Magnitude()), tfprune.strip):
        with pytest.raises(TypeError, match=r"Keras 3 model. Received a Keras 2 model"):
            function(model)
with pytest.raises((TypeError, ValueError), match=r"Keras 2"):
    tfprune.layers.MagnitudePruned(tf_keras.layers.Dense(3))
"""


def test_a_keras_2_model():
    pytest.importorskip("tf_keras")
    env = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(tfprune.__file__))}
    done = subprocess.run([sys.executable, "-c", KERAS_2], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
