"""The domain of a method: which tensors stand for a weight, and which of them the mask multiplies.

    effective weight = decode(mask * encode(weight))

| domain | latent tensors | masked |
|---|---|---|
| Spatial | the weight | the weight |
| DCT | its DCT-II coefficients F | F |
| Strengths | direction V and strength s of each k x k kernel | s |

A domain of one's own derives from `Domain` and overrides `masked`, `encode` and `decode`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from keras import ops

from tfprune.maths import dct_macs, transforms
from tfprune.maths.bands import along_bands
from tfprune.maths.checks import check_fits
from tfprune.maths.spec import WeightSpec

Tensor = Any


@dataclasses.dataclass(frozen=True)
class Domain:
    """Base class; as it stands, the weights themselves.

    Class attributes:
        masked: name of the latent tensor that the mask multiplies.
    """

    masked: ClassVar[str] = "latent"

    def encode(self, weight: Tensor, spec: WeightSpec) -> dict[str, Tensor]:
        """Dense weight -> latent tensors; the first, of the weight's own shape, takes its place."""
        return {"latent": weight}

    def decode(self, latents: Mapping[str, Tensor], spec: WeightSpec) -> Tensor:
        """Masked latent tensors -> weight as the layer uses it. The inverse of `encode`."""
        return latents["latent"]

    def stored(self, latents: Mapping[str, Tensor], spec: WeightSpec) -> Tensor:
        """What a file would hold of a weight, zeros left out, from its masked latent tensors."""
        return self.decode(latents, spec)

    def bands(self, spec: WeightSpec) -> np.ndarray | None:
        """The frequency band of each element of what is stored, an int array; None: no bands."""
        return None

    def transform_macs(self, spec: WeightSpec, stored: np.ndarray) -> float:
        """Multiply-adds per use of a kernel beside those of what is stored."""
        return 0.0

    def adapt(self, path: str, spec: WeightSpec) -> WeightSpec:
        """What is known of a weight of layer `path`, with what the user's settings add to it."""
        return spec

    def check_paths(self, paths: Sequence[str]) -> None:
        """Raise ValueError if a setting of the domain fits none of the layers."""


@dataclasses.dataclass(frozen=True)
class Spatial(Domain):
    """The weights as they are: latent = w."""


@dataclasses.dataclass(frozen=True)
class DCT(Domain):
    """Orthonormal 2-D DCT-II coefficients over the spatial axes of each kernel.

        encode   F = B w B^T
        decode   w = B^T F B,   gradient dL/dF = rate_j * B (dL/dw) B^T in band j

    Args:
        supports: {regular expression of layer names: (height, width)} of the feature map that a
            flatten in front of a dense layer unrolled, channels last.
        rates: multipliers of the gradient from the lowest band to the highest, interpolated along
            the bands; None: all 1.

    Reference: Liu et al., NeurIPS 2018, section 3.
    """

    supports: Mapping[str, Sequence[int]] | None = None
    rates: Sequence[float] | None = None
    masked: ClassVar[str] = "coefficients"

    def encode(self, weight: Tensor, spec: WeightSpec) -> dict[str, Tensor]:
        """F = B w B^T."""
        return {"coefficients": transforms.dct(weight, spec)}

    def decode(self, latents: Mapping[str, Tensor], spec: WeightSpec) -> Tensor:
        """w = B^T F B, with the gradient of each band multiplied by its rate."""
        coefficients = scale_gradient(latents["coefficients"], spec, self.rates)
        return transforms.idct(coefficients, spec)

    def stored(self, latents: Mapping[str, Tensor], spec: WeightSpec) -> Tensor:
        """The coefficients."""
        return latents["coefficients"]

    def bands(self, spec: WeightSpec) -> np.ndarray | None:
        """u + v of each coefficient, of the weight's shape; None without extent."""
        if transforms.size(spec) == 1:
            return None
        bands = transforms.per_frequency(transforms.bands(spec), spec)
        return np.asarray(ops.convert_to_numpy(bands))

    def transform_macs(self, spec: WeightSpec, stored: np.ndarray) -> float:
        """The DCT of each input channel that a coefficient is left of."""
        return dct_macs.per_use(spec, stored)

    def adapt(self, path: str, spec: WeightSpec) -> WeightSpec:
        """Add the map that `supports` gives a dense layer.

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

    def check_paths(self, paths: Sequence[str]) -> None:
        """Every key of `supports` must fit a layer."""
        check_fits("supports", self.supports, paths)


def scale_gradient(latent: Tensor, spec: WeightSpec, rates: Sequence[float] | None) -> Tensor:
    """The same coefficients, with the gradient of each band multiplied by its rate.

    value F;  gradient dL/dF * rate_j in band j
    """
    if rates is None or transforms.size(spec) == 1:
        return latent
    along = along_bands(rates, transforms.band_positions(spec))[transforms.bands(spec)]
    extra = ops.cast(transforms.per_frequency(along - 1, spec), latent.dtype)
    return latent + extra * (latent - ops.stop_gradient(latent))


@dataclasses.dataclass(frozen=True)
class Strengths(Domain):
    """One strength per (input channel, output channel) kernel, and the kernel's direction.

        decode   K_ik = s_ik * V_ik / ||V_ik||
        gradient dL/ds = <dL/dK, V/||V||>,  dL/dV = s/||V|| (dL/dK - <dL/dK, V/||V||> V/||V||)

    Reference: Lin et al., NeurIPS 2018, section 3.
    """

    masked: ClassVar[str] = "strength"

    def encode(self, weight: Tensor, spec: WeightSpec) -> dict[str, Tensor]:
        """V = K, s = ||K|| of each connection, [cin, cout], float32 at least.

        Where K = 0, V has equal elements of norm 1, so that the gradient reaches s = 0.
        """
        kernel = transforms.canonical(weight, spec)
        norm = _norm(kernel)
        flat = ops.full_like(kernel, transforms.size(spec) ** -0.5)
        direction = ops.where(norm[None] > 0, kernel, flat)
        return {"direction": transforms.from_canonical(direction, spec), "strength": norm}

    def decode(self, latents: Mapping[str, Tensor], spec: WeightSpec) -> Tensor:
        """K = s V / ||V||; 0 where V is."""
        direction = transforms.canonical(latents["direction"], spec)
        norm = _norm(direction)
        unit = ops.cast(direction, norm.dtype) / ops.where(norm > 0, norm, ops.ones_like(norm))
        kernel = ops.cast(latents["strength"], norm.dtype) * unit
        return transforms.from_canonical(ops.cast(kernel, direction.dtype), spec)


def _norm(kernel: Tensor) -> Tensor:
    """||K|| of each connection of a [k, cin, cout] kernel, float32 at least; gradient 0 at 0.

    Over the largest element, m ||K / m||, since squares leave the range of float32 early.
    """
    kernel = ops.multiply(kernel, ops.ones((), "float32"))  # float16 and bfloat16 become float32
    largest = ops.stop_gradient(ops.max(ops.abs(kernel), axis=0))
    largest = ops.where(largest > 0, largest, ops.ones_like(largest))
    squares = ops.sum(ops.square(kernel / largest), axis=0)
    safe = ops.where(squares > 0, squares, ops.ones_like(squares))
    return largest * ops.where(squares > 0, ops.sqrt(safe), ops.zeros_like(squares))
