"""Penalties of methods, which Keras adds to the losses beside the layers' own regularizers."""

from __future__ import annotations

import weakref
from typing import Any

from tfprune.maths.spec import WeightSpec
from tfprune.protocols import Penalized
from tfprune.pruned.state import PruneState

Tensor = Any


class _Penalty:
    """A variable's regularizer with a method's penalty added."""

    def __init__(self, method: Penalized, state: PruneState, spec: WeightSpec, own: Any) -> None:
        self.method, self.state, self.spec, self.own = method, weakref.ref(state), spec, own

    def __call__(self, variable: Tensor) -> Tensor:
        state = self.state()
        loss = 0.0 if self.own is None else self.own(variable)
        if state is None:
            return loss
        latents = {**state.latents(self.spec.name), state.domain.masked: variable}
        return loss + self.method.penalty(latents, self.spec, state.newest_progress())


def add_penalties(state: PruneState) -> None:
    """Let the method of a layer penalise its weights, where it does so."""
    if isinstance(state.method, Penalized):
        for name, spec in state.specs.items():
            variable = state.masked_variable(name)
            variable.regularizer = _Penalty(state.method, state, spec, variable.regularizer)


def remove_penalties(state: PruneState) -> None:
    """Undo `add_penalties`."""
    for name in state.specs:
        variable = state.masked_variable(name)
        if isinstance(variable.regularizer, _Penalty):
            variable.regularizer = variable.regularizer.own
