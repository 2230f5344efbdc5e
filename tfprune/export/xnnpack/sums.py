"""Convolutions written as sums of filters with 1x1 convolutions (taps.py)."""

from __future__ import annotations

import numpy as np

from tfprune.export.flatbuffer.emit import NONE, Emitter
from tfprune.export.flatbuffer.encoding import smallest
from tfprune.export.flatbuffer.layer_form import LayerForm
from tfprune.export.xnnpack.taps import Part

FILTERS = {"dct": "DCT filters", "spatial": "shifts"}


class Sums:
    """Writes convolutions.

    Attributes:
        norms: tensor of weights -> norms of the output channels over all parts of its convolution,
            [cout]; an error in a part is small or large compared with these.
    """

    def __init__(self, emit: Emitter, storage: str) -> None:
        self.emit, self.storage = emit, storage
        self.norms: dict[int, np.ndarray] = {}

    def write(
        self,
        x: int,
        parts: list[Part],
        stride: int,
        bias: np.ndarray,
        activation: int,
        output: int,
    ) -> None:
        """Write the ops that compute `output` from the image `x`.

        Args:
            x: the image.
            parts: of the kernel, at least one.
            stride: 1 or 2, in both directions.
            bias: [cout].
            activation, output: see `Emitter`.
        """
        if len(parts) == 1:
            self._term(x, parts[0], stride, bias, activation, output)
        else:
            first = self._term(x, parts[0], stride, bias)
            others = [self._term(x, part, stride) for part in parts[1:]]
            self.emit.total([first, *others], activation, output)
        for part, norms in zip(parts, _norms(parts), strict=True):
            self.norms[self.emit.constant(_kernel(part))] = norms

    def _term(
        self,
        x: int,
        part: Part,
        stride: int,
        bias: np.ndarray | None = None,
        activation: int = NONE,
        output: int | None = None,
    ) -> int:
        """A filter and its 1x1 convolution; the filter sees the fewer channels."""
        cout, cin = part.weights.shape
        if part.filter is None:
            return self.emit.pointwise(x, part.weights, bias, activation, output)
        if cout < cin and stride == 1:
            mixed = self.emit.pointwise(x, part.weights)
            return self.emit.depthwise(mixed, part.filter, stride, bias, activation, output)
        filtered = self.emit.depthwise(x, part.filter, stride)
        return self.emit.pointwise(filtered, part.weights, bias, activation, output)

    def form(
        self, name: str, kernel: np.ndarray, parts: list[Part], basis: str, pixels: int
    ) -> LayerForm:
        """Describe the form of a convolution.

        Args:
            name: of the layer.
            kernel: [cout, kh, kw, cin].
            parts, basis: of the kernel, from `taps.parts`.
            pixels: of its output.
        """
        taps = sum(part.filter.size for part in parts if part.filter is not None)
        nonzeros = sum(int(np.count_nonzero(part.weights)) for part in parts)
        density = nonzeros / kernel.size
        time = cost(density, taps / kernel[0, ..., 0].size, min(kernel.shape[0], kernel.shape[3]))
        filters = sum(part.filter is not None for part in parts)
        note = (
            f"{filters} {FILTERS[basis]} and {len(parts)} sparse 1x1 convolutions, about "
            f"{time:.2f} of the dense time on phones"
        )
        size = sum(
            smallest(_kernel(part), self.storage, norms=norms).bytes
            for part, norms in zip(parts, _norms(parts), strict=True)
        )
        form, dense = "filters" if filters else "sparse", kernel.size * 4
        return LayerForm(name, form, density, dense, size, note, kernel.size * pixels, time)


def cost(density: float, taps: float, channels: int) -> float:
    """Time of a convolution in the sparse mode over that of the dense one, on 128-bit SIMD, about.

    1.2 density + 2 taps / channels; fitted to 3x3 layers of 64, 128 and 256 channels at 80 to 98 %
    zeros, measured with SSE in place of NEON.

    Args:
        density: nonzeros of the 1x1 convolutions over elements of the kernel.
        taps: taps of all filters together, over those of the kernel.
        channels: channels that are filtered.
    """
    return 1.2 * density + 2 * taps / channels


def _kernel(part: Part) -> np.ndarray:
    return part.weights[:, None, None, :]


def _norms(parts: list[Part]) -> list[np.ndarray]:
    """Norms [cout] of the output channels over all parts, per part in units of that part."""
    energies = [1.0 if p.filter is None else float(np.square(p.filter).sum()) for p in parts]
    squares = [
        energy * np.square(part.weights, dtype=np.float64).sum(axis=1)
        for energy, part in zip(energies, parts, strict=True)
    ]
    total = np.sqrt(np.sum(squares, axis=0))
    return [total / np.sqrt(energy) for energy in energies]
