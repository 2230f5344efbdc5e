"""Moves the scales of batch normalizations into the kernels that read them, where that is exact.

    f(g x + b) = g f(x + b / g)   for g > 0 and f that is positively homogeneous, channel by channel

(ReLU, LeakyReLU, pooling, padding, dropout, ...). So the scale becomes 1, the offset b / g, and the
weights of the next kernels that read the channel are multiplied by g; the outputs stay. The scales
are then held: they do not train, whatever becomes of their layer's `trainable`, until released.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.graph import _keras
from tfprune.graph.classes import disguised, exchange
from tfprune.graph.graphs import Call, classes, graphs, has_own_kernel, readers
from tfprune.graph.layers import axes_of, variable_of, weighted_layers
from tfprune.pruned.layers import STATE

_HOMOGENEOUS = classes(
    *("ReLU", "LeakyReLU", "PReLU", "Identity", "Activation", "Dropout", "SpatialDropout{n}D"),
    *("MaxPooling{n}D", "AveragePooling{n}D", "GlobalMaxPooling{n}D", "GlobalAveragePooling{n}D"),
    *("ZeroPadding{n}D", "Cropping{n}D", "UpSampling{n}D", "Flatten"),
)
_READERS = classes("Conv{n}D", "Conv{n}DTranspose", "DepthwiseConv{n}D", "Dense")
_ACTIVATIONS = ("linear", "relu", "leaky_relu")
_LEAST, _LEAST_SHARE = 1e-4, 1e-3  # smaller scales would make offsets and rounding errors too large
_HELD = "_tfprune_held_scale"


@dataclasses.dataclass(frozen=True)
class Fold:
    """A normalization whose scale can move, and the layers that read it."""

    normalization: Any
    readers: tuple[Any, ...]


def foldable(model: keras.Layer, layers: Sequence[keras.Layer]) -> list[Fold]:
    """The normalizations in the graphs of a model all of whose readers are among `layers`."""
    wanted = {id(layer) for layer in layers}
    folds = []
    for graph, calls in graphs(model):
        read_by = readers(graph, calls)
        for call in calls:
            normalises = call.plain and call.cls is keras.layers.BatchNormalization
            if not normalises or call.operation.gamma is None:
                continue
            behind = _behind(call.outputs[0], read_by, wanted)
            if behind is not None:
                ends = [x.operation for x in behind if x.cls in _READERS]
                between = [x.operation for x in behind if x.cls not in _READERS]
                if _closed(call.operation, between, ends):
                    folds.append(Fold(call.operation, tuple(ends)))
    return folds


def _behind(
    tensor: Any, read_by: Mapping[int, list[Call | None]], wanted: set[int]
) -> list[Call] | None:
    """The calls that a scaled tensor runs through, or None if one of them cannot take its scale."""
    behind: list[Call] = []
    for call in read_by.get(id(tensor), [None]):
        if call is None or not call.plain:
            return None
        behind.append(call)
        if id(call.operation) in wanted and _takes_scales(call):
            continue
        inner = _behind(call.outputs[0], read_by, wanted) if _homogeneous(call) else None
        if inner is None:
            return None
        behind += inner
    return behind


def _homogeneous(call: Call) -> bool:
    operation = call.operation
    if call.cls is keras.layers.Activation:
        return any(operation.activation is getattr(keras.activations, n) for n in _ACTIVATIONS)
    if call.cls is keras.layers.ReLU:
        return operation.max_value is None and not operation.threshold
    return call.cls in _HOMOGENEOUS


def _takes_scales(call: Call) -> bool:
    """Whether each weight of the layer's kernel reads one channel."""
    plain = getattr(call.operation, "groups", 1) == 1 and has_own_kernel(call.operation)
    return call.cls in _READERS and plain


def _closed(first: Any, between: Sequence[Any], last: Sequence[Any]) -> bool:
    """Whether no call of these layers, in whatever graph, leads in or out elsewhere."""
    makers, takers = [first, *between], [*between, *last]
    readers = [reader for maker in makers for reader in _keras.read_by(maker)]
    sources = [source for taker in takers for source in _keras.read_from(taker)]
    inside = all(any(reader is taker for taker in takers) for reader in readers)
    return inside and all(any(source is maker for maker in makers) for source in sources)


