"""The private Keras names that tfprune relies on (`tests/graph/test_canary.py`)."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.backend.common.variables import AutocastScope
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell
from keras.src.models.functional import Functional

__all__ = [
    "ConvLSTMCell",
    "Functional",
    "accumulation",
    "add_child",
    "all_layers",
    "allow_quantize",
    "autocast_off",
    "calls",
    "children",
    "compile_arguments",
    "compiled",
    "concrete",
    "densified",
    "forget_traces",
    "graph_of",
    "has_stepped",
    "in_training",
    "inner_optimizer",
    "logits_of",
    "made_by",
    "memoized",
    "own_variables",
    "read_by",
    "read_from",
    "refuse_quantize",
    "remove_child",
    "replace_child",
    "same_lambda",
    "symbolic_inputs",
    "sync",
    "trained_by",
]


_QUANTIZE = "_tfprune_quantize"
F = TypeVar("F", bound=Callable[..., Any])
memoized: Callable[[F], F] = functools.cache  # type: ignore[assignment]


def children(layer: keras.Layer) -> list[keras.Layer]:
    """The layers that `layer` owns directly, in the order in which it got them."""
    if isinstance(layer, Functional | keras.Sequential):
        return list(layer.layers)
    return [child for child in layer._layers if isinstance(child, keras.Layer)]


def all_layers(layer: keras.Layer) -> list[keras.Layer]:
    """A layer and all layers inside it; one with several owners is there several times."""
    return list(layer._flatten_layers())


def own_variables(layer: keras.Layer, trainable: bool) -> list[keras.Variable]:
    """The variables that a layer made itself, without those of layers inside it."""
    return list(layer._trainable_variables if trainable else layer._non_trainable_variables)


def trained_by(optimizer: Any) -> list[keras.Variable]:
    """The variables that an optimizer was built for."""
    return list(getattr(optimizer, "_trainable_variables", []))


def logits_of(output: Any) -> Any:
    """What a softmax was computed from; an output itself where there was none."""
    return getattr(output, "_keras_logits", output)


def symbolic_inputs(layer: keras.Layer) -> list[Any]:
    """The first symbolic input of each call of a layer in the graphs it was called in."""
    nodes = getattr(layer, "_inbound_nodes", [])
    return [node.input_tensors[0] for node in nodes if node.input_tensors]


def made_by(tensor: Any) -> tuple[Any, list[Any]]:
    """The operation that made a symbolic tensor, and its inputs; (None, []) for a model's input."""
    operation, node_index, _ = getattr(tensor, "_keras_history", (None, 0, 0))
    if operation is None:
        return None, []
    return operation, list(operation._inbound_nodes[node_index].input_tensors)


def graph_of(model: keras.Layer) -> Any:
    """The Functional graph that a model computes; None if it has none, or a `call` of its own."""
    if isinstance(model, Functional) and type(model).call is Functional.call:
        return model
    if isinstance(model, keras.Sequential) and type(model).call is keras.Sequential.call:
        return model._functional
    return None


def calls(graph: Functional) -> list[tuple[Any, list[Any], list[Any], tuple[tuple, dict]]]:
    """(operation, tensors read, tensors made, arguments) of a graph, in the order of execution."""
    return [
        (
            node.operation,
            list(node.input_tensors),
            list(node.output_tensors),
            (node.arguments.args, node.arguments.kwargs),
        )
        for depth in sorted(graph._nodes_by_depth, reverse=True)
        for node in graph._nodes_by_depth[depth]
        if node.input_tensors
    ]


def read_from(operation: Any) -> list[Any]:
    """The operations whose tensors an operation reads, in every graph; None for a graph's input."""
    nodes = getattr(operation, "_inbound_nodes", [])
    return [tensor._keras_history.operation for node in nodes for tensor in node.input_tensors]


def read_by(operation: Any) -> list[Any]:
    """The operations that read an operation's tensors, in every graph."""
    return [node.operation for node in getattr(operation, "_outbound_nodes", [])]


def autocast_off() -> contextlib.AbstractContextManager[Any]:
    """Inside, variables are read in their own dtype, whatever the layer's dtype policy says."""
    return AutocastScope(None)


