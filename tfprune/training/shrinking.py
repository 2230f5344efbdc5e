"""Rebuild a stripped Functional or Sequential model without the channels that nobody needs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfprune.training import _keras
from tfprune.training.channels import Channels, folds_constants, kind, needed
from tfprune.training.copying import compile_like

_L = keras.layers


def shrunk(model: keras.Model) -> keras.Model:
    """The same function with fewer channels, as an ordinary model; a copy.

    Removed are channels that no entry reads on a way to an output, and channels that are the same
    for every input, whose value moves into the biases behind them where that is exact (not where a
    convolution pads with zeros, unless the value is 0). Inputs and outputs keep their shapes.
    Layers of kinds that are not understood keep every channel that they see; so do nested models.

    Raises:
        ValueError: if the model is subclassed, so that there is no graph to analyse.
    """
    graph = getattr(model, "_functional", None) or model
    if not isinstance(graph, _keras.Functional):
        raise ValueError(
            f"`shrink=True` needs a Functional or Sequential model. Received: '{model.name}' of "
            f"type {type(model).__name__}."
        )
    channels = needed(graph)
    around = _around(graph, channels)
    small = keras.models.clone_model(
        model, clone_function=lambda layer: _clone(layer, around.get(id(layer)))
    )
    twins = dict(zip(_layers(model), _layers(small), strict=True))
    for layer, twin in twins.items():
        _put(layer, twin, around.get(id(layer)), channels)
        twin.trainable = layer.trainable
    if model.compiled:
        compile_like(model, small)
    return small


class _Around:
    """The tensors that a layer reads and makes."""

    def __init__(self, inputs: list, outputs: list, channels: Channels) -> None:
        self.inputs, self.outputs = inputs, outputs
        self.kept_in = channels.kept[id(inputs[0])]
        self.kept_out = channels.kept[id(outputs[0])]


def _around(graph: Any, channels: Channels) -> dict[int, _Around]:
    found: dict[int, _Around] = {}
    for operation, inputs, outputs in _keras.reads_and_makes(graph):
        known = found.get(id(operation))
        if known is None:
            found[id(operation)] = _Around(inputs, outputs, channels)
    return found


def _layers(model: keras.Model) -> list[keras.Layer]:
    return [layer for layer in model.layers if not isinstance(layer, _L.InputLayer)]


def _clone(layer: keras.Layer, around: _Around | None) -> keras.Layer:
    config = layer.get_config()
    if around is not None and kind(layer) == "mixing":
        key = "units" if isinstance(layer, _L.Dense) else "filters"
        config[key] = int(around.kept_out.sum())
        config["use_bias"] = True
    return layer.__class__.from_config(config)


def _put(layer: Any, twin: Any, around: _Around | None, channels: Channels) -> None:
    """Give the smaller layer the entries of the larger one that stay."""
    if around is None or kind(layer) == "unknown":
        twin.set_weights(layer.get_weights())
        return
    sort = kind(layer)
    if sort == "mixing":
        _put_mixing(layer, twin, around, channels)
    elif sort == "depthwise":
        kernel = np.compress(around.kept_in, layer.get_weights()[0], axis=-2)
        rest = [np.compress(around.kept_out, w) for w in layer.get_weights()[1:]]
        twin.set_weights([kernel, *rest])
    elif layer.weights:
        twin.set_weights([np.compress(around.kept_out, w, axis=-1) for w in layer.get_weights()])


def _put_mixing(layer: Any, twin: Any, around: _Around, channels: Channels) -> None:
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    bias = np.zeros(kernel.shape[-1], kernel.dtype)
    if layer.use_bias:
        bias = bias + keras.ops.convert_to_numpy(layer.bias)
    if folds_constants(layer):
        gone = ~around.kept_in
        values = np.nan_to_num(channels.constant[id(around.inputs[0])])[gone]
        each = kernel.reshape(-1, *kernel.shape[-2:]).sum(0)[gone]
        bias = bias + values.astype(kernel.dtype) @ each
    small = np.compress(around.kept_in, kernel, axis=-2)
    twin.kernel.assign(np.compress(around.kept_out, small, axis=-1))
    twin.bias.assign(bias[around.kept_out])
