"""FrequencyDomain against SciPy and NumPy twins, in single updates and in real training runs."""

from __future__ import annotations

import keras
import numpy as np
import oracles
import pytest
import scipy.fft
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from surgery import data, fit, mask_of, states

import tfprune
from tfprune.maths import bands, dct_macs, transforms
from tfprune.maths.masks import HIGH, LOW
from tfprune.maths.spec import LayerTensors, WeightSpec
from tfprune.pruned.layers import pruned_layers

to_numpy = keras.ops.convert_to_numpy
tensor = keras.ops.convert_to_tensor
EVERY_STEP = tfprune.FrequencySchedule(gamma=0.0, begin_step=0, end_step=40)
AXES = ("kh", "kw", "cin", "cout")


def layer_of(kernel, bias=None, masks=None, name="conv", method=None):
    """One layer as the method sees it, fresh or with masks."""
    method = method or tfprune.FrequencyDomain()
    specs = {"kernel": WeightSpec("kernel", kernel.shape, AXES[-kernel.ndim :])}
    values = {"kernel": kernel}
    if bias is not None:
        specs["bias"] = WeightSpec("bias", bias.shape, is_bias=True)
        values["bias"] = bias
    masks = masks or {n: np.ones(v.shape, bool) for n, v in values.items()}
    return LayerTensors(
        name,
        specs,
        {n: tensor(v) for n, v in values.items()},
        {n: tensor(m) for n, m in masks.items()},
        {n: tensor(np.asarray(v, "float32")) for n, v in method.state(specs).items()},
    )


def updated(method, layer, sparsity=0.0):
    due = [tensor(True)]
    ((kept, state),) = method.update([layer], [tensor(np.float32(sparsity))], due)
    return {n: to_numpy(m) for n, m in kept.items()}, {n: to_numpy(v) for n, v in state.items()}


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(*[st.integers(1, 5)] * 2, *[st.integers(1, 4)] * 2),
    st.integers(0, 2**31),
    st.floats(-1, 2),
    st.floats(0.5, 3),
    st.floats(0.5, 3),
)
def test_thresholds_rise_with_the_band_as_in_the_paper(shape, seed, c, lam, omega):
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=shape).astype("float32")
    bias = rng.normal(size=shape[-1:]).astype("float32")
    old = {"kernel": rng.random(shape) < 0.5, "bias": rng.random(shape[-1:]) < 0.5}
    method = tfprune.FrequencyDomain(c=c, band=bands.Beta(lam, omega))
    kept, state = updated(method, layer_of(kernel, bias, old))
    base = oracles.surgery_threshold([kernel, bias], c)
    assert float(state["threshold"]) == pytest.approx(base, rel=1e-5, abs=1e-6)
    for name, values, factor in (
        ("kernel", kernel, oracles.beta_factors(shape, 2, lam, omega)),
        ("bias", bias, 1.0),
    ):
        t = base * factor * np.ones(values.shape)
        magnitude = np.abs(values)
        expected = np.where(magnitude > HIGH * t, True, old[name] & (magnitude > LOW * t))
        near = np.isclose(magnitude, LOW * t, rtol=1e-4) | np.isclose(
            magnitude, HIGH * t, rtol=1e-4
        )
        np.testing.assert_array_equal(kept[name][~near], expected[~near])


def test_lam_and_omega_of_one_are_fdnp_to_the_bit():
    kernel = np.random.default_rng(0).normal(size=(5, 5, 3, 8)).astype("float32")
    plain, _ = updated(tfprune.FrequencyDomain(c=0.7), layer_of(kernel))
    banded, _ = updated(tfprune.FrequencyDomain(c=0.7, band=bands.Beta(1.0, 1.0)), layer_of(kernel))
    np.testing.assert_array_equal(banded["kernel"], plain["kernel"])


def test_thresholds_are_frozen_at_the_first_update():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 3, 8)).astype("float32")
    method = tfprune.FrequencyDomain(c=0.5, band=bands.EqualEnergy())
    layer = layer_of(kernel)
    _, state = updated(method, layer)
    later = layer_of(5 * rng.normal(size=kernel.shape).astype("float32"))
    later.state.update({n: tensor(v) for n, v in state.items()})
    _, again = updated(method, later)
    for name, value in state.items():
        np.testing.assert_array_equal(again[name], value)


