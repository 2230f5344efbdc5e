"""How a pruned model is saved and comes back: its settings travel in the model's `build_config`.

Plain Keras ignores that key and loads the effective weights. With tfprune imported, a Functional or
Sequential model is found under the registered names `tfprune>Functional`, `tfprune>Sequential`, and
any other `keras.Model` through `Model.build_from_config`, which tfprune makes look at the key.

An optimizer that trains latent variables beside the weights writes one array more, so that plain
Keras, whose optimizer has other variables, leaves its state out with a warning. Were there by
chance as many, it would raise, or give some variables the state of others.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from tfprune.graph import _keras
from tfprune.graph.classes import exchange, renamed
from tfprune.graph.layers import weighted_layers
from tfprune.method import Method
from tfprune.pruned.layers import LATENT, STATE, pruned_layers
from tfprune.pruned.parametrize import attach, share_cells
from tfprune.pruned.plan import LayerPlan
from tfprune.pruned.scales import hold_scales
from tfprune.pruned.specs import Facts, adapted_specs, masks_biases, weight_specs
from tfprune.schedules import check_schedule

KEY = "tfprune"
FORMAT = 1


class _Local(threading.local):
    plain = False


_local = _Local()


@contextlib.contextmanager
def plain_configuration() -> Iterator[None]:
    """Inside, models are serialised as if they were not pruned."""
    before, _local.plain = _local.plain, True
    try:
        yield
    finally:
        _local.plain = before


def settings(model: keras.Model) -> dict[str, Any]:
    """What a file says of a pruned model: for each pruned layer its index, method and schedule."""
    layers = []
    for index, (_, layer) in enumerate(weighted_layers(model)):
        state = getattr(layer, STATE, None)
        if state is not None and not state.wrapped:
            layers.append(
                {
                    "index": index,
                    "path": state.path_in_model,
                    "weights": {name: list(spec.shape) for name, spec in state.specs.items()},
                    "method": keras.saving.serialize_keras_object(state.method),
                    "schedule": keras.saving.serialize_keras_object(state.schedule),
                    "facts": state.facts.to_dict(),
                }
            )
    return {"format": FORMAT, "layers": layers}


def attach_settings(model: keras.Model, saved: Any) -> None:
    """Prune a freshly built model as `settings` says; layers that are pruned already stay.

    Raises:
        ValueError: if the settings are damaged, or from a newer tfprune.
    """
    layers = weighted_layers(model)
    try:
        if saved["format"] != FORMAT:
            raise ValueError(f"format {saved['format']} instead of {FORMAT}; update tfprune")
        indices = [row["index"] for row in saved["layers"]]
        if len(set(indices)) != len(indices):
            raise ValueError(f"a layer is named twice in {indices}")
        for row in saved["layers"]:
            item = _checked(row, layers)
            if not hasattr(item.layer, STATE):
                attach(item)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"The pruning settings saved with model '{model.name}' cannot be used: {error!r}. "
            "Load the file without importing tfprune to get the pruned function alone."
        ) from error
    hold_scales(layers)
    share_cells(model)
    mark(model)
    _keras.forget_traces(model)


def _checked(row: dict[str, Any], layers: Any) -> LayerPlan:
    """What the settings of a layer say, or an error of any kind if they are damaged."""
    index, path = row["index"], row["path"]
    if not (isinstance(index, int) and index >= 0 and isinstance(path, str)):
        raise ValueError(f"index {index!r} or path {path!r} is damaged")
    layer = layers[index][1]
    method = keras.saving.deserialize_keras_object(row["method"])
    schedule = check_schedule(keras.saving.deserialize_keras_object(row["schedule"]))
    if not isinstance(method, Method):
        raise TypeError(f"{method!r} is no method")
    shapes = {spec.name: list(spec.shape) for spec in weight_specs(layer, masks_biases(method))}
    if not shapes or shapes != row["weights"]:
        raise ValueError(f"layer '{path}' should have the weights {row['weights']}, has {shapes}")
    facts = Facts.from_dict(row.get("facts"))
    specs = adapted_specs(layer, method, path, facts)
    return LayerPlan(path, layer, method, schedule, facts, specs)


def mark(model: keras.Model) -> None:
    """Let a model save its pruning settings, and check in `fit` that a callback is there."""
    if not hasattr(type(model), "_tfprune_plain"):
        exchange(model, _marked_class(type(model)))
    _keras.refuse_quantize(model)


def unmark(model: keras.Model) -> None:
    """Undo `mark`."""
    if hasattr(type(model), "_tfprune_plain"):
        exchange(model, type(model)._tfprune_plain)
        _keras.allow_quantize(model)


@_keras.memoized
def _marked_class(cls: type) -> type:
    body: dict[str, Any] = {
        "_tfprune_plain": cls,
        "fit": _fit(cls),
        "save": _save(cls),
        "__reduce__": _reduce(cls),
        "get_build_config": _get_build_config(cls),
    }
    if cls in _REGISTERED:
        body["from_config"] = classmethod(_from_config(cls))
        body["build_from_config"] = _build_from_config(cls)
    else:
        body["__class__"] = property(lambda self: cls)
    return renamed(cls, body)


def _save(cls: Any) -> Callable[..., None]:
    @functools.wraps(cls.save)
    def save(self: Any, filepath: Any, *args: Any, **kwargs: Any) -> None:
        if str(filepath).endswith((".h5", ".hdf5")):
            raise ValueError(
                "A pruned model is saved as `.keras`, since the old HDF5 format cannot hold its "
                f"masks. Received: {filepath!r}."
            )
        cls.save(self, filepath, *args, **kwargs)

    return save


def _reduce(cls: Any) -> Callable[[Any], Any]:
    def __reduce__(self: Any) -> Any:
        """Pickle through the class that can be found by its name."""
        function, arguments = cls.__reduce__(self)
        return getattr(cls, function.__name__), arguments

    return __reduce__


def _get_build_config(cls: Any) -> Callable[[Any], Any]:
    def get_build_config(self: Any) -> Any:
        """The base class' build configuration with the pruning settings."""
        config = cls.get_build_config(self)
        return config if _local.plain else {**(config or {}), KEY: settings(self)}

    return get_build_config


