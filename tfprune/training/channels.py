"""Which channels of a stripped net are needed: the analysis behind `strip(..., shrink=True)`.

A channel is needed if an entry that is not zero reads it, on a path to an output. What a tensor is
made of must match what it is joined with: the operands of a sum keep the same channels. So tensors
that share their channels (through a sum, a normalization, an activation, ...) form a group, the
channels that anyone needs in a group are kept in all of it, and this is repeated until nothing
changes. Layers of kinds that are not known here need every channel they see.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfprune.training import _keras

_L = keras.layers


def _classes(*names: str) -> tuple[type, ...]:
    return tuple(getattr(_L, name) for name in names if hasattr(_L, name))


# Each output channel hangs on the same channel of each input, and on nothing else.
_CHANNELWISE = _classes(
    *(
        "BatchNormalization",
        "ReLU",
        "LeakyReLU",
        "ELU",
        "Identity",
        "Activation",
        "Add",
        "Subtract",
    ),
    *("Multiply", "Average", "Maximum", "Minimum", "Dropout", "GaussianDropout", "GaussianNoise"),
    *("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "Rescaling"),
    *(f"{kind}{n}D" for kind in ("MaxPooling", "AveragePooling", "ZeroPadding") for n in (1, 2, 3)),
    *(f"{kind}{n}D" for kind in ("Cropping", "UpSampling") for n in (1, 2, 3)),
    *(f"Global{kind}Pooling{n}D" for kind in ("Max", "Average") for n in (1, 2, 3)),
)
_MIXING: Any = _classes("Conv1D", "Conv2D", "Conv3D", "Dense")  # kernels [..., cin, cout]
_JOINING = ("softmax", "log_softmax", "glu", "sparsemax", "sparse_plus")  # across channels


@dataclasses.dataclass
class Channels:
    """Of every tensor of a graph, by its id.

    Attributes:
        kept: which channels are kept, bool [channels].
        constant: the value of channels that are the same for every input, NaN elsewhere.
    """

    kept: dict[int, np.ndarray]
    constant: dict[int, np.ndarray]


def needed(model: Any) -> Channels:
    """Analyse a Functional model of ordinary layers."""
    operations = _keras.reads_and_makes(model)
    constant = constants(model)
    kept = {key: np.zeros(len(value), bool) for key, value in constant.items()}
    for tensor in (*model.inputs, *model.outputs):
        kept[id(tensor)][:] = True
    while True:
        before = {key: value.copy() for key, value in kept.items()}
        for operation, inputs, outputs in reversed(operations):
            _need(operation, inputs, outputs, kept, constant)
        if all(np.array_equal(before[key], value) for key, value in kept.items()):
            empty = [value for value in kept.values() if not value.any()]
            if not empty:
                return Channels(kept, constant)
            empty[0][0] = True  # a tensor has at least one channel


def constants(model: Any) -> dict[int, np.ndarray]:
    """Of each tensor the value of channels that are the same for every input, NaN elsewhere."""
    found: dict[int, np.ndarray] = {}
    for tensor in model.inputs:
        found[id(tensor)] = np.full(_width(tensor), np.nan)
    for operation, inputs, outputs in _keras.reads_and_makes(model):
        given = [found[id(tensor)] for tensor in inputs]
        for tensor in outputs:
            found[id(tensor)] = _constant_outputs(operation, inputs, given, tensor)
    return found


def _constant_outputs(operation: Any, inputs: list, given: list, output: Any) -> np.ndarray:
    """By running the layer on the constants: what hangs on none but them, and is flat, is one."""
    nothing = np.full(_width(output), np.nan)
    sort = kind(operation)
    if sort == "unknown":
        return nothing
    tensors = [_filled(t, values) for t, values in zip(inputs, given, strict=True)]
    outputs = operation(tensors if isinstance(operation.input, list) else tensors[0])
    rows = keras.ops.convert_to_numpy(outputs).reshape(-1, _width(output))
    flat = np.all(rows == rows[0], axis=0)
    loose = [np.isnan(values) for values in given]
    return np.where(flat & ~_hangs_on(operation, sort, loose, len(rows[0])), rows[0], np.nan)


def _hangs_on(operation: Any, sort: str, loose: list, width: int) -> np.ndarray:
    """Which outputs hang on a channel that is not constant."""
    if sort == "mixing":
        return _reads(operation)[loose[0]].any(0)
    if sort == "depthwise":
        kernel = keras.ops.convert_to_numpy(operation.kernel)
        used = (kernel != 0).any(axis=tuple(range(kernel.ndim - 2)))
        return (used & loose[0][:, None]).reshape(-1)
    if sort == "concatenate":
        return np.concatenate(loose)
    if sort == "flatten":
        return np.tile(loose[0], width // len(loose[0]))
    return np.logical_or.reduce(np.broadcast_arrays(*loose)) | np.zeros(width, bool)


def _filled(tensor: Any, values: np.ndarray) -> Any:
    shape = [1, *(8 if n is None else n for n in tensor.shape[1:])]
    return keras.ops.convert_to_tensor(
        np.broadcast_to(np.nan_to_num(values), shape).astype(tensor.dtype)
    )


def _reads(operation: Any) -> np.ndarray:
    """Which outputs read which inputs, bool [cin, cout]."""
    kernel = keras.ops.convert_to_numpy(operation.kernel)
    return (kernel != 0).reshape(-1, *kernel.shape[-2:]).any(0)


def folds_constants(operation: Any) -> bool:
    """Whether a constant input adds the same to an output everywhere: no padding with zeros."""
    dense = isinstance(operation, _L.Dense)
    return dense or operation.padding == "valid" or set(operation.kernel_size) == {1}


def _width(tensor: Any) -> int:
    """Channels of a tensor; 1 where they are not known or the tensor is no feature map."""
    last = tensor.shape[-1] if len(tensor.shape) > 1 else 1
    return int(last or 1)


def kind(operation: Any) -> str:
    """How a layer's outputs hang on the channels of its inputs."""
    if isinstance(operation, _L.DepthwiseConv1D | _L.DepthwiseConv2D):
        return "depthwise" if _last(operation) else "unknown"
    if isinstance(operation, _MIXING) and not _transposed(operation):
        plain = getattr(operation, "groups", 1) == 1 and _separate(operation.activation)
        return "mixing" if plain and _last(operation) else "unknown"
    if isinstance(operation, _L.Concatenate):
        return "concatenate" if _on_last_axis(operation) else "unknown"
    if isinstance(operation, _L.Flatten):
        return "flatten" if _last(operation) else "unknown"
    if isinstance(operation, _CHANNELWISE) and _last(operation):
        return "channelwise" if _separate(getattr(operation, "activation", None)) else "unknown"
    return "unknown"


