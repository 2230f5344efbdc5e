"""Sensitivity-driven regularisation: weights that the outputs do not feel are shrunk, then cut.

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
import itertools
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
    check_not_negative,
    check_number,
    check_step,
    check_target,
)
from tfprune.maths.spec import LayerTensors, WeightSpec
from tfprune.maths.thresholds import UNSET
from tfprune.method import Method, register
from tfprune.schedules import PruningSchedule, final_sparsity
from tfprune.signals import OutputSensitivity

Tensor = Any
BISECTIONS = 14


@keras.saving.register_keras_serializable(package="tfprune")
@dataclasses.dataclass(frozen=True)
class SensitivitySchedule(PruningSchedule):
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
        check_target(self.target_sparsity)
        if check_number("power", self.power) <= 0:
            raise ValueError(f"`power` must be positive. Received: {self.power!r}.")
        super().__post_init__()

    def plan(self, total_steps: int, epoch_steps: int | None = None) -> SensitivitySchedule:
        """With one update an epoch, where the length of an epoch is known."""
        if self.frequency is None and epoch_steps is not None:
            return dataclasses.replace(self, frequency=epoch_steps).plan(total_steps)
        return super().plan(total_steps)

    def due(self, step: int, layer: int = 0) -> bool:
        """After each epoch, so not at the first step, unless there is no other."""
        first = step == self.begin_step and self.begin_step != self.end_step
        return super().due(step, layer) and not first

    def sparsity(self, step: int) -> float:
        """The sparsity asked for in target mode; 0 where there is no target."""
        if self.target_sparsity is None:
            return 0.0
        return self.target_sparsity * (1 - (1 - self.progress(step)) ** self.power)

    @property
    def final_target(self) -> float | None:
        """`target_sparsity`."""
        return self.target_sparsity


@register
@dataclasses.dataclass(frozen=True)
class SensitivityDriven(Method):
    """Shrink each weight by how little the outputs feel it; cut what became small.

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
        classes, every, per_sample: how S is measured (`tfprune.signals.OutputSensitivity`).
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
        check_target(self.target_sparsity)
        object.__setattr__(self, "lam", _checked("lam", self.lam))
        if self.threshold is not None:
            object.__setattr__(self, "threshold", _checked("threshold", self.threshold))
        check_at_most_one(self, ("threshold", "tolerance", "target_sparsity"))
        if self.tolerance is not None:
            check_not_negative("tolerance", self.tolerance)
        check_step("patience", self.patience, 1)
        check_flag("prune_biases", self.prune_biases)
        OutputSensitivity(self.kind, self.classes, self.every, self.per_sample)

    @property
    def signals(self) -> tuple[Any, ...]:
        """The sensitivity of the outputs, by these settings."""
        return (OutputSensitivity(self.kind, self.classes, self.every, self.per_sample),)

    def after_step(
        self, latent: Tensor, mask: Tensor, signal: Tensor, progress: Tensor, spec: WeightSpec
    ) -> Tensor:
        """w - lam * w * max(0, 1 - S), with lam for the steps that one measurement stands for."""
        running = ops.logical_and(progress >= 0, progress <= 1)
        rate = ops.where(running, _at(self.lam, progress) * self.every, 0.0)
        kept = 1 - rate * ops.relu(1 - ops.cast(signal, "float32"))
        return latent * ops.cast(kept, latent.dtype)

    def adopt(self, schedule: Any) -> tuple[Method, Any]:
        """A schedule that asks for a sparsity turns on target mode.

        Raises:
            ValueError: if a schedule asks for a sparsity although a threshold or tolerance is
                given, or for another one.
        """
        asked = final_sparsity(schedule)
        if self.target_sparsity is None and asked is None:
            return self, schedule
        if self.threshold is not None or self.tolerance is not None:
            raise ValueError(
                "With `threshold` or `tolerance`, use a schedule without `target_sparsity`. "
                f"Received: {self!r}, {schedule!r}."
            )
        if self.target_sparsity is None:
            return dataclasses.replace(self, target_sparsity=asked), schedule
        return super().adopt(schedule)

    def default_schedule(self) -> SensitivitySchedule:
        """After each epoch over the first 70 % of the training; the rest is fine-tuning."""
        return SensitivitySchedule(target_sparsity=self.target_sparsity)

    @property
    def needs_validation(self) -> bool:  # type: ignore[override]
        """Whether thresholds are chosen by the validation loss."""
        return self.tolerance is not None

    def state(self, specs: Mapping[str, WeightSpec]) -> dict[str, Any]:
        """The last T, the best validation loss since it (-1: none), epochs without a better one."""
        return {"threshold": 0.0, "best": UNSET, "waited": 0.0}

    def update_layer(
        self, layer: LayerTensors, sparsity: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What has become small goes, for good."""
        if self.tolerance is not None:
            return dict(layer.masks), dict(layer.state)
        if self.target_sparsity is None:
            threshold = _at(1e-3 if self.threshold is None else self.threshold, layer.progress)
            kept = _above(layer, threshold)
        else:
            scores = [_alive(layer, name) for name in layer.latents]
            found = masks.keep_largest_of_all(scores, sparsity)
            pairs = zip(layer.latents, found, strict=True)
            kept = {name: ops.logical_and(layer.masks[name], mask) for name, mask in pairs}
            gone = [ops.max(ops.where(kept[n], 0.0, _alive(layer, n))) for n in kept]
            threshold = ops.maximum(layer.state["threshold"], ops.max(ops.stack(gone)))
        return kept, {**layer.state, "threshold": threshold}

    def update_on_validation(
        self, layers: Sequence[LayerTensors], loss_of: Callable[[list[dict[str, Any]]], float]
    ) -> list[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """At a plateau, the largest T within the tolerance, the same for all layers."""
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
        each = [_alive(layer, name) for layer in layers for name in layer.specs]
        alive = np.concatenate([np.ravel(ops.convert_to_numpy(one)) for one in each])
        alive = alive[alive > 0]
        best, found = [dict(layer.masks) for layer in layers], 0.0
        if not alive.size:
            return best, found
        low, high = math.log(alive.min()), math.log(alive.max())
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            trial = [_above(layer, math.exp(middle)) for layer in layers]
            if loss_of(trial) <= bound:
                best, found, low = trial, math.exp(middle), middle
            else:
                high = middle
        return best, found


def _alive(layer: LayerTensors, name: str) -> Tensor:
    """|w| of what is kept, 0 elsewhere; float32."""
    magnitude = ops.abs(ops.cast(layer.latents[name], "float32"))
    return ops.where(layer.masks[name], magnitude, ops.zeros_like(magnitude))


def _above(layer: LayerTensors, threshold: Any) -> dict[str, Tensor]:
    return {name: _alive(layer, name) > threshold for name in layer.latents}


def _at(setting: float | Sequence[tuple[float, float]], progress: Tensor) -> Tensor:
    """A setting at a progress in [0, 1], float32."""
    if not isinstance(setting, tuple):
        return ops.cast(setting, "float32")
    at = ops.cast(progress, "float32")
    value = ops.cast(setting[0][1], "float32")
    for (first, low), (last, high) in itertools.pairwise(setting):
        value = value + (high - low) * ops.clip((at - first) / (last - first), 0.0, 1.0)
    return value


def _checked(name: str, setting: Any) -> float | tuple[tuple[float, float], ...]:
    if not isinstance(setting, list | tuple):
        return check_not_negative(name, setting)
    points = tuple((check_number(name, at), check_number(name, value)) for at, value in setting)
    for at, value in points:
        check_not_negative(name, value)
        if not 0 <= at <= 1:
            raise ValueError(f"The places in `{name}` must be in [0, 1]. Received: {setting!r}.")
    if not points or any(a[0] >= b[0] for a, b in itertools.pairwise(points)):
        raise ValueError(f"The places in `{name}` must rise. Received: {setting!r}.")
    return points
