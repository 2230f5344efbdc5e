"""Sensitivity-driven regularisation: weights to which the outputs are insensitive shrink and go.

Reference: E. Tartaglione, S. Lepsoy, A. Fiandrotti, G. Francini, "Learning Sparse Neural Networks
via Sensitivity-Driven Regularization", NeurIPS 2018.

    sensitivity    S = sum_k alpha_k |d y_k / d w|                                  (eq. 4 to 6)
    insensitivity  Sb = max(0, 1 - S)
    update         w <- w - lr * dL/dw - lam * w * Sb        (lam is not scaled by lr)
    threshold      w <- 0 where |w| <= T, after each epoch, for good
    fine-tuning    after the schedule's last step masks stay and lam is 0

The update is that of the regulariser R(w) = integral of w * Sb dw. In a net with ReLUs, y is
piecewise linear in each single weight, S does not depend on w there, and R = (1 - S) w^2 / 2 where
S < 1: weight decay of a strength of its own for every weight. With other activations (tanh, the
gates of an LSTM) S depends on w, that closed form does not hold, and the update is used as it is.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune.maths import masks
from tfprune.maths.checks import (
    check_at_most_one,
    check_flag,
    check_number,
    check_step,
)
from tfprune.maths.piecewise import Ramp, at_progress, check_points
from tfprune.maths.spec import UNSET, LayerTensors, Update, WeightSpec
from tfprune.maths.targets import Outcome, Sparsity, Target, Tolerance
from tfprune.maths.updates import layer_by_layer
from tfprune.method import Method, register
from tfprune.needs import Need, OutputSensitivity, ValidationLoss
from tfprune.schedules import TargetedSchedule

Tensor = Any
BISECTIONS = 14


@keras.saving.register_keras_serializable(package="tfprune")
@dataclasses.dataclass(frozen=True)
class SensitivitySchedule(TargetedSchedule):
    """The paper's timing: thresholds after each epoch; what follows `end_step` is fine-tuning.

    Args:
        begin_step, end_step: first and last step at which masks may change. None: by fractions.
        frequency: steps between updates; None: one epoch, where its length is known.
        begin_fraction, end_fraction: of the training.
        target_sparsity, power: for methods in target mode: the sparsity asked for rises from 0 to
            `target_sparsity` as `PolynomialDecay`.
    """

    begin_step: int | None = None
    end_step: int | None = None
    frequency: int | None = None
    begin_fraction: float = 0.0
    end_fraction: float = 0.7
    target_sparsity: float | None = None
    power: float = 3.0

    def __post_init__(self) -> None:
        if check_number("power", self.power) <= 0:
            raise ValueError(f"`power` must be positive. Received: {self.power!r}.")
        super().__post_init__()

    def plan(self, total_steps: int, epoch_steps: int | None = None) -> SensitivitySchedule:
        """Place one update an epoch, where the length of an epoch is known."""
        if self.frequency is None and epoch_steps is not None:
            return dataclasses.replace(self, frequency=epoch_steps).plan(total_steps)
        return super().plan(total_steps)

    def due(self, step: int, layer: int = 0) -> bool:
        """After each epoch, so not at the first step, unless there is no other."""
        first = step == self.begin_step and self.begin_step != self.end_step
        return super().due(step, layer) and not first

    def curve(self, target: float) -> Ramp:
        """A polynomial of the given power."""
        return Ramp(0.0, target, self.power)


@register
@dataclasses.dataclass(frozen=True)
class SensitivityDriven(Method):
    """Shrink each weight the more, the less sensitive the outputs are to it; cut what became small.

        w <- w - lam * w * max(0, 1 - S)   after the optimizer's own step, of any optimizer
        mask = mask * (|w| > T)            zeros stay

    Where an optimizer accumulates gradients, S is that of the last batch of each step. Frozen
    weights are not shrunk.

    Args:
        lam: >= 0, not multiplied by the learning rate. A number, or [(progress, value), ...]:
            straight lines between these, from 0 at the schedule's first step to 1 at its last.
            Outside the schedule it is 0.
        kind: "unspecific" (all outputs alike) or "specific" (the target class of each example).
        threshold: T >= 0, applied at each update of the schedule (an epoch by default). A number,
            or [(progress, value), ...] as `lam`: a T that grows prunes much more.
        tolerance: >= 0. T is chosen instead: whenever the validation loss has not fallen for
            `patience` epochs, the largest T that keeps it within (1 + tolerance) of its value is
            found by bisection. Needs `PruningCallback(validation_data=...)`.
        patience: epochs, >= 1.
        target_sparsity: in [0, 1). T is chosen instead: each layer keeps its largest weights to
            the sparsity that the schedule asks for.
        classes, every, per_sample: how S is measured (`tfprune.needs.OutputSensitivity`).
        prune_biases: shrink and cut the biases too.

    At most one of `threshold`, `tolerance`, `target_sparsity` is given; 1e-3 is the default T.

    Raises:
        ValueError, TypeError: for settings out of range.

    Differs from the paper: unspecific S is estimated from one output a step, drawn at random, whose
    mean is S (`classes=None` measures it in full); tolerance and target are not the paper's.
    The order (mean over the batch, then the absolute value; after the optimizer's step; zeros for
    good) is that of the authors' later code. The paper keeps lam to the end and T constant.
    """

    lam: float | Sequence[tuple[float, float]] = 1e-4
    kind: str = "unspecific"
    threshold: float | Sequence[tuple[float, float]] | None = None
    tolerance: float | None = None
    patience: int = 5
    target_sparsity: float | None = None
    classes: int | None = 1
    every: int = 1
    per_sample: bool = False
    prune_biases: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "lam", check_points("lam", self.lam))
        if self.threshold is not None:
            object.__setattr__(self, "threshold", check_points("threshold", self.threshold))
        check_at_most_one(self, ("threshold", "tolerance", "target_sparsity"))
        check_step("patience", self.patience, 1)
        check_flag("prune_biases", self.prune_biases)
        _ = self.target, self.needs  # check the settings that they take

    @property
    def target(self) -> Target:
        """The tolerance, `target_sparsity` of each layer, or none: T decides."""
        if self.tolerance is not None:
            return Tolerance(value=self.tolerance)
        if self.target_sparsity is not None:
            return Sparsity(self.target_sparsity)
        return Outcome(None if self.threshold is None else "threshold")

    @property
    def needs(self) -> tuple[Need, ...]:
        """The sensitivity of the outputs; with a tolerance, the validation loss too."""
        signal = OutputSensitivity(self.kind, self.classes, self.every, self.per_sample)
        return (signal,) if self.tolerance is None else (signal, ValidationLoss())

    def after_step(
        self, latent: Tensor, mask: Tensor, signal: Tensor, progress: Tensor, spec: WeightSpec
    ) -> Tensor:
        """w - lam * w * max(0, 1 - S), with lam for the steps that one measurement stands for."""
        running = ops.logical_and(progress >= 0, progress <= 1)
        rate = ops.where(running, at_progress(self.lam, progress) * self.every, 0.0)
        kept = 1 - rate * ops.relu(1 - ops.cast(signal, "float32"))
        return latent * ops.cast(kept, latent.dtype)

    def schedule(self) -> SensitivitySchedule:
        """After each epoch over the first 70 % of the training; the rest is fine-tuning."""
        return SensitivitySchedule(target_sparsity=self.target_sparsity)

    def state(self, specs: Mapping[str, WeightSpec]) -> dict[str, Any]:
        """The last T, the best validation loss since it (-1: none), epochs without a better one."""
        return {"threshold": 0.0, "best": UNSET, "waited": 0.0}

    def update(
        self, layers: Sequence[LayerTensors], sparsities: Sequence[Tensor], due: Sequence[Tensor]
    ) -> list[Update]:
        """What has become small goes, for good; with a tolerance, only `update_on_validation`."""
        if self.tolerance is not None:
            return [layer.unchanged for layer in layers]
        targeted = self.target_sparsity is not None
        return layer_by_layer(layers, sparsities, due, _to_sparsity if targeted else self._cut)

    def _cut(self, layer: LayerTensors, sparsity: Tensor) -> Update:
        """Prune up to T, or the T of this progress."""
        setting = 1e-3 if self.threshold is None else self.threshold
        threshold = at_progress(setting, layer.progress)
        return _above(layer, threshold), {**layer.state, "threshold": threshold}

    def update_on_validation(
        self, layers: Sequence[LayerTensors], loss_of: Callable[[list[dict[str, Any]]], float]
    ) -> list[Update]:
        """The largest T within the tolerance, at a plateau; the same for all layers."""
        now = [dict(layer.masks) for layer in layers]
        loss = loss_of(now)
        state = {name: float(np.asarray(v)) for name, v in layers[0].state.items()}
        if state["best"] == UNSET or loss < state["best"]:
            state |= {"best": loss, "waited": 0.0}
        else:
            state["waited"] += 1
        if state["waited"] >= self.patience:
            bound = (1 + (self.tolerance or 0.0)) * loss
            now, state["threshold"] = self._largest(layers, loss_of, bound)
            state |= {"best": UNSET, "waited": 0.0}
        tensors = {name: ops.cast(value, "float32") for name, value in state.items()}
        return [(kept, dict(tensors)) for kept in now]

    def _largest(
        self, layers: Sequence[LayerTensors], loss_of: Callable[..., float], bound: float
    ) -> tuple[list[dict[str, Tensor]], float]:
        """Bisection in the logarithm of T, between the smallest and the largest weight alive."""
        tensors = [_alive(layer, name) for layer in layers for name in layer.specs]
        alive = np.concatenate([np.ravel(ops.convert_to_numpy(tensor)) for tensor in tensors])
        alive = alive[alive > 0]
        best, threshold = [dict(layer.masks) for layer in layers], 0.0
        if not alive.size:
            return best, threshold
        low, high = math.log(alive.min()), math.log(alive.max())
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            trial = [_above(layer, math.exp(middle)) for layer in layers]
            if loss_of(trial) <= bound:
                best, threshold, low = trial, math.exp(middle), middle
            else:
                high = middle
        return best, threshold


def _alive(layer: LayerTensors, name: str) -> Tensor:
    """|w| of what is kept, 0 elsewhere; float32."""
    magnitude = ops.abs(ops.cast(layer.masked[name], "float32"))
    return ops.where(layer.masks[name], magnitude, ops.zeros_like(magnitude))


def _to_sparsity(layer: LayerTensors, sparsity: Tensor) -> Update:
    """The largest weights of those alive; T is the largest that goes."""
    alive = {name: _alive(layer, name) for name in layer.masked}
    largest = masks.keep_largest_of_all(list(alive.values()), sparsity)
    pairs = zip(alive, largest, strict=True)
    kept = {name: ops.logical_and(layer.masks[name], mask) for name, mask in pairs}
    threshold = ops.maximum(layer.state["threshold"], masks.largest_pruned(kept, alive))
    return kept, {**layer.state, "threshold": threshold}


def _above(layer: LayerTensors, threshold: Any) -> dict[str, Tensor]:
    return {name: _alive(layer, name) > threshold for name in layer.masked}
