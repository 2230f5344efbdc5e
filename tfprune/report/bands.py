"""What reports show of a layer's frequency bands: densities, magnitudes, and some filters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tfprune.graph.layers import find_variable, weighted_layers
from tfprune.maths.transforms import canonical, extent
from tfprune.pruned.layers import STATE
from tfprune.report.kernels import SAMPLE

Tensor = Any
BINS = 24
FILTERS = 8  # kernels that are drawn of a layer, at most
GROUPS = 12  # bands that are drawn of a layer, at most; more are merged
TAIL = 0.005  # fraction of the smallest magnitudes that share the first bin


@dataclasses.dataclass(frozen=True)
class BandPicture:
    """A layer's first weight with bands, in the domain in which it is stored.

    Attributes:
        names: of the bands, from the lowest frequency up: "0", "1", ...; "0–4" where merged.
        sizes, kept: int [bands], the coefficients of each band and those that are not zero.
        before, after: int [bands, 24], histograms of log10 of the non-zero magnitudes, of at most
            1,000,000 coefficients. The first bin holds smaller ones too.
        limits: log10 of the smallest and the largest magnitude of the bins.
        filters_before, filters_after: float32 [n, kh, kw], the kernels of largest norm after
            pruning as the convolution sees them; n = 0 where kernels are not 2-D.
        from_dense: whether "before" is the model that pruning started from; else it is what the
            net holds without its mask.
    """

    names: tuple[str, ...]
    sizes: np.ndarray
    kept: np.ndarray
    before: np.ndarray
    after: np.ndarray
    limits: tuple[float, float]
    filters_before: np.ndarray
    filters_after: np.ndarray
    from_dense: bool

    @property
    def densities(self) -> list[float]:
        """The fraction of each band that is not zero."""
        return [float(k) / max(float(n), 1.0) for k, n in zip(self.kept, self.sizes, strict=True)]

    @property
    def is_merged(self) -> bool:
        """Whether several bands share a name."""
        return self.names[0] != "0"

    @property
    def filter_limits(self) -> np.ndarray:
        """The largest |w| of each drawn kernel, before or after; float32 [n]."""
        filters = np.stack([self.filters_before, self.filters_after])
        return np.abs(filters).max((0, 2, 3))

    def merged(self, most: int = GROUPS) -> BandPicture:
        """The picture with neighbouring bands added up, from band 0 on, until `most` are left."""
        count = len(self.names)
        if count <= most:
            return self
        width = -(-count // most)
        starts = range(0, count, width)
        ends = [(self.names[i], self.names[min(i + width, count) - 1]) for i in starts]
        names = tuple(a if a == b else f"{a}–{b}" for a, b in ends)

        def add(counts: np.ndarray) -> np.ndarray:
            return np.add.reduceat(counts, starts, axis=0)

        return dataclasses.replace(
            self,
            names=names,
            sizes=add(self.sizes),
            kept=add(self.kept),
            before=add(self.before),
            after=add(self.after),
        )


def band_pictures(model: keras.Layer, before: Any = None) -> dict[str, BandPicture]:
    """Path -> picture of every pruned layer with bands.

    Args:
        model: a plain or pruned model.
        before: the model that pruning started from, or None.

    Raises:
        TypeError: if `before` is no Keras model.
        ValueError: if it lacks a weight that is pruned.
    """
    if before is not None and not isinstance(before, keras.Layer):
        raise TypeError(f"`before` must be a Keras 3 model or layer. Received: {before!r}.")
    dense = None if before is None else dict(weighted_layers(before))
    pictures = {}
    for path, layer in weighted_layers(model):
        state = getattr(layer, STATE, None)
        if state is None:
            continue
        origins = {
            n: None if dense is None else origin_of(dense, path, n, s.shape)
            for n, s in state.specs.items()
        }
        bands = {name: state.domain.bands(spec) for name, spec in state.specs.items()}
        name = next((name for name, indices in bands.items() if indices is not None), None)
        if name is not None:
            pictures[path] = _picture(state, name, np.asarray(bands[name]), origins[name])
    return pictures


def origin_of(
    dense: Mapping[str, keras.Layer], path: str, name: str, shape: tuple[int, ...]
) -> Tensor:
    """The weight of a layer in the model that pruning started from.

    Args:
        dense: path -> layer of that model.
        path: of the layer.
        name: of the weight, as in the specs of the pruned layer.
        shape: of the weight in the pruned model.

    Raises:
        ValueError: where the model has no such weight.
    """
    layer = dense.get(path)
    variable = None if layer is None else find_variable(layer, name)
    if layer is None or variable is None or tuple(variable.shape) != tuple(shape):
        held = f"layers {list(dense)}" if variable is None else f"shape {tuple(variable.shape)}"
        raise ValueError(
            f"`before` must be the model that pruning started from: it has no `{name}` of shape "
            f"{tuple(shape)} in a layer '{path}'. Received: {held}."
        )
    state = getattr(layer, STATE, None)
    return variable.value if state is None or name not in state.specs else state.effective(name)


def _picture(state: Any, name: str, bands: np.ndarray, origin: Tensor | None) -> BandPicture:
    domain, spec = state.domain, state.specs[name]
    latents = state.latents(name) if origin is None else domain.encode(origin, spec)
    unpruned = _array(domain.stored(latents, spec))
    spatial = domain.decode(latents, spec) if origin is None else origin
    bands, stored = bands.reshape(-1), state.stored(name)
    count = int(bands.max()) + 1
    before, after, limits = magnitudes(bands, count, unpruned, stored)
    return BandPicture(
        names=tuple(map(str, range(count))),
        sizes=np.bincount(bands, minlength=count),
        kept=np.bincount(bands[stored.reshape(-1) != 0], minlength=count),
        before=before,
        after=after,
        limits=limits,
        **_filters(spatial, state.effective(name), spec),
        from_dense=origin is not None,
    )


def _array(tensor: Tensor) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor), np.float32)


def magnitudes(
    bands: np.ndarray, count: int, before: np.ndarray, after: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Count per band and bin how many weights are that large; zeros and NaN are in no bin.

    Args:
        bands: int [n], the band of each weight, in [0, count).
        count: of the bands.
        before, after: [n] in any shape.

    Returns:
        Counts before and after, int [count, 24], and log10 of the ends of the bins.
    """
    step = -(-bands.size // SAMPLE)
    with np.errstate(divide="ignore"):
        logs = [np.log10(np.abs(v.reshape(-1)[::step].astype(float))) for v in (before, after)]
    finite = [np.isfinite(values) for values in logs]
    limits = _limits(np.concatenate([v[f] for v, f in zip(logs, finite, strict=True)]))
    low, high = limits
    counts = []
    for values, real in zip(logs, finite, strict=True):
        bins = np.floor((values[real] - low) / (high - low) * BINS).clip(0, BINS - 1).astype(int)
        cells = bands[::step][real] * BINS + bins
        counts.append(np.bincount(cells, minlength=count * BINS).reshape(count, BINS))
    return counts[0], counts[1], limits


def _limits(logs: np.ndarray) -> tuple[float, float]:
    if not logs.size:
        return -1.0, 0.0
    low, high = float(np.quantile(logs, TAIL)), float(logs.max())
    return (low, high) if high - low > 1e-3 else (low - 0.5, high + 0.5)


def _filters(before: Tensor, after: Tensor, spec: Any) -> dict[str, np.ndarray]:
    """The kernels of largest norm after pruning, before and after, float32 [n, kh, kw]."""
    sizes = extent(spec)
    if len(sizes) != 2:
        empty = np.zeros((0, 1, 1), np.float32)
        return {"filters_before": empty, "filters_after": empty}
    flat_before, flat_after = (
        np.nan_to_num(_array(canonical(tensor, spec)).reshape(sizes[0] * sizes[1], -1))
        for tensor in (before, after)
    )
    largest = np.argsort(-np.linalg.norm(flat_after, axis=0), kind="stable")[:FILTERS]
    return {
        "filters_before": flat_before[:, largest].T.reshape(-1, *sizes),
        "filters_after": flat_after[:, largest].T.reshape(-1, *sizes),
    }
