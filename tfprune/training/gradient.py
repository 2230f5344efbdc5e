"""Serves `LossGradient` during training: the gradient that the optimizer gets, handed to methods.

In `fit`, the `apply` of the model's optimizer is wrapped for the time of the training. In a loop of
the user's own, `Pruner.gradients` takes them. No backward pass is added.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras

from tfprune.graph import _keras
from tfprune.needs import LossGradient, need_of
from tfprune.pruned.state import PruneState
from tfprune.training.signals import Signals, hand_on, mean_over_replicas

Tensor = Any


def serve(model: keras.Model, states: Sequence[PruneState]) -> Callable[[], None]:
    """Let the training steps of `model.fit` hand on their gradients; returns what undoes it."""
    optimizer = _keras.inner_optimizer(model.optimizer)
    apply = optimizer.apply
    stale = getattr(apply, "tfprune_undo", None)
    if stale is not None:  # left by a training that was interrupted
        stale()
        apply = optimizer.apply

    @functools.wraps(apply)
    def watched_apply(grads: Iterable[Any], trainable_variables: Any = None) -> Any:
        gradients = list(grads)
        variables = trainable_variables
        if variables is None:
            variables = _keras.trained_by(optimizer)
        result = apply(gradients, trainable_variables)
        signals = signals_of(states, gradients, variables)
        hand_on(states, signals, optimizer.iterations, _keras.has_stepped(optimizer))
        return result

    def undo() -> None:
        if vars(optimizer).get("apply") is watched_apply:
            object.__delattr__(optimizer, "apply")
            model.train_function = None

    watched_apply.tfprune_undo = undo  # type: ignore[attr-defined]
    object.__setattr__(optimizer, "apply", watched_apply)
    model.make_train_function(force=True)
    return undo


def signals_of(
    states: Sequence[PruneState], gradients: Sequence[Tensor], variables: Sequence[keras.Variable]
) -> Signals:
    """The gradients of the masked tensors of some layers, those of them that need it.

    Args:
        gradients, variables: as the optimizer gets them, in one order.
    """
    by_variable = {id(v): g for v, g in zip(variables, gradients, strict=True) if g is not None}
    signals: Signals = {}
    for state in states:
        if need_of(state.method.needs, LossGradient) is not None:
            for name in state.specs:
                gradient = by_variable.get(id(state.masked_variable(name)))
                if gradient is not None:
                    dense = _keras.densified(gradient)
                    signals[id(state), name] = mean_over_replicas(dense)
    return signals