@contextlib.contextmanager
def _unlocked(layer: keras.Layer) -> Iterator[None]:
    tracker = layer._tracker
    locked = tracker.locked
    tracker.unlock()
    try:
        yield
    finally:
        if locked:
            tracker.lock()


def add_child(layer: keras.Layer, name: str, child: keras.Layer) -> None:
    """Give a built layer one more sub-layer, which Keras then tracks and saves."""
    with _unlocked(layer):
        setattr(layer, name, child)


def remove_child(layer: keras.Layer, name: str) -> None:
    """Take a sub-layer out again, so that no trace of it is tracked or saved."""
    child = getattr(layer, name)
    with _unlocked(layer):
        delattr(layer, name)
        layer._tracker.untrack(child)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that reads and assigns Keras variables, where the backend needs it."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, autograph=False)
    return function


def replace_child(layer: keras.Layer, name: str, child: Any) -> None:
    """Put another sub-layer (or list of them) in the place of one of a built layer."""
    old = getattr(layer, name)
    with _unlocked(layer):
        for child_layer in old if isinstance(old, list | tuple) else [old]:
            layer._tracker.untrack(child_layer)
        setattr(layer, name, child)


def refuse_quantize(layer: keras.Layer) -> None:
    """Let `layer.quantize` raise; Keras keeps that method on the instance."""

    def quantize(*args: Any, **kwargs: Any) -> None:
        raise ValueError(
            f"`quantize` does not work on '{layer.name}', which is pruned. "
            "Call `tfprune.strip(model)` first."
        )

    if _QUANTIZE not in vars(layer):
        vars(layer)[_QUANTIZE] = vars(layer).get("quantize")
        vars(layer)["quantize"] = quantize


def allow_quantize(layer: keras.Layer) -> None:
    """Undo `refuse_quantize`."""
    if _QUANTIZE in vars(layer):
        original = vars(layer).pop(_QUANTIZE)
        vars(layer).pop("quantize")
        if original is not None:
            vars(layer)["quantize"] = original


def same_lambda(layer: keras.layers.Lambda) -> keras.layers.Lambda:
    """A new Lambda layer with the same function, which a configuration could not always hold."""
    return keras.layers.Lambda(
        layer.function,
        output_shape=layer._output_shape,
        mask=layer.mask,
        arguments=layer.arguments,
        name=layer.name,
        dtype=layer.dtype_policy,
    )


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """The arguments of the last `model.compile`, as the live objects that were given."""
    return dict(model._compile_config.config)


def forget_traces(model: keras.Layer) -> None:
    """Let the models in a model compile their steps anew, as their layers compute otherwise now."""
    for layer in model._flatten_layers():
        for name in ("train_function", "test_function", "predict_function"):
            if getattr(layer, name, None) is not None:
                setattr(layer, name, None)


def concrete(variable: keras.Variable) -> np.ndarray:
    """A variable's value as an array, also while a call is being traced."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.init_scope():
            return np.asarray(variable.value)
    return np.asarray(keras.ops.convert_to_numpy(variable._value))


def in_training() -> bool:
    """Whether the layer call in progress is one of training."""
    context = global_state.get_global_attribute("current_call_ctx")
    return getattr(context, "training", None) is True


def accumulation(optimizer: Any) -> int:
    """How many batches make one step of an optimizer."""
    return getattr(inner_optimizer(optimizer), "gradient_accumulation_steps", None) or 1


def has_stepped(optimizer: Any) -> Any:
    """Whether an optimizer's last batch made a step; a tensor where it accumulates gradients."""
    if accumulation(optimizer) == 1:
        return True
    batches = keras.ops.convert_to_tensor(inner_optimizer(optimizer)._iterations)
    return keras.ops.equal(batches % accumulation(optimizer), 0)


def inner_optimizer(optimizer: Any) -> Any:
    """The optimizer inside one that scales the loss; else itself."""
    return getattr(optimizer, "inner_optimizer", None) or optimizer


def densified(gradient: Any) -> Any:
    """A gradient as one tensor, of an embedding too."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.convert_to_tensor(gradient)
    return gradient


def sync(model: keras.Model) -> None:
    """Write a running JAX training state back to the model's variables, to be read."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()
