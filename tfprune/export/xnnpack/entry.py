"""The entry of XNNPACK's sparse mode: a 3x3 convolution of stride 2 on 3 channels, padded by 1."""

from __future__ import annotations

import numpy as np

from tfprune.export.flatbuffer.emit import NONE, Emitter
from tfprune.export.xnnpack.region import ENTRY_CHANNELS, PADS, Region
from tfprune.export.xnnpack.windows import Unsupported, Windows


class Entry:
    """The entry that a model has, or a new entry that changes nothing.

    Attributes:
        is_of_model: whether the model has it.
    """

    def __init__(self, emit: Emitter, windows: Windows, region: Region) -> None:
        self.emit, self.windows, self.region = emit, windows, region
        self.is_of_model = self._is_of_model()

    def _is_of_model(self) -> bool:
        """Whether the only reader of the image, behind a PAD or not, is such a convolution."""
        readers = self.region.read_by[self.region.source]
        if len(readers) == 1 and self.emit.file.kind(readers[0]) in PADS:
            readers = self.region.read_by.get(int(readers[0].outputs[0]), [])
        try:
            return len(readers) == 1 and self.windows.is_sparse_entry(readers[0])
        except Unsupported:  # a PAD, which is refused where it is rewritten
            return False

    def image(self) -> int:
        """The image itself, or the same image behind a new entry.

        Every pixel is doubled in both directions, and of the four the entry takes the first.
        """
        source, emit = self.region.source, self.emit
        if self.is_of_model:
            return source
        _, h, w, channels = emit.shape(source)
        wide = emit.op(
            "RESIZE_NEAREST_NEIGHBOR",
            [source, emit.constant(np.array([2 * h, 2 * w], np.int32))],
            (1, 2 * h, 2 * w, channels),
            alignCorners=False,
            halfPixelCenters=False,
        )
        if channels < ENTRY_CHANNELS:  # by a PAD of its own: XNNPACK folds none of channels
            amounts = np.zeros((4, 2), np.int32)
            amounts[3, 1] = ENTRY_CHANNELS - channels
            shape = (1, 2 * h, 2 * w, ENTRY_CHANNELS)
            wide = emit.op("PAD", [wide, emit.constant(amounts)], shape)
        padded = emit.pad(wide, 1)
        kernel = np.zeros((channels, 3, 3, ENTRY_CHANNELS), np.float32)
        kernel[range(channels), 1, 1, range(channels)] = 1
        return self.write(padded, kernel, np.zeros(channels), (1, h, w, channels))

    def write(
        self,
        padded: int,
        kernel: np.ndarray,
        bias: np.ndarray,
        shape: tuple[int, ...],
        activation: int = NONE,
        output: int | None = None,
    ) -> int:
        """Write the entry itself.

        Args:
            padded: an image with a line of zeros on each side.
            kernel: [cout, 3, 3, 3].
            bias: [cout].
            shape: of the output.
            activation, output: see `Emitter`.
        """
        constants = [self.emit.constant(a.astype(np.float32)) for a in (kernel, bias)]
        return self.emit.op(
            "CONV_2D",
            [padded, *constants],
            shape,
            output,
            padding=self.emit.valid,
            strideW=2,
            strideH=2,
            fusedActivationFunction=activation,
        )
