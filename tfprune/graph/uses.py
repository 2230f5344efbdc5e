"""How often one call of a layer multiplies each weight of its kernels, from the shapes it sees."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import keras

from tfprune.graph import _keras
from tfprune.graph.layers import own_variables

Shape = tuple[Any, ...]
Uses = Fraction | None

_CONVS = tuple(
    getattr(keras.layers, f"{kind}Conv{rank}D")
    for kind, ranks in {"": (1, 2, 3), "Depthwise": (1, 2), "Separable": (1, 2)}.items()
    for rank in ranks
)
_TRANSPOSED = tuple(getattr(keras.layers, f"Conv{rank}DTranspose") for rank in (1, 2, 3))
CELLS = (keras.layers.SimpleRNNCell, keras.layers.LSTMCell, keras.layers.GRUCell)
_REVERSIBLE = getattr(keras.layers, "ReversibleEmbedding", ())
_FREE = (keras.layers.Embedding, keras.layers.PReLU)
_ELEMENTWISE = ("gamma", "beta", "scale", "bias")


def uses_per_call(
    layer: keras.Layer, inputs: Shape, outputs: Shape, kwargs: Mapping[str, Any]
) -> Uses:
    """How often one call multiplies each weight of the layer's kernels; None if not known."""
    if any(dim is None for dim in (*inputs, *outputs)):
        return None
    if hasattr(type(layer), "uses_per_call"):
        return Fraction(layer.uses_per_call(inputs, outputs))
    if isinstance(layer, keras.layers.Dense):
        return _product(inputs[:-1])
    if isinstance(layer, keras.layers.EinsumDense):
        return _product(outputs) * _summed(layer, inputs) / math.prod(layer.kernel.shape)
    if isinstance(layer, _TRANSPOSED):
        return _positions(layer, inputs)
    if isinstance(layer, (*_CONVS, _keras.ConvLSTMCell)):
        return _positions(layer, outputs)
    if isinstance(layer, CELLS):
        return _product(inputs[:-1])
    if isinstance(layer, _REVERSIBLE) and kwargs.get("reverse"):
        return _product(inputs[:-1])
    own = own_variables(layer).items()
    flat = all(len(variable.shape) < 2 or name in _ELEMENTWISE for name, variable in own)
    return Fraction(0) if flat or isinstance(layer, _FREE) else None


def _positions(layer: keras.Layer, shape: Shape) -> Fraction:
    """Batch times all spatial positions of a feature map."""
    channels = 1 if layer.data_format == "channels_first" else len(shape) - 1
    return _product(dim for axis, dim in enumerate(shape) if axis != channels)


def _summed(layer: keras.layers.EinsumDense, inputs: Shape) -> int:
    """Product of the dimensions that the layer's equation sums over."""
    terms, output = layer.equation.replace(" ", "").split("->")
    labels = terms.split(",")[0]
    before, _, after = labels.partition("...")
    named = dict(zip(before, inputs, strict=False))
    named |= dict(zip(reversed(after), reversed(inputs), strict=False))
    return math.prod(dim for label, dim in named.items() if label not in output)


def _product(dims: Any) -> Fraction:
    return Fraction(math.prod(dims))
