"""A copy of a Keras model with the same weights, which shares nothing that can be trained."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from typing import Any

import keras

from tfprune.graph import _keras
from tfprune.graph.layers import is_auxiliary, is_transparent


def _layers(model: keras.Layer) -> list[keras.Layer]:
    """All layers of a model, itself first, without auxiliary and transparent ones."""
    layers = _keras.all_layers(model)
    return [layer for layer in layers if not (is_auxiliary(layer) or is_transparent(layer))]


def _variables(model: keras.Layer) -> list[keras.Variable]:
    """The variables of the layers of a model, without auxiliary layers' and the optimizer's."""
    ours = {id(v) for x in _keras.all_layers(model) if is_auxiliary(x) for v in x.variables}
    optimizer = {id(v) for v in getattr(getattr(model, "optimizer", None), "variables", [])}
    return [v for v in model.variables if id(v) not in ours | optimizer]


def custom_classes(model: keras.Layer) -> dict[str, type]:
    """The layer classes in a model that are not Keras' own, by class and by registered name."""
    classes: dict[str, type] = {}
    for layer in _keras.all_layers(model):
        cls = layer.__class__
        if cls.__module__.split(".")[0] != "keras":
            classes[cls.__name__] = cls
            classes[keras.saving.get_registered_name(cls)] = cls
    return classes


@contextlib.contextmanager
def uncompiled(model: keras.Model) -> Iterator[None]:
    """Inside, Keras copies the model's structure alone, not its losses (any function)."""
    compiled = [x for x in _keras.all_layers(model) if getattr(x, "compiled", False)]
    try:
        for inner in compiled:
            inner.compiled = False
        yield
    finally:
        for inner in compiled:
            inner.compiled = True


def clone_model(model: keras.Model, unwrapped: bool = False) -> keras.Model:
    """A new model from the configuration of one, within the scope of `custom_classes`.

    Args:
        unwrapped: put the layers that transparent ones stand for in their place.
    """
    made_by_keras = model.__class__.__module__.split(".")[0] == "keras"
    if made_by_keras and isinstance(model, _keras.Functional | keras.Sequential):
        return keras.models.clone_model(
            model, clone_function=lambda layer: clone_layer(layer, unwrapped), recursive=True
        )
    return _rebuilt(model)


def clone_layer(layer: keras.Layer, unwrapped: bool = False) -> keras.Layer:
    """A new layer or model from the configuration of one, within the scope of `custom_classes`."""
    if unwrapped and is_transparent(layer):
        layer = layer.layer
    if type(layer) is keras.layers.Lambda:
        return _keras.same_lambda(layer)
    if isinstance(layer, keras.Model):
        return _rebuilt(layer)
    return layer.__class__.from_config(layer.get_config())


def _rebuilt(model: keras.Model) -> keras.Model:
    config = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)
    copy = keras.saving.deserialize_keras_object(config, safe_mode=False)
    if not copy.built:
        raise ValueError("it is not built after `build_from_config`")
    return copy


def copy_values(model: keras.Layer, copy: keras.Layer) -> None:
    """Give a copy of a layer or model its variables, `trainable` flags, names and tables.

    Raises:
        ValueError: if the two do not have the same layers and variables.
    """
    old, new = _variables(model), _variables(copy)
    old_layers, new_layers = _layers(model), _layers(copy)
    if [tuple(v.shape) for v in old] != [tuple(v.shape) for v in new] or len(old_layers) != len(
        new_layers
    ):
        raise ValueError(
            f"Model '{model.name}' does not come back from its configuration with the same layers "
            "and variables, so it cannot be copied. Pass `in_place=True`. Received: "
            f"{len(old_layers)} layers, {len(old)} variables; then {len(new_layers)}, {len(new)}."
        )
    for source, target in zip(old_layers, new_layers, strict=True):
        target.name, target.trainable = source.name, source.trainable
        _copy_state(source, target)
    for old_variable, new_variable in zip(old, new, strict=True):
        new_variable.assign(keras.ops.convert_to_numpy(old_variable))
        if new_variable.trainable != old_variable.trainable:
            new_variable.trainable = old_variable.trainable


def _copy_state(source: keras.Layer, target: keras.Layer) -> None:
    """What a layer keeps outside its variables, by the two ways in which Keras saves it.

    A layer with an auxiliary one inside writes other values than those of its variables.
    """
    writes_others = any(map(is_auxiliary, _keras.children(source)))
    if not writes_others and not isinstance(source, keras.Model):
        store: dict[str, Any] = {}
        source.save_own_variables(store)
        arrays = {key: keras.ops.convert_to_numpy(value) for key, value in store.items()}
        target.load_own_variables(arrays)
    if hasattr(source, "save_assets") and hasattr(target, "load_assets"):
        with tempfile.TemporaryDirectory() as folder:
            source.save_assets(folder)
            target.load_assets(folder)
