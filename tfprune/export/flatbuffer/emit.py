"""Ops of a graph that is being written: a method adds what it names and returns its output."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfprune.export.flatbuffer.file import FlatFile

NONE = 0  # no fused activation


class Emitter:
    """Adds float32 ops to `ops`; equal constants become a single tensor.

    Tensors are named by their index in the graph; images have the shape [1, h, w, c]. `activation`
    is a value of `ActivationFunctionType`, `output` the tensor to write, None for a new one.
    """

    def __init__(self, file: FlatFile, graph: Any) -> None:
        self.file, self.graph = file, graph
        self.ops: list[Any] = []
        self.same, self.valid = file.schema.Padding.SAME, file.schema.Padding.VALID
        self._constants: dict[tuple[Any, ...], int] = {}

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Sizes of a tensor."""
        return tuple(int(n) for n in self.graph.tensors[tensor].shape)

    def constant(self, values: np.ndarray) -> int:
        """A constant tensor, int32 where the values are, else float32."""
        types = self.file.schema.TensorType
        kind = types.INT32 if values.dtype == np.int32 else types.FLOAT32
        key = (kind, values.shape, values.tobytes())
        if key not in self._constants:
            self._constants[key] = self.file.add_constant(
                self.graph, values.shape, values, type=kind
            )
        return self._constants[key]

    def op(
        self,
        kind: str,
        inputs: list[int],
        shape: tuple[int, ...],
        output: int | None = None,
        version: int = 1,
        **options: Any,
    ) -> int:
        """Add an op.

        Args:
            kind: the builtin op's name, such as "CONV_2D".
            inputs: tensors.
            shape: of its output.
            output: see the class.
            version: of the op.
            options: fields of the op's options.
        """
        result = self.file.add_tensor(self.graph, shape) if output is None else output
        self.ops.append(self.file.add_op(kind, version, inputs, [result], **options))
        return result

    def pointwise(
        self,
        x: int,
        weights: np.ndarray,
        bias: np.ndarray | None = None,
        activation: int = NONE,
        output: int | None = None,
    ) -> int:
        """A 1x1 convolution of an image.

        Args:
            x: the image.
            weights: [cout, cin].
            bias: [cout]; None for zeros.
            activation, output: see the class.
        """
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
        """A depthwise filter, centred on every stride-th pixel.

        Args:
            x: the image.
            filt: [k, k], the same for all channels, or [k, k, c]; k odd.
            stride: in both directions.
            bias: [c]; None for zeros.
            activation, output: see the class.
        """
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

    def pad(self, x: int, width: int) -> int:
        """`width` zeros on all four sides: a PAD for each reader, as XNNPACK folds only such."""
        n, h, w, channels = self.shape(x)
        amounts = np.array([[0, 0], [width, width], [width, width], [0, 0]], np.int32)
        shape = (n, h + 2 * width, w + 2 * width, channels)
        return self.op("PAD", [x, self.constant(amounts)], shape)

    def add(self, x: int, y: int, activation: int = NONE, output: int | None = None) -> int:
        """The sum x + y."""
        return self.op("ADD", [x, y], self.shape(x), output, fusedActivationFunction=activation)

    def joined(self, images: list[int]) -> int:
        """A concatenation of the channels of images."""
        if len(images) == 1:
            return images[0]
        channels = sum(self.shape(x)[3] for x in images)
        shape = (*self.shape(images[0])[:3], channels)
        return self.op("CONCATENATION", images, shape, axis=3, fusedActivationFunction=NONE)

    def reshaped(self, x: int, shape: tuple[int, ...], output: int | None = None) -> int:
        """A reshaped tensor; the first axis is left open for other batches."""
        new = np.array([-1, *shape[1:]], np.int32)
        return self.op("RESHAPE", [x, self.constant(new)], shape, output, newShape=new)

    def total(self, terms: list[int], activation: int = NONE, output: int | None = None) -> int:
        """The sum of two or more images."""
        subtotal = terms[0]
        for term in terms[1:-1]:
            subtotal = self.add(subtotal, term)
        return self.add(subtotal, terms[-1], activation, output)

    def bias(self, values: np.ndarray | None, size: int) -> int:
        """A constant of that many values; zeros for None."""
        values = np.zeros(size) if values is None else values
        return self.constant(np.ascontiguousarray(values, np.float32))
