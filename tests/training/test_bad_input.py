"""What users get wrong, and what they are told: the error's type, what must hold, what was received."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import warnings
import zipfile

import keras
import numpy as np
import pytest
from keras import ops

import tfprune


def build(units=4, compiled=True):
    model = keras.Sequential(
        [
            keras.layers.Input((6,)),
            keras.layers.Dense(8, activation="relu", name="one"),
            keras.layers.Dense(units, name="two"),
        ]
    )
    if compiled:
        model.compile("sgd", "mse")
    return model


def data(rows=40):
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, 6)), rng.normal(size=(rows, 4))


def fit(model, *callbacks, **settings):
    x, y = data()
    return model.fit(x, y, 8, verbose=0, callbacks=list(callbacks), **settings)


METHODS = [tfprune.Magnitude, tfprune.NetworkSurgery]
SPARSITIES = [
    (1.0, ValueError, r"`target_sparsity` must be .*\[0, 1\).*Received: 1\.0"),
    (1.5, ValueError, r"\[0, 1\).*Received: 1\.5"),
    (-0.1, ValueError, r"\[0, 1\).*Received: -0\.1"),
    (90, ValueError, r"percent.*Received: 90"),
    (float("nan"), ValueError, "finite.*Received: nan"),
    (float("-inf"), ValueError, "finite.*Received: -inf"),
    ("0.5", TypeError, "number.*Received: '0.5'"),
    ([0.5], TypeError, r"number.*Received: \[0.5\]"),
    (True, TypeError, "number.*Received: True"),
    (0.5j, TypeError, "number.*Received"),
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("value", "error", "message"), SPARSITIES)
def test_sparsity(method, value, error, message):
    with pytest.raises(error, match=message):
        method(target_sparsity=value)


@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), 0])
def test_sparsities_of_numpy_are_welcome(value, tmp_path):
    model = tfprune.prune(build(), tfprune.Magnitude(target_sparsity=value))
    model.save(tmp_path / "model.keras")
    assert tfprune.is_pruned(tfprune.load_model(tmp_path / "model.keras"))


def test_scope():
    with pytest.raises(ValueError, match="scope.*Received: 'network'"):
        tfprune.Magnitude(scope="network")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "Received: None"),
        ("model.keras", "Received: 'model.keras'"),
        (keras.layers.Dense(3), "Received: <Dense"),
        (build, "Received: <function build"),
    ],
)
@pytest.mark.parametrize("function", [lambda m: tfprune.prune(m, tfprune.Magnitude()), tfprune.strip])
def test_no_model(model, message, function):
    with pytest.raises(TypeError, match=r"must be a.*keras\.Model.*" + message):
        function(model)


@pytest.mark.parametrize(
    "method", [None, "magnitude", tfprune.Magnitude, 0.5, {"one": "magnitude"}, {"one": 0.5}]
)
def test_no_method(method):
    with pytest.raises(TypeError, match=r"`method` must be an instance.*Received: "):
        tfprune.prune(build(), method)


@pytest.mark.parametrize("method", [{}, {"nosuch": tfprune.Magnitude()}, {"(": tfprune.Magnitude()}])
def test_methods_for_no_layer(method):
    with pytest.raises(ValueError, match=r"empty dict|nosuch.*selects none|not a regular expression"):
        tfprune.prune(build(), method)


@pytest.mark.parametrize(
    "schedule",
    ["polynomial", 0.5, tfprune.PolynomialDecay, {"one": 3}, [tfprune.ConstantSparsity(0.5)]],
)
def test_no_schedule(schedule):
    with pytest.raises(TypeError, match=r"`schedule` must be a PruningSchedule.*Received: "):
        tfprune.prune(build(), tfprune.Magnitude(), schedule)


def test_a_schedule_in_the_place_of_the_method():
    with pytest.raises(TypeError, match="method.*Received: ConstantSparsity"):
        tfprune.prune(build(), tfprune.ConstantSparsity(0.5))


@pytest.mark.parametrize(
    ("filters", "error", "message"),
    [
        ("conv", ValueError, "'conv' selects none.*one, two"),
        ("(", ValueError, r"'\(' is not a regular expression"),
        (["one", "three"], ValueError, "'three' selects none"),
        ([], ValueError, "No layer is selected"),
        ({}, ValueError, "No layer is selected|empty"),
        ({"one": False, "two": False}, ValueError, "No layer is selected"),
        (lambda layer: False, ValueError, "selects none"),
        (keras.layers.Conv2D, ValueError, "selects none"),
        (3, TypeError, "filters.*Received: 3"),
        ([3], TypeError, "Received: 3"),
        ([None], TypeError, "Received: None"),
    ],
)
def test_filters(filters, error, message):
    with pytest.raises(error, match=message):
        tfprune.prune(build(), tfprune.Magnitude(), filters=filters)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["kernel", "bias"])
def test_weights_that_are_not_finite(value, name):
    model = build()
    variable = getattr(model.get_layer("two"), name)
    array = np.array(ops.convert_to_numpy(variable))
    array.flat[1] = value
    variable.assign(array)
    with pytest.raises(ValueError, match=f"finite.*`{name}` of layer 'two'"):
        tfprune.prune(model, tfprune.NetworkSurgery())
    assert not tfprune.is_pruned(model)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_refused_model_is_left_as_it_was(in_place):
    model = build()
    kernel = model.get_layer("two").kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    before, classes = model.get_weights(), [type(layer) for layer in model.layers]
    with pytest.raises(ValueError, match="finite"):
        tfprune.prune(model, tfprune.Magnitude(), in_place=in_place)
    assert [type(layer) for layer in model.layers] == classes and not tfprune.is_pruned(model)
    for one, two in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("method", [tfprune.Magnitude(), tfprune.NetworkSurgery(c=0.1)])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_become_nan_while_training(method, bad):
    model = tfprune.prune(build(), method, tfprune.SurgerySchedule(gamma=0, begin_step=0, end_step=9)
                          if isinstance(method, tfprune.NetworkSurgery) else None)  # fmt: skip
    masks = []

    class Break(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            layer = self.model.get_layer("two")
            masks.append(ops.convert_to_numpy(layer.prune_state.masks["kernel"]).copy())
            if batch == 2:
                layer.trainable_variables[0].assign(np.full((8, 4), bad))

    with pytest.raises(ValueError, match=r"stay finite; at step 3.*'two'.*NaN or infinite"):
        fit(model, Break(), tfprune.PruningCallback(), epochs=2)
    state = model.get_layer("two").prune_state
    np.testing.assert_array_equal(ops.convert_to_numpy(state.masks["kernel"]), masks[-1])
    assert all(np.isfinite(float(ops.convert_to_numpy(v))) for v in state.scalars.values())


def test_nan_in_training_after_the_schedule_has_ended_is_not_our_business():
    model = tfprune.prune(build(), tfprune.Magnitude(), tfprune.ConstantSparsity(0.5, 0, 0, 1))
    model.compile(keras.optimizers.SGD(1e30), "mse")
    history = fit(model, tfprune.PruningCallback(), epochs=4).history
    assert not np.isfinite(history["loss"][-1])


def test_unbuilt_model():
    model = keras.Sequential([keras.layers.Dense(3, name="later")])
    with pytest.raises(ValueError, match=r"must be built.*later"):
        tfprune.prune(model, tfprune.Magnitude())


def test_unbuilt_layer_inside_a_built_model():
    class Lazy(keras.Model):
        def __init__(self):
            super().__init__()
            self.used = keras.layers.Dense(3, name="used")
            self.unused = keras.layers.Dense(3, name="never_called")

        def call(self, x):
            return self.used(x)

    model = Lazy()
    model(np.zeros((1, 4)))
    with pytest.raises(ValueError, match=r"built.*never_called"):
        tfprune.prune(model, tfprune.Magnitude(), in_place=True)


def test_a_subclassed_model_without_configuration():
    class Own(keras.Model):
        def __init__(self, units, what):
            super().__init__()
            self.dense = keras.layers.Dense(units)

        def call(self, x):
            return self.dense(x)

    model = Own(3, object())
    model(np.zeros((1, 4)))
    with pytest.raises(ValueError, match="get_config.*in_place=True"):
        tfprune.prune(model, tfprune.Magnitude())
    assert tfprune.is_pruned(tfprune.prune(model, tfprune.Magnitude(), in_place=True))


def test_nothing_to_prune():
    model = keras.Sequential([keras.layers.Input((6,)), keras.layers.BatchNormalization()])
    with pytest.raises(ValueError, match="no layer that can be pruned"):
        tfprune.prune(model, tfprune.Magnitude())


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_pruning_twice(in_place, inside):
    pruned = tfprune.prune(build(), tfprune.Magnitude())
    if inside:
        pruned = keras.Sequential([keras.layers.Input((6,)), pruned, keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=r"only once.*one.*two.*tfprune\.strip"):
        tfprune.prune(pruned, tfprune.NetworkSurgery(), in_place=in_place)
    stripped = tfprune.strip(pruned)
    assert tfprune.is_pruned(tfprune.prune(stripped, tfprune.NetworkSurgery()))


def test_pruning_a_model_of_wrappers():
    layer = tfprune.layers.MagnitudePruned(keras.layers.Dense(3))
    model = keras.Sequential([keras.layers.Input((6,)), layer])
    with pytest.raises(ValueError, match="only once"):
        tfprune.prune(model, tfprune.Magnitude())


@pytest.mark.parametrize("outer", METHODS)
def test_wrapping_twice(outer):
    wrap = getattr(tfprune.layers, f"{outer.__name__}Pruned")
    once = tfprune.layers.MagnitudePruned(keras.layers.Dense(3, name="mine"))
    with pytest.raises(ValueError, match="pruned already.*once"):
        wrap(once)
    pruned = tfprune.prune(build(), tfprune.Magnitude())
    with pytest.raises(ValueError, match="'one' is pruned already"):
        wrap(pruned.get_layer("one"))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((keras.layers.Dense(2), tfprune.NetworkSurgery()), TypeError, "Magnitude.*NetworkSurgery"),
        ((keras.layers.Dense(2), 0.5), TypeError, "Received: 0.5"),
        ((keras.layers.Dense(2), None, "often"), TypeError, "schedule.*Received: 'often'"),
        (("dense",), (TypeError, ValueError), "Layer|layer"),
        ((None,), (TypeError, ValueError), "Layer|layer"),
    ],
)
def test_bad_wrappers(arguments, error, message):
    with pytest.raises(error, match=message):
        tfprune.layers.MagnitudePruned(*arguments)


def test_a_wrapper_around_a_layer_without_kernel():
    wrapper = tfprune.layers.MagnitudePruned(keras.layers.BatchNormalization(name="norm"))
    with pytest.raises(ValueError, match="'norm' has no kernel"):
        wrapper.build((None, 4))


def test_no_such_wrapper():
    with pytest.raises(AttributeError, match=r"WaveletPruned.*MagnitudePruned"):
        tfprune.layers.WaveletPruned  # noqa: B018


def test_stripping_what_is_not_pruned():
    model = build()
    with pytest.raises(ValueError, match="no pruned layer"):
        tfprune.strip(model)
    with pytest.raises(ValueError, match="no pruned layer"):
        tfprune.strip(tfprune.strip(tfprune.prune(model, tfprune.Magnitude())))


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


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("callbacks", [None, [], [keras.callbacks.Callback()]])
def test_no_callback(kind, callbacks):
    x, y = data()
    with pytest.raises(ValueError, match=r"callbacks=\[tfprune.PruningCallback\(\)\]"):
        MODELS[kind]().fit(x, y, verbose=0, callbacks=callbacks)


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
    with pytest.raises(ValueError, match="the model that it returns"):
        fit(model, tfprune.PruningCallback())


@pytest.mark.parametrize("total", [0, -5, 2.5, "100"])
def test_bad_total_steps(total):
    with pytest.raises((TypeError, ValueError), match="total_steps.*Received"):
        tfprune.PruningCallback(total_steps=total)
    with pytest.raises((TypeError, ValueError), match="total_steps.*Received"):
        tfprune.Pruner(tfprune.prune(build(), tfprune.Magnitude()), total_steps=total)


def test_a_pruner_that_must_know_the_steps():
    pruner = tfprune.Pruner(tfprune.prune(build(), tfprune.Magnitude()))
    with pytest.raises(ValueError, match="total_steps"):
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
    with pytest.raises(AttributeError, match="kernel.*strip"):
        layer.kernel = 3
    for name, arguments in (("quantize", ("int8",)), ("enable_lora", (2,))):
        with pytest.raises(ValueError, match=f"{name}.*strip"):
            getattr(layer, name)(*arguments)


def saved(folder):
    path = folder / "model.keras"
    tfprune.prune(build(), tfprune.Magnitude()).save(path)
    return path


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nosuch\.keras"):
        tfprune.load_model(tmp_path / "nosuch.keras")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(tmp_path, share):
    path = saved(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"model\.keras"):
        tfprune.load_model(path)


def test_a_file_of_something_else(tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("hello")
    with pytest.raises(ValueError, match=r"model\.keras.*whole"):
        tfprune.load_model(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no model")
    with pytest.raises(ValueError, match=r"model\.keras.*whole"):
        tfprune.load_model(path)


def edit(path, change):
    """Rewrite the configuration inside a `.keras` file."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    change(config["build_config"]["tfprune"])
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    "change",
    [
        lambda saved: saved.pop("format"),
        lambda saved: saved.update(format=99),
        lambda saved: saved.pop("layers"),
        lambda saved: saved["layers"][0].update(index=77),
        lambda saved: saved["layers"][0].update(index=-1),
        lambda saved: saved["layers"][0].update(index="0"),
        lambda saved: saved["layers"][0].pop("method"),
        lambda saved: saved["layers"][0]["method"].update(registered_name="x>Nonsense", class_name="Nonsense"),
        lambda saved: saved["layers"][0]["method"]["config"].update(target_sparsity=1.5),
        lambda saved: saved["layers"][0]["method"]["config"].update(unknown=1),
        lambda saved: saved["layers"][0]["schedule"]["config"].update(frequency=0),
        lambda saved: saved["layers"][0].update(method=saved["layers"][0]["schedule"]),
    ],
)
def test_an_edited_file(tmp_path, change):
    path = saved(tmp_path)
    edit(path, change)
    with pytest.raises(ValueError, match="prun"):
        tfprune.load_model(path)


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

    with pytest.raises(ValueError, match="'Magnitude' is registered already"):
        tfprune.register(Magnitude)


