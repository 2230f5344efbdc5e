"""Rebuild a stripped Functional or Sequential model without the channels that nobody needs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfprune.graph import _keras
from tfprune.graph.copying import clone_layer, copy_values, custom_classes, uncompiled
from tfprune.graph.graphs import Call, calls, shared_layers
from tfprune.graph.models import compile_like
from tfprune.inference.channels import Channels, folds_constants, kind, needed


def shrunk(model: keras.Model) -> keras.Model:
    """The same function with fewer channels, as an ordinary model; a copy.

    Removed are channels that no weight reads on a way to an output, and channels that are the same
    for every input, whose value moves into the biases behind them where that is exact (not where a
    convolution pads with zeros, unless the value is 0). Inputs and outputs keep their shapes.
    Layers of kinds that are not understood, layers called more than once, and nested models keep
    every channel that they see; so do subclasses of Keras layers without `computes_as` (see
    `tfprune.graph.graphs.class_of`). Where a subclass of `keras.Model` has
    a constructor of its own, the result is a plain Functional model.

    Raises:
        ValueError: if there is no graph to analyse: the model is subclassed, or not built by Keras
            from its layers.
    """
    graph = _keras.graph_of(model)
    if graph is None:
        raise ValueError(
            "`shrink=True` needs a Functional or Sequential model, without a `call` of its own. "
            f"Received: '{model.name}' of type {model.__class__.__name__}. Strip it without "
            "`shrink`."
        )
    graph_calls = calls(graph, shared_layers(model))
    understood = {id(call.operation): call for call in graph_calls if kind(call) != "unknown"}
    channels = needed(graph, graph_calls)
    with keras.saving.custom_object_scope(custom_classes(model)), uncompiled(model):
        small = keras.models.clone_model(
            model,
            clone_function=lambda layer: _clone(layer, understood.get(id(layer)), channels),
            recursive=True,
        )
    for layer, copy in zip(_layers(model), _layers(small), strict=True):
        call = understood.get(id(layer))
        if call is None:
            copy_values(layer, copy)
        else:
            _put(layer, copy, call, channels)
    if model.compiled:
        compile_like(model, small)
    return small


def _layers(model: keras.Model) -> list[keras.Layer]:
    return [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]


def _clone(layer: keras.Layer, call: Call | None, channels: Channels) -> keras.Layer:
    if call is None or kind(call) != "mixing":
        return clone_layer(layer)
    config = layer.get_config()
    key = "filters" if "filters" in config else "units"
    config[key] = int(channels.kept[id(call.outputs[0])].sum())
    config["use_bias"] = layer.use_bias or bool(_bias(layer, call, channels).any())
    return layer.__class__.from_config(config)


def _put(layer: Any, small: Any, call: Call, channels: Channels) -> None:
    """Give the smaller layer the weights of the larger one that stay."""
    kept_in, kept_out = (channels.kept[id(x[0])] for x in (call.inputs, call.outputs))
    sort = kind(call)
    if sort == "mixing":
        _put_mixing(layer, small, call, channels)
    elif sort == "depthwise":
        kernel = np.compress(kept_in, layer.get_weights()[0], axis=-2)
        rest = [np.compress(kept_out, w) for w in layer.get_weights()[1:]]
        small.set_weights([kernel, *rest])
    elif layer.weights:
        small.set_weights([np.compress(kept_out, w, axis=-1) for w in layer.get_weights()])
    small.trainable = layer.trainable
    for old, new in zip(layer.weights, small.weights, strict=False):  # which may have a bias more
        if new.trainable != old.trainable:
            new.trainable = old.trainable


def _put_mixing(layer: Any, small: Any, call: Call, channels: Channels) -> None:
    kept_in, kept_out = (channels.kept[id(x[0])] for x in (call.inputs, call.outputs))
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    small.kernel.assign(np.compress(kept_out, np.compress(kept_in, kernel, axis=-2), axis=-1))
    if small.use_bias:
        small.bias.assign(_bias(layer, call, channels).astype(kernel.dtype))


def _bias(layer: Any, call: Call, channels: Channels) -> np.ndarray:
    """The bias of the outputs that are kept, with what removed constant inputs add."""
    kept_in, kept_out = (channels.kept[id(x[0])] for x in (call.inputs, call.outputs))
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    bias = np.zeros(kernel.shape[-1], "float64")
    if layer.use_bias:
        bias = bias + keras.ops.convert_to_numpy(layer.bias)
    if folds_constants(layer):
        values = np.nan_to_num(channels.constant[id(call.inputs[0])])[~kept_in]
        summed = kernel.reshape(-1, *kernel.shape[-2:]).astype("float64").sum(0)[~kept_in]
        bias = bias + values @ summed
    return bias[kept_out]
