"""Positions of the windows of an op: padding in front, of the op itself or of a PAD."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfprune.export.flatbuffer.emit import Emitter
from tfprune.export.xnnpack.region import PADS


class Unsupported(Exception):
    """The reason why an op has no form in the sparse mode."""


class Windows:
    """Reads convolutions and pools of a dense graph.

    Args:
        emit: the emitter of that graph.
        made_by: tensor -> the op that makes it.
    """

    def __init__(self, emit: Emitter, made_by: dict[int, Any]) -> None:
        self.file, self.graph, self.made_by = emit.file, emit.graph, made_by
        self.shape, self.same = emit.shape, emit.same

    def kernel_size(self, op: Any) -> tuple[int, int]:
        """Height and width of the window."""
        if self.file.kind(op) == "AVERAGE_POOL_2D":
            return op.builtinOptions.filterHeight, op.builtinOptions.filterWidth
        shape = self.shape(int(op.inputs[1]))
        return shape[1], shape[2]

    def of(self, op: Any) -> tuple[int, int, int]:
        """Tensor that an op reads, through a PAD, and the zeros above and left of it."""
        source = int(op.inputs[0])
        if op.builtinOptions.padding == self.same:
            top, left = (self.in_front(op, axis) for axis in (0, 1))
            return source, top, left
        pad = self.made_by.get(source)
        if pad is None or self.file.kind(pad) not in PADS:
            return source, 0, 0
        amounts = self.amounts(pad)
        if amounts[0].any() or amounts[3].any():
            return source, 0, 0
        return int(pad.inputs[0]), int(amounts[1, 0]), int(amounts[2, 0])

    def in_front(self, op: Any, axis: int) -> int:
        """Zeros in front that SAME stands for, along height (axis 0) or width (1)."""
        return self.zeros(op, axis) // 2

    def zeros(self, op: Any, axis: int) -> int:
        """Zeros that SAME stands for, in front and behind, along height (axis 0) or width (1)."""
        size, taps = self.shape(int(op.inputs[0]))[1 + axis], self.kernel_size(op)[axis]
        stride = (op.builtinOptions.strideH, op.builtinOptions.strideW)[axis]
        return max((-(-size // stride) - 1) * stride + taps - size, 0)

    def sizes_fit(self, op: Any, source: int) -> bool:
        """Whether the op has an output for every stride-th pixel of `source`, and no more."""
        stride = op.builtinOptions.strideH
        wanted = [-(-n // stride) for n in self.shape(source)[1:3]]
        return wanted == list(self.shape(int(op.outputs[0]))[1:3])

    def checked(self, op: Any) -> tuple[int, int, int, int]:
        """Source, zeros above and left of it, stride.

        Raises:
            Unsupported: where no filter of the sparse mode has such windows.
        """
        options = op.builtinOptions
        if options.strideH != options.strideW or options.strideH > 2:
            raise Unsupported(f"its strides {options.strideH, options.strideW} must be 1 or 2")
        if max(getattr(options, f"dilation{axis}Factor", 1) for axis in "HW") > 1:
            raise Unsupported("it is dilated")
        source, top, left = self.of(op)
        if not self.sizes_fit(op, source):
            raise Unsupported(
                "it makes neither as many pixels as its input has nor every second of them; "
                'use padding="same", and for pools sizes that the stride divides'
            )
        return source, top, left, options.strideH

    def is_sparse_entry(self, op: Any) -> bool:
        """Whether an op is a 3x3 convolution of stride 2 on 3 channels, padded by 1."""
        if self.file.kind(op) != "CONV_2D":
            return False
        source, top, left = self.of(op)
        fits = self.shape(int(op.inputs[1]))[1:] == (3, 3, 3) and (top, left) == (1, 1)
        strides = (op.builtinOptions.strideH, op.builtinOptions.strideW)
        return fits and strides == (2, 2) and self.sizes_fit(op, source)

    def amounts(self, op: Any) -> np.ndarray:
        """Padding amounts of a PAD op, int [4, 2]."""
        amounts = self.integers(int(op.inputs[1]))
        if amounts.shape != (4, 2) or len(op.inputs) > 2:
            raise Unsupported("it pads with something else than zeros")
        return amounts

    def integers(self, tensor: int) -> np.ndarray:
        """Values of a constant int32 tensor."""
        values = self.file.integers(self.graph.tensors[tensor])
        if values is None:
            raise Unsupported("its sizes are no constants")
        return values

    def constant(self, tensor: int) -> np.ndarray:
        """Values of a constant float32 tensor."""
        values = self.file.constant(self.graph.tensors[tensor])
        if values is None:
            raise Unsupported("its weights are no float32 constants")
        return values

    def bias(self, op: Any, channels: int) -> np.ndarray:
        """Bias of a convolution, [channels]; zeros where it has none."""
        has_bias = len(op.inputs) > 2 and int(op.inputs[2]) >= 0
        return self.constant(int(op.inputs[2])) if has_bias else np.zeros(channels, np.float32)
