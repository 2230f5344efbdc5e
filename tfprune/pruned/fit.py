"""What `fit` of a pruned model asks of its callbacks."""

from __future__ import annotations

from typing import Any

import keras

from tfprune.pruned.layers import STATE, pruned_layers


def arranged(model: keras.Model, callbacks: Any) -> tuple[Any, list[Any]]:
    """The callbacks of a pruned model's `fit`, PruningCallback first; and that one alone.

    Raises:
        ValueError: if there is none although a schedule has not ended yet.
    """
    container = isinstance(callbacks, keras.callbacks.CallbackList)
    given = callbacks.callbacks if container else keras.tree.flatten(callbacks or [])
    ours = [callback for callback in given if getattr(callback, "is_pruning_callback", False)]
    if not ours and not _ended(model):
        raise ValueError(
            "A pruned model needs `callbacks=[tfprune.PruningCallback()]` in `fit`, or its masks "
            f"never change. Received: callbacks={callbacks!r}. To train with fixed masks, "
            "prune with a schedule that has ended, or `tfprune.strip` it."
        )
    for callback in ours:
        callback.concluded_by_fit = True
    if container:
        return callbacks, ours
    return ours + [callback for callback in given if callback not in ours], ours


def _ended(model: keras.Model) -> bool:
    return all(getattr(layer, STATE).ended() for _, layer in pruned_layers(model))
