"""Dynamic network surgery: prune what is small, splice back what grows again, on every iteration.

Reference: Y. Guo, A. Yao, Y. Chen, "Dynamic Network Surgery for Efficient DNNs", NIPS 2016.

    forward    y = layer(x; W * T)                                                  (eq. 1)
    gradient   W <- W - lr * dL/d(W * T)  for every entry, masked or not            (eq. 2)
    mask       T = 0 if |w| <= a;  T if a < |w| <= b;  1 if |w| > b                  (eq. 3)
    threshold  t = max(mu + c * std, 0),  a = 0.9 t,  b = 1.1 t
    when       with probability sigma(iter) = (1 + gamma * iter)^-power, until a stop

mu and std are the mean and standard deviation of |w| over the non-zero weights and biases of the
layer together, taken at the first update and kept from then on.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune import masks
from tfprune.checks import check_number, check_step
from tfprune.method import (
    LayerTensors,
    Method,
    WeightSpec,
    check_target,
    final_sparsity,
    per_layer,
    register,
)
from tfprune.schedules import PruningSchedule

Tensor = Any
LOW, HIGH = 0.9, 1.1
UNSET = -1.0


@keras.saving.register_keras_serializable(package="tfprune")
@dataclasses.dataclass(frozen=True)
class SurgerySchedule(PruningSchedule):
    """The paper's timing: an update with probability `sigma(iter) = (1 + gamma * iter)^-power`.

    `iter` counts optimizer steps from `begin_step`. There is one uniform draw per layer and step,
    a function of (seed, layer number, step) alone, so a resumed run draws as the unbroken one.
    The first update falls on `begin_step` and, so that the end is defined, one on `end_step`.

    Args:
        gamma: >= 0, per step. None: 1.4 / (end_step - begin_step), as the paper's 1e-4 to 14000.
        power: >= 0.
        begin_step, end_step: first and last step at which masks may change; the paper's iter_stop
            is `end_step`. None: by `begin_fraction`, `end_fraction` of the training.
        frequency: draw only at every n-th step, >= 1; the paper's 1 by default.
        seed: of the draws, >= 0.
        target_sparsity, ramp: for methods in target mode: the sparsity asked for rises from 0 to
            `target_sparsity` over the first `ramp` of the span, as the cubic `PolynomialDecay`.

    Differs from the paper: there is a last update on `end_step`, certain rather than drawn.
    """

    gamma: float | None = None
    power: float = 1.0
    begin_step: int | None = None
    end_step: int | None = None
    frequency: int | None = 1
    begin_fraction: float = 0.0
    end_fraction: float = 0.7
    seed: int = 0
    target_sparsity: float | None = None
    ramp: float = 0.5

    def __post_init__(self) -> None:
        for name in ("gamma", "power", "ramp"):
            value = getattr(self, name)
            optional = name == "gamma" and value is None
            if not optional and check_number(name, value) < 0:
                raise ValueError(f"`{name}` must not be negative. Received: {value!r}.")
        if self.ramp > 1:
            raise ValueError(f"`ramp` must be in [0, 1]. Received: {self.ramp!r}.")
        check_step("seed", self.seed)
        check_target(self.target_sparsity)
        super().__post_init__()

    def probability(self, step: int) -> float:
        """sigma at optimizer step `step`, in (0, 1]."""
        span = max((self.end_step or 0) - (self.begin_step or 0), 1)
        gamma = 1.4 / span if self.gamma is None else self.gamma
        return float((1 + gamma * max(step - (self.begin_step or 0), 0)) ** -self.power)

    def draw(self, step: int, layer: int) -> float:
        """The uniform draw in [0, 1) of a layer at a step."""
        return float(np.random.default_rng((self.seed, layer, step)).random())

    def due(self, step: int, layer: int = 0) -> bool:
        """Whether the draw of that layer at that step falls below sigma."""
        possible = super().due(step, layer)
        if not possible or step == self.end_step:
            return possible
        return self.draw(step, layer) < self.probability(step)

    def sparsity(self, step: int) -> float:
        """The sparsity asked for in target mode; 0 where there is no target."""
        if self.target_sparsity is None:
            return 0.0
        risen = min(self.progress(step) / self.ramp, 1.0) if self.ramp else 1.0
        return self.target_sparsity * (1 - (1 - risen) ** 3)

    @property
    def final_target(self) -> float | None:
        """`target_sparsity`."""
        return self.target_sparsity


@register
@dataclasses.dataclass(frozen=True)
class NetworkSurgery(Method):
    """Dynamic network surgery: hysteresis thresholds on |w|, dense gradients, splicing.

    The forward pass uses `T * w`; d(T * w)/dw is taken as 1, so the optimizer, its momentum and its
    decay act on every latent weight, and one that grows past the upper threshold is spliced back.

    Args:
        c: how far above the mean the threshold lies, in standard deviations; may be fractional and
            negative. A number, or {regular expression of layer names: number} (first match; 1.0
            where none does). The paper's LeNet-5 used 2, 3, 4, 2.5, its LeNet-300-100 5, 3, 3.
        target_sparsity: in [0, 1). Target mode: at each update `c` is solved so that after
            hysteresis exactly this fraction of the layer's entries is pruned (rising as the
            schedule says); the `c` in force is kept in the layer's state. Not together with `c`.
        prune_biases: mask the biases too, with the layer's one threshold, as the paper does.

    Raises:
        ValueError, TypeError: for settings out of range.

    Differs from the paper: target mode is tfprune's own. With hysteresis bonus `v = |w| / 0.9` for
    kept and `|w| / 1.1` for pruned entries, an entry stays exactly if t < v, so the threshold for a
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
        values = self.c.values() if isinstance(self.c, Mapping) else [self.c]
        for value in values:
            if value is not None:
                check_number("c", value)
        if not isinstance(self.prune_biases, bool):
            raise TypeError(
                f"`prune_biases` must be True or False. Received: {self.prune_biases!r}."
            )
        if isinstance(self.c, Mapping):
            if not self.c:
                raise ValueError("`c` must not be an empty dict. Received: {}.")
            for pattern in self.c:
                _check_pattern(pattern)
            object.__setattr__(self, "c", dict(self.c))

    def adopt(self, schedule: Any) -> tuple[Method, Any]:
        """Thresholds need no sparsity; a schedule that asks for one turns on target mode.

        Raises:
            ValueError: if a schedule asks for a sparsity although `c` is given, or for another one.
        """
        asked = final_sparsity(schedule)
        if self.target_sparsity is None and asked is None:
            return self, schedule
        if self.c is not None:
            raise ValueError(
                "With `c`, thresholds decide how sparse a layer gets: use SurgerySchedule without "
                f"`target_sparsity`. Received: c={self.c!r}, schedule={schedule!r}."
            )
        if self.target_sparsity is None:
            return dataclasses.replace(self, target_sparsity=asked), schedule
        return super().adopt(schedule)

    def check_layers(self, paths: Sequence[str], schedules: Sequence[Any]) -> None:
        """Every regular expression in `c` must fit one of the layers."""
        for pattern in self.c if isinstance(self.c, Mapping) else ():
            if not any(re.search(pattern, path) for path in paths):
                raise ValueError(
                    f"Every key of `c` must fit a layer; {pattern!r} fits none of {list(paths)}."
                )

    def default_schedule(self) -> SurgerySchedule:
        """The paper's schedule over 70 % of the training; in target mode, with the ramp."""
        return SurgerySchedule(target_sparsity=self.target_sparsity)

    def state(self, specs: Mapping[str, WeightSpec]) -> dict[str, float]:
        """The threshold t, -1 until the first update, and the c that goes with it."""
        return {"threshold": UNSET, "c": 0.0}

    def update_layer(
        self, layer: LayerTensors, sparsity: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One surgery on one layer: eq. 3 with the frozen threshold, or the solved one."""
        if self.target_sparsity is not None:
            return self._solve(layer, sparsity)
        c = per_layer(1.0 if self.c is None else self.c, layer.name, 1.0)
        frozen = layer.state["threshold"]
        threshold = ops.cond(frozen < 0, lambda: first_threshold(layer, c), lambda: frozen)
        kept = {
            name: masks.hysteresis(
                ops.abs(latent), layer.masks[name], LOW * threshold, HIGH * threshold
            )
            for name, latent in layer.latents.items()
        }
        return kept, {"threshold": threshold, "c": ops.cast(c, "float32")}

    def _solve(
        self, layer: LayerTensors, sparsity: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        values = [
            ops.abs(ops.cast(latent, "float32")) / ops.where(layer.masks[name], LOW, HIGH)
            for name, latent in layer.latents.items()
        ]
        kept = dict(zip(layer.latents, masks.keep_largest_of_all(values, sparsity), strict=True))
        pruned = [ops.where(kept[n], 0.0, v) for n, v in zip(layer.latents, values, strict=True)]
        threshold = ops.max(ops.stack([ops.max(v) for v in pruned]))
        mean, std = moments(list(layer.latents.values()))
        c = ops.divide_no_nan(threshold - mean, std)
        return kept, {"threshold": threshold, "c": c}


def _check_pattern(pattern: Any) -> None:
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ValueError(
            f"The keys of `c` must be regular expressions of layer names. Received: {pattern!r}."
        ) from error


def first_threshold(layer: LayerTensors, c: float) -> Tensor:
    """`max(mu + c * std, 0)` of the layer's weights as they are now."""
    mean, std = moments(list(layer.latents.values()))
    return ops.maximum(mean + c * std, 0.0)


def moments(tensors: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of |w| over the non-zero entries of all tensors together.

    Returns:
        Two float32 scalars; both 0 where every entry is zero.
    """
    flat = ops.concatenate([ops.abs(ops.cast(ops.reshape(t, (-1,)), "float32")) for t in tensors])
    count = ops.sum(ops.cast(flat > 0, "float32"))
    mean = ops.divide_no_nan(ops.sum(flat), count)
    deviation = ops.where(flat > 0, flat - mean, 0.0)
    return mean, ops.sqrt(ops.divide_no_nan(ops.sum(ops.square(deviation)), count))
