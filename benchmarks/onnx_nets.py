"""Image nets in ONNX, for the engines that read it: layers that the benchmarks meet, no others.

A converter that goes through TensorFlow's graphs needs more than 16 GiB for VGG-16.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from keras import layers


def save(model: Any, path: Path) -> Path:
    """The model in ONNX, float32; maps are [1, channels, height, width], "x" is the input."""
    import onnx
    from onnx import helper

    from tfprune.graph import graphs

    ((graph, calls),) = graphs.graphs(model)
    (given,), (made,) = graph.inputs, graph.outputs
    names = {id(given): "x"}
    writer = _Writer()
    for call in calls:
        names[id(call.outputs[0])] = writer.write(call, [names[id(x)] for x in call.inputs])
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (
            ("x", [1, given.shape[-1], *given.shape[1:-1]]),
            (names[id(made)], [1, made.shape[-1], *made.shape[1:-1]]),
        )
    ]
    body = helper.make_graph(writer.nodes, model.name, ends[:1], ends[1:], writer.constants)
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(body, opset_imports=opset, ir_version=8), str(path))
    return path


class _Writer:
    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def write(self, call: Any, inputs: list[str]) -> str:
        """The nodes of one call; the name of what it makes."""
        layer, (x, *_) = call.operation, inputs
        rank = len(call.inputs[0].shape)
        if isinstance(layer, layers.Conv2D):
            pads = _pads(layer, layer.kernel_size, call)
            weights = [self.constant(np.transpose(layer.kernel, (3, 2, 0, 1)))]
            weights += [self.constant(layer.bias)] if layer.use_bias else []
            options = {"strides": list(layer.strides), "pads": pads, "group": layer.groups}
            x = self.node("Conv", [x, *weights], **options)
        elif isinstance(layer, layers.Dense):
            weights = [self.constant(layer.kernel), self.constant(layer.bias)]
            x = self.node("Gemm", [x, *weights])
        elif isinstance(layer, layers.BatchNormalization):
            own = (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
            values = [self.constant(v) for v in own]
            x = self.node("BatchNormalization", [x, *values], epsilon=layer.epsilon)
        elif isinstance(layer, layers.Normalization):
            scale = 1 / np.sqrt(np.asarray(layer.variance)).reshape(1, -1, 1, 1)
            shift = -np.asarray(layer.mean).reshape(1, -1, 1, 1) * scale
            x = self.node("Mul", [x, self.constant(scale)])
            x = self.node("Add", [x, self.constant(shift)])
        elif isinstance(layer, layers.Rescaling):
            x = self.node("Mul", [x, self.constant(np.asarray(layer.scale))])
            assert layer.offset == 0
        elif isinstance(layer, layers.MaxPooling2D | layers.AveragePooling2D):
            kind = "MaxPool" if isinstance(layer, layers.MaxPooling2D) else "AveragePool"
            window = {"kernel_shape": list(layer.pool_size), "strides": list(layer.strides)}
            x = self.node(kind, [x], pads=_pads(layer, layer.pool_size, call), **window)
        elif isinstance(layer, layers.GlobalAveragePooling2D):
            x = self.node("Flatten", [self.node("GlobalAveragePool", [x])])
        elif isinstance(layer, layers.ZeroPadding2D):
            (top, bottom), (left, right) = layer.padding
            sizes = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
            x = self.node("Pad", [x, self.constant(sizes)])
        elif isinstance(layer, layers.Flatten):
            order = [0, *range(2, rank), 1]
            x = self.node("Flatten", [self.node("Transpose", [x], perm=order)])
        elif isinstance(layer, layers.Add):
            x = self.node("Add", inputs)
        elif isinstance(layer, layers.Concatenate):
            x = self.node("Concat", inputs, axis=1)
        elif not isinstance(layer, layers.ReLU | layers.Activation | layers.InputLayer):
            raise TypeError(f"{layer.name} is a {type(layer).__name__}, which is not known here.")
        relu = getattr(getattr(layer, "activation", None), "__name__", "linear")
        if relu not in ("linear", "relu"):
            raise TypeError(f"{layer.name} has the activation {relu}, which is not known here.")
        return self.node("Relu", [x]) if relu == "relu" or isinstance(layer, layers.ReLU) else x

    def node(self, kind: str, inputs: list[str], **options: Any) -> str:
        """One node; the name of its output."""
        from onnx import helper

        name = f"y{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **options))
        return name

    def constant(self, value: Any) -> str:
        """The name of a constant; floats become float32."""
        from onnx import numpy_helper

        array = np.asarray(value)
        array = array if array.dtype == np.int64 else array.astype(np.float32)
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name


def _pads(layer: Any, window: Any, call: Any) -> list[int]:
    """Zeros before each axis, then after; "same" puts the odd one after, as TensorFlow does."""
    if layer.padding == "valid":
        return [0, 0, 0, 0]
    before, after = [], []
    for axis in (0, 1):
        size, out = call.inputs[0].shape[1 + axis], call.outputs[0].shape[1 + axis]
        need = max((out - 1) * layer.strides[axis] + window[axis] - size, 0)
        before.append(need // 2)
        after.append(need - need // 2)
    return before + after