def test_equal_energy_cuts_each_band_at_its_own_scale():
    rng = np.random.default_rng(0)
    scale = 0.1 ** oracles.band_number((3, 3, 40, 40), 2)
    kernel = (scale * rng.normal(size=scale.shape)).astype("float32")
    kept, _ = updated(tfprune.FrequencyDomain(c=0.3, band=bands.EqualEnergy()), layer_of(kernel))
    uniform, _ = updated(tfprune.FrequencyDomain(c=0.3), layer_of(kernel))
    number = oracles.band_number(kernel.shape, 2)
    densities = [kept["kernel"][number == j].mean() for j in range(5)]
    assert max(densities) - min(densities) < 0.05 and min(densities) > 0.05
    assert uniform["kernel"][number == 4].mean() == 0


def test_densities_of_bands_are_kept_at_every_update():
    rng = np.random.default_rng(0)
    method = tfprune.FrequencyDomain(band=bands.Densities((0.8, 0.5, 0.4, 0.2, 0.0)))
    masks = None
    for _ in range(3):
        kernel = rng.normal(size=(3, 3, 10, 10)).astype("float32")
        kept, _ = updated(method, layer_of(kernel, masks=masks))
        number = oracles.band_number(kernel.shape, 2)
        counts = [int(kept["kernel"][number == j].sum()) for j in range(5)]
        assert counts == [80, 100, 120, 40, 0]
        masks = kept


@pytest.mark.parametrize(
    ("band", "expected"),
    [
        (bands.Beta(2.0), np.arange(1, 6) / 6),
        (bands.Beta(1.0, 2.0), 1 - np.arange(1, 6) / 6),
        (bands.Linear(0.5), 1 + 0.5 * (2 * np.arange(1, 6) / 6 - 1)),
        (bands.Exponential(2.0), np.exp(2 * (np.arange(1, 6) / 6 - 0.5))),
    ],
)
def test_band_functions(band, expected):
    x = np.arange(1, 6) / 6
    np.testing.assert_allclose(band(x, [tensor([1.0])] * 5), expected, rtol=1e-6)
    config = keras.saving.serialize_keras_object(tfprune.FrequencyDomain(band=band))
    assert keras.saving.deserialize_keras_object(config).band == band


@pytest.mark.parametrize("granularity", ["coefficient", "block4", "row", "frequency", "band"])
def test_target_sparsity_prunes_the_smallest_groups(granularity):
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(3, 3, 4, 8)).astype("float32")
    method = tfprune.FrequencyDomain(target_sparsity=0.6, granularity=granularity)
    kept, _ = updated(method, layer_of(kernel, method=method), 0.6)
    rms = oracles.group_rms(kernel, 2, granularity)
    mask = kept["kernel"]
    assert rms[mask].min() > rms[~mask].max()
    spec = WeightSpec("kernel", kernel.shape, AXES)
    assert abs(mask.mean() - 0.4) <= method.target.rounding([method.groups(spec).sizes]) + 1e-6


def test_one_c_for_all_layers_in_a_network_target():
    rng = np.random.default_rng(2)
    method = tfprune.FrequencyDomain(target_compression=4.0)
    layers = [
        layer_of(scale * rng.standard_t(5, size=shape).astype("float32"), name=name)
        for name, scale, shape in (("a", 1.0, (3, 3, 4, 8)), ("b", 0.01, (5, 5, 8, 8)))
    ]
    flags = [tensor(True)] * 2
    results = method.update(layers, [tensor(np.float32(0.75))] * 2, flags)
    masks = [to_numpy(m["kernel"]) for m, _ in results]
    assert sum(m.sum() for m in masks) == round((288 + 1600) / 4)
    c = [float(s["c"]) for _, s in results]
    assert c[0] == pytest.approx(c[1], abs=0.2)
    deviations = []
    for layer in layers:
        magnitude = np.abs(to_numpy(layer.masked["kernel"]))
        deviations.append((magnitude - magnitude.mean()) / magnitude.std())
    kept = np.concatenate([d[m] for d, m in zip(deviations, masks, strict=True)])
    gone = np.concatenate([d[~m] for d, m in zip(deviations, masks, strict=True)])
    assert kept.min() >= gone.max() - 1e-5
    half = method.update(layers, [tensor(np.float32(0.375))] * 2, flags)
    assert sum(to_numpy(m["kernel"]).sum() for m, _ in half) == round((288 + 1600) * (1 - 0.375))
    none = method.update(layers, [tensor(np.float32(0.75))] * 2, [tensor(False)] * 2)
    assert all(to_numpy(m["kernel"]).all() for m, _ in none)


# -- in training


