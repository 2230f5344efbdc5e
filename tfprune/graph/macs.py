"""How often a net uses each kernel in one inference, counted from the shapes its layers really see.

A layer that is called with a kernel `K` multiplies every weight of `K` the same number of times,
its *uses*: once per output position of a convolution, once per row of a dense layer, once per time
step of a recurrent one. So multiply-adds = uses * weights, and of a sparse kernel uses * nonzeros.
Padding counts as input. Adding a bias, normalising, activating and looking up an embedding count
nothing, and neither do products of two activations (attention scores).
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import keras

from tfprune.graph import _keras
from tfprune.graph.layers import own_variables
from tfprune.graph.uses import CELLS, Shape, Uses, uses_per_call


class Uncountable(ValueError):
    """The net can't be run on zeros; the message says why."""


def kernel_uses(model: keras.Layer, input_shape: Any = None) -> dict[int, Uses]:
    """`id(layer)` -> how often one inference on one example multiplies each weight of its kernels.

    Runs the net once on zeros, in inference mode, inside a `keras.StatelessScope`: no variable or
    seed changes (like any call, it clears the losses of the last one). A layer that is never called
    is missing; None means that the layer's kind is not known, so its uses can't be told.

    Args:
        model: a built model or layer.
        input_shape: shape of one example, without batch axis, or such shapes in the structure of
            the model's inputs; needed where the model does not know it or has unknown dimensions.

    Raises:
        Uncountable: if the input shape is not known or the net does not run on zeros.
    """
    inputs, batch = _zeros(model, input_shape)
    recorder = _Recorder()
    try:
        with recorder.watching(model), keras.StatelessScope(collect_losses=True):
            model(inputs, training=False)
    except Exception as error:
        raise Uncountable(f"the net does not run on zeros: {_reason(error)}") from error
    return recorder.totals(batch)


def _reason(error: Exception) -> str:
    """One line of an error that Keras may have wrapped in several."""
    text = re.sub(r"\x1b\[\d*m", "", str(error)).split("Arguments received by")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Exception encountered")]
    return f"{type(error).__name__}: {' '.join(lines)[:200]}"


def _zeros(model: keras.Layer, input_shape: Any) -> tuple[Any, int]:
    """Zeros for one run, and their batch size: 1 unless the model fixes another."""
    specs = _known_inputs(model)
    if input_shape is not None:
        shapes = keras.tree.map_shape_structure(lambda shape: (None, *shape), input_shape)
    elif specs is not None:
        shapes = keras.tree.map_structure(lambda spec: tuple(spec.shape), specs)
    else:
        shapes = _built_shapes(model)
    fixed = {s.shape[0] for s in keras.tree.flatten(specs)} - {None} if specs is not None else set()
    batch = int(fixed.pop()) if len(fixed) == 1 else 1
    flat: list[Shape] = []
    keras.tree.map_shape_structure(flat.append, shapes)
    if any(dim is None for shape in flat for dim in shape[1:]):
        raise Uncountable(f"the input has unknown dimensions {flat}; give `input_shape=`")
    dtypes = [spec.dtype for spec in keras.tree.flatten(specs)] if specs is not None else []
    if len(dtypes) != len(flat):
        dtypes = [keras.config.floatx()] * len(flat)
    todo = iter(dtypes)
    return keras.tree.map_shape_structure(
        lambda shape: keras.ops.zeros((batch, *shape[1:]), dtype=next(todo)), shapes
    ), batch


def _known_inputs(model: keras.Layer) -> Any:
    """The symbolic inputs of a Functional or Sequential model in their structure, else None."""
    if isinstance(model, _keras.Functional):
        return model.input
    return model.inputs[0] if getattr(model, "inputs", None) else None


def _built_shapes(model: keras.Layer) -> Any:
    config = model.get_build_config() or {}
    if config.get("input_shape") is None:
        raise Uncountable("the model does not know its input shape; give `input_shape=`")
    return config["input_shape"]