def _from_config(cls: Any) -> Callable[..., Any]:
    def from_config(self: Any, config: Any, custom_objects: Any = None) -> Any:
        """Make the model; Keras then calls `build_from_config`, as it is not built yet."""
        model = cls.from_config.__func__(self, config, custom_objects)
        model.built = False
        return model

    return from_config


def _build_from_config(cls: Any) -> Callable[[Any, Any], None]:
    def build_from_config(self: Any, config: Any) -> None:
        """Attach the saved pruning state to the layers."""
        self.built = True
        if KEY in config:
            attach_settings(self, config[KEY])

    return build_from_config


def _fit(cls: Any) -> Callable[..., Any]:
    signature = inspect.signature(cls.fit)

    @functools.wraps(cls.fit)
    def fit(self: Any, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(self, *args, **kwargs)
        if "callbacks" not in signature.parameters:
            return cls.fit(*bound.args, **bound.kwargs)
        callbacks, ours = arranged(self, bound.arguments.get("callbacks"))
        bound.arguments["callbacks"] = callbacks
        try:
            history = cls.fit(*bound.args, **bound.kwargs)
        finally:  # also where training is interrupted
            for callback in ours:
                callback.unserve()
        for callback in ours:
            callback.conclude()
        return history

    return fit


def arranged(model: keras.Model, callbacks: Any) -> tuple[Any, list[Any]]:
    """The callbacks of a pruned model's `fit`, PruningCallback first; and that one alone.

    Raises:
        ValueError: if there is none although a schedule has not ended yet.
    """
    container = isinstance(callbacks, keras.callbacks.CallbackList)
    given = callbacks.callbacks if container else keras.tree.flatten(callbacks or [])
    ours = [callback for callback in given if getattr(callback, "is_pruning_callback", False)]
    if not ours and not _ended(model):
        raise ValueError(
            "A pruned model needs `callbacks=[tfprune.PruningCallback()]` in `fit`, or its masks "
            f"never change. Received: callbacks={callbacks!r}. To train with fixed masks, "
            "prune with a schedule that has ended, or `tfprune.strip` it."
        )
    for callback in ours:
        callback.concluded_by_fit = True
    if container:
        return callbacks, ours
    return ours + [callback for callback in given if callback not in ours], ours


def _ended(model: keras.Model) -> bool:
    return all(getattr(layer, STATE).ended() for _, layer in pruned_layers(model))


_REGISTERED = (_keras.Functional, keras.Sequential)


def install() -> None:
    """Make `keras.models.load_model` know pruned models; called once, on import of tfprune."""
    for cls in _REGISTERED:
        marked = _marked_class(cls)
        keras.saving.register_keras_serializable(package="tfprune", name=cls.__name__)(marked)
    original = keras.Model.build_from_config
    if hasattr(original, "_tfprune"):
        return
    _mark_optimizers(keras.optimizers.Optimizer)

    @functools.wraps(original)
    def build_from_config(self: Any, config: Any) -> None:
        original(self, config)
        if config and KEY in config and not _local.plain:
            attach_settings(self, config[KEY])

    build_from_config._tfprune = True  # type: ignore[attr-defined]
    keras.Model.build_from_config = build_from_config


def _mark_optimizers(cls: Any) -> None:
    """Let the state of optimizers that train latent variables have one array more in a file."""
    save, load = cls.save_own_variables, cls.load_own_variables

    @functools.wraps(save)
    def save_own_variables(self: Any, store: Any) -> None:
        save(self, store)
        if _trains_latents(self):
            store[KEY] = np.zeros(1, "float32")

    @functools.wraps(load)
    def load_own_variables(self: Any, store: Any) -> None:
        if _trains_latents(self):  # the state of a plain model's optimizer is left out too
            keys = list(store.keys())
            store = {key: store[key] for key in keys if key != KEY} if KEY in keys else {}
        load(self, store)

    cls.save_own_variables, cls.load_own_variables = save_own_variables, load_own_variables


def _trains_latents(optimizer: Any) -> bool:
    trained = _keras.trained_by(optimizer)
    return any(getattr(variable, LATENT, False) for variable in trained)
