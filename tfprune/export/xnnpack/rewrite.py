"""The form for phones: a graph rewritten to what XNNPACK's sparse mode computes.

Its ops are 1x1 convolutions, depthwise 3x3 and 5x5 filters centred on the pixel, sums, products
and pointwise functions, between an entry (a 3x3 convolution of stride 2 on 3 channels) and a
global mean.

    k x k convolution               filters, sparse 1x1 convolutions, sums (taps.py)
    stride 2                        a filter of stride 2 with a padding of its own, PAD(r) + VALID
    stride-2 average pool, slice    a filter of stride 2
    product or sum with constants   a filter with a single tap
    concatenation, padded channels  1x1 convolutions that move channels, and their sum
    no entry                        nearest upsampling by 2, and an entry that undoes it
    mean that keeps its axes, pool of all pixels    mean and reshape
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from tfprune.export.flatbuffer.emit import NONE, Emitter
from tfprune.export.flatbuffer.file import FlatFile
from tfprune.export.flatbuffer.layer_form import LayerForm, layer_name
from tfprune.export.xnnpack.entry import Entry
from tfprune.export.xnnpack.region import Region, describe, find_region, is_global_mean, is_image
from tfprune.export.xnnpack.sparse_mode import POINTWISE
from tfprune.export.xnnpack.sums import Sums
from tfprune.export.xnnpack.taps import at_least_three, centred, middle, parts
from tfprune.export.xnnpack.windows import Unsupported, Windows

ACTIVATIONS = {1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6"}  # of `ActivationFunctionType`


@dataclasses.dataclass(frozen=True)
class Rewritten:
    """A file in the form for phones.

    Attributes:
        file: the file, with dense float32 weights still; of no use if there are violations.
        norms: tensor of weights -> norms [cout] that errors are to be compared with.
        layers: forms of its convolutions.
        violations: sentences on what stands in the way.
    """

    file: FlatFile
    norms: dict[int, np.ndarray]
    layers: tuple[LayerForm, ...]
    violations: tuple[str, ...]


def rewrite(data: bytes, storage: str) -> Rewritten:
    """Put a file in the form for phones.

    Args:
        data: a float32 `.tflite` file as converted.
        storage: type that the values will have, "float32", "float16" or "int8".
    """
    file = FlatFile(data)
    if len(file.graphs) > 1:
        return Rewritten(file, {}, (), ("the model holds loops or branches",))
    region = find_region(file, file.graphs[0])
    if isinstance(region, str):
        return Rewritten(file, {}, (), (region,))
    rewriter = _Rewriter(file, file.graphs[0], region, storage)
    rewriter.run()
    violations = (*region.violations, *rewriter.violations)
    return Rewritten(file, rewriter.sums.norms, tuple(rewriter.layers), violations)


class _Rewriter:
    """Writes the ops of a region anew, in order."""

    def __init__(self, file: FlatFile, graph: Any, region: Region, storage: str) -> None:
        self.file, self.graph, self.region = file, graph, region
        self.emit = Emitter(file, graph)
        self.windows = Windows(self.emit, region.made_by)
        self.entry = Entry(self.emit, self.windows, region)
        self.violations: list[str] = []
        self.sums = Sums(self.emit, storage)
        self.layers: list[LayerForm] = []
        self.zeros: set[int] = set()  # images that are nothing but zeros
        self.rules: dict[str, Callable[[Any], None]] = {
            "CONV_2D": self._convolution,
            "DEPTHWISE_CONV_2D": self._depthwise,
            "AVERAGE_POOL_2D": self._average,
            "STRIDED_SLICE": self._slice,
            "CONCATENATION": self._concatenation,
            "PAD": self._pad,
            "PADV2": self._pad,
            "ADD": self._sum,
            "SUB": self._affine,
            "MUL": self._sum,
            "MEAN": self._mean,
        }

    def run(self) -> None:
        """Replace the ops of the region by new ops."""
        inside = {id(op) for op in self.region.ops}
        first = next(i for i, op in enumerate(self.graph.operators) if id(op) in inside)
        self.image = self.entry.image()
        for op in self.region.ops:
            kind = self.file.kind(op)
            try:
                if not is_image(self.graph, self._read(op)):
                    raise Unsupported("its input is no image of fixed size")
                if kind in self.rules:
                    self.rules[kind](op)
                elif kind in POINTWISE:
                    self._keep(op)
                else:
                    raise Unsupported("the sparse mode has no such op")
            except (Unsupported, ValueError) as error:
                self.violations.append(f"{describe(self.file, self.graph, op)}: {error}")
        before = self.graph.operators[:first]
        after = [op for op in self.graph.operators[first:] if id(op) not in inside]
        self.graph.operators = [*before, *self.emit.ops, *after]
        self.file.drop_unread(self.graph)

    def _read(self, op: Any) -> int:
        """The first input that is computed: constants may come before it, as in 1 - x."""
        tensors = [int(n) for n in op.inputs]
        computed = (n for n in tensors if self.file.constant(self.graph.tensors[n]) is None)
        return next(computed, tensors[0])

    def _convolution(self, op: Any) -> None:
        kernel = self.windows.constant(int(op.inputs[1]))
        cout, _, _, cin = kernel.shape
        bias, output = self.windows.bias(op, cout), int(op.outputs[0])
        activation = op.builtinOptions.fusedActivationFunction
        if self.entry.is_of_model and self.windows.of(op)[0] == self.region.source:
            shape = self.emit.shape(output)
            padded = self.emit.pad(self.image, 1)
            self.entry.write(padded, kernel, bias, shape, activation, output)
            return
        x, top, left, stride = self._checked(op)
        if self.emit.shape(x)[3] != cin:
            raise Unsupported("it has groups")
        name = layer_name(self.graph, op)
        kernel_parts, basis = parts(kernel, top, left, stride)
        self.sums.write(x, kernel_parts, stride, bias, activation, output)
        pixels = int(np.prod(self.emit.shape(output)[1:3]))
        self.layers.append(self.sums.form(name, kernel, kernel_parts, basis, pixels))

    def _checked(self, op: Any) -> tuple[int, int, int, int]:
        source, top, left, stride = self.windows.checked(op)
        return self._at(source), top, left, stride

    def _at(self, tensor: int) -> int:
        """The tensor of the new graph that holds what `tensor` held in the old graph."""
        return self.image if tensor == self.region.source else tensor

    def _depthwise(self, op: Any) -> None:
        kernel = self.windows.constant(int(op.inputs[1]))[0]
        x, top, left, stride = self._checked(op)
        if op.builtinOptions.depthMultiplier > 1 or self.emit.shape(x)[3] != kernel.shape[2]:
            raise Unsupported("it makes several outputs of a channel")
        filt = _centred_channels(kernel, top, left)
        output, activation = int(op.outputs[0]), op.builtinOptions.fusedActivationFunction
        bias = self.windows.bias(op, kernel.shape[2])
        self.emit.depthwise(x, filt, stride, bias, activation, output)

    def _average(self, op: Any) -> None:
        if is_global_mean(self.file, self.graph, op):
            return self._mean(op)
        options, output = op.builtinOptions, int(op.outputs[0])
        sizes = self.windows.kernel_size(op)
        if options.padding == self.emit.same and any(
            self.windows.zeros(op, axis) for axis in (0, 1)
        ):
            raise Unsupported("it averages fewer pixels at the edges")
        x, top, left, stride = self._checked(op)
        filt = at_least_three(centred(np.full(sizes, 1 / (sizes[0] * sizes[1])), top, left))
        activation = options.fusedActivationFunction
        self.emit.depthwise(x, filt, stride, None, activation, output)

    def _slice(self, op: Any) -> None:
        begin, _, strides = (self.windows.integers(int(n)) for n in op.inputs[1:4])
        source, output = int(op.inputs[0]), int(op.outputs[0])
        shape, sliced = self.emit.shape(source), self.emit.shape(output)
        steps = [int(n) for n in strides.ravel()] + [1] * (4 - strides.size)
        masks = op.builtinOptions
        starts = [0 if masks.beginMask >> i & 1 else int(n) for i, n in enumerate(begin.ravel())]
        every = (1, -(-shape[1] // 2), -(-shape[2] // 2), shape[3])
        special = masks.ellipsisMask or masks.newAxisMask or masks.shrinkAxisMask
        if steps != [1, 2, 2, 1] or any(starts) or sliced != every or special:
            raise Unsupported("it takes other pixels than every second")
        self.emit.depthwise(self._at(source), middle(np.ones(shape[3])), 2, output=output)

    def _concatenation(self, op: Any) -> None:
        if op.builtinOptions.axis not in (-1, 3):
            raise Unsupported("it does not join channels")
        output, begin = int(op.outputs[0]), 0
        cout, terms = self.emit.shape(output)[3], []
        for tensor in (int(n) for n in op.inputs):
            channels = self.emit.shape(tensor)[3]
            if tensor not in self.zeros:
                self._refuse_constant(tensor)
                terms.append((self._at(tensor), _shift_of_channels(cout, channels, begin)))
            begin += channels
        self._pointwise_sum(terms, output, op.builtinOptions.fusedActivationFunction)

    def _pad(self, op: Any) -> None:
        """Pad the image as part of the convolutions behind, and channels by a 1x1 convolution."""
        amounts = self.windows.amounts(op)
        if not amounts[0].any() and not amounts[3].any():
            behind = self.region.read_by.get(int(op.outputs[0]), [])
            windows = ("CONV_2D", "DEPTHWISE_CONV_2D")
            for reader in behind:
                fits = self.file.kind(reader) in windows
                if not fits or reader.builtinOptions.padding != self.emit.valid:
                    raise Unsupported(
                        f"it is read by {describe(self.file, self.graph, reader)}, and only "
                        "convolutions take padding into themselves"
                    )
            return
        if amounts[:3].any():
            raise Unsupported("it pads channels and pixels at once")
        source, output = int(op.inputs[0]), int(op.outputs[0])
        channels, cout = self.emit.shape(source)[3], self.emit.shape(output)[3]
        weights = _shift_of_channels(cout, channels, int(amounts[3, 0]))
        self._pointwise_sum([(self._at(source), weights)], output)

    def _pointwise_sum(
        self, terms: list[tuple[int, np.ndarray]], output: int, activation: int = NONE
    ) -> None:
        if len(terms) == 1:
            self.emit.pointwise(*terms[0], activation=activation, output=output)
            return
        if not terms:
            raise Unsupported("all that it joins are zeros")
        self.emit.total([self.emit.pointwise(*term) for term in terms], activation, output)

    def _sum(self, op: Any) -> None:
        tensors = [int(n) for n in op.inputs]
        if any(self.file.constant(self.graph.tensors[n]) is not None for n in tensors):
            return self._affine(op)
        shapes = {self.emit.shape(n) for n in tensors}
        if len(shapes) > 1:
            raise Unsupported(f"its inputs have several shapes, {sorted(shapes)}")
        self._keep(op)

    def _keep(self, op: Any) -> None:
        op.inputs = [self._at(int(n)) for n in op.inputs]
        self.emit.ops.append(op)

    def _affine(self, op: Any) -> None:
        """x * a, x + a, x - a, a - x: a filter with a single tap, and a bias."""
        kind, tensors = self.file.kind(op), [int(n) for n in op.inputs]
        values = [self.file.constant(self.graph.tensors[n]) for n in tensors]
        constants = [value for value in values if value is not None]
        if len(constants) != 1:
            raise Unsupported("the sparse mode has no differences")
        position = 0 if values[1] is not None else 1
        source, output = tensors[position], int(op.outputs[0])
        shape, channels = self.emit.shape(source), self.emit.shape(source)[3]
        size = constants[0].size
        if size > 1 and (size, constants[0].shape[-1]) != (channels, channels):
            raise Unsupported("its constant is neither a scalar nor a value per channel")
        if self.emit.shape(output) != shape:
            raise Unsupported("it makes another shape than it reads")
        constant = np.broadcast_to(constants[0].ravel(), (channels,)).astype(np.float32)
        ones = np.ones(channels, np.float32)
        scale, bias = {
            "MUL": (constant, None),
            "ADD": (ones, constant),
            "SUB": (ones, -constant) if position == 0 else (-ones, constant),
        }[kind]
        activation = op.builtinOptions.fusedActivationFunction
        if kind == "MUL" and not constant.any() and self._only_joined(output):
            self.zeros.add(output)
            return
        self.emit.depthwise(self._at(source), middle(scale), 1, bias, activation, output)

    def _only_joined(self, tensor: int) -> bool:
        behind = self.region.read_by.get(tensor, [])
        return all(self.file.kind(op) == "CONCATENATION" for op in behind)

    def _mean(self, op: Any) -> None:
        if not is_global_mean(self.file, self.graph, op):
            raise Unsupported("it is not over height and width")
        source, output = int(op.inputs[0]), int(op.outputs[0])
        n, _, _, channels = self.emit.shape(source)
        axes = self.emit.constant(np.array([1, 2], np.int32))
        inputs = [self._at(source), axes]
        if self.file.kind(op) == "MEAN" and not op.builtinOptions.keepDims:
            self.emit.op("MEAN", inputs, (n, channels), output, keepDims=False)
            return
        flat = self.emit.op("MEAN", inputs, (n, channels), keepDims=False)
        activation = getattr(op.builtinOptions, "fusedActivationFunction", NONE)
        if activation != NONE:
            if activation not in ACTIVATIONS:
                raise Unsupported("its activation has no op of its own")
            flat = self.emit.op(ACTIVATIONS[activation], [flat], (n, channels))
        self.emit.reshaped(flat, (n, 1, 1, channels), output)

    def _refuse_constant(self, tensor: int) -> None:
        if tensor != self.region.source and tensor not in self.region.made_by:
            raise Unsupported("it joins constants")


def _shift_of_channels(cout: int, channels: int, begin: int) -> np.ndarray:
    """Weights [cout, channels] that move channels to `begin` and behind."""
    weights = np.zeros((cout, channels), np.float32)
    weights[begin + np.arange(channels), np.arange(channels)] = 1
    return weights


def _centred_channels(kernel: np.ndarray, top: int, left: int) -> np.ndarray:
    """A kernel [kh, kw, c] as a filter [3, 3, c] or [5, 5, c]."""
    whole = at_least_three(centred(np.any(kernel, axis=2).astype(np.float32), top, left))
    size = whole.shape[0]
    filt = np.zeros((size, size, kernel.shape[2]), np.float32)
    y, x = np.nonzero(np.any(kernel, axis=2))
    filt[y - top + size // 2, x - left + size // 2] = kernel[y, x]
    return filt
