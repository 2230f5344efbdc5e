"""Parametrise a built layer in place: its `kernel` becomes a property with the mask applied.

The layer's class is exchanged for a subclass that overrides the weight attributes and what saves
them, and that still says it is the class it was (`layer.__class__`), so Keras writes the same
configuration. PyTorch's `torch.nn.utils.parametrize` is the model for this.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune.graph import _keras
from tfprune.graph.classes import disguised, exchange
from tfprune.graph.layers import find_variable, variable_of
from tfprune.protocols import Uncertain
from tfprune.pruned.layers import STATE, is_pruned
from tfprune.pruned.noise import is_local, is_off, switches, with_drawn_outputs
from tfprune.pruned.penalty import add_penalties, remove_penalties
from tfprune.pruned.plan import LayerPlan
from tfprune.pruned.state import PruneState

Tensor = Any


class _Scope(threading.local):
    """Per thread: effective weights of the calls in progress, and whether they are switched off."""

    def __init__(self) -> None:
        self.values: dict[tuple[int, str], Tensor] = {}
        self.read: set[tuple[int, str]] = set()
        self.raw = False


_scope = _Scope()


@contextlib.contextmanager
def raw_weights() -> Iterator[None]:
    """Inside, pruned layers' attributes are the plain variables again (to save and load them)."""
    before, _scope.raw = _scope.raw, True
    try:
        yield
    finally:
        _scope.raw = before


@contextlib.contextmanager
def _computed_once(layers: list[keras.Layer]) -> Iterator[None]:
    """Compute the effective weights of `layers` now, and let every read inside share them.

    Before the body, so that a loop inside it (a recurrent layer's) does not compute them per step.
    """
    new = [
        (id(layer), name)
        for layer in layers
        for name in getattr(layer, STATE).specs
        if (id(layer), name) not in _scope.values
    ]
    by_id = {id(layer): layer for layer in layers}
    for key in new:
        _scope.values[key] = getattr(by_id[key[0]], STATE).effective(key[1])
    try:
        yield
    finally:
        for key in new:
            del _scope.values[key]


@contextlib.contextmanager
def _variances(layer: keras.Layer) -> Iterator[None]:
    """Let the kernels of a layer be their variances."""
    state = getattr(layer, STATE)
    names = [name for name, spec in state.specs.items() if not spec.is_bias]
    before = {(id(layer), name): _scope.values[id(layer), name] for name in names}
    for name in names:
        variance, key = state.variance(name), (id(layer), name)
        _scope.values[key] = ops.zeros_like(before[key]) if variance is None else variance
    try:
        yield
    finally:
        _scope.values |= before


@contextlib.contextmanager
def _checked_once(layer: keras.Layer) -> Iterator[None]:
    """Warn, at the layer's first call, if it does not use one of its pruned weights."""
    if "_tfprune_checked" in vars(layer):
        yield
        return
    keys = {(id(layer), name) for name in getattr(layer, STATE).specs}
    _scope.read -= keys
    yield
    vars(layer)["_tfprune_checked"] = True
    unread = sorted(name for _, name in keys - _scope.read)
    if unread:
        warnings.warn(
            f"Layer '{layer.name}' of type {layer.__class__.__name__} does not use the attributes "
            f"{unread} in its `call`, so pruning them has no effect there. Leave the layer out "
            "with `filters`, or let `call` read the attributes rather than the variables behind.",
            stacklevel=2,
        )


def _warn_if_unattended(layer: keras.Layer) -> None:
    state = getattr(layer, STATE)
    if _keras.in_training() and not state.attended and not state.ended():
        state.attended = True
        warnings.warn(
            f"The pruned layer '{layer.name}' is trained without a tfprune.PruningCallback (in a "
            "loop of your own: tfprune.Pruner), so its mask never changes.",
            stacklevel=2,
        )


def _autocast(layer: keras.Layer, value: Tensor) -> Tensor:
    """Cast as Keras casts a variable when it is read, so that gradients keep its own dtype."""
    if layer.autocast and keras.backend.is_float_dtype(value.dtype):
        return ops.cast(value, layer.compute_dtype)
    return value


def _attribute(cls: type, name: str) -> property:
    base = getattr(cls, name, None)

    def get(self: Any) -> Any:
        if _scope.raw:
            inherited = base.fget if isinstance(base, property) else None
            return inherited(self) if inherited else vars(self)[name]
        _scope.read.add((id(self), name))
        if is_off(self, name):
            return None
        value = _scope.values.get((id(self), name))
        return getattr(self, STATE).effective(name) if value is None else _autocast(self, value)

    def put(self: Any, value: Any) -> None:
        raise AttributeError(
            f"`{name}` of the pruned layer '{self.name}' cannot be replaced: it is computed from "
            "its latent weight and mask. Assign to the layer's variables, or strip the model first."
        )

    return property(get, put)