def movable(gamma: Any) -> np.ndarray:
    """The part of the scales that moves: those that are positive and not tiny; 1 for the others."""
    gamma = np.array(keras.ops.convert_to_numpy(gamma))
    least = max(_LEAST, _LEAST_SHARE * float(np.abs(gamma).max()))
    return np.where(gamma >= least, gamma, 1.0).astype(gamma.dtype)


def times_scales(kernel: Any, axes: Sequence[str], moved: np.ndarray) -> np.ndarray:
    """A kernel with its weights times the scales of the channels that they read.

    Behind a flatten the channels repeat.
    """
    kernel, axis = keras.ops.convert_to_numpy(kernel), list(axes).index("cin")
    shape = [-1 if i == axis else 1 for i in range(kernel.ndim)]
    return kernel * np.tile(moved, kernel.shape[axis] // len(moved)).reshape(shape)


def fold(scale: Fold) -> None:
    """Move the scales of a normalization into the kernels behind it, in place."""
    normalization = scale.normalization
    moved = movable(normalization.gamma)
    normalization.gamma.assign(keras.ops.convert_to_numpy(normalization.gamma) / moved)
    if normalization.beta is not None:
        normalization.beta.assign(keras.ops.convert_to_numpy(normalization.beta) / moved)
    for layer in scale.readers:
        kernel = variable_of(layer, "kernel")
        kernel.assign(times_scales(kernel, axes_of(layer)["kernel"], moved))


def fold_scales(
    model: keras.Model, layers: Sequence[keras.Layer], index: Sequence[tuple[str, keras.Layer]]
) -> dict[int, str]:
    """Fold all scales that can move into the kernels of some layers.

    Args:
        index: (path, layer) of all layers of the model with variables.

    Returns:
        id of a layer -> path of the normalization that its scale came from.
    """
    paths = {id(layer): path for path, layer in index}
    sources: dict[int, str] = {}
    for scale in foldable(model, layers):
        fold(scale)
        path = paths[id(scale.normalization)]
        sources |= {id(reader): path for reader in scale.readers}
    return sources


def hold_scales(index: Sequence[tuple[str, keras.Layer]]) -> None:
    """Hold the scales that were folded; the facts of the readers name them by path.

    Args:
        index: (path, layer) of all layers of the model with variables.
    """
    layers = dict(index)
    for layer in layers.values():
        state = getattr(layer, STATE, None)
        if state is None or not state.facts.scales_from:  # "" is also the path of the model itself
            continue
        source = layers.get(state.facts.scales_from)
        if source is not None and state.normalization() is None:
            state.take_scales_from(source)
            _hold(source)


def held(model: keras.Layer) -> list[Any]:
    """The normalizations whose scales are held for the pruned layers of a model, wherever it is."""
    states = [getattr(layer, STATE, None) for _, layer in weighted_layers(model)]
    sources = [None if state is None else state.normalization() for state in states]
    return list({id(x): x for x in sources if x is not None and _HELD in vars(x)}.values())


def release_scales(model: keras.Layer) -> None:
    """Let the held scales of a model be as trainable as they were, or as users made their layer."""
    for normalization in held(model):
        _release(normalization)


@contextlib.contextmanager
def released_scales(model: keras.Layer) -> Iterator[None]:
    """Inside, `release_scales`; afterwards they are held again, also after an error."""
    released = held(model)
    release_scales(model)
    try:
        yield
    finally:
        for normalization in released:
            _hold(normalization)


def _hold(normalization: Any) -> None:
    if _HELD not in vars(normalization):
        vars(normalization)[_HELD] = normalization.gamma.trainable
        exchange(normalization, _holding_class(type(normalization)))
        normalization.gamma.trainable = False


def _release(normalization: Any) -> None:
    exchange(normalization, type(normalization)._tfprune_base)
    normalization.gamma.trainable = vars(normalization).pop(_HELD)


@_keras.memoized
def _holding_class(cls: Any) -> type:
    def put(self: Any, value: bool) -> None:
        cls.trainable.fset(self, value)
        vars(self)[_HELD] = bool(value)
        self.gamma.trainable = False

    return disguised(cls, {"trainable": property(cls.trainable.fget, put)})
