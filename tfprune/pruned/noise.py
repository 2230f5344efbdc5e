"""Weights and outputs that are drawn in training, for methods with `sample` or `variance`.

    sampled      w = sample(latents, u),  u uniform in (0, 1), one draw a batch
    uncertain    y = layer(x; w) + sqrt(layer(x^2; var) + eps) * N(0, 1), before the activation
    elsewhere    w + sqrt(var) * N(0, 1), one draw a batch

The second form is the local reparameterisation: y has the distribution that it would have with
weights drawn for each example, but for what neighbouring positions of a convolution share.

Reference: Kingma, Salimans, Welling, "Variational Dropout and the Local Reparameterization Trick",
NeurIPS 2015, section 2.2.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from tfprune.graph.graphs import classes

Tensor = Any
LOCAL = classes("Dense", "Conv{n}D", "DepthwiseConv{n}D")  # layers that draw their outputs
ENDS = {"activation": None, "bias": None, "use_bias": False}  # of a layer, and without them
EPSILON = 1e-8


class _Hidden(threading.local):
    """Per thread: (id of a layer, attribute) of the ends that are off."""

    def __init__(self) -> None:
        self.ends: set[tuple[int, str]] = set()


_hidden = _Hidden()


@contextlib.contextmanager
def without(layer: keras.Layer, *ends: str) -> Iterator[None]:
    """Inside, a layer of a class with `switches` computes without some of its ends."""
    keys = {(id(layer), end) for end in ends} - _hidden.ends
    _hidden.ends |= keys
    try:
        yield
    finally:
        _hidden.ends -= keys


def is_off(layer: keras.Layer, end: str) -> bool:
    """Whether an end of a layer is off in this thread."""
    return (id(layer), end) in _hidden.ends


def switches() -> dict[str, property]:
    """Properties of a layer class that let `without` take effect."""
    return {name: _switch(name, off) for name, off in ENDS.items()}


def _switch(name: str, off: Any) -> property:
    def get(self: Any) -> Any:
        return off if is_off(self, name) else vars(self)[name]

    def put(self: Any, value: Any) -> None:
        vars(self)[name] = value

    return property(get, put)


def is_local(layer: keras.Layer) -> bool:
    """Whether a layer draws its outputs, not its weights."""
    return isinstance(layer, LOCAL)


def with_drawn_outputs(
    layer: Any,
    call: Callable[..., Tensor],
    inputs: Tensor,
    variance: Callable[[], contextlib.AbstractContextManager[None]],
    seed: keras.random.SeedGenerator,
) -> Tensor:
    """The outputs of a layer with Gaussian weights, drawn for each of them.

    Args:
        layer: of a class of `LOCAL`, with `switches`.
        call: the layer's own `call`, a function of its inputs.
        inputs: [n, ...].
        variance: a context inside which the layer's kernel is its variance.
        seed: of the draws.
    """
    with without(layer, "activation"):
        mean = call(inputs)
    with without(layer, *ENDS), variance():
        spread = ops.sqrt(ops.relu(call(ops.square(inputs))) + EPSILON)
    noise = keras.random.normal(ops.shape(mean), dtype=mean.dtype, seed=seed)
    outputs = mean + spread * noise
    return outputs if layer.activation is None else layer.activation(outputs)
