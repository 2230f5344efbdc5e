"""A layer at a mask update, seen by groups and bands: magnitudes, thresholds, solved thresholds.

frozen     t = max(mu + c * std, 0) of the first update;  t_j = f_j * t
solved     an element stays exactly if t < v / f_j, v its magnitude after hysteresis: so the t
           for a wanted count is an order statistic of v / f_j, and the one c for a budget of
           all layers is one of (v / f_j - mu) / std
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from tfprune.maths import masks, transforms
from tfprune.maths.bands import BandFunction
from tfprune.maths.groups import Groups
from tfprune.maths.masks import HIGH, LOW, moments
from tfprune.maths.spec import LayerTensors, Update
from tfprune.maths.targets import Target

Tensor = Any
Tensors = dict[str, Tensor]
FACTORS = "_factors"  # of a weight's bands, in the layer's state


class BandedLayer:
    """One layer at an update; every dict has one item per pruned weight.

    Args:
        layer: the layer's tensors.
        band: how thresholds depend on the band; None: not at all.
        granularity: what is pruned together.

    Attributes:
        groups: how the weight is grouped.
        magnitudes: RMS of each group.
        kept: whether each group is kept so far.
    """

    def __init__(self, layer: LayerTensors, band: BandFunction | None, granularity: str) -> None:
        self.layer, self.band = layer, band
        self.groups = {n: Groups(s, granularity) for n, s in layer.specs.items()}
        self.magnitudes = {n: g.magnitude(layer.masked[n]) for n, g in self.groups.items()}
        self.kept = {n: g.of_mask(layer.masks[n]) for n, g in self.groups.items()}

    # -- three ways to new masks of one layer

    def by_threshold(self, c: float) -> Update:
        """Hysteresis at the threshold and factors of the first update."""
        state = self.layer.state
        t, factors = ops.cond(
            state["threshold"] < 0,
            lambda: (self._threshold(c), self._factors(self.magnitudes)),
            lambda: (state["threshold"], {n: state[n + FACTORS] for n in self.groups}),
        )
        kept = {}
        for name, magnitude in self.magnitudes.items():
            t_j = t * self._spread(name, factors[name])
            kept[name] = masks.hysteresis(magnitude, self.kept[name], LOW * t_j, HIGH * t_j)
        return self._update(kept, t, ops.cast(c, "float32"), factors)

    def by_bands(self) -> Update:
        """Thresholds that the band function solves for, on what hysteresis favours."""
        values = self._favoured()
        factors = self._factors(values)
        kept = {n: v > self._spread(n, factors[n]) for n, v in values.items()}
        return self._update(kept, ops.cast(1.0, "float32"), ops.cast(0.0, "float32"), factors)

    def by_sparsity(self, sparsity: Tensor) -> Update:
        """The threshold at which a fraction of the layer's weights is pruned."""
        factors = self._factors(self.magnitudes)
        values = self._over_factors(factors)
        sizes = [self.groups[name].sizes for name in values]
        if all(group.granularity == "coefficient" for group in self.groups.values()):
            kept = masks.keep_largest_of_all(list(values.values()), sparsity)
        else:
            budget = (1 - sparsity) * float(sum(size.sum() for size in sizes))
            kept = masks.keep_groups(list(values.values()), sizes, budget)
        return self._solved(dict(zip(values, kept, strict=True)), values, factors)

    # -- their parts

    def _favoured(self) -> Tensors:
        """v = |F| / 0.9 where kept, |F| / 1.1 where pruned: a group stays exactly if t < v."""
        return {n: m / ops.where(self.kept[n], LOW, HIGH) for n, m in self.magnitudes.items()}

    def _over_factors(self, factors: Mapping[str, Tensor]) -> Tensors:
        """v / f_j; what a factor of 0 spares comes first."""
        spread = {name: self._spread(name, factor) for name, factor in factors.items()}
        return {n: _over(v, spread[n]) for n, v in self._favoured().items()}

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean mu and standard deviation of the layer's magnitudes."""
        sizes = [group.sizes for group in self.groups.values()]
        return moments(list(self.magnitudes.values()), sizes)

    def _threshold(self, c: float) -> Tensor:
        """max(mu + c * std, 0)."""
        mean, std = self._moments()
        return ops.maximum(mean + c * std, 0.0)

    def _factors(self, values: Mapping[str, Tensor]) -> Tensors:
        """f_j of each weight's bands, with mean 1 over the coefficients of a kernel."""
        return {name: self._factors_of(name, value) for name, value in values.items()}

    def _factors_of(self, name: str, value: Tensor) -> Tensor:
        spec, band = self.layer.specs[name], self.band
        x = transforms.band_positions(spec)
        if band is None:
            return ops.ones((len(x),), "float32")
        band_of = self.groups[name].band_of
        split = [ops.take(value, np.flatnonzero(band_of == j), axis=0) for j in range(len(x))]
        factors = ops.cast(band(x, [ops.reshape(part, (-1,)) for part in split]), "float32")
        if band.solved:
            return factors
        share = np.bincount(transforms.bands(spec)) / transforms.size(spec)
        mean = ops.sum(factors * share.astype("float32"))
        return ops.where(mean > 0, ops.divide_no_nan(factors, mean), ops.ones_like(factors))

    def _spread(self, name: str, factors: Tensor) -> Tensor:
        """The factor of each group along the first axis, [k or bands, 1, 1]."""
        return ops.reshape(ops.take(factors, self.groups[name].band_of, axis=0), (-1, 1, 1))

    def _solved(
        self, kept: Tensors, values: Mapping[str, Tensor], factors: Mapping[str, Tensor]
    ) -> Update:
        """The update where the mask came first: t is the largest value that goes, and its c."""
        threshold = masks.largest_pruned(kept, values)
        mean, std = self._moments()
        return self._update(kept, threshold, ops.divide_no_nan(threshold - mean, std), factors)

    def _update(
        self, kept: Tensors, threshold: Tensor, c: Tensor, factors: Mapping[str, Tensor]
    ) -> Update:
        """Masks of the weights' shapes, and the layer's new state."""
        state = {"threshold": threshold, "c": c, **{n + FACTORS: f for n, f in factors.items()}}
        return {name: self.groups[name].to_mask(groups) for name, groups in kept.items()}, state


