"""Convolutions as dense layers of 1x4 blocks, whose zeros TFLite's own kernel skips.

    y = K (*) x = W . [B[1] * x, ..., B[f] * x]

B[f] * x are depthwise convolutions (a basis of the DCT or a shift each), joined, and W is a
FULLY_CONNECTED [cout, f cin] whose weights are stored in blocks of four neighbouring inputs,
without those that are all zeros. That kernel takes float32 alone. Any op may stand around such a
layer.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tfprune.export.flatbuffer.emit import Emitter
from tfprune.export.flatbuffer.file import FlatFile
from tfprune.export.flatbuffer.layer_form import LayerForm, layer_name
from tfprune.export.flatbuffer.pack import index_vector
from tfprune.export.result import ExportError
from tfprune.export.storage import FLOAT32, STORAGES, Storage
from tfprune.export.targets.dense import dense
from tfprune.export.targets.target import Built, Target, listed
from tfprune.export.verify.runtime import Sample
from tfprune.export.view import View
from tfprune.export.xnnpack.region import is_image
from tfprune.export.xnnpack.sums import FILTERS
from tfprune.export.xnnpack.taps import basis_parts

BLOCK = 4
MAX_TIME = 0.9  # time over that of the dense layer, by `cost`, up to which blocks are taken


@dataclasses.dataclass(frozen=True)
class _Blocks:
    """Weights [cout, n], n a multiple of 4, and the filters [kh, kw] of their inputs."""

    weights: np.ndarray
    filters: list[np.ndarray]
    basis: str

    @property
    def kept(self) -> np.ndarray:
        """Mask of the blocks that are not all zeros, bool [cout, n / 4]; at least one is kept."""
        blocks = self.weights.reshape(len(self.weights), -1, BLOCK)
        kept: np.ndarray = np.any(blocks != 0, axis=2)
        kept.flat[0] |= not kept.any()
        return kept


def cost(density: float, outputs: int, filters: int) -> float:
    """Time of the block form over that of the dense layer, about, on a phone's 128-bit SIMD.

    Twice the density of blocks, and what the filters take; fitted to 3x3 layers of 64, 128 and 256
    channels at densities of 0.05 and 0.1, measured with SSE in place of NEON.

    Args:
        density: of blocks, in [0, 1].
        outputs: output channels.
        filters: count of filters, 0 for none.
    """
    return 2 * density + (24 / outputs if filters else 0.1)


def rewrite(data: bytes) -> tuple[bytes, tuple[LayerForm, ...]]:
    """Put every layer of a float32 file in this form where that is faster.

    Returns:
        The file, and the forms of its convolutions and dense layers; those that stay are "dense".
    """
    file = FlatFile(data)
    forms: list[LayerForm] = []
    for graph in file.graphs:
        emit = Emitter(file, graph)
        for op in graph.operators:
            if file.kind(op) in ("CONV_2D", "FULLY_CONNECTED"):
                forms += _written(file, graph, emit, op)
            else:
                emit.ops.append(op)
        graph.operators = emit.ops
        file.drop_unread(graph)
    return file.to_bytes(), tuple(forms)


def _written(file: FlatFile, graph: Any, emit: Emitter, op: Any) -> list[LayerForm]:
    """Write a layer in whichever form, and say which."""
    kernel = file.constant(graph.tensors[int(op.inputs[1])])
    if kernel is None:
        emit.ops.append(op)
        return []
    blocks = _blocks(file, graph, op, kernel)
    name, size = layer_name(graph, op), kernel.size * 4
    macs = kernel.size * int(np.prod(emit.shape(int(op.outputs[0]))[1:-1]))
    if isinstance(blocks, str):
        emit.ops.append(op)
        density = float(np.mean(kernel != 0))
        return [LayerForm(name, "dense", density, size, size, blocks, macs)]
    _write(file, graph, emit, op, blocks)
    density = float(blocks.kept.mean())
    time = cost(density, len(kernel), len(blocks.filters))
    filters = f"{len(blocks.filters)} {FILTERS[blocks.basis]}, " if blocks.filters else ""
    note = f"{filters}{density:.3f} of the blocks, about {time:.2f} of the dense time on phones"
    stored = int(blocks.kept.sum()) * (BLOCK * 4 + 2) + 4 * len(kernel)
    return [LayerForm(name, "blocks", density, size, stored, note, macs, time)]


def _blocks(file: FlatFile, graph: Any, op: Any, kernel: np.ndarray) -> _Blocks | str:
    """A layer's blocks, or why it stays dense."""
    cin = kernel.shape[-1]
    if cin % BLOCK:
        return f"its {cin} input channels are no multiple of {BLOCK}"
    if file.kind(op) == "FULLY_CONNECTED":
        candidates = [_Blocks(kernel, [], "spatial")]
    else:
        if not is_image(graph, int(op.inputs[0])):
            return "its input has open sizes"
        if int(graph.tensors[int(op.inputs[0])].shape[3]) != cin:
            return "it has groups"
        candidates = _of_convolution(kernel, op)
    best = min(candidates, key=lambda blocks: blocks.kept.sum())
    density = float(best.kept.mean())
    if cost(density, len(kernel), len(best.filters)) > MAX_TIME:
        return f"{density:.2f} of its 1x4 blocks are not all zeros"
    return best


