"""What is to be said at the end of a training: a target that was missed, an empty layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfprune.maths.spec import WeightSpec
from tfprune.method import Method
from tfprune.protocols import Grouped
from tfprune.pruned.plan import by_method
from tfprune.pruned.state import PruneState

NOT_PLANNED = (
    "Nothing was pruned: the number of training steps was not known, so the schedule could not be "
    "planned. Give `PruningCallback(total_steps=...)`, `steps_per_epoch`, or `begin_step`, "
    "`end_step` and `frequency` of the schedule."
)
NOT_MEASURED = (
    "What the method needs was never measured in training. In `fit`, give the model that is "
    "trained a PruningCallback; in a loop of your own, call `pruner.measure` and "
    "`pruner.after_step`."
)


def missed_targets(
    states: Sequence[PruneState], schedules: Sequence[Any], step: int | None
) -> Iterator[str]:
    """A sentence for each target that was not reached.

    Args:
        states: of all pruned layers.
        schedules: of each, planned.
        step: the newest one.
    """
    for group in _sharing_a_target(states):
        schedule = schedules[states.index(group[0])]
        wanted = getattr(schedule, "final_target", None)
        specs, masks = [s.specs for s in group], [s.mask_arrays() for s in group]
        method = group[0].method
        achieved = method.target.achieved(specs, masks)
        rounding = method.target.rounding(_costs(method, specs, masks))
        if wanted and achieved < wanted - rounding - 1e-4:
            path = group[0].path_in_model if len(group) == 1 else "the model"
            yield (
                f"Target missed: {path} has sparsity {achieved:.4f} instead of {wanted:.4f} after "
                f"step {step}; its schedule is {schedule}."
            )


def _sharing_a_target(states: Sequence[PruneState]) -> list[list[PruneState]]:
    """The layers that a target is asked of together: one by one, or a method's all."""
    groups: list[list[PruneState]] = []
    for group in by_method(states, lambda state: state.method):
        together = group[0].method.target.scope == "global"
        groups += [group] if together else [[state] for state in group]
    return groups


def _costs(
    method: Method, specs: Sequence[dict[str, WeightSpec]], masks: Sequence[dict[str, np.ndarray]]
) -> list[np.ndarray]:
    """For each mask, the costs of what is pruned together."""
    costs = []
    for layer_specs, layer_masks in zip(specs, masks, strict=True):
        for name, spec in layer_specs.items():
            sizes = np.broadcast_to(1.0, layer_masks[name].shape)  # which takes no memory
            if isinstance(method, Grouped):
                sizes = method.groups(spec).sizes
            costs.append(method.target.cost(spec, sizes))
    return costs


def emptied(states: Sequence[PruneState]) -> Iterator[str]:
    """A sentence where layers have no weight left."""
    paths = [state.path_in_model for state in states if state.sparsity() == 1]
    if paths:
        yield (
            f"Every weight of the layers {paths} is pruned, so nothing passes through them. "
            "Lower `c` or the target, or leave them out with `filters`."
        )
