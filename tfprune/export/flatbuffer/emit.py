"""Ops of a graph that is being written: each method adds what it names and returns its output."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfprune.export.flatbuffer.file import FlatFile

NONE = 0  # no fused activation


class Emitter:
    """Adds float32 ops to `ops`; equal constants become one tensor.

    Images are tensors of shape [1, h, w, c], named by their numbers. `activation` is a number of
    `ActivationFunctionType`.
    """

    def __init__(self, file: FlatFile, graph: Any) -> None:
        self.file, self.graph = file, graph
        self.ops: list[Any] = []
        self.same, self.valid = file.schema.Padding.SAME, file.schema.Padding.VALID
        self._known: dict[tuple[Any, ...], int] = {}

    def shape(self, number: int) -> tuple[int, ...]:
        """Of a tensor."""
        return tuple(int(n) for n in self.graph.tensors[number].shape)

    def constant(self, values: np.ndarray) -> int:
        """A float32 or int32 tensor."""
        types = self.file.schema.TensorType
        kind = types.INT32 if values.dtype == np.int32 else types.FLOAT32
        key = (kind, values.shape, values.tobytes())
        if key not in self._known:
            self._known[key] = self.file.add_constant(self.graph, values.shape, values, type=kind)
        return self._known[key]

    def op(
        self,
        kind: str,
        inputs: list[int],
        shape: tuple[int, ...],
        output: int | None = None,
        version: int = 1,
        **options: Any,
    ) -> int:
        """An op that makes a tensor of that shape: `output`, or a new one."""
        made = self.file.add_tensor(self.graph, shape) if output is None else output
        self.ops.append(self.file.add_op(kind, version, inputs, [made], **options))
        return made

    def pointwise(
        self,
        x: int,
        weights: np.ndarray,
        bias: np.ndarray | None = None,
        activation: int = NONE,
        output: int | None = None,
    ) -> int:
        """A 1x1 convolution, weights [cout, cin]."""
        cout, cin = weights.shape
        kernel = self.constant(np.ascontiguousarray(weights, np.float32).reshape(cout, 1, 1, cin))
        return self.op(
            "CONV_2D",
            [x, kernel, self.bias(bias, cout)],
            (*self.shape(x)[:3], cout),
            output,
            padding=self.valid,
            strideW=1,
            strideH=1,
            fusedActivationFunction=activation,
        )

    def depthwise(
        self,
        x: int,
        filt: np.ndarray,
        stride: int = 1,
        bias: np.ndarray | None = None,
        activation: int = NONE,
        output: int | None = None,
    ) -> int:
        """A filter [k, k] of all channels or [k, k, c], k odd, centred on every stride-th pixel."""
        n, h, w, channels = self.shape(x)
        if filt.ndim == 2:
            filt = np.repeat(filt[:, :, None], channels, axis=2)
        if stride > 1:
            x = self.pad(x, filt.shape[0] // 2)
        return self.op(
            "DEPTHWISE_CONV_2D",
            [x, self.constant(filt[None].astype(np.float32)), self.bias(bias, channels)],
            (n, -(-h // stride), -(-w // stride), channels),
            output,
            padding=self.same if stride == 1 else self.valid,
            strideW=stride,
            strideH=stride,
            depthMultiplier=1,
            fusedActivationFunction=activation,
        )

    def pad(self, x: int, rows: int) -> int:
        """Zeros on all four sides: a PAD for each reader, as XNNPACK folds only such."""
        n, h, w, channels = self.shape(x)
        amounts = np.array([[0, 0], [rows, rows], [rows, rows], [0, 0]], np.int32)
        shape = (n, h + 2 * rows, w + 2 * rows, channels)
        return self.op("PAD", [x, self.constant(amounts)], shape)

    def add(self, x: int, y: int, activation: int = NONE, output: int | None = None) -> int:
        """x + y."""
        return self.op("ADD", [x, y], self.shape(x), output, fusedActivationFunction=activation)

    def joined(self, images: list[int]) -> int:
        """The channels of several images, one behind the other."""
        if len(images) == 1:
            return images[0]
        channels = sum(self.shape(x)[3] for x in images)
        shape = (*self.shape(images[0])[:3], channels)
        return self.op("CONCATENATION", images, shape, axis=3, fusedActivationFunction=NONE)

    def reshaped(self, x: int, shape: tuple[int, ...], output: int | None = None) -> int:
        """The same numbers; the first axis is left open for other batches."""
        new = np.array([-1, *shape[1:]], np.int32)
        return self.op("RESHAPE", [x, self.constant(new)], shape, output, newShape=new)

    def total(self, terms: list[int], activation: int = NONE, output: int | None = None) -> int:
        """The sum of two or more."""
        found = terms[0]
        for term in terms[1:-1]:
            found = self.add(found, term)
        return self.add(found, terms[-1], activation, output)

    def bias(self, values: np.ndarray | None, size: int) -> int:
        """A constant; zeros for None."""
        values = np.zeros(size) if values is None else values
        return self.constant(np.ascontiguousarray(values, np.float32))