class _Frame:
    """What was called inside the body of one loop layer, or outside all loops (no body)."""

    def __init__(self, body: keras.Layer | None = None) -> None:
        self.body = body
        self.traced = 0
        self.depth = 0
        self.uses: dict[int, Uses] = {}

    @contextlib.contextmanager
    def calling(self, layer: keras.Layer) -> Iterator[None]:
        """Notice the calls of the body, however often the backend traces it."""
        is_body = layer is self.body
        self.traced += is_body
        self.depth += is_body
        try:
            yield
        finally:
            self.depth -= is_body

    def add(self, layer_id: int, uses: Uses) -> None:
        """Count a call, unless the loop layer makes it beside its body, to learn a shape."""
        if self.body is not None and not self.depth:
            return
        before = self.uses.get(layer_id, Fraction(0))
        self.uses[layer_id] = None if uses is None or before is None else before + uses


class _Recorder:
    """Shadows `call` on layer instances to see the shapes that they are called with."""

    def __init__(self) -> None:
        self.frames = [_Frame()]

    @contextlib.contextmanager
    def watching(self, model: keras.Layer) -> Iterator[None]:
        """Inside, every call of every sub-layer is recorded; afterwards no trace is left."""
        undo = []
        try:
            for layer in _walk(model):
                before = {k: vars(layer)[k] for k in ("call", "_called") if k in vars(layer)}
                undo.append((layer, before))
                object.__setattr__(layer, "call", self._watched(layer, layer.call))
            yield
        finally:
            for layer, before in undo:
                object.__delattr__(layer, "call")
                for name, value in before.items():
                    object.__setattr__(layer, name, value)

    def _watched(self, layer: keras.Layer, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def watched(*args: Any, **kwargs: Any) -> Any:
            body, inputs = _loop_body(layer), _shape(args, kwargs)
            with self.frames[-1].calling(layer):
                with self._loop(body, inputs) if body is not None else contextlib.nullcontext():
                    outputs = call(*args, **kwargs)
                if own_variables(layer) or hasattr(type(layer), "uses_per_call"):
                    uses = uses_per_call(layer, inputs, _shape((outputs,), {}), kwargs)
                    self.frames[-1].add(id(layer), uses)
            return outputs

        return watched

    @contextlib.contextmanager
    def _loop(self, body: keras.Layer, shape: Shape) -> Iterator[None]:
        """Scale what is recorded inside to `shape[1]` steps."""
        frame = _Frame(body)
        self.frames.append(frame)
        try:
            yield
        finally:
            self.frames.pop()
        if not frame.traced:  # a fused recurrent kernel reads the cell's weights without calling it
            with frame.calling(body):
                frame.add(id(body), Fraction(shape[0]) if isinstance(body, CELLS) else None)
        for layer_id, uses in frame.uses.items():
            scaled = None if uses is None else uses * Fraction(shape[1], frame.traced)
            self.frames[-1].add(layer_id, scaled)

    def totals(self, batch: int) -> dict[int, Uses]:
        """`id(layer)` -> uses for one example."""
        uses = self.frames[0].uses
        return {key: None if value is None else value / batch for key, value in uses.items()}


def _walk(model: keras.Layer) -> list[keras.Layer]:
    """The layer and all layers inside it, each once."""
    layers: dict[int, keras.Layer] = {}
    todo = [model]
    while todo:
        layer = todo.pop()
        if id(layer) not in layers:
            layers[id(layer)] = layer
            todo.extend(_keras.children(layer))
    return list(layers.values())


def _loop_body(layer: keras.Layer) -> keras.Layer | None:
    """What a recurrent or time-distributed layer calls once per step of axis 1."""
    if isinstance(layer, keras.layers.RNN):
        return layer.cell
    return layer.layer if isinstance(layer, keras.layers.TimeDistributed) else None


def _shape(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Shape:
    """Shape of the first tensor among the arguments."""
    tensors = [x for x in keras.tree.flatten((args, kwargs)) if hasattr(x, "shape")]
    return tuple(tensors[0].shape) if tensors else ()
