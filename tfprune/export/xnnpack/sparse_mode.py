"""XNNPACK's sparse mode: where a phone's runtime would rewrite a graph that holds sparse weights.

With weights behind DENSIFY, and on processors without AVX, XNNPACK looks for an entry (a 3x3
convolution of stride 2 on 3 channels, padded by 1 on all sides) and computes what follows in
another layout, down to a global mean. An op in between that it cannot compute in that layout reads
it as if it were the usual layout: the results are wrong, and nothing tells so. No file with sparse
weights may hold such an entry, unless all that follows is sure to be computed right.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tfprune.export.flatbuffer.file import FlatFile
from tfprune.export.xnnpack.region import PADS, describe, links

SINKS = ("MEAN", "SUM", "AVERAGE_POOL_2D", "DEPTH_TO_SPACE")
POINTWISE = ("RELU", "RELU6", "RELU_N1_TO_1", "HARD_SWISH", "LOGISTIC", "TANH")
UNPACKING = ("DENSIFY", "DEQUANTIZE")
MIN_ZEROS = 2 / 3  # of the weights of 1x1 convolutions; XNNPACK's own limit


@dataclasses.dataclass(frozen=True)
class Finding:
    """What XNNPACK would do with a file.

    Attributes:
        entries: the ops with which the mode begins.
        violations: a sentence on every op between an entry and the means that it would get wrong.
        zeros: fraction of zeros in the 1x1 convolutions in between.
    """

    entries: tuple[str, ...]
    violations: tuple[str, ...]
    zeros: float

    @property
    def runs(self) -> bool:
        """Whether all from an entry to the means is computed in the mode, and right."""
        return bool(self.entries) and not self.violations and self.zeros > MIN_ZEROS


def check(data: bytes) -> Finding:
    """Follow every entry of a file, with dense or sparse weights, down to the means."""
    file = FlatFile(data)
    entries, violations, weights, zeros = [], [], 0, 0
    for graph in file.graphs:
        view = _Graph(file, graph)
        for op in graph.operators:
            if view.is_sparse_entry(op):
                entries.append(view.name(op))
        region = view.region()
        violations += view.violations(region)
        for op in region:
            if file.kind(op) == "CONV_2D" and not view.is_sparse_entry(op):
                count, kept = view.weights(op)
                weights, zeros = weights + count, zeros + count - kept
    return Finding(tuple(entries), tuple(violations), zeros / weights if weights else 0.0)


class _Graph:
    """A graph as XNNPACK sees it."""

    def __init__(self, file: FlatFile, graph: Any) -> None:
        self.file, self.graph = file, graph
        self.made_by, self.read_by = links(graph)

    def name(self, op: Any) -> str:
        """Kind and layer of an op, as text."""
        return describe(self.file, self.graph, op)

    def is_sparse_entry(self, op: Any) -> bool:
        """Whether an op is a 3x3 convolution of stride 2 on 3 channels, padded by 1."""
        if self.file.kind(op) != "CONV_2D" or self._shape(op.inputs[1])[1:] != (3, 3, 3):
            return False
        return self._strides(op) == (2, 2) and self._padding(op) == 1

    def region(self) -> list[Any]:
        """Entries, and what they lead to, the means included."""
        reached: set[int] = set()
        ops = []
        for op in self.graph.operators:
            if self.is_sparse_entry(op) or reached & {int(n) for n in op.inputs}:
                ops.append(op)
                if not self._ends(op):
                    reached |= {int(n) for n in op.outputs}
        return ops

    def violations(self, region: list[Any]) -> list[str]:
        """Sentences on what of a region is not computed in the mode, or read by what is not."""
        inside = {int(n) for op in region for n in op.outputs}
        results = {int(n) for n in self.graph.outputs}
        violations = []
        for op in region:
            if self.is_sparse_entry(op):
                pass
            elif not self._fits(op):
                violations.append(f"{self.name(op)} has no form in the mode")
            elif any(n not in inside and not self._constant(n) for n in map(int, op.inputs)):
                violations.append(f"{self.name(op)} also reads what is computed outside")
            if not self._ends(op) and results & {int(n) for n in op.outputs}:
                violations.append(f"{self.name(op)} is read from outside")
        if region and not any(self._ends(op) for op in region):
            violations.append("no global mean ends it")
        return violations

    def weights(self, op: Any) -> tuple[int, int]:
        """Weights and nonzero weights of a convolution, as counts."""
        index = int(op.inputs[1])
        while index in self.made_by:
            index = int(self.made_by[index].inputs[0])
        tensor = self.graph.tensors[index]
        values = self.file.values(tensor)
        return int(np.prod(tensor.shape)), int(np.count_nonzero(values))

    def _fits(self, op: Any) -> bool:
        kind = self.file.kind(op)
        if kind in PADS:
            behind = self.read_by.get(int(op.outputs[0]), [])
            windows = ("CONV_2D", "DEPTHWISE_CONV_2D")
            return len(behind) == 1 and self.file.kind(behind[0]) in windows
        if kind == "CONV_2D":
            shape, fed = self._shape(op.inputs[1]), self._shape(op.inputs[0])
            plain = shape[1:3] == (1, 1) and self._strides(op) == (1, 1)
            return plain and fed[3] == shape[3] and self._padding(op) == 0
        if kind == "DEPTHWISE_CONV_2D":
            return self._depthwise_fits(op)
        if kind in ("ADD", "MUL"):
            shapes = [self._shape(n) for n in op.inputs]
            has_constant = any(self._constant(int(n)) for n in op.inputs)
            return not has_constant and shapes[0] == shapes[1] and len(shapes[0]) == 4
        return kind in POINTWISE or self._ends(op)

    def _depthwise_fits(self, op: Any) -> bool:
        _, height, width, channels = self._shape(op.inputs[1])
        stride, options = self._strides(op), op.builtinOptions
        plain = options.dilationHFactor == options.dilationWFactor == 1
        single = options.depthMultiplier <= 1 and channels == self._shape(op.inputs[0])[3]
        square = height == width and height in (3, 5) and stride in ((1, 1), (2, 2))
        return plain and single and square and self._padding(op) == height // 2

    def _ends(self, op: Any) -> bool:
        if self.file.kind(op) != "MEAN" or op.builtinOptions.keepDims:
            return False
        axes = self.file.integers(self.graph.tensors[int(op.inputs[1])])
        return axes is not None and sorted(int(n) % 4 for n in axes.ravel()) == [1, 2]

    def _padding(self, op: Any) -> int | None:
        """Zeros on all four sides, None where they differ or XNNPACK leaves them open."""
        same = op.builtinOptions.padding == self.file.schema.Padding.SAME
        height, width = self._shape(op.inputs[1])[1:3]
        if same and self._strides(op) != (1, 1):
            return 0 if (height, width) == (1, 1) else None
        if same:
            return height // 2 if height == width and height % 2 else None
        pad = self.made_by.get(int(op.inputs[0]))
        if pad is None or self.file.kind(pad) not in PADS:
            return 0
        amounts = self.file.integers(self.graph.tensors[int(pad.inputs[1])])
        if amounts is None:
            return 1
        sides = amounts.reshape(-1, 2)[1:3]
        return int(sides.flat[0]) if (sides == sides.flat[0]).all() else None

    def _strides(self, op: Any) -> tuple[int, int]:
        return op.builtinOptions.strideH, op.builtinOptions.strideW

    def _shape(self, tensor: Any) -> tuple[int, ...]:
        return tuple(int(n) for n in self.graph.tensors[int(tensor)].shape)

    def _constant(self, tensor: int) -> bool:
        """Whether a tensor is held in the file, as it is or as CSR."""
        while tensor in self.made_by and self.file.kind(self.made_by[tensor]) in UNPACKING:
            tensor = int(self.made_by[tensor].inputs[0])
        if tensor < 0:
            return True
        data = self.file.model.buffers[self.graph.tensors[tensor].buffer].data
        return data is not None and len(data) > 0
