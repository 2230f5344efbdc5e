"""Magnitude pruning, the baseline: the smallest weights go, to a sparsity that a schedule sets.

References: Han et al., "Learning both weights and connections", NIPS 2015; the gradual schedule is
Zhu, Gupta, "To prune, or not to prune", 2017.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from keras import ops

from tfprune.maths.spec import WeightSpec
from tfprune.maths.targets import Sparsity
from tfprune.method import Scored, register

Tensor = Any


@register
@dataclasses.dataclass(frozen=True)
class Magnitude(Scored):
    """Keep the weights of largest magnitude: `mask = |w| among the largest (1 - sparsity) * n`.

    The forward pass uses `mask * w`; the gradient reaches every weight (d effective / d w = 1), so
    a pruned weight that grows again comes back at the next update.

    Args:
        target_sparsity: final fraction of zeros in [0, 1); sets the default schedule, a
            `PolynomialDecay` from 0. Without it the schedule alone says how sparse, 0.5 by default.
        scope: "layer" gives every weight tensor that sparsity; "global" ranks all weights of all
            layers together, so that layers that matter keep more.

    Raises:
        ValueError, TypeError: for settings out of range.

    Differs from the paper: Han et al. mask the gradient too; here pruned weights keep learning, as
    in `NetworkSurgery`.
    """

    target_sparsity: float | None = None
    scope: str = "layer"

    def __post_init__(self) -> None:
        Sparsity(self.target_sparsity, self.scope)

    @property
    def target(self) -> Sparsity:
        """`target_sparsity`, of each weight or of all together."""
        return Sparsity(self.target_sparsity, self.scope)

    def score(self, latent: Tensor, spec: WeightSpec) -> Tensor:
        """|w|."""
        return ops.abs(latent)
