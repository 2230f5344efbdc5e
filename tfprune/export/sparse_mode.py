"""XNNPACK's sparse mode: where a phone's runtime would rewrite a graph that holds sparse weights.

With weights behind DENSIFY, and on processors without AVX, XNNPACK looks for an entry (a 3x3
convolution of stride 2 on 3 channels, padded by 1 on all sides) and computes what follows in
another layout, down to a global mean. An op in between that it cannot compute in that layout reads
it as if it were the usual one: the results are wrong, without a word. So no file with sparse
weights may hold such an entry, unless all that follows is known to be computed right.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfprune.export.flat import FlatFile

SINKS = ("MEAN", "SUM", "AVERAGE_POOL_2D", "DEPTH_TO_SPACE")


def entries(data: bytes) -> list[str]:
    """The ops that would open XNNPACK's sparse mode in this graph, if weights were sparse."""
    file = FlatFile(data)
    return [
        f"'{graph.tensors[int(op.outputs[0])].name.decode()}' (3x3, stride 2, 3 channels)"
        for graph in file.graphs
        if any(file.kind(op) in SINKS for op in graph.operators)
        for op in graph.operators
        if _opens(file, graph, op)
    ]


def _opens(file: FlatFile, graph: Any, op: Any) -> bool:
    if file.kind(op) != "CONV_2D":
        return False
    options, weights = op.builtinOptions, graph.tensors[int(op.inputs[1])]
    fits = [int(n) for n in weights.shape[1:]] == [3, 3, 3]
    if not fits or (options.strideH, options.strideW) != (2, 2):
        return False
    if options.padding == file.schema.Padding.SAME:  # of stride 2, which XNNPACK does not resolve
        return False
    return any(_pads_by_one(file, graph, other, op) for other in graph.operators)


def _pads_by_one(file: FlatFile, graph: Any, pad: Any, op: Any) -> bool:
    if file.kind(pad) not in ("PAD", "PADV2") or int(pad.outputs[0]) != int(op.inputs[0]):
        return False
    data = file.model.buffers[graph.tensors[int(pad.inputs[1])].buffer].data
    if data is None:
        return True
    amounts = np.frombuffer(bytes(data), np.int32).reshape(-1, 2)
    return bool((amounts[1:3] == 1).all())
