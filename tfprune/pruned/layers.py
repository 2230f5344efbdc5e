"""The pruned layers of a model, and their weights as used and as stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfprune.graph.layers import find_variable, own_variables, prunable_names, weighted_layers

STATE = "prune_state"
LATENT = "tfprune_latent"  # marks variables that are trained beside the weights


def pruned_layers(model: keras.Layer) -> list[tuple[str, keras.Layer]]:
    """(path, layer) of the layers of a model that are pruned."""
    return [(path, layer) for path, layer in weighted_layers(model) if hasattr(layer, STATE)]


def is_pruned(model: keras.Layer) -> bool:
    """Whether any layer of a model is pruned (and not stripped yet)."""
    return bool(pruned_layers(model))


def effective_weights(layer: keras.Layer) -> dict[str, np.ndarray]:
    """Name -> value that the forward pass uses, for the layer's own trainable variables.

    In a pruned layer masks are applied and transforms undone; elsewhere these are the variables.
    """
    return _values(layer, lambda state, name: state.effective(name))


def stored_weights(layer: keras.Layer) -> dict[str, np.ndarray]:
    """Name -> what a file would hold of the layer's own trainable variables, zeros where pruned.

    The effective weights, but in the domain that a method prunes in, such as DCT coefficients.
    """
    return _values(layer, lambda state, name: state.stored(name))


def _values(layer: keras.Layer, read: Callable[[Any, str], Any]) -> dict[str, np.ndarray]:
    """Name -> variable, or what `read` gives of the layer's state and a weight that is pruned."""
    state = getattr(layer, STATE, None)
    pruned = {} if state is None else {id(find_variable(layer, n)): n for n in state.specs}
    values = {}
    for name, variable in own_variables(layer).items():
        weight = pruned.get(id(variable))
        value = variable if weight is None else read(state, weight)
        values[name] = keras.ops.convert_to_numpy(value)
    return values


def left_out(model: keras.Layer) -> list[tuple[str, str]]:
    """(path, reason) of every layer with trainable variables that is not pruned."""
    rows = []
    for path, layer in weighted_layers(model):
        if getattr(layer, STATE, None) is not None or not own_variables(layer):
            continue
        reason = (
            "not selected" if prunable_names(layer) else f"{layer.__class__.__name__} has no kernel"
        )
        rows.append((path, reason))
    return rows
