"""One update of the masks of all layers, as a function that is compiled once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from tfprune.graph import _keras
from tfprune.maths.spec import LayerTensors
from tfprune.pruned.plan import by_method
from tfprune.pruned.state import PruneState

Tensor = Any


class MaskUpdate:
    """Asks each method for new masks of the layers that share it, and assigns them.

    Args:
        states: of all pruned layers.
    """

    def __init__(self, states: Sequence[PruneState]) -> None:
        self.states = states
        indices = range(len(states))
        self.groups = by_method(indices, lambda index: states[index].method)
        self._compiled = _keras.compiled(self._update)

    def __call__(
        self,
        due: Sequence[bool],
        sparsities: Sequence[float],
        progress: Sequence[float],
        step: int,
        inputs: Mapping[int, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Update the layers that are due; one whose weights are not finite keeps its masks.

        Args:
            due, sparsities, progress: for each layer.
            step: kept with the model as the newest one.
            inputs: id of a layer's state -> calibration inputs, for methods that need them.

        Returns:
            Whether the weights of each layer are finite, bool [layers].
        """
        plans = np.array([sparsities, progress], "float32")
        arrays = np.array(due), plans, np.int32(step)
        given = {str(i): (inputs or {}).get(id(state)) for i, state in enumerate(self.states)}
        samples = {k: ops.convert_to_tensor(x) for k, x in given.items() if x is not None}
        return ops.convert_to_numpy(self._compiled(*map(ops.convert_to_tensor, arrays), samples))

    def _update(
        self, due: Tensor, plans: Tensor, step: Tensor, inputs: Mapping[str, Tensor]
    ) -> Tensor:
        finite: dict[int, Tensor] = {}
        for state in self.states:
            state.counters["last_step"].assign(ops.copy(step))
        for group in self.groups:
            states = [self.states[i] for i in group]
            layers = [
                state.tensors(plans[1][i], inputs.get(str(i)))
                for i, state in zip(group, states, strict=True)
            ]
            finite |= {i: _is_finite(layer) for i, layer in zip(group, layers, strict=True)}
            all_finite = ops.all(ops.stack([finite[i] for i in group]))
            flags = [ops.logical_and(due[i], all_finite) for i in group]
            sparsities = [plans[0][i] for i in group]
            updates = states[0].method.update(layers, sparsities, flags)
            for state, (masks, values) in zip(states, updates, strict=True):
                for name, mask in masks.items():
                    state.masks[name].assign(ops.copy(mask))
                for key, value in values.items():
                    state.scalars[key].assign(ops.copy(value))
        return ops.stack([finite[i] for i in range(len(self.states))])


def _is_finite(layer: LayerTensors) -> Tensor:
    tensors = [tensor for latents in layer.latents.values() for tensor in latents.values()]
    return ops.all(ops.stack([ops.all(ops.isfinite(tensor)) for tensor in tensors]))
