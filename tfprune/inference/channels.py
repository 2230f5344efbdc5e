"""Which channels of a stripped net are needed: the analysis behind `strip(..., shrink=True)`.

A channel is needed if a weight that is not zero reads it, on a path to an output. What a tensor is
made of must match what it is joined with: the operands of a sum keep the same channels. So tensors
that share their channels (through a sum, a normalization, an activation, ...) form a group, the
channels that anyone needs in a group are kept in all of it, and this is repeated until nothing
changes. Calls that are not plain, and layers of other classes than those here, subclasses of these
too, need every channel they see.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.graph.graphs import MERGES, Call, classes, has_own_kernel

# Each output channel hangs on the same channel of each input, and on nothing else: elementwise,
_ENTRYWISE = classes(
    *("BatchNormalization", "ReLU", "LeakyReLU", "ELU", "Identity", "Activation", "Rescaling"),
    *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"),
    *("Dropout", "GaussianDropout", "GaussianNoise", "SpatialDropout{n}D"),
)
# or as a mean or a maximum over some positions, which leaves what is the same everywhere.
_PADDING = classes("ZeroPadding{n}D")
_SPATIAL = _PADDING + classes(
    *("MaxPooling{n}D", "AveragePooling{n}D", "Cropping{n}D", "UpSampling{n}D"),
    *("GlobalMaxPooling{n}D", "GlobalAveragePooling{n}D"),
)
_KINDS = {
    **dict.fromkeys(_ENTRYWISE, "positionwise"),
    **dict.fromkeys(_SPATIAL, "spatial"),
    **dict.fromkeys(classes("Conv{n}D", "Dense"), "mixing"),  # kernels [..., cin, cout]
    **dict.fromkeys(classes("DepthwiseConv{n}D"), "depthwise"),
    **dict.fromkeys(classes("Concatenate"), "concatenate"),
    **dict.fromkeys(classes("Flatten"), "flatten"),
}
_SEPARATE = tuple(
    getattr(keras.activations, name)
    for name in (
        *("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish"),
        *("sigmoid", "hard_sigmoid", "hard_silu", "tanh", "softplus", "softsign", "exponential"),
    )
    if hasattr(keras.activations, name)
)
_JOINT = tuple(
    getattr(keras.activations, name)
    for name in ("softmax", "log_softmax", "sparsemax")
    if hasattr(keras.activations, name)
)


@dataclasses.dataclass
class Channels:
    """The channels of every tensor of a graph, by its id.

    Attributes:
        kept: which channels are kept, bool [channels].
        constant: the value of channels that are the same for every input, NaN elsewhere.
    """

    kept: dict[int, np.ndarray]
    constant: dict[int, np.ndarray]


def kind(call: Call) -> str:
    """How the outputs of a call hang on the channels of its inputs."""
    operation, sort = call.operation, _KINDS.get(call.cls, "unknown")
    understood = (
        call.plain
        and (_separate(operation) or (sort == "mixing" and _is_one_of(operation, _JOINT)))
        and (sort not in ("mixing", "depthwise") or has_own_kernel(operation))
        and getattr(operation, "groups", 1) == 1
        and getattr(operation, "noise_shape", None) is None
        and all(np.ndim(getattr(operation, name, 0)) == 0 for name in ("scale", "offset"))
    )
    return sort if understood else "unknown"


def _separate(operation: Any) -> bool:
    """Whether the activation takes each channel by itself, or there is none."""
    return not hasattr(operation, "activation") or _is_one_of(operation, _SEPARATE)


def _is_one_of(operation: Any, activations: Sequence[Any]) -> bool:
    return any(getattr(operation, "activation", None) is plain for plain in activations)


def needed(model: Any, calls: Sequence[Call]) -> Channels:
    """Analyse a Functional graph of ordinary layers."""
    constant = constants(model, calls)
    kept = {key: np.zeros(len(value), bool) for key, value in constant.items()}
    for tensor in (*model.inputs, *model.outputs):
        kept[id(tensor)][:] = True
    while True:
        before = {key: value.copy() for key, value in kept.items()}
        for call in reversed(calls):
            _need(call, kept, constant)
        if all(np.array_equal(before[key], value) for key, value in kept.items()):
            empty = [value for value in kept.values() if not value.any()]
            if not empty:
                return Channels(kept, constant)
            empty[0][0] = True  # a tensor has at least one channel


def constants(model: Any, calls: Sequence[Call]) -> dict[int, np.ndarray]:
    """Values, for each tensor, of channels that are the same for every input, NaN elsewhere."""
    values: dict[int, np.ndarray] = {}
    for tensor in model.inputs:
        values[id(tensor)] = np.full(_width(tensor), np.nan)
    for call in calls:
        rule = _CONSTANTS.get(kind(call))
        for tensor in call.outputs:
            values[id(tensor)] = np.full(_width(tensor), np.nan)
            if rule is not None:
                values[id(tensor)] = rule(call, [values[id(source)] for source in call.inputs])
    return values


def _constants_positionwise(call: Call, given: list) -> np.ndarray:
    """Outputs of the layer, run on one position."""
    loose = np.logical_or.reduce(np.broadcast_arrays(*[np.isnan(values) for values in given]))
    maps = []
    for tensor, values in zip(call.inputs, given, strict=True):
        shape = [1] * (len(tensor.shape) - 1) + [-1]
        position = np.nan_to_num(values).reshape(shape)
        maps.append(keras.ops.convert_to_tensor(position.astype("float32"), dtype=tensor.dtype))
    outputs = call.operation(maps if call.cls in MERGES else maps[0])
    return np.where(loose, np.nan, _array(outputs).reshape(-1))


def _constants_spatial(call: Call, given: list) -> np.ndarray:
    pads = call.cls in _PADDING
    return np.where(given[0] == 0, 0.0, np.nan) if pads else given[0]


def _constants_mixing(call: Call, given: list) -> np.ndarray:
    """act(bias + sum of what is read), where all that is read is constant and padding is too."""
    if not _separate(call.operation):
        return np.full(_width(call.outputs[0]), np.nan)
    kernel = _array(call.operation.kernel)
    reads = reads_of(call.operation)
    loose = np.isnan(given[0]) | ((given[0] != 0) & (not folds_constants(call.operation)))
    summed = kernel.reshape(-1, *kernel.shape[-2:]).sum(0)
    sums = np.nan_to_num(given[0]) @ summed
    return np.where(reads[loose].any(0), np.nan, _activated(call.operation, sums))


def _constants_depthwise(call: Call, given: list) -> np.ndarray:
    kernel = _array(call.operation.kernel)
    loose = np.isnan(given[0]) | ((given[0] != 0) & (not folds_constants(call.operation)))
    reads = reads_of(call.operation)
    sums = np.nan_to_num(given[0])[:, None] * kernel.reshape(-1, *kernel.shape[-2:]).sum(0)
    values = _activated(call.operation, sums.reshape(-1))
    return np.where((reads & loose[:, None]).reshape(-1), np.nan, values)


_CONSTANTS: dict[str, Callable[[Call, list], np.ndarray]] = {
    "positionwise": _constants_positionwise,
    "spatial": _constants_spatial,
    "mixing": _constants_mixing,
    "depthwise": _constants_depthwise,
    "concatenate": lambda call, given: np.concatenate(given),
    "flatten": lambda call, given: np.tile(given[0], _width(call.outputs[0]) // len(given[0])),
}


def _activated(operation: Any, sums: np.ndarray) -> np.ndarray:
    if operation.use_bias:
        sums = sums + _array(operation.bias)
    elements = keras.ops.convert_to_tensor(sums.astype("float32"), dtype=operation.compute_dtype)
    return _array(operation.activation(elements))


def _array(tensor: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor)).astype("float64")


def reads_of(operation: Any) -> np.ndarray:
    """Which outputs read which inputs, bool [cin, cout]; if depthwise [cin, multiplier]."""
    kernel = keras.ops.convert_to_numpy(operation.kernel)
    return (kernel != 0).reshape(-1, *kernel.shape[-2:]).any(0)


def folds_constants(operation: Any) -> bool:
    """Whether a constant input adds the same to an output everywhere: no padding with zeros."""
    dense = not hasattr(operation, "padding")
    return dense or operation.padding == "valid" or set(operation.kernel_size) == {1}


def _width(tensor: Any) -> int:
    """Channels of a tensor; 1 where they are not known or the tensor is no feature map."""
    last = tensor.shape[-1] if len(tensor.shape) > 1 else 1
    return int(last or 1)


def _need(call: Call, kept: dict[int, np.ndarray], constant: dict[int, np.ndarray]) -> None:
    """Enlarge the kept channels of the tensors around one call to what it demands."""
    inputs, outputs = ([kept[id(t)] for t in tensors] for tensors in (call.inputs, call.outputs))
    if kind(call) == "mixing":
        if not _separate(call.operation):
            outputs[0][:] = True
        values = constant[id(call.inputs[0])]
        spare = (values == 0) | (~np.isnan(values) & folds_constants(call.operation))
        inputs[0] |= reads_of(call.operation)[:, outputs[0]].any(1) & ~spare
        return
    _NEEDS.get(kind(call), _need_everything)(call, inputs, outputs)


def _need_everything(call: Call, inputs: list, outputs: list) -> None:
    for channels in (*inputs, *outputs):
        channels[:] = True


def _need_channelwise(call: Call, inputs: list, outputs: list) -> None:
    tied = [*inputs, *outputs]
    if len({len(channels) for channels in tied}) > 1:  # broadcasting
        _need_everything(call, inputs, outputs)
        return
    union = np.logical_or.reduce(tied)
    for channels in tied:
        channels |= union


def _need_depthwise(call: Call, inputs: list, outputs: list) -> None:
    multiplier = call.operation.kernel.shape[-1]
    whole = outputs[0].reshape(-1, multiplier).any(1) | inputs[0]  # a channel keeps all its outputs
    inputs[0] |= whole
    outputs[0] |= np.repeat(whole, multiplier)


def _need_concatenate(call: Call, inputs: list, outputs: list) -> None:
    start = 0
    for channels in inputs:
        part = outputs[0][start : start + len(channels)]
        part |= channels
        channels |= part
        start += len(channels)


def _need_flatten(call: Call, inputs: list, outputs: list) -> None:
    rows = outputs[0].reshape(-1, len(inputs[0]))
    inputs[0] |= rows.any(0)
    rows |= inputs[0]


_NEEDS: dict[str, Callable[[Call, list, list], None]] = {
    "positionwise": _need_channelwise,
    "spatial": _need_channelwise,
    "depthwise": _need_depthwise,
    "concatenate": _need_concatenate,
    "flatten": _need_flatten,
}
