"""Magnitude pruning, the baseline: the smallest weights go, to a sparsity that a schedule sets.

References: Han et al., "Learning both weights and connections", NIPS 2015; the gradual schedule is
Zhu, Gupta, "To prune, or not to prune", 2017.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from keras import ops

from tfprune.maths import masks
from tfprune.maths.checks import check_one_schedule, check_target
from tfprune.maths.spec import LayerTensors, WeightSpec
from tfprune.method import Method, register
from tfprune.schedules import PolynomialDecay

Tensor = Any


@register
@dataclasses.dataclass(frozen=True)
class Magnitude(Method):
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
        check_target(self.target_sparsity)
        if self.scope not in ("layer", "global"):
            raise ValueError(f'`scope` must be "layer" or "global". Received: {self.scope!r}.')

    def default_schedule(self) -> PolynomialDecay:
        """From 0 to `target_sparsity`, or to 0.5 where there is none."""
        return PolynomialDecay(0.0, 0.5 if self.target_sparsity is None else self.target_sparsity)

    def check_layers(
        self, paths: Sequence[str], schedules: Sequence[Any], specs: Sequence[Any]
    ) -> None:
        """With `scope="global"`, one schedule for all layers."""
        if self.scope == "global":
            check_one_schedule(schedules, 'With scope="global" all layers share one threshold')

    def score(self, latent: Tensor, spec: WeightSpec) -> Tensor:
        """|w|."""
        return ops.abs(latent)

    def update_network(
        self, layers: Sequence[LayerTensors], sparsities: Sequence[Tensor], due: Sequence[Tensor]
    ) -> list[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Per layer, or with one threshold for all where `scope` is "global"."""
        if self.scope == "layer":
            return super().update_network(layers, sparsities, due)
        scores = [self.score(x.latents[name], x.specs[name]) for x in layers for name in x.specs]
        return masks.ranked_together(layers, scores, sparsities[0], due)
