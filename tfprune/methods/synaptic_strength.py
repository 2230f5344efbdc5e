"""Synaptic strength: whole k x k kernels between channel pairs are pruned by one trainable number.

Reference: C. Lin, Z. Zhong, W. Wu, J. Yan, "Synaptic Strength For Convolutional Neural Network",
NeurIPS 2018.

    kernel      K_ik = s_ik * V_ik / ||V_ik||, from input channel i to output channel k
    start       s_ik = gamma_i * ||K_ik||, gamma_i the batch-normalization scale of channel i, V = K
    gradient    dL/ds = <dL/dK, V/||V||>,  dL/dV = s/||V|| (dL/dK - <dL/dK, V/||V||> V/||V||)
    loss        L + lam * sum |s_ik|, until the last pruning
    prune       s_ik = 0 below one percentile over all layers; then fine-tune with the mask

ReLU(g x + b) = g ReLU(x + b/g) for g > 0, so a scale can move from the normalization in front into
the kernels behind it, and be fixed to 1 there; the host does that where the graph allows it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tfprune.maths import transforms
from tfprune.maths.checks import check_flag, check_not_negative, check_step
from tfprune.maths.domains import Strengths
from tfprune.maths.spec import LayerTensors, WeightSpec
from tfprune.maths.targets import Sparsity
from tfprune.method import Scored, register
from tfprune.needs import FoldedScales
from tfprune.schedules import TargetedSchedule

Tensor = Any
SCORES = ("strength", "entropy")


@keras.saving.register_keras_serializable(package="tfprune")
@dataclasses.dataclass(frozen=True)
class SynapticSchedule(TargetedSchedule):
    """Train with the penalty, prune once or in rounds, fine-tune.

    The sparsity rises to `target_sparsity` in `rounds` equal steps between `begin_step` and
    `end_step`; the penalty ends with the last.

    Args:
        target_sparsity: fraction of connections to prune, in [0, 1); None: the method's.
        rounds: >= 1; one round prunes at `end_step`.
        begin_step, end_step, frequency: see `PruningSchedule`; a round takes effect at the first
            update that falls into it.
        begin_fraction, end_fraction: of the training.
    """

    target_sparsity: float | None = None
    rounds: int = 1
    begin_step: int | None = None
    end_step: int | None = None
    frequency: int | None = None
    begin_fraction: float = 0.3
    end_fraction: float = 0.6

    def __post_init__(self) -> None:
        check_step("rounds", self.rounds, 1)
        super().__post_init__()

    def sparsity(self, step: int) -> float:
        """`target_sparsity` times the share of the rounds that are done."""
        return (self.target_sparsity or 0.0) * self._done(step) / self.rounds

    def _done(self, step: int) -> int:
        """How many rounds have begun."""
        return math.floor(self.progress(step) * self.rounds + 1e-9)

    def due(self, step: int, layer: int = 0) -> bool:
        """Whether a round begins: its first update."""
        if not super().due(step, layer):
            return False
        return step == self.end_step or self._done(step) > self._done(step - (self.frequency or 1))


@register
@dataclasses.dataclass(frozen=True)
class SynapticStrength(Scored):
    """One trainable strength per (input channel, output channel) kernel; the weakest go.

    Connections are ranked over all layers together. A depthwise kernel has one connection per
    output channel. In a 1x1 or dense kernel a connection is one weight, its direction the sign; in
    a dense kernel behind a Flatten it is all weights that read one channel of the map.

    Args:
        target_sparsity: fraction of all connections to prune, in [0, 1).
        lam: >= 0, the weight of the L1 penalty on strengths, until the last pruning. The layers'
            own regularizers act on the directions V, where decay leaves the function as it is; an
            optimizer's `weight_decay` would also shrink strengths.
        score_by: "strength": |s|. "entropy": ln(2 pi e var) / 2, var that of the kernel's weights
            (ranked by var, which is the same order; s^2 in kernels of one weight).
        keep_ends: leave out the first and the last layer with a kernel, in the order of the whole
            model's layers, also where a dict assigns methods; not where `filters` select layers.
        regrow: pruned connections may come back at a later round.

    Raises:
        ValueError, TypeError: for settings out of range.

    Differs from the paper: a scale that is not positive, or that the graph does not let move (a
    residual sum, a sigmoid, readers that are not pruned, a layer that is called twice, a subclass
    of a Keras layer without `computes_as`, see `tfprune.strip`), stays where it is, gamma = 1, as
    does one below 1e-4 or a thousandth of its layer's largest, where b / g would swamp the sums.
    "entropy" and `regrow` are not the paper's.
    """

    target_sparsity: float | None = None
    lam: float = 1e-5
    score_by: str = "strength"
    keep_ends: bool = True
    regrow: bool = False

    def __post_init__(self) -> None:
        Sparsity(self.target_sparsity)
        check_not_negative("lam", self.lam)
        if self.score_by not in SCORES:
            raise ValueError(
                f"`score_by` must be one of {', '.join(SCORES)}. Received: {self.score_by!r}."
            )
        for name in ("keep_ends", "regrow"):
            check_flag(name, getattr(self, name))

    @property
    def domain(self) -> Strengths:
        """A strength and a direction of each connection."""
        return Strengths()

    @property
    def target(self) -> Sparsity:
        """`target_sparsity` of the connections of all layers together."""
        return Sparsity(self.target_sparsity, "global")

    @property
    def needs(self) -> tuple[FoldedScales]:
        """The scale of the normalization in front is part of a connection's strength."""
        return (FoldedScales(),)

    def schedule(self) -> SynapticSchedule:
        """Prune once, after 60 % of the training."""
        return SynapticSchedule(0.5 if self.target_sparsity is None else self.target_sparsity)

    def leave_out(self, paths: Sequence[str]) -> set[str]:
        """The first and the last layer, where there are others."""
        return {paths[0], paths[-1]} if self.keep_ends and len(paths) > 2 else set()

    def penalty(self, latents: Mapping[str, Tensor], spec: WeightSpec, progress: Tensor) -> Tensor:
        """lam * sum |s|, until the last pruning."""
        penalty = self.lam * ops.sum(ops.abs(latents["strength"]))
        return ops.where(progress < 1, penalty, ops.zeros_like(penalty))

    def scores(self, layer: LayerTensors) -> dict[str, Tensor]:
        """|s|, or the variance of each kernel; 0 where a connection is gone for good."""
        scores = {name: self._score(layer, name) for name in layer.specs}
        if self.regrow:
            return scores
        return {n: ops.where(layer.masks[n], s, ops.zeros_like(s)) for n, s in scores.items()}

    def _score(self, layer: LayerTensors, name: str) -> Tensor:
        strength = ops.abs(ops.cast(layer.masked[name], "float32"))
        if self.score_by == "strength":
            return strength
        if transforms.size(layer.specs[name]) == 1:
            return ops.square(strength)
        kernel = self.domain.decode(layer.latents[name], layer.specs[name])
        weights = ops.cast(transforms.canonical(kernel, layer.specs[name]), "float32")
        return ops.var(weights, axis=0)
