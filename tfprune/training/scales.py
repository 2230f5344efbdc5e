"""Moves the scales of batch normalizations into the kernels that read them, where that is exact.

    f(g x + b) = g f(x + b / g)   for g > 0 and f that is positively homogeneous, channel by channel

(ReLU, LeakyReLU, pooling, padding, dropout, ...). So the scale becomes 1, the offset b / g, and the
entries of the next kernels that read the channel are multiplied by g; the outputs stay.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfprune.training import _keras
from tfprune.training.layers import STATE, axes_of, variable_of, weighted_layers
from tfprune.training.specs import flattened_maps


def _classes(*names: str) -> tuple[type, ...]:
    return tuple(getattr(keras.layers, name) for name in names if hasattr(keras.layers, name))


_HOMOGENEOUS = _classes(
    *("ReLU", "LeakyReLU", "PReLU", "Identity", "Dropout", "SpatialDropout1D", "SpatialDropout2D"),
    *("SpatialDropout3D", "Flatten"),
    *(f"{kind}{rank}D" for kind in ("MaxPooling", "AveragePooling") for rank in (1, 2, 3)),
    *(f"{kind}{rank}D" for kind in ("ZeroPadding", "Cropping", "UpSampling") for rank in (1, 2, 3)),
    *(f"Global{kind}Pooling{rank}D" for kind in ("Max", "Average") for rank in (1, 2, 3)),
)
_ACTIVATIONS = ("linear", "relu", "leaky_relu")


@dataclasses.dataclass(frozen=True)
class Fold:
    """A normalization whose scale can move, and the layers that read it, by path."""

    normalization: Any
    readers: tuple[Any, ...]


def foldable(model: keras.Model, layers: Sequence[keras.Layer]) -> list[Fold]:
    """The normalizations of a model all of whose readers are among `layers`."""
    readers = _readers(model)
    folds = []
    for layer in _graph_layers(model):
        scaled = isinstance(layer, keras.layers.BatchNormalization) and layer.gamma is not None
        tensors = _keras.symbolic_outputs(layer)
        if not scaled or len(tensors) != 1:
            continue
        found = _reached(tensors[0], readers, layers)
        if found:
            folds.append(Fold(layer, tuple(found)))
    return folds


def _graph_layers(model: keras.Layer) -> list[keras.Layer]:
    """All layers of a model and of the models inside it, each once."""
    return list({id(layer): layer for layer in model._flatten_layers()}.values())


def _readers(model: keras.Layer) -> dict[int, list[Any]]:
    """id of a symbolic tensor -> the operations that read it; None stands for a model's output."""
    found: dict[int, list[Any]] = {}
    for layer in _graph_layers(model):
        if isinstance(layer, _keras.Functional | keras.Sequential):
            inner = getattr(layer, "_functional", None) or layer
            for operation, tensors in _keras.reads(inner):
                for tensor in tensors:
                    found.setdefault(id(tensor), []).append(operation)
    return found


def _reached(
    tensor: Any, readers: dict[int, list[Any]], layers: Sequence[keras.Layer]
) -> list[keras.Layer] | None:
    """The layers that a scaled tensor ends in, or None if one of them cannot take its scale."""
    found: list[keras.Layer] = []
    if not readers.get(id(tensor)):
        return None
    for operation in readers[id(tensor)]:
        if any(operation is layer for layer in layers) and _takes_scales(operation):
            found.append(operation)
            continue
        outputs = _keras.symbolic_outputs(operation) if operation is not None else []
        if not _homogeneous(operation) or len(outputs) != 1:
            return None
        inner = _reached(outputs[0], readers, layers)
        if inner is None:
            return None
        found += inner
    return found


def _homogeneous(operation: Any) -> bool:
    if isinstance(operation, keras.layers.Activation):
        return getattr(operation.activation, "__name__", "") in _ACTIVATIONS
    if isinstance(operation, keras.layers.ReLU):
        return operation.max_value is None and not operation.threshold
    return isinstance(operation, _HOMOGENEOUS)


def _takes_scales(layer: Any) -> bool:
    """Whether each entry of the layer's kernel reads one channel, and the layer is called once."""
    axes = axes_of(layer).get("kernel", ())
    once = len(_keras.symbolic_outputs(layer)) == 1
    return "cin" in axes and getattr(layer, "groups", 1) == 1 and once


def fold(one: Fold) -> None:
    """Move the positive scales of a normalization into the kernels behind it, in place."""
    gamma = np.array(keras.ops.convert_to_numpy(one.normalization.gamma))
    moved = np.where(gamma > 0, gamma, 1.0).astype(gamma.dtype)
    one.normalization.gamma.assign(gamma / moved)
    if one.normalization.beta is not None:
        beta = keras.ops.convert_to_numpy(one.normalization.beta)
        one.normalization.beta.assign(beta / moved)
    for layer in one.readers:
        kernel = variable_of(layer, "kernel")
        axis = axes_of(layer)["kernel"].index("cin")
        scale = np.tile(moved, kernel.shape[axis] // len(moved))
        shape = [-1 if i == axis else 1 for i in range(len(kernel.shape))]
        kernel.assign(keras.ops.convert_to_numpy(kernel) * scale.reshape(shape))


def fold_scales(model: keras.Model, layers: Sequence[tuple[str, keras.Layer]]) -> dict[str, str]:
    """Fold all that can be; path of a reader -> path of the normalization its scale came from."""
    paths = {id(layer): path for path, layer in weighted_layers(model)}
    moved: dict[str, str] = {}
    for one in foldable(model, [layer for _, layer in layers]):
        if fits(one):
            fold(one)
            moved |= {paths[id(reader)]: paths[id(one.normalization)] for reader in one.readers}
    return moved


def hold_scales(model: keras.Layer, held: bool) -> None:
    """Fix the scales that were folded at what they are, or let them train again."""
    layers = dict(weighted_layers(model))
    for layer in list(layers.values()):
        state = getattr(layer, STATE, None)
        source = layers.get(state.facts.scales_from) if state is not None else None
        if source is not None:
            source.gamma.trainable = source.trainable and not held


def fits(one: Fold) -> bool:
    """Whether a flatten between the two, if there is one, keeps channels last."""
    maps = flattened_maps([r for r in one.readers if isinstance(r, keras.layers.Dense)])
    return all(axes[-1] == "cin" for _, axes in maps.values())
