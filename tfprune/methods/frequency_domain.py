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
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from tfprune.maths import dct_macs, masks, transforms
from tfprune.maths.banded_layer import FACTORS, BandedLayer, Masks, deviations, over, scale_gradient
from tfprune.maths.bands import BandFunction, check_band, check_rates
from tfprune.maths.checks import (
    check_at_most_one,
    check_fits,
    check_flag,
    check_number,
    check_one_schedule,
    check_target,
    per_layer,
)
from tfprune.maths.groups import Groups, check_granularity
from tfprune.maths.spec import LayerTensors, WeightSpec
from tfprune.maths.thresholds import HIGH, LOW
from tfprune.method import register
from tfprune.methods._hysteresis import DynamicSchedule, ThresholdMethod

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
            this fraction of each layer's entries is pruned.
        target_compression: > 1. Likewise for all layers together, with one c for all: their weights
            and biases over those that are kept.
        target_speedup: > 1. Likewise: multiply-adds of all layers together, over those of kept
            entries and the DCT of the inputs.
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
    masked: ClassVar[str] = "coefficients"

    def __post_init__(self) -> None:
        check_target(self.target_sparsity)
        for name in ("target_compression", "target_speedup"):
            value = getattr(self, name)
            if value is not None and check_number(name, value) <= 1:
                raise ValueError(f"`{name}` must be above 1. Received: {value!r}.")
        ways = ("c", "target_sparsity", "target_compression", "target_speedup")
        check_at_most_one(self, ways)
        self.check_c()
        check_band(self.band)
        if self.wanted is not None and self.band is not None and self.band.solved:
            raise ValueError(
                f"A target needs a band function that leaves the density open; {self.band!r} says "
                "how much of each band stays. Leave one of the two out."
            )
        check_granularity(self.granularity)
        object.__setattr__(self, "supports", transforms.check_supports(self.supports))
        check_rates(self.band_rates)
        check_flag("prune_biases", self.prune_biases)
        if self.band_rates is not None:
            object.__setattr__(self, "band_rates", tuple(float(v) for v in self.band_rates))

    # -- the transform

    def encode(self, weight: Tensor, spec: WeightSpec) -> dict[str, Tensor]:
        """F = B w B^T."""
        return {"coefficients": transforms.dct(weight, spec)}

    def decode(self, latents: Mapping[str, Tensor], spec: WeightSpec) -> Tensor:
        """w = B^T F B, with the gradient of each band multiplied by its rate."""
        found = scale_gradient(latents["coefficients"], spec, self.band_rates)
        return transforms.idct(found, spec)

    def stored(self, latents: Mapping[str, Tensor], spec: WeightSpec) -> Tensor:
        """The coefficients."""
        return latents["coefficients"]

    # -- the masks

    def state(self, specs: Mapping[str, WeightSpec]) -> dict[str, Any]:
        """t (-1 until the first update), c, and the factors f_j of each weight's bands."""
        factors = {
            name + FACTORS: np.ones(len(transforms.band_positions(spec)), "float32")
            for name, spec in specs.items()
        }
        return {**super().state(specs), **factors}

    def _view(self, layer: LayerTensors) -> BandedLayer:
        return BandedLayer(layer, self.band, self.granularity)

    def update_layer(
        self, layer: LayerTensors, sparsity: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One surgery on one layer, with frozen thresholds, or with solved ones."""
        if self.wanted is not None:
            return self._to_sparsity(self._view(layer), sparsity)
        if self.band is not None and self.band.solved:
            return self._by_band(self._view(layer))
        view, state = self._view(layer), layer.state
        c = per_layer(1.0 if self.c is None else self.c, layer.name, 1.0)
        threshold, factors = ops.cond(
            state["threshold"] < 0,
            lambda: (view.threshold(c), view.factors(view.magnitudes)),
            lambda: (state["threshold"], {n: state[n + FACTORS] for n in layer.specs}),
        )
        kept = {}
        for name, magnitude in view.magnitudes.items():
            t = threshold * view.spread(name, factors[name])
            kept[name] = masks.hysteresis(magnitude, view.kept[name], LOW * t, HIGH * t)
        return view.result(kept, threshold, ops.cast(c, "float32"), factors)

    def _by_band(self, view: BandedLayer) -> tuple[Masks, Masks]:
        """Thresholds that the band function solves for, on what hysteresis favours."""
        values = view.favoured()
        factors = view.factors(values)
        kept = {n: v > view.spread(n, factors[n]) for n, v in values.items()}
        return view.result(kept, ops.cast(1.0, "float32"), ops.cast(0.0, "float32"), factors)

    def _to_sparsity(self, view: BandedLayer, sparsity: Tensor) -> tuple[Masks, Masks]:
        """The thresholds at which a fraction of the layer's entries is pruned."""
        factors = view.factors(view.magnitudes)
        values = {n: over(v, view.spread(n, factors[n])) for n, v in view.favoured().items()}
        sizes = [view.groups[name].sizes for name in values]
        if self.granularity == "coefficient":
            found = masks.keep_largest_of_all(list(values.values()), sparsity)
        else:
            wanted = (1 - sparsity) * float(sum(size.sum() for size in sizes))
            found = masks.keep_groups(list(values.values()), sizes, wanted)
        kept = dict(zip(values, found, strict=True))
        return view.solved(kept, values, factors)

    def update_network(
        self, layers: Sequence[LayerTensors], sparsities: Sequence[Tensor], due: Sequence[Tensor]
    ) -> list[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Layer by layer, or with one c for all layers where the target is the network's."""
        if self.scope == "layer":
            return super().update_network(layers, sparsities, due)
        kept_back = lambda: [(dict(layer.masks), dict(layer.state)) for layer in layers]  # noqa: E731
        found = ops.cond(
            ops.any(ops.stack(list(due))),
            lambda: self._to_budget(layers, sparsities[0]),
            kept_back,
        )
        return [
            ops.cond(flag, lambda new=new: new, lambda old=old: old)
            for flag, new, old in zip(due, found, kept_back(), strict=True)
        ]

    def _to_budget(
        self, layers: Sequence[LayerTensors], sparsity: Tensor
    ) -> list[tuple[Masks, Masks]]:
        """The one c at which all layers together keep what the target allows.

        An entry stays exactly if c < (v / f_j - mu) / std, with v its magnitude after hysteresis:
        so the c for a budget is an order statistic of these, over all layers.
        """
        views = [self._view(layer) for layer in layers]
        factors = [view.factors(view.magnitudes) for view in views]
        values = [
            {n: over(v, view.spread(n, f[n])) for n, v in view.favoured().items()}
            for view, f in zip(views, factors, strict=True)
        ]
        scaled = deviations(views, values)
        costs = [self._costs(group) for view in views for group in view.groups.values()]
        kept = float(sum(cost.sum() for cost in costs))
        final = kept * (1 - (self.wanted or 0.0))
        if self.target_speedup is not None:
            final = dct_macs.left_for_entries([one.specs for one in layers], self.target_speedup)
        kept = kept + (final - kept) * sparsity / (self.wanted or 1.0)
        found = iter(masks.keep_groups(scaled, costs, kept))
        each = [{name: next(found) for name in view.groups} for view in views]
        parts = zip(views, each, values, factors, strict=True)
        return [view.solved(k, v, f) for view, k, v, f in parts]

    def _costs(self, groups: Groups) -> np.ndarray:
        """What a group costs when it is kept: entries, or multiply-adds."""
        each = 1.0 if self.target_speedup is None else dct_macs.per_entry(groups.spec)
        return groups.sizes * each

    # -- targets

    @property
    def wanted(self) -> float | None:
        """The sparsity that goes with the target, of entries or of multiply-adds."""
        ratio = self.target_compression or self.target_speedup
        return self.target_sparsity if ratio is None else 1 - 1 / ratio

    @property
    def scope(self) -> str:  # type: ignore[override]
        """ "global" where the target is the network's."""
        return "global" if self.target_compression or self.target_speedup else "layer"

    @property
    def needs_uses(self) -> bool:  # type: ignore[override]
        """Multiply-adds can only be budgeted where they are known."""
        return self.target_speedup is not None

    def default_schedule(self) -> FrequencySchedule:
        """The paper's schedule over 70 % of the training; in target mode, with the ramp."""
        return FrequencySchedule(target_sparsity=self.wanted)

    def adapt(self, path: str, spec: WeightSpec) -> WeightSpec:
        """With the map that `supports` gives a dense layer.

        Raises:
            ValueError: if the map does not divide the layer's inputs.
        """
        for pattern, (height, width) in (self.supports or {}).items():
            if re.search(pattern, path) and spec.axes == ("cin", "cout"):
                if spec.shape[0] % (height * width):
                    raise ValueError(
                        f"`supports` of layer '{path}' must divide its {spec.shape[0]} inputs. "
                        f"Received: {(height, width)}."
                    )
                shape = (height, width, spec.shape[0] // (height * width))
                axes = ("kh", "kw", "cin")
                return dataclasses.replace(spec, map_shape=shape, map_axes=axes)
        return spec

    def check_layers(
        self, paths: Sequence[str], schedules: Sequence[Any], specs: Sequence[Any]
    ) -> None:
        """Keys must fit; a network's target needs one schedule, and one that can be reached."""
        check_fits("c", self.c, paths)
        check_fits("supports", self.supports, paths)
        if self.scope == "global":
            reason = "With `target_compression` or `target_speedup` all layers share one c"
            check_one_schedule(schedules, reason)
        if self.target_speedup is not None:
            dct_macs.left_for_entries(specs, self.target_speedup)

    def attained(
        self, specs: Sequence[Mapping[str, WeightSpec]], masks: Sequence[Mapping[str, Any]]
    ) -> float:
        """The fraction of entries that are pruned, or of multiply-adds that are saved."""
        if self.target_speedup is None:
            return super().attained(specs, masks)
        return 1 - dct_macs.sparse(specs, masks) / dct_macs.dense(specs)

    def rounding(self, specs: Sequence[Mapping[str, WeightSpec]]) -> float:
        """Half of the largest group, as a fraction of all."""
        if self.granularity == "coefficient" and self.target_speedup is None:
            return super().rounding(specs)
        costs = [self._costs(Groups(s, self.granularity)) for one in specs for s in one.values()]
        return 0.5 * max(cost.max() for cost in costs) / max(sum(cost.sum() for cost in costs), 1)

    # -- what reports ask

    def bands(self, spec: WeightSpec) -> np.ndarray | None:
        """u + v of each coefficient, of the weight's shape; None without extent."""
        if transforms.size(spec) == 1:
            return None
        return ops.convert_to_numpy(transforms.per_frequency(transforms.bands(spec), spec))

    def transform_macs(self, spec: WeightSpec, stored: Any) -> float:
        """The DCT of each input channel that a coefficient is left of, per use."""
        return dct_macs.per_use(spec, stored)

    # -- files

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