def _save(cls: type) -> Callable[[Any, Any], None]:
    def save_own_variables(self: Any, store: Any) -> None:
        """Write the effective weights in place of the latent ones."""
        state = getattr(self, STATE)
        slots = {id(find_variable(self, name)): name for name in state.specs}
        values: dict[str, Any] = {}
        with raw_weights():
            cls.save_own_variables(self, values)  # type: ignore[attr-defined]
        saved = {slots[id(value)] for value in values.values() if id(value) in slots}
        if saved != set(state.specs):
            raise RuntimeError(
                f"Layer '{self.name}' of type {cls.__name__} does not save its variables "
                f"{sorted(set(state.specs) - saved)} as they are, so it cannot be saved pruned."
            )
        for key, value in values.items():
            name = slots.get(id(value))
            store[key] = value if name is None else state.effective(name)

    return save_own_variables


def _load(cls: type) -> Callable[[Any, Any], None]:
    def load_own_variables(self: Any, store: Any) -> None:
        with raw_weights():
            cls.load_own_variables(self, store)  # type: ignore[attr-defined]

    return load_own_variables


def _refuse_lora(self: Any, *args: Any, **kwargs: Any) -> None:
    raise ValueError(
        f"`enable_lora` does not work on the pruned layer '{self.name}'. "
        "Call `tfprune.strip(model)` first."
    )


@_keras.memoized
def _pruned_class(cls: type, names: tuple[str, ...], uncertain: bool) -> type:
    @functools.wraps(cls.call)  # type: ignore[attr-defined]
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        _warn_if_unattended(self)
        own = functools.partial(cls.call, self)  # type: ignore[attr-defined]
        with _computed_once([self]), _checked_once(self):
            if uncertain and _keras.in_training():
                return with_drawn_outputs(
                    self, own, args[0], lambda: _variances(self), getattr(self, STATE).seed
                )
            return own(*args, **kwargs)

    body = {
        **(switches() if uncertain else {}),
        "call": call,
        "save_own_variables": _save(cls),
        "load_own_variables": _load(cls),
        "enable_lora": _refuse_lora,
        **{name: _attribute(cls, name) for name in names},
    }
    return disguised(cls, body)


@_keras.memoized
def _sharing_class(cls: type) -> type:
    """For a recurrent layer: the cells' effective weights are computed once per call."""

    @functools.wraps(cls.call)  # type: ignore[attr-defined]
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        cells = [cell for cell in _keras.all_layers(self) if hasattr(cell, STATE)]
        with _computed_once(cells):
            return cls.call(self, *args, **kwargs)  # type: ignore[attr-defined]

    return disguised(cls, {"call": call})


def parametrize(layer: keras.Layer, state: PruneState) -> None:
    """Make a built layer use its effective weights from now on. Undone by `unparametrize`."""
    _keras.add_child(layer, STATE, state)
    uncertain = isinstance(state.method, Uncertain) and is_local(layer)
    exchange(layer, _pruned_class(type(layer), tuple(state.specs), uncertain))
    _keras.refuse_quantize(layer)
    add_penalties(state)
    for name in state.specs:
        if getattr(layer, name) is find_variable(layer, name):
            raise RuntimeError(f"Layer '{layer.name}' could not be parametrised: `{name}` is raw.")


def unparametrize(layer: keras.Layer) -> None:
    """Turn a pruned layer back into what it was, with the effective weights baked in."""
    state = getattr(layer, STATE)
    values = {name: np.array(ops.convert_to_numpy(state.effective(name))) for name in state.specs}
    remove_penalties(state)
    exchange(layer, type(layer)._tfprune_base)
    vars(layer).pop("_tfprune_checked", None)
    _keras.allow_quantize(layer)
    _keras.remove_child(layer, STATE)
    for name, value in values.items():
        variable_of(layer, name).assign(value)


def attach(item: LayerPlan, wrapped: bool = False) -> None:
    """Parametrise the layer of a complete plan.

    Args:
        item: what is to be done with the layer.
        wrapped: whether a wrapper of `tfprune.layers` holds the layer, and saves the settings.
    """
    parametrize(item.layer, PruneState(item, wrapped))


def share_cells(model: keras.Layer) -> None:
    """Let the recurrent layers of a model compute their pruned cells' weights once per call."""
    for layer in _keras.all_layers(model):
        if isinstance(layer, keras.layers.RNN) and is_pruned(layer):
            share_in_loops(layer)


def share_in_loops(layer: keras.Layer) -> None:
    """Let a recurrent layer with pruned cells compute their weights once per call."""
    if not hasattr(type(layer), "_tfprune_base"):
        exchange(layer, _sharing_class(type(layer)))


def unshare(layer: keras.Layer) -> None:
    """Undo `share_in_loops`."""
    if hasattr(type(layer), "_tfprune_base"):
        exchange(layer, type(layer)._tfprune_base)
