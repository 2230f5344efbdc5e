"""What folding and shrinking must know of the graphs of a model: each call, and which are plain."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator
from typing import Any

import keras

from tfprune.graph import _keras


def classes(*names: str) -> tuple[type, ...]:
    """The Keras layers of these names that this Keras has; `{n}` stands for each rank."""
    every = [name.format(n=n) for name in names for n in ((1, 2, 3) if "{n}" in name else (0,))]
    return tuple(getattr(keras.layers, name) for name in every if hasattr(keras.layers, name))


MERGES = classes(
    *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot")
)


def class_of(operation: Any) -> type:
    """The class of an operation, exactly; of a pruned layer the one that it was.

    A subclass that computes what a Keras layer does, by other means, can say so, for itself alone,
    in a class attribute `computes_as = keras.layers.Conv2D`, and then counts as that.
    """
    cls: type = operation.__class__
    return vars(cls).get("computes_as", cls)


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of an operation in a graph.

    Attributes:
        operation: a layer, or an operation of `keras.ops`.
        inputs, outputs: the symbolic tensors that it reads and makes.
        plain: whether the class of the operation says all of what it does here. It is called once
            in this graph and is part of nothing else in the model, gets nothing but feature maps
            (no mask, no `training=True`), makes one, and its channels are last and counted.
    """

    operation: Any
    inputs: list[Any]
    outputs: list[Any]
    plain: bool

    @property
    def cls(self) -> type:
        """`class_of` the operation."""
        return class_of(self.operation)


def shared_layers(model: keras.Layer) -> set[int]:
    """ids of the layers in a model that several parts of it own, or one part twice."""
    owners = {id(layer): layer for layer in _keras.all_layers(model)}.values()
    counts = collections.Counter(id(x) for owner in owners for x in _keras.children(owner))
    return {key for key, count in counts.items() if count > 1}


def calls(graph: Any, shared: set[int]) -> list[Call]:
    """The calls of a Functional graph, in the order of execution."""
    nodes = _keras.calls(graph)
    times = collections.Counter(id(operation) for operation, *_ in nodes)
    plain_calls = []
    for operation, inputs, outputs, arguments in nodes:
        once = times[id(operation)] == 1 and id(operation) not in shared
        maps = [*inputs, *outputs]
        plain = (
            once
            and len(outputs) == 1
            and all(len(tensor.shape) > 1 and tensor.shape[-1] is not None for tensor in maps)
            and _takes_maps_alone(operation, arguments)
            and _channels_last(operation, len(inputs[0].shape))
        )
        plain_calls.append(Call(operation, inputs, outputs, plain))
    return plain_calls


def graphs(model: keras.Layer) -> Iterator[tuple[Any, list[Call]]]:
    """The Functional graphs in a model, its own and those of models inside it, with their calls."""
    shared = shared_layers(model)
    for layer in {id(layer): layer for layer in _keras.all_layers(model)}.values():
        graph = _keras.graph_of(layer)
        if graph is not None:
            yield graph, calls(graph, shared)


def readers(graph: Any, calls: list[Call]) -> dict[int, list[Call | None]]:
    """id of a symbolic tensor -> the calls that read it; None stands for an output of the graph."""
    read_by: dict[int, list[Call | None]] = {id(tensor): [None] for tensor in graph.outputs}
    for call in calls:
        for tensor in call.inputs:
            read_by.setdefault(id(tensor), []).append(call)
    return read_by


def _takes_maps_alone(operation: Any, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> bool:
    """Whether the arguments of a call are one tensor, or the one list that a merge takes."""
    positional, named = arguments
    listed = len(positional) == 1 and isinstance(positional[0], list | tuple)
    unnamed = all(value is None or value is False for value in named.values())
    return len(positional) == 1 and unnamed and listed == (class_of(operation) in MERGES)


def _channels_last(operation: Any, rank: int) -> bool:
    joins = isinstance(operation, keras.layers.BatchNormalization | keras.layers.Concatenate)
    if joins and operation.axis not in (-1, rank - 1):
        return False
    return getattr(operation, "data_format", None) != "channels_first"


def has_own_kernel(layer: Any) -> bool:
    """Whether the kernel of a layer is its variable: without adapters, not quantized."""
    lora = getattr(layer, "lora_enabled", False)
    return not lora and getattr(layer, "quantization_mode", None) is None
