"""The report of plain, pruned and stripped nets: what it says, in words and as data."""

import json

import keras
import numpy as np
import pytest
from keras import layers as L

import tfprune
from tfprune.report import report
from tfprune.report.table import count, fraction, shape, times


def net(name: str = "small") -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            L.Conv2D(4, 3, name="conv"),
            L.BatchNormalization(name="norm"),
            L.Flatten(),
            L.Dense(5, name="fc"),
        ],
        name=name,
    )
    kernel = np.ones((64, 5), np.float32)
    kernel[:48] = 0
    model.get_layer("fc").set_weights([kernel, np.ones(5)])
    return model


@pytest.fixture(scope="module")
def pruned() -> keras.Model:
    """Magnitude pruning of one layer to 0.75, trained for a few steps."""
    model = tfprune.prune(net(), tfprune.Magnitude(target_sparsity=0.75), filters="fc")
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(32, 6, 6, 1))
    model.fit(x, np.ones((32, 5)), verbose=0, epochs=4, callbacks=[tfprune.PruningCallback()])
    return model


def test_text_names_every_way_of_counting() -> None:
    lines = str(report(net())).splitlines()
    row = next(line for line in lines if line.startswith("fc ")).split()
    assert row == ["fc", "Dense", "64x5", "325", "85", "0.2615", "320", "80"]
    expected = {
        "compression (all weights and biases)": (373, 125),
        "compression_weights (prunable kernels only)": (356, 116),
        "theoretical_speedup (multiply-adds)": (896, 656),
    }
    for name, (dense, kept) in expected.items():
        line = next(line for line in lines if line.startswith(name))
        assert line.removeprefix(name).split() == [str(dense), str(kept), f"{dense / kept:.2f}x"]
    assert any(line.startswith("compression_with_indices (bytes, with indices)") for line in lines)
    assert not any("asked" in line or "Not pruned" in line for line in lines)


def test_columns_line_up() -> None:
    lines = str(report(net())).splitlines()
    header = next(line for line in lines if line.startswith("layer"))
    rule = lines[lines.index(header) + 1]
    assert set(rule) == {"-"}
    assert len(rule) == max(len(line) for line in lines[2:9])


def test_dict_has_the_public_keys_and_is_json() -> None:
    data = report(net()).to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    layer = {"name", "shape", "parameters", "nonzero", "density", "macs", "macs_kept"}
    assert layer <= set(data["layers"][0])
    totals = {"compression", "compression_weights", "compression_with_indices"}
    assert totals | {"theoretical_speedup", "parameters", "nonzero"} <= set(data)
    assert data["compression"] == 373 / 125


def test_pruned_net(pruned: keras.Model) -> None:
    found = report(pruned)
    data = {row["name"]: row for row in found.to_dict()["layers"]}
    assert data["fc"]["kernel_nonzero"] == 80
    assert data["fc"]["kind"] == "Dense"
    assert data["fc"]["asked_sparsity"] == 0.75
    assert data["conv"]["asked_sparsity"] is None
    assert dict(found.left_out) == {
        "conv": "not selected",
        "norm": "BatchNormalization has no kernel",
    }
    assert "asked sparsity" in str(found)
    assert "norm  BatchNormalization has no kernel" in str(found)


def test_stripping_changes_no_number(pruned: keras.Model) -> None:
    before, after = report(pruned).to_dict(), report(tfprune.strip(pruned)).to_dict()
    for row in before["layers"]:
        row["asked_sparsity"] = None
    assert before["layers"] == after["layers"]
    assert {k: v for k, v in before.items() if k != "left_out"} == {
        k: v for k, v in after.items() if k != "left_out"
    }


def test_surgery_without_a_target_asks_for_nothing() -> None:
    found = report(tfprune.prune(net(), tfprune.NetworkSurgery()))
    assert found.asked == {}


def test_what_a_whole_net_is_asked_for_is_asked_of_no_layer() -> None:
    method = tfprune.Magnitude(scope="global")
    assert report(tfprune.prune(net(), method, tfprune.ConstantSparsity(0.9))).asked == {}
    each = report(tfprune.prune(net(), tfprune.Magnitude(), tfprune.ConstantSparsity(0.9))).asked
    assert set(each.values()) == {0.9}


def test_the_public_name_is_the_function() -> None:
    assert tfprune.report(net()).to_dict() == report(net()).to_dict()


def test_notes_are_shown() -> None:
    model = keras.Sequential([keras.Input((None, 3)), L.Dense(2)])
    text = str(report(model))
    assert "Note: multiply-adds not counted: the input has unknown dimensions" in text
    assert "?" in text
    assert "Note" not in str(report(model, input_shape=(4, 3)))


def test_notebook_table_is_escaped() -> None:
    model = keras.Sequential([keras.Input((3,)), L.Dense(2, name="<i>&")], name="<script>")
    text = report(model)._repr_html_()
    assert "<script>" not in text
    assert "&lt;i&gt;&amp;" in text


def test_words_for_numbers() -> None:
    assert [count(None), count(1234567)] == ["?", "1,234,567"]
    assert [fraction(v) for v in (None, 0, 0.5, 1e-5)] == ["?", "0.0000", "0.5000", "1.0e-05"]
    assert [times(v) for v in (None, 1234.5)] == ["-", "1,234.50x"]
    assert [shape(v) for v in ([2, 3], [], [[2, 3], [4]])] == ["2x3", "scalar", "2x3 + 4"]
