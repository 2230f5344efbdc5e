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
from typing import Any, ClassVar

import keras
from keras import ops

from tfprune.maths import masks, transforms
from tfprune.maths.checks import (
    check_flag,
    check_not_negative,
    check_one_schedule,
    check_step,
    check_target,
)
from tfprune.maths.spec import LayerTensors, WeightSpec
from tfprune.method import Method, register
from tfprune.schedules import PruningSchedule

Tensor = Any
SCORES = ("strength", "entropy")


@keras.saving.register_keras_serializable(package="tfprune")
@dataclasses.dataclass(frozen=True)
class SynapticSchedule(PruningSchedule):
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
        check_target(self.target_sparsity)
        check_step("rounds", self.rounds, 1)
        super().__post_init__()

    def sparsity(self, step: int) -> float:
        """`target_sparsity` times the share of the rounds that are done."""
        return (self.target_sparsity or 0.0) * self._done(step) / self.rounds

    def _done(self, step: int) -> int:
        """How many rounds have begun."""
        return math.floor(self.progress(step) * self.rounds + 1e-9)

    def due(self, step: int, layer: int = 0) -> bool:
        """At the first update of each round."""
        if not super().due(step, layer):
            return False
        return step == self.end_step or self._done(step) > self._done(step - (self.frequency or 1))

    @property
    def final_target(self) -> float | None:
        """`target_sparsity`."""
        return self.target_sparsity


@register
@dataclasses.dataclass(frozen=True)
class SynapticStrength(Method):
    """One trainable strength per (input channel, output channel) kernel; the weakest go.

    Connections are ranked over all layers together. A depthwise kernel has one connection per
    output channel. In a 1x1 or dense kernel a connection is one weight, its direction the sign; in
    a dense kernel behind a Flatten it is all weights that read one channel of the map.

    Args:
        target_sparsity: fraction of all connections to prune, in [0, 1).
        lam: >= 0, the weight of the L1 penalty on strengths, until the last pruning. The layers'
            own regularizers act on the directions V, where decay leaves the function as it is; an
            optimizer's `weight_decay` would also shrink strengths.
        score_by: "strength": |s|. "entropy": ln(2 pi e var) / 2, var that of the kernel's entries
            (ranked by var, which is the same order; s^2 in kernels of one entry).
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
    masked: ClassVar[str] = "strength"
    folds_scales = True
    scope = "global"

    def __post_init__(self) -> None:
        check_target(self.target_sparsity)
        check_not_negative("lam", self.lam)
        if self.score_by not in SCORES:
            raise ValueError(
                f"`score_by` must be one of {', '.join(SCORES)}. Received: {self.score_by!r}."
            )
        for name in ("keep_ends", "regrow"):
            check_flag(name, getattr(self, name))

    def default_schedule(self) -> SynapticSchedule:
        """Prune once, after 60 % of the training."""
        return SynapticSchedule(0.5 if self.target_sparsity is None else self.target_sparsity)

    def leave_out(self, paths: Sequence[str]) -> set[str]:
        """The first and the last layer, where there are others."""
        return {paths[0], paths[-1]} if self.keep_ends and len(paths) > 2 else set()

    def check_layers(
        self, paths: Sequence[str], schedules: Sequence[Any], specs: Sequence[Any]
    ) -> None:
        """One schedule for all layers."""
        check_one_schedule(schedules, "With SynapticStrength all layers share one threshold")

    def encode(self, weight: Tensor, spec: WeightSpec) -> dict[str, Tensor]:
        """V = K, s = ||K|| of each connection, [cin, cout], float32 at least.

        Where K = 0, V has equal entries of norm 1, so that the gradient reaches s = 0.
        """
        kernel = transforms.canonical(weight, spec)
        norm = _norm(kernel)
        flat = ops.full_like(kernel, transforms.size(spec) ** -0.5)
        direction = ops.where(norm[None] > 0, kernel, flat)
        return {"direction": transforms.from_canonical(direction, spec), "strength": norm}

    def decode(self, latents: Mapping[str, Tensor], spec: WeightSpec) -> Tensor:
        """K = s V / ||V||; 0 where V is."""
        direction = transforms.canonical(latents["direction"], spec)
        norm = _norm(direction)
        unit = ops.cast(direction, norm.dtype) / ops.where(norm > 0, norm, ops.ones_like(norm))
        kernel = ops.cast(latents["strength"], norm.dtype) * unit
        return transforms.from_canonical(ops.cast(kernel, direction.dtype), spec)

    def rounding(self, specs: Sequence[Mapping[str, WeightSpec]]) -> float:
        """Half a connection, of those of all layers."""
        shapes = [transforms.canonical_shape(spec) for layer in specs for spec in layer.values()]
        return 0.5 / max(sum(cin * cout for _, cin, cout in shapes), 1)

    def penalty(self, latent: Tensor, spec: WeightSpec) -> Tensor | None:
        """lam * sum |s|."""
        return self.lam * ops.sum(ops.abs(latent))

    def score(self, latent: Tensor, spec: WeightSpec) -> Tensor:
        """|s|."""
        return ops.abs(latent)

    def update_network(
        self, layers: Sequence[LayerTensors], sparsities: Sequence[Tensor], due: Sequence[Tensor]
    ) -> list[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """The weakest connections of all layers go, by one percentile."""
        scores = [self._score(layer, name) for layer in layers for name in layer.specs]
        return masks.ranked_together(layers, scores, sparsities[0], due)

    def _score(self, layer: LayerTensors, name: str) -> Tensor:
        score = ops.abs(ops.cast(layer.latents[name], "float32"))
        if self.score_by == "entropy" and transforms.size(layer.specs[name]) == 1:
            score = ops.square(score)
        elif self.score_by == "entropy":
            kernel = self.decode(layer.others[name], layer.specs[name])
            entries = ops.cast(transforms.canonical(kernel, layer.specs[name]), "float32")
            score = ops.var(entries, axis=0)
        return score if self.regrow else ops.where(layer.masks[name], score, ops.zeros_like(score))


def _norm(kernel: Tensor) -> Tensor:
    """||K|| of each connection of a [k, cin, cout] kernel, float32 at least; gradient 0 at 0.

    Over the largest entry, m ||K / m||, since squares leave the range of float32 early.
    """
    kernel = ops.multiply(kernel, ops.ones((), "float32"))  # float16 and bfloat16 become float32
    largest = ops.stop_gradient(ops.max(ops.abs(kernel), axis=0))
    largest = ops.where(largest > 0, largest, ops.ones_like(largest))
    squares = ops.sum(ops.square(kernel / largest), axis=0)
    safe = ops.where(squares > 0, squares, ops.ones_like(squares))
    return largest * ops.where(squares > 0, ops.sqrt(safe), ops.zeros_like(squares))
