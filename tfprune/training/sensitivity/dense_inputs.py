"""Inputs and pre-activations of dense layers, from which per-example sensitivities are cheap.

d y_n / d W = a_n (outer) delta_n,   so   mean over n of |d y_n / d W| = |A|^T |Delta| / N
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from tfprune.pruned.state import PruneState

Tensor = Any


@dataclasses.dataclass
class Captured:
    """One weight of a dense layer: the layer's inputs [n, cin] and pre-activations [n, cout]."""

    inputs: Tensor
    before_activation: Tensor
    is_bias: bool

    def mean_absolute(self, pulled: Callable[[Tensor], Tensor]) -> Tensor:
        """Mean over n of |d y_n / d w|, float32 of the weight's shape.

        Args:
            pulled: source -> d (sum of y_n) / d source.
        """
        import tensorflow as tf

        delta = tf.abs(tf.cast(pulled(self.before_activation), "float32"))
        if self.is_bias:
            return tf.reduce_mean(delta, axis=0)
        count = tf.cast(tf.shape(delta)[0], "float32")
        magnitudes = tf.abs(tf.cast(self.inputs, "float32"))
        return tf.matmul(magnitudes, delta, transpose_a=True) / count


@contextlib.contextmanager
def capturing(states: Sequence[PruneState]) -> Iterator[dict[tuple[int, str], Captured]]:
    """Inside, dense layers that are called once on [n, cin] leave what they saw in the dict."""
    captured: dict[tuple[int, str], Captured] = {}
    undo = []
    for state in states:
        layer = state.owner()
        if isinstance(layer, keras.layers.Dense):
            undo.append(_watch(layer, state, captured))
    try:
        yield captured
    finally:
        for restore in undo:
            restore()


def _watch(layer: Any, state: PruneState, captured: dict[tuple[int, str], Captured]) -> Any:
    call, activation = layer.call, layer.activation
    calls: list[list[Tensor]] = []

    def watched_activation(x: Tensor) -> Tensor:
        calls[-1].append(x)
        return activation(x)

    def watched_call(inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        calls.append([inputs])
        outputs = call(inputs, *args, **kwargs)
        once = len(calls) == 1 and len(inputs.shape) == 2 and len(calls[0]) == 2
        for name, spec in state.specs.items():
            captured.pop((id(state), name), None)
            if once:
                captured[id(state), name] = Captured(inputs, calls[0][1], spec.is_bias)
        return outputs

    object.__setattr__(layer, "call", watched_call)
    object.__setattr__(layer, "activation", watched_activation)

    def undo() -> None:
        object.__delattr__(layer, "call")
        object.__setattr__(layer, "activation", activation)

    return undo
