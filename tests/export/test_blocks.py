"""The target "mobile-sparse-block": convolutions as dense layers of 1x4 blocks."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from sparse_nets import blocks_of_zeros, inputs_of, wild, zeros

import tfprune
from tfprune.export import ExportError, Verification, export_tflite, predict_tflite
from tfprune.export.flatbuffer.file import FlatFile
from tfprune.export.targets.mobile_sparse_block import cost

L = keras.layers


def ops_of(path):
    file = FlatFile(path.read_bytes())
    (graph,) = file.graphs
    return file, graph, [file.kind(op) for op in graph.operators]


@pytest.mark.parametrize("dct", [True, False])
def test_files_are_right(dct, tmp_path):
    model = blocks_of_zeros(wild(), dct=dct)
    x = inputs_of(model)
    dense = export_tflite(model, tmp_path / "d.tflite", verification=Verification(samples=x))
    found = export_tflite(
        model,
        tmp_path / "b.tflite",
        target="mobile-sparse-block",
        verification=Verification(samples=x),
    )
    forms = {layer.name.removesuffix("_1"): layer for layer in found.layers}
    stay = {name for name, one in forms.items() if one.form == "dense"}
    assert stay == {"first", "every_second"}
    assert "multiple of 4" in forms["first"].note and "not all zeros" in forms["every_second"].note
    assert forms["pointwise"].density == pytest.approx(0.08, abs=0.03)
    assert ("9 DCT filters" if dct else "9 shifts") in forms["strided"].note
    got = predict_tflite(found.path, x)
    for name, wanted in zip(model.output_names, model.predict(x, verbose=0), strict=True):
        np.testing.assert_allclose(got[name], wanted, rtol=1e-4, atol=1e-4)
    assert found.bytes < 0.6 * dense.bytes


def test_no_weights_are_unpacked_and_batches_may_grow(tmp_path):
    inputs = keras.Input((8, 8, 16))
    x = L.Conv2D(64, 3, padding="same")(inputs)
    model = blocks_of_zeros(keras.Model(inputs, L.GlobalAveragePooling2D()(x)))
    export_tflite(model, tmp_path / "b.tflite", target="mobile-sparse-block")
    _, _, kinds = ops_of(tmp_path / "b.tflite")
    assert "DENSIFY" not in kinds and "CONV_2D" not in kinds
    assert kinds.count("DEPTHWISE_CONV_2D") == 9 and kinds.count("FULLY_CONNECTED") == 1
    from tfprune.export.verify.runtime import Runner

    runner = Runner((tmp_path / "b.tflite").read_bytes())
    batch = inputs_of(model, 5)
    (got,) = runner({name: batch for name in runner.inputs}).values()
    np.testing.assert_allclose(got, model.predict(batch, verbose=0), rtol=1e-4, atol=1e-5)


def test_entries_that_lie_anywhere_are_refused(tmp_path):
    inputs = keras.Input((8, 8, 16))
    model = zeros(keras.Model(inputs, L.Conv2D(64, 3, padding="same", name="wide")(inputs)), 0.1)
    model.layers[1].kernel.assign(np.random.default_rng(0).normal(size=(3, 3, 16, 64)))
    with pytest.raises(ExportError, match=r"'wide.*1\.00 of its 1x4 blocks.*input4"):
        export_tflite(model, tmp_path / "b.tflite", target="mobile-sparse-block")
    with pytest.raises(ValueError, match=r"`storage` must be one of \('float32',\)"):
        export_tflite(model, tmp_path / "b.tflite", target="mobile-sparse-block", storage="int8")
    assert not list(tmp_path.iterdir())


def test_convolutions_in_groups_stay_dense(tmp_path):
    inputs = keras.Input((8, 8, 16))
    x = L.Conv2D(64, 3, padding="same", name="whole")(inputs)
    model = keras.Model(inputs, L.Conv2D(64, 3, groups=4, name="grouped")(x))
    found = export_tflite(
        blocks_of_zeros(model), tmp_path / "b.tflite", target="mobile-sparse-block"
    )
    assert [(one.form, one.note) for one in found.layers][1] == ("dense", "it has groups")
    assert found.layers[0].form == "blocks"


def test_dead_layers_keep_one_block(tmp_path):
    inputs = keras.Input((8, 8, 16))
    model = keras.Model(inputs, L.Conv2D(64, 3, padding="same")(inputs))
    model.layers[1].kernel.assign(np.zeros((3, 3, 16, 64)))
    model.layers[1].bias.assign(np.arange(64))
    found = export_tflite(model, tmp_path / "b.tflite", target="mobile-sparse-block")
    assert found.layers[0].form == "blocks" and found.max_relative_error < 1e-6


def test_what_a_net_learns_in_fours_becomes_blocks(tmp_path):
    inputs = keras.Input((10, 10, 8))
    x = L.Conv2D(64, 3, padding="same", activation="relu", name="a")(inputs)
    x = L.Conv2D(64, 3, padding="same", activation="relu", name="b")(x)
    model = keras.Model(inputs, L.Dense(4)(L.GlobalAveragePooling2D()(x)))
    pruned = tfprune.prune(
        model,
        tfprune.FrequencyDomain(target_sparsity=0.92, granularity="input4"),
        filters=["^[ab]$"],
    )
    pruner = tfprune.Pruner(pruned, total_steps=2)
    for _ in range(3):
        pruner.update()
    found = export_tflite(pruned, tmp_path / "b.tflite", target="mobile-sparse-block")
    assert [one.form for one in found.layers] == ["blocks", "blocks", "dense"]
    assert found.layers[1].density == pytest.approx(0.08, abs=0.01)


def test_cost_falls_with_density_and_width():
    assert cost(0.1, 64, 9) > cost(0.05, 64, 9) > cost(0.05, 128, 9)
    assert cost(0.1, 256, 9) < 0.5 and cost(0.5, 256, 9) > 0.9


def test_stored_bytes_are_those_of_the_blocks(tmp_path):
    inputs = keras.Input((6, 6, 16))
    model = keras.Model(inputs, L.Conv2D(64, 1, name="a")(inputs))
    rng = np.random.default_rng(0)
    kept = rng.random((64, 4)) < 0.2
    blocks = rng.normal(size=(64, 4, 4)) * kept[..., None]
    model.layers[1].kernel.assign(blocks.reshape(64, 16).T[None, None])
    export_tflite(model, tmp_path / "b.tflite", target="mobile-sparse-block")
    form = export_tflite(model, tmp_path / "b.tflite", target="mobile-sparse-block").layers[0]
    assert form.dense_bytes == 16 * 64 * 4
    assert form.density == kept.mean()
    # four float32 and an index of two bytes a block; four bytes an output for where its blocks end
    assert form.stored_bytes == kept.sum() * (4 * 4 + 2) + 4 * 64
    file, graph, _ = ops_of(tmp_path / "b.tflite")
    (tensor,) = [tensor for tensor in graph.tensors if tensor.sparsity is not None]
    last = tensor.sparsity.dimMetadata[1]
    values = len(file.model.buffers[tensor.buffer].data)
    assert values == kept.sum() * 16 < form.stored_bytes
    assert len(last.arrayIndices.values) == kept.sum() and len(last.arraySegments.values) == 65
