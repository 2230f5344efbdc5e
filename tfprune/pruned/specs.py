"""What a method is told of a layer's weights: from the layer itself, and from the model around."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune.graph import _keras
from tfprune.graph.graphs import has_own_kernel
from tfprune.graph.layers import axes_of, find_variable, prunable_names, variable_of
from tfprune.graph.macs import Uncountable, kernel_uses
from tfprune.maths.spec import WeightSpec
from tfprune.method import Method
from tfprune.protocols import MasksBiases

Map = tuple[tuple[int, ...], tuple[str, ...]]
_TRANSPOSED = tuple(getattr(keras.layers, f"Conv{rank}DTranspose") for rank in (1, 2, 3))


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of a layer from the model around it; see `WeightSpec`.

    `scales_from`: path of the normalization whose scale was moved into the layer's kernel.
    """

    map_shape: tuple[int, ...] = ()
    map_axes: tuple[str, ...] = ()
    uses: float | None = None
    scales_from: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | None) -> Facts:
        """The inverse of `to_dict`; None gives no facts."""
        data = data or {}
        uses = data.get("uses")
        shape = tuple(int(n) for n in data.get("map_shape", ()))
        axes = tuple(str(name) for name in data.get("map_axes", ()))
        uses = None if uses is None else float(uses)
        return cls(shape, axes, uses, str(data.get("scales_from", "")))


def weight_specs(
    layer: keras.Layer, biases: bool, facts: Facts | None = None
) -> tuple[WeightSpec, ...]:
    """What the methods are told of each prunable weight of a built layer, kernels first."""
    facts, axes = facts or Facts(), axes_of(layer)
    names = prunable_names(layer)
    bias = [
        name for name in ("bias",) if biases and names and find_variable(layer, name) is not None
    ]
    return tuple(
        _spec(layer, name, axes.get(name, ()), name in bias, facts) for name in (*names, *bias)
    )


def _spec(
    layer: keras.Layer, name: str, axes: tuple[str, ...], is_bias: bool, facts: Facts
) -> WeightSpec:
    spec = WeightSpec(name, tuple(variable_of(layer, name).shape), axes, is_bias)
    if is_bias:
        return spec
    spec = dataclasses.replace(spec, uses=facts.uses)
    if axes == ("cin", "cout") and facts.map_shape:
        if math.prod(facts.map_shape) != spec.shape[0]:
            raise ValueError(
                f"The map must have {spec.shape[0]} elements. Received: {facts.map_shape}."
            )
        return dataclasses.replace(spec, map_shape=facts.map_shape, map_axes=facts.map_axes)
    overlapping = "cin" in axes and "kw" in axes and axes.index("cin") > axes.index("kw")
    if not overlapping or isinstance(layer, _TRANSPOSED) or not hasattr(layer, "strides"):
        return spec
    strides = layer.strides if isinstance(layer.strides, Sequence) else (layer.strides,)
    return dataclasses.replace(spec, strides=tuple(strides), groups=getattr(layer, "groups", 1))


def facts_of(layers: Sequence[tuple[str, keras.Layer]]) -> dict[str, Facts]:
    """Path -> facts of the layers of a model that its graph tells, where it has one."""
    maps = flattened_maps([layer for _, layer in layers])
    facts = {}
    for path, layer in layers:
        shape, axes = maps.get(id(layer), ((), ()))
        facts[path] = Facts(shape, axes)
    return facts


def with_uses(
    model: keras.Layer, facts: Mapping[str, Facts], layers: Sequence[tuple[str, keras.Layer]]
) -> dict[str, Facts]:
    """The same facts with how often each kernel is used in one inference.

    Raises:
        ValueError: if that is not known for one of the layers.
    """
    try:
        uses = kernel_uses(model)
    except Uncountable as error:
        raise ValueError(
            f"A budget of multiply-adds needs a model whose multiply-adds can be counted: {error}."
        ) from error
    unknown = [path for path, layer in layers if uses.get(id(layer)) is None]
    if unknown:
        raise ValueError(
            "A budget of multiply-adds needs layers whose multiply-adds are known. Leave others "
            f"out with `filters`. Received: {unknown}."
        )
    return {
        path: dataclasses.replace(facts[path], uses=float(uses[id(layer)] or 0))
        for path, layer in layers
    }


