"""Copies of models with other layers in place of some of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from tfprune.graph import _keras
from tfprune.graph.copying import clone_layer, copy_values, custom_classes, uncompiled


def rebuilt(model: keras.Model, made: dict[int, Callable[[], keras.Layer]]) -> keras.Model:
    """A copy of a Functional or Sequential model with other layers in place of some.

    Args:
        model: stays as it is.
        made: id of a layer -> what makes the one that takes its place, built, with its weights.
    """
    copies: dict[int, keras.Layer] = {}
    placed: set[int] = set()

    def clone(layer: Any) -> Any:
        if not isinstance(layer, keras.Layer):  # an operation, such as x + y
            return layer.__class__.from_config(layer.get_config())
        copies[id(layer)] = made[id(layer)]() if id(layer) in made else clone_layer(layer)
        if id(layer) in made:
            placed.add(id(copies[id(layer)]))
        return copies[id(layer)]

    def call(layer: keras.Layer, *inputs: Any, **arguments: Any) -> Any:
        """Without arguments such as `mask`, that what took a layer's place does not know."""
        return layer(*inputs) if id(layer) in placed else layer(*inputs, **arguments)

    graph = {} if isinstance(model, keras.Sequential) else {"call_function": call}
    with keras.saving.custom_object_scope(custom_classes(model)), uncompiled(model):
        small = keras.models.clone_model(model, clone_function=clone, recursive=True, **graph)
    originals = {id(layer): layer for layer in _keras.all_layers(model)}
    for key, copy in copies.items():
        if key not in made and not isinstance(copy, keras.layers.InputLayer):
            copy_values(originals[key], copy)
    return small


def identity(layer: keras.Layer) -> Callable[[], keras.Layer]:
    """What makes a layer of the same name that does nothing."""
    return lambda: keras.layers.Identity(name=layer.name, dtype=layer.dtype_policy.name)
