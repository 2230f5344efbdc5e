"""Constant weights of a `.tflite` file as compressed rows (CSR), which builtin ops unpack at load.

    float32   CSR -> DENSIFY -> weights
    float16   CSR -> DENSIFY -> DEQUANTIZE -> weights
    int8      CSR with scales -> DENSIFY -> DEQUANTIZE -> weights

All compute in float32: no kernel of LiteRT takes sparse weights of another type and gets them
right. Equal tensors are stored once. The converter's own sparsity option is never used.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfprune.export.flatbuffer.encoding import Stored, smallest
from tfprune.export.flatbuffer.file import FlatFile

WEIGHTS_OF = {"CONV_2D": 1, "FULLY_CONNECTED": 1, "DEPTHWISE_CONV_2D": 1}
CHANNELS_OF = {"CONV_2D": 0, "FULLY_CONNECTED": 0, "DEPTHWISE_CONV_2D": 3}


def store(file: FlatFile, storage: str, norms: Mapping[int, np.ndarray] | None = None) -> bytes:
    """Write the file with the weights of its convolutions and dense layers in their smallest form.

    Args:
        file: a file with float32 weights; it is changed.
        storage: type of the values, "float32", "float16" or "int8".
        norms: tensor of weights -> [output channels], see `encoding.smallest`; for files with a
            single graph.
    """
    for graph in file.graphs:
        _Packer(file, graph, storage, norms or {}).run()
    return file.to_bytes()


@dataclasses.dataclass
class _Packer:
    """Replaces the weights of one graph."""

    file: FlatFile
    graph: Any
    storage: str
    norms: Mapping[int, np.ndarray]

    def run(self) -> None:
        """Replace the weights, and put the ops that unpack them first."""
        replacements: dict[int, int] = {}
        by_values: dict[tuple[Any, ...], int] = {}
        first: list[Any] = []
        readers = Counter(int(n) for op in self.graph.operators for n in op.inputs)
        uses = [op for op in self.graph.operators if self.file.kind(op) in WEIGHTS_OF]
        as_weights = Counter(int(op.inputs[WEIGHTS_OF[self.file.kind(op)]]) for op in uses)
        for op in uses:
            kind = self.file.kind(op)
            position, axis = WEIGHTS_OF[kind], CHANNELS_OF[kind]
            tensor = int(op.inputs[position])
            if tensor < 0 or readers[tensor] > as_weights[tensor]:
                continue
            values = self.file.constant(self.graph.tensors[tensor])
            if values is None:
                continue
            if tensor not in replacements:
                key = (axis, values.shape, values.tobytes())
                if key not in by_values:
                    stored = smallest(values, self.storage, axis, self.norms.get(tensor))
                    by_values[key] = self._replace(tensor, stored, first)
                replacements[tensor] = by_values[key]
            op.inputs = [int(n) for n in op.inputs]
            op.inputs[position] = replacements[tensor]
        self.graph.operators = first + list(self.graph.operators)
        self._shorten_names()

    def _replace(self, tensor: int, stored: Stored, ops: list[Any]) -> int:
        """The replacement of a tensor, or the tensor itself; adds the ops that unpack it."""
        if stored.kind == "float32" and not stored.rows:
            return tensor
        shape, types = self.graph.tensors[tensor].shape, self.file.schema.TensorType
        dtype = getattr(types, stored.kind.upper())
        quantization = self._scaled(stored) if stored.kind == "int8" else None
        fields: dict[str, Any] = {"type": dtype, "quantization": quantization}
        if stored.rows:
            kept = stored.kept
            rows = {**fields, "sparsity": self._rows(kept)}
            csr = self.file.add_constant(self.graph, shape, stored.values[kept], **rows)
            dense = self.file.add_tensor(self.graph, shape, **fields)
            ops.append(self.file.add_op("DENSIFY", 1, [csr], [dense]))
        else:
            dense = self.file.add_constant(self.graph, shape, stored.values, **fields)
        if stored.kind == "float32":
            return dense
        plain = self.file.add_tensor(self.graph, shape)
        per_channel = len(stored.scales) > 1
        version = 5 if stored.rows or per_channel else 3 if stored.kind == "float16" else 2
        ops.append(self.file.add_op("DEQUANTIZE", version, [dense], [plain]))
        return plain

    def _scaled(self, stored: Stored) -> Any:
        scaled = self.file.schema.QuantizationParametersT()
        scaled.scale = stored.scales.astype(np.float32)
        scaled.zeroPoint = np.zeros(len(stored.scales), np.int64)
        scaled.quantizedDimension = stored.axis if len(stored.scales) > 1 else 0
        return scaled

    def _rows(self, kept: np.ndarray) -> Any:
        """CSR over the last axis."""
        schema = self.file.schema
        sparsity = schema.SparsityParametersT()
        sparsity.traversalOrder = np.arange(kept.ndim, dtype=np.int32)
        sparsity.dimMetadata = []
        for size in kept.shape[:-1]:
            axis = schema.DimensionMetadataT()
            axis.format, axis.denseSize = schema.DimensionType.DENSE, size
            sparsity.dimMetadata.append(axis)
        rows = kept.reshape(-1, kept.shape[-1])
        last = schema.DimensionMetadataT()
        last.format = schema.DimensionType.SPARSE_CSR
        segments = np.concatenate([[0], np.cumsum(rows.sum(1))])
        last.arraySegmentsType, last.arraySegments = index_vector(schema, segments)
        last.arrayIndicesType, last.arrayIndices = index_vector(schema, np.nonzero(rows)[1])
        sparsity.dimMetadata.append(last)
        return sparsity

    def _shorten_names(self) -> None:
        """Shorten the names of all tensors but inputs and outputs."""
        kept = {int(n) for n in (*self.graph.inputs, *self.graph.outputs)}
        for index, tensor in enumerate(self.graph.tensors):
            if index not in kept:
                tensor.name = str(index).encode()


def index_vector(schema: Any, indices: np.ndarray) -> tuple[int, Any]:
    """Type and vector of indices, in the smallest type that holds them."""
    most = int(indices.max(initial=0))
    kinds = (("Uint8Vector", np.uint8), ("Uint16Vector", np.uint16), ("Int32Vector", np.int32))
    for name, dtype in kinds:
        if most <= np.iinfo(dtype).max:
            vector = getattr(schema, f"{name}T")()
            vector.values = indices.astype(dtype)
            return getattr(schema.SparseIndexVector, name), vector
    raise ValueError(f"A tensor must have less than 2^31 elements. Received: index {most}.")