def test_a_method_without_rules():
    @dataclasses.dataclass(frozen=True)
    class Empty(tfprune.Method):
        pass

    model = tfprune.prune(build(), Empty())
    with pytest.raises(NotImplementedError, match="Empty must define `score`"):
        fit(model, tfprune.PruningCallback())


def test_a_method_that_needs_what_is_not_served():
    @dataclasses.dataclass(frozen=True)
    class Needy(tfprune.Magnitude):
        signals = ("moon_phase",)

    with pytest.raises(ValueError, match="moon_phase"):
        tfprune.prune(build(), Needy())


KERAS_2 = """
import pytest, numpy, tensorflow, tf_keras, tfprune
inputs = tf_keras.Input((4,))
for model in (tf_keras.Sequential([tf_keras.layers.Dense(3, input_shape=(4,))]),
              tf_keras.Model(inputs, tf_keras.layers.Dense(3)(inputs))):
    for function in (lambda m: tfprune.prune(m, tfprune.Magnitude()), tfprune.strip):
        with pytest.raises(TypeError, match="Keras 3 model. Received a Keras 2 model"):
            function(model)
with pytest.raises((TypeError, ValueError), match="Keras 2"):
    tfprune.layers.MagnitudePruned(tf_keras.layers.Dense(3))
"""


def test_a_keras_2_model():
    pytest.importorskip("tf_keras")
    env = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(tfprune.__file__))}
    done = subprocess.run([sys.executable, "-c", KERAS_2], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