def by_budget(layers: Iterable[BandedLayer], target: Target, sparsity: Tensor) -> list[Update]:
    """The one c at which all layers together keep what a target allows."""
    views = list(layers)
    factors = [view._factors(view.magnitudes) for view in views]
    values = [view._over_factors(f) for view, f in zip(views, factors, strict=True)]
    groups = [group for view in views for group in view.groups.values()]
    costs = [target.cost(group.spec, group.sizes) for group in groups]
    total = float(sum(cost.sum() for cost in costs))
    budget = target.budget([view.layer.specs for view in views], total, sparsity)
    kept = iter(masks.keep_groups(_deviations(views, values), costs, budget))
    masks_of = [{name: next(kept) for name in view.groups} for view in views]
    parts = zip(views, masks_of, values, factors, strict=True)
    return [view._solved(k, v, f) for view, k, v, f in parts]


def _deviations(views: Sequence[BandedLayer], values: Sequence[Tensors]) -> list[Tensor]:
    """(v - mu) / std of each group, all moved up by one constant so that none is negative."""
    pairs = [view._moments() for view in views]
    up = ops.max(ops.stack([ops.divide_no_nan(mean, std) for mean, std in pairs]))
    return [
        ops.where(value > 0, ops.maximum(ops.divide_no_nan(value - mean, std) + up, 0.0), 0.0)
        for (mean, std), layer in zip(pairs, values, strict=True)
        for value in layer.values()
    ]


def _over(value: Tensor, factor: Tensor) -> Tensor:
    return ops.where(factor > 0, ops.divide_no_nan(value, factor), 1e30 * value)
