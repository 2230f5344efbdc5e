"""Dynamic network surgery: prune what is small, splice back what grows again, on every iteration.

Reference: Y. Guo, A. Yao, Y. Chen, "Dynamic Network Surgery for Efficient DNNs", NIPS 2016.

    forward    y = layer(x; W * T)                                                  (eq. 1)
    gradient   W <- W - lr * dL/d(W * T)  for every weight, masked or not           (eq. 2)
    mask       T = 0 if |w| <= a;  T if a < |w| <= b;  1 if |w| > b                  (eq. 3)
    threshold  t = max(mu + c * std, 0),  a = 0.9 t,  b = 1.1 t
    when       with probability sigma(iter) = (1 + gamma * iter)^-power, until a stop

mu and std are the mean and standard deviation of |w| over the non-zero weights and biases of the
layer together, taken at the first update and kept from then on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tfprune.maths import masks
from tfprune.maths.checks import check_flag, check_target
from tfprune.maths.masks import HIGH, LOW, moments
from tfprune.maths.spec import LayerTensors, Update
from tfprune.maths.updates import layer_by_layer
from tfprune.method import register
from tfprune.methods._hysteresis import DynamicSchedule, ThresholdMethod

Tensor = Any


@keras.saving.register_keras_serializable(package="tfprune")
@dataclasses.dataclass(frozen=True)
class SurgerySchedule(DynamicSchedule):
    """The paper's timing: an update with probability `sigma(iter) = (1 + gamma * iter)^-power`.

    Args: those of `tfprune.methods._hysteresis.DynamicSchedule`, which says how they are read.
    """


@register
@dataclasses.dataclass(frozen=True)
class NetworkSurgery(ThresholdMethod):
    """Dynamic network surgery: hysteresis thresholds on |w|, dense gradients, splicing.

    The forward pass uses `T * w`; d(T * w)/dw is taken as 1, so the optimizer, its momentum and its
    decay act on every latent weight, and one that grows past the upper threshold is spliced back.

    Args:
        c: how far above the mean the threshold lies, in standard deviations; may be fractional and
            negative. A number, or {regular expression of layer names: number} (first match; 1.0
            where none does). The paper's LeNet-5 used 2, 3, 4, 2.5, its LeNet-300-100 5, 3, 3.
        target_sparsity: in [0, 1). Target mode: at each update `c` is solved so that after
            hysteresis exactly this fraction of the layer's weights is pruned (rising as the
            schedule says); the `c` in force is kept in the layer's state. Not together with `c`.
        prune_biases: mask the biases too, with the layer's one threshold, as the paper does.

    Raises:
        ValueError, TypeError: for settings out of range.

    Differs from the paper: target mode is tfprune's own. With hysteresis bonus `v = |w| / 0.9` for
    kept and `|w| / 1.1` for pruned weights, a weight stays exactly if t < v, so the threshold for a
    wanted count is an order statistic of v.
    """

    c: float | Mapping[str, float] | None = None
    target_sparsity: float | None = None
    prune_biases: bool = True

    def __post_init__(self) -> None:
        check_target(self.target_sparsity)
        if self.c is not None and self.target_sparsity is not None:
            raise ValueError(
                "Give `c` (the paper's way) or `target_sparsity` (solves for c), not both. "
                f"Received: c={self.c!r}, target_sparsity={self.target_sparsity!r}."
            )
        self.check_c()
        check_flag("prune_biases", self.prune_biases)

    def schedule(self) -> SurgerySchedule:
        """The paper's schedule over 70 % of the training; in target mode, with the ramp."""
        return SurgerySchedule(target_sparsity=self.target_sparsity)

    def update(
        self, layers: Sequence[LayerTensors], sparsities: Sequence[Tensor], due: Sequence[Tensor]
    ) -> list[Update]:
        """One surgery on each layer that is due: eq. 3 with a frozen threshold, or a solved one."""
        solve = self.target_sparsity is not None
        return layer_by_layer(layers, sparsities, due, _solve if solve else self._cut)

    def _cut(self, layer: LayerTensors, sparsity: Tensor) -> Update:
        """Eq. 3 with the threshold of the first update."""
        c, frozen = self.c_of(layer), layer.state["threshold"]
        t = ops.cond(frozen < 0, lambda: first_threshold(layer, c), lambda: frozen)
        kept = {
            name: masks.hysteresis(ops.abs(w), layer.masks[name], LOW * t, HIGH * t)
            for name, w in layer.masked.items()
        }
        return kept, {"threshold": t, "c": ops.cast(c, "float32")}


def first_threshold(layer: LayerTensors, c: float) -> Tensor:
    """`max(mu + c * std, 0)` of the layer's weights as they are now."""
    mean, std = moments(list(layer.masked.values()))
    return ops.maximum(mean + c * std, 0.0)


def _solve(layer: LayerTensors, sparsity: Tensor) -> Update:
    """Keep the largest v; t is the largest that goes, and c what t amounts to."""
    values = {
        name: ops.abs(ops.cast(w, "float32")) / ops.where(layer.masks[name], LOW, HIGH)
        for name, w in layer.masked.items()
    }
    largest = masks.keep_largest_of_all(list(values.values()), sparsity)
    kept = dict(zip(values, largest, strict=True))
    threshold = masks.largest_pruned(kept, values)
    mean, std = moments(list(layer.masked.values()))
    return kept, {"threshold": threshold, "c": ops.divide_no_nan(threshold - mean, std)}
