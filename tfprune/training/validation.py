"""Mask updates that go by the validation loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tfprune.protocols import Validated
from tfprune.pruned.state import PruneState


def update_by_validation(
    states: Sequence[PruneState], validation_loss: Callable[[], float]
) -> None:
    """Let the method that some layers share choose masks; where it fails they stay as they were.

    Args:
        states: the layers.
        validation_loss: evaluates the model as it is.
    """

    def put(masks: list[dict[str, Any]]) -> None:
        for state, kept in zip(states, masks, strict=True):
            for name, mask in kept.items():
                state.masks[name].assign(mask)

    def loss_of(masks: list[dict[str, Any]]) -> float:
        put(masks)
        return float(validation_loss())

    method = states[0].method
    if not isinstance(method, Validated):
        raise NotImplementedError(f"{type(method).__name__} must define `update_on_validation`.")
    chosen: list[dict[str, Any]] = [state.mask_arrays() for state in states]
    try:
        layers = [state.tensors() for state in states]
        results = method.update_on_validation(layers, loss_of)
        chosen = [masks for masks, _ in results]
    finally:
        put(chosen)
    for state, (_, kept) in zip(states, results, strict=True):
        for key, value in kept.items():
            state.scalars[key].assign(value)
