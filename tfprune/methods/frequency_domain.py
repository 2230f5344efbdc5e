"""Frequency-domain dynamic pruning: network surgery on the DCT coefficients of each kernel.

Reference: Z. Liu, J. Xu, X. Peng, R. Xiong, "Frequency-Domain Dynamic Pruning for Convolutional
Neural Networks", NeurIPS 2018 (FDNP, and band-adaptive BA-FDNP).

    latent     F = B w B^T, the orthonormal 2-D DCT-II of each kernel w; F is what is trained
    forward    w = B^T (F * T) B, then the layer as ever
    gradient   dL/dF = B (dL/dw) B^T for every coefficient, masked or not
    mask       hysteresis on |F| with 0.9 t_j and 1.1 t_j, t_j the threshold of band j = u + v
    bands      t_j = f_j * max(mu + c * std, 0),  f(x) = x^(lam - 1) * (1 - x)^(omega - 1),
               x_j = (j + 1) / 2k                                                       (eq. 8)
    when       with probability sigma(iter) = (1 + gamma * iter)^-power, until a stop

With one learning rate, SGD with momentum and L2 decay on F is exactly SGD on w, since B is
orthogonal; only the mask tells the domains apart. A kernel without extent is plain surgery.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.maths.banded_layer import FACTORS, BandedLayer, by_budget
from tfprune.maths.bands import BandFunction, check_band, check_rates
from tfprune.maths.checks import check_at_most_one, check_flag
from tfprune.maths.domains import DCT
from tfprune.maths.groups import Groups, check_granularity
from tfprune.maths.spec import LayerTensors, Update, WeightSpec
from tfprune.maths.targets import Compression, Speedup, Target
from tfprune.maths.transforms import band_positions, check_supports
from tfprune.maths.updates import layer_by_layer, together
from tfprune.method import register
from tfprune.methods._hysteresis import DynamicSchedule, ThresholdMethod
from tfprune.needs import KernelUses

Tensor = Any


@keras.saving.register_keras_serializable(package="tfprune")
@dataclasses.dataclass(frozen=True)
class FrequencySchedule(DynamicSchedule):
    """The paper's timing: an update with probability `sigma(iter) = (1 + gamma * iter)^-power`.

    Args: those of `tfprune.methods._hysteresis.DynamicSchedule`, which says how they are read.
    """


@register
@dataclasses.dataclass(frozen=True)
class FrequencyDomain(ThresholdMethod):
    """Dynamic pruning of DCT coefficients; with a band function, band-adaptive (BA-FDNP).

    The forward pass uses `w = B^T (T * F) B`; d(T * F)/dF is taken as 1, so dL/dF = B (dL/dw) B^T
    reaches every coefficient, and one that grows past its upper threshold is spliced back. The
    optimizer, its decay and the layer's own regularizers act on F: for L2 that is the same as on w,
    an L1 term makes coefficients sparse, and Adam differs as it scales each coordinate.

    Args:
        c: how far above the mean of |F| the threshold lies, in standard deviations. A number, or
            {regular expression of layer names: number} (first match; 1.0 where none does).
        target_sparsity: in [0, 1). Target mode: at each update the thresholds are solved so that
            this fraction of each layer's weights is pruned.
        target_compression: > 1. Likewise for all layers together, with one c for all: their weights
            and biases over those that are kept.
        target_speedup: > 1. Likewise: multiply-adds of all layers together, over those of kept
            coefficients and the DCT of the inputs.
        band: a band function (`tfprune.bands`), such as `Beta(1.5)`; None: one threshold (FDNP).
        granularity: what is pruned together (`tfprune.maths.groups`): "coefficient", "block4",
            "block8", "input4", "row", "frequency" or "band". Moments and thresholds are then those
            of the groups' RMS.
        supports: {regular expression of layer names: (height, width)} of the feature map that a
            flatten in front of a dense layer unrolled (channels last). Without it they are found
            in the graph, where there is one. A dense layer without a map is plain surgery.
        band_rates: multipliers of the learning rate from the lowest band to the highest,
            interpolated along the bands; exact for SGD. None: all 1.
        prune_biases: mask the biases too, with the layer's t.

    At most one of `c`, `target_sparsity`, `target_compression`, `target_speedup` is given.

    Raises:
        ValueError, TypeError: for settings out of range.

    Differs from the paper: how f scales a threshold is not known from it; here the mean of f over
    the coefficients of a kernel is made 1, so that lam = omega = 1 is FDNP. Targets, granularity,
    other band functions and band rates are tfprune's own.
    """

    c: float | Mapping[str, float] | None = None
    target_sparsity: float | None = None
    target_compression: float | None = None
    target_speedup: float | None = None
    band: BandFunction | None = None
    granularity: str = "coefficient"
    supports: Mapping[str, Sequence[int]] | None = None
    band_rates: Sequence[float] | None = None
    prune_biases: bool = True

    def __post_init__(self) -> None:
        check_at_most_one(self, ("c", "target_sparsity", "target_compression", "target_speedup"))
        target = self.target
        self.check_c()
        check_band(self.band)
        if target.sparsity is not None and self.band is not None and self.band.solved:
            raise ValueError(
                f"A target needs a band function that leaves the density open; {self.band!r} says "
                f"how much of each band stays. Leave one of the two out. Received: {target!r}."
            )
        check_granularity(self.granularity)
        object.__setattr__(self, "supports", check_supports(self.supports))
        check_rates(self.band_rates)
        check_flag("prune_biases", self.prune_biases)
        if self.band_rates is not None:
            object.__setattr__(self, "band_rates", tuple(float(v) for v in self.band_rates))

    @property
    def domain(self) -> DCT:
        """F = B w B^T, with the maps that dense layers unrolled and the rates of the bands."""
        return DCT(self.supports, self.band_rates)

    @property
    def target(self) -> Target:
        """The one that is given; none where `c` or densities of bands decide."""
        if self.target_compression is not None:
            return Compression(self.target_compression)
        if self.target_speedup is not None:
            return Speedup(self.target_speedup)
        return super().target

    @property
    def needs(self) -> tuple[KernelUses, ...]:
        """Multiply-adds can only be budgeted where they are known."""
        return () if self.target_speedup is None else (KernelUses(),)

    def schedule(self) -> FrequencySchedule:
        """The paper's schedule over 70 % of the training; in target mode, with the ramp."""
        return FrequencySchedule(target_sparsity=self.target.sparsity)

    def groups(self, spec: WeightSpec) -> Groups:
        """What is pruned together in a weight."""
        return Groups(spec, self.granularity)

    def state(self, specs: Mapping[str, WeightSpec]) -> dict[str, Any]:
        """t (-1 until the first update), c, and the factors f_j of each weight's bands."""
        bands = {name: len(band_positions(spec)) for name, spec in specs.items()}
        factors = {name + FACTORS: np.ones(count, "float32") for name, count in bands.items()}
        return {**super().state(specs), **factors}

    def update(
        self, layers: Sequence[LayerTensors], sparsities: Sequence[Any], due: Sequence[Any]
    ) -> list[Update]:
        """Surgery layer by layer, or with one c for all layers where the target is theirs."""
        if self.target.scope == "layer":
            return layer_by_layer(layers, sparsities, due, self._update_layer)
        return together(
            layers, due, lambda: by_budget(map(self._view, layers), self.target, sparsities[0])
        )

    def _view(self, layer: LayerTensors) -> BandedLayer:
        return BandedLayer(layer, self.band, self.granularity)

    def _update_layer(self, layer: LayerTensors, sparsity: Any) -> Update:
        """Solved thresholds, densities of bands, or the threshold of the first update."""
        if self.target.sparsity is not None:
            return self._view(layer).by_sparsity(sparsity)
        if self.band is not None and self.band.solved:
            return self._view(layer).by_bands()
        return self._view(layer).by_threshold(self.c_of(layer))

    def get_config(self) -> dict[str, Any]:
        """The settings, JSON-able."""
        config = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**config, "band": keras.saving.serialize_keras_object(self.band)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FrequencyDomain:
        """The inverse of `get_config`."""
        band = config.get("band")
        if isinstance(band, dict):
            band = keras.saving.deserialize_keras_object(band)
        return cls(**{**config, "band": band})
