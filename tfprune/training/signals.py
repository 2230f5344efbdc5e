"""What is measured in a training step, handed to the methods that asked for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfprune.protocols import Observing, StepCorrected
from tfprune.pruned.state import PruneState

Tensor = Any
Signals = dict[tuple[int, str], Tensor]  # (id of a layer's state, name of a weight) -> its signal


def hand_on(states: Sequence[PruneState], signals: Signals, step: Any, stepped: Any = True) -> None:
    """Let each method take up what was measured, and change its latent weights by it.

    Frozen weights stay.

    Args:
        signals: of the weights that were measured.
        step: the optimizer's steps so far, this one among them.
        stepped: whether the batch made a step; an optimizer may only accumulate gradients.
    """
    for state in states:
        for name, spec in state.specs.items():
            signal = signals.get((id(state), name))
            variable = state.masked_variable(name)
            if signal is None or not variable.trainable:
                continue
            if isinstance(state.method, Observing):
                kept = {key: scalar.value for key, scalar in state.scalars.items()}
                news = state.method.observe(kept, variable.value, signal, spec)
                for key, value in news.items():
                    _assign(state.scalars[key], value)
            if isinstance(state.method, StepCorrected):
                mask, progress = state.masks[name].value, state.progress(_before(step))
                new = state.method.after_step(variable.value, mask, signal, progress, spec)
                _assign(variable, ops.where(stepped, new, variable.value))


def _before(step: Any) -> Tensor:
    return ops.cast(step, "float32") - 1


def mean_over_replicas(gradient: Tensor) -> Tensor:
    """The mean over the replicas of a distributed training step, float32; itself elsewhere."""
    gradient, context = ops.cast(gradient, "float32"), _replica_context()
    if context is None:
        return gradient
    import tensorflow as tf

    return context.all_reduce(tf.distribute.ReduceOp.MEAN, gradient)


def _replica_context() -> Any:
    """The replica of a distributed TensorFlow step that is being traced or run; else None."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    return tf.distribute.get_replica_context() if tf.distribute.has_strategy() else None


def _assign(variable: keras.Variable, value: Tensor) -> None:
    """Assign, also in a replica of a distributed training step, where all replicas agree."""
    context = _replica_context()
    if context is None:
        variable.assign(value)
        return

    def update(strategy: Any, new: Any) -> None:
        strategy.extended.update(
            variable.value, lambda replica, own: replica.assign(own), args=(new,), group=False
        )

    context.merge_call(update, args=(ops.convert_to_tensor(value),))
