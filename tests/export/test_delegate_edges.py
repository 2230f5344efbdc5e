"""Files that differ a little from what the delegate takes over: left alone, or refused."""

from __future__ import annotations

import contextlib

import keras
import numpy as np
import pytest
from export.test_delegate import (
    Rows,
    built,
    conv_file,
    hold,
    loaded_apart,
    the_op,
    written,
)
from export.test_smallest import zeros

from tfprune.export.flatbuffer.file import FlatFile
from tfprune.export.verify import delegate
from tfprune.export.verify.runtime import Runner

L = keras.layers
pytestmark = built


def spatial_file(storage="float32"):
    """A 3x3 convolution whose weights DENSIFY unpacks."""
    layers = [keras.Input((10, 10, 24)), L.Conv2D(40, 3), L.ReLU()]
    return FlatFile(written(zeros(keras.Sequential(layers), dct=False), storage))


@pytest.mark.parametrize("channel", [0, 100, 215])
def test_filters_with_a_bias_stay(channel):
    """The convolution in one piece has nowhere to add it: a delegate that drops it is wrong."""
    file = conv_file()
    bias = np.zeros(24 * 9, np.float32)
    bias[channel] = 3.0
    op = the_op(file, "DEPTHWISE_CONV_2D")
    op.inputs = np.array([*op.inputs[:2], file.add_constant(file.graphs[0], [216], bias)], np.int32)
    assert hold(file.to_bytes(), (1, 8, 8, 24), (2, 8, 8, 24)) == 1  # the 1x1 alone


def test_filters_with_an_activation_stay():
    file = conv_file()
    options = the_op(file, "DEPTHWISE_CONV_2D").builtinOptions
    options.fusedActivationFunction = file.schema.ActivationFunctionType.RELU
    assert hold(file.to_bytes(), (1, 8, 8, 24)) == 1  # the 1x1 alone


@pytest.mark.parametrize("axis", ["H", "W"])
def test_dilated_convolutions_stay(axis):
    file = spatial_file()
    assert hold(file.to_bytes(), (1, 10, 10, 24)) == 1
    setattr(the_op(file, "CONV_2D").builtinOptions, f"dilation{axis}Factor", 2)
    assert hold(file.to_bytes(), (1, 10, 10, 24)) == 0


def test_convolutions_of_an_unknown_padding_stay():
    """The runtime may refuse them."""
    from ai_edge_litert import interpreter as litert

    file, loaded = spatial_file(), delegate.load_delegate()
    the_op(file, "CONV_2D").builtinOptions.padding = 7
    with contextlib.suppress(ValueError, RuntimeError):
        litert.Interpreter(model_content=file.to_bytes(), experimental_delegates=[loaded])
    assert delegate.claimed(loaded) == 0


def test_weights_whose_zero_is_another_number_stay():
    file = spatial_file("int8")
    assert hold(file.to_bytes(), (1, 10, 10, 24)) == 1
    for tensor in file.graphs[0].tensors:
        if tensor.type == file.schema.TensorType.INT8:
            count = len(tensor.quantization.scale)
            tensor.quantization.zeroPoint = np.full(count, 3, np.int64)
    assert hold(file.to_bytes(), (1, 10, 10, 24)) == 0


@pytest.mark.parametrize(("axis", "count"), [(0, 40), (3, 24)])
def test_scales_of_channels(axis, count):
    file = spatial_file("int8")
    scales = np.random.default_rng(0).uniform(0.5, 2, count).astype(np.float32) / 100
    for tensor in file.graphs[0].tensors:
        if tensor.type == file.schema.TensorType.INT8:
            tensor.quantization.scale = scales
            tensor.quantization.zeroPoint = np.zeros(count, np.int64)
            tensor.quantization.quantizedDimension = axis
    assert hold(file.to_bytes(), (1, 10, 10, 24)) == 1


def test_unpacked_weights_that_are_an_output_keep_their_size():
    file = spatial_file()
    graph = file.graphs[0]
    output = file.schema.TensorMapT()
    output.name, output.tensorIndex = b"weights", int(the_op(file, "CONV_2D").inputs[1])
    graph.outputs = np.array([*graph.outputs, output.tensorIndex], np.int32)
    file.model.signatureDefs[0].outputs.append(output)
    runner = Runner(file.to_bytes(), delegate=True)
    results = runner({name: np.ones((1, 10, 10, 24), np.float32) for name in runner.inputs})
    assert results["weights"].shape == (40, 3, 3, 24)
    assert delegate.claimed(runner.delegates[0]) == 1


@pytest.mark.parametrize("count", [1, 39, 41])
def test_a_bias_of_another_length_stays(count):
    """It is not run here, as the runtime does not check the length."""
    file = spatial_file()
    index = file.add_constant(file.graphs[0], [count], np.ones(count, np.float32))
    op = the_op(file, "CONV_2D")
    op.inputs = np.array([*op.inputs[:2], index], np.int32)
    runner = Runner(file.to_bytes(), delegate=True)
    assert delegate.claimed(runner.delegates[0]) == 0


def test_a_smaller_size_of_rows_is_damage(tmp_path):
    rows = Rows(FlatFile(conv_file("int8").to_bytes()))
    rows.sparsity.dimMetadata[0].denseSize = 1
    path = tmp_path / "small.tflite"
    path.write_bytes(rows.to_bytes())
    (line,) = loaded_apart([path])
    assert "sparse weights" in line and "are damaged" in line


def test_dense_layers_do_not_regroup_channels():
    """Twice as many vectors of half the length have as many elements."""
    inputs = keras.Input((6, 64))
    data = written(zeros(keras.Model(inputs, L.Dense(96)(inputs)), density=0.05))
    assert hold(data, (1, 6, 64)) == 1
    runner = Runner(data, delegate=True)
    with pytest.raises((ValueError, RuntimeError)):
        runner({name: np.ones((1, 12, 32), np.float32) for name in runner.inputs})


OPTIONS = [("num_threads", 0), ("num_threads", 257), ("num_threads", ""), ("verbose", -1)]


@pytest.mark.parametrize(("key", "value"), OPTIONS)
def test_options_out_of_range(key, value):
    from ai_edge_litert import interpreter as litert

    with pytest.raises(ValueError, match=rf"takes num_threads .* Received: {key} = {value}"):
        litert.load_delegate(str(delegate.library_path()), {key: value})
