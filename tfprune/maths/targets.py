"""What a method is asked to reach, over which layers together, and what was reached.

| target | asked for | over |
|---|---|---|
| Sparsity | a fraction of pruned mask elements | each layer, or all together |
| Compression | weights and biases over those that are kept | all together |
| Speedup | multiply-adds over those that are kept | all together |
| Outcome | nothing: thresholds decide, sparsity is an outcome | each layer |
| Tolerance | the largest threshold that the validation loss allows | all together |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfprune.maths import dct_macs
from tfprune.maths.checks import check_not_negative, check_number, check_sparsity
from tfprune.maths.spec import WeightSpec

Specs = Sequence[Mapping[str, WeightSpec]]
SCOPES = ("layer", "global")


@dataclasses.dataclass(frozen=True)
class Target:
    """Base class.

    Attributes:
        sparsity: what a schedule has to end with, in [0, 1); None where nothing is asked.
        scope: "layer" or "global", whether layers reach it one by one or together.
    """

    @property
    def sparsity(self) -> float | None:
        """None: nothing is asked."""
        return None

    @property
    def scope(self) -> str:
        """Each layer by itself."""
        return "layer"

    def check(self, specs: Specs) -> None:
        """Raise ValueError if some layers cannot reach the target together."""

    def cost(self, spec: WeightSpec, sizes: np.ndarray) -> np.ndarray:
        """Cost of keeping groups of `sizes` weights each; by default their number."""
        return sizes

    def budget(self, specs: Specs, total: float, sparsity: Any) -> Any:
        """Cost that may be kept while the schedule asks for `sparsity`, of `total` for all."""
        return (1 - sparsity) * total

    def achieved(self, specs: Specs, masks: Sequence[Mapping[str, Any]]) -> float:
        """The sparsity that some layers have, from their masks as NumPy arrays."""
        arrays = [np.asarray(mask) for layer in masks for mask in layer.values()]
        kept = sum(int(mask.sum()) for mask in arrays)
        return 1 - kept / max(sum(mask.size for mask in arrays), 1)

    def rounding(self, groups: Sequence[np.ndarray]) -> float:
        """How far from the target the nearest sparsity that can be reached may lie.

        Args:
            groups: for each mask, the costs of what is pruned together.
        """
        largest = max((group.max(initial=0) for group in groups), default=0)
        total = float(sum(group.sum() for group in groups))
        return 0.5 * float(max(len(groups), largest)) / max(total, 1.0)


@dataclasses.dataclass(frozen=True)
class Sparsity(Target):
    """A fraction of zeros in the masks.

    Args:
        value: in [0, 1); None where the schedule says it.
        over: "layer", or "global" for one ranking of all layers.
    """

    value: float | None = None
    over: str = "layer"

    def __post_init__(self) -> None:
        if self.value is not None:
            check_sparsity("target_sparsity", self.value)
        if self.over not in SCOPES:
            raise ValueError(f'`scope` must be "layer" or "global". Received: {self.over!r}.')

    @property
    def sparsity(self) -> float | None:
        """`value`."""
        return self.value

    @property
    def scope(self) -> str:
        """`over`."""
        return self.over


@dataclasses.dataclass(frozen=True)
class _Ratio(Target):
    """What is counted, over what is kept of it, for all layers together."""

    ratio: float

    @property
    def sparsity(self) -> float:
        """1 - 1 / ratio."""
        return 1 - 1 / self.ratio

    @property
    def scope(self) -> str:
        """All layers together."""
        return "global"


@dataclasses.dataclass(frozen=True)
class Compression(_Ratio):
    """Weights and biases of all layers over those that are kept, a ratio above 1."""

    def __post_init__(self) -> None:
        _check_ratio("target_compression", self.ratio)


@dataclasses.dataclass(frozen=True)
class Speedup(_Ratio):
    """Multiply-adds of all layers over those that are kept, the inputs' DCT among them; above 1."""

    def __post_init__(self) -> None:
        _check_ratio("target_speedup", self.ratio)

    def check(self, specs: Specs) -> None:
        """Raise ValueError where what no mask saves costs too much already."""
        dct_macs.left_for_weights(specs, self.ratio)

    def cost(self, spec: WeightSpec, sizes: np.ndarray) -> np.ndarray:
        """Multiply-adds."""
        return sizes * dct_macs.per_weight(spec)

    def budget(self, specs: Specs, total: float, sparsity: Any) -> Any:
        """Multiply-adds for kept weights: at first all, in the end what the speed-up leaves."""
        final = dct_macs.left_for_weights(specs, self.ratio)
        return total + (final - total) * sparsity / self.sparsity

    def achieved(self, specs: Specs, masks: Sequence[Mapping[str, Any]]) -> float:
        """The fraction of multiply-adds that is saved."""
        return 1 - dct_macs.sparse(specs, masks) / dct_macs.dense(specs)


@dataclasses.dataclass(frozen=True)
class Outcome(Target):
    """No target: thresholds decide.

    Args:
        setting: name of the setting that the user gave; None for a default, which a schedule that
            asks for a sparsity overrules.
    """

    setting: str | None = None


@dataclasses.dataclass(frozen=True)
class Tolerance(Outcome):
    """The largest threshold that keeps the validation loss within (1 + value) of what it was.

    Args:
        value: >= 0.
    """

    value: float = 0.0
    setting: str | None = "tolerance"

    def __post_init__(self) -> None:
        check_not_negative("tolerance", self.value)


def _check_ratio(name: str, value: Any) -> None:
    if check_number(name, value) <= 1:
        raise ValueError(f"`{name}` must be above 1. Received: {value!r}.")
