"""Band functions: how the threshold of a frequency band depends on the band.

All have one signature: `function(x, magnitudes) -> factors`, with

- `x` the positions of the bands, float64 [bands], rising in (0, 1): x_j = (j + 1) / (bands + 1),
- `magnitudes` for each band the magnitudes of its coefficients, float32 [n_j],
- `factors` float32 [bands], not negative. Band j gets the threshold `factor_j * t` of its layer's
  t; the mean factor over the coefficients of a kernel is made 1, so a constant function is FDNP.

A user's own: a frozen dataclass derived from `BandFunction`, made known to Keras by
`keras.saving.register_keras_serializable`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from tfprune.maths import masks
from tfprune.maths.checks import check_number

Tensor = Any


@dataclasses.dataclass(frozen=True)
class BandFunction:
    """Base class.

    Class attributes:
        solved: the factors are the thresholds themselves, solved anew at each update.
    """

    solved: ClassVar[bool] = False

    def __call__(self, x: np.ndarray, magnitudes: Sequence[Tensor]) -> Tensor:
        """The factor of each band."""
        raise NotImplementedError(f"{type(self).__name__} must define `__call__`.")

    def get_config(self) -> dict[str, Any]:
        """The settings, JSON-able."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> BandFunction:
        """The inverse of `get_config`."""
        return cls(**config)


@keras.saving.register_keras_serializable(package="tfprune")
@dataclasses.dataclass(frozen=True)
class Beta(BandFunction):
    """The paper's: f(x) = x^(lam - 1) * (1 - x)^(omega - 1).

    Args:
        lam: > 0; above 1, higher frequencies get higher thresholds.
        omega: > 0; above 1, lower frequencies do. lam = omega = 1 is FDNP.

    Reference: Liu et al., NeurIPS 2018, eq. 8 (lambda > 1, omega = 1 in the experiments).
    """

    lam: float = 1.5
    omega: float = 1.0

    def __post_init__(self) -> None:
        for name in ("lam", "omega"):
            _check_positive(name, getattr(self, name))

    def __call__(self, x: np.ndarray, magnitudes: Sequence[Tensor]) -> Tensor:
        """x^(lam - 1) * (1 - x)^(omega - 1)."""
        return _tensor(x ** (self.lam - 1) * (1 - x) ** (self.omega - 1))


@keras.saving.register_keras_serializable(package="tfprune")
@dataclasses.dataclass(frozen=True)
class Linear(BandFunction):
    """A straight line: f(x) = 1 + slope * (2x - 1).

    Args:
        slope: in [-1, 1]; above 0, higher frequencies get higher thresholds.
    """

    slope: float = 0.5

    def __post_init__(self) -> None:
        if not -1 <= check_number("slope", self.slope) <= 1:
            raise ValueError(f"`slope` must be in [-1, 1]. Received: {self.slope!r}.")

    def __call__(self, x: np.ndarray, magnitudes: Sequence[Tensor]) -> Tensor:
        """1 + slope * (2x - 1)."""
        return _tensor(1 + self.slope * (2 * x - 1))


@keras.saving.register_keras_serializable(package="tfprune")
@dataclasses.dataclass(frozen=True)
class Exponential(BandFunction):
    """f(x) = exp(rate * (x - 1/2)).

    Args:
        rate: finite; above 0, higher frequencies get higher thresholds.
    """

    rate: float = 1.0

    def __post_init__(self) -> None:
        check_number("rate", self.rate)

    def __call__(self, x: np.ndarray, magnitudes: Sequence[Tensor]) -> Tensor:
        """exp(rate * (x - 1/2))."""
        return _tensor(np.exp(self.rate * (x - 0.5)))


@keras.saving.register_keras_serializable(package="tfprune")
@dataclasses.dataclass(frozen=True)
class EqualEnergy(BandFunction):
    """Thresholds in proportion to a band's root mean square at the first update.

        f_j = sqrt(mean of F^2 over band j)

    Every band is cut at the same depth of its own distribution, so bands whose coefficients are
    alike but for their scale lose the same fraction of their energy.
    """

    def __call__(self, x: np.ndarray, magnitudes: Sequence[Tensor]) -> Tensor:
        """Root mean square of each band."""
        return ops.stack([ops.sqrt(ops.mean(ops.square(m))) for m in magnitudes])


@keras.saving.register_keras_serializable(package="tfprune")
@dataclasses.dataclass(frozen=True)
class Densities(BandFunction):
    """Each band keeps the fraction of its coefficients that is asked for, its largest.

    The thresholds are solved at every update, after hysteresis; `c` is not used.

    Args:
        values: densities in [0, 1] from the lowest band to the highest; where a kernel has another
            number of bands (3x3 has 5, 5x5 has 9, 1x1 one), they are interpolated along x.
    """

    values: tuple[float, ...] = (0.5, 0.1)
    solved: ClassVar[bool] = True

    def __post_init__(self) -> None:
        values = (self.values,) if isinstance(self.values, int | float) else tuple(self.values)
        if not values or not all(0 <= check_number("values", v) <= 1 for v in values):
            raise ValueError(f"`values` must be densities in [0, 1]. Received: {self.values!r}.")
        object.__setattr__(self, "values", tuple(float(v) for v in values))

    def __call__(self, x: np.ndarray, magnitudes: Sequence[Tensor]) -> Tensor:
        """The magnitude of the largest coefficient of each band that goes; -1 where none does."""
        thresholds = []
        for density, band in zip(along_bands(self.values, x), magnitudes, strict=True):
            kept = round(float(density) * int(band.shape[0]))
            if kept == int(band.shape[0]):
                thresholds.append(ops.cast(-1.0, "float32"))
            else:
                thresholds.append(masks.kth_largest(band, ops.cast(kept + 1, "int32")))
        return ops.stack(thresholds)


def along_bands(values: Sequence[float], x: np.ndarray) -> np.ndarray:
    """`values`, given from the lowest band to the highest, at the band positions `x`."""
    if len(x) == 1:
        return np.array([float(np.mean(values))])
    return np.asarray(np.interp(x, np.linspace(x[0], x[-1], len(values)), values))


def check_band(band: Any) -> BandFunction | None:
    """Return `band` if it is None or a band function.

    Raises:
        TypeError: for anything else.
    """
    if band is not None and not isinstance(band, BandFunction):
        raise TypeError(
            "`band` must be None or a band function, such as tfprune.bands.Beta(1.5). "
            f"Received: {band!r}."
        )
    return band


def check_rates(rates: Any) -> None:
    """Raise unless `rates` is None or a list of numbers that are not negative."""
    if rates is None:
        return
    if not isinstance(rates, Sequence) or not rates or isinstance(rates, str):
        raise TypeError(f"`band_rates` must be a list of numbers. Received: {rates!r}.")
    for rate in rates:
        if check_number("band_rates", rate) < 0:
            raise ValueError(f"`band_rates` must not be negative. Received: {rates!r}.")


def _check_positive(name: str, value: Any) -> None:
    if check_number(name, value) <= 0:
        raise ValueError(f"`{name}` must be positive. Received: {value!r}.")


def _tensor(values: np.ndarray) -> Tensor:
    return ops.convert_to_tensor(np.asarray(values, "float32"))
