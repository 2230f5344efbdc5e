"""Copies of models without the masks and wrappers of tfprune."""

from __future__ import annotations

import keras

from tfprune.graph import _keras
from tfprune.graph.copying import clone_model, copy_values, custom_classes, uncompiled
from tfprune.graph.layers import is_transparent
from tfprune.graph.models import compile_like
from tfprune.pruned import saving
from tfprune.pruned.layers import STATE
from tfprune.pruned.parametrize import unparametrize


def copy_model(model: keras.Model, unwrapped: bool = False) -> keras.Model:
    """Copy a built model by its configuration; a pruned model gives a plain one.

    Weights, `trainable` flags, tables of preprocessing layers and the compile settings come along;
    the optimizer starts anew.

    Args:
        unwrapped: replace the wrappers of `tfprune.layers` by the layers they hold.

    Raises:
        ValueError: if the model cannot be made again from its configuration.
    """
    try:
        with (
            keras.saving.custom_object_scope(custom_classes(model)),
            saving.plain_configuration(),
            uncompiled(model),
        ):
            copy = clone_model(model, unwrapped)
    except Exception as error:
        raise ValueError(
            f"Model '{model.name}' of type {model.__class__.__name__} cannot be copied from its "
            "configuration (a subclassed model or layer needs `get_config`). Give it one, or pass "
            f"`in_place=True`. Keras said: {error}"
        ) from error
    for layer in _keras.all_layers(copy):
        saving.unmark(layer)
    if unwrapped:
        unwrap(copy)
    copy_values(model, copy)
    if model.compiled:
        compile_like(model, copy)
    return copy


def unwrap(model: keras.Model) -> None:
    """Put the layer that a wrapper of `tfprune.layers` holds in the wrapper's place, everywhere."""
    for owner in _keras.all_layers(model):
        for name, value in list(vars(owner).items()):
            if is_transparent(value):
                _keras.replace_child(owner, name, value.layer)
            elif isinstance(value, list | tuple) and not name.startswith("_"):
                inner = [x.layer if is_transparent(x) else x for x in value]
                if any(a is not b for a, b in zip(inner, value, strict=True)):
                    _keras.replace_child(owner, name, inner)
    for layer in _keras.all_layers(model):
        if hasattr(layer, STATE) and getattr(layer, STATE).wrapped:
            unparametrize(layer)
    left = [x.name for x in _keras.all_layers(model) if is_transparent(x)]
    if left:
        raise ValueError(
            f"The wrappers {left} stand where tfprune cannot replace them. Keep them in attributes "
            "or lists of the layers that own them, or prune with `tfprune.prune` instead."
        )
