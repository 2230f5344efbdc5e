"""Attach a method to one built layer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune.graph import _keras
from tfprune.graph.graphs import has_own_kernel
from tfprune.graph.layers import variable_of
from tfprune.maths.spec import WeightSpec
from tfprune.method import Method
from tfprune.pruned.layers import is_pruned
from tfprune.pruned.parametrize import parametrize, share_in_loops
from tfprune.pruned.specs import Facts, adapted_specs
from tfprune.pruned.state import PruneState


def attach(
    layer: keras.Layer,
    method: Method,
    schedule: Any,
    path: str,
    facts: Facts | None = None,
    wrapped: bool = False,
) -> None:
    """Parametrise one built layer."""
    specs = adapted_specs(layer, method, path, facts)
    parametrize(layer, PruneState(layer, specs, method, schedule, path, facts, wrapped))


def share_cells(model: keras.Layer) -> None:
    """Let the recurrent layers of a model compute their pruned cells' weights once per call."""
    for layer in _keras.all_layers(model):
        if isinstance(layer, keras.layers.RNN) and is_pruned(layer):
            share_in_loops(layer)


def check_weights(
    path: str, layer: keras.Layer, method: Method, specs: Iterable[WeightSpec]
) -> None:
    """Raise ValueError unless a layer computes with its variables, and these suit the method."""
    if not has_own_kernel(layer):
        raise ValueError(
            f"A layer to prune must compute with its own float weights; '{path}' has LoRA adapters "
            "or quantized weights. Prune before `enable_lora` and `quantize`, or leave the layer "
            "out with `filters`."
        )
    for spec in specs:
        variable = variable_of(layer, spec.name)
        if variable.constraint is not None and _changes(method, spec):
            raise ValueError(
                f"{type(method).__name__} trains `{spec.name}` of layer '{path}' in another form, "
                f"which its constraint {variable.constraint!r} was not made for. Build the layer "
                "without it, leave it out with `filters`, or take a method that prunes weights as "
                "they are, such as NetworkSurgery."
            )
        value = ops.convert_to_numpy(variable)
        if not np.isfinite(value.astype("float32")).all():
            raise ValueError(
                f"Weights must be finite to be pruned; `{spec.name}` of layer '{path}' has NaN or "
                "infinite entries."
            )


def _changes(method: Method, spec: WeightSpec) -> bool:
    """Whether a method's latent tensors are something else than the weight."""
    weight = np.linspace(1, 2, math.prod(spec.shape), dtype="float32").reshape(spec.shape)
    first, *others = method.encode(ops.convert_to_tensor(weight), spec).values()
    return bool(others) or not np.array_equal(ops.convert_to_numpy(first), weight)