def build(kernel=3, optimizer=None, **options):
    keras.utils.set_random_seed(3)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((5, 5, 2)),
            layers.Conv2D(4, kernel, name="conv", bias_initializer="random_normal", **options),
            layers.Flatten(),
            layers.Dense(3, name="dense", bias_initializer="random_normal", **options),
        ]
    )
    rate = keras.optimizers.SGD(0.03, momentum=0.9, weight_decay=5e-4)
    model.compile(optimizer or rate, "mse")
    return model


def whole(model, method, schedule=EVERY_STEP):
    """A model pruned by thresholds below zero: the mask stays 1."""
    return tfprune.prune(model, method, schedule)


@pytest.mark.parametrize("regularizer", [None, keras.regularizers.L2(1e-3)])
def test_with_a_mask_of_ones_the_run_is_the_spatial_one_for_100_steps(regularizer):
    dense = build(kernel_regularizer=regularizer)
    pruned = whole(dense, tfprune.FrequencyDomain(c=-100.0))
    dense.fit(*data(), 8, 25, verbose=0, shuffle=False)
    fit(pruned, epochs=25, batch_size=8)
    assert int(dense.optimizer.iterations) == int(pruned.optimizer.iterations) == 100
    assert all(state.sparsity() == 0 for state in states(pruned).values())
    plain = tfprune.strip(pruned)
    for one, other in zip(plain.get_weights(), dense.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("method", ["c", "target"])
def test_without_extent_it_is_network_surgery(method):
    settings = {"c": 0.2} if method == "c" else {"target_sparsity": 0.6}
    timing = {"gamma": 0.05, "begin_step": 0, "end_step": 20, "seed": 3}
    timing["target_sparsity"] = settings.get("target_sparsity")
    ours = tfprune.prune(
        build(kernel=1),
        tfprune.FrequencyDomain(**settings),
        tfprune.FrequencySchedule(**timing),
        filters="conv",
    )
    twin = tfprune.prune(
        build(kernel=1),
        tfprune.NetworkSurgery(**settings),
        tfprune.SurgerySchedule(**timing),
        filters="conv",
    )
    for model in (ours, twin):
        fit(model, epochs=4, batch_size=4)
    assert 0 < states(ours)["conv"].sparsity() < 1
    for name, mask in mask_of(states(ours)["conv"]).items():
        np.testing.assert_array_equal(mask, mask_of(states(twin)["conv"])[name])
    for one, other in zip(ours.get_weights(), twin.get_weights(), strict=False):
        if one.shape == other.shape and one.dtype == other.dtype and one.ndim > 1:
            np.testing.assert_array_equal(one, other)


def test_effective_weights_are_the_inverse_dct_and_strip_folds_them():
    pruned = tfprune.prune(build(), tfprune.FrequencyDomain(target_sparsity=0.7))
    fit(pruned)
    state = states(pruned)["conv"]
    coefficients = to_numpy(state.latents("kernel")["coefficients"]) * mask_of(state)["kernel"]
    spatial = scipy.fft.idctn(coefficients, type=2, norm="ortho", axes=(0, 1))
    np.testing.assert_allclose(to_numpy(state.effective("kernel")), spatial, atol=1e-6)
    assert (coefficients == 0).mean() > 0.6 > 0.1 > (spatial == 0).mean()
    plain = tfprune.strip(pruned)
    assert plain.layers[0].kernel.shape == (3, 3, 2, 4)
    x = data()[0]
    np.testing.assert_array_equal(plain.predict(x, verbose=0), pruned.predict(x, verbose=0))


def test_masked_coefficients_get_the_dense_gradient():
    pruned = tfprune.prune(build(), tfprune.FrequencyDomain(target_sparsity=0.8), EVERY_STEP)
    fit(pruned)
    state = states(pruned)["conv"]
    x, y = data()
    with tf.GradientTape() as tape:
        effective = state.effective("kernel")
        tape.watch(pruned.layers[0]._kernel.value)
        loss = tf.reduce_mean(tf.square(pruned(x) - y))
    found = tape.gradient(loss, pruned.layers[0]._kernel.value).numpy()
    plain = tfprune.strip(pruned)
    np.testing.assert_allclose(plain.layers[0].kernel, effective)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(plain(x) - y))
    spatial = tape.gradient(loss, plain.layers[0].kernel.value).numpy()
    np.testing.assert_allclose(found, oracles.dct_kernel(spatial, 2), atol=1e-6)
    assert np.all(found[~mask_of(state)["kernel"]] != 0)


