"""Who is updated together: each layer by itself where it is due, or all layers by one ranking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from tfprune.maths.masks import keep_largest_of_all
from tfprune.maths.spec import LayerTensors, Update

Tensor = Any


def layer_by_layer(
    layers: Sequence[LayerTensors],
    sparsities: Sequence[Tensor],
    due: Sequence[Tensor],
    update: Callable[[LayerTensors, Tensor], Update],
) -> list[Update]:
    """Update each layer that is due by itself; the others keep their masks and states.

    Args:
        layers, sparsities, due: as in `Method.update`.
        update: new masks and state of a layer at its sparsity.
    """
    return [
        ops.cond(
            flag,
            lambda layer=layer, sparsity=sparsity: update(layer, sparsity),
            lambda layer=layer: layer.unchanged,
        )
        for layer, sparsity, flag in zip(layers, sparsities, due, strict=True)
    ]


def together(
    layers: Sequence[LayerTensors], due: Sequence[Tensor], update: Callable[[], list[Update]]
) -> list[Update]:
    """Compute the update of all layers if any is due, and take it for those that are."""
    unchanged = [layer.unchanged for layer in layers]
    updates = ops.cond(ops.any(ops.stack(list(due))), update, lambda: unchanged)
    return [
        ops.cond(flag, lambda new=new: new, lambda old=old: old)
        for flag, new, old in zip(due, updates, unchanged, strict=True)
    ]


def ranked_together(
    layers: Sequence[LayerTensors],
    scores: Sequence[dict[str, Tensor]],
    sparsity: Tensor,
    due: Sequence[Tensor],
) -> list[Update]:
    """Keep the largest scores of all layers by one threshold, where any of them is due.

    Args:
        layers, due: as in `Method.update`.
        scores: for each layer, of each weight; larger = keep.
        sparsity: of all of them together.
    """
    any_due = ops.any(ops.stack(list(due)))
    flat = [score for layer in scores for score in layer.values()]
    masks = iter(keep_largest_of_all(flat, sparsity))
    return [
        ({name: ops.where(any_due, next(masks), layer.masks[name]) for name in of}, layer.state)
        for layer, of in zip(layers, scores, strict=True)
    ]
