"""What the methods with hysteresis thresholds share: their timing, and `c`.

    threshold  t = max(mu + c * std, 0),  a = 0.9 t,  b = 1.1 t
    mask       0 if |w| <= a;  as it is if a < |w| <= b;  1 if |w| > b
    when       with probability sigma(iter) = (1 + gamma * iter)^-power, until a stop

Reference: Guo, Yao, Chen, NIPS 2016, eq. 3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfprune.maths.checks import (
    check_fits,
    check_not_negative,
    check_number,
    check_pattern,
    check_step,
    per_layer,
)
from tfprune.maths.piecewise import Ramp
from tfprune.maths.spec import UNSET, LayerTensors
from tfprune.maths.targets import Outcome, Sparsity, Target
from tfprune.method import Method
from tfprune.schedules import TargetedSchedule


@dataclasses.dataclass(frozen=True)
class DynamicSchedule(TargetedSchedule):
    """An update with probability `sigma(iter) = (1 + gamma * iter)^-power`, until a stop.

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
            if name != "gamma" or value is not None:
                check_not_negative(name, value)
        if self.ramp > 1:
            raise ValueError(f"`ramp` must be in [0, 1]. Received: {self.ramp!r}.")
        check_step("seed", self.seed)
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

    def curve(self, target: float) -> Ramp:
        """Cubic over the first `ramp` of the span."""
        return Ramp(0.0, target, span=self.ramp)


class ThresholdMethod(Method):
    """Base of methods whose `c` sets hysteresis thresholds, or which solve for them.

    A subclass is a dataclass with the fields `c` and `target_sparsity`.
    """

    c: float | Mapping[str, float] | None
    target_sparsity: float | None

    def check_c(self) -> None:
        """Raise unless `c` is None, a number, or {regular expression: number}."""
        values = self.c.values() if isinstance(self.c, Mapping) else [self.c]
        for value in values:
            if value is not None:
                check_number("c", value)
        if isinstance(self.c, Mapping):
            if not self.c:
                raise ValueError("`c` must not be an empty dict. Received: {}.")
            for pattern in self.c:
                check_pattern("c", pattern)
            object.__setattr__(self, "c", dict(self.c))

    @property
    def target(self) -> Target:
        """`target_sparsity` of each layer; without it thresholds decide."""
        if self.target_sparsity is not None:
            return Sparsity(self.target_sparsity)
        return Outcome(None if self.c is None else "c")

    def check_layers(self, paths: Sequence[str]) -> None:
        """Every regular expression in `c` must fit one of the layers."""
        check_fits("c", self.c, paths)

    def c_of(self, layer: LayerTensors) -> float:
        """The c of a layer: of the first pattern that fits its path, 1 where none does."""
        return per_layer(1.0 if self.c is None else self.c, layer.name, 1.0)

    def state(self, specs: Mapping[str, Any]) -> dict[str, Any]:
        """The threshold t, -1 until the first update, and the c that goes with it."""
        return {"threshold": UNSET, "c": 0.0}