def _of_convolution(kernel: np.ndarray, op: Any) -> list[_Blocks]:
    """Blocks in the DCT and the spatial basis; a 1x1 convolution of stride 1 needs neither."""
    options = op.builtinOptions
    if kernel.shape[1:3] == (1, 1) and options.strideH == options.strideW == 1:
        return [_Blocks(kernel[:, 0, 0], [], "spatial")]
    candidates = []
    for basis in FILTERS:
        filters, weights = zip(*basis_parts(kernel, basis), strict=True)
        candidates.append(_Blocks(np.concatenate(weights, axis=1), list(filters), basis))
    return candidates


def _write(file: FlatFile, graph: Any, emit: Emitter, op: Any, blocks: _Blocks) -> None:
    x, output = int(op.inputs[0]), int(op.outputs[0])
    shape, outputs = emit.shape(output), len(blocks.weights)
    weights = _block_csr(file, graph, blocks)
    has_bias = len(op.inputs) > 2 and int(op.inputs[2]) >= 0
    bias = int(op.inputs[2]) if has_bias else emit.bias(None, outputs)
    activation = op.builtinOptions.fusedActivationFunction
    options = {"fusedActivationFunction": activation, "weightsFormat": 0}
    if file.kind(op) == "FULLY_CONNECTED":
        keep = op.builtinOptions.keepNumDims
        emit.op(
            "FULLY_CONNECTED", [x, weights, bias], shape, output, 8, keepNumDims=keep, **options
        )
        return
    if blocks.filters:
        x = emit.joined([_filtered(emit, op, x, filt) for filt in blocks.filters])
    pixels = int(np.prod(shape[:3]))
    x = emit.reshaped(x, (pixels, blocks.weights.shape[1]))
    y = emit.op("FULLY_CONNECTED", [x, weights, bias], (pixels, outputs), None, 8, **options)
    emit.reshaped(y, shape, output)


def _filtered(emit: Emitter, op: Any, x: int, filt: np.ndarray) -> int:
    """A depthwise convolution with the windows of `op`."""
    options, channels = op.builtinOptions, emit.shape(x)[3]
    values = np.repeat(filt[None, :, :, None], channels, axis=3).astype(np.float32)
    return emit.op(
        "DEPTHWISE_CONV_2D",
        [x, emit.constant(values), emit.bias(None, channels)],
        (*emit.shape(int(op.outputs[0]))[:3], channels),
        version=2 if max(options.dilationHFactor, options.dilationWFactor) > 1 else 1,
        padding=options.padding,
        strideW=options.strideW,
        strideH=options.strideH,
        dilationWFactor=options.dilationWFactor,
        dilationHFactor=options.dilationHFactor,
        depthMultiplier=1,
        fusedActivationFunction=0,
    )


def _block_csr(file: FlatFile, graph: Any, blocks: _Blocks) -> int:
    """Add the weights as a tensor: rows, columns of blocks (compressed), 4 values."""
    schema, kept = file.schema, blocks.kept
    values_of_blocks = blocks.weights.reshape(*kept.shape, BLOCK)
    sparsity = schema.SparsityParametersT()
    sparsity.traversalOrder = np.arange(3, dtype=np.int32)
    sparsity.blockMap = np.array([1], np.int32)
    dense, columns, block = (schema.DimensionMetadataT() for _ in range(3))
    dense.format, dense.denseSize = schema.DimensionType.DENSE, len(kept)
    columns.format = schema.DimensionType.SPARSE_CSR
    segments = np.concatenate([[0], np.cumsum(kept.sum(1))])
    columns.arraySegmentsType, columns.arraySegments = index_vector(schema, segments)
    columns.arrayIndicesType, columns.arrayIndices = index_vector(schema, np.nonzero(kept)[1])
    block.format, block.denseSize = schema.DimensionType.DENSE, BLOCK
    sparsity.dimMetadata = [dense, columns, block]
    values = np.ascontiguousarray(values_of_blocks[kept], np.float32)
    return file.add_constant(graph, blocks.weights.shape, values, sparsity=sparsity)


def mobile_blocks(view: View, storage: Storage, calibration: list[Sample]) -> Built:
    """Convert, and compute the layers that have 1x4 blocks of zeros by TFLite's block kernel.

    Raises:
        ExportError: where there is no such layer.
    """
    data, layers = rewrite(dense(view, STORAGES["float32"], []).data)
    if not any(layer.form == "blocks" for layer in layers):
        reasons = [f"'{layer.name}': {layer.note}" for layer in layers]
        raise ExportError(
            "No layer of this model gets faster as 1x4 blocks of weights along its inputs. "
            f"Received: {listed(reasons)}. Prune with FrequencyDomain(granularity='input4'), or "
            "use another target."
        )
    return Built(data, layers)


TARGET = Target("mobile-sparse-block", mobile_blocks, FLOAT32)
