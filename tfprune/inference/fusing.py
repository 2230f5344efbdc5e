"""What follows a convolution or dense layer and can become part of it: normalization, activation.

BN(conv(x)) = g (K x + b - m) / sqrt(v + eps) + beta = (K s) x + (b - m) s + beta
s = g / sqrt(v + eps), one for each output channel
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np

from tfprune.graph.graphs import Call, classes, graphs, has_own_kernel, readers
from tfprune.inference.stored import coefficients_of

KERNELS = classes("Conv1D", "Conv2D", "DepthwiseConv1D", "DepthwiseConv2D", "Dense")
FUSED = ("linear", "relu", "relu6")


@dataclasses.dataclass(frozen=True)
class Fusion:
    """A layer with a kernel, and what of the layers behind it becomes part of it.

    Attributes:
        call: of the layer; plain.
        normalization: the BatchNormalization behind it, or None.
        activated: the ReLU or Activation layer behind that, or None.
    """

    call: Call
    normalization: Any = None
    activated: Any = None

    @property
    def layer(self) -> Any:
        """The layer with the kernel."""
        return self.call.operation

    @property
    def absorbed(self) -> list[Any]:
        """The layers that are left with nothing to do."""
        return [x for x in (self.normalization, self.activated) if x is not None]

    @property
    def activation(self) -> Any:
        """The activation at the end: "linear", "relu", "relu6", or another one's function."""
        if self.activated is not None:
            return activation_of(self.activated)
        return activation_of(self.layer) or self.layer.activation

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Kernel and bias (zeros where there is none), float32, with the normalization in them."""
        layer = self.layer
        kernel = np.asarray(keras.ops.convert_to_numpy(layer.kernel), np.float64)
        depthwise = "Depthwise" in self.call.cls.__name__
        outputs = kernel.shape[-2:] if depthwise else kernel.shape[-1:]
        bias = np.zeros(int(np.prod(outputs)))
        if layer.use_bias:
            bias = bias + np.asarray(keras.ops.convert_to_numpy(layer.bias), np.float64)
        if self.normalization is not None:
            scale, offset = _affine(self.normalization)
            kernel = kernel * scale.reshape(outputs)
            bias = bias * scale + offset
        return kernel.astype(np.float32), bias.astype(np.float32)

    def coefficients(self) -> np.ndarray | None:
        """DCT coefficients of the kernel of `arrays`, where pruning left them; else None."""
        coefficients = coefficients_of(self.layer)
        if coefficients is None or self.normalization is None:
            return coefficients
        scale, _ = _affine(self.normalization)
        return (coefficients * scale).astype(np.float32)


def _affine(normalization: Any) -> tuple[np.ndarray, np.ndarray]:
    """s, beta - m s."""

    def value(name: str, default: float) -> np.ndarray:
        variable = getattr(normalization, name)
        if variable is None:
            return np.full(normalization.moving_mean.shape, default)
        return np.asarray(keras.ops.convert_to_numpy(variable), np.float64)

    variance = value("moving_variance", 1.0)
    scale = value("gamma", 1.0) / np.sqrt(variance + normalization.epsilon)
    return scale, value("beta", 0.0) - value("moving_mean", 0.0) * scale


def activation_of(layer: Any) -> str | None:
    """One of FUSED if a layer's activation is that (a ReLU layer's too), else None."""
    if layer.__class__ is keras.layers.ReLU:
        plain = not layer.threshold and not layer.negative_slope
        limits = {None: "relu", 6.0: "relu6"}
        return limits.get(layer.max_value) if plain else None
    activation = getattr(layer, "activation", None)
    return next((name for name in FUSED if activation is getattr(keras.activations, name)), None)


def fusions(model: keras.Model) -> list[Fusion]:
    """The layers of a model's graphs that are called plainly and have a kernel of a known kind."""
    fused = []
    for graph, calls in graphs(model):
        read_by = readers(graph, calls)
        for call in calls:
            if call.plain and call.cls in KERNELS and has_own_kernel(call.operation):
                fused.append(_fusion(call, read_by))
    return fused


def _fusion(call: Call, read_by: dict[int, list[Call | None]]) -> Fusion:
    if activation_of(call.operation) != "linear":
        return Fusion(call)
    last, normalization = call, None
    behind = _only_reader(last, read_by)
    if behind is not None and behind.cls is keras.layers.BatchNormalization:
        last, normalization = behind, behind.operation
        behind = _only_reader(last, read_by)
    kinds = (keras.layers.ReLU, keras.layers.Activation)
    fits = behind is not None and behind.cls in kinds and activation_of(behind.operation)
    return Fusion(call, normalization, behind.operation if behind is not None and fits else None)


def _only_reader(call: Call, read_by: dict[int, list[Call | None]]) -> Call | None:
    calls = read_by.get(id(call.outputs[0]), [])
    reader = calls[0] if len(calls) == 1 else None
    return reader if reader is not None and reader.plain else None
