"""Which layers are pruned, and how: `filters`, dicts of methods, dicts of schedules."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from pruned.user_classes import Blocks

import tfprune
from tfprune.pruned.layers import left_out, pruned_layers

EARLY = tfprune.ConstantSparsity(0.25, begin_step=0, end_step=1, frequency=1)
LATE = tfprune.ConstantSparsity(0.75, begin_step=2, end_step=3, frequency=1)
KERNELS = [
    "entry",
    "blocks/first",
    "blocks/point0",
    "blocks/point1",
    "head",
]


def model() -> keras.Model:
    """Two convolution layers' worth of structure, with a user layer inside."""
    return keras.Sequential(
        [
            layers.Input((6, 6, 2)),
            layers.Conv2D(4, 3, name="entry"),
            layers.BatchNormalization(name="norm"),
            Blocks(name="blocks"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, name="head"),
        ]
    )


def paths(method: Any = None, schedule: Any = None, filters: Any = None) -> list[str]:
    chosen = tfprune.Magnitude() if method is None else method
    return [path for path, _ in pruned_layers(tfprune.prune(model(), chosen, schedule, filters))]


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        (None, KERNELS),
        ("point", ["blocks/point0", "blocks/point1"]),
        ("^head$", ["head"]),
        (["entry", "point1$"], ["entry", "blocks/point1"]),
        (("head",), ["head"]),
        ({"head"}, ["head"]),
        (layers.Dense, ["head"]),
        ([layers.Dense, "entry"], ["entry", "head"]),
        (lambda layer: layer.name.startswith("point"), ["blocks/point0", "blocks/point1"]),
        ([lambda layer: layer.name == "head"], ["head"]),
        ({"entry": False, layers.Conv2D: True}, ["blocks/first", "blocks/point0", "blocks/point1"]),
        ({"point0": False, "head": False, ".": True}, ["entry", "blocks/first", "blocks/point1"]),
        ({"head": True}, ["head"]),
    ],
)
def test_filters(filters: Any, wanted: list[str]) -> None:
    assert paths(filters=filters) == wanted


def test_layer_objects_select() -> None:
    built = model()
    chosen = [built.get_layer("entry"), built.get_layer("blocks").others[1]]
    pruned = tfprune.prune(built, tfprune.Magnitude(), filters=chosen)
    assert [path for path, _ in pruned_layers(pruned)] == ["entry", "blocks/point1"]
    pruned = tfprune.prune(built, {chosen[0]: tfprune.Magnitude()})
    assert [path for path, _ in pruned_layers(pruned)] == ["entry"]


def test_what_is_not_selected_is_listed_with_its_reason() -> None:
    pruned = tfprune.prune(model(), tfprune.Magnitude(), filters="head")
    reasons = dict(left_out(pruned))
    assert set(reasons) == {"norm", *KERNELS[:-1]}
    assert reasons["entry"] == "not selected"
    assert "no kernel" in reasons["norm"]


def test_methods_by_layer_and_none_leaves_out() -> None:
    surgery, magnitude = tfprune.NetworkSurgery(c=1.0), tfprune.Magnitude()
    methods = {"point0": None, layers.Dense: surgery, "blocks|entry": magnitude}
    pruned = tfprune.prune(model(), methods)
    assert {path: layer.prune_state.method for path, layer in pruned_layers(pruned)} == {
        "entry": magnitude,
        "blocks/first": magnitude,
        "blocks/point1": magnitude,
        "head": surgery,
    }


def test_first_key_decides_and_layers_without_a_key_are_left_out() -> None:
    first, second = tfprune.Magnitude(0.25), tfprune.Magnitude(0.75)
    pruned = tfprune.prune(model(), {"point0": first, "point": second})
    assert {path: layer.prune_state.method for path, layer in pruned_layers(pruned)} == {
        "blocks/point0": first,
        "blocks/point1": second,
    }


def test_schedules_by_layer_decide_what_each_layer_reaches() -> None:
    pruned = tfprune.prune(model(), tfprune.Magnitude(), {"head": EARLY, "blocks/": LATE})
    found = {path: layer.prune_state.schedule for path, layer in pruned_layers(pruned)}
    assert found["head"] == EARLY
    assert found["blocks/first"] == found["blocks/point1"] == LATE
    assert found["entry"] == tfprune.Magnitude().schedule()
    pruned.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(8, 6, 6, 2)).astype("float32")
    callbacks = [tfprune.PruningCallback()]
    pruned.fit(x, np.ones((8, 3)), batch_size=2, verbose=0, callbacks=callbacks)
    reached = {path: layer.prune_state.sparsity() for path, layer in pruned_layers(pruned)}
    assert reached == pytest.approx(
        {"entry": 0.5, "head": 0.25, "blocks/first": 0.75, "blocks/point0": 0.75}
        | {"blocks/point1": 0.75},
        abs=0.01,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        {"filters": "had"},
        {"filters": ["head", "had"]},
        {"filters": {"had": True}},
        {"method": {"head": tfprune.Magnitude(), "had": None}},
        {"schedule": {"had": EARLY}},
        {"filters": layers.LSTM},
        {"filters": lambda layer: False},
    ],
)
def test_a_key_that_selects_nothing_names_the_layers(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError) as error:
        paths(**arguments)
    assert all(path in str(error.value) for path in KERNELS)


@pytest.mark.parametrize(
    "arguments",
    [
        {"filters": "("},
        {"filters": ["head", "["]},
        {"method": {"*": tfprune.Magnitude()}},
        {"schedule": {"(": EARLY}},
    ],
)
def test_a_broken_regular_expression_is_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is not a regular expression"):
        paths(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"filters": 3}, TypeError),
        ({"filters": [3]}, TypeError),
        ({"filters": {3: True}}, TypeError),
        ({"filters": []}, ValueError),
        ({"filters": {"head": False}}, ValueError),
        ({"method": {}}, ValueError),
        ({"method": {"head": None}}, ValueError),
        ({"method": "magnitude"}, TypeError),
        ({"method": tfprune.Magnitude}, TypeError),
        ({"method": {"head": "magnitude"}}, TypeError),
        ({"method": {"head": tfprune.Magnitude}}, TypeError),
        ({"schedule": 0.5}, TypeError),
        ({"schedule": {}}, ValueError),
        ({"schedule": {"head": 0.5}}, TypeError),
        ({"schedule": tfprune.ConstantSparsity}, TypeError),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        paths(**arguments)


def test_a_failed_prune_in_place_leaves_the_model_as_it_was() -> None:
    built = model()
    kinds = [type(layer) for layer in built._flatten_layers()]
    for arguments in ({"filters": "had"}, {"schedule": {"head": 0.5}}):
        with pytest.raises((TypeError, ValueError)):
            tfprune.prune(built, tfprune.Magnitude(), in_place=True, **arguments)
    assert [type(layer) for layer in built._flatten_layers()] == kinds


def test_selection_of_a_saved_model_comes_from_the_file(tmp_path: Any) -> None:
    pruned = tfprune.prune(model(), {"point0": None, ".": tfprune.Magnitude()})
    pruned.save(tmp_path / "a.keras")
    back = keras.models.load_model(tmp_path / "a.keras")
    assert len(pruned_layers(back)) == len(pruned_layers(pruned)) == 4
    assert not hasattr(back.get_layer("blocks").others[0], "prune_state")
