"""A copy of a Keras model with the same weights, which shares nothing that can be trained."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

import keras

from tfprune.training import _keras, saving
from tfprune.training.layers import STATE


def _layers(model: keras.Layer) -> list[keras.Layer]:
    """All layers of a model, itself first, without tfprune's own."""
    skip = ("is_prune_state", "is_pruning_wrapper")
    return [x for x in model._flatten_layers() if not any(getattr(x, key, False) for key in skip)]


def _variables(model: keras.Layer) -> list[keras.Variable]:
    """The variables of the layers of a model, without tfprune's own and the optimizer's."""
    ours = {
        id(v)
        for layer in model._flatten_layers()
        if getattr(layer, "is_prune_state", False)
        for v in layer.variables
    }
    optimizer = {id(v) for v in getattr(getattr(model, "optimizer", None), "variables", [])}
    return [v for v in model.variables if id(v) not in ours | optimizer]


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
            copy = _clone(model, unwrapped)
    except Exception as error:
        raise ValueError(
            f"Model '{model.name}' of type {model.__class__.__name__} cannot be copied from its "
            "configuration (a subclassed model or layer needs `get_config`). Give it one, or pass "
            f"`in_place=True`. Keras said: {error}"
        ) from error
    for layer in copy._flatten_layers():
        saving.unmark(layer)
    if unwrapped:
        unwrap(copy)
    copy_values(model, copy)
    if model.compiled:
        compile_like(model, copy)
    return copy


def custom_classes(model: keras.Layer) -> dict[str, type]:
    """The layer classes in a model that are not Keras' own, by class and by registered name."""
    found: dict[str, type] = {}
    for layer in model._flatten_layers():
        cls = layer.__class__
        if cls.__module__.split(".")[0] != "keras":
            found[cls.__name__] = cls
            found[keras.saving.get_registered_name(cls)] = cls
    return found


@contextlib.contextmanager
def uncompiled(model: keras.Model) -> Iterator[None]:
    """Inside, Keras copies the model's structure alone, not its losses (any function)."""
    compiled = [x for x in model._flatten_layers() if getattr(x, "compiled", False)]
    try:
        for one in compiled:
            one.compiled = False
        yield
    finally:
        for one in compiled:
            one.compiled = True


def _clone(model: keras.Model, unwrapped: bool) -> keras.Model:
    made_by_keras = model.__class__.__module__.split(".")[0] == "keras"
    if made_by_keras and isinstance(model, _keras.Functional | keras.Sequential):
        return keras.models.clone_model(
            model, clone_function=lambda layer: clone_layer(layer, unwrapped), recursive=True
        )
    return _rebuilt(model)


def clone_layer(layer: keras.Layer, unwrapped: bool = False) -> keras.Layer:
    """A new layer or model from the configuration of one, within the scope of `custom_classes`."""
    if unwrapped and getattr(layer, "is_pruning_wrapper", False):
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
            "and variables, so it cannot be copied. Pass `in_place=True`."
        )
    for source, target in zip(old_layers, new_layers, strict=True):
        target.name, target.trainable = source.name, source.trainable
        _copy_state(source, target)
    for old_variable, new_variable in zip(old, new, strict=True):
        new_variable.assign(keras.ops.convert_to_numpy(old_variable))
        if new_variable.trainable != old_variable.trainable:
            new_variable.trainable = old_variable.trainable


def _copy_state(source: keras.Layer, target: keras.Layer) -> None:
    """What a layer keeps outside its variables, by the two ways in which Keras saves it."""
    if not hasattr(source, STATE) and not isinstance(source, keras.Model):
        store: dict[str, Any] = {}
        source.save_own_variables(store)
        arrays = {key: keras.ops.convert_to_numpy(value) for key, value in store.items()}
        target.load_own_variables(arrays)
    if hasattr(source, "save_assets") and hasattr(target, "load_assets"):
        with tempfile.TemporaryDirectory() as folder:
            source.save_assets(folder)
            target.load_assets(folder)


def compile_like(model: keras.Model, copy: keras.Model) -> None:
    """Compile a copy, or the model itself, with the settings of the model, by a new optimizer."""
    try:
        arguments = _keras.compile_arguments(model)
        optimizer = model.optimizer
        arguments["optimizer"] = type(optimizer).from_config(optimizer.get_config())
        for key in ("metrics", "weighted_metrics"):
            arguments[key] = keras.tree.map_structure(_fresh_metric, arguments.get(key))
        copy.compile(**arguments)
    except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
        warnings.warn(
            f"Model '{copy.name}' is not compiled; call `compile` on it. ({error})",
            stacklevel=4,
        )


def _fresh_metric(metric: Any) -> Any:
    if isinstance(metric, keras.metrics.Metric):
        return type(metric).from_config(metric.get_config())
    return metric


def unwrap(model: keras.Model) -> None:
    """Put the layer that a wrapper of `tfprune.layers` holds in the wrapper's place, everywhere."""
    from tfprune.training.parametrize import unparametrize

    for owner in model._flatten_layers():
        for name, value in list(vars(owner).items()):
            if getattr(value, "is_pruning_wrapper", False):
                _keras.replace_child(owner, name, value.layer)
            elif isinstance(value, list | tuple) and not name.startswith("_"):
                inner = [x.layer if getattr(x, "is_pruning_wrapper", False) else x for x in value]
                if any(a is not b for a, b in zip(inner, value, strict=True)):
                    _keras.replace_child(owner, name, inner)
    for layer in model._flatten_layers():
        if hasattr(layer, STATE) and getattr(layer, STATE).wrapped:
            unparametrize(layer)
    left = [x.name for x in model._flatten_layers() if getattr(x, "is_pruning_wrapper", False)]
    if left:
        raise ValueError(
            f"The wrappers {left} stand where tfprune cannot replace them. Keep them in attributes "
            "or lists of the layers that own them, or prune with `tfprune.prune` instead."
        )
