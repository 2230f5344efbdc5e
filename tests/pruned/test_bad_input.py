"""What `prune`, the methods and the wrappers refuse, and what they say."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops
from small import build, fit

import tfprune

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
    with pytest.raises(ValueError, match=r"scope.*Received: 'network'"):
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
@pytest.mark.parametrize(
    "function", [lambda m: tfprune.prune(m, tfprune.Magnitude()), tfprune.strip]
)
def test_no_model(model, message, function):
    with pytest.raises(TypeError, match=r"must be a.*keras\.Model.*" + message):
        function(model)


@pytest.mark.parametrize(
    "method", [None, "magnitude", tfprune.Magnitude, 0.5, {"one": "magnitude"}, {"one": 0.5}]
)
def test_no_method(method):
    with pytest.raises(TypeError, match=r"`method` must be an instance.*Received: "):
        tfprune.prune(build(), method)


@pytest.mark.parametrize(
    "method", [{}, {"nosuch": tfprune.Magnitude()}, {"(": tfprune.Magnitude()}]
)
def test_methods_for_no_layer(method):
    with pytest.raises(
        ValueError, match=r"empty dict|nosuch.*selects none|not a regular expression"
    ):
        tfprune.prune(build(), method)


@pytest.mark.parametrize(
    "schedule",
    ["polynomial", 0.5, tfprune.PolynomialDecay, {"one": 3}, [tfprune.ConstantSparsity(0.5)]],
)
def test_no_schedule(schedule):
    with pytest.raises(TypeError, match=r"`schedule` must be a PruningSchedule.*Received: "):
        tfprune.prune(build(), tfprune.Magnitude(), schedule)


def test_a_schedule_in_the_place_of_the_method():
    with pytest.raises(TypeError, match=r"method.*Received: ConstantSparsity"):
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
    with pytest.raises(ValueError, match=rf"finite.*`{name}` of layer 'two'"):
        tfprune.prune(model, tfprune.NetworkSurgery())
    assert not tfprune.is_pruned(model)


@pytest.mark.parametrize("change", [lambda x: x.enable_lora(2), lambda x: x.quantize("int8")])
def test_weights_that_are_not_all_of_the_layer(change):
    model = build()
    change(model.get_layer("two"))
    with pytest.raises(ValueError, match=r"'two' has LoRA adapters or quantized.*`filters`"):
        tfprune.prune(model, tfprune.Magnitude())
    assert tfprune.is_pruned(tfprune.prune(model, tfprune.Magnitude(), filters="one"))
    with pytest.raises(ValueError, match=r"'mine' has LoRA adapters or quantized"):
        tfprune.layers.MagnitudePruned(model.get_layer("two"), name="mine")


def test_constraints_of_weights_that_are_trained_in_another_form():
    conv = keras.layers.Conv2D(4, 3, kernel_constraint="non_neg", bias_constraint="non_neg")
    model = keras.Sequential([keras.Input((8, 8, 2)), conv, keras.layers.Conv2D(3, 1)])
    spectral = tfprune.FrequencyDomain()
    for method in (spectral, tfprune.SynapticStrength(keep_ends=False)):
        with pytest.raises(ValueError, match=r"`kernel` of layer 'conv2d' in another form.*NonNeg"):
            tfprune.prune(model, method)
    with pytest.raises(ValueError, match=r"`kernel` of layer 'mine' in another form"):
        tfprune.layers.FrequencyDomainPruned(conv, spectral, name="mine")
    for method in (tfprune.NetworkSurgery(), {"_1": spectral, ".": tfprune.Magnitude()}):
        assert tfprune.is_pruned(tfprune.prune(model, method))
    flat = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, kernel_constraint="non_neg")])
    assert tfprune.is_pruned(tfprune.prune(flat, spectral))  # without a map nothing is transformed


def test_wrappers_whose_settings_do_not_fit_together():
    wrap, method = tfprune.layers.MagnitudePruned, tfprune.Magnitude(scope="global")
    timings = (tfprune.ConstantSparsity(0.2, 0, 9, 1), tfprune.ConstantSparsity(0.9, 0, 9, 1))
    layers = [wrap(keras.layers.Dense(4), method, timing) for timing in timings]
    model = keras.Sequential([keras.Input((6,)), *layers])
    with pytest.raises(ValueError, match="one schedule"):
        tfprune.Pruner(model)
    with pytest.raises(ValueError, match=r"Every key of `c`.*'nowhere'"):
        wrap = tfprune.layers.NetworkSurgeryPruned
        layer = wrap(keras.layers.Dense(4), tfprune.NetworkSurgery(c={"nowhere": 1.0}))
        tfprune.Pruner(keras.Sequential([keras.Input((6,)), layer]))


def test_densities_beside_a_target():
    with pytest.raises(ValueError, match=r"leaves the density open; Densities"):
        tfprune.FrequencyDomain(target_sparsity=0.9, band=tfprune.bands.Densities((1.0, 0.0)))


@pytest.mark.parametrize("in_place", [False, True])
def test_a_refused_model_is_left_as_it_was(in_place):
    model = build()
    kernel = model.get_layer("two").kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    before, classes = model.get_weights(), [type(layer) for layer in model.layers]
    with pytest.raises(ValueError, match=r"finite"):
        tfprune.prune(model, tfprune.Magnitude(), in_place=in_place)
    assert [type(layer) for layer in model.layers] == classes and not tfprune.is_pruned(model)
    for one, two in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("method", [tfprune.Magnitude(), tfprune.NetworkSurgery(c=0.1)])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_become_nan_while_training(method, bad):
    surgery = isinstance(method, tfprune.NetworkSurgery)
    schedule = tfprune.SurgerySchedule(gamma=0, begin_step=0, end_step=9) if surgery else None
    model = tfprune.prune(build(), method, schedule)
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
    with pytest.raises(ValueError, match=r"get_config.*in_place=True"):
        tfprune.prune(model, tfprune.Magnitude())
    assert tfprune.is_pruned(tfprune.prune(model, tfprune.Magnitude(), in_place=True))


def test_nothing_to_prune():
    model = keras.Sequential([keras.layers.Input((6,)), keras.layers.BatchNormalization()])
    with pytest.raises(ValueError, match=r"no layer that can be pruned"):
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
    with pytest.raises(ValueError, match=r"only once"):
        tfprune.prune(model, tfprune.Magnitude())


@pytest.mark.parametrize("outer", METHODS)
def test_wrapping_twice(outer):
    wrap = getattr(tfprune.layers, f"{outer.__name__}Pruned")
    once = tfprune.layers.MagnitudePruned(keras.layers.Dense(3, name="mine"))
    with pytest.raises(ValueError, match=r"pruned already.*once"):
        wrap(once)
    pruned = tfprune.prune(build(), tfprune.Magnitude())
    with pytest.raises(ValueError, match=r"'one' is pruned already"):
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
    with pytest.raises(ValueError, match=r"'norm' has no kernel"):
        wrapper.build((None, 4))


def test_no_such_wrapper():
    with pytest.raises(AttributeError, match=r"WaveletPruned.*MagnitudePruned"):
        getattr(tfprune.layers, "Wavelet" + "Pruned")


def test_stripping_what_is_not_pruned():
    model = build()
    with pytest.raises(ValueError, match=r"no pruned layer"):
        tfprune.strip(model)
    with pytest.raises(ValueError, match=r"no pruned layer"):
        tfprune.strip(tfprune.strip(tfprune.prune(model, tfprune.Magnitude())))