def adapted_specs(
    layer: keras.Layer, method: Method, path: str, facts: Facts | None
) -> tuple[WeightSpec, ...]:
    """`weight_specs` as the domain of the method wants to see them."""
    specs, domain = weight_specs(layer, masks_biases(method), facts), method.domain
    return tuple(spec if spec.is_bias else domain.adapt(path, spec) for spec in specs)


def masks_biases(method: Method) -> bool:
    """Whether a method masks biases too."""
    return isinstance(method, MasksBiases) and method.prune_biases


def check_weights(
    path: str, layer: keras.Layer, method: Method, specs: Iterable[WeightSpec]
) -> None:
    """Raise ValueError unless a layer computes with its variables, and these suit the method."""
    if not has_own_kernel(layer):
        raise ValueError(
            f"A layer to prune must compute with its own float weights. Received: '{path}' has "
            "LoRA adapters or quantized weights. Prune before `enable_lora` and `quantize`, or "
            "leave the layer out with `filters`."
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
                "infinite values. Go back to an earlier checkpoint, or leave the layer out with "
                f"`filters`. Received: {np.count_nonzero(~np.isfinite(value))} of {value.size}."
            )


def _changes(method: Method, spec: WeightSpec) -> bool:
    """Whether a method's latent tensors are something else than the weight."""
    weight = np.linspace(1, 2, math.prod(spec.shape), dtype="float32").reshape(spec.shape)
    first, *others = method.domain.encode(ops.convert_to_tensor(weight), spec).values()
    return bool(others) or not np.array_equal(ops.convert_to_numpy(first), weight)


def flattened_maps(layers: Sequence[keras.Layer]) -> dict[int, Map]:
    """`id(layer)` -> shape and axes of the feature map that a flatten in front unrolled.

    For dense layers of Functional and Sequential models. Between the flatten and the layer there
    may be what works element by element (an activation, dropout, batch normalization).
    """
    unrolled = {}
    for layer in layers:
        if isinstance(layer, keras.layers.Dense):
            maps = {_map_before(tensor) for tensor in _keras.symbolic_inputs(layer)}
            feature_map = maps.pop() if len(maps) == 1 else None
            if feature_map is not None:
                unrolled[id(layer)] = feature_map
    return unrolled


def _map_before(tensor: Any) -> Map | None:
    """The map behind a symbolic tensor [n, features], or None."""
    while tensor is not None and len(tensor.shape) == 2:
        operation, inputs = _keras.made_by(tensor)
        if len(inputs) != 1:
            return None
        if len(inputs[0].shape) > 2:
            flattens = isinstance(operation, keras.layers.Flatten | keras.layers.Reshape)
            return _unrolled(inputs[0], operation) if flattens else None
        if not isinstance(operation, _ENTRYWISE):
            return None
        tensor = inputs[0]
    return None


def _unrolled(tensor: Any, operation: Any) -> Map | None:
    shape = tuple(tensor.shape[1:])
    if None in shape or len(shape) not in (2, 3, 4):
        return None
    space = ("kd", "kh", "kw")[4 - len(shape) :]
    first = _channels_first(tensor)
    spatial = shape[1:] if first else shape[:-1]
    if math.prod(spatial) == 1:
        return None
    if not first:
        return shape, (*space, "cin")
    if getattr(operation, "data_format", "") == "channels_first":  # the flatten moves them last
        return (*spatial, shape[0]), (*space, "cin")
    return shape, ("cin", *space)


def _channels_first(tensor: Any) -> bool:
    """Whether a map has its channels first, as the nearest layer before it that knows says."""
    while tensor is not None:
        operation, inputs = _keras.made_by(tensor)
        data_format = getattr(operation, "data_format", None)
        if data_format is not None:
            return data_format == "channels_first"
        tensor = inputs[0] if inputs else None
    return keras.config.image_data_format() == "channels_first"


_ENTRYWISE = tuple(
    getattr(keras.layers, name)
    for name in (
        *("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Identity", "BatchNormalization"),
        *("Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise", "Rescaling"),
    )
    if hasattr(keras.layers, name)
)
