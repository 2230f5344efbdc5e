"""A layer at a mask update, seen by groups and bands: magnitudes, thresholds, solved thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from tfprune.maths import transforms
from tfprune.maths.bands import BandFunction, along_bands
from tfprune.maths.groups import Groups
from tfprune.maths.spec import LayerTensors, WeightSpec
from tfprune.maths.thresholds import HIGH, LOW, moments

Tensor = Any
Masks = dict[str, Tensor]
FACTORS = "_factors"  # of a weight's bands, in the layer's state


class BandedLayer:
    """One layer at an update; every dict has one entry per pruned weight.

    Attributes:
        groups: how the weight is grouped.
        magnitudes: RMS of each group.
        kept: whether each group is kept so far.
    """

    def __init__(self, layer: LayerTensors, band: BandFunction | None, granularity: str) -> None:
        self.layer, self.band = layer, band
        self.groups = {n: Groups(s, granularity) for n, s in layer.specs.items()}
        self.magnitudes = {n: g.magnitude(layer.latents[n]) for n, g in self.groups.items()}
        self.kept = {n: g.of_mask(layer.masks[n]) for n, g in self.groups.items()}

    def favoured(self) -> dict[str, Tensor]:
        """v = |F| / 0.9 where kept, |F| / 1.1 where pruned: a group stays exactly if t < v."""
        return {n: m / ops.where(self.kept[n], LOW, HIGH) for n, m in self.magnitudes.items()}

    def _moments(self) -> tuple[Tensor, Tensor]:
        """mu and std of the layer's magnitudes."""
        sizes = [group.sizes for group in self.groups.values()]
        return moments(list(self.magnitudes.values()), sizes)

    def threshold(self, c: float) -> Tensor:
        """max(mu + c * std, 0)."""
        mean, std = self._moments()
        return ops.maximum(mean + c * std, 0.0)

    def factors(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """f_j of each weight's bands, with mean 1 over the coefficients of a kernel."""
        return {name: self._factors(name, value) for name, value in values.items()}

    def _factors(self, name: str, value: Tensor) -> Tensor:
        spec, band = self.layer.specs[name], self.band
        x = transforms.band_positions(spec)
        if band is None:
            return ops.ones((len(x),), "float32")
        of = self.groups[name].band_of
        split = [ops.take(value, np.flatnonzero(of == j), axis=0) for j in range(len(x))]
        found = ops.cast(band(x, [ops.reshape(one, (-1,)) for one in split]), "float32")
        if band.solved:
            return found
        share = np.bincount(transforms.bands(spec)) / transforms.size(spec)
        mean = ops.sum(found * share.astype("float32"))
        return ops.where(mean > 0, ops.divide_no_nan(found, mean), ops.ones_like(found))

    def spread(self, name: str, factors: Tensor) -> Tensor:
        """The factor of each group along the first axis, [k or bands, 1, 1]."""
        return ops.reshape(ops.take(factors, self.groups[name].band_of, axis=0), (-1, 1, 1))

    def solved(
        self, kept: Masks, values: Mapping[str, Tensor], factors: Mapping[str, Tensor]
    ) -> tuple[Masks, Masks]:
        """The result where the mask came first: t is the largest value that goes, and its c."""
        gone = [ops.max(ops.where(kept[name], 0.0, values[name])) for name in kept]
        threshold = ops.max(ops.stack(gone))
        mean, std = self._moments()
        return self.result(kept, threshold, ops.divide_no_nan(threshold - mean, std), factors)

    def result(
        self, kept: Masks, threshold: Tensor, c: Tensor, factors: Mapping[str, Tensor]
    ) -> tuple[Masks, Masks]:
        """Masks of the weights' shapes, and the layer's new state."""
        state = {"threshold": threshold, "c": c, **{n + FACTORS: f for n, f in factors.items()}}
        return {name: self.groups[name].to_mask(one) for name, one in kept.items()}, state


def over(value: Tensor, factor: Tensor) -> Tensor:
    """value / factor; what a factor of 0 spares comes first."""
    return ops.where(factor > 0, ops.divide_no_nan(value, factor), 1e30 * value)


def deviations(views: list[BandedLayer], values: list[dict[str, Tensor]]) -> list[Tensor]:
    """(v - mu) / std of each group, all moved up by one constant so that none is negative."""
    found = [view._moments() for view in views]
    up = ops.max(ops.stack([ops.divide_no_nan(mean, std) for mean, std in found]))
    return [
        ops.where(value > 0, ops.maximum(ops.divide_no_nan(value - mean, std) + up, 0.0), 0.0)
        for (mean, std), layer in zip(found, values, strict=True)
        for value in layer.values()
    ]


def scale_gradient(latent: Tensor, spec: WeightSpec, rates: Sequence[float] | None) -> Tensor:
    """The same coefficients, with the gradient of each band multiplied by its rate.

    value F;  gradient dL/dF * rate_j in band j
    """
    if rates is None or transforms.size(spec) == 1:
        return latent
    each = along_bands(rates, transforms.band_positions(spec))[transforms.bands(spec)]
    extra = ops.cast(transforms.per_frequency(each - 1, spec), latent.dtype)
    return latent + extra * (latent - ops.stop_gradient(latent))
