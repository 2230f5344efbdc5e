"""`tfprune.layers`: one wrapper per method, for single layers in a model that users write."""

from __future__ import annotations

import inspect
from typing import Any

import keras

from tfprune.compat.tfmot import is_legacy_keras_model
from tfprune.graph import _keras
from tfprune.graph.layers import weighted_layers
from tfprune.method import REGISTRY, Method
from tfprune.pruned import select
from tfprune.pruned.layers import STATE
from tfprune.pruned.parametrize import attach, share_cells
from tfprune.pruned.plan import choose, complete
from tfprune.schedules import check_schedule


class PruningWrapper(keras.layers.Wrapper):
    """Prunes the layer it holds: its kernels, and those of the layers inside it.

    Args:
        layer: a Keras layer with a kernel, not pruned or wrapped already.
        method: settings; None: the method's defaults.
        schedule: a PruningSchedule; None: the method's own.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if the layer is pruned already, or has nothing to prune when it is built.
    """

    is_transparent = True
    method_class: type[Method]

    def __init__(
        self, layer: keras.Layer, method: Method | None = None, schedule: Any = None, **kwargs: Any
    ) -> None:
        method = self.method_class() if method is None else method
        if not isinstance(method, self.method_class):
            raise TypeError(
                f"`method` must be a tfprune.{self.method_class.__name__}. Received: {method!r}."
            )
        if not isinstance(layer, keras.Layer):
            old = " That is Keras 2." if is_legacy_keras_model(layer) else ""
            raise TypeError(f"`layer` must be a layer of Keras 3. Received: {layer!r}.{old}")
        if isinstance(layer, PruningWrapper) or hasattr(layer, STATE):
            raise ValueError(
                f"A layer that is wrapped must not be pruned. Received: '{layer.name}' is pruned "
                "already; it can be wrapped only once."
            )
        if _inputs(layer) > 1:
            raise ValueError(
                "A wrapper holds a layer with one input; use `tfprune.prune` on the model, with "
                f"`filters`. Received: layer '{layer.name}', which has several inputs."
            )
        super().__init__(layer, **kwargs)
        self.method = method
        self.supports_masking = layer.supports_masking
        self.schedule = None if schedule is None else check_schedule(schedule)
        if layer.built:
            self.build(layer.get_build_config()["input_shape"])

    def build(self, input_shape: Any) -> None:
        """Build the layer, then parametrise what it owns."""
        super().build(input_shape)
        layers = select.prunable(weighted_layers(self.layer))
        if not layers:
            raise ValueError(
                "A wrapper must hold a layer with a kernel. Received: "
                f"'{self.layer.name}' has no kernel that could be pruned."
            )
        layers = [(path, layer) for path, layer in layers if not hasattr(layer, STATE)]
        plan = choose(layers, self.method, self.schedule, whole=False)
        for item in complete(self.layer, plan, self._outer_path, in_graph=False):
            attach(item, wrapped=True)
        share_cells(self.layer)

    def _outer_path(self, path: str) -> str:
        """The path of an inner layer in the model around, which the wrapper does not know."""
        return self.name if path == self.layer.name else f"{self.name}/{path}"

    def call(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the layer."""
        return self.layer(inputs, *args, **kwargs)

    def compute_mask(self, *args: Any, **kwargs: Any) -> Any:
        """The same of the layer."""
        return self.layer.compute_mask(*args, **kwargs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The same of the layer."""
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        """The layer, the method, the schedule."""
        method = keras.saving.serialize_keras_object(self.method)
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {**super().get_config(), "method": method, "schedule": schedule}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> PruningWrapper:
        """The inverse of `get_config`."""
        config = dict(config)
        for key in ("layer", "method", "schedule"):
            config[key] = keras.saving.deserialize_keras_object(
                config[key], custom_objects=custom_objects
            )
        return cls(**config)


def _inputs(layer: keras.Layer) -> int:
    """The number of input shapes that a layer must know to be built."""
    parameters = inspect.signature(type(layer).build).parameters.values()
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in plain and p.default is p.empty for p in parameters) - 1


@_keras.memoized
def wrapper_of(method_class: type[Method]) -> type[PruningWrapper]:
    """The wrapper class of a registered method, `<method>Pruned`, made on first use."""
    name = f"{method_class.__name__}Pruned"
    body = {
        "method_class": method_class,
        "__doc__": f"Prunes the layer it holds by `{method_class.__name__}`.",
        "__module__": "tfprune.layers",
    }
    cls = type(name, (PruningWrapper,), body)
    return keras.saving.register_keras_serializable(package="tfprune", name=name)(cls)


def wrapper_names() -> list[str]:
    """The names of all wrappers."""
    return [f"{name}Pruned" for name in REGISTRY]