def test_band_rates_multiply_the_gradient():
    x, y = data()
    found = []
    for rates in (None, (1.0, 0.0)):
        model = tfprune.prune(build(), tfprune.FrequencyDomain(c=-100.0, band_rates=rates))
        kernel = model.layers[0]._kernel
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x) - y))
        found.append(tape.gradient(loss, kernel.value).numpy())
    each = np.interp(oracles.band_number((3, 3, 2, 4), 2), [0, 4], [1.0, 0.0])
    np.testing.assert_allclose(found[1], found[0] * each, rtol=1e-5, atol=1e-7)


def test_from_scratch_and_from_a_trained_net_reach_the_target():
    for trained in (False, True):
        model = build()
        if trained:
            model.fit(*data(), epochs=3, verbose=0)
        pruned = tfprune.prune(model, tfprune.FrequencyDomain(target_compression=5.0))
        fit(pruned, epochs=6)
        assert tfprune.report(pruned).measurement.compression == pytest.approx(5.0, rel=0.03)


def test_a_budget_of_multiply_adds_counts_the_dct():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(32, 3, name="a"),
            layers.Conv2D(64, 3, name="b"),
            layers.Flatten(),
            layers.Dense(5, name="c"),
        ]
    )
    model.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 8, 8, 2)), rng.normal(size=(32, 5))
    pruned = tfprune.prune(model, tfprune.FrequencyDomain(target_speedup=4.0))
    pruned.fit(x, y, 4, 3, verbose=0, callbacks=[tfprune.PruningCallback()])
    numbers = tfprune.report(pruned).measurement
    assert 3.99 <= numbers.theoretical_speedup < 4.2
    a, b, c = numbers.layers
    live = to_numpy(states(pruned)["b"].masks["kernel"].value).any(axis=(0, 1, 3)).sum()
    assert b.transform_macs == live * 4 * 4 * (9 + 27)
    assert b.macs_kept == 4 * 4 * b.kernel_nonzero + b.transform_macs < b.macs
    assert a.transform_macs + c.transform_macs == 2 * 6 * 6 * (9 + 27)
    assert c.macs_kept == c.macs == c.kernel_parameters, "its DCT costs more than the dense layer"
    with pytest.raises(ValueError, match="target_speedup` must be below"):
        tfprune.prune(model, tfprune.FrequencyDomain(target_speedup=1000.0))


@pytest.mark.parametrize(
    ("shape", "axes", "channel"),
    [
        ((3, 3, 4, 8), AXES, (slice(None), slice(None), 1)),
        ((3, 3, 8, 4), ("kh", "kw", "cout", "cin"), (slice(None), slice(None), 1)),
    ],
)
def test_only_channels_that_an_entry_is_left_of_are_transformed(shape, axes, channel):
    """Input channels, or output channels of a transposed convolution."""
    spec = WeightSpec("kernel", shape, axes)
    stored = np.ones(shape)
    stored[channel] = 0
    one = transforms.transform_macs(spec)
    assert dct_macs.per_use(spec, stored) == (shape[2] - 1) * one > 0


# -- maps in front of dense layers


def maps_of(*layers, shape=(8, 8, 3)):
    model = keras.Sequential([keras.Input(shape), *layers])
    pruned = tfprune.prune(model, tfprune.FrequencyDomain())
    return {
        path: layer.prune_state.specs["kernel"].unrolled for path, layer in pruned_layers(pruned)
    }


def test_maps_are_found_in_the_graph():
    layers = keras.layers
    found = maps_of(
        layers.Conv2D(5, 3),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.BatchNormalization(),
        layers.Dropout(0.1),
        layers.Dense(7, name="first"),
        layers.Dense(4, name="second"),
    )
    assert found["first"] == ((3, 3, 5, 7), ("kh", "kw", "cin", "cout"))
    assert found["second"] == ((7, 4), ("cin", "cout"))


def test_maps_with_channels_first():
    layers = keras.layers
    first = {"data_format": "channels_first"}
    moved = maps_of(
        layers.MaxPooling2D(2, **first), layers.Flatten(**first), layers.Dense(7, name="d")
    )
    assert moved["d"] == ((4, 1, 8, 7), ("kh", "kw", "cin", "cout"))
    raw = maps_of(layers.MaxPooling2D(2, **first), layers.Reshape((32,)), layers.Dense(7, name="d"))
    assert raw["d"] == ((8, 4, 1, 7), ("cin", "kh", "kw", "cout"))


def test_no_map_behind_a_global_pooling_or_where_two_differ():
    layers = keras.layers
    found = maps_of(layers.GlobalAveragePooling2D(), layers.Flatten(), layers.Dense(7, name="d"))
    assert found["d"] == ((3, 7), ("cin", "cout"))
    shared = layers.Dense(4, name="shared")
    a, b = keras.Input((2, 3, 2)), keras.Input((3, 2, 2))
    model = keras.Model([a, b], [shared(layers.Flatten()(a)), shared(layers.Flatten()(b))])
    pruned = tfprune.prune(model, tfprune.FrequencyDomain())
    assert states(pruned)["shared"].specs["kernel"].map_shape == ()


