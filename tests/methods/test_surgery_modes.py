"""NetworkSurgery by a target, in passes, beside other methods, on XOR; and bad settings."""

from __future__ import annotations

import json

import keras
import numpy as np
import oracles
import pytest
from surgery import Watch, build, run, scalar, states

import tfprune


@pytest.mark.parametrize("target", [0.25, 0.7, 0.93])
def test_target_mode_reaches_exactly_the_count(target):
    schedule = tfprune.SurgerySchedule(begin_step=0, end_step=12, target_sparsity=target)
    model, rows = run(tfprune.NetworkSurgery(target_sparsity=target), schedule, epochs=2)
    for path, state in states(model).items():
        pruned = sum(int((~mask).sum()) for mask in rows[-1][path][1].values())
        size = sum(mask.size for mask in rows[-1][path][1].values())
        assert pruned == oracles.count_pruned(target, size)
        assert state.sparsity() == pytest.approx(pruned / size)


def test_target_mode_solves_for_the_threshold_and_its_c():
    schedule = tfprune.SurgerySchedule(begin_step=0, end_step=12, target_sparsity=0.6)
    model, rows = run(tfprune.NetworkSurgery(target_sparsity=0.6), schedule, epochs=2)
    for path, state in states(model).items():
        before = [rows[11][path][1][name] for name in state.specs]
        now = [rows[12][path][0][name] for name in state.specs]
        threshold, c = scalar(state, "threshold"), scalar(state, "c")
        for name, old, weight in zip(state.specs, before, now, strict=True):
            wanted = oracles.hysteresis(np.abs(weight), old, 0.9 * threshold, 1.1 * threshold)
            got = rows[12][path][1][name]
            assert (wanted != got).sum() <= 1  # the entry that is the threshold itself, by rounding
        assert oracles.surgery_threshold(now, c) == pytest.approx(threshold, rel=1e-4)


def test_target_mode_with_the_methods_own_schedule():
    model, _ = run(tfprune.NetworkSurgery(target_sparsity=0.8), None)
    assert all(abs(state.sparsity() - 0.8) < 0.02 for state in states(model).values())


def test_a_schedule_without_a_target_takes_the_methods_or_is_refused():
    schedule = tfprune.SurgerySchedule(gamma=0.01, begin_step=0, end_step=10)
    method = tfprune.NetworkSurgery(target_sparsity=0.8)
    try:
        model, _ = run(method, schedule, epochs=2)
    except ValueError as error:
        assert "target_sparsity" in str(error)
        return
    assert all(abs(state.sparsity() - 0.8) < 0.02 for state in states(model).values())


def test_two_passes_conv_layers_then_dense_layers():
    first = tfprune.SurgerySchedule(gamma=0.0, begin_step=0, end_step=9)
    second = tfprune.SurgerySchedule(gamma=0.0, begin_step=16, end_step=28)
    model, rows = run(tfprune.NetworkSurgery(c=0.5), {"conv": first, "dense": second})
    assert all(mask.all() for row in rows[:16] for mask in row["dense"][1].values())
    assert not rows[16]["dense"][1]["kernel"].all()
    for row in rows[10:]:
        np.testing.assert_array_equal(row["conv"][1]["kernel"], rows[9]["conv"][1]["kernel"])
    wanted = oracles.surgery_threshold(list(rows[16]["dense"][0].values()), 0.5)
    assert scalar(states(model)["dense"], "threshold") == pytest.approx(wanted, rel=1e-5)


def test_two_methods_side_by_side():
    methods = {"conv": tfprune.NetworkSurgery(c=0.1), "dense": tfprune.Magnitude(0.5)}
    model, rows = run(methods, None)
    wanted = oracles.surgery_threshold(list(rows[0]["conv"][0].values()), 0.1)
    assert scalar(states(model)["conv"], "threshold") == pytest.approx(wanted, rel=1e-5)
    assert states(model)["dense"].sparsity() == 0.5


def test_xor_needs_splicing():
    """Four inputs, sixteen hidden units: the first surgery breaks the net, splicing mends it."""
    rng = np.random.default_rng(0)
    x = rng.choice([-1.0, 1.0], size=(256, 2)) + rng.normal(scale=0.1, size=(256, 2))
    y = (x[:, :1] * x[:, 1:] > 0).astype("float32")
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.layers.Input((2,)),
            keras.layers.Dense(16, activation="tanh"),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.03), "binary_crossentropy", metrics=["accuracy"])
    model.fit(x, y, 32, 15, verbose=0)
    assert model.evaluate(x, y, verbose=0)[1] > 0.99
    schedule = tfprune.SurgerySchedule(gamma=1e-3, begin_step=0, end_step=150)
    pruned = tfprune.prune(model, tfprune.NetworkSurgery(c=0.9), schedule)
    watch = Watch()
    history = pruned.fit(
        x, y, 32, 25, verbose=0, callbacks=[tfprune.PruningCallback(), watch]
    ).history
    kept = [
        np.concatenate([m.ravel() for _, masks in row.values() for m in masks.values()])
        for row in watch.rows
    ]
    assert (~kept[0] & kept[-1]).any()
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert pruned.evaluate(x, y, verbose=0)[1] > 0.99 and history["sparsity"][-1] > 0.4


SETTINGS = [
    ({"c": "1"}, TypeError, "c.*Received: '1'"),
    ({"c": float("nan")}, ValueError, "c.*finite.*Received: nan"),
    ({"c": {"conv": "x"}}, TypeError, "c.*Received: 'x'"),
    ({"c": {"(": 1.0}}, ValueError, "regular expression"),
    ({"c": {3: 1.0}}, ValueError, "regular expression.*Received: 3"),
    ({"c": {}}, ValueError, "empty"),
    ({"c": [1.0, 2.0]}, TypeError, r"c.*Received: \[1.0, 2.0\]"),
    ({"c": 1.0, "target_sparsity": 0.5}, ValueError, "not both.*c=1.0, target_sparsity=0.5"),
    ({"target_sparsity": 1.0}, ValueError, r"\[0, 1\).*Received: 1\.0"),
    ({"target_sparsity": float("nan")}, ValueError, "Received: nan"),
    ({"target_sparsity": "0.9"}, TypeError, "Received: '0.9'"),
    ({"prune_biases": "yes"}, TypeError, "prune_biases.*Received: 'yes'"),
]


@pytest.mark.parametrize(("settings", "error", "message"), SETTINGS)
def test_bad_settings(settings, error, message):
    with pytest.raises(error, match=message):
        tfprune.NetworkSurgery(**settings)


def test_a_c_for_a_layer_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"nosuch"):
        tfprune.prune(build(), tfprune.NetworkSurgery(c={"nosuch": 2.0, "conv": 1.0}))


def test_config_round_trip():
    method = tfprune.NetworkSurgery(c={"conv": -0.5, ".*": 2}, prune_biases=False)
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(method)))
    assert keras.saving.deserialize_keras_object(saved) == method