def _transposed(operation: Any) -> bool:
    return isinstance(operation, _L.Conv1DTranspose | _L.Conv2DTranspose | _L.Conv3DTranspose)


def _separate(activation: Any) -> bool:
    return getattr(activation, "__name__", "") not in _JOINING


def _last(operation: Any) -> bool:
    normalises = isinstance(operation, _L.BatchNormalization)
    if normalises and operation.axis not in (-1, len(operation.input.shape) - 1):
        return False
    return getattr(operation, "data_format", None) != "channels_first"


def _on_last_axis(operation: Any) -> bool:
    rank = len(operation.input[0].shape)
    return operation.axis in (-1, rank - 1)


def _need(
    operation: Any,
    inputs: list,
    outputs: list,
    kept: dict[int, np.ndarray],
    constant: dict[int, np.ndarray],
) -> None:
    """Enlarge the kept channels of the tensors around one operation to what it demands."""
    if kind(operation) == "mixing":
        values = constant[id(inputs[0])]
        spare = (values == 0) | (~np.isnan(values) & folds_constants(operation))
        reads = _reads(operation)[:, kept[id(outputs[0])]].any(1)
        kept[id(inputs[0])] |= reads & ~spare
        return
    rules: dict[str, Callable[..., None]] = {
        "channelwise": _need_channelwise,
        "depthwise": _need_depthwise,
        "concatenate": _need_concatenate,
        "flatten": _need_flatten,
    }
    rule = rules.get(kind(operation), _need_everything)
    rule(operation, [kept[id(t)] for t in inputs], [kept[id(t)] for t in outputs])


def _need_everything(operation: Any, inputs: list, outputs: list) -> None:
    for one in (*inputs, *outputs):
        one[:] = True


def _need_channelwise(operation: Any, inputs: list, outputs: list) -> None:
    tied = [*inputs, *outputs]
    if len({len(one) for one in tied}) > 1:  # broadcasting
        _need_everything(operation, inputs, outputs)
        return
    union = np.logical_or.reduce(tied)
    for one in tied:
        one |= union


def _need_depthwise(operation: Any, inputs: list, outputs: list) -> None:
    kernel = keras.ops.convert_to_numpy(operation.kernel)
    multiplier = kernel.shape[-1]
    whole = outputs[0].reshape(-1, multiplier).any(1) | inputs[0]  # a channel keeps all its outputs
    inputs[0] |= whole
    outputs[0] |= np.repeat(whole, multiplier)


def _need_concatenate(operation: Any, inputs: list, outputs: list) -> None:
    start = 0
    for one in inputs:
        part = outputs[0][start : start + len(one)]
        part |= one
        one |= part
        start += len(one)


def _need_flatten(operation: Any, inputs: list, outputs: list) -> None:
    rows = outputs[0].reshape(-1, len(inputs[0]))
    inputs[0] |= rows.any(0)
    rows |= inputs[0]