def test_maps_in_functional_models_reload_with_the_file(tmp_path):
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(3, 3)(inputs)
    outputs = keras.layers.Dense(4, name="d")(keras.layers.Flatten()(x))
    pruned = tfprune.prune(keras.Model(inputs, outputs), tfprune.FrequencyDomain())
    assert states(pruned)["d"].specs["kernel"].map_shape == (4, 4, 3)
    pruned.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert states(again)["d"].specs == states(pruned)["d"].specs


def test_the_user_may_give_the_map():
    wrapped = tfprune.layers.FrequencyDomainPruned(
        keras.layers.Dense(4), tfprune.FrequencyDomain(supports={"": (3, 3)}), name="mine"
    )
    model = keras.Sequential([keras.Input((18,)), wrapped])
    spec = wrapped.layer.prune_state.specs["kernel"]
    assert spec.unrolled == ((3, 3, 2, 4), ("kh", "kw", "cin", "cout"))
    kernel = to_numpy(wrapped.layer.prune_state.effective("kernel"))
    latent = to_numpy(wrapped.layer._kernel.value)
    expected = oracles.dct_kernel(kernel.reshape(3, 3, 2, 4), 2).reshape(18, 4)
    np.testing.assert_allclose(latent, expected, atol=1e-6)
    assert model.count_params() > 0
    with pytest.raises(ValueError, match=r"must divide its 18 inputs\. Received: \(4, 4\)"):
        layer = keras.layers.Dense(4)
        tfprune.prune(
            keras.Sequential([keras.Input((18,)), layer]),
            tfprune.FrequencyDomain(supports={"dense": (4, 4)}),
        )


# -- bad settings


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"c": 1.0, "target_sparsity": 0.5}, ValueError, "at most one"),
        ({"target_compression": 1.0}, ValueError, "above 1"),
        ({"target_speedup": float("nan")}, ValueError, "target_speedup"),
        ({"band": "beta"}, TypeError, "band function"),
        ({"granularity": "filter"}, ValueError, "coefficient, block4"),
        ({"supports": {"fc1": 4}}, ValueError, "pairs of positive"),
        ({"supports": (4, 4)}, TypeError, "dict"),
        ({"supports": {"(": (4, 4)}}, ValueError, "regular expressions"),
        ({"band_rates": (-1.0, 1.0)}, ValueError, "negative"),
        ({"band_rates": 0.5}, TypeError, "list"),
        ({"prune_biases": 1}, TypeError, "True or False"),
    ],
)
def test_settings_are_checked(settings, error, words):
    with pytest.raises(error, match=words):
        tfprune.FrequencyDomain(**settings)


def test_band_functions_are_checked():
    for make in (lambda: bands.Beta(0.0), lambda: bands.Linear(2.0), lambda: bands.Densities(2.0)):
        with pytest.raises(ValueError, match="must be"):
            make()


def test_keys_must_fit_and_schedules_agree():
    with pytest.raises(ValueError, match="'fc9' fits none"):
        tfprune.prune(build(), tfprune.FrequencyDomain(c={"fc9": 1.0}))
    with pytest.raises(ValueError, match="'fc9' fits none"):
        tfprune.prune(build(), tfprune.FrequencyDomain(supports={"fc9": (2, 2)}))
    schedules = {"conv": tfprune.FrequencySchedule(), "dense": tfprune.FrequencySchedule(seed=1)}
    with pytest.raises(ValueError, match="one schedule"):
        tfprune.prune(build(), tfprune.FrequencyDomain(target_compression=3.0), schedules)


def test_a_layer_that_loses_everything_is_said():
    pruned = tfprune.prune(build(), tfprune.FrequencyDomain(c={"conv": 50.0}))
    with pytest.warns(UserWarning, match=r"Every weight of the layers \['conv'\] is pruned"):
        fit(pruned)


def test_settings_survive_a_file(tmp_path):
    method = tfprune.FrequencyDomain(
        c={"conv": 0.5},
        band=bands.Beta(1.5),
        granularity="block4",
        supports={"dense": (3, 3)},
        band_rates=(1, 0.5),
    )
    pruned = tfprune.prune(build(), method)
    fit(pruned)
    pruned.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert states(again)["conv"].method == method
    np.testing.assert_array_equal(again(data()[0]), pruned(data()[0]))
