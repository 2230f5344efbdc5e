"""Connections in reports: counts by hand, the page's section, the picture."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfprune
from tfprune.report.connections import connection_pictures

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
L = keras.layers


def net() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            L.Conv2D(4, 3, name="first"),
            L.Conv2D(5, 3, name="second"),
            L.GlobalAveragePooling2D(),
            L.Dense(2, name="last"),
        ]
    )


def pruned(fill=None) -> keras.Model:
    """Of the second layer, input channel 1 is cut off and the pair (0, 2) is gone."""
    model = tfprune.prune(net(), tfprune.SynapticStrength(0.5), filters=["second"])
    mask = np.ones((4, 5), bool)
    mask[1] = False
    mask[0, 2] = False
    state = model.get_layer("second").prune_state
    state.masks["kernel"].assign(mask)
    return model


def test_counts_by_hand():
    picture = connection_pictures(pruned())["second"]
    assert picture.to_dict() == {
        "connections": 20,
        "kept": 14,
        "inputs": 4,
        "outputs": 5,
        "dead_inputs": 1,
        "dead_outputs": 0,
    }
    assert picture.before.sum() == 20 and picture.after.sum() == 14
    assert picture.pairs.shape == (4, 5) and picture.pairs.sum() == 14
    assert picture.density == 0.7 and not picture.from_dense


def test_histogram_holds_norms():
    model = pruned()
    kernel = keras.ops.convert_to_numpy(model.get_layer("second").kernel)
    norms = np.sqrt((kernel**2).sum((0, 1)))
    picture = connection_pictures(model)["second"]
    low, high = picture.limits
    assert high >= np.log10(norms.max()) - 1e-6
    logs = np.log10(norms[norms > 0])
    expected, _ = np.histogram(logs.clip(low), bins=24, range=(low, high))
    np.testing.assert_array_equal(picture.after, expected)


def test_before_is_the_model_given():
    model = pruned()
    dense = net()
    picture = connection_pictures(model, dense)["second"]
    assert picture.from_dense and picture.before.sum() == 20
    with pytest.raises(ValueError, match="started from"):
        tfprune.report(model, before=keras.Sequential([keras.Input((2,)), L.Dense(2)]))


def test_before_has_the_scales_that_moved():
    first, second = L.Conv2D(4, 3, name="first"), L.Conv2D(5, 3, name="second")
    norm = L.BatchNormalization(gamma_initializer=keras.initializers.Constant(0.01))
    dense = keras.Sequential([keras.Input((8, 8, 3)), first, norm, L.ReLU(), second])
    model = tfprune.prune(dense, tfprune.SynapticStrength(0.5), filters=["second"])
    for before in (dense, model):
        picture = connection_pictures(model, before)["second"]
        np.testing.assert_array_equal(picture.before, picture.after)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (lambda: L.Conv2D(6, 3, groups=2, name="second"), (4, 6, 1, 0)),
        (
            lambda: L.DepthwiseConv2D(3, depth_multiplier=2, name="second"),
            (4, 8, 1, 3),
        ),
    ],
)
def test_channels_are_those_of_the_layer(layer, expected):
    dense = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(4, 3), layer()])
    model = tfprune.prune(dense, tfprune.SynapticStrength(0.5), filters=["second"])
    mask = model.layers[-1].prune_state.masks["kernel"]
    kept = np.ones(mask.shape, bool)
    kept[0, :3] = False
    mask.assign(kept)
    found = connection_pictures(model)["second"]
    counts = (found.inputs, found.outputs, found.dead_inputs, found.dead_outputs)
    assert counts == expected


def test_any_method_that_loses_whole_kernels_is_drawn_and_others_are_not(tmp_path):
    model = tfprune.prune(net(), tfprune.Magnitude(0.5), filters=["second"])
    assert connection_pictures(model) == {}
    with pytest.raises(ValueError, match="whole kernel"):
        tfprune.report(model).plot(tmp_path / "c.png", "connections")
    mask = np.ones((3, 3, 4, 5), bool)
    mask[:, :, 2, 3] = False
    model.get_layer("second").prune_state.masks["kernel"].assign(mask)
    assert connection_pictures(model)["second"].kept == 19


def test_page_dict_and_picture(tmp_path):
    found = tfprune.report(pruned())
    rows = {row["name"]: row["connections"] for row in found.to_dict()["layers"]}
    assert rows["first"] is None and rows["second"]["kept"] == 14
    text = found.to_html(tmp_path / "page.html").read_text()
    assert "<h2>Connections</h2>" in text and "1 of 4 inputs, 0 of 5 outputs cut off" in text
    path = found.plot(tmp_path / "c.png", "connections")
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000
    assert "<h2>Connections</h2>" not in tfprune.report(net()).to_html(path).read_text()
